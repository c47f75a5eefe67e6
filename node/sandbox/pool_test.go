package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// aliveChildren returns the living children of p.
func aliveChildren(p *Pool) []*child {
	p.mu.Lock()
	defer p.mu.Unlock()
	var children []*child
	for c := range p.alive {
		children = append(children, c)
	}
	return children
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAChildIsReusedFromTaskToTaskAndFromProgramToProgram(t *testing.T) {
	p := testPool(t, Options{})
	var first *child
	for range 3 {
		for _, prog := range []Program{builtin(t, "noop"), builtin(t, "upper")} {
			wantOK(t, runAll(t, p, prog, Task{})[0], "")
			children := aliveChildren(p)
			if len(children) != 1 || (first != nil && children[0] != first) {
				t.Fatalf("%d children, the first one among them: %v", len(children), first == children[0])
			}
			first = children[0]
		}
	}
}

func TestAProgramIsCompiledOnceAcrossChildren(t *testing.T) {
	dir := t.TempDir()
	prog := testProgram(t, "wordcount-go")
	took := make([]time.Duration, 2)
	for i := range took {
		p := New(Options{Slots: 1, CacheDir: dir})
		start := time.Now()
		wantOK(t, runAll(t, p, prog, Task{Stdin: []byte("a")})[0], "1 a\n")
		took[i] = time.Since(start)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("first start %v, second %v", took[0], took[1])
	if took[1] > took[0]*2/3 {
		t.Errorf("the second start took %v, the first %v", took[1], took[0])
	}
}

func TestAKilledChildCostsOneTask(t *testing.T) {
	p := testPool(t, Options{})
	tasks := make([]Task, 200)
	for i := range tasks {
		tasks[i].Stdin = []byte("n")
	}
	tasks[100] = Task{} // loops until its child is killed
	failed := 0
	err := p.Run(context.Background(), testProgram(t, "loop"), tasks, func(i int, r Result) {
		if i == 99 {
			time.AfterFunc(20*time.Millisecond, aliveChildren(p)[0].kill)
		}
		if r.Error == "" {
			return
		}
		failed++
		if i != 100 || r.Failure != wire.FailureKind_FAILURE_KIND_INTERNAL || !strings.Contains(r.Error, "its sandbox ended") {
			t.Errorf("task %d: %v %q", i, r.Failure, r.Error)
		}
	})
	if err != nil || failed != 1 {
		t.Errorf("%d tasks failed, error %v", failed, err)
	}
}

func TestAChildThatDiedIdleCostsNothing(t *testing.T) {
	p := testPool(t, Options{})
	prog := builtin(t, "noop")
	for range 3 {
		wantOK(t, runAll(t, p, prog, Task{})[0], "")
		aliveChildren(p)[0].kill()
	}
	if err := p.Check(context.Background(), prog.Path); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestTheEndOfTheContextKillsWhatRuns(t *testing.T) {
	p := testPool(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	err := p.Run(ctx, testProgram(t, "loop"), make([]Task, 3), func(i int, r Result) {
		t.Errorf("task %d ended: %+v", i, r)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	eventually(t, "no child lives", func() bool { return p.Status() == Status{Slots: 1} })
}

func TestTheEndOfTheContextEndsTheWaitForASlot(t *testing.T) {
	p := testPool(t, Options{})
	p.SetSlots(0)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := p.Run(ctx, builtin(t, "noop"), make([]Task, 1), func(int, Result) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
}

func TestSlotsBoundWhatRunsAndMayChange(t *testing.T) {
	p := testPool(t, Options{Slots: 1})
	prog := testProgram(t, "loop")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := p.Run(ctx, prog, make([]Task, 1), func(int, Result) {}); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		})
	}
	for _, n := range []int{1, 3} {
		p.SetSlots(n)
		eventually(t, "as many children run as there are slots", func() bool {
			return p.Status() == Status{Slots: n, Children: n, Running: n}
		})
	}
	cancel()
	wg.Wait()
}

func TestAnIdleChildEnds(t *testing.T) {
	p := testPool(t, Options{Idle: 30 * time.Millisecond})
	wantOK(t, runAll(t, p, builtin(t, "noop"), Task{})[0], "")
	eventually(t, "no child lives", func() bool { return p.Status().Children == 0 })
	wantOK(t, runAll(t, p, builtin(t, "noop"), Task{})[0], "")
}

func TestCloseEndsWhatRunsAndMayBeCalledTwice(t *testing.T) {
	p := New(Options{Slots: 1})
	prog := testProgram(t, "loop")
	errs := make(chan error)
	for range 2 { // one runs, one waits
		go func() {
			errs <- p.Run(context.Background(), prog, make([]Task, 1), func(int, Result) {})
		}()
	}
	eventually(t, "a child runs", func() bool { return p.Status().Children == 1 })
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for range 2 {
		if err := <-errs; wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
			t.Errorf("Run: %v", err)
		}
	}
	if err := p.Run(context.Background(), prog, nil, nil); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Run on a closed pool: %v", err)
	}
	if err := p.Check(context.Background(), prog.Path); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Check on a closed pool: %v", err)
	}
	if got := p.Status().Children; got != 0 {
		t.Errorf("%d children live after Close", got)
	}
}

func TestAnExecutableThatIsNoSandboxIsAnError(t *testing.T) {
	for _, path := range []string{"/nonexistent/ostrich", "/bin/true"} {
		p := testPool(t, Options{Executable: path})
		err := p.Run(context.Background(), builtin(t, "noop"), make([]Task, 1), func(int, Result) {})
		if wire.CodeOf(err) != wire.Code_CODE_INTERNAL || !strings.Contains(err.Error(), "sandbox child") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestCompilationHasATimeOfItsOwn(t *testing.T) {
	p := testPool(t, Options{compileTimeout: time.Millisecond})
	prog := testProgram(t, "wordcount-go")
	for _, r := range runAll(t, p, prog, Task{}, Task{}) {
		if r.Failure != wire.FailureKind_FAILURE_KIND_INTERNAL || !strings.Contains(r.Error, "compiling it took longer than 1ms") {
			t.Errorf("got %v %q", r.Failure, r.Error)
		}
	}
	if err := p.Check(context.Background(), prog.Path); wire.CodeOf(err) != wire.Code_CODE_INVALID || !strings.Contains(err.Error(), "longer than 1ms") {
		t.Errorf("Check: %v", err)
	}
	patient := testPool(t, Options{CacheDir: sharedCache(t)})
	wantOK(t, runAll(t, patient, prog, Task{Stdin: []byte("a"), Timeout: 500 * time.Millisecond})[0], "1 a\n")
}

func TestADamagedFolderOfCompiledProgramsDoesNoHarm(t *testing.T) {
	dir := t.TempDir()
	prog := builtin(t, "upper")
	run := func() {
		p := New(Options{Slots: 1, CacheDir: dir})
		defer p.Close()
		wantOK(t, runAll(t, p, prog, Task{Stdin: []byte("a")})[0], "A")
	}
	run()
	files := cachedFiles(dir)
	if len(files) != 1 {
		t.Fatalf("%d files in the folder, want 1", len(files))
	}
	for _, size := range []int64{0, 30, files[0].size - 1} {
		if err := os.Truncate(files[0].path, size); err != nil {
			t.Fatal(err)
		}
		run() // finds the damage
		run() // compiles into the folder again
		if again := cachedFiles(dir); len(again) != 1 || again[0].size != files[0].size {
			t.Errorf("cut to %d bytes: the folder holds %v", size, again)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run()
}

func TestTheFolderOfCompiledProgramsIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"c", "a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		made := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(path, made, made); err != nil {
			t.Fatal(err)
		}
	}
	pruneCache(dir, 200)
	if files := cachedFiles(dir); len(files) != 2 || filepath.Base(files[0].path) != "a" || filepath.Base(files[1].path) != "b" {
		t.Errorf("left: %v", files)
	}
}
