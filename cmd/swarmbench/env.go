package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// env is what the measurements share: the program built, a folder, the table.
type env struct {
	dir        string
	ostrich    string
	runs       int
	streamSize int64
	// behindTasks and behindPages are how far a member falls behind, in tasks and
	// bytes of pages.
	behindTasks int
	behindPages int64
	progress    io.Writer
	table       table
}

// newEnv builds the program into a temporary folder, as it is released: without
// cgo, stripped. A binary that is named is taken as it is.
func newEnv(ctx context.Context, binary string, progress io.Writer) (*env, error) {
	dir, err := os.MkdirTemp("", "swarmbench-*")
	if err != nil {
		return nil, err
	}
	e := &env{dir: dir, ostrich: binary, progress: progress}
	if binary != "" {
		return e, nil
	}
	e.ostrich = filepath.Join(dir, "ostrich")
	e.say("building ostrich …")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", e.ostrich, "github.com/ostrich-legs/ostrich/cmd/ostrich")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		e.close()
		return nil, fmt.Errorf("build ostrich: %w\n%s", err, out)
	}
	return e, nil
}

func (e *env) close() { os.RemoveAll(e.dir) }

func (e *env) say(format string, args ...any) { fmt.Fprintf(e.progress, format+"\n", args...) }

// node is an "ostrich up" that runs.
type node struct {
	dir    string
	cmd    *exec.Cmd
	client *control.Client
	ready  time.Duration
	errors bytes.Buffer
}

// up starts a node on a folder and waits until it is ready.
func (e *env) up(ctx context.Context, dir string, flags ...string) (*node, error) {
	args := append([]string{"up", "--data", dir, "--public", "127.0.0.1:0", "--control", "127.0.0.1:0", "--p2p", "127.0.0.1:0", "--no-mdns"}, flags...)
	n := &node{dir: dir, cmd: exec.CommandContext(ctx, e.ostrich, args...)}
	n.cmd.Cancel = func() error { return n.cmd.Process.Signal(syscall.SIGTERM) }
	n.cmd.WaitDelay = 10 * time.Second
	n.cmd.Stderr = &n.errors
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		n.stop()
		return nil, fmt.Errorf("ostrich up on %s printed %q: %s", dir, line, n.errors.String())
	}
	n.ready = time.Since(begun)
	if n.client, err = control.Dial(dir); err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

func (n *node) stop() {
	if n.client != nil {
		n.client.Close()
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	_ = n.cmd.Wait()
}

// swarm is several nodes of one swarm.
type swarm []*node

// swarm starts a swarm of so many members, in a folder of its own, and waits
// until all are voters that the size asks for.
func (e *env) swarm(ctx context.Context, members int, flags ...string) (swarm, error) {
	dir, err := os.MkdirTemp(e.dir, "swarm-*")
	if err != nil {
		return nil, err
	}
	var s swarm
	for i := range members {
		join := flags
		if i > 0 {
			out, err := control.Call(ctx, s[0].client.CreateInvite, &wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER})
			if err != nil {
				s.stop()
				return nil, err
			}
			join = append([]string{"--join", out.GetInvite().GetText()}, flags...)
		}
		n, err := e.up(ctx, filepath.Join(dir, fmt.Sprint("n", i)), join...)
		if err != nil {
			s.stop()
			return nil, err
		}
		s = append(s, n)
	}
	if err := s.settle(ctx, members); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s swarm) stop() {
	for _, n := range s {
		n.stop()
	}
	for _, n := range s {
		os.RemoveAll(n.dir)
	}
}

// settle waits until the group has as many voters as three members have.
func (s swarm) settle(ctx context.Context, members int) error {
	if members < 3 {
		return nil
	}
	for range 200 {
		out, err := control.Call(ctx, s[0].client.GetStatus, &wire.GetStatusRequest{})
		if err == nil && len(out.GetStatus().GetView().GetVoters()) >= 3 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the swarm has not got three voters in 10 s")
}

// program stores a built-in program.
func (n *node) program(ctx context.Context, name string) (*wire.Program, error) {
	module, ok := programs.Get(name)
	if !ok {
		return nil, fmt.Errorf("no program %s", name)
	}
	return n.client.PutProgram(ctx, name, bytes.NewReader(module))
}

// spec is a job of a program with the defaults of the command line.
func spec(p *wire.Program, args ...string) *wire.JobSpec {
	return &wire.JobSpec{
		Program: p, Args: args, Retries: wire.DefaultRetries, TimeoutMs: wire.DefaultTimeout.Milliseconds(),
		MemoryMib: wire.DefaultMemoryMiB, MaxOutputBytes: wire.DefaultMaxOutput,
	}
}

// mapOver maps a job over inputs as the command line does, and returns how long
// it took from submit to the last output in order.
func (n *node) mapOver(ctx context.Context, s *wire.JobSpec, inputs func(func(control.Input, error) bool), seen func()) (time.Duration, error) {
	begun := time.Now()
	job, err := n.client.Map(ctx, control.MapOptions{
		Spec: s, Inputs: inputs,
		Result: func(r *wire.TaskResult, out io.Reader) error {
			if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
				return fmt.Errorf("task %d: %s", r.GetIndex(), r.GetError())
			}
			_, err := io.Copy(io.Discard, out)
			if seen != nil {
				seen()
			}
			return err
		},
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	if job.GetState() != wire.JobState_JOB_STATE_DONE {
		return 0, fmt.Errorf("the job is %v: %s", job.GetState(), job.GetError())
	}
	return took, n.client.Acknowledge(ctx, wire.JobID(job.GetId()))
}

// numbers are n inputs, each a number with a newline.
func numbers(n int) func(func(control.Input, error) bool) {
	return func(yield func(control.Input, error) bool) {
		for i := range n {
			if !yield(control.Input{Data: strconv.AppendInt(nil, int64(i), 10)}, nil) {
				return
			}
		}
	}
}

// memory is what /proc says of a process, in bytes.
type memory struct {
	resident, anonymous int64
}

// memoryOf reads a process's memory; zero where there is no /proc.
func memoryOf(pid int) (m memory) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			m.resident = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 {
			m.anonymous = kb << 10
		}
	}
	return m
}

// bridgeOf lists a node and the process of its WebRTC stack, where there is one.
func bridgeOf(node int) (pids []int) {
	pids = append(pids, node)
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", node)) // the pattern is good
	for _, list := range lists {
		children, _ := os.ReadFile(list) // of a thread that has ended
		for _, child := range strings.Fields(string(children)) {
			env, _ := os.ReadFile("/proc/" + child + "/environ")
			if pid, err := strconv.Atoi(child); err == nil && strings.Contains(string(env), "OSTRICH_BRIDGE_CHILD=1") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// bridgeMemory is the anonymous memory of a node with its WebRTC stack, in bytes,
// and bridgeCPU the processor time that both have used.
func bridgeMemory(node int) (sum int64) {
	for _, pid := range bridgeOf(node) {
		sum += memoryOf(pid).anonymous
	}
	return sum
}

func bridgeCPU(node int) (sum time.Duration) {
	for _, pid := range bridgeOf(node) {
		sum += cpuOf(pid)
	}
	return sum
}

// anonymous is the anonymous memory of all nodes, in MiB.
func (s swarm) anonymous() float64 {
	var sum int64
	for _, n := range s {
		sum += memoryOf(n.cmd.Process.Pid).anonymous
	}
	return float64(sum) / (1 << 20)
}

// cpuOf is the processor time that a process has used.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // in ticks of 1/100 s
}
