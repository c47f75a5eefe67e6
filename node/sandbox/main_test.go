package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	if node := os.Getenv(helperVariable); node != "" {
		os.Exit(helperNode(node))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		_ = os.RemoveAll(sharedCachePath())
		os.Exit(status)
	}))
}

func sharedCachePath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("ostrich-sandbox-test-%d", os.Getpid()))
}

// sharedCache returns a folder for compiled programs that all tests of this
// process may share, so that what takes seconds to compile is compiled once.
func sharedCache(t testing.TB) string {
	t.Helper()
	path := sharedCachePath()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// testPool returns a pool that ends with the test.
func testPool(t testing.TB, o Options) *Pool {
	t.Helper()
	if o.Slots == 0 {
		o.Slots = 1
	}
	p := New(o)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

// moduleFile writes a module to a file and returns it as a program.
func moduleFile(t testing.TB, module []byte) Program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program.wasm")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		t.Fatal(err)
	}
	return Program{Hash: wire.HashOf(module), Path: path}
}

// builtin returns a built-in program.
func builtin(t testing.TB, name string) Program {
	t.Helper()
	module, ok := programs.Get(name)
	if !ok {
		t.Fatalf("there is no built-in program %s", name)
	}
	return moduleFile(t, module)
}

// testProgram returns a program of testdata.
func testProgram(t testing.TB, name string) Program {
	t.Helper()
	path := filepath.Join("testdata", name+".wasm")
	module, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Program{Hash: wire.HashOf(module), Path: path}
}

// runAll runs tasks and returns their results.
func runAll(t testing.TB, p *Pool, prog Program, tasks ...Task) []Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var results []Result
	err := p.Run(ctx, prog, tasks, func(i int, r Result) {
		if i != len(results) {
			t.Errorf("result of task %d came at place %d", i, len(results))
		}
		results = append(results, r)
	})
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	if len(results) != len(tasks) {
		t.Fatalf("%d results of %d tasks", len(results), len(tasks))
	}
	return results
}

// wantOK checks that a task ended well with the given output.
func wantOK(t testing.TB, r Result, stdout string) {
	t.Helper()
	if r.Failure != wire.FailureKind_FAILURE_KIND_UNSPECIFIED || r.Error != "" || r.ExitCode != 0 {
		t.Fatalf("task failed: %v (exit %d): %s; stderr %q", r.Failure, r.ExitCode, r.Error, r.Stderr)
	}
	if !bytes.Equal(r.Stdout, []byte(stdout)) {
		t.Fatalf("stdout = %q, want %q", cut(string(r.Stdout), 2000), stdout)
	}
	if r.StdoutSize != uint64(len(stdout)) {
		t.Fatalf("StdoutSize = %d, want %d", r.StdoutSize, len(stdout))
	}
}
