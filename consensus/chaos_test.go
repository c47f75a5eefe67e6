package consensus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// While members are cut off and killed at random, what was acknowledged stays,
// and what was refused never happened, on every node.
func TestAcknowledgedOperationsStayAndRefusedOnesNeverHappen(t *testing.T) {
	const workers = 12 // more than there are places for entries in flight
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarmOf(t, 3, newMemoryNode)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		fates := make(chan map[wire.Code][]string)
		for worker := range workers {
			go func() { fates <- issueMany(ctx, nodes, fmt.Sprint(worker)) }()
		}
		for ctx.Err() == nil {
			victim := nodes[random.IntN(len(nodes))]
			net.isolate(victim.self.id, true)
			time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
			net.isolate(victim.self.id, false)
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
		}
		count := make(map[wire.Code]int)
		var all []map[wire.Code][]string
		for range workers {
			fate := <-fates
			all = append(all, fate)
			for code, names := range fate {
				count[code] += len(names)
			}
		}
		propose(t, nodes, rename(nodes[0].self.id, nodes[0].self.id, "the end"))
		agree(t, nodes)
		for _, fate := range all {
			checkIssued(t, nodes[1], fate[wire.Code_CODE_UNSPECIFIED], true)
			checkIssued(t, nodes[1], fate[wire.Code_CODE_UNAVAILABLE], false)
		}
		t.Logf("outcomes: %v", count)
		if count[wire.Code_CODE_UNSPECIFIED] < 1000 || count[wire.Code_CODE_UNKNOWN_OUTCOME] == 0 || count[wire.Code_CODE_UNAVAILABLE] == 0 {
			t.Errorf("outcomes %v: the test shows too little", count)
		}
	})
}

// issueMany issues invites until ctx ends, and returns their names by outcome.
func issueMany(ctx context.Context, nodes []*node, worker string) map[wire.Code][]string {
	fate := make(map[wire.Code][]string)
	for i := 0; ctx.Err() == nil; i++ {
		for _, n := range nodes {
			term, ok := n.leading()
			if !ok {
				continue
			}
			name := fmt.Sprintf("%s/%d/%s", worker, i, n.self.id.Short())
			op, _ := issue(nodes[0].self.id, name, wire.Role_ROLE_WORKER, time.Now().Add(time.Hour).UnixMilli())
			short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
			_, err := n.Propose(short, term, op)
			cancel()
			code := wire.CodeOf(err)
			fate[code] = append(fate[code], name)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fate
}

func checkIssued(t *testing.T, n *node, names []string, want bool) {
	t.Helper()
	n.Read(func(s *state.State) {
		for _, name := range names {
			_, link := issue("", name, wire.Role_ROLE_WORKER, 0)
			if got := s.InviteByKey(public(link)) != nil; got != want {
				t.Errorf("invite %s was issued: %v, want %v", name, got, want)
			}
		}
	})
}

func TestAFollowerThatIsBackCountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		rest := others(nodes, first)
		net.isolate(rest[0].self.id, true)
		time.Sleep(time.Minute) // for raft to back off as far as it does
		propose(t, nodes, rename(first.self.id, first.self.id, "meanwhile"))
		net.isolate(rest[0].self.id, false)
		first.until("the follower answers again", func() bool {
			term, _ := first.leading()
			return time.Since(first.transport.follower(rest[0].Group.me, term).contact) < time.Second
		})
		net.isolate(rest[1].self.id, true)
		start := time.Now()
		propose(t, nodes, rename(first.self.id, first.self.id, "with the one that is back"))
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to commit with the follower that is back", took)
		}
	})
}
