package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// maxAnonymous is what a process may hold in memory, in MiB, however much goes
// through it.
const maxAnonymous = 150

// watched notes the most memory that each of some processes takes.
type watched struct {
	stop func()
	mu   sync.Mutex
	most map[string]int
}

// watch samples the memory of processes until stop is called.
func watch(pids map[string]int) *watched {
	w := &watched{most: map[string]int{}}
	end := make(chan struct{})
	var sampling sync.WaitGroup
	sampling.Go(func() {
		for {
			w.mu.Lock()
			for name, pid := range pids {
				w.most[name] = max(w.most[name], anonymous(pid))
			}
			w.mu.Unlock()
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	w.stop = sync.OnceFunc(func() {
		close(end)
		sampling.Wait()
	})
	return w
}

// check stops the sampling and wants all to have been bounded.
func (w *watched) check(t *testing.T) {
	t.Helper()
	w.stop()
	t.Logf("at most so many MiB of anonymous memory: %v", w.most)
	for name, got := range w.most {
		if got > maxAnonymous {
			t.Errorf("%s has had %d MiB of anonymous memory, more than %d", name, got, maxAnonymous)
		}
		if got == 0 {
			t.Errorf("the memory of %s was never seen", name)
		}
	}
}

// pids names the processes of nodes and of a command line.
func pids(nodes []*node, r *running) map[string]int {
	all := map[string]int{"the command line": r.cmd.Process.Pid}
	for _, n := range nodes {
		all["node "+n.name] = n.pid()
	}
	return all
}

func TestGigabytesStreamThroughBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 2 GB")
	}
	needProc(t)
	const chunks, chunk = 2000, 1 << 20
	nodes := swarm(t, 3)
	r := nodes[0].begin("map", "builtin:noop", "--chunk", "1M")
	w := watch(pids(nodes, r))
	defer w.stop()
	began := time.Now()
	var written atomic.Int64
	go func() {
		defer r.stdin.Close()
		block := bytes.Repeat([]byte("all of these words go through the swarm. "), chunk/41+1)[:chunk]
		block[chunk-1] = '\n'
		for i := range chunks {
			copy(block, fmt.Sprintf("%08d ", i)) // no two are the same
			if _, err := r.stdin.Write(block); err != nil {
				return
			}
			written.Add(1)
		}
	}()
	out := bufio.NewReader(r.stdout)
	lines := 0
	for {
		line, err := out.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil || line != "\n" {
			t.Fatalf("output %d is %q: %v", lines, line, err)
		}
		if lines++; lines == 1 {
			if done := written.Load(); done == chunks {
				t.Error("no output came before the input ended")
			} else {
				t.Logf("the first output came after %v and %d MiB", time.Since(began), done)
			}
		}
	}
	r.await(0)
	took := time.Since(began)
	if lines != chunks {
		t.Errorf("%d outputs, want %d", lines, chunks)
	}
	t.Logf("%d MiB in %v: %.0f MiB/s", chunks, took, chunks/took.Seconds())
	w.check(t)
	eventually(t, patience, "the space is given back", func() bool {
		return nodes[0].status().BytesStored < 100<<20
	})
}

func TestOutputsFlowWhileTheInputIsOpen(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	r := n.begin("map", "builtin:upper")
	out := bufio.NewReader(r.stdout)
	for i := range 3 {
		if _, err := fmt.Fprintf(r.stdin, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		got, err := out.ReadString('\n')
		if want := fmt.Sprintf("LINE %d\n", i); got != want || err != nil {
			t.Fatalf("while stdin is open the output %d is %q (%v), want %q", i, got, err, want)
		}
	}
	_ = r.stdin.Close()
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("after the last output came %q, %v", rest, err)
	}
	r.await(0)
}

func TestALargeFileComesBackAsItWas(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 300 MB to and fro")
	}
	needProc(t)
	nodes := swarm(t, 3)
	dir := folder(t)
	input := filepath.Join(dir, "input")
	want := randomFile(t, input, 300_000_000)
	r := nodes[1].begin("map", "builtin:cat", "--files", input, "--out", filepath.Join(dir, "out"), "--max-output", "400")
	_ = r.stdin.Close()
	w := watch(pids(nodes, r))
	defer w.stop()
	began := time.Now()
	if out, err := io.ReadAll(r.stdout); len(out) > 0 || err != nil {
		t.Errorf("stdout has %q, %v", out, err)
	}
	r.await(0)
	t.Logf("there and back in %v", time.Since(began))
	w.check(t)
	if got := sumOf(t, filepath.Join(dir, "out", "0")); got != want {
		t.Errorf("the output has the hash %s, the input %s", got, want)
	}
	if names, _ := os.ReadDir(filepath.Join(dir, "out")); len(names) != 1 {
		t.Errorf("the folder of the outputs holds %v", names)
	}
}

// randomFile writes a file of random bytes and returns its hash.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	source := rand.NewChaCha8([32]byte([]byte(strings.Repeat("e2e.", 8))))
	_, err = io.CopyN(io.MultiWriter(f, h), source, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
