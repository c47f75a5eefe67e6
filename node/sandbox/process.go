package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// startTimeout bounds the start of a child, which takes some milliseconds on a
// machine that is not overwhelmed.
const startTimeout = 30 * time.Second

// child is a child process, seen from its pool. One goroutine uses it at a
// time; kill may be called by any.
type child struct {
	cmd    *exec.Cmd
	in     *os.File // the child's stdin
	out    *os.File // the child's stdout
	r      *bufio.Reader
	said   head          // the beginning of its stderr
	exited chan struct{} // closed when it has been waited for

	buf  []byte      // for frames to it
	last wire.Hash   // the program it ran last
	used bool        // it has run a task, or checked a program
	idle *time.Timer // ends it, while it is in the pool's list
}

// startChild starts a child. start runs the command on a thread that lives as
// long as the pool.
func startChild(o Options, start func(*exec.Cmd) error) (*child, error) {
	pruneCache(o.CacheDir, maxCache)
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("no pipe for a sandbox child: %w", err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		childIn.Close()
		in.Close()
		return nil, fmt.Errorf("no pipe for a sandbox child: %w", err)
	}
	c := &child{in: in, out: out, r: bufio.NewReaderSize(out, 64<<10), exited: make(chan struct{})}
	// "sandbox" is for those who list processes.
	c.cmd = &exec.Cmd{Path: o.Executable, Args: []string{o.Executable, "sandbox"}, Env: childEnv(),
		Stdin: childIn, Stdout: childOut, Stderr: &c.said}
	if !o.orphanable {
		c.cmd.SysProcAttr = dieWithParent()
	}
	err = start(c.cmd)
	childIn.Close()
	childOut.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("a sandbox child (%s) does not start: %w", o.Executable, err)
	}
	go c.wait()
	if err := c.greet(o.CacheDir); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// childEnv is the environment of a child: nothing of the node's, but what the
// system's libraries want.
func childEnv() []string {
	env := []string{childVariable + "=1", "GOTRACEBACK=none"}
	for _, name := range []string{"SYSTEMROOT", "TMPDIR", "TMP", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// wait reaps the child.
func (c *child) wait() {
	_ = c.cmd.Wait()
	close(c.exited)
}

// greet waits until the child is ready.
func (c *child) greet(cacheDir string) error {
	late := time.AfterFunc(startTimeout, c.kill)
	defer late.Stop()
	if _, err := c.in.Write(appendFrame(nil, frameStart, cacheDir)); err != nil {
		return fmt.Errorf("a sandbox child ended at its start: %s", c.obituary())
	}
	f, err := readFrame(c.r, maxResultFrame)
	if err != nil || f.kind != frameReady {
		return fmt.Errorf("a sandbox child ended at its start: %s", c.obituary())
	}
	return nil
}

// kill ends the process at once.
func (c *child) kill() { _ = c.cmd.Process.Kill() }

// end ends the process, waits until it is gone and lets go of its pipes.
func (c *child) end() {
	c.kill()
	<-c.exited
	c.in.Close()
	c.out.Close()
}

// dead reports whether the process is known to have ended.
func (c *child) dead() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// obituary kills the child if need be and says how it ended and what it said.
func (c *child) obituary() string {
	c.kill()
	<-c.exited
	text := c.cmd.ProcessState.String()
	if said := strings.TrimSpace(c.said.String()); said != "" {
		text += ": " + strings.ReplaceAll(said, "\n", "; ")
	}
	return cut(text, 300)
}

// starved reports whether a dead child ended because it could have no more
// memory.
func (c *child) starved() bool {
	return noMemory(c.said.String())
}

// killed reports whether a dead child was killed, and did not end by itself.
func (c *child) killed() bool { return c.cmd.ProcessState.ExitCode() < 0 }

// head keeps the beginning of what is written to it.
type head struct {
	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = append(h.buf, p[:min(len(p), wire.MaxStderr-len(h.buf))]...)
	return len(p), nil
}

// String returns what is kept.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.buf)
}

var _ io.Writer = (*head)(nil)

// spawner starts processes on one operating system thread, which lives until
// the jobs end: on Linux a child that is to die with its parent dies with the
// thread that started it.
func spawner(jobs <-chan func()) {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	for job := range jobs {
		job()
	}
}
