package consensus

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
)

// raft counts an entry as applied when it hands it over, up to some thousands
// before the state has it. Whoever asks whether the state is current must not be
// told yes too early: what the rest of a log names would look unnamed.
func TestAppliedIsWhatTheStateHolds(t *testing.T) {
	_, nodes := swarmOf(t, 3, newNode)
	agree(t, nodes)
	l := leader(nodes)
	slow := others(nodes, l)[0]
	slow.Read(func(*state.State) { // nothing can be applied meanwhile
		propose(t, others(nodes, slow), rename(l.self.id, l.self.id, "not yet"))
		command := l.fsm.index.Load()
		eventually(t, "raft has handed it over", func() bool { return slow.raft.AppliedIndex() >= command })
		if s := slow.Status(); s.Applied >= command || s.Lag != s.Committed-s.Applied {
			t.Errorf("of %d committed entries %d are applied, lag %d; want fewer than %d: the state lacks that one", s.Committed, s.Applied, s.Lag, command)
		}
	})
	agree(t, nodes)
	eventually(t, "all is applied", func() bool { s := slow.Status(); return s.Applied == s.Committed && s.Lag == 0 })
}

// What follows the last command in a log, and a snapshot without a command after
// it, is in the state too.
func TestAppliedReachesTheEndOfALogWithoutACommandThere(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot %t", snapshot), func(t *testing.T) {
			_, nodes := swarmOf(t, 1, newNode)
			n := nodes[0]
			propose(t, nodes, rename(n.self.id, n.self.id, "last"))
			for range 2 { // each start elects, which takes an entry that is no command
				if snapshot {
					if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
						t.Fatal(err)
					}
				}
				n.kill()
				n.open()
				eventually(t, "it leads", func() bool { return leader(nodes) != nil })
				eventually(t, "all is applied", func() bool { s := n.Status(); return s.Applied == s.Last && s.Lag == 0 })
			}
		})
	}
}
