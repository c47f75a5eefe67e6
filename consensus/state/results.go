package state

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// ResultRef says where a recorded result is: item Item of the pack that is
// Inline, or in Page when Inline is nil.
type ResultRef struct {
	// Index is the task's.
	Index uint32
	// Batch is the place of its batch in the job's list. It changes when
	// batches before it are packed.
	Batch  int
	Page   wire.Hash
	Inline []byte
	Item   int
	// Failed is set when the task failed for good with it.
	Failed bool
	// Superseded is set when the task was retried since: this is the record of
	// its old failure.
	Superseded bool
}

// Results returns how many results have been recorded: the next number.
func (j *Job) Results() uint32 { return j.next }

// NumberOf returns the number of the result of task i; false while it is open.
func (j *Job) NumberOf(i uint32) (uint32, bool) {
	v := j.numbers.get(i)
	if v == 0 {
		return 0, false
	}
	return v&^failedBit - 1, true
}

// Result returns where the result of that number is; false if there is none
// yet.
func (j *Job) Result(number uint32) (ResultRef, bool) {
	if number >= j.next {
		return ResultRef{}, false
	}
	k := sort.Search(len(j.batches), func(k int) bool { return j.batches[k].end() > number })
	b := j.batches[k]
	at := b.places.at(number - b.first)
	return ResultRef{
		Index: at.index, Batch: k, Page: b.page, Inline: b.inline, Item: int(at.item),
		Failed: at.failed, Superseded: at.failed && number < j.retriedAt,
	}, true
}

// InlineBytes returns the bytes of results that are held inline.
func (j *Job) InlineBytes() int { return j.inlineBytes }

// InlineRun returns the oldest run of consecutive inline batches, cut so that
// one page can hold it: the place of the first and how many; 0, 0 if there are
// none.
func (j *Job) InlineRun() (first, n int) {
	size, items := 0, uint32(0)
	for k := j.inlineFrom; k < len(j.batches) && j.batches[k].inline != nil; k++ {
		size += len(j.batches[k].inline)
		items += j.batches[k].items
		if size+packHead > wire.PageSize || items > wire.MaxPackItems {
			break
		}
		n++
	}
	if n == 0 {
		return 0, 0
	}
	return j.inlineFrom, n
}

// packHead bounds what the number of items adds to a pack.
const packHead = 3

// BatchInline returns the pack of batch k; nil if it lies in a page or there
// is none.
func (j *Job) BatchInline(k int) []byte {
	if k < 0 || k >= len(j.batches) {
		return nil
	}
	return j.batches[k].inline
}

// PackRun returns the page that PackResults must name for the inline batches
// [first, first+n): their items in order as one pack. It is an error if they
// are not all inline or do not fit in a page.
func (j *Job) PackRun(first, n int) ([]byte, error) {
	if first < 0 || n < 1 || n > len(j.batches) || first > len(j.batches)-n {
		return nil, fmt.Errorf("job %s has no batches of results from %d on, %d of them", j.id, first, n)
	}
	var all [][]byte
	size := 0
	for _, b := range j.batches[first : first+n] {
		if b.inline == nil {
			return nil, fmt.Errorf("a batch of results of job %s lies in a page already", j.id)
		}
		items, err := wire.DecodePack(b.inline)
		if err != nil {
			return nil, fmt.Errorf("reading a batch of results of job %s: %w", j.id, err)
		}
		all = append(all, items...)
		if size += len(b.inline); size+packHead > wire.PageSize || len(all) > wire.MaxPackItems {
			return nil, errors.New("so many results do not fit in a page")
		}
	}
	return wire.EncodePack(all), nil
}

// addBatch appends a batch in which something was recorded.
func (s *State) addBatch(j *Job, b *batch) {
	if b.inline == nil {
		s.pages.name(b.page)
	}
	for _, h := range b.outputs {
		s.pages.name(h)
	}
	b.places.trim()
	j.batches = append(j.batches, b)
	j.next = b.end()
	j.inlineBytes += len(b.inline)
	j.skipPaged()
}

// skipPaged moves inlineFrom on to the oldest inline batch.
func (j *Job) skipPaged() {
	for j.inlineFrom < len(j.batches) && j.batches[j.inlineFrom].inline == nil {
		j.inlineFrom++
	}
}

// dropBatch gives back the pages of a batch.
func (s *State) dropBatch(b *batch) {
	if b.inline == nil {
		s.pages.drop(b.page)
	}
	for _, h := range b.outputs {
		s.pages.drop(h)
	}
}

// packResults replaces a run of inline batches by one whose records lie in a
// page. The page's hash is verified: a wrong one would lose results.
func (s *State) packResults(op *wire.PackResults) error {
	j := s.jobs[wire.JobID(op.GetJobId())]
	if j == nil {
		return s.NoJob(wire.JobID(op.GetJobId()))
	}
	if err := checkHash("the page of packed results", op.GetPage()); err != nil {
		return err
	}
	first, n := int(op.GetFirstBatch()), int(op.GetBatches())
	page, err := j.PackRun(first, n)
	if err != nil {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "packing results: %v", err)
	}
	merged := &batch{first: j.batches[first].first, page: wire.Hash(op.GetPage())}
	if wire.HashOf(page) != merged.page {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "the page does not hold the results that it should replace")
	}
	s.pages.name(merged.page)
	for _, b := range j.batches[first : first+n] {
		merged.absorb(b)
		j.inlineBytes -= len(b.inline)
	}
	merged.places.trim()
	j.batches = slices.Replace(j.batches, first, first+n, merged)
	j.skipPaged()
	return nil
}

// absorb appends another batch's records.
func (b *batch) absorb(other *batch) {
	other.places.each(func(at place) {
		at.item += b.items
		b.places.add(at)
	})
	b.items += other.items
	b.outputs = append(b.outputs, other.outputs...)
}

// Needs reports whether the job names one of the pages: as its program's, of
// inputs that are still to run, of results or of their records. It looks at all
// of the job.
func (j *Job) Needs(pages map[wire.Hash]struct{}) bool {
	found := false
	is := func(page wire.Hash) {
		_, one := pages[page]
		found = found || one
	}
	each(j.spec.GetProgram().GetBlob().GetPages(), is)
	for i := range j.segments {
		eachSegmentPage(j.segments[i].wire, is)
	}
	for _, b := range j.batches {
		if b.inline == nil {
			is(b.page)
		}
		for _, h := range b.outputs {
			is(h)
		}
	}
	return found
}
