package e2e

import (
	"strings"
	"testing"
)

// Most of the voters are lost for good, as far as anybody knows; and then they
// come back together.
func TestASurvivorGoesOnAndOldMembersJoinItAgain(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	const lines = "before\nthe\nloss\n"
	a.do(strings.NewReader(lines), "map", "builtin:upper", "--detach", "--id", "before")
	complaint(t, a.try(nil, "recover", "--yes"), 1, "quorum")
	b.kill()
	c.kill()
	eventually(t, patience, "the survivor knows that it is alone", func() bool { return !a.status().Quorum })
	if r := a.try(nil, "recover"); r.status != 2 || !strings.Contains(r.err, "--yes") {
		t.Errorf("without a terminal recover gives %v; want status 2 and --yes in it", r)
	}
	a.do(nil, "recover", "--yes")
	eventually(t, patience, "the survivor goes on", func() bool { return a.status().Quorum })
	if g := a.status().Generation; g != 2 {
		t.Errorf("after recover the generation is %d, want 2", g)
	}
	a.do(strings.NewReader(lines), "map", "builtin:upper", "--detach", "--id", "after")

	b.launch()
	c.launch()
	b.awaitReady()
	c.awaitReady()
	a.voters(3)
	for _, n := range nodes {
		if s := n.status(); s.Generation != 2 || s.Coordinator != a.status().Coordinator {
			t.Errorf("%s is of generation %d with coordinator %s: it is another swarm", n.name, s.Generation, s.Coordinator)
		}
		for _, id := range []string{"before", "after"} {
			if got, want := n.do(nil, "job", "results", "-f", id), strings.ToUpper(lines); got != want {
				t.Errorf("%s gives the results %q of the job %s the loss, want %q", n.name, got, id, want)
			}
		}
		works(t, n)
	}
}
