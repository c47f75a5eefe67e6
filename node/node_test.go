package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) {
	if sandbox.IsChild() {
		os.Exit(sandbox.ChildMain(os.Args[1:], os.Stdin, os.Stdout))
	}
	if browserbridge.IsChild() {
		os.Exit(browserbridge.ChildMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// testNode is a node that runs in this process.
type testNode struct {
	dir    string
	client *control.Client
	stop   func()
	// wait waits for a node that ends by itself, and returns its error.
	wait func() error
}

// start runs a node on a folder until the test ends or stop is called, and
// returns when it is ready.
func start(t *testing.T, dir, join string) *testNode {
	t.Helper()
	c := config(dir, join)
	c.Name = filepath.Base(dir)
	return startWith(t, c)
}

// config is that of a node of a test.
func config(dir, join string) node.Config {
	c := node.DefaultConfig()
	c.DataDir, c.Join = dir, join
	c.Public, c.Control, c.P2P, c.NoMDNS = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", true
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", filepath.Base(dir))
	}
	return c
}

// startWith is start with a configuration of the test's own.
func startWith(t *testing.T, c node.Config) *testNode {
	t.Helper()
	dir := c.DataDir
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx, c, func() { close(ready) }) }()
	var stopped bool
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the node on %s ended with: %v", dir, err)
			}
		}
	}
	wait := func() error {
		stopped = true
		defer cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the node on %s goes on", dir)
		}
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		stopped = true
		cancel()
		t.Fatalf("the node on %s did not start: %v", dir, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("the node on %s is not ready after 30 s", dir)
	}
	client, err := control.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &testNode{dir: dir, client: client, stop: stop, wait: wait}
}

// invite makes an invite through the node and returns its text.
func (n *testNode) invite(t *testing.T, role wire.Role) string {
	t.Helper()
	out, err := control.Call(t.Context(), n.client.CreateInvite, &wire.CreateInviteRequest{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetInvite().GetText()
}

// mapLines maps a built-in program over lines and returns the outputs in order.
func (n *testNode) mapLines(t *testing.T, program string, lines []string) []string {
	t.Helper()
	module, ok := programs.Get(program)
	if !ok {
		t.Fatalf("no program %s", program)
	}
	stored, err := n.client.PutProgram(t.Context(), program, bytes.NewReader(module))
	if err != nil {
		t.Fatal(err)
	}
	inputs := func(yield func(control.Input, error) bool) {
		for _, line := range lines {
			if !yield(control.Input{Data: []byte(line + "\n")}, nil) {
				return
			}
		}
	}
	id := wire.NewJobID()
	var outputs []string
	job, err := n.client.Map(t.Context(), control.MapOptions{
		JobID: id, Spec: &wire.JobSpec{Program: stored, MemoryMib: 64, TimeoutMs: 10_000, MaxOutputBytes: 1 << 20},
		Inputs: inputs,
		Result: func(r *wire.TaskResult, out io.Reader) error {
			b, err := io.ReadAll(out)
			outputs = append(outputs, string(b))
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := job.GetState(), wire.JobState_JOB_STATE_DONE; got != want {
		t.Errorf("the job ended as %v, want %v: %s", got, want, job.GetError())
	}
	return outputs
}

func TestOneNodeMapsLinesInOrder(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "solo"), "")
	var lines []string
	for i := range 2000 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	got := n.mapLines(t, "cat", lines)
	if len(got) != len(lines) {
		t.Fatalf("%d outputs, want %d", len(got), len(lines))
	}
	for i, line := range lines {
		if got[i] != line+"\n" {
			t.Fatalf("output %d is %q, want %q", i, got[i], line+"\n")
		}
	}
}

func TestThreeNodesShareAMap(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	w := start(t, filepath.Join(dir, "w"), b.invite(t, wire.Role_ROLE_WORKER))
	var lines []string
	for i := range 20000 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	for _, n := range []*testNode{a, b, c} {
		start := time.Now()
		got := n.mapLines(t, "cat", lines)
		t.Logf("%s: %d tasks in %v", filepath.Base(n.dir), len(lines), time.Since(start))
		if len(got) != len(lines) {
			t.Fatalf("%d outputs, want %d", len(got), len(lines))
		}
		for i, line := range lines {
			if got[i] != line+"\n" {
				t.Fatalf("output %d is %q, want %q", i, got[i], line+"\n")
			}
		}
	}
	devices, err := control.Call(t.Context(), w.client.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices.GetDevices() {
		t.Logf("%s %s %v done=%d inflight=%d", d.GetProfile().GetName(), d.GetRole(), d.GetStatus(), d.GetTotalTasksCompleted(), d.GetInFlight())
	}
	status, err := control.Call(t.Context(), c.client.GetStatus, &wire.GetStatusRequest{})
	t.Log(status, err)
}
