package coordinator

import (
	"container/list"
	"context"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxPacks bounds the decoded packs kept: 16 pages of 1 MiB at most.
const maxPacks = 16

// packCache decodes packs once for the many that read them a little at a time:
// leases read inputs, clients read results, both nearly in order.
type packCache struct {
	pages Pages

	mu    sync.Mutex
	order *list.List // of *pack, the newest in front
	known map[wire.Hash]*list.Element
}

type pack struct {
	hash  wire.Hash
	items [][]byte
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
	p.keep(hash, items)
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

func (p *packCache) keep(hash wire.Hash, items [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.known[hash]; ok {
		return
	}
	p.known[hash] = p.order.PushFront(&pack{hash, items})
	if p.order.Len() > maxPacks {
		oldest := p.order.Remove(p.order.Back()).(*pack)
		delete(p.known, oldest.hash)
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
