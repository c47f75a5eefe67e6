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
		c.nodes[0].Pages(named, nil)
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
		c.nodes[0].Pages(make([]wire.Hash, maxNotices), nil)
		named := c.pages(c.nodes[1].store, 5)
		c.nodes[0].Pages(named, nil)
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
	tests := []struct {
		name  string
		after func(c *cluster, n *node) // the page was put and named
		kept  bool
	}{
		{"nobody", func(*cluster, *node) {}, false},
		{"put again here", func(c *cluster, n *node) { _, _ = n.Put(c.ctx, data) }, true},
		{"put again by another", func(c *cluster, n *node) { _, _ = c.nodes[1].Put(c.ctx, data) }, true},
		{"named again", func(c *cluster, _ *node) { c.setNamed(true, h) }, true},
		{"released, lost and put again", func(c *cluster, n *node) {
			n.Pages(nil, []wire.Hash{h})
			_ = n.store.Delete(h)
			_, _ = n.Put(c.ctx, data)
		}, true},
		{"lost and put again", func(c *cluster, n *node) {
			c.setNamed(true, h)
			_ = n.store.Delete(h)
			_, _ = n.Put(c.ctx, data)
			c.setNamed(false, h)
		}, true},
		{"put again two days ago", func(c *cluster, n *node) {
			_, _ = n.Put(c.ctx, data)
			time.Sleep(2 * unnamedFor)
		}, false},
		{"too much put again", func(c *cluster, n *node) {
			for i := range maxAgain + 1 {
				n.putAgain(wire.HashOf(fmt.Append(nil, i)))
			}
		}, true},
		{"the log is not yet applied", func(_ *cluster, n *node) { n.stale.Store(true) }, true},
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
	h, err := n.Put(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	after(c, n)
	defer n.run(t)()
	n.Pages(nil, []wire.Hash{h})
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

func TestPagesThatNothingNamesLiveADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		n := c.nodes[0]
		young, old, named := mustPut(t, n.store, randomPage(10)), mustPut(t, n.store, randomPage(10)), mustPut(t, n.store, randomPage(10))
		c.setNamed(true, named)
		age(t, n.store, young, time.Now().Add(-unnamedFor))
		age(t, n.store, old, time.Now().Add(-unnamedFor-touchEvery-1))
		age(t, n.store, named, time.Now().Add(-30*unnamedFor))
		n.stale.Store(true)
		defer n.run(t)()
		time.Sleep(2 * collectEvery)
		if !n.store.Has(old) {
			t.Error("a page went before the log was applied")
		}
		n.stale.Store(false)
		age(t, n.store, young, time.Now().Add(-unnamedFor))
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
		if _, err := n.Put(t.Context(), randomPage(10)); err != nil {
			t.Fatal(err)
		}
		p := n.peer(c.nodes[1].id)
		if streams, pages := p.idleStreams(), n.cache.pages(); streams != 1 || pages != 1 {
			t.Errorf("%d streams and %d pages are kept for the next call, want one each", streams, pages)
		}
		time.Sleep(3 * tidyEvery)
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
			n.Pages(nil, []wire.Hash{h})
			close(released)
		})
		racers.Go(func() {
			if _, err := n.Put(t.Context(), data); err != nil {
				t.Error(err)
			}
			<-released
			n.dropReleased()
			if !n.store.Has(h) {
				t.Errorf("%s was put and is gone", h)
			}
		})
		racers.Wait()
	}
}
