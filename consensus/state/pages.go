package state

import "github.com/ostrich-legs/ostrich/p2p/wire"

// pages counts, for each page, how often the state names it, and keeps track
// of what one command changed.
type pages struct {
	refs map[wire.Hash]uint32
	// touched lists the pages that the command at work named, dropped or
	// brought, in that order; before says whether they were named before it.
	touched []wire.Hash
	before  map[wire.Hash]bool
	// vain are those brought by an operation that had no use for them.
	vain map[wire.Hash]bool
}

func newPages() pages {
	return pages{refs: map[wire.Hash]uint32{}}
}

// begin starts the account of a command.
func (p *pages) begin() {
	p.touched = nil
	p.before = map[wire.Hash]bool{}
	p.vain = map[wire.Hash]bool{}
}

func (p *pages) touch(h wire.Hash) {
	if _, seen := p.before[h]; !seen {
		p.before[h] = p.refs[h] > 0
		p.touched = append(p.touched, h)
	}
}

// name counts one more reference to the page.
func (p *pages) name(h wire.Hash) {
	p.touch(h)
	p.refs[h]++
}

// drop takes one reference back.
func (p *pages) drop(h wire.Hash) {
	p.touch(h)
	if p.refs[h]--; p.refs[h] == 0 {
		delete(p.refs, h)
	}
}

// offer notes a page that was stored for an operation that did not need it, so
// that it is collected at once unless something else names it.
func (p *pages) offer(h wire.Hash) {
	p.touch(h)
	p.vain[h] = true
}

// end returns the account of the command, in the order of its operations.
func (p *pages) end() (named, released []wire.Hash) {
	for _, h := range p.touched {
		now, before := p.refs[h] > 0, p.before[h]
		switch {
		case now && !before:
			named = append(named, h)
		case !now && (before || p.vain[h]):
			released = append(released, h)
		}
	}
	p.touched, p.before, p.vain = nil, nil, nil
	return named, released
}

// each calls f with every hash of a list that was checked before.
func each(hashes [][]byte, f func(wire.Hash)) {
	for _, h := range hashes {
		f(wire.Hash(h))
	}
}

// eachSegmentPage calls f with every page of a segment that was checked before.
func eachSegmentPage(seg *wire.Segment, f func(wire.Hash)) {
	if len(seg.GetPage()) > 0 {
		f(wire.Hash(seg.GetPage()))
	}
	each(seg.GetBlob().GetPages(), f)
}
