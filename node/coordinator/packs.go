package coordinator

import (
	"container/list"
	"context"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxPackBytes bounds the decoded packs kept, in the bytes of their pages and
// of the slices that point into them. The newest is always kept.
const maxPackBytes = 4 << 20

// packCache decodes packs once for the many that read them a little at a time:
// leases read inputs, clients read results, both nearly in order.
type packCache struct {
	pages Pages

	mu    sync.Mutex
	order *list.List // of *pack, the newest in front
	bytes int        // of all
	known map[wire.Hash]*list.Element
}

type pack struct {
	hash  wire.Hash
	items [][]byte
	bytes int
}

func newPackCache(pages Pages) *packCache {
	return &packCache{pages: pages, order: list.New(), known: make(map[wire.Hash]*list.Element)}
}

// items returns the items of the pack in a page.
func (p *packCache) items(ctx context.Context, hash wire.Hash) ([][]byte, error) {
	if items, ok := p.lookup(hash); ok {
		return items, nil
	}
	page, err := p.pages.Get(ctx, hash)
	if err != nil {
		return nil, err
	}
	items, err := wire.DecodePack(page)
	if err != nil {
		return nil, err
	}
	p.keep(&pack{hash: hash, items: items, bytes: len(page) + 24*len(items)})
	return items, nil
}

func (p *packCache) lookup(hash wire.Hash) ([][]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.known[hash]
	if !ok {
		return nil, false
	}
	p.order.MoveToFront(e)
	return e.Value.(*pack).items, true
}

func (p *packCache) keep(k *pack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.known[k.hash]; ok {
		return
	}
	p.known[k.hash] = p.order.PushFront(k)
	p.bytes += k.bytes
	for p.bytes > maxPackBytes && p.order.Len() > 1 {
		oldest := p.order.Remove(p.order.Back()).(*pack)
		delete(p.known, oldest.hash)
		p.bytes -= oldest.bytes
	}
}

// item returns one item of a segment's or a batch's pack.
func (p *packCache) item(ctx context.Context, inline []byte, page wire.Hash, i int) ([]byte, error) {
	if len(inline) > 0 {
		return wire.PackItem(inline, i)
	}
	items, err := p.items(ctx, page)
	if err != nil {
		return nil, err
	}
	if i < 0 || i >= len(items) {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "page %v holds %d items, not item %d", page, len(items), i)
	}
	return items[i], nil
}
