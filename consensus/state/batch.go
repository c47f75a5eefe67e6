package state

import (
	"encoding/binary"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// batch is a run of results with consecutive numbers whose records lie in one
// pack: inline, or in a page.
type batch struct {
	// first is the number of the first recorded result, items the number of
	// records in the pack. Those that were not recorded have no number.
	first, items uint32
	page         wire.Hash
	inline       []byte // nil when the records are in the page
	// outputs are pages of large outputs that the records name.
	outputs []wire.Hash
	places  places
}

// end returns the number after the last.
func (b *batch) end() uint32 { return b.first + b.places.count }

// place says which record of a batch a result is.
type place struct {
	index, item uint32
	failed      bool
}

// places lists, in the order of their numbers, which task each recorded result
// of a batch belongs to and which record of the pack it is. Most batches hold
// neighbours in order, which cost one byte each: a place is coded as what
// differs from the successor of the one before.
//
//	uvarint zigzag(index − expected) << 2 | failed << 1 | gap
//	uvarint item − expected                                   if gap is set
type places struct {
	count    uint32
	expected place
	codes    []byte
	// marks hold where every markEvery-th place begins, so that finding one
	// does not read the whole list.
	marks []mark
}

const markEvery = 64

type mark struct {
	offset   uint32
	expected place
}

// add appends a place. Items must rise.
func (p *places) add(at place) {
	if p.count%markEvery == 0 && p.count > 0 {
		p.marks = append(p.marks, mark{uint32(len(p.codes)), p.expected})
	}
	delta := int64(at.index) - int64(p.expected.index)
	code := uint64(delta<<1^delta>>63) << 2
	if at.failed {
		code |= 2
	}
	gap := at.item - p.expected.item
	if gap > 0 {
		code |= 1
	}
	p.codes = binary.AppendUvarint(p.codes, code)
	if gap > 0 {
		p.codes = binary.AppendUvarint(p.codes, uint64(gap))
	}
	p.count++
	p.expected = place{index: at.index + 1, item: at.item + 1}
}

// trim gives back what the lists grew too far.
func (p *places) trim() {
	p.codes = append(make([]byte, 0, len(p.codes)), p.codes...)
	p.marks = append([]mark(nil), p.marks...)
}

// next decodes one place from codes that are valid, and returns what follows.
func next(codes []byte, expected place) (place, []byte) {
	code, n := binary.Uvarint(codes)
	codes = codes[n:]
	delta := code >> 2
	at := place{
		index:  expected.index + uint32(int64(delta>>1)^-int64(delta&1)),
		item:   expected.item,
		failed: code&2 != 0,
	}
	if code&1 != 0 {
		gap, n := binary.Uvarint(codes)
		codes = codes[n:]
		at.item += uint32(gap)
	}
	return at, codes
}

// at returns place k, which exists.
func (p *places) at(k uint32) place {
	codes, expected := p.codes, place{}
	if m := k / markEvery; m > 0 {
		from := p.marks[m-1]
		codes, expected = codes[from.offset:], from.expected
	}
	for range k % markEvery {
		var skipped place
		skipped, codes = next(codes, expected)
		expected = place{index: skipped.index + 1, item: skipped.item + 1}
	}
	found, _ := next(codes, expected)
	return found
}

// each calls f with every place in order.
func (p *places) each(f func(place)) {
	codes, expected := p.codes, place{}
	for range p.count {
		var at place
		at, codes = next(codes, expected)
		expected = place{index: at.index + 1, item: at.item + 1}
		f(at)
	}
}

// maxPlaceSize bounds the code of a place: an index of 32 bits and its flags,
// and a gap.
const maxPlaceSize = 5 + 3

// decode reads codes from outside into p, which is empty. Indexes and items
// must be below those of limit.
func (p *places) decode(codes []byte, limit place) error {
	for len(codes) > 0 {
		code, n := binary.Uvarint(codes)
		if n <= 0 || code >= 1<<36 {
			return invalid("the place of a result is cut off")
		}
		codes = codes[n:]
		zigzag := code >> 2
		index := int64(p.expected.index) + (int64(zigzag>>1) ^ -int64(zigzag&1))
		item := uint64(p.expected.item)
		if code&1 != 0 {
			gap, n := binary.Uvarint(codes)
			if n <= 0 || gap > wire.MaxPackItems {
				return invalid("the place of a result is cut off")
			}
			codes = codes[n:]
			item += gap
		}
		if index < 0 || index >= int64(limit.index) || item >= uint64(limit.item) {
			return invalid("the place of a result is beyond what there is")
		}
		p.add(place{index: uint32(index), item: uint32(item), failed: code&2 != 0})
	}
	return nil
}
