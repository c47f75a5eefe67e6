package consensus

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// The harness's lead fails the test when two calls overlap or a term repeats.
func TestLeadIsCalledOncePerTermAndWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		for _, n := range nodes {
			n.linger = 3 * time.Second // longer than it takes to lose and regain
		}
		for range 4 {
			first := leader(nodes)
			net.isolate(first.self.id, true)
			eventually(t, "another leads", func() bool {
				now := leader(others(nodes, first))
				if now == nil {
					return false
				}
				term, _ := now.leading()
				return slices.Contains(now.seenTerms(), term)
			})
			net.isolate(first.self.id, false)
			agree(t, nodes)
		}
		total := 0
		for _, n := range nodes {
			total += len(n.seenTerms())
		}
		if total < 5 {
			t.Errorf("lead was called %d times in 5 terms", total)
		}
	})
}

func TestLeadershipLostAndRegainedIsTwoTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		first.linger = 5 * time.Second
		before := len(first.seenTerms())
		// With both others away, and back at once, either may lead next: the
		// test goes on until the first one does.
		for tries := 0; len(first.seenTerms()) == before && tries < 20; tries++ {
			for _, n := range others(nodes, first) {
				net.isolate(n.self.id, true)
			}
			first.until("leadership is lost", func() bool { _, ok := first.leading(); return !ok })
			for _, n := range others(nodes, first) {
				net.isolate(n.self.id, false)
			}
			eventually(t, "someone leads", func() bool { return leader(nodes) != nil })
			if now := leader(nodes); now != first {
				server := first.me.raft()
				_ = now.raft.LeadershipTransferToServer(server.ID, server.Address).Error()
			}
			time.Sleep(6 * time.Second)
		}
		if got := first.seenTerms(); len(got) <= before {
			t.Errorf("terms led: %v, want one more than %d", got, before)
		}
	})
}

func TestRunEndsWithTheErrorOfALeadThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder")
		n.gaveUp = errTest
		if err := n.Found(t.Context(), foundation(n.self)); err != nil {
			t.Fatal(err)
		}
		if err := <-n.ran; !errors.Is(err, errTest) {
			t.Errorf("Run returned %v, want %v", err, errTest)
		}
		n.ran = nil
	})
}

func TestOnlyOneRunAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		if err := n.Group.Run(t.Context(), n.lead); err == nil {
			t.Error("a second Run was let in")
		}
	})
}

func TestAnInterruptedFoundingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder")
		bootstrap := raft.Configuration{Servers: []raft.Server{n.me.raft()}}
		if err := n.raft.BootstrapCluster(bootstrap).Error(); err != nil {
			t.Fatal(err)
		}
		n.until("it leads", func() bool { _, ok := n.leading(); return ok })
		time.Sleep(time.Second)
		if got := n.seenTerms(); len(got) != 0 {
			t.Errorf("lead was called in terms %v with no swarm founded", got)
		}
		n.kill()
		n.open()
		n.found()
	})
}

func TestAnEntryOfANewerVersionStopsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		before := n.hash()
		term, _ := n.leading()
		data, err := encodeEntry(&wire.Command{Format: state.Format + 1, Term: term})
		if err != nil {
			t.Fatal(err)
		}
		n.raft.Apply(data, 0)
		check := func() {
			t.Helper()
			err := <-n.ran
			n.ran = nil
			wantCode(t, err, wire.Code_CODE_VERSION)
			if err == nil || !strings.Contains(err.Error(), "needs a newer version") {
				t.Errorf("Run returned %v, want what it needs", err)
			}
		}
		check()
		if err := n.raft.Snapshot().Error(); err == nil {
			t.Error("a snapshot was taken of a state that lacks an entry")
		}
		if n.hash() != before {
			t.Error("the state has changed")
		}
		n.kill()
		n.open()
		check() // and again after a restart, with nothing lost
		wantCode(t, n.Status().Fault, wire.Code_CODE_VERSION)
	})
}

func TestAnUnreadableEntryStopsEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		data := []byte("no entry at all")
		leader(nodes).raft.Apply(data, 0)
		for _, n := range nodes {
			err := <-n.ran
			n.ran = nil
			wantCode(t, err, wire.Code_CODE_INTERNAL)
		}
	})
}
