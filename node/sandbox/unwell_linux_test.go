package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// starve takes from all children of p what they may have beyond what is in use.
func starve(t *testing.T, p *Pool) {
	t.Helper()
	for _, c := range aliveChildren(p) {
		limit := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_DATA, &limit, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAChildWithALimitBelowItsUseIsReplacedAndTheTaskSucceeds(t *testing.T) {
	p := testPool(t, Options{CacheDir: sharedCache(t)})
	upper := builtin(t, "upper")
	// The same bound and another one, the same program and another one.
	for _, memory := range []uint32{16, 16, 32, 1024} {
		wantOK(t, runAll(t, p, upper, Task{Stdin: []byte("on"), MemoryMiB: 16})[0], "ON")
		starve(t, p)
		for _, r := range runAll(t, p, upper, Task{Stdin: []byte("on"), MemoryMiB: memory}, Task{Stdin: []byte("on"), MemoryMiB: memory}) {
			wantOK(t, r, "ON")
		}
		starve(t, p)
		wantOK(t, runAll(t, p, builtin(t, "cat"), Task{Stdin: []byte("on"), MemoryMiB: memory})[0], "on")
		starve(t, p)
		if err := p.Check(context.Background(), testProgram(t, "wordcount-go").Path); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	if s := p.Status(); s.Unwell != "" {
		t.Errorf("the pool is unwell: %s", s.Unwell)
	}
}

func TestAChildThatIsStarvedInABatchCostsNoTask(t *testing.T) {
	p := testPool(t, Options{})
	tasks := make([]Task, 600)
	for i := range tasks {
		tasks[i] = Task{Stdin: []byte("on"), MemoryMiB: uint32(16 + i)} // the limit is set anew for each
	}
	err := p.Run(context.Background(), builtin(t, "upper"), tasks, func(i int, r Result) {
		if i == 50 {
			starve(t, p)
		}
		wantOK(t, r, "ON")
	})
	if err != nil {
		t.Error(err)
	}
}

// someTables is a module with tables of 10 million references each, as many as
// fit into a sandbox.
func someTables(count byte) []byte {
	tables := []byte{count}
	for range count {
		tables = binary.AppendUvarint(append(tables, 0x70, 0), 10_000_000)
	}
	return join(preamble, voidType, oneFunc, section(4, tables...), oneMemory, exports, emptyBody)
}

func TestAChildThatATaskMadeLargeIsReplaced(t *testing.T) {
	if raceEnabled {
		t.Skip("what is in use is no measure beside the race detector")
	}
	p := testPool(t, Options{})
	large := moduleFile(t, someTables(6))
	for _, next := range []Program{large, builtin(t, "upper")} {
		wantOK(t, runAll(t, p, large, Task{MemoryMiB: 16})[0], "")
		first := aliveChildren(p)[0]
		wantOK(t, runAll(t, p, next, Task{MemoryMiB: 16})[0], "")
		if now := aliveChildren(p); len(now) != 1 || now[0] == first {
			t.Errorf("%d children, the one of the large task among them: %v", len(now), now[0] == first)
		}
	}
}

// breakable returns an executable whose processes are children of a sandbox
// that begin with the given line of shell while breaks says so.
func breakable(t *testing.T, line string) (path string, breaks func(bool)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, flag := filepath.Join(dir, "ostrich"), filepath.Join(dir, "breaks")
	script := fmt.Sprintf("#!/bin/sh\nif [ -e %q ]; then %s; fi\nexec %q sandbox\n", flag, line, self)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, func(yes bool) {
		if yes {
			err = os.WriteFile(flag, nil, 0o600)
		} else {
			err = os.Remove(flag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestThreeBrokenChildrenInARowAreToldAndHealByThemselves(t *testing.T) {
	for name, line := range map[string]string{
		"they do not start":         "exit 1",
		"they may have no data":     "ulimit -d 1000",
		"they may have little data": "ulimit -d 130000",
	} {
		t.Run(name, func(t *testing.T) {
			path, breaks := breakable(t, line)
			p := testPool(t, Options{Executable: path, probeEvery: 50 * time.Millisecond})
			upper := builtin(t, "upper")
			task := Task{Stdin: []byte("on"), MemoryMiB: 64}
			breaks(true)
			err := p.Run(context.Background(), upper, []Task{task}, func(_ int, r Result) {
				t.Errorf("a task ended: %v %q", r.Failure, r.Error)
			})
			if err == nil {
				t.Fatal("Run: no error")
			}
			why, changed := p.Unwell()
			if why == "" || p.Status().Unwell != why {
				t.Fatalf("Run: %v; unwell %q", err, why)
			}
			t.Logf("unwell: %s", why)
			for what, err := range map[string]error{
				"Run":   p.Run(context.Background(), upper, []Task{task}, nil),
				"Check": p.Check(context.Background(), upper.Path),
			} {
				if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !strings.Contains(err.Error(), "its sandbox breaks, whatever the program") {
					t.Errorf("%s while it is unwell: %v", what, err)
				}
			}
			breaks(false)
			<-changed
			if why, _ := p.Unwell(); why != "" {
				t.Errorf("unwell: %s", why)
			}
			wantOK(t, runAll(t, p, upper, task)[0], "ON")
		})
	}
}

func TestACheckThatBrokenChildrenCannotMakeBlamesNoProgram(t *testing.T) {
	path, breaks := breakable(t, "ulimit -d 130000")
	p := testPool(t, Options{Executable: path})
	breaks(true)
	if err := p.Check(context.Background(), testProgram(t, "wordcount-go").Path); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Check: %v (%v)", err, wire.CodeOf(err))
	}
}

func TestProgramsThatBreakEveryChildLeaveThePoolWell(t *testing.T) {
	if raceEnabled {
		t.Skip("the system's limit is no measure beside the race detector")
	}
	p := testPool(t, Options{})
	for i, r := range runAll(t, p, moduleFile(t, hugeTables(20)), make([]Task, 4)...) {
		if r.Failure != wire.FailureKind_FAILURE_KIND_MEMORY {
			t.Errorf("task %d: %v %q", i, r.Failure, r.Error)
		}
	}
	if s := p.Status(); s.Unwell != "" {
		t.Errorf("the pool is unwell: %s", s.Unwell)
	}
	if err := p.Probe(context.Background()); err != nil {
		t.Error(err)
	}
}
