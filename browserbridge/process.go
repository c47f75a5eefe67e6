package browserbridge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// childVariable marks the environment of a stack's process.
const childVariable = "OSTRICH_BRIDGE_CHILD"

// IsChild reports whether this process was started by a Bridge, and must call
// ChildMain instead of anything else.
func IsChild() bool { return os.Getenv(childVariable) == "1" }

// exitLimit is how long a process that has nobody to work for takes to end.
const exitLimit = 2 * time.Second

// stackProcess is a process that runs ChildMain.
type stackProcess struct {
	conn net.Conn
	// end ends it, waits, and says how it ended. It may be called more than once.
	end func() (how string)
}

// startStack starts the process: this program again, whose main calls ChildMain.
func startStack() (*stackProcess, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("which program this is: %w", err)
	}
	said := &head{}
	// "bridge" is for those who list processes.
	cmd := &exec.Cmd{Path: executable, Args: []string{executable, "bridge"}, Env: childEnv(), Stderr: said}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", executable, err)
	}
	closing := func() error { return errors.Join(in.Close(), out.Close()) }
	end := sync.OnceValue(func() string {
		closing() // it was closed before, mostly
		late := time.AfterFunc(exitLimit, func() { cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); cmd.ProcessState == nil {
			return err.Error()
		}
		if text := said.String(); text != "" {
			return cmd.ProcessState.String() + ": " + text
		}
		return cmd.ProcessState.String()
	})
	return &stackProcess{pipes{Reader: out, Writer: in, closing: closing}, end}, nil
}

// childEnv is the environment of the process: nothing of the node's, but what the
// system's libraries want.
func childEnv() []string {
	env := []string{childVariable + "=1"}
	for _, name := range []string{"SYSTEMROOT", "TMPDIR", "TMP", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// headSize is how much is kept of what the process says in its end: a panic, and
// where.
const headSize = 4 << 10

// head is a Writer that keeps the beginning.
type head struct {
	mu   sync.Mutex
	kept []byte
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(len(p), headSize-len(h.kept))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(h.kept))
}
