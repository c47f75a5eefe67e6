package consensus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Most tests run in a bubble of testing/synctest: the files are real, the clock
// is not, so that elections and absences cost no time.

func TestAFoundedGroupResumesWhatItCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder")
		if n.HasState() {
			t.Error("an empty folder has state")
		}
		n.found()
		propose(t, []*node{n}, rename(n.self.id, n.self.id, "renamed"))
		before := n.hash()
		n.kill()
		n.open()
		if !n.HasState() {
			t.Error("the folder's state is not seen")
		}
		n.until("what was committed is applied again", func() bool { return n.hash() == before })
		if got := n.name(n.self.id); got != "renamed" {
			t.Errorf("the device's name is %q, want %q", got, "renamed")
		}
	})
}

func TestFoundingTwiceWithTheSameKeysIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		if err := n.Found(t.Context(), foundation(n.self)); err != nil {
			t.Errorf("founding again: %v", err)
		}
		other := foundation(n.self)
		other.LeaseKey = append([]byte{1}, other.LeaseKey[1:]...)
		wantCode(t, n.Found(t.Context(), other), wire.Code_CODE_CONFLICT)
	})
}

func TestAMemberOfAGroupCannotFoundAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 2)
		wantCode(t, nodes[1].Found(t.Context(), foundation(nodes[1].self)), wire.Code_CODE_CONFLICT)
	})
}

func TestThreeMembersVoteAndGoOnWithoutTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		first.kill()
		rest := others(nodes, first)
		propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "survivor"))
		agree(t, rest)

		first.open()
		agree(t, nodes)
		for _, n := range nodes {
			n.kill()
		}
		for _, n := range nodes {
			n.open()
		}
		propose(t, nodes, rename(rest[0].self.id, rest[0].self.id, "again"))
		agree(t, nodes)
		if got := nodes[2].name(rest[0].self.id); got != "again" {
			t.Errorf("after a restart of all the name is %q, want %q", got, "again")
		}
	})
}

func TestSevenMembersHaveFiveVotersAndTwoStandbys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 7)
		s := leader(nodes).Status()
		if len(s.Voters) != 5 || len(s.Standbys) != 2 {
			t.Errorf("%d voters and %d standbys, want 5 and 2", len(s.Voters), len(s.Standbys))
		}
	})
}

func TestAnAbsentVoterIsReplacedByAStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 4)
		first := leader(nodes)
		var gone *node
		for _, n := range others(nodes, first) {
			for _, v := range first.Voters() {
				if v == n.self.id {
					gone = n
				}
			}
		}
		net.isolate(gone.self.id, true)
		time.Sleep(absentAfter / 2)
		if got := first.Servers(); len(got) != 4 || len(first.Voters()) != 3 {
			t.Errorf("servers after half the time: %v", got)
		}
		first.until("the absent voter has lost its vote", func() bool {
			voters := first.Voters()
			for _, v := range voters {
				if v == gone.self.id {
					return false
				}
			}
			return len(voters) == 3
		})
		net.isolate(gone.self.id, false)
		agree(t, nodes)
	})
}

func TestARemovedMemberLeavesTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		gone := others(nodes, first)[0]
		propose(t, nodes, &wire.Op{Actor: string(first.self.id), Kind: &wire.Op_RemoveDevice{
			RemoveDevice: &wire.RemoveDevice{DeviceId: string(gone.self.id)},
		}})
		first.until("two servers are left, one voter among them", func() bool {
			return len(first.Servers()) == 2 && len(first.Voters()) == 1
		})
		if _, ok := first.leading(); !ok {
			t.Error("the leader lost its leadership on the way")
		}
	})
}

func TestAStoppingLeaderHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		rest := others(nodes, first)
		start := time.Now()
		first.quit()
		eventually(t, "another leads", func() bool { return leader(rest) != nil })
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("another leads after %v, want no election time-out", took)
		}
		propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "successor"))
	})
}

func TestAStoppingSoleVoterMakesItsStandbyTheVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 2)
		first, second := nodes[0], nodes[1]
		propose(t, nodes, rename(first.self.id, first.self.id, "leaving"))
		start := time.Now()
		first.quit()
		second.until("the standby leads", func() bool { return leader(nodes[1:]) != nil })
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("the standby leads after %v, want no election time-out", took)
		}
		propose(t, nodes[1:], rename(second.self.id, second.self.id, "alone"))
		if got := second.name(first.self.id); got != "leaving" {
			t.Errorf("the successor knows %q, want %q", got, "leaving")
		}

		first.open()
		agree(t, nodes)
		if got := first.Voters(); len(got) != 1 || got[0] != second.self.id {
			t.Errorf("voters after the return: %v, want only %v", got, second.self.id)
		}
	})
}

func TestASoleVoterStopsAtOnceWhenItsStandbyIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 2)
		nodes[1].kill()
		time.Sleep(2 * aliveWithin)
		start := time.Now()
		nodes[0].quit()
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to stop", took)
		}
		nodes[0].open()
		propose(t, nodes[:1], rename(nodes[0].self.id, nodes[0].self.id, "still the voter"))
	})
}

func TestStatusNamesTheLeaderAndItsServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		agree(t, nodes)
		for _, n := range nodes {
			s := n.Status()
			if s.Leader != first.self.id || len(s.Voters) != 3 || s.Fault != nil {
				t.Errorf("status %+v, want the leader %v and 3 voters", s, first.self.id)
			}
			if want := n == first; (s.Role == "leader") != want || (s.SinceContact == 0) != want {
				t.Errorf("role %q, last contact %v ago on the leader: %v", s.Role, s.SinceContact, want)
			}
		}
	})
}

func TestVerifyHoldsOnTheLeaderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		if err := first.Barrier(t.Context()); err != nil {
			t.Errorf("Barrier on the leader: %v", err)
		}
		if err := first.Verify(t.Context()); err != nil {
			t.Errorf("Verify on the leader: %v", err)
		}
		for _, n := range others(nodes, first) {
			wantCode(t, n.Verify(t.Context()), wire.Code_CODE_UNAVAILABLE)
			wantCode(t, n.Barrier(t.Context()), wire.Code_CODE_UNAVAILABLE)
		}
	})
}

func TestAClosedGroupAnswersThatItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		term, _ := n.leading()
		n.kill()
		if err := n.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		_, err := n.Propose(t.Context(), term, rename(n.self.id, n.self.id, "late"))
		wantCode(t, err, wire.Code_CODE_UNAVAILABLE)
		wantCode(t, n.Verify(t.Context()), wire.Code_CODE_UNAVAILABLE)
	})
}

// What package node does when a leader is to lead no more and stays: raft's #696
// is why the instance that handed over is not used again.
func TestAGroupThatHandedOverIsOpenedAgainAndLeadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		for range 6 {
			eventually(t, "someone leads", func() bool { return leader(nodes) != nil })
			first := leader(nodes)
			start := time.Now()
			first.quit()
			first.open()
			if took := time.Since(start); took > time.Second {
				t.Errorf("handing over, closing and opening took %v", took)
			}
			propose(t, nodes, rename(first.self.id, first.self.id, "handed over"))
			agree(t, nodes)
		}
	})
}
