package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// needProc skips a test that looks at processes where there is no /proc.
func needProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("this system has no /proc")
	}
}

// process is one of the built program's.
type process struct {
	pid, parent int
	child       bool // of a sandbox
	stack       bool // for the connections of browsers
}

// processes lists all of the built program that are alive, whoever their parent
// is.
func processes(t *testing.T) (all []process) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		// What cannot be read has ended meanwhile, or is somebody else's.
		if exe, err := os.Readlink(dir + "/exe"); err != nil || exe != ostrich {
			continue
		}
		env, err := os.ReadFile(dir + "/environ")
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if len(f) < 2 || f[0] == "Z" || f[0] == "X" {
			continue
		}
		var p process
		p.pid, _ = strconv.Atoi(filepath.Base(dir))
		p.parent, _ = strconv.Atoi(f[1])
		env = append([]byte{0}, env...)
		p.child = bytes.Contains(env, []byte("\x00OSTRICH_SANDBOX_CHILD=1\x00"))
		p.stack = bytes.Contains(env, []byte("\x00OSTRICH_BRIDGE_CHILD=1\x00"))
		all = append(all, p)
	}
	return all
}

// children lists the sandbox's children of a node.
func children(t *testing.T, node int) (pids []int) {
	t.Helper()
	for _, p := range processes(t) {
		if p.child && p.parent == node {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// anonymous is a process's memory that is not a file's, in MiB; 0 if there is
// none.
func anonymous(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 {
			return kb >> 10
		}
	}
	return 0
}

// processorTime is what a process has used of the processor, in ticks.
func processorTime(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}
