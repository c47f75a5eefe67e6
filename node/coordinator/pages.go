package coordinator

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"sync"

	"github.com/ostrich-legs/ostrich/consensus/state"
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
	partial map[wire.Hash]*staged
	written map[wire.Hash]struct{}
}

// staged is a page that is being written. Several writers may bring the same
// bytes at one time: outputs often hold equal pages.
type staged struct {
	page []byte
	size int
	done chan struct{} // closed when it is stored, or is not
	err  error         // why it is not; set before done is closed
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

// add takes a range of a page. When the range is the page's last, it returns the
// page, and whether the caller is the first to bring it whole and so has to
// store it. It returns nil while more is to come, or if nothing has to be done.
func (s *stagedPages) add(hash wire.Hash, r *wire.WritePageRequest) (whole *staged, first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partial == nil {
		s.partial, s.written = make(map[wire.Hash]*staged), make(map[wire.Hash]struct{})
	}
	if _, ok := s.written[hash]; ok {
		return nil, false, nil
	}
	size, from := int(r.GetSize()), int(r.GetOffset())
	to := from + len(r.GetData())
	p := s.partial[hash]
	if p == nil && from == 0 {
		if len(s.partial) >= maxStaging {
			return nil, false, wire.Errorf(wire.Code_CODE_EXHAUSTED, "a device writes at most %d pages at one time", maxStaging)
		}
		p = &staged{size: size, done: make(chan struct{})}
		s.partial[hash] = p
	}
	if p == nil || p.size != size || from > len(p.page) || to > size {
		if p != nil && len(p.page) < p.size {
			delete(s.partial, hash)
		}
		return nil, false, wire.Errorf(wire.Code_CODE_INVALID, "the ranges of page %v do not follow each other", hash)
	}
	if to > len(p.page) {
		p.page = append(p.page, r.GetData()[len(p.page)-from:]...)
		first = len(p.page) == size
	}
	if to < size {
		return nil, false, nil
	}
	return p, first, nil
}

// finish notes what became of a whole page.
func (s *stagedPages) finish(hash wire.Hash, p *staged, err error) {
	if err == nil {
		s.wrote(hash)
	}
	s.mu.Lock()
	delete(s.partial, hash)
	s.mu.Unlock()
	p.err = err
	close(p.done)
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
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "a device writes pages while it has a lease, and device %s has none", a.id.Short())
	}
	p, first, err := a.device.staged.add(hash, r)
	if err != nil || p == nil {
		return &wire.WritePageResponse{}, err
	}
	if first {
		a.device.staged.finish(hash, p, a.storePage(ctx, hash, p.page))
	}
	select {
	case <-p.done:
		return &wire.WritePageResponse{}, p.err
	case <-ctx.Done():
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the session ended")
	}
}

func (a asker) storePage(ctx context.Context, hash wire.Hash, page []byte) error {
	if wire.HashOf(page) != hash {
		return wire.Errorf(wire.Code_CODE_INVALID, "page %v arrived damaged", hash)
	}
	_, err := a.c.cfg.Pages.PutReserved(ctx, page)
	return err
}

// readPage answers with a range of a page. Whoever can name a page was told of
// it: its hash is the right to read it.
func (a asker) readPage(ctx context.Context, r *wire.ReadPageRequest) (*wire.ReadPageResponse, error) {
	hash, err := wire.HashFromBytes(r.GetHash())
	if err != nil || r.GetLength() > wire.MaxChunk {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a page is read by its SHA-256, at most %d bytes at one time", wire.MaxChunk)
	}
	named := false
	a.c.cfg.Group.Read(func(s *state.State) { named = s.Names(hash) })
	if !named { // and nobody else need be asked
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "nothing names page %v any more", hash)
	}
	page, err := a.c.cfg.Pages.Get(ctx, hash)
	if err != nil {
		return nil, err
	}
	from := min(int(r.GetOffset()), len(page))
	to := min(from+int(r.GetLength()), len(page))
	out := &wire.ReadPageResponse{Data: page[from:to], Size: uint32(len(page))}
	if r.GetDeflate() {
		if small := a.c.deflated(out.Data); small != nil {
			out.Data, out.Deflated = small, true
		}
	}
	return out, nil
}

// deflated returns data in raw DEFLATE; nil if that is not smaller.
func (c *Coordinator) deflated(data []byte) []byte {
	w, ok := c.deflaters.Get().(*flate.Writer)
	if !ok {
		var err error
		if w, err = flate.NewWriter(nil, flate.BestSpeed); err != nil {
			return nil // never: the level exists
		}
	}
	defer c.deflaters.Put(w)
	out := bytes.NewBuffer(make([]byte, 0, len(data)))
	w.Reset(out)
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil || out.Len() >= len(data) {
		return nil
	}
	return out.Bytes()
}
