package consensus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestConcurrentProposalsShareEntriesAndGetTheirOwnResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		term, _ := first.leading()
		before := first.Status().Last
		const callers = 256
		var wait sync.WaitGroup
		for i := range callers {
			wait.Go(func() {
				op, link := issue(first.self.id, fmt.Sprint(i), wire.Role_ROLE_WORKER, time.Now().Add(time.Hour).UnixMilli())
				result, err := first.Propose(t.Context(), term, op)
				if err != nil {
					t.Errorf("proposal %d: %v", i, err)
					return
				}
				first.Read(func(s *state.State) {
					if invite := s.InviteByKey(public(link)); invite == nil || invite.ID != result.ID {
						t.Errorf("proposal %d got another's result: %q", i, result.ID)
					}
				})
			})
		}
		wait.Wait()
		if entries := first.Status().Last - before; entries > callers/2 {
			t.Errorf("%d operations took %d entries", callers, entries)
		}
		agree(t, nodes)
	})
}

func TestAnOperationsOwnErrorIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		term, _ := n.leading()
		result, err := n.Propose(t.Context(), term, rename(n.self.id, newIdentity("stranger").id, "x"))
		wantCode(t, err, wire.Code_CODE_NOT_FOUND)
		if !errors.Is(err, result.Err) {
			t.Errorf("the error is %v and the result's %v", err, result.Err)
		}
	})
}

func TestProposalsInAnotherTermOrElsewhereAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		term, _ := first.leading()
		for _, n := range nodes {
			for _, wrong := range []uint64{0, term - 1, term + 1} {
				_, err := n.Propose(t.Context(), wrong, rename(n.self.id, n.self.id, "x"))
				wantCode(t, err, wire.Code_CODE_UNAVAILABLE)
			}
		}
		_, err := others(nodes, first)[0].Propose(t.Context(), term, rename(first.self.id, first.self.id, "x"))
		wantCode(t, err, wire.Code_CODE_UNAVAILABLE)
	})
}

func TestAnOversizedOperationIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		term, _ := n.leading()
		_, err := n.Propose(t.Context(), term, rename(n.self.id, n.self.id, strings.Repeat("x", maxOp)))
		wantCode(t, err, wire.Code_CODE_INVALID)
	})
}

func TestTheOutcomeOfAnOperationInFlightIsUnknownWhenLeadershipIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		term, _ := first.leading()
		net.isolate(first.self.id, true)
		_, err := first.Propose(t.Context(), term, rename(first.self.id, first.self.id, "lost"))
		wantCode(t, err, wire.Code_CODE_UNKNOWN_OUTCOME)

		rest := others(nodes, first)
		propose(t, rest, rename(first.self.id, first.self.id, "kept"))
		net.isolate(first.self.id, false)
		agree(t, nodes)
		if got := first.name(first.self.id); got != "kept" {
			t.Errorf("the name is %q, want %q", got, "kept")
		}
	})
}

func TestACallerWhoseContextEndsLearnsWhetherItsOperationMayHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		term, _ := first.leading()
		net.isolate(first.self.id, true)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		errs := make(chan error, 2*entriesInFlight)
		for range cap(errs) {
			go func() {
				_, err := first.Propose(ctx, term, rename(first.self.id, first.self.id, "x"))
				errs <- err
			}()
			synctest.Wait() // each becomes an entry of its own while there are places
		}
		count := make(map[wire.Code]int)
		for range cap(errs) {
			err := <-errs
			count[wire.CodeOf(err)]++
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error %v does not say that time ran out", err)
			}
		}
		want := map[wire.Code]int{wire.Code_CODE_UNKNOWN_OUTCOME: entriesInFlight, wire.Code_CODE_UNAVAILABLE: entriesInFlight}
		for code, n := range want {
			if count[code] != n {
				t.Errorf("%d proposals ended with %v, want %d (all: %v)", count[code], code, n, count)
			}
		}
	})
}

func TestATimeThatWentBackIsNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		future := time.Now().Add(time.Hour).UnixMilli()
		term, _ := n.leading()
		data, err := encodeEntry(&wire.Command{Format: state.Format, Term: term, TimeMs: future,
			Ops: []*wire.Op{rename(n.self.id, n.self.id, "from the future")}})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.raft.Apply(data, 0).Error(); err != nil {
			t.Fatal(err)
		}
		propose(t, []*node{n}, rename(n.self.id, n.self.id, "now"))
		n.Read(func(s *state.State) {
			if got := s.TimeMS(); got != future+1 { // each entry has a time of its own
				t.Errorf("time is %d, want %d", got, future+1)
			}
		})
	})
}

func TestPackKeepsTermsApartAndEntriesBounded(t *testing.T) {
	c := &committer{queue: make(chan *proposal, 8)}
	add := func(term uint64, size int) *proposal {
		return &proposal{term: term, size: size, done: make(chan answer, 1)}
	}
	withdrawnOne := add(1, 10)
	withdrawnOne.fate.Store(withdrawn)
	for _, p := range []*proposal{withdrawnOne, add(1, wire.MaxEntry/2), add(1, wire.MaxEntry/2), add(2, 10), add(2, maxOp)} {
		c.queue <- p
	}
	var got []string
	for range 4 {
		first := c.held
		c.held = nil
		if first == nil {
			first = c.poll()
		}
		batch := c.pack(first)
		got = append(got, fmt.Sprintf("%d of term %d", len(batch), batch[0].term))
	}
	want := []string{"1 of term 1", "1 of term 1", "1 of term 2", "1 of term 2"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("entries %v, want %v", got, want)
	}
}

func TestEntriesSurviveTheirEncoding(t *testing.T) {
	cmd := &wire.Command{Format: state.Format, Term: 3, TimeMs: 4, Ops: []*wire.Op{rename("a", "b", "c")}}
	data, err := encodeEntry(cmd)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeEntry(data)
	if err != nil || !proto.Equal(got, cmd) {
		t.Errorf("decoded %v (%v), want %v", got, err, cmd)
	}
	for i := range data {
		damaged := append([]byte(nil), data...)
		damaged[i] ^= 1
		if _, err := decodeEntry(damaged); wire.CodeOf(err) != wire.Code_CODE_INTERNAL {
			t.Errorf("byte %d flipped: %v, want an error that it is damaged", i, err)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	good, err := encodeEntry(&wire.Command{Format: state.Format, Term: 1, Ops: []*wire.Op{rename("a", "b", "c")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if cmd, err := decodeEntry(data); err == nil && cmd == nil {
			t.Error("neither a command nor an error")
		}
	})
}
