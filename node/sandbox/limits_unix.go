//go:build unix

package sandbox

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxFiles bounds the descriptors of a child: its pipes, an input, an
	// output, the compilation cache, and what Go's runtime needs.
	maxFiles = 64
	// maxFileSize bounds what a child writes: an output, or a compiled program.
	maxFileSize = 4 << 30
	// niceness puts programs behind the node that runs them: with every core
	// busy, its heartbeats still go out in time.
	niceness = 5
)

// limitProcess bounds what this process can do to its machine. A limit that the
// system refuses is one line of defence less, and no reason to stop.
func limitProcess() {
	lowerPriority()
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_CORE:   0,
		unix.RLIMIT_NOFILE: maxFiles,
		unix.RLIMIT_FSIZE:  maxFileSize,
	} {
		var old unix.Rlimit
		if unix.Getrlimit(resource, &old) == nil {
			limit = min(limit, old.Max)
			_ = unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
		}
	}
}

// limitData bounds the process's data, code and shared files apart, to size
// bytes, and returns the limit that the system then has. It may be raised again.
func limitData(size uint64) uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &limit) == nil {
		limit.Cur = min(size, limit.Max)
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &limit)
	}
	return dataLimit()
}

// dataLimit returns the limit of the process's data.
func dataLimit() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &limit) != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

// lowerPriority makes this process nice. On Linux niceness is a thread's: those
// that there are get it here, and later ones from those that start them.
func lowerPriority() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness)
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
		}
	}
}
