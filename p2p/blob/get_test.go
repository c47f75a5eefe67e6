package blob

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAPageIsFoundWhereverItIs(t *testing.T) {
	for name, where := range map[string]int{"here": 0, "on a voter": 1, "on a member without a vote": 3} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 4, 3)
			data := randomPage(wire.PageSize)
			h := mustPut(t, c.nodes[where].store, data)
			got, err := c.nodes[0].Get(t.Context(), h)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("Get: %d bytes, %v", len(got), err)
			}
			mustHave(t, c.nodes[0].store, h, data) // a voter keeps what it fetched
		})
	}
}

func TestAMemberThatKeepsNothingFetchesWithoutStoring(t *testing.T) {
	c := newCluster(t, 2, 1)
	data := randomPage(100)
	h := mustPut(t, c.nodes[0].store, data)
	if got, err := c.nodes[1].Get(t.Context(), h); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("Get: %d bytes, %v", len(got), err)
	}
	if c.nodes[1].store.Has(h) {
		t.Error("it stored the page")
	}
	c.nodes[0].fault.Store(int32(refusing))
	if _, err := c.nodes[1].Get(t.Context(), h); err != nil {
		t.Errorf("the second time, from memory: %v", err)
	}
}

func TestAPageThatNobodyHasIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, 3)
		defer c.close()
		h := wire.HashOf([]byte("nobody put this"))
		if _, err := c.nodes[0].Get(t.Context(), h); !errors.Is(err, ErrMissing) || wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("all answer: %v, want ErrMissing", err)
		}
		c.nodes[1].fault.Store(int32(hanging))
		c.nodes[1].closeAllStreams(c)
		if _, err := c.nodes[0].Get(t.Context(), h); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
			t.Errorf("one does not answer: %v, want CODE_UNAVAILABLE", err)
		}
	})
}

// closeAllStreams breaks the streams that others keep to n.
func (n *node) closeAllStreams(c *cluster) {
	for _, other := range c.nodes {
		if other != n {
			other.peer(n.id).closeIdle()
		}
	}
}

func TestAHangingMemberDelaysAGetLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 5, 5)
		defer c.close()
		data := randomPage(100)
		h := mustPut(t, c.nodes[4].store, data)
		for _, n := range c.nodes[1:3] {
			n.fault.Store(int32(hanging))
		}
		begin := time.Now()
		if _, err := c.nodes[0].Get(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 2*hedgeAfter {
			t.Errorf("it took %s, want at most %s", took, 2*hedgeAfter)
		}
	})
}

func TestConcurrentGetsAreOneFetch(t *testing.T) {
	c := newCluster(t, 2, 1)
	data := randomPage(wire.PageSize)
	h := mustPut(t, c.nodes[0].store, data)
	var gets sync.WaitGroup
	for range 32 {
		gets.Go(func() {
			if got, err := c.nodes[1].Get(t.Context(), h); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Get: %d bytes, %v", len(got), err)
			}
		})
	}
	gets.Wait()
	if got := c.nodes[0].dials.Load(); got != 1 {
		t.Errorf("%d streams were opened, want one", got)
	}
}

func TestAGetEndsWithItsContextAndTheSearchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, 1)
		defer c.close()
		data := randomPage(100)
		h := mustPut(t, c.nodes[0].store, data)
		dial, answer := c.nodes[1].cfg.Dial, make(chan struct{})
		c.nodes[1].cfg.Dial = func(ctx context.Context, id wire.DeviceID) (net.Conn, error) {
			<-answer
			return dial(ctx, id)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.nodes[1].Get(ctx, h); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the context's", err)
		}
		var other sync.WaitGroup
		other.Go(func() {
			if _, err := c.nodes[1].Get(t.Context(), h); err != nil {
				t.Errorf("another's get: %v", err)
			}
		})
		synctest.Wait()
		close(answer)
		other.Wait()
		if got := c.nodes[0].dials.Load(); got != 1 {
			t.Errorf("%d streams were opened, want one: the search of the first", got)
		}
	})
}

func TestADamagedPageIsFetchedAnew(t *testing.T) {
	c := newCluster(t, 3, 3)
	data := randomPage(5000)
	h, err := c.nodes[0].Put(t.Context(), wire.NewHoldID(), data)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all voters have the page", func() bool { return c.nodes[1].store.Has(h) && c.nodes[2].store.Has(h) })
	for _, n := range c.nodes[:2] {
		n.cache.remove(h)
		if err := os.WriteFile(n.store.path(h), []byte("spoiled"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.nodes[0].Get(t.Context(), h)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("Get: %d bytes, %v", len(got), err)
	}
	mustHave(t, c.nodes[0].store, h, data)
}

func TestALyingMemberIsNotBelieved(t *testing.T) {
	c := newCluster(t, 3, 3)
	data := randomPage(5000)
	h := mustPut(t, c.nodes[2].store, data)
	honest := c.nodes[0].cfg.Dial
	var lies sync.WaitGroup
	t.Cleanup(lies.Wait)
	c.nodes[0].cfg.Dial = func(ctx context.Context, id wire.DeviceID) (net.Conn, error) {
		if id != c.nodes[1].id {
			return honest(ctx, id)
		}
		near, far := net.Pipe()
		lies.Go(func() {
			defer far.Close()
			if wire.ReadMessage(far, maxCall, &wire.PageCall{}) == nil {
				_ = wire.WriteMessage(far, maxReply, &wire.PageReply{Size: 5000})
				_, _ = far.Write(randomPage(5000))
			}
		})
		return near, nil
	}
	for range 10 { // the order in which members are asked is random
		c.nodes[0].cache.remove(h)
		_ = c.nodes[0].store.Delete(h)
		if got, err := c.nodes[0].Get(t.Context(), h); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("Get: %d bytes, %v", len(got), err)
		}
	}
}

func TestTheCacheIsBoundedAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache()
		var last wire.Hash
		for i := range 40 {
			last = wire.Hash{byte(i)}
			c.add(last, make([]byte, wire.PageSize))
		}
		for i := range 100_000 {
			c.add(wire.Hash{1, byte(i), byte(i >> 8), byte(i >> 16)}, nil)
		}
		if c.bytes > maxCache || c.recent.Len() != len(c.byHash) {
			t.Errorf("%d bytes in %d pages (%d), want at most %d bytes", c.bytes, c.recent.Len(), len(c.byHash), maxCache)
		}
		c.add(last, []byte("x"))
		c.tidy(time.Now().Add(cacheFor))
		if c.get(last) == nil {
			t.Error("a page was forgotten that is no older than allowed")
		}
		c.tidy(time.Now().Add(cacheFor + 1))
		if c.recent.Len() != 0 || c.bytes != 0 || len(c.byHash) != 0 {
			t.Errorf("%d pages and %d bytes are left of what nobody used", c.recent.Len(), c.bytes)
		}
	})
}
