package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
)

// The parts of what --json prints that the tests look at.
type (
	status struct {
		SwarmID     string   `json:"swarmId"`
		DeviceID    string   `json:"deviceId"`
		Name        string   `json:"name"`
		Role        string   `json:"role"`
		Term        uint64   `json:"term"`
		Generation  uint64   `json:"generation"`
		Coordinator string   `json:"coordinator"`
		Quorum      bool     `json:"quorum"`
		Members     []string `json:"members"`
		Voters      []string `json:"voters"`
		Addresses   struct {
			P2P     []string `json:"p2p"`
			Public  string   `json:"public"`
			Control string   `json:"control"`
		} `json:"addresses"`
		BytesStored  uint64 `json:"bytesStored"`
		PagesMissing uint64 `json:"pagesMissing"`
	}
	device struct {
		ID                  string `json:"id"`
		Name                string `json:"name"`
		Type                string `json:"type"`
		Status              string `json:"status"`
		Role                string `json:"role"`
		TotalTasksCompleted uint64 `json:"totalTasksCompleted"`
	}
	job struct {
		ID    string `json:"id"`
		State string `json:"state"`
		Tasks struct {
			Total, Pending, Active, Completed, Failed uint64
		} `json:"tasks"`
		Error string `json:"error"`
	}
	invite struct {
		ID   string `json:"id"`
		Text string `json:"text"`
		Code string `json:"code"`
	}
	taskResult struct {
		Index    uint32 `json:"index"`
		Status   string `json:"status"`
		ExitCode uint32 `json:"exitCode"`
		Output   []byte `json:"output"`
		Stderr   string `json:"stderr"`
		Device   string `json:"device"`
		Attempts uint32 `json:"attempts"`
		Number   uint32 `json:"number"`
		Error    string `json:"error"`
	}
)

func (n *node) status() (s status) {
	n.t.Helper()
	n.read(&s, "status")
	return s
}

func (n *node) devices() (d []device) {
	n.t.Helper()
	n.read(&d, "devices")
	return d
}

func (n *node) job(id string) (j job) {
	n.t.Helper()
	n.read(&j, "job", "show", id)
	return j
}

func (n *node) jobs() (j []job) {
	n.t.Helper()
	n.read(&j, "jobs")
	return j
}

// invite makes an invite and returns its text.
func (n *node) invite(role string, flags ...string) string {
	n.t.Helper()
	var i invite
	n.read(&i, append([]string{"invite", "--role", role}, flags...)...)
	return i.Text
}

// device returns what the swarm knows of the device with a name.
func (n *node) device(name string) device {
	n.t.Helper()
	all := n.devices()
	i := slices.IndexFunc(all, func(d device) bool { return d.Name == name })
	if i < 0 {
		n.t.Fatalf("%s knows no device %s: %v", n.name, name, all)
	}
	return all[i]
}

// online waits until so many devices can work.
func (n *node) online(want int) {
	n.t.Helper()
	eventually(n.t, patience, fmt.Sprintf("%s sees %d devices online", n.name, want), func() bool {
		r := n.try(nil, "devices", "--json")
		var all []device
		if r.status != 0 || json.Unmarshal([]byte(r.out), &all) != nil {
			return false
		}
		got := 0
		for _, d := range all {
			if d.Status == "ONLINE" || d.Status == "BUSY" {
				got++
			}
		}
		return got == want
	})
}

// voters waits until so many members vote.
func (n *node) voters(want int) {
	n.t.Helper()
	eventually(n.t, patience, fmt.Sprintf("%s sees %d voters", n.name, want), func() bool {
		s := n.status()
		return s.Quorum && len(s.Voters) == want
	})
}

// swarm starts members of a new swarm on this machine: the first founds it.
// Each runs one task at a time.
func swarm(t *testing.T, members int, flags ...string) []*node {
	t.Helper()
	flags = append([]string{"--slots", "1"}, flags...)
	nodes := []*node{newNode(t, "a", flags...).up()}
	for i := 1; i < members; i++ {
		n := newNode(t, string(rune('a'+i)), flags...)
		nodes = append(nodes, n.up("--join", nodes[0].invite("member")))
	}
	nodes[0].online(members)
	if members >= 3 {
		nodes[0].voters(3)
	}
	return nodes
}

// coordinator returns the node that coordinates, and the others.
func coordinator(t *testing.T, nodes []*node) (leader *node, others []*node) {
	t.Helper()
	eventually(t, patience, "one of the nodes coordinates", func() bool {
		leader, others = nil, nil
		for _, n := range nodes {
			if s := n.status(); s.Coordinator != "" && s.Coordinator == s.DeviceID {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		return leader != nil
	})
	return leader, others
}

// numbers is lines of stdin: 0 to n-1.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()
}

// tiles are inputs of builtin:render, a line each, which take some
// milliseconds each and have outputs that differ.
func tiles(n int) []string {
	const side, width = 32, 32 * 20
	var all []string
	for i := range n {
		x, y := i%20*side, i/20*side
		all = append(all, fmt.Sprintf("%d %d %d %d %d %d\n", x, y, side, side, width, (n+19)/20*side))
	}
	return all
}

// directly runs a built-in program on each input in this process, with bare
// wazero.
func directly(t *testing.T, program string, inputs []string) [][]byte {
	t.Helper()
	module, ok := programs.Get(program)
	if !ok {
		t.Fatalf("no program %s", program)
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	compiled, err := r.CompileModule(ctx, module)
	if err != nil {
		t.Fatal(err)
	}
	var outputs [][]byte
	for _, input := range inputs {
		var out bytes.Buffer
		config := wazero.NewModuleConfig().WithName("").WithArgs(program).WithStdin(strings.NewReader(input)).WithStdout(&out)
		m, err := r.InstantiateModule(ctx, compiled, config)
		if err != nil {
			t.Fatalf("running %s directly: %v", program, err)
		}
		m.Close(ctx)
		outputs = append(outputs, out.Bytes())
	}
	return outputs
}

// results decodes what --json prints of tasks.
func results(t *testing.T, r io.Reader) []taskResult {
	t.Helper()
	var all []taskResult
	d := json.NewDecoder(r)
	for {
		var one taskResult
		switch err := d.Decode(&one); err {
		case nil:
			all = append(all, one)
		case io.EOF:
			return all
		default:
			t.Fatalf("after %d results: %v", len(all), err)
		}
	}
}

// sameOutputs wants each task recorded once, with the output that it must have.
func sameOutputs(t *testing.T, got []taskResult, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	numbers := map[uint32]bool{}
	for i, r := range got {
		if r.Index != uint32(i) || r.Status != "ok" {
			t.Fatalf("result %d is of task %d: %s %s", i, r.Index, r.Status, r.Error)
		}
		if !bytes.Equal(r.Output, want[i]) {
			t.Errorf("the output of task %d has %d bytes and differs from a direct run's %d", i, len(r.Output), len(want[i]))
		}
		if numbers[r.Number] || int(r.Number) >= len(want) {
			t.Errorf("task %d has the number %d: each of %d is given once", i, r.Number, len(want))
		}
		numbers[r.Number] = true
	}
}

// testProgram returns the path of a program of the sandbox's tests.
func testProgram(t *testing.T, name string) string {
	t.Helper()
	path := "../../../node/sandbox/testdata/" + name + ".wasm"
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}
