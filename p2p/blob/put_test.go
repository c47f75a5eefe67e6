package blob

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAPutNeedsMostOfTheVoters(t *testing.T) {
	tests := []struct {
		name   string
		voters int
		from   int // the node that puts; voters and above have no vote
		faults map[int]fault
		words  string // of the error; empty: the put succeeds
	}{
		{"alone", 1, 0, nil, ""},
		{"all healthy", 3, 0, nil, ""},
		{"one of three refuses", 3, 0, map[int]fault{1: refusing}, ""},
		{"one of three hangs", 3, 0, map[int]fault{2: hanging}, ""},
		{"one of three is mute", 3, 0, map[int]fault{2: mute}, ""},
		{"two of five hang", 5, 0, map[int]fault{1: hanging, 4: mute}, ""},
		{"no vote, one of three refuses", 3, 3, map[int]fault{1: refusing}, ""},
		{"two of three refuse", 3, 0, map[int]fault{1: refusing, 2: refusing}, "1 of 3 voters have it and 2 are needed"},
		{"one of two refuses", 2, 0, map[int]fault{1: refusing}, "1 of 2 voters have it and 2 are needed"},
		{"one refuses, one hangs", 3, 0, map[int]fault{1: refusing, 2: hanging}, "1 of 3 voters have it and 2 are needed"},
		{"one refuses, one is mute", 3, 0, map[int]fault{1: mute, 2: refusing}, "1 of 3 voters have it and 2 are needed"},
		{"no vote, two refuse", 3, 3, map[int]fault{0: refusing, 1: refusing}, "have it and 2 are needed"},
		{"three of five refuse", 5, 0, map[int]fault{1: refusing, 2: refusing, 3: refusing}, "have it and 3 are needed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testQuorum(t, test.voters, test.from, test.faults, test.words) })
		})
	}
}

func testQuorum(t *testing.T, voters, from int, faults map[int]fault, words string) {
	c := newCluster(t, voters+1, voters)
	defer c.close()
	for i, f := range faults {
		c.nodes[i].fault.Store(int32(f))
	}
	data := randomPage(50_000)
	begin := time.Now()
	h, err := c.nodes[from].Put(t.Context(), wire.NewHoldID(), data)
	if took := time.Since(begin); took > dialTime+callTime {
		t.Errorf("the put took %s", took)
	}
	if words != "" {
		if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v; want CODE_UNAVAILABLE that says %q", err, words)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	have := 0
	for i, n := range c.nodes[:voters] {
		if n.store.Has(h) {
			have++
			mustHave(t, n.store, h, data)
		} else if i == from {
			t.Error("the voter that put it has it not")
		}
	}
	if have <= voters/2 {
		t.Errorf("%d of %d voters have the page when the put returns", have, voters)
	}
	synctest.Wait() // the healthy rest gets it in the background
	for i, n := range c.nodes[:voters] {
		if faults[i] == healthy && !n.store.Has(h) {
			t.Errorf("healthy voter %d never got the page", i)
		}
	}
}

func TestOnlyThoseWhoKeepPagesKeepACopy(t *testing.T) {
	c := newCluster(t, 3, 1)
	standby, member := c.nodes[1], c.nodes[2]
	standby.keep.Store(true)
	for _, n := range []*node{standby, member} {
		h, err := n.Put(t.Context(), wire.NewHoldID(), randomPage(10))
		if err != nil {
			t.Fatal(err)
		}
		if !c.nodes[0].store.Has(h) {
			t.Errorf("%s: the voter has not what it put", n.id)
		}
		if got := n.store.Has(h); got != n.keep.Load() {
			t.Errorf("%s: has its own copy: %v, want %v", n.id, got, n.keep.Load())
		}
	}
}

func TestAPutWithoutVotersIsUnavailable(t *testing.T) {
	c := newCluster(t, 1, 0)
	if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), nil); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("error %v, want CODE_UNAVAILABLE", err)
	}
	if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), make([]byte, wire.PageSize+1)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("too large: error %v, want CODE_INVALID", err)
	}
}

func TestAPutEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 3)
		defer c.close()
		c.nodes[1].fault.Store(int32(mute))
		c.nodes[2].fault.Store(int32(mute))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.nodes[0].Put(ctx, wire.NewHoldID(), randomPage(10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
	})
}

func TestASlowVoterCostsBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 3)
		defer c.close()
		slow := c.nodes[2]
		slow.fault.Store(int32(mute))
		for range 5 * maxPlaces {
			if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(100)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		p := c.nodes[0].peer(slow.id)
		if got := len(p.places); got > maxPlaces {
			t.Errorf("%d pages wait for the slow voter, want at most %d", got, maxPlaces)
		}
		if got := slow.dials.Load(); got > maxStreams {
			t.Errorf("%d streams to the slow voter, want at most %d", got, maxStreams)
		}
	})
}

func TestAVoterThatIsSlowIsWaitedForWhenItIsNeeded(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.nodes[1].fault.Store(int32(refusing))
	done := make(chan error)
	for range 8 * maxPlaces {
		go func() {
			_, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(100))
			done <- err
		}()
	}
	for range 8 * maxPlaces {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAVoterThatCameBackIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		c.nodes[1].fault.Store(int32(refusing))
		if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err == nil {
			t.Fatal("a put without a quorum succeeded")
		}
		c.nodes[1].fault.Store(int32(healthy))
		time.Sleep(lastPause)
		if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
			t.Errorf("after its return: %v", err)
		}
	})
}

// After a takeover the voter that came back last is needed at once, and the one
// that has just died is not known to be dead.
func TestAVoterThatFailedAMomentAgoIsAskedAgainWhileItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 3)
		defer c.close()
		back, dead := c.nodes[1], c.nodes[2]
		back.fault.Store(int32(refusing))
		for range 5 {
			if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lastPause)
		}
		if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
			t.Fatal(err)
		}
		back.fault.Store(int32(healthy))
		dead.fault.Store(int32(mute))
		c.nodes[0].peer(dead.id).closeIdle()
		begun := time.Now()
		if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 2*firstPause {
			t.Errorf("the put took %v: it waited for the dead voter, not for the one that is back", took)
		}
	})
}

func TestADeadStreamIsReplacedWithinThePut(t *testing.T) {
	c := newCluster(t, 2, 2)
	if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
		t.Fatal(err)
	}
	p := c.nodes[0].peer(c.nodes[1].id)
	for _, s := range p.idle {
		s.conn.Close()
	}
	if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
		t.Errorf("over a dead stream: %v", err)
	}
	if got := c.nodes[1].dials.Load(); got != 2 {
		t.Errorf("%d dials, want one more than the first", got)
	}
}

func TestPutsStopBeforeTheDiskIsFull(t *testing.T) {
	tests := []struct {
		name               string
		local, remote      uint64 // MiB free
		want, wantReserved wire.Code
	}{
		{"room", 512, 512, 0, 0},
		{"little room here", 511, 1000, wire.Code_CODE_NO_SPACE, 0},
		{"no room here", 255, 1000, wire.Code_CODE_NO_SPACE, wire.Code_CODE_NO_SPACE},
		{"little room there", 1000, 300, 0, 0},
		{"no room there", 1000, 255, wire.Code_CODE_NO_SPACE, wire.Code_CODE_NO_SPACE},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, 2, 2)
			c.nodes[0].free.Store(test.local << 20)
			c.nodes[1].free.Store(test.remote << 20)
			if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); wire.CodeOf(err) != test.want {
				t.Errorf("Put: %v, want %s", err, test.want)
			}
			if _, err := c.nodes[0].PutReserved(t.Context(), wire.NewHoldID(), randomPage(10)); wire.CodeOf(err) != test.wantReserved {
				t.Errorf("PutReserved: %v, want %s", err, test.wantReserved)
			}
		})
	}
}

func TestAfterCloseNothingGoesOn(t *testing.T) {
	c := newCluster(t, 3, 3)
	h, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), randomPage(10)); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Put: %v, want CODE_UNAVAILABLE", err)
	}
	c.nodes[0].cache.remove(h)
	if _, err := c.nodes[0].Get(t.Context(), h); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Get: %v, want CODE_UNAVAILABLE", err)
	}
}
