package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestANodeComesBackAtAnotherPortWithoutAnInvite(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	worker := newNode(t, "w").up("--join", nodes[0].invite("worker"))
	nodes[0].online(4)
	_, others := coordinator(t, nodes)
	for _, n := range append(others, worker) {
		before := n.status()
		n.kill()
		n.flags = append(n.flags, "--p2p", ownPort(t))
		began := time.Now()
		n.up()
		after := n.status()
		took := time.Since(began)
		t.Logf("%s is ready %v after its start", n.name, took)
		if took > 5*time.Second {
			t.Errorf("%s took %v to come back: what it knew of others that had moved as well has held it up", n.name, took)
		}
		if after.DeviceID != before.DeviceID || after.SwarmID != before.SwarmID || after.Role != before.Role {
			t.Errorf("%s came back as %s %s of swarm %s, was %s %s of %s", n.name,
				after.Role, after.DeviceID, after.SwarmID, before.Role, before.DeviceID, before.SwarmID)
		}
		if slices.Equal(after.Addresses.P2P, before.Addresses.P2P) {
			t.Errorf("%s is where it was, at %v: the test moved nothing", n.name, after.Addresses.P2P)
		}
	}
	for _, n := range nodes {
		n.online(4)
		works(t, n)
	}
}

func TestResultsResumeAtAnIndex(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 2)
	lines := numbers(3000)
	id := strings.TrimSpace(nodes[0].do(strings.NewReader(string(lines)), "map", "builtin:cat", "--detach"))
	all := strings.SplitAfter(string(lines), "\n")
	all = all[:len(all)-1]
	for _, n := range nodes {
		for _, from := range []int{0, 1, 1234, 2999, 3000} {
			got := n.do(nil, "job", "results", "-f", id[len(id)-8:], "--from", fmt.Sprint(from))
			if want := strings.Join(all[from:], ""); got != want {
				t.Errorf("on %s the results from %d on have %d bytes, want %d", n.name, from, len(got), len(want))
			}
		}
	}
	var numbered []uint32
	for _, r := range results(t, strings.NewReader(nodes[1].do(nil, "job", "results", id, "--unordered", "--from", "2000", "--json"))) {
		numbered = append(numbered, r.Number)
	}
	if len(numbered) != 1000 || numbered[0] != 2000 || !slices.IsSorted(numbered) {
		t.Errorf("the results from the 2000th that was completed on have the numbers %v", numbered)
	}
	// A reader that breaks off in the middle.
	r := nodes[1].begin("job", "results", "-f", id)
	begun := make([]byte, 4000)
	if n, err := r.stdout.Read(begun); err != nil {
		t.Fatal(err)
	} else {
		begun = begun[:n]
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	whole := strings.Count(string(begun), "\n")
	got := strings.Join(all[:whole], "") + nodes[0].do(nil, "job", "results", id, "--from", fmt.Sprint(whole))
	if got != string(lines) {
		t.Errorf("what a reader had of %d results and the rest are not the whole", whole)
	}
}

func TestAnIDNamesOneJob(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	input := string(numbers(500))
	first := n.do(strings.NewReader(input), "map", "builtin:cat", "--detach", "--id", "mine")
	if first != "mine\n" {
		t.Errorf("a detached map with an ID prints %q", first)
	}
	if again := n.do(strings.NewReader(input), "map", "builtin:cat", "--detach", "--id", "mine"); again != first {
		t.Errorf("the same again prints %q", again)
	}
	refused := []struct {
		name, input string
		args        []string
	}{
		{"another program", input, []string{"map", "builtin:upper", "--detach", "--id", "mine"}},
		{"other flags", input, []string{"map", "builtin:cat", "--detach", "--id", "mine", "--retries", "7"}},
		{"other arguments", input, []string{"map", "builtin:cat", "--detach", "--id", "mine", "--", "x"}},
		{"other inputs", "x" + input, []string{"map", "builtin:cat", "--detach", "--id", "mine"}},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			complaint(t, n.try(strings.NewReader(tt.input), tt.args...), 1, "mine")
		})
	}
	if got := n.do(nil, "job", "results", "-f", "mine"); got != input {
		t.Errorf("after all that the job's results have %d bytes, want %d", len(got), len(input))
	}
	if jobs := n.jobs(); len(jobs) != 1 || jobs[0].Tasks.Total != 500 {
		t.Errorf("there are the jobs %+v, want one of 500 tasks", jobs)
	}
}

func TestASwarmShrinksWhenDevicesLeave(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	gone := c.status().DeviceID
	c.do(nil, "leave", "--yes")
	c.awaitEnd(0)
	eventually(t, patience, "two members are left", func() bool {
		s := a.status()
		return len(s.Members) == 2 && !slices.Contains(s.Members, gone) && !slices.Contains(s.Voters, gone) && s.Quorum
	})
	works(t, a)
	works(t, b)
	if all := b.devices(); len(all) != 2 {
		t.Errorf("after one of three has left there are the devices %v", all)
	}
	// Its folder is empty: it may come again, as another device.
	c.up("--join", a.invite("member"))
	if again := c.status(); again.DeviceID == gone || again.SwarmID != a.status().SwarmID {
		t.Errorf("after leaving and joining again the device is %s of swarm %s", again.DeviceID, again.SwarmID)
	}
	a.online(3)
	works(t, c)
}

func TestDownStopsTheNodeAndUpGoesOn(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	id := strings.TrimSpace(n.do(strings.NewReader("kept\n"), "map", "builtin:upper", "--detach"))
	if got := n.do(nil, "job", "results", "-f", id); got != "KEPT\n" {
		t.Errorf("the result is %q", got)
	}
	n.do(nil, "down")
	n.awaitEnd(0)
	complaint(t, n.try(nil, "status"), 4, "ostrich up")
	n.up()
	if got := n.do(nil, "job", "results", "-f", id); got != "KEPT\n" {
		t.Errorf("after down and up the result is %q", got)
	}
}

func TestStatusAnswersWithoutQuorum(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	nodes[1].kill()
	nodes[2].kill()
	check := func(when string) {
		t.Helper()
		began := time.Now()
		s := nodes[0].status()
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s status took %v, want at most 1 s", when, took)
		}
		if len(s.Members) != 3 {
			t.Errorf("%s status lists the members %v", when, s.Members)
		}
	}
	check("at once")
	eventually(t, patience, "the node knows that it has no quorum", func() bool { return !nodes[0].status().Quorum })
	check("without quorum")
	began := time.Now()
	r := nodes[0].try(strings.NewReader("x\n"), "map", "builtin:upper")
	complaint(t, r, 4, "quorum")
	t.Logf("a map without quorum ends after %v: %s", time.Since(began), r.err)
	nodes[0].kill()
	nodes[0].launch()
	eventually(t, patience, "a node started alone answers", func() bool { return nodes[0].try(nil, "status").status == 0 })
	check("after a start without quorum")
	nodes[1].up()
	nodes[0].awaitReady()
	works(t, nodes[0])
}

// A worker that joined when there was one member works on for those that came
// later, when that one is gone for good.
func TestAWorkerOutlivesTheMembersThatItJoinedBy(t *testing.T) {
	a := newNode(t, "a").up()
	w := newNode(t, "w").up("--join", a.invite("worker"))
	a.online(2)
	b := newNode(t, "b", "--slots", "0").up("--join", a.invite("member"))
	c := newNode(t, "c", "--slots", "0").up("--join", a.invite("member"))
	a.voters(3)
	eventually(t, patience, "the worker remembers the members that came", func() bool {
		known, err := os.ReadFile(filepath.Join(w.dir, "peers.json"))
		return err == nil && bytes.Contains(known, []byte(b.status().DeviceID)) && bytes.Contains(known, []byte(c.status().DeviceID))
	})
	a.kill()
	// The members that are left run nothing themselves.
	if got, want := b.do(strings.NewReader("x\ny\n"), "map", "builtin:upper"), "X\nY\n"; got != want {
		t.Errorf("a map gives %q, want %q", got, want)
	}
}
