package blob

import (
	"slices"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// holdFor is how long a page stays for a command that does not come.
	holdFor = 25 * time.Hour
	// termGrace is how long the holds of a coordinator outlive its term.
	termGrace = time.Minute
	// maxHolds bounds the pages that wait for their commands, and so the memory
	// of them: at a page of 1 MiB each they are 256 GiB.
	maxHolds = 1 << 18
	// maxEnded bounds the memory of holds that have ended: a voter that is slow
	// may write a page when its command has come already.
	maxEnded = 1 << 14
)

// holds is why pages stay that nothing names yet. Each put and each command has
// an ID of its own, so that what becomes of one use of a page says nothing about
// another use of the same bytes.
type holds struct {
	mu    sync.Mutex
	pages map[wire.Hash][]held
	of    map[wire.HoldID][]wire.Hash
	count int // of helds
	// ended are holds whose commands were applied: the newer and the older half.
	ended, endedBefore map[wire.HoldID]struct{}
	// term is the newest of which an entry was applied, and since when that is
	// known.
	term  uint64
	since time.Time
	// everything says until when each page counts as held: there were too many.
	everything time.Time
}

// held is one reason for a page to stay.
type held struct {
	by    wire.HoldID
	until time.Time
}

func newHolds() holds {
	return holds{
		pages: map[wire.Hash][]held{}, of: map[wire.HoldID][]wire.Hash{},
		ended: map[wire.HoldID]struct{}{}, endedBefore: map[wire.HoldID]struct{}{},
	}
}

// add has a page stay for id. It reports false if the command of id was applied
// already: who puts the page comes too late for it.
func (s *holds) add(id wire.HoldID, h wire.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasEnded(id) {
		return false
	}
	until := time.Now().Add(holdFor)
	if i := slices.IndexFunc(s.pages[h], func(x held) bool { return x.by == id }); i >= 0 {
		s.pages[h][i].until = until
		return true
	}
	if s.count >= maxHolds {
		s.everything = until
		clear(s.pages)
		clear(s.of)
		s.count = 0
	}
	s.pages[h] = append(s.pages[h], held{id, until})
	if id != (wire.HoldID{}) { // which no command ends
		s.of[id] = append(s.of[id], h)
	}
	s.count++
	return true
}

// over reports whether the command of id was applied, as far as is remembered.
func (s *holds) over(id wire.HoldID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasEnded(id)
}

func (s *holds) hasEnded(id wire.HoldID) bool {
	if id == (wire.HoldID{}) {
		return false
	}
	_, lately := s.ended[id]
	_, before := s.endedBefore[id]
	return lately || before
}

// has reports whether something holds the page.
func (s *holds) has(h wire.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pages[h]) > 0 || time.Now().Before(s.everything)
}

// reached notes that an entry of a term was applied.
func (s *holds) reached(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if term > s.term {
		s.term, s.since = term, time.Now()
	}
}

// end ends a hold, whose command was applied, and returns the pages that nothing
// holds any more.
func (s *holds) end(id wire.HoldID) (free []wire.Hash) {
	if id == (wire.HoldID{}) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[id] = struct{}{}; len(s.ended) > maxEnded/2 {
		s.endedBefore, s.ended = s.ended, map[wire.HoldID]struct{}{}
	}
	pages := s.of[id]
	delete(s.of, id)
	for _, h := range pages {
		if s.remove(id, h) {
			free = append(free, h)
		}
	}
	return free
}

// remove takes a reason from a page and reports whether it was the last.
func (s *holds) remove(id wire.HoldID, h wire.Hash) (last bool) {
	i := slices.IndexFunc(s.pages[h], func(x held) bool { return x.by == id })
	if i < 0 {
		return false
	}
	s.count--
	if len(s.pages[h]) == 1 {
		delete(s.pages, h)
		return true
	}
	s.pages[h] = slices.Delete(s.pages[h], i, i+1)
	return false
}

// unlist takes a page from those of a hold.
func (s *holds) unlist(id wire.HoldID, h wire.Hash) {
	i := slices.Index(s.of[id], h)
	if i < 0 {
		return
	}
	if len(s.of[id]) == 1 {
		delete(s.of, id)
		return
	}
	s.of[id] = slices.Delete(s.of[id], i, i+1)
}

// expire ends holds whose commands will never come, and returns the pages that
// nothing holds any more: those that have waited for too long, and those of
// coordinators that are no more. A command of a term is refused once one of a
// later term was applied; what devices wrote in the term before is held a little
// longer, because they are about to name it to the new coordinator.
func (s *holds) expire(now time.Time) (free []wire.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := now.Sub(s.since) > termGrace
	for h, all := range s.pages {
		for _, x := range slices.Clone(all) {
			if !now.After(x.until) && !(past && x.by.Term() > 0 && x.by.Term() < s.term) {
				continue
			}
			if s.remove(x.by, h) {
				free = append(free, h)
			}
			s.unlist(x.by, h)
		}
	}
	return free
}
