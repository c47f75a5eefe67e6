package coordinator

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxStaging bounds the pages that one session writes at one time, and
	// maxStagedBytes those of all sessions: twice four pages of 32 devices that
	// are busy with it.
	maxStaging     = 8
	maxStagedBytes = 256 << 20
	// stagedFor is how long a page that is half written waits for more of it.
	stagedFor = 30 * time.Second
	// maxStored bounds the pages remembered as just stored.
	maxStored = 64
	// maxStagedHolds bounds the holds that a session's pages have before results
	// name them.
	maxStagedHolds = 64 << 10
)

// useless are holds of what was put and is not going to be named: of a task that
// was cancelled, a session that ended, a command that was never written.
type useless struct {
	mu  sync.Mutex
	ids []wire.HoldID
}

const (
	// maxUseless bounds those that are remembered; others end by themselves in
	// time. maxRiding is how many ride on one operation, and manyUseless how many
	// are worth one.
	maxUseless  = 1 << 16
	maxRiding   = 1024
	manyUseless = 64
)

func (u *useless) add(ids ...wire.HoldID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ids = append(u.ids, ids[:min(len(ids), maxUseless-len(u.ids))]...)
}

func (u *useless) take() []wire.HoldID {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := min(len(u.ids), maxRiding)
	taken := u.ids[:n:n]
	if u.ids = u.ids[n:]; len(u.ids) == 0 {
		u.ids = nil
	}
	return taken
}

func (u *useless) many() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ids) >= manyUseless
}

// staging is the bytes of pages that are being written, of all sessions.
type staging struct{ bytes atomic.Int64 }

// take reserves room for a page.
func (s *staging) take(size int) bool {
	if s.bytes.Add(int64(size)) <= maxStagedBytes {
		return true
	}
	s.give(size)
	return false
}

func (s *staging) give(size int) { s.bytes.Add(-int64(size)) }

// stagedPages are the pages of large outputs that a session writes. Bytes that
// come again are stored again: they may be gone by then. Whether a page is there
// is asked when a result names it (see confirmer).
type stagedPages struct {
	all     *staging
	useless *useless

	mu      sync.Mutex
	partial map[wire.Hash]*staged
	// stored are pages that were stored a moment ago: who wrote the same bytes
	// side by side need not begin again.
	stored map[wire.Hash]time.Time
	// holds are those of pages that were stored and that no result has named yet.
	holds stagedHolds
	wrote time.Time // when a page was last stored
}

// stagedHolds are the holds of pages from their writing to the result that names
// them, by task.
type stagedHolds struct {
	of    map[stagedLease]map[uint32][]stagedHold
	count int
}

// stagedLease names a lease; the zero value is that of devices which do not say.
type stagedLease struct{ term, counter uint64 }

func stagedLeaseOf(a *wire.Attempt) stagedLease { return stagedLease{a.GetTerm(), a.GetCounter()} }

type stagedHold struct {
	page wire.Hash
	id   wire.HoldID
}

// add notes a hold, unless there are too many: that one ends with its term.
func (s *stagedHolds) add(lease stagedLease, index uint32, h stagedHold) {
	if s.count >= maxStagedHolds {
		return
	}
	if s.of == nil {
		s.of = make(map[stagedLease]map[uint32][]stagedHold)
	}
	if s.of[lease] == nil {
		s.of[lease] = make(map[uint32][]stagedHold)
	}
	s.of[lease][index] = append(s.of[lease][index], h)
	s.count++
}

// takeTask takes all holds of a task.
func (s *stagedHolds) takeTask(lease stagedLease, index uint32) (taken []wire.HoldID) {
	for _, h := range s.of[lease][index] {
		taken = append(taken, h.id)
	}
	s.count -= len(taken)
	if delete(s.of[lease], index); len(s.of[lease]) == 0 {
		delete(s.of, lease)
	}
	return taken
}

// takePages takes a hold of each page, of those whose task is not known.
func (s *stagedHolds) takePages(pages [][]byte) (taken []wire.HoldID) {
	unknown := s.of[stagedLease{}][0]
	for _, b := range pages {
		i := slices.IndexFunc(unknown, func(h stagedHold) bool { return h.page == wire.Hash(b) })
		if i < 0 {
			continue
		}
		taken = append(taken, unknown[i].id)
		unknown = slices.Delete(unknown, i, i+1)
		s.count--
	}
	if len(taken) > 0 {
		s.of[stagedLease{}][0] = unknown
	}
	return taken
}

// staged is a page that is being written. Several writers may bring the same
// bytes at one time: outputs often hold equal pages.
type staged struct {
	page  []byte
	size  int
	lease stagedLease // with index, the task that it was begun for
	index uint32
	moved time.Time     // when more of it came
	done  chan struct{} // closed when it is stored, or is not
	err   error         // why it is not; set before done is closed
}

func (p *staged) whole() bool { return len(p.page) == p.size }

// add takes a range of a page. When the range is the page's last, it returns the
// page, and whether the caller is the first to bring it whole and so has to
// store it. It returns nil while more is to come.
func (s *stagedPages) add(hash wire.Hash, r *wire.WritePageRequest) (whole *staged, first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, from := int(r.GetSize()), int(r.GetOffset())
	to := from + len(r.GetData())
	p := s.partial[hash]
	if p == nil && from == 0 {
		if p, err = s.begin(hash, r); err != nil {
			return nil, false, err
		}
	}
	if at, ok := s.stored[hash]; ok && time.Since(at) < stagedFor && (p == nil || p.size == size && from > len(p.page)) {
		return nil, false, nil // it began before the page was stored
	}
	if p == nil || p.size != size || from > len(p.page) || to > size {
		if p != nil && !p.whole() {
			s.forget(hash)
		}
		return nil, false, wire.Errorf(wire.Code_CODE_INVALID, "the ranges of page %v do not follow each other", hash)
	}
	if to > len(p.page) {
		p.page = append(p.page, r.GetData()[len(p.page)-from:]...)
		p.moved = time.Now()
		first = p.whole()
	}
	if to < size {
		return nil, false, nil
	}
	return p, first, nil
}

// begin makes room for a page. Of those that are half written the one that has
// waited longest makes room for it: a device that writes more of them at one time
// than its bound has given some up.
func (s *stagedPages) begin(hash wire.Hash, r *wire.WritePageRequest) (*staged, error) {
	if s.partial == nil {
		s.partial = make(map[wire.Hash]*staged)
	}
	if len(s.partial) >= maxStaging && !s.forgetOldest() {
		return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "a device writes at most %d pages at one time", maxStaging)
	}
	if !s.all.take(int(r.GetSize())) {
		return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "all devices write at most %d MiB of pages at one time", maxStagedBytes>>20)
	}
	p := &staged{size: int(r.GetSize()), lease: stagedLeaseOf(r.GetAttempt()), index: r.GetIndex(), moved: time.Now(), done: make(chan struct{})}
	s.partial[hash] = p
	return p, nil
}

func (s *stagedPages) forgetOldest() bool {
	var oldest *staged
	var name wire.Hash
	for hash, p := range s.partial {
		if !p.whole() && (oldest == nil || p.moved.Before(oldest.moved)) {
			oldest, name = p, hash
		}
	}
	if oldest != nil {
		s.forget(name)
	}
	return oldest != nil
}

// forget gives the room of a page back. The caller holds the mutex.
func (s *stagedPages) forget(hash wire.Hash) {
	s.all.give(s.partial[hash].size)
	delete(s.partial, hash)
}

// forgetIf forgets the pages that are half written and meant.
func (s *stagedPages) forgetIf(meant func(*staged) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, p := range s.partial {
		if !p.whole() && meant(p) {
			s.forget(hash)
		}
	}
}

// cancel forgets what was written for tasks of a lease, all of them if indexes
// is nil.
func (s *stagedPages) cancel(attempt *wire.Attempt, indexes []uint32) {
	lease := stagedLeaseOf(attempt)
	s.forgetIf(func(p *staged) bool { return p.lease == lease && (indexes == nil || slices.Contains(indexes, p.index)) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if indexes == nil {
		for index := range s.holds.of[lease] {
			indexes = append(indexes, index)
		}
	}
	for _, index := range indexes {
		s.useless.add(s.holds.takeTask(lease, index)...)
	}
}

// end forgets what was held: nobody will name it.
func (s *stagedPages) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tasks := range s.holds.of {
		for _, all := range tasks {
			for _, h := range all {
				s.useless.add(h.id)
			}
		}
	}
	s.holds = stagedHolds{}
}

// inherit takes over what an earlier session of the device has written.
func (s *stagedPages) inherit(old *stagedPages) {
	old.mu.Lock()
	holds, wrote := old.holds, old.wrote
	old.holds = stagedHolds{}
	old.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds, s.wrote = holds, wrote // it has written nothing itself
}

// takeHolds returns the holds of the pages of a task's output, for the result that
// names them.
func (s *stagedPages) takeHolds(attempt *wire.Attempt, index uint32, pages [][]byte) []wire.HoldID {
	if len(pages) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(s.holds.takeTask(stagedLeaseOf(attempt), index), s.holds.takePages(pages)...)
}

// lastWrote returns when a page was last stored.
func (s *stagedPages) lastWrote() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrote
}

// finish notes what became of a whole page, which was put under id.
func (s *stagedPages) finish(hash wire.Hash, p *staged, id wire.HoldID, err error) {
	s.mu.Lock()
	s.forget(hash)
	if err != nil {
		s.useless.add(id)
	} else {
		s.holds.add(p.lease, p.index, stagedHold{hash, id})
		s.wrote = time.Now()
	}
	if err == nil {
		if s.stored == nil || len(s.stored) >= maxStored {
			s.stored = make(map[wire.Hash]time.Time)
		}
		s.stored[hash] = time.Now()
	}
	s.mu.Unlock()
	p.err = err
	close(p.done)
}

// writePage takes a range of a page of an output from a device that works, or is
// to write again what was lost.
func (a asker) writePage(ctx context.Context, r *wire.WritePageRequest) (*wire.WritePageResponse, error) {
	hash, err := wire.HashFromBytes(r.GetHash())
	if err != nil || r.GetSize() == 0 || r.GetSize() > wire.PageSize || len(r.GetData()) > wire.MaxChunk {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a page has 1 to %d bytes and comes in ranges of at most %d", wire.PageSize, wire.MaxChunk)
	}
	a.c.mu.Lock()
	busy := a.device.total > 0 || a.c.confirmers[a.id] != nil
	a.c.mu.Unlock()
	if !busy {
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "a device writes pages while it has a lease, and device %s has none", a.id.Short())
	}
	p, first, err := a.device.staged.add(hash, r)
	if err != nil || p == nil {
		return &wire.WritePageResponse{}, err
	}
	if first {
		id := wire.NewTermHoldID(a.c.term)
		a.device.staged.finish(hash, p, id, a.storePage(ctx, id, hash, p.page))
	}
	select {
	case <-p.done:
		return &wire.WritePageResponse{}, p.err
	case <-ctx.Done():
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the session ended")
	}
}

func (a asker) storePage(ctx context.Context, id wire.HoldID, hash wire.Hash, page []byte) error {
	if wire.HashOf(page) != hash {
		return wire.Errorf(wire.Code_CODE_INVALID, "page %v arrived damaged", hash)
	}
	_, err := a.c.cfg.Pages.PutReserved(ctx, id, page)
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
