//go:build !ostrich_format1

package consensus

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// acknowledgedWithoutC makes a swarm of A, B and C in which A and B have
// acknowledged an entry that C never saw, and A leads.
func acknowledgedWithoutC(t *testing.T, open func(testing.TB, *network, string) *node) (net *network, a, b, c *node) {
	t.Helper()
	net, nodes := swarmOf(t, 3, open)
	agree(t, nodes)
	a = leader(nodes)
	rest := others(nodes, a)
	b, c = rest[0], rest[1]
	net.isolate(c.self.id, true)
	propose(t, nodes, rename(a.self.id, a.self.id, "acknowledged"))
	return net, a, b, c
}

// The case of the issue: an entry is acknowledged by A and B with C away, B
// restarts with an empty folder, A dies. B has forgotten the entry and its vote:
// B and C must not elect. When A is back, B returns as a new server by itself.
func TestAMemberThatLostItsLogDoesNotVoteFromMemoryThatItLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, a, b, c := acknowledgedWithoutC(t, newNode)
		lost := b.Replica()
		b.loseDisk()
		a.kill()
		net.isolate(c.self.id, false)
		time.Sleep(time.Minute)
		if now := leader([]*node{b, c}); now != nil {
			t.Fatalf("%s leads without the entry that was acknowledged", now.self.id.Short())
		}
		if b.Replica() == lost || b.Replica() == "" {
			t.Fatalf("the replica is %q after the loss, and was %q", b.Replica(), lost)
		}

		a.open()
		all := []*node{a, b, c}
		propose(t, all, rename(a.self.id, a.self.id, "after the return"))
		b.report(all)
		eventually(t, "the lost memory is gone and the new one votes", func() bool {
			now := leader(all)
			return now != nil && len(now.Servers()) == 3 && len(now.Voters()) == 3 &&
				slices.Contains(now.Servers(), Server{ID: b.self.id, Replica: b.Replica(), Voter: true})
		})
		agree(t, all)
		if got := b.name(a.self.id); got != "after the return" {
			t.Errorf("the member that is back has %q, want %q", got, "after the return")
		}
	})
}

// The test above is worth something: without replicas it goes red.
func TestWithoutReplicasALostMemoryVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		careless := func(t testing.TB, net *network, name string) *node {
			t.Helper()
			n := newNode(t, net, name)
			n.kill()
			n.more = func(o *Options) { o.Faults.NoReplicas = true }
			n.loseDisk()
			return n
		}
		net, a, b, c := acknowledgedWithoutC(t, careless)
		b.loseDisk()
		a.kill()
		net.isolate(c.self.id, false)
		eventually(t, "B and C elect", func() bool { return leader([]*node{b, c}) != nil })
		if got := c.name(a.self.id); got == "acknowledged" {
			t.Error("the entry is there: the fault shows nothing")
		}
	})
}

func TestAReplicaKeepsItsNameWithItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		name := n.Replica()
		n.kill()
		n.open()
		if got := n.Replica(); got != name || len(got) != 2*replicaBytes {
			t.Errorf("the replica is %q after a restart, and was %q", got, name)
		}
	})
}

func TestALostMemoryIsRemovedAsSoonAsTheOthersCanCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		lost, other := others(nodes, first)[0], others(nodes, first)[1]
		net.isolate(other.self.id, true)
		lost.loseDisk()
		time.Sleep(10 * time.Second)
		if got := len(first.Servers()); got != 3 {
			t.Errorf("%d servers while nothing can be committed, want 3", got)
		}
		net.isolate(other.self.id, false)
		lost.report(nodes)
		eventually(t, "all three vote again", func() bool {
			now := leader(nodes)
			return now != nil && slices.Contains(now.Servers(), Server{ID: lost.self.id, Replica: lost.Replica(), Voter: true})
		})
		agree(t, nodes)
	})
}

func TestAMemberThatNamedNoReplicaIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		founder := newNode(t, net, "founder").found()
		late := newNode(t, net, "late")
		nodes := []*node{founder, late}
		admit(t, nodes, founder.self.id, late.self)
		time.Sleep(time.Minute)
		if got := founder.Servers(); len(got) != 1 {
			t.Errorf("servers before it named its replica: %v", got)
		}
		late.report(nodes)
		eventually(t, "it is a standby", func() bool { return len(late.Servers()) == 2 })
	})
}

func TestAStreamIsRefusedByTheWrongReplicaOrGeneration(t *testing.T) {
	const here, elsewhere = "0123456789abcdef", "fedcba9876543210"
	tests := []struct {
		name       string
		replica    string
		generation uint64
		hail       hail
		want       verdict
	}{
		{"the memory that is meant", here, 1, hail{generation: 1, to: here}, accepted},
		{"another memory", here, 1, hail{generation: 1, to: elsewhere}, wrongReplica},
		{"a memory from before names", here, 1, hail{generation: 1}, wrongReplica},
		{"a named one on an old folder", "", 1, hail{generation: 1, to: here}, wrongReplica},
		{"an old folder", "", 1, hail{generation: 1}, accepted},
		{"an older generation", here, 2, hail{generation: 1, to: here}, wrongGeneration},
		{"a newer generation", here, 2, hail{generation: 3, to: here}, wrongGeneration},
	}
	for _, test := range tests {
		c := card{me: Server{ID: "x", Replica: test.replica}, generation: test.generation}
		if got := c.judge(test.hail); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestCanLoseTellsWhatQuorumIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		rest := others(nodes, first)
		for _, n := range nodes {
			if err := first.CanLose(n.self.id); err != nil {
				t.Errorf("with all there: %v", err)
			}
		}
		if err := first.CanLose("nobody"); err != nil {
			t.Errorf("of a device that is no server: %v", err)
		}
		wantCode(t, rest[0].CanLose(first.self.id), wire.Code_CODE_UNAVAILABLE)

		net.isolate(rest[0].self.id, true)
		time.Sleep(2 * aliveWithin)
		if err := first.CanLose(rest[0].self.id); err != nil {
			t.Errorf("of the one that is not there: %v", err)
		}
		wantCode(t, first.CanLose(rest[1].self.id), wire.Code_CODE_PRECONDITION)
		wantCode(t, first.CanLose(first.self.id), wire.Code_CODE_PRECONDITION)
		f := first.Followers()
		if len(f) != 2 {
			t.Fatalf("%d followers, want 2", len(f))
		}
		for _, s := range f {
			if there := s.ID != rest[0].self.id; there != (s.Silent < aliveWithin) || s.Silent < 0 || s.Matched == 0 {
				t.Errorf("follower %+v, there: %v", s, there)
			}
		}
		if got := rest[1].Followers(); got != nil {
			t.Errorf("a follower knows followers: %v", got)
		}
	})
}

func TestTheOnlyVoterCannotBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 2)
		wantCode(t, nodes[0].CanLose(nodes[0].self.id), wire.Code_CODE_PRECONDITION)
		if err := nodes[0].CanLose(nodes[1].self.id); err != nil {
			t.Errorf("of the standby: %v", err)
		}
	})
}

func TestTheOlderGenerationLearnsOfTheNewerWhoeverDials(t *testing.T) {
	for name, test := range map[string]struct {
		dials, accepts uint64
		wantDials      uint64 // what each side is told of, at the most
		wantAccepts    uint64
	}{
		"the same":          {2, 2, 2, 0},
		"the older dials":   {1, 2, 2, 1},
		"the newer dials":   {3, 2, 2, 3},
		"one from nowhere":  {1, 1 << 60, 1 << 60, 1},
		"one at the border": {1, wire.MaxGeneration, wire.MaxGeneration, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const replica = "0123456789abcdef"
				var dialler, acceptor uint64
				here, there := net.Pipe()
				defer here.Close()
				accepting := &acceptedConn{Conn: there, card: card{
					me: Server{Replica: replica}, generation: test.accepts, met: func(g uint64) { acceptor = g },
				}}
				done := make(chan struct{})
				go func() {
					defer close(done)
					accepting.Read(make([]byte, 1))
					there.Close()
				}()
				c := card{generation: test.dials, met: func(g uint64) { dialler = g }}
				err := c.greet(here, Server{Replica: replica}, time.Now().Add(time.Minute))
				here.Close()
				<-done
				if (err == nil) != (test.dials == test.accepts) {
					t.Errorf("the dialling side got %v", err)
				}
				if dialler != test.wantDials || acceptor != test.wantAccepts {
					t.Errorf("told of %d and %d, want %d and %d", dialler, acceptor, test.wantDials, test.wantAccepts)
				}
			})
		})
	}
}

// A member that lies about its generation, beyond all that there can be, does not
// end the others' part.
func TestAGenerationThatCannotBeIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		n.meet(wire.MaxGeneration + 1)
		n.meet(1)
		propose(t, []*node{n}, rename(n.self.id, n.self.id, "goes on"))
		if got := n.superseded(); len(got) != 0 {
			t.Errorf("told of %v", got)
		}
		n.meet(2)
		n.meet(2)
		n.until("it has left", func() bool { _, ok := n.leading(); return !ok })
		if got := n.superseded(); !slices.Equal(got, []uint64{2}) {
			t.Errorf("told of %v, want 2 once", got)
		}
	})
}
