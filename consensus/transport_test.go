package consensus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAStandbyHasCaughtUpWhenItsLogReachesTheLookBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const id, term, goal = wire.DeviceID("standby"), 7, 100
		note := func(at uint64, matched uint64) func(*transport) {
			return func(tr *transport) { tr.note(raft.ServerID(id), at, matched) }
		}
		tests := map[string]struct {
			notes  []func(*transport)
			later  time.Duration
			caught bool
			alive  bool
		}{
			"never heard":          {nil, 2 * time.Second, false, false},
			"only just a server":   {nil, 0, false, true},
			"behind":               {[]func(*transport){note(term, goal-1)}, 0, false, true},
			"there":                {[]func(*transport){note(term, goal)}, 0, true, true},
			"a heartbeat after":    {[]func(*transport){note(term, goal), note(term, 0)}, 0, true, true},
			"silent since":         {[]func(*transport){note(term, goal)}, 2 * time.Second, true, false},
			"in an earlier term":   {[]func(*transport){note(term-1, goal)}, 0, false, true},
			"a late answer to old": {[]func(*transport){note(term, goal-1), note(term-1, goal)}, 0, false, true},
		}
		for name, test := range tests {
			g := &Group{me: Server{ID: "leader"}, transport: &transport{followers: make(map[raft.ServerID]follower)}}
			r := &reconciler{group: g, term: term, goal: goal, since: make(map[Server]time.Time)}
			r.serverView(Server{ID: id}, time.Now())
			for _, note := range test.notes {
				note(g.transport)
			}
			got := r.serverView(Server{ID: id}, time.Now().Add(test.later))
			if got.caughtUp != test.caught || got.alive() != test.alive {
				t.Errorf("%s: caught up %v, alive %v; want %v, %v", name, got.caughtUp, got.alive(), test.caught, test.alive)
			}
		}
	})
}
