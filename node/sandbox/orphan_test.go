package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// helperVariable makes this binary a node of its own: see helperNode.
const helperVariable = "OSTRICH_SANDBOX_TEST_NODE"

// helperNode runs a program that never ends in two children, prints their
// process IDs once they are at it, and waits to be killed. A node that is
// "bare" does not ask the system to end its children.
func helperNode(kind string) int {
	p := New(Options{Slots: 2, orphanable: kind == "bare"})
	module, err := os.ReadFile("testdata/loop.wasm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	prog := Program{Hash: wire.HashOf(module), Path: "testdata/loop.wasm"}
	begun := make(chan struct{}, 2)
	for range 2 {
		go func() {
			// The second task loops; more input is on the way to its child then.
			tasks := []Task{{Stdin: []byte("n")}, {}}
			for range 500 {
				tasks = append(tasks, Task{Stdin: []byte(strings.Repeat("n", 10_000))})
			}
			_ = p.Run(context.Background(), prog, tasks, func(i int, _ Result) {
				if i == 0 {
					begun <- struct{}{}
				}
			})
		}()
	}
	<-begun
	<-begun
	time.Sleep(50 * time.Millisecond) // the children are in the loop
	for _, c := range aliveChildren(p) {
		fmt.Println(c.cmd.Process.Pid)
	}
	fmt.Println("ready")
	select {}
}

// processEnded reports whether there is no such process, or only what is left
// of one that nobody has waited for.
func processEnded(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

func TestChildrenDieWithTheirNodeEvenInABusyLoop(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system has no /proc to look for orphans in")
	}
	for _, kind := range []string{"full", "bare"} {
		t.Run(kind, func(t *testing.T) {
			node := exec.Command(os.Args[0])
			node.Env = append(os.Environ(), helperVariable+"="+kind)
			node.Stderr = os.Stderr
			out, err := node.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			// A node that never gets ready fails the test, and does not stop it.
			late := time.AfterFunc(30*time.Second, func() { _ = node.Process.Kill() })
			defer late.Stop()
			var pids []int
			for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
				pid, err := strconv.Atoi(lines.Text())
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			for _, pid := range pids {
				if processEnded(t, pid) {
					t.Errorf("child %d had ended before its node", pid)
				}
			}
			if err := node.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = node.Wait()
			if len(pids) != 2 {
				t.Fatalf("the node had %d children, want 2", len(pids))
			}
			killed := time.Now()
			for _, pid := range pids {
				eventually(t, fmt.Sprintf("child %d is gone", pid), func() bool { return processEnded(t, pid) })
			}
			t.Logf("gone after %v", time.Since(killed))
		})
	}
}
