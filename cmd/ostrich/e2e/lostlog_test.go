package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noElection is for how long two members that must not elect are watched: many
// times what an election takes.
const noElection = 6 * time.Second

// A and B hold an entry that was acknowledged, and C does not. B loses its log,
// and A is away: B and C, most of the voters, would elect without it.
func TestAMemberThatLostItsLogDoesNotVoteWithoutIt(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	a, others := coordinator(t, nodes)
	b, c := others[0], others[1]
	c.kill()
	const lines = "kept\nfor\never\n"
	a.do(strings.NewReader(lines), "map", "builtin:upper", "--detach", "--id", "acknowledged")
	b.kill()
	a.kill()
	if err := os.RemoveAll(filepath.Join(b.dir, "raft")); err != nil {
		t.Fatal(err)
	}
	b.launch()
	c.launch()
	for _, n := range []*node{b, c} {
		eventually(t, patience, n.name+" answers", func() bool { return n.try(nil, "status").status == 0 })
	}
	for end := time.Now().Add(noElection); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, n := range []*node{b, c} {
			if s := n.status(); s.Quorum || s.Coordinator != "" {
				t.Fatalf("%s has found a quorum with coordinator %q, without the member that holds what was acknowledged:\n%s",
					n.name, s.Coordinator, tail(n.errors.String(), 20))
			}
		}
	}
	a.up()
	b.awaitReady()
	c.awaitReady()
	for _, n := range nodes {
		if got, want := n.do(nil, "job", "results", "-f", "acknowledged"), strings.ToUpper(lines); got != want {
			t.Errorf("%s gives the results %q of a job that was acknowledged, want %q", n.name, got, want)
		}
	}
	a.voters(3)
	works(t, b)
}
