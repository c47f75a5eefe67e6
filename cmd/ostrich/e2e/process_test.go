package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// readyTime is how long a node may take to be ready on a busy machine.
	readyTime = 30 * time.Second
	// commandTime bounds a command that does not say otherwise.
	commandTime = 60 * time.Second
	// patience bounds what a swarm does by itself.
	patience = 30 * time.Second
)

// text is what a process has written, readable while it writes.
type text struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen chan struct{} // closed at a line "ready"; nil if nobody waits for one
	done bool          // seen is closed
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.buf.Write(p)
	if x.seen != nil && !x.done && strings.Contains("\n"+x.buf.String(), "\nready\n") {
		x.done = true
		close(x.seen)
	}
	return len(p), nil
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.buf.String()
}

// node is a data folder, and the "ostrich up" on it if one runs.
type node struct {
	t    *testing.T
	name string
	dir  string
	ns   string // network namespace; "" for this one
	// program is the binary; "" for that of an ordinary build.
	program string
	// flags follow --data and --name.
	flags []string
	// input is all of stdin, if it is not "".
	input string

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended; nil if none was started
	out    *text
	errors *text
}

// loopback keeps a node on this machine, on free ports. Others reach it at the
// same one after a restart.
func loopback(t *testing.T) []string {
	return []string{"--public", "127.0.0.1:0", "--control", "127.0.0.1:0", "--p2p", ownPort(t), "--no-mdns"}
}

// nextPort is the last port that ownPort gave, from below the range of which
// systems give ports to whoever asks for any: nobody gets it while its node is
// down.
var nextPort atomic.Int32

// ownPort returns a loopback address that no other node of this run gets.
func ownPort(t *testing.T) string {
	t.Helper()
	nextPort.CompareAndSwap(0, 12_000+int32(os.Getpid()%100)*150)
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(nextPort.Add(1))))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		listener.Close()
		return address
	}
	t.Fatal("no port is free on loopback")
	return ""
}

// newNode returns a node with an empty data folder that does not run yet.
func newNode(t *testing.T, name string, flags ...string) *node {
	t.Helper()
	return &node{t: t, name: name, dir: folder(t), flags: append(loopback(t), flags...)}
}

// command returns a command line of the program, in the node's namespace.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	program := ostrich
	if n.program != "" {
		program = n.program
	}
	args = append([]string{program}, args...)
	if n.ns != "" {
		// Not "ip netns exec", which gives a process mounts of its own: it would
		// keep the disks of other tests in use.
		args = append([]string{"nsenter", "--net=/run/netns/" + n.ns}, args...)
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// launch starts the node's process and does not wait for it.
func (n *node) launch(flags ...string) {
	n.t.Helper()
	args := append([]string{"up", "--data", n.dir, "--name", n.name}, append(n.flags, flags...)...)
	n.cmd = n.command(context.Background(), args...)
	n.out, n.errors = &text{seen: make(chan struct{})}, &text{}
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.errors
	if n.input != "" {
		n.cmd.Stdin = strings.NewReader(n.input)
	} else {
		// It ends with its stdin, and so with this process, whatever happens here.
		n.cmd.Env = append(os.Environ(), "OSTRICH_EXIT_WITH_STDIN=1")
		if _, err := n.cmd.StdinPipe(); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if n.t.Failed() && n.cmd == cmd {
			n.t.Logf("stderr of %s:\n%s", n.name, tail(n.errors.String(), 40))
		}
	})
}

// up starts the node and waits until it is ready.
func (n *node) up(flags ...string) *node {
	n.t.Helper()
	n.launch(flags...)
	n.awaitReady()
	return n
}

func (n *node) awaitReady() {
	n.t.Helper()
	select {
	case <-n.out.seen:
	case <-n.ended:
		n.t.Fatalf("%s ended (%v) before it was ready:\n%s", n.name, n.cmd.ProcessState, n.errors)
	case <-time.After(readyTime):
		n.t.Fatalf("%s is not ready after %v:\n%s", n.name, readyTime, n.errors)
	}
}

// kill ends the node as kill -9 does.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.ended
}

// stop ends the node as a service manager does, and wants status 0 of it.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	n.awaitEnd(0)
}

// awaitEnd waits for the node's end and checks its exit status.
func (n *node) awaitEnd(status int) {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(patience):
		n.t.Fatalf("%s still runs %v after it was asked to end:\n%s", n.name, patience, n.errors)
	}
	if got := n.cmd.ProcessState.ExitCode(); got != status {
		n.t.Errorf("%s ended with status %d, want %d:\n%s", n.name, got, status, n.errors)
	}
}

// pid is the node's process.
func (n *node) pid() int { return n.cmd.Process.Pid }

// result is what a command line gave.
type result struct {
	status   int
	out, err string
}

func (r result) String() string {
	return fmt.Sprintf("status %d, stdout %q, stderr %q", r.status, tail(r.out, 5), tail(r.err, 20))
}

// try runs a command line on the node, whatever comes of it.
func (n *node) try(stdin io.Reader, args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := n.command(ctx, append([]string{"--data", n.dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		n.t.Fatalf("ostrich %s on %s: %v\n%s", strings.Join(args, " "), n.name, errors.Join(err, ctx.Err()), errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// do runs a command line that must succeed, and returns its stdout.
func (n *node) do(stdin io.Reader, args ...string) string {
	n.t.Helper()
	r := n.try(stdin, args...)
	if r.status != 0 {
		n.t.Fatalf("ostrich %s on %s: %v", strings.Join(args, " "), n.name, r)
	}
	return r.out
}

// read runs a listing with --json into v.
func (n *node) read(v any, args ...string) {
	n.t.Helper()
	out := n.do(nil, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		n.t.Fatalf("ostrich %s on %s: %v in %q", strings.Join(args, " "), n.name, err, out)
	}
}

// running is a command line that runs beside the test.
type running struct {
	n      *node
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	err    *text
}

// begin starts a command line. Its stdin and stdout are the caller's to use and
// to close, and await is to be called after all of stdout was read.
func (n *node) begin(args ...string) *running {
	n.t.Helper()
	r := &running{n: n, err: &text{}}
	r.cmd = n.command(context.Background(), append([]string{"--data", n.dir}, args...)...)
	r.cmd.Stderr = r.err
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	if r.stdout, err = r.cmd.StdoutPipe(); err != nil {
		n.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// await waits for the end and wants an exit status.
func (r *running) await(status int) {
	r.n.t.Helper()
	late := time.AfterFunc(2*time.Minute, func() { _ = r.cmd.Process.Kill() })
	defer late.Stop()
	_ = r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != status {
		r.n.t.Fatalf("%v ended with %v, want status %d:\n%s", r.cmd.Args[1:], r.cmd.ProcessState, status, tail(r.err.String(), 30))
	}
}

// eventually waits until done reports true, and fails the test if it never does.
func eventually(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v it is still not so that %s", limit, what)
		}
	}
}

// tail returns the last lines of s.
func tail(s string, lines int) string {
	all := strings.SplitAfter(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
