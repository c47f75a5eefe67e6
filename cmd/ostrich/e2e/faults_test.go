package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAMapSurvivesAKilledWorker(t *testing.T) {
	nodes := swarm(t, 3)
	worker := newNode(t, "w", "--slots", "1").up("--join", nodes[1].invite("worker"))
	nodes[0].online(4)
	inputs := tiles(400)
	want := directly(t, "render", inputs)

	r := nodes[0].begin("map", "builtin:render", "--json")
	go r.feed(strings.Join(inputs, ""))
	out := bufio.NewReader(r.stdout)
	first, err := out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("no first result: %v\n%s", err, r.err)
	}
	eventually(t, patience, "the worker has work", func() bool {
		d := nodes[0].device("w")
		return d.Status == "BUSY" && d.TotalTasksCompleted > 0
	})
	worker.kill()
	killed := time.Now()
	all := append(results(t, bytes.NewReader(first)), results(t, out)...)
	r.await(0)
	sameOutputs(t, all, want)
	by := map[string]int{}
	for _, r := range all {
		by[r.Device]++
	}
	t.Logf("the map ended %v after the kill; tasks by device: %v", time.Since(killed), by)
}

// feed writes all of stdin and closes it.
func (r *running) feed(input string) {
	_, _ = io.WriteString(r.stdin, input)
	_ = r.stdin.Close()
}

// member returns a node that does not coordinate, and another node.
func member(t *testing.T, nodes []*node) (local, other *node) {
	t.Helper()
	leader, others := coordinator(t, nodes)
	return others[0], leader
}

// half sends the first half of the inputs of a map, without an end, and waits
// until the swarm has them.
func half(t *testing.T, local, other *node, id string, inputs []string) *running {
	t.Helper()
	r := local.begin("map", "builtin:upper", "--json", "--id", id)
	n := len(inputs) / 2
	if _, err := io.WriteString(r.stdin, strings.Join(inputs[:n], "")); err != nil {
		t.Fatalf("%v\n%s", err, r.err)
	}
	eventually(t, patience, "half of the inputs are acknowledged", func() bool {
		got := other.try(nil, "job", "show", id)
		return got.status == 0 && other.job(id).Tasks.Total == uint64(n)
	})
	return r
}

func TestAnUploadSurvivesTheDeathOfItsNode(t *testing.T) {
	nodes := swarm(t, 3)
	local, other := member(t, nodes)
	var inputs []string
	for i := range 4000 {
		inputs = append(inputs, fmt.Sprintf("line %d\n", i))
	}
	want := directly(t, "upper", inputs)

	t.Run("and the client goes on with the node that comes back", func(t *testing.T) {
		r := half(t, local, other, "same-client", inputs)
		local.kill()
		go r.feed(strings.Join(inputs[len(inputs)/2:], ""))
		local.up()
		all := results(t, r.stdout)
		r.await(0)
		sameOutputs(t, all, want)
	})
	t.Run("and of its client, which repeats", func(t *testing.T) {
		r := half(t, local, other, "next-client", inputs)
		local.kill()
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		local.up()
		r = local.begin("map", "builtin:upper", "--json", "--id", "next-client")
		go r.feed(strings.Join(inputs, ""))
		all := results(t, r.stdout)
		r.await(0)
		sameOutputs(t, all, want)
	})
	for _, j := range other.jobs() {
		if j.Tasks.Total != uint64(len(inputs)) {
			t.Errorf("job %s has %d tasks, want %d", j.ID, j.Tasks.Total, len(inputs))
		}
	}
}

func TestAJobGoesOnAfterAllNodesWereKilledAtOnce(t *testing.T) {
	nodes := swarm(t, 3)
	inputs := tiles(300)
	want := directly(t, "render", inputs)
	id := strings.TrimSpace(nodes[1].do(strings.NewReader(strings.Join(inputs, "")), "map", "builtin:render", "--detach"))
	eventually(t, patience, "some of the tasks are done", func() bool {
		j := nodes[1].job(id)
		return j.Tasks.Completed > 10 && j.Tasks.Pending+j.Tasks.Active > 50
	})
	var kills sync.WaitGroup
	for _, n := range nodes {
		kills.Go(n.kill)
	}
	kills.Wait()
	for _, n := range nodes {
		n.launch()
	}
	began := time.Now()
	for _, n := range nodes {
		n.awaitReady()
	}
	t.Logf("ready after %v", time.Since(began))
	for _, n := range nodes {
		r := n.begin("job", "results", "-f", "--json", id)
		all := results(t, r.stdout)
		r.await(0)
		sameOutputs(t, all, want)
		t.Logf("%s has all results %v after the start", n.name, time.Since(began))
	}
}

func TestNoChildOutlivesItsKilledNode(t *testing.T) {
	needProc(t)
	n := newNode(t, "a", "--slots", "2").up()
	n.do(nil, "map", testProgram(t, "loop"), "--range", "1..2", "--detach")
	var pids []int
	eventually(t, patience, "two children spin", func() bool {
		pids = children(t, n.pid())
		return len(pids) == 2 && !slices.ContainsFunc(pids, func(pid int) bool { return processorTime(pid) < 20 })
	})
	answer, err := http.Get(n.status().Addresses.Public + "/signal") // as a page that is about to come
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	eventually(t, patience, "the WebRTC stack has a process", func() bool {
		return slices.ContainsFunc(processes(t), func(p process) bool { return p.stack && p.parent == n.pid() })
	})
	n.kill()
	killed := time.Now()
	eventually(t, 3*time.Second, "no process of the program is left", func() bool { return len(processes(t)) == 0 })
	t.Logf("all are gone %v after the kill", time.Since(killed))
}
