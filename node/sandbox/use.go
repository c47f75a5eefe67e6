package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// dataAllowance is what a task may use beyond what is in use before it and
	// its linear memory: Go's heap (64 MiB at the least), the program's stack (up
	// to 150 MiB), and its tables.
	dataAllowance = 768 << 20
	// compileFactor bounds the memory for compiling, in bytes for each byte of
	// the program, besides dataAllowance.
	compileFactor = 256

	// roomy is the most that may be in use in a child that loads one more
	// program. What Go's heap once took stays in use, even after its memory went
	// back to the system.
	roomy = 512 << 20
	// growth is how much more may be in use in a child that runs one more task
	// than when it had loaded the program.
	growth = 256 << 20
	// elbow is the least that a limit leaves beyond what is in use.
	elbow = 64 << 20
)

// errWorn says that a child has done its part: another one does better what
// comes next.
var errWorn = errors.New("the child is worn out")

// unsound is why a child cannot do what any sound one can, whatever the program:
// the pool ends it, and has the same done by another.
type unsound struct{ text string }

// Error implements error.
func (u *unsound) Error() string { return u.text }

func unsoundf(format string, args ...any) error { return &unsound{fmt.Sprintf(format, args...)} }

// noMemory reports whether a text says that the system gave no memory.
func noMemory(text string) bool {
	for _, sign := range []string{"out of memory", "cannot allocate memory", "failed to create new OS thread", "errno=12"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

// dataInUse returns how many bytes of data the system counts against this
// process's limit: see limitData. Where it does not tell, it is what Go has.
func dataInUse() uint64 {
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		if _, line, ok := strings.Cut(string(status), "\nVmData:"); ok {
			field, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if kib, err := strconv.ParseUint(field, 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	total := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(total)
	return total[0].Value.Uint64()
}

// measure notes what is in use besides the program's memory. It costs as much as
// several tiny tasks.
func (e *engine) measure() { e.use = max(dataInUse(), e.arena.committed()) - e.arena.committed() }

// limit sets the data limit of this process to what is in use and more bytes, if
// it is not so already. It is an error that the system keeps it below use.
func (e *engine) limit(more uint64) error {
	size := e.use + more
	if e.data == size {
		return nil
	}
	if limit := limitData(size); limit < e.use+elbow {
		return unsoundf("the system lets a process have %s of data, and the sandbox has %s already", bytesText(limit), bytesText(e.use))
	}
	e.data = size
	return nil
}

// full reports whether so much is in use that another child should load what
// comes next. A new child is never full.
func (e *engine) full() bool {
	e.measure()
	return e.base > 0 && e.use > roomy
}

// loaded notes what is in use once a program is loaded, which took from start
// on. It reports whether a child that finds the program in the folder does with
// less, so that this one should end.
func (e *engine) loaded(start time.Time) (worn bool) {
	e.measure()
	e.base = e.use
	return e.use > roomy && e.cached != nil && writtenSince(e.cacheDir, start)
}

// denied says what it means that the system refused memory which the task may
// have: nil if the task, all in all, has used up what the sandbox allows.
func (e *engine) denied() error {
	if used := dataInUse(); dataLimit() >= e.data && used+e.arena.denied > e.data {
		return nil
	}
	return unsoundf("the system refuses the sandbox %s of memory, of which %s were in use: %v", bytesText(e.arena.denied), bytesText(e.use), syscall.ENOMEM)
}
