package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// kept returns the logs that were set aside in a node's folder.
func (n *testNode) kept(t *testing.T, why string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.dir, "raft."+why+".*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (n *testNode) recover(t *testing.T, r *wire.RecoverRequest) (*wire.RecoverResponse, error) {
	t.Helper()
	return control.Call(t.Context(), n.client.Recover, r)
}

// findings returns what a node's diagnosis finds of a level.
func (n *testNode) findings(t *testing.T, level string) (out []string) {
	t.Helper()
	res, err := control.Call(t.Context(), n.client.Diagnose, &wire.DiagnoseRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range res.GetFindings() {
		if f.GetLevel() == level {
			out = append(out, f.GetSubject()+": "+f.GetText())
		}
	}
	return out
}

// allVote reports whether so many vote, as all of some nodes see it, in a
// generation.
func allVote(t *testing.T, generation uint64, nodes ...*testNode) bool {
	t.Helper()
	return !slices.ContainsFunc(nodes, func(n *testNode) bool {
		s := n.status(t)
		return !s.GetQuorum() || len(s.GetView().GetVoters()) != len(nodes) || s.GetView().GetGeneration() != generation
	})
}

func TestASwarmIsRecoveredFromOneSurvivor(t *testing.T) {
	a, b, c := trio(t)
	c.mapLines(t, "cat", []string{"before"})
	out, err := c.recover(t, &wire.RecoverRequest{})
	if err != nil || !strings.Contains(out.GetPlan().GetRefusal(), "has quorum") {
		t.Errorf("with quorum the plan is %v, %v; want a refusal", out, err)
	}
	if _, err := c.recover(t, &wire.RecoverRequest{Confirm: true, Last: out.GetPlan().GetLast()}); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("with quorum a recovery gives %v, want CODE_PRECONDITION", err)
	}
	eventually(t, "the others would find the third again", func() bool { return remembers(t, a, c) && remembers(t, b, c) })
	a.stop()
	b.stop()
	eventually(t, "the quorum is gone", func() bool { return !c.status(t).GetQuorum() })
	if problems := c.findings(t, node.LevelProblem); !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, "quorum: ") }) {
		t.Errorf("the problems found are %q, want the quorum among them", problems)
	}

	out, err = c.recover(t, &wire.RecoverRequest{})
	plan := out.GetPlan()
	if err != nil || plan.GetRefusal() != "" || plan.GetDevices() != 3 || plan.GetNewGeneration() != 2 || len(plan.GetVoters()) != 2 || len(plan.GetLosses()) == 0 || out.GetDone() {
		t.Fatalf("the plan is %v, %v", out, err)
	}
	if _, err := c.recover(t, &wire.RecoverRequest{Confirm: true, Last: plan.GetLast() + 1}); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("a recovery of another plan gives %v, want CODE_PRECONDITION", err)
	}
	out, err = c.recover(t, &wire.RecoverRequest{Confirm: true, Last: plan.GetLast()})
	if err != nil || !out.GetDone() || len(c.kept(t, "generation-1")) != 1 {
		t.Fatalf("the recovery gives %v, %v; kept is %v", out, err, c.kept(t, "*"))
	}
	if got := c.mapLines(t, "cat", []string{"on its own"}); len(got) != 1 || got[0] != "on its own\n" {
		t.Errorf("the survivor computes %q", got)
	}

	// The old ones could elect one of theirs.
	a, b = again(t, a), again(t, b)
	eventually(t, "all three vote in generation 2", func() bool { return allVote(t, 2, a, b, c) })
	for _, n := range []*testNode{a, b} {
		if len(n.kept(t, "generation-1")) != 1 {
			t.Errorf("%s kept %v, want its log of generation 1", filepath.Base(n.dir), n.kept(t, "*"))
		}
	}
	if got := a.status(t).GetView().GetStats(); got.GetTotalJobs() != 2 || got.GetCompletedTasks() != 2 {
		t.Errorf("the swarm remembers %v, want both jobs", got)
	}
	if got := b.mapLines(t, "cat", []string{"together"}); len(got) != 1 || got[0] != "together\n" {
		t.Errorf("the swarm computes %q", got)
	}
}

// remembers reports whether a node has written down where another is.
func remembers(t *testing.T, n, other *testNode) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "peers.json"))
	return err == nil && slices.ContainsFunc(other.status(t).GetP2PAddresses(), func(address string) bool {
		address, _, _ = strings.Cut(address, "/p2p/")
		return strings.Contains(string(b), `"`+address+`"`)
	})
}

// again starts a node once more on its folder, and does not wait until it is
// ready: that may need the others.
func again(t *testing.T, n *testNode) *testNode {
	t.Helper()
	return startWith(t, config(n.dir, ""))
}

func TestAMemberThatLostItsLogComesBackAsAStandby(t *testing.T) {
	a, b, c := trio(t)
	eventually(t, "it would find the others again", func() bool { return remembers(t, b, a) && remembers(t, b, c) })
	for what, spoil := range map[string]func(raft string) error{
		"lost":    os.RemoveAll,
		"damaged": damageLog,
	} {
		b.stop()
		if err := spoil(filepath.Join(b.dir, "raft")); err != nil {
			t.Fatal(err)
		}
		b = again(t, b)
		eventually(t, "it votes again after its log was "+what, func() bool { return allVote(t, 1, a, b, c) })
		if kept := len(b.kept(t, "damaged")); what == "damaged" && kept != 1 {
			t.Errorf("%d damaged logs were kept, want 1", kept)
		}
		if got := b.mapLines(t, "cat", []string{what}); len(got) != 1 || got[0] != what+"\n" {
			t.Errorf("after its log was %s it computes %q", what, got)
		}
	}
	eventually(t, "nothing is wrong any more", func() bool { return len(b.findings(t, node.LevelProblem)) == 0 })
}

// damageLog flips bits all over the log.
func damageLog(raft string) error {
	path := filepath.Join(raft, "raft.db")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := 4096; i < len(b); i += 97 {
		b[i] ^= 0x55
	}
	return os.WriteFile(path, b, 0o600)
}

func TestALoneMemberDoesNotStartWithoutItsLog(t *testing.T) {
	for what, spoil := range map[string]func(raft string) error{
		"lost":    os.RemoveAll,
		"damaged": damageLog,
	} {
		n := start(t, filepath.Join(t.TempDir(), "n"), "")
		n.stop()
		if err := spoil(filepath.Join(n.dir, "raft")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first refusal must not make the second start
			err := node.Run(t.Context(), config(n.dir, ""), func() { t.Errorf("%s: it is ready", what) })
			if err == nil || !strings.Contains(err.Error(), filepath.Join(n.dir, "raft")) {
				t.Errorf("with its log %s it ended with %v, want an error that names the folder", what, err)
			}
		}
	}
}

func TestADoctorLooksAtAFolderWithoutANode(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "n"), "")
	if problems := n.findings(t, node.LevelProblem); len(problems) != 0 {
		t.Errorf("a node that is well has the problems %q", problems)
	}
	n.stop()
	look := func(dir string) (problems []string) {
		for _, f := range node.Examine(config(dir, "")) {
			if f.GetLevel() == node.LevelProblem {
				problems = append(problems, f.GetSubject())
			}
		}
		return problems
	}
	if got := look(n.dir); !slices.Equal(got, []string{"node"}) {
		t.Errorf("the problems of a folder that is well are %v, want that no node runs", got)
	}
	if got := look(filepath.Join(n.dir, "nowhere")); !slices.Equal(got, []string{"node"}) {
		t.Errorf("the problems of no folder are %v, want that no node runs", got)
	}
	rest := swapKey(t, n.dir)
	if got := look(n.dir); !slices.Equal(got, []string{"node", "key"}) {
		t.Errorf("the problems of a folder with another device's key are %v", got)
	}
	rest()
	for name, data := range map[string]string{"key": "x", "swarm.json": "{}"} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := look(n.dir); !slices.Equal(got, []string{"node", "key", "swarm"}) {
		t.Errorf("the problems of a damaged folder are %v", got)
	}
}

// swapKey puts another device's key in the place of a folder's own.
func swapKey(t *testing.T, dir string) (back func()) {
	t.Helper()
	path := filepath.Join(dir, "key")
	own, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := p2p.LoadOrCreateKey(path); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, own, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANodeDoesNotStartAsAnotherDevice(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "n"), "")
	n.stop()
	back := swapKey(t, n.dir)
	err := node.Run(t.Context(), config(n.dir, ""), func() { t.Error("it is ready") })
	if err == nil || !strings.Contains(err.Error(), filepath.Join(n.dir, "key")) {
		t.Errorf("with another device's key it ended with %v, want an error that names the file", err)
	}
	back()
	start(t, n.dir, "")
}

// A flipped bit of the generation would have this member set its log aside, and
// the others too, which hear of it.
func TestAChangedGenerationIsDamage(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "n"), "")
	n.stop()
	path := filepath.Join(n.dir, "swarm.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), `"generation": 1`, `"generation": 3`, 1)
	if changed == string(b) {
		t.Fatalf("there is no generation to change in %s", b)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	err = node.Run(t.Context(), config(n.dir, ""), func() { t.Error("it is ready") })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("it ended with %v, want an error that names the file", err)
	}
	if kept := n.kept(t, "generation-1"); len(kept) > 0 {
		t.Errorf("it has set its log aside: %v", kept)
	}
}
