package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/control/controltest"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// actAsOstrich makes the test binary the program itself, for tests of whole
// processes.
const actAsOstrich = "OSTRICH_TEST_MAIN"

func TestMain(m *testing.M) {
	if sandbox.IsChild() || browserbridge.IsChild() || os.Getenv(actAsOstrich) == "1" {
		main()
	}
	time.Local = time.UTC
	os.Exit(m.Run())
}

// box is a data folder whose socket the fake serves.
type box struct {
	dir     string
	service *controltest.Service
	server  *control.Server
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{dir: t.TempDir(), service: controltest.New()}
	b.server = control.NewServer(control.ServerConfig{Service: b.service, DataDir: b.dir, Listen: "127.0.0.1:0"})
	if err := b.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Close() })
	return b
}

// call runs a command line on the box.
func (b *box) call(t *testing.T, stdin string, args ...string) (status int, out, errOut string) {
	t.Helper()
	return b.callWith(t.Context(), strings.NewReader(stdin), args...)
}

func (b *box) callWith(ctx context.Context, in io.Reader, args ...string) (status int, out, errOut string) {
	var o, e bytes.Buffer
	status = run(ctx, append([]string{"--data", b.dir}, args...), in, &o, &e)
	return status, o.String(), e.String()
}

// submit makes a detached job with three results, the second a failure.
func (b *box) submit(t *testing.T, id string) {
	t.Helper()
	b.service.Compute = func(_ *wire.JobSpec, i uint32, in []byte) *wire.TaskResult {
		if i == 1 {
			return controltest.Fail(3, "first line\nsecond line\n")
		}
		return controltest.Echo(nil, i, in)
	}
	status, _, errOut := b.call(t, "a\nb\nc", "map", "builtin:cat", "--detach", "--keep-going", "--id", id)
	if status != 0 {
		t.Fatalf("submitting: status %d: %s", status, errOut)
	}
}

// golden compares got with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update to accept):\n got: %s\nwant: %s", path, got, want)
	}
}

// A library's "time=250ms" took the node down once: only the record's own time
// is a time.
func TestTheLogTakesAnyAttribute(t *testing.T) {
	var out bytes.Buffer
	slog.New(logHandler(&out)).Info("slow", "time", 250*time.Millisecond)
	if got := out.String(); !strings.Contains(got, "time=250ms") {
		t.Errorf("the line is %q, want the attribute in it", got)
	}
}
