package blob

import (
	"container/list"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxCache bounds the memory of the recent pages.
	maxCache = 4 << 20
	// cacheFor is how long a page that nobody asks for stays in memory, so that
	// an idle node gives it back.
	cacheFor = time.Minute
	// cachedSize is what a page costs in memory besides its bytes, so that many
	// small ones are bounded too.
	cachedSize = 256
)

// cache is the recent pages in memory. Their bytes are shared, so nobody
// writes to them.
type cache struct {
	mu     sync.Mutex
	recent *list.List // of *cached, the most recent first
	byHash map[wire.Hash]*list.Element
	bytes  int
}

type cached struct {
	hash wire.Hash
	data []byte
	used time.Time
}

func newCache() *cache {
	return &cache{recent: list.New(), byHash: map[wire.Hash]*list.Element{}}
}

// get returns the page's bytes, or nil.
func (c *cache) get(h wire.Hash) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byHash[h]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	e.Value.(*cached).used = time.Now()
	return e.Value.(*cached).data
}

// add keeps the page; the least recent ones make room.
func (c *cache) add(h wire.Hash, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byHash[h]; ok {
		return
	}
	c.byHash[h] = c.recent.PushFront(&cached{hash: h, data: data, used: time.Now()})
	c.bytes += cap(data) + cachedSize
	for c.bytes > maxCache {
		c.drop(c.recent.Back())
	}
}

// remove forgets the page.
func (c *cache) remove(h wire.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byHash[h]; ok {
		c.drop(e)
	}
}

// tidy forgets what nobody has asked for lately.
func (c *cache) tidy(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.recent.Back(); e != nil && now.Sub(e.Value.(*cached).used) > cacheFor; e = c.recent.Back() {
		c.drop(e)
	}
}

func (c *cache) drop(e *list.Element) {
	page := c.recent.Remove(e).(*cached)
	delete(c.byHash, page.hash)
	c.bytes -= cap(page.data) + cachedSize
}
