package state

import (
	"crypto/sha256"
	"encoding/binary"
	"sort"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// segment is a run of a job's inputs whose bytes lie together.
type segment struct {
	first, count uint32
	// completed and failed count those of its tasks that have ended so.
	completed, failed uint32
	// print tells the segment from others once its bytes are released.
	print uint64
	// wire is nil once all its tasks have completed.
	wire *wire.Segment
}

// open reports whether some task of the segment has not ended.
func (g *segment) open() bool { return g.completed+g.failed < g.count }

// fingerprint hashes what identifies the contents of a segment. It guards a
// submitter against its own mistakes only, so 64 bits are enough.
func fingerprint(seg *wire.Segment) uint64 {
	h := sha256.New()
	var head []byte
	for _, n := range []uint64{
		uint64(seg.GetFirst()), uint64(seg.GetCount()), seg.GetBytes(),
		uint64(len(seg.GetInline())), uint64(len(seg.GetPage())), seg.GetBlob().GetSize(),
	} {
		head = binary.AppendUvarint(head, n)
	}
	h.Write(head)
	h.Write(seg.GetInline())
	eachSegmentPage(seg, func(p wire.Hash) { h.Write(p[:]) })
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// InputRef says where the bytes of an input are: item Item of the segment's
// pack, or the segment's blob. The segment is shared by its inputs and
// read-only.
type InputRef struct {
	Segment *wire.Segment
	Item    int
}

// segmentOf returns the place of the segment that holds input i, which exists.
func (j *Job) segmentOf(i uint32) int {
	return sort.Search(len(j.segments), func(k int) bool { return j.segments[k].first > i }) - 1
}

// Input returns where input i is; false if it is unknown or its bytes were
// released.
func (j *Job) Input(i uint32) (InputRef, bool) {
	if i >= j.total {
		return InputRef{}, false
	}
	g := &j.segments[j.segmentOf(i)]
	if g.wire == nil {
		return InputRef{}, false
	}
	return InputRef{Segment: g.wire, Item: int(i - g.first)}, true
}

// OpenInputBytes returns the payload bytes of the segments in which some task
// has not ended.
func (j *Job) OpenInputBytes() uint64 { return j.openBytes }

// addSegments appends inputs that were checked and follow those there are.
func (s *State) addSegments(j *Job, segments []*wire.Segment) {
	for _, seg := range segments {
		eachSegmentPage(seg, s.pages.name)
		j.segments = append(j.segments, segment{
			first: seg.GetFirst(), count: seg.GetCount(), print: fingerprint(seg), wire: seg,
		})
		j.total += seg.GetCount()
		j.openBytes += seg.GetBytes()
		s.life.tasks += uint64(seg.GetCount())
	}
}

// taskEnded counts the end of task i in its segment. A segment gives its bytes
// back with the last completion.
func (s *State) taskEnded(j *Job, i uint32, failed bool) {
	g := &j.segments[j.segmentOf(i)]
	if failed {
		g.failed++
		j.failed++
		s.life.failed++
	} else {
		g.completed++
		j.completed++
		s.life.completed++
	}
	if !g.open() {
		j.openBytes -= g.wire.GetBytes()
	}
	if g.completed == g.count {
		eachSegmentPage(g.wire, s.pages.drop)
		g.wire = nil
	}
}

// taskReopened takes back the failure of task i.
func (s *State) taskReopened(j *Job, i uint32) {
	g := &j.segments[j.segmentOf(i)]
	if !g.open() {
		j.openBytes += g.wire.GetBytes()
	}
	g.failed--
	j.failed--
	s.life.failed--
}

// knows reports whether the job holds exactly these segments already.
func (j *Job) knows(segments []*wire.Segment) bool {
	for _, seg := range segments {
		if seg.GetFirst() >= j.total {
			return false
		}
		g := &j.segments[j.segmentOf(seg.GetFirst())]
		if g.first != seg.GetFirst() || g.count != seg.GetCount() || g.print != fingerprint(seg) {
			return false
		}
	}
	return true
}
