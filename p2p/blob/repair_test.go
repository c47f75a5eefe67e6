package blob

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// pages puts so many pages into the store, and names them.
func (c *cluster) pages(s *Store, n int) []wire.Hash {
	c.t.Helper()
	var hashes []wire.Hash
	for range n {
		hashes = append(hashes, mustPut(c.t, s, randomPage(100)))
	}
	c.setNamed(true, hashes...)
	return hashes
}

func countHave(s *Store, pages []wire.Hash) int {
	n := 0
	for _, h := range pages {
		if s.Has(h) {
			n++
		}
	}
	return n
}

func TestANodeThatKeepsPagesPullsWhatItLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2)
		defer c.close()
		named := c.pages(c.nodes[1].store, 2*pullBatch+10)
		unnamed := mustPut(t, c.nodes[1].store, randomPage(10))
		defer c.nodes[0].run(t)()
		defer c.nodes[2].run(t)()
		time.Sleep(time.Second)
		if got := countHave(c.nodes[0].store, named); got != len(named) {
			t.Errorf("the voter has %d pages of %d after a second", got, len(named))
		}
		if got := c.nodes[0].Status(); got.Missing != 0 || got.StoredBytes != uint64(100*len(named)) {
			t.Errorf("its status is %+v", got)
		}
		if c.nodes[0].store.Has(unnamed) {
			t.Error("the voter pulled what nothing names")
		}
		if got := c.nodes[2].store.Size(); got != 0 {
			t.Errorf("a member that keeps nothing has %d bytes", got)
		}
		c.nodes[2].keep.Store(true) // it becomes a standby
		time.Sleep(keepEvery)
		synctest.Wait()
		if got := countHave(c.nodes[2].store, named); got != len(named) {
			t.Errorf("the new standby has %d pages of %d", got, len(named))
		}
	})
}

func TestANamedPageIsPulledOnceItHadTimeToArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		defer c.nodes[0].run(t)()
		synctest.Wait()
		named := c.pages(c.nodes[1].store, 5)
		c.nodes[0].Pages(1, named, nil, nil)
		time.Sleep(settleFor - time.Nanosecond)
		synctest.Wait()
		if got := countHave(c.nodes[0].store, named); got != 0 {
			t.Errorf("%d pages were pulled at once", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := countHave(c.nodes[0].store, named); got != len(named) {
			t.Errorf("%d pages of %d were pulled", got, len(named))
		}
	})
}

func TestMoreNamesThanCanWaitAreFoundAnyway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		defer c.nodes[0].run(t)()
		synctest.Wait()
		c.nodes[0].Pages(1, make([]wire.Hash, maxNotices), nil, nil)
		named := c.pages(c.nodes[1].store, 5)
		c.nodes[0].Pages(1, named, nil, nil)
		time.Sleep(2 * settleFor)
		synctest.Wait()
		if got := countHave(c.nodes[0].store, named); got != len(named) {
			t.Errorf("%d pages of %d were pulled", got, len(named))
		}
	})
}

func TestWhatCannotBeHadIsTriedAgainUntilNothingNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		named := c.pages(c.nodes[1].store, 2)
		c.nodes[1].fault.Store(int32(refusing))
		defer c.nodes[0].run(t)()
		time.Sleep(time.Hour)
		if got := c.nodes[0].Status().Missing; got != 2 {
			t.Errorf("%d pages are missing, want 2", got)
		}
		if got := c.nodes[1].dials.Load(); got < 30 || got > 400 {
			t.Errorf("%d dials in an hour, want about one a minute", got)
		}
		c.setNamed(false, named[0])
		c.nodes[1].fault.Store(int32(healthy))
		time.Sleep(lastRetry)
		synctest.Wait()
		if c.nodes[0].store.Has(named[0]) || !c.nodes[0].store.Has(named[1]) || c.nodes[0].Status().Missing != 0 {
			t.Errorf("have what is not named: %v, what is: %v, missing %d",
				c.nodes[0].store.Has(named[0]), c.nodes[0].store.Has(named[1]), c.nodes[0].Status().Missing)
		}
	})
}

// A page that nobody has is told apart from one that is on its way, at once.
func TestAPageThatNobodyHasIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 3)
		defer c.close()
		n := c.nodes[0]
		defer n.run(t)()
		synctest.Wait()
		named := c.pages(c.nodes[1].store, 2)
		lost := wire.HashOf(randomPage(10))
		c.setNamed(true, lost)
		n.Pages(1, append(named, lost), nil, nil)
		time.Sleep(settleFor + time.Second)
		synctest.Wait()
		if s := n.Status(); s.Missing != 1 || len(s.Lost) != 1 || s.Lost[0] != lost {
			t.Errorf("after three seconds %+v, want the one page that is lost", s)
		}
		data := randomPage(20)
		back := wire.HashOf(data)
		c.setNamed(true, back)
		n.Pages(1, []wire.Hash{back}, nil, nil)
		time.Sleep(settleFor + time.Second)
		mustPut(t, c.nodes[2].store, data) // it comes back
		c.setNamed(false, lost)            // and what needs the other goes
		time.Sleep(2 * lastRetry)
		synctest.Wait()
		if s := n.Status(); s.Missing != 0 || len(s.Lost) != 0 || !n.store.Has(back) {
			t.Errorf("when one is back and the other not needed: %+v", s)
		}
	})
}

func TestRepairLeavesTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		c.pages(c.nodes[1].store, 1)
		c.nodes[0].free.Store(hardReserve - 1)
		defer c.nodes[0].run(t)()
		time.Sleep(time.Minute)
		if got := c.nodes[0].Status(); got.Missing != 1 || got.StoredBytes != 0 {
			t.Errorf("status %+v, want one page missing and none stored", got)
		}
	})
}

func TestReleasedPagesGoAtOnceUnlessSomebodyNeedsThem(t *testing.T) {
	data := randomPage(100)
	h := wire.HashOf(data)
	again := wire.NewHoldID()
	put := func(c *cluster, at int) {
		if _, err := c.nodes[at].Put(c.ctx, again, data); err != nil {
			c.t.Error(err)
		}
	}
	tests := []struct {
		name  string
		after func(c *cluster, n *node) // the page was put and named
		kept  bool
	}{
		{"nobody", func(*cluster, *node) {}, false},
		{"put again here", func(c *cluster, _ *node) { put(c, 0) }, true},
		{"put again by another", func(c *cluster, _ *node) { put(c, 1) }, true},
		{"kept again by another", func(c *cluster, _ *node) {
			if err := c.nodes[1].Hold(c.ctx, again, []wire.Hash{h}); err != nil {
				c.t.Error(err)
			}
		}, true},
		{"put by two of whom one has named it", func(c *cluster, n *node) {
			put(c, 0)
			_, _ = n.Put(c.ctx, wire.HoldID{7}, data)
			n.Pages(1, nil, nil, []wire.HoldID{{7}})
		}, true},
		{"put again, and the command that named it was applied", func(c *cluster, n *node) {
			put(c, 0)
			n.Pages(1, nil, nil, []wire.HoldID{again})
		}, false},
		{"put by a version without holds", func(c *cluster, n *node) { _, _ = n.Put(c.ctx, wire.HoldID{}, data) }, true},
		{"named again", func(c *cluster, _ *node) { c.setNamed(true, h) }, true},
		{"released, lost and put again", func(c *cluster, n *node) {
			n.Pages(1, nil, []wire.Hash{h}, nil)
			_ = n.store.Delete(h)
			put(c, 0)
		}, true},
		{"put again two days ago", func(c *cluster, n *node) {
			put(c, 0)
			time.Sleep(2 * holdFor)
			n.holds.expire(time.Now())
		}, false},
		{"put for a coordinator that is no more", func(c *cluster, n *node) {
			_, _ = n.Put(c.ctx, wire.NewTermHoldID(4), data)
			n.Pages(5, nil, nil, nil)
			time.Sleep(2 * termGrace)
			n.holds.expire(time.Now())
		}, false},
		{"put for a coordinator that was there a moment ago", func(c *cluster, n *node) {
			_, _ = n.Put(c.ctx, wire.NewTermHoldID(4), data)
			n.Pages(5, nil, nil, nil)
			n.holds.expire(time.Now())
		}, true},
		{"put for the coordinator that there is", func(c *cluster, n *node) {
			_, _ = n.Put(c.ctx, wire.NewTermHoldID(5), data)
			n.Pages(5, nil, nil, []wire.HoldID{wire.NewTermHoldID(4), wire.NewTermHoldID(9)})
			time.Sleep(2 * termGrace)
			n.holds.expire(time.Now())
		}, true},
		{"too much put at one time", func(c *cluster, n *node) {
			for i := range maxHolds + 1 {
				n.holds.add(again, wire.HashOf(fmt.Append(nil, i)))
			}
		}, true},
		{"the state is not current", func(_ *cluster, n *node) { n.stale.Store(true) }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testReleased(t, data, test.after, test.kept) })
		})
	}
}

func testReleased(t *testing.T, data []byte, after func(*cluster, *node), kept bool) {
	c := newCluster(t, 2, 2)
	defer c.close()
	n := c.nodes[0]
	first := wire.NewHoldID()
	h, err := n.Put(t.Context(), first, data)
	if err != nil {
		t.Fatal(err)
	}
	n.Pages(1, []wire.Hash{h}, nil, []wire.HoldID{first})
	after(c, n)
	defer n.run(t)()
	n.Pages(1, nil, []wire.Hash{h}, nil)
	synctest.Wait()
	if got := n.store.Has(h); got != kept {
		t.Errorf("the page is kept: %v, want %v", got, kept)
	}
	if !n.stale.Swap(false) {
		return
	}
	time.Sleep(currentEvery)
	synctest.Wait()
	if n.store.Has(h) {
		t.Error("once the log is applied, the page is kept")
	}
}

// A command that named the page, or had no use for it, gives it up; whoever puts
// it for that command only now is told that it came too late.
func TestAPageGoesWithTheLastOfItsHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		n := c.nodes[0]
		defer n.run(t)()
		data := randomPage(100)
		h := wire.HashOf(data)
		for _, id := range []wire.HoldID{{1}, {2}, {1}} { // one of them twice
			if _, err := n.Put(t.Context(), id, data); err != nil {
				t.Fatal(err)
			}
		}
		n.Pages(1, nil, nil, []wire.HoldID{{1}})
		synctest.Wait()
		if !n.store.Has(h) {
			t.Error("it went while another hold was there")
		}
		n.Pages(1, nil, nil, []wire.HoldID{{2}})
		synctest.Wait()
		if n.store.Has(h) {
			t.Error("it stays with neither name nor hold")
		}
		if _, err := n.Put(t.Context(), wire.HoldID{1}, data); err == nil || n.store.Has(h) {
			t.Errorf("put for a command that was applied: %v, and it is there: %v", err, n.store.Has(h))
		}
		c.setNamed(true, h)
		if _, err := n.Put(t.Context(), wire.HoldID{1}, data); err != nil || !n.store.Has(h) {
			t.Errorf("put late, of a page that is named: %v", err)
		}
	})
}

// What was put before a node ended is kept when it begins again, whatever the rest
// of the log does with the same bytes; what a command had named goes when it is
// released.
func TestARestartForgetsNobodyWhoPutAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		n := c.nodes[0]
		stop := n.run(t)
		var pages []wire.Hash
		for i, data := range [][]byte{randomPage(10), randomPage(10)} {
			h, err := n.Put(t.Context(), wire.HoldID{byte(i + 1)}, data)
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, h)
		}
		waits, named := pages[0], pages[1]
		c.setNamed(true, named)
		n.Pages(1, []wire.Hash{named}, nil, []wire.HoldID{{2}})
		time.Sleep(time.Second)
		stop()
		n.restart()
		stop = n.run(t)
		defer func() { stop() }()
		c.setNamed(false, named)
		n.Pages(1, nil, []wire.Hash{waits, named}, nil)
		time.Sleep(2 * collectEvery)
		synctest.Wait()
		if !n.store.Has(waits) || n.store.Has(named) {
			t.Errorf("after a restart: put %v, named and released %v; want the first only", n.store.Has(waits), n.store.Has(named))
		}
		time.Sleep(holdFor + 2*touchEvery)
		synctest.Wait()
		if n.store.Has(waits) {
			t.Error("a page whose command never came stays for ever")
		}
	})
}

func TestPagesThatNothingNamesLiveADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		n := c.nodes[0]
		young, old, named := mustPut(t, n.store, randomPage(10)), mustPut(t, n.store, randomPage(10)), mustPut(t, n.store, randomPage(10))
		c.setNamed(true, named)
		age(t, n.store, young, time.Now().Add(-holdFor))
		age(t, n.store, old, time.Now().Add(-holdFor-touchEvery-1))
		age(t, n.store, named, time.Now().Add(-30*holdFor))
		n.stale.Store(true)
		defer n.run(t)()
		time.Sleep(2 * collectEvery)
		if !n.store.Has(old) {
			t.Error("a page went before the log was applied")
		}
		n.stale.Store(false)
		age(t, n.store, young, time.Now().Add(-holdFor))
		time.Sleep(tidyEvery)
		synctest.Wait()
		if n.store.Has(old) || !n.store.Has(young) || !n.store.Has(named) {
			t.Errorf("old %v, young %v, named %v; want only the old one gone", n.store.Has(old), n.store.Has(young), n.store.Has(named))
		}
		time.Sleep(3 * collectEvery)
		synctest.Wait()
		if n.store.Has(young) || !n.store.Has(named) {
			t.Errorf("hours later: young %v, named %v; want only the named one", n.store.Has(young), n.store.Has(named))
		}
	})
}

func (p *peer) idleStreams() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

func (c *cache) pages() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len()
}

func TestUnusedStreamsAndMemoryAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 2)
		defer c.close()
		n := c.nodes[0]
		defer n.run(t)()
		if _, err := n.Put(t.Context(), wire.NewHoldID(), randomPage(10)); err != nil {
			t.Fatal(err)
		}
		p := n.peer(c.nodes[1].id)
		if streams, pages := p.idleStreams(), n.cache.pages(); streams != 1 || pages != 1 {
			t.Errorf("%d streams and %d pages are kept for the next call, want one each", streams, pages)
		}
		time.Sleep(cacheFor + 2*tidyEvery)
		synctest.Wait()
		if streams, pages := p.idleStreams(), n.cache.pages(); streams != 0 || pages != 0 {
			t.Errorf("%d streams and %d pages are kept for minutes", streams, pages)
		}
	})
}

// TestAPageThatIsPutIsNeverCollected races puts of one page with releases of
// what named it before: after each put the page is there.
func TestAPageThatIsPutIsNeverCollected(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	defer n.run(t)()
	var racers sync.WaitGroup
	for i := range 40 {
		data := fmt.Appendf(nil, "page %d", i)
		h := mustPut(t, n.store, data)
		released := make(chan struct{})
		racers.Go(func() {
			n.Pages(1, nil, []wire.Hash{h}, nil)
			close(released)
		})
		racers.Go(func() {
			if _, err := n.Put(t.Context(), wire.NewHoldID(), data); err != nil {
				t.Error(err)
			}
			<-released
			n.judgeFreed()
			if !n.store.Has(h) {
				t.Errorf("%s was put and is gone", h)
			}
		})
		racers.Wait()
	}
}
