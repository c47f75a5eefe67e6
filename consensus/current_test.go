package consensus

import (
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// A member that starts anew knows what its log held, and not what was committed
// while it was away: before it has heard the leader, and has got that far, what
// the rest of the log names looks unnamed.
func TestAMemberIsCurrentWhenItHasWhatTheLeaderSaysIsCommitted(t *testing.T) {
	net, nodes := swarmOf(t, 3, newNode)
	agree(t, nodes)
	l := leader(nodes)
	n := others(nodes, l)[0]
	eventually(t, "the leader is current", l.Current)
	eventually(t, "the follower is current", n.Current)
	n.kill()
	rest := others(nodes, n)
	propose(t, rest, rename(l.self.id, l.self.id, "meanwhile"))
	net.isolate(n.self.id, true)
	n.open()
	s := n.Status()
	eventually(t, "it has all that it had", func() bool { return n.Status().Applied >= min(s.Last, s.Committed) })
	for range 100 {
		if n.Current() {
			t.Fatal("it takes itself for current, and has heard nobody")
		}
	}
	net.isolate(n.self.id, false)
	eventually(t, "it is current", n.Current)
	if got := n.name(l.self.id); got != "meanwhile" {
		t.Errorf("it is current and does not have what was committed while it was away: the name is %q", got)
	}
}

// A hold ends with the operation that carries it, unless that was refused: then it
// may be asked for again.
func TestHoldsEndWithTheirOperations(t *testing.T) {
	_, nodes := swarmOf(t, 3, newNode)
	agree(t, nodes)
	l := leader(nodes)
	good, refused := wire.NewHoldID(), wire.NewHoldID()
	op := rename(l.self.id, l.self.id, "held")
	op.Holds = [][]byte{good[:], {1, 2, 3}}
	propose(t, nodes, op)
	term := l.Status().Term
	bad := rename(l.self.id, "nobody", "held")
	bad.Holds = [][]byte{refused[:]}
	if _, err := l.Propose(t.Context(), term, bad); err == nil {
		t.Fatal("a device that does not exist was renamed")
	}
	agree(t, nodes)
	for _, n := range nodes {
		eventually(t, "the hold has ended everywhere", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return len(n.ended) == 1 && n.ended[0] == good
		})
	}
}
