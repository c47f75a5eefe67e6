package browserbridge_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
)

// panicFile is what makes a stack's process panic, in its temporary folder.
const panicFile = "panic-now"

// panicWhenAsked is a bug in the stack: a panic of a goroutine that is nobody's.
func panicWhenAsked() {
	for {
		if _, err := os.Stat(filepath.Join(os.TempDir(), panicFile)); err == nil {
			panic("a bug in the stack")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sayings is a log that a test reads.
type sayings struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sayings) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sayings) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// newOutside is newHarness with the stack in a process of its own, as nodes have
// it, and a folder in which panicFile ends that.
func newOutside(t *testing.T) (h *harness, said *sayings, dir string) {
	dir = t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	said = &sayings{}
	h = newHarness(t, func(c *browserbridge.Config) { c.Log = slog.New(slog.NewTextHandler(said, nil)) })
	h.PutOutside()
	return h, said, dir
}

func TestTheStackHasAProcessWhileThereAreBrowsers(t *testing.T) {
	h, _, _ := newOutside(t)
	h.SetStackIdle(50 * time.Millisecond)
	if h.StackRuns() {
		t.Error("there is a process before a browser comes")
	}
	browser := h.connect(t, "browser")
	channel, stream := h.session(t, browser)
	go func() {
		io.Copy(stream, stream)
		stream.Close()
	}()
	want := bytes.Repeat([]byte("there and back"), 100_000)
	go channel.Write(want)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(channel, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes came back, %v", err)
	}
	if !h.StackRuns() {
		t.Error("there is no process")
	}
	browser.Close()
	eventually(t, "the process ends when nobody uses it", func() bool { return !h.StackRuns() })
	h.session(t, h.connect(t, "another"))
}

func TestAPanicOfTheStackEndsItsConnectionsAndNothingElse(t *testing.T) {
	h, said, dir := newOutside(t)
	first, stream := h.session(t, h.connect(t, "first"))
	_, other := h.session(t, h.connect(t, "second"))
	flag := filepath.Join(dir, panicFile)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []io.Reader{stream, other} {
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a session ended with %v, as by a goodbye, which frees its leases", err)
		}
	}
	eventually(t, "all is given back", func() bool { return h.Status() == (browserbridge.Status{}) })
	eventually(t, "the log says why", func() bool { return said.has("panic: a bug in the stack") && said.has("panicWhenAsked") })
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	first.Close()
	channel, again := h.session(t, h.connect(t, "first"))
	if _, err := channel.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(again, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestAStackThatEndsAgainAndAgainIsNotStartedWithoutEnd(t *testing.T) {
	h, said, dir := newOutside(t)
	if err := os.WriteFile(filepath.Join(dir, panicFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 20 {
		if err = h.tryConnect(t, "browser"); err != nil && strings.Contains(err.Error(), "several times") {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "several times") {
		t.Errorf("got %v, want a refusal that says that it has ended several times", err)
	}
	if !said.has("panic: a bug in the stack") {
		t.Error("the log does not say why")
	}
	if err := os.Remove(filepath.Join(dir, panicFile)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started again after a while", func() bool {
		time.Sleep(300 * time.Millisecond) // requests have a limit, too
		return h.tryConnect(t, "browser") == nil
	})
}
