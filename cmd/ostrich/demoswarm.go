package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// demoGrace is how long a node of the demo may take to end by itself.
	demoGrace = 5 * time.Second
	// removeTries is how often the folder is removed while the last files of
	// a dying process still appear.
	removeTries = 20
)

// demoSwarm is the nodes of a demo, each a process of its own that ends with
// its stdin, so also when this process is killed.
type demoSwarm struct {
	base string

	mu      sync.Mutex
	stopped bool
	nodes   []*demoNode
}

type demoNode struct {
	name  string
	dir   string // of its data
	id    string // of its device, once it is ready
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}
}

// node starts one node and returns it once it is ready.
func (s *demoSwarm) node(ctx context.Context, number int, invite string) (*demoNode, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	name := "demo-" + strconv.Itoa(number)
	dir := filepath.Join(s.base, name)
	args := []string{
		"up", "--data", dir, "--name", name, "--no-mdns", "--slots", strconv.Itoa(max(1, runtime.NumCPU()/demoNodes)),
		"--public", "127.0.0.1:0", "--control", "127.0.0.1:0", "--p2p", "127.0.0.1:0",
	}
	if invite != "" {
		args = append(args, "--join", invite)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), exitWithStdin+"=1")
	words := &tail{limit: 4 << 10}
	cmd.Stderr = words
	ready := make(chan struct{})
	cmd.Stdout = &readyWriter{ready: ready}
	n := &demoNode{name: name, dir: dir, cmd: cmd, ended: make(chan struct{})}
	if err := s.launch(n); err != nil {
		return nil, err
	}
	select {
	case <-ready:
		return n, n.identify(ctx)
	case <-n.ended:
		return nil, fmt.Errorf("%s did not start:\n%s", name, words)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// identify asks a node which device it is.
func (n *demoNode) identify(ctx context.Context) error {
	c, err := control.Dial(n.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
	n.id = res.GetStatus().GetDeviceId()
	return err
}

// launch starts a node's process unless the demo is ending already.
func (s *demoSwarm) launch(n *demoNode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("the demo is ending")
	}
	var err error
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("starting a node: %w", err)
	}
	s.nodes = append(s.nodes, n)
	go func() {
		n.cmd.Wait()
		close(n.ended)
	}()
	return nil
}

// stop ends all nodes, waits for them, and removes their folders.
func (s *demoSwarm) stop() error {
	s.mu.Lock()
	s.stopped = true
	nodes := s.nodes
	s.mu.Unlock()
	for _, n := range nodes {
		n.stdin.Close()
	}
	patience := time.After(demoGrace)
	for _, n := range nodes {
		select {
		case <-n.ended:
			continue
		case <-patience:
			// All that are left have had their time.
			patience = time.After(0)
		}
		n.cmd.Process.Kill()
		<-n.ended
	}
	var err error
	for range removeTries {
		if err = os.RemoveAll(s.base); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("removing the folder of the demo: %w", err)
}

// readyWriter takes a node's stdout and closes ready at the line that says so.
type readyWriter struct {
	ready chan struct{}
	line  []byte
	done  bool
}

// Write reads on.
func (r *readyWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b != '\n':
			if len(r.line) < len("ready")+1 {
				r.line = append(r.line, b)
			}
		case string(r.line) == "ready" && !r.done:
			r.done = true
			close(r.ready)
		default:
			r.line = r.line[:0]
		}
	}
	return len(p), nil
}

// tail keeps the last lines of what a process says.
type tail struct {
	limit int
	mu    sync.Mutex
	text  []byte
}

// Write keeps the end of what was written.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if cut := len(t.text) - t.limit; cut > 0 {
		t.text = append(t.text[:0], t.text[cut:]...)
	}
	return len(p), nil
}

// String returns what is kept, from a whole line on.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	s := bufio.NewScanner(strings.NewReader(string(t.text)))
	for s.Scan() {
		lines = append(lines, "  "+s.Text())
	}
	if len(t.text) == t.limit && len(lines) > 1 {
		lines = lines[1:]
	}
	return strings.Join(lines, "\n")
}
