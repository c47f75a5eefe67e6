package sandbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestTasksThatBreakABoundFailAloneAndSayWhich(t *testing.T) {
	p := testPool(t, Options{})
	for _, c := range []struct {
		name, program string
		task          Task
		kind          wire.FailureKind
		exit          uint32
		text          string
		stdout        string
	}{
		{"exit", "exit", Task{Args: []string{"exit", "3"}}, wire.FailureKind_FAILURE_KIND_EXIT, 3, "exit status 3", "before the end\n"},
		{"trap", "trap", Task{}, wire.FailureKind_FAILURE_KIND_TRAP, 0, "trap: unreachable", "before the trap\n"},
		{"loop", "loop", Task{Timeout: 100 * time.Millisecond}, wire.FailureKind_FAILURE_KIND_TIMEOUT, 0, "longer than its bound of 100ms", ""},
		{"exponential recursion", "recurse", Task{Timeout: 100 * time.Millisecond}, wire.FailureKind_FAILURE_KIND_TIMEOUT, 0, "longer than", ""},
		{"endless recursion", "recurse", Task{Args: []string{"recurse", "deep"}}, wire.FailureKind_FAILURE_KIND_TRAP, 0, "trap: stack overflow", ""},
		{"memory", "hog", Task{MemoryMiB: 32}, wire.FailureKind_FAILURE_KIND_MEMORY, 0, "more memory than its bound of 32 MiB", ""},
		{"stdout", "flood", Task{Args: []string{"flood", "1", "65"}, MaxOutput: 64 << 10}, wire.FailureKind_FAILURE_KIND_OUTPUT, 0, "passed its bound of 64 KiB", ""},
		{"stdout without a file", "flood", Task{Args: []string{"flood", "1", "65"}}, wire.FailureKind_FAILURE_KIND_INTERNAL, 0, "gave no file", ""},
		{"stdin that is not there", "show", Task{StdinPath: "testdata/none"}, wire.FailureKind_FAILURE_KIND_INTERNAL, 0, "input cannot be read", ""},
		{"too large stdin", "show", Task{Stdin: make([]byte, MaxInlineInput+1)}, wire.FailureKind_FAILURE_KIND_INTERNAL, 0, "did not come as a file", ""},
		{"zero byte", "show", Task{Args: []string{"a\x00b"}}, wire.FailureKind_FAILURE_KIND_INTERNAL, 0, "zero byte", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if raceEnabled && c.name == "endless recursion" {
				t.Skip("a deep stack does not fit beside the race detector")
			}
			prog := testProgram(t, c.program)
			r := runAll(t, p, prog, c.task)[0]
			if r.Failure != c.kind || r.ExitCode != c.exit || !strings.Contains(r.Error, c.text) {
				t.Errorf("got %v, exit %d, %q; want %v, exit %d, %q", r.Failure, r.ExitCode, r.Error, c.kind, c.exit, c.text)
			}
			if string(r.Stdout) != c.stdout || r.StdoutSize != uint64(len(c.stdout)) {
				t.Errorf("stdout = %q (%d), want %q", r.Stdout, r.StdoutSize, c.stdout)
			}
			wantOK(t, runAll(t, p, builtin(t, "upper"), Task{Stdin: []byte("on")})[0], "ON")
		})
	}
}

func TestABrokenBoundCostsOnlyItsTask(t *testing.T) {
	p := testPool(t, Options{})
	tasks := make([]Task, 700)
	for i := range tasks {
		tasks[i] = Task{Stdin: []byte("n"), Timeout: time.Minute}
	}
	for _, i := range []int{0, 1, 350, 699} {
		tasks[i] = Task{Timeout: 50 * time.Millisecond}
	}
	for i, r := range runAll(t, p, testProgram(t, "loop"), tasks...) {
		want := wire.FailureKind_FAILURE_KIND_UNSPECIFIED
		if len(tasks[i].Stdin) == 0 {
			want = wire.FailureKind_FAILURE_KIND_TIMEOUT
		}
		if r.Failure != want {
			t.Fatalf("task %d: %v (%s), want %v", i, r.Failure, r.Error, want)
		}
	}
}

func TestRefusedMemoryIsNoFailureForAProgramThatCopes(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, testProgram(t, "hog"),
		Task{Args: []string{"hog", "1000", "cope"}, MemoryMiB: 32},
		Task{Args: []string{"hog", "100"}, MemoryMiB: 128},
		Task{Args: []string{"hog", "20"}, MemoryMiB: 32})
	wantOK(t, r[0], "")
	wantOK(t, r[1], "100 MiB\n")
	wantOK(t, r[2], "20 MiB\n")
}

func TestMemoryOfATaskIsCleanWhateverRanBefore(t *testing.T) {
	p := testPool(t, Options{})
	var tasks []Task
	// The bound falls, so that what is reserved for one task serves the next.
	for _, mb := range []string{"0", "0", "3", "0", "40", "0", "3", "0"} {
		tasks = append(tasks, Task{Args: []string{"dirty", mb}, MemoryMiB: uint32(128 - len(tasks))})
	}
	for i, r := range runAll(t, p, testProgram(t, "dirty"), tasks...) {
		if r.Error != "" {
			t.Errorf("task %d: %s", i, r.Error)
		}
	}
}

func TestAProgramGetsItsArgumentsEnvironmentAndInput(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, testProgram(t, "show"), Task{
		Args: []string{"show", "", "two words", "ünï"}, Env: []string{"K=V", "EMPTY="}, Stdin: []byte("12345"),
	}, Task{})
	wantOK(t, r[0], "arg 0 <show>\narg 1 <>\narg 2 <two words>\narg 3 <ünï>\nenv <K=V>\nenv <EMPTY=>\nstdin 5\n")
	wantOK(t, r[1], "stdin 0\n")
}

func TestTheEndOfStderrIsKept(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, testProgram(t, "flood"), Task{Args: []string{"flood", "2", "100000"}})[0]
	wantOK(t, r, "")
	if len(r.Stderr) != wire.MaxStderr || !bytes.HasPrefix(r.Stderr, []byte("00099996.")) || !bytes.HasSuffix(r.Stderr, []byte(".\n")) {
		t.Errorf("stderr has %d bytes and begins with %q", len(r.Stderr), r.Stderr[:min(20, len(r.Stderr))])
	}
}

func TestOutputAboveTheInlineBoundGoesToItsFile(t *testing.T) {
	p := testPool(t, Options{})
	path := func(i int) string { return filepath.Join(t.TempDir(), fmt.Sprint(i)) }
	inline := Task{Args: []string{"flood", "1", "64"}, OutputPath: path(0)}
	file := Task{Args: []string{"flood", "1", "65"}, OutputPath: path(1)}
	flood := Task{Args: []string{"flood", "1", "20000"}, OutputPath: path(2), MaxOutput: 1 << 20}
	late := Task{Args: []string{"flood", "1", "100000000"}, OutputPath: path(3), MaxOutput: 1 << 40, Timeout: 100 * time.Millisecond}
	r := runAll(t, p, testProgram(t, "flood"), inline, file, flood, late)
	if r[0].StdoutPath != "" || len(r[0].Stdout) != InlineOutput {
		t.Errorf("an output of 64 KiB: path %q, %d bytes inline", r[0].StdoutPath, len(r[0].Stdout))
	}
	got, err := os.ReadFile(file.OutputPath)
	if err != nil || r[1].StdoutPath != file.OutputPath || r[1].StdoutSize != 65<<10 || len(got) != 65<<10 || r[1].Stdout != nil {
		t.Errorf("an output of 65 KiB: %+v, %d bytes in the file, %v", r[1], len(got), err)
	}
	if r[2].Failure != wire.FailureKind_FAILURE_KIND_OUTPUT || r[3].Failure != wire.FailureKind_FAILURE_KIND_TIMEOUT {
		t.Errorf("floods: %v %s, %v %s", r[2].Failure, r[2].Error, r[3].Failure, r[3].Error)
	}
	for _, task := range []Task{inline, flood, late} {
		if _, err := os.Stat(task.OutputPath); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", task.OutputPath, err)
		}
	}
}

func TestLargeInputAndOutputPassThroughFiles(t *testing.T) {
	p := testPool(t, Options{})
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	want := sha256.New()
	file, err := os.Create(in)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for i := range 64 {
		random := stream{seed: Seed("large", uint32(i))}
		random.read(block)
		if _, err := io.MultiWriter(file, want).Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	r := runAll(t, p, builtin(t, "cat"), Task{StdinPath: in, OutputPath: out, MaxOutput: 64 << 20, MemoryMiB: 1})[0]
	if r.Error != "" || r.StdoutPath != out || r.StdoutSize != 64<<20 {
		t.Fatalf("result: %+v", r)
	}
	got := sha256.New()
	file, err = os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(got, file); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the output differs from the input")
	}
}

func TestResultsComeInOrderWhateverTheirSize(t *testing.T) {
	p := testPool(t, Options{})
	tasks := make([]Task, 600)
	for i := range tasks {
		tasks[i].Stdin = bytes.Repeat([]byte{byte('a' + i%26)}, i*37%60_000)
	}
	for i, r := range runAll(t, p, builtin(t, "upper"), tasks...) {
		wantOK(t, r, string(bytes.ToUpper(tasks[i].Stdin)))
	}
}

func TestLastResultsAreNotHeldBackByATaskThatHangs(t *testing.T) {
	p := testPool(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tasks := []Task{{Stdin: []byte("n")}, {Stdin: []byte("n")}, {Stdin: []byte("n")}, {}}
	var got int
	err := p.Run(ctx, testProgram(t, "loop"), tasks, func(i int, _ Result) {
		if got = i + 1; got == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || got != 3 {
		t.Errorf("%d results, error %v", got, err)
	}
}

func TestAProgramThatCannotRunFailsEachTask(t *testing.T) {
	p := testPool(t, Options{})
	prog := moduleFile(t, []byte("#!/bin/sh\n"))
	damaged := builtin(t, "noop")
	damaged.Hash[0]++
	for _, c := range []struct {
		prog Program
		text string
	}{
		{prog, "not WebAssembly"},
		{damaged, "is damaged"},
		{Program{Path: filepath.Join(t.TempDir(), "none")}, "cannot be read"},
	} {
		for _, r := range runAll(t, p, c.prog, make([]Task, 300)...) {
			if r.Failure != wire.FailureKind_FAILURE_KIND_INTERNAL || !strings.Contains(r.Error, c.text) {
				t.Fatalf("got %v %q, want %q", r.Failure, r.Error, c.text)
			}
		}
		wantOK(t, runAll(t, p, builtin(t, "noop"), Task{})[0], "")
	}
}

func TestProgramsOfGoRunUnchanged(t *testing.T) {
	p := testPool(t, Options{CacheDir: sharedCache(t)})
	text := []byte("the quick  brown\tfox\njumps over the lazy dog. The end\r\nthe")
	want := "1 The\n1 brown\n1 dog.\n1 end\n1 fox\n1 jumps\n1 lazy\n1 over\n1 quick\n3 the\n"
	wantOK(t, runAll(t, p, builtin(t, "wordcount"), Task{Stdin: text})[0], want)
	wantOK(t, runAll(t, p, testProgram(t, "wordcount-go"), Task{Stdin: text})[0], want)
}

func TestTilesOfAPictureFitTogether(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, builtin(t, "render"), Task{Stdin: []byte("0 0 16 12 16 12\n")}, Task{Stdin: []byte("5 7 8 4 16 12")},
		Task{Stdin: []byte("9 0 8 4 16 12")}, Task{Stdin: []byte("hello")})
	if len(r[0].Stdout) != 16*12*3 || len(r[1].Stdout) != 8*4*3 {
		t.Fatalf("tiles of %d and %d bytes", len(r[0].Stdout), len(r[1].Stdout))
	}
	for y := range 4 {
		at := ((y+7)*16 + 5) * 3
		if got, want := r[1].Stdout[y*8*3:][:8*3], r[0].Stdout[at:][:8*3]; !bytes.Equal(got, want) {
			t.Errorf("row %d: %x, want %x", y, got, want)
		}
	}
	for _, r := range r[2:] {
		if r.ExitCode != 1 || !bytes.Contains(r.Stderr, []byte("stdin must be")) {
			t.Errorf("a tile that is none: exit %d, stderr %q", r.ExitCode, r.Stderr)
		}
	}
}

func TestSpinDoesTheSameWorkEachTime(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, builtin(t, "spin"), Task{Args: []string{"spin", "0"}}, Task{Args: []string{"spin", "1000"}}, Task{Args: []string{"spin", "1000"}})
	wantOK(t, r[0], "9e3779b97f4a7c15\n")
	wantOK(t, r[1], string(r[2].Stdout))
}
