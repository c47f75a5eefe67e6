package coordinator

import (
	"context"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxStaging bounds the pages that one session writes at one time.
	maxStaging = 8
	// maxStaged bounds the memory of which pages a session has written.
	maxStaged = 16 << 10
)

// stagedPages are the pages of large outputs that a session writes.
type stagedPages struct {
	mu      sync.Mutex
	partial map[wire.Hash][]byte
	written map[wire.Hash]struct{}
}

// has reports whether all of these pages were written in this session.
func (s *stagedPages) has(pages [][]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range pages {
		hash, err := wire.HashFromBytes(b)
		if err != nil {
			return false
		}
		if _, ok := s.written[hash]; !ok {
			return false
		}
	}
	return true
}

// add takes a range of a page. It returns the page when it is whole.
func (s *stagedPages) add(hash wire.Hash, r *wire.WritePageRequest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partial == nil {
		s.partial, s.written = make(map[wire.Hash][]byte), make(map[wire.Hash]struct{})
	}
	size, offset := int(r.GetSize()), int(r.GetOffset())
	page, begun := s.partial[hash]
	if offset == 0 {
		page, begun = nil, true
		if len(s.partial) >= maxStaging {
			return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "a device writes at most %d pages at one time", maxStaging)
		}
		page = make([]byte, 0, size)
	}
	if !begun || len(page) != offset || offset+len(r.GetData()) > size {
		delete(s.partial, hash)
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "the ranges of page %v do not follow each other", hash)
	}
	page = append(page, r.GetData()...)
	if len(page) < size {
		s.partial[hash] = page
		return nil, nil
	}
	delete(s.partial, hash)
	return page, nil
}

func (s *stagedPages) wrote(hash wire.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.written) >= maxStaged {
		clear(s.written) // results that name them are checked another way
	}
	s.written[hash] = struct{}{}
}

// writePage takes a range of a page of an output from a device that works.
func (a asker) writePage(ctx context.Context, r *wire.WritePageRequest) (*wire.WritePageResponse, error) {
	hash, err := wire.HashFromBytes(r.GetHash())
	if err != nil || r.GetSize() == 0 || r.GetSize() > wire.PageSize || len(r.GetData()) > wire.MaxChunk {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a page has 1 to %d bytes and comes in ranges of at most %d", wire.PageSize, wire.MaxChunk)
	}
	a.c.mu.Lock()
	busy := a.device.total > 0
	a.c.mu.Unlock()
	if !busy {
		return nil, wire.Errorf(wire.Code_CODE_DENIED, "only a device with a lease writes pages")
	}
	page, err := a.device.staged.add(hash, r)
	if err != nil || page == nil {
		return &wire.WritePageResponse{}, err
	}
	if wire.HashOf(page) != hash {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "page %v arrived damaged", hash)
	}
	if _, err := a.c.cfg.Pages.PutReserved(ctx, page); err != nil {
		return nil, err
	}
	a.device.staged.wrote(hash)
	return &wire.WritePageResponse{}, nil
}

// readPage answers with a range of a page. Whoever can name a page was told of
// it: its hash is the right to read it.
func (a asker) readPage(ctx context.Context, r *wire.ReadPageRequest) (*wire.ReadPageResponse, error) {
	hash, err := wire.HashFromBytes(r.GetHash())
	if err != nil || r.GetLength() > wire.MaxChunk {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a page is read by its SHA-256, at most %d bytes at one time", wire.MaxChunk)
	}
	page, err := a.c.cfg.Pages.Get(ctx, hash)
	if err != nil {
		return nil, err
	}
	from := min(int(r.GetOffset()), len(page))
	to := min(from+int(r.GetLength()), len(page))
	return &wire.ReadPageResponse{Data: page[from:to], Size: uint32(len(page))}, nil
}
