package state

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// A snapshot is the canonical encoding of the state and its SHA-256:
//
//	magic · version · swarm · devices · removed · invites · programs · jobs · past jobs · checksum
//
// The version is the layout's. That of version 1 is written until a command of
// format 2 was applied, so that programs that know no other can follow until
// then; version 2 adds the format in use to the swarm, a mode to each device, and
// the past jobs.
//
// It holds what cannot be derived: numbers of tasks, counters of a job,
// references to pages and the indexes over all of these are made anew, so that
// they cannot contradict the facts. Each list has its length before it.
const snapshotMagic = "ostrich state\n"

// snapshotVersion returns the layout that holds a state of that format.
func snapshotVersion(format uint32) uint32 { return min(format, 2) }

// Snapshot writes the whole state to w: a header with the version, the facts,
// a checksum. Its cost grows with the number of tasks; it must not run
// concurrently with Apply.
func (s *State) Snapshot(w io.Writer) error {
	sum := sha256.New()
	if err := s.encode(io.MultiWriter(w, sum)); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	return nil
}

// Hash returns the SHA-256 of a canonical encoding: equal states have equal
// hashes. Its cost grows with the state.
func (s *State) Hash() [32]byte {
	sum := sha256.New()
	// A hash takes every write, and only text that protobuf encodes is let in.
	_ = s.encode(sum)
	return [32]byte(sum.Sum(nil))
}

func (s *State) encode(w io.Writer) error {
	e := newEncoder(w)
	e.raw([]byte(snapshotMagic))
	version := snapshotVersion(s.format)
	e.uint(uint64(version))
	s.encodeSwarm(e, version)
	e.uint(uint64(len(s.deviceOrder)))
	for _, d := range s.deviceOrder {
		encodeDevice(e, version, d)
	}
	e.uint(uint64(len(s.removed)))
	for _, id := range slices.Sorted(maps.Keys(s.removed)) {
		e.text(string(id))
	}
	e.uint(uint64(len(s.invites)))
	for _, inv := range s.invites {
		encodeInvite(e, inv)
	}
	e.uint(uint64(len(s.programs)))
	for _, h := range sortedHashes(s.programs) {
		e.message(s.programs[h].program)
		e.uint(uint64(s.programs[h].lastUsedMS))
	}
	e.uint(uint64(len(s.jobOrder)))
	for _, j := range s.jobOrder {
		encodeJob(e, j)
	}
	if version >= 2 {
		e.uint(uint64(len(s.past)))
		for _, p := range s.past {
			encodePast(e, p)
		}
	}
	return e.flush()
}

func (s *State) encodeSwarm(e *encoder, version uint32) {
	if version >= 2 {
		e.uint(uint64(s.format))
	}
	e.bytes(s.rootKey)
	e.bytes(s.leaseKey)
	e.text(string(s.founder))
	e.text(s.name)
	e.uint(s.generation)
	e.uint(uint64(s.nowMS))
	e.uint(s.life.jobs)
	for _, n := range s.life.ended {
		e.uint(n)
	}
	e.uint(s.life.tasks)
	e.uint(s.life.completed)
	e.uint(s.life.failed)
}

func encodeDevice(e *encoder, version uint32, d *Device) {
	e.text(string(d.ID))
	e.message(d.Profile)
	e.uint(uint64(d.Role))
	e.uint(uint64(d.JoinedAtMS))
	e.text(d.InvitedBy)
	e.text(d.renamed)
	e.bool(d.Online)
	e.uint(uint64(d.PresenceAtMS))
	e.uint(d.TasksCompleted)
	if version >= 2 {
		e.uint(uint64(d.Mode))
	}
}

func encodeInvite(e *encoder, inv *Invite) {
	e.raw(inv.LinkKey)
	e.bytes(inv.CodeKey)
	e.uint(uint64(inv.Role))
	e.uint(uint64(inv.MaxUses))
	e.uint(uint64(inv.Uses))
	e.uint(uint64(inv.CreatedAtMS))
	e.uint(uint64(inv.ExpiresAtMS))
	e.text(string(inv.CreatedBy))
	e.bool(inv.Revoked)
}

func encodeJob(e *encoder, j *Job) {
	e.text(string(j.id))
	e.message(j.spec)
	e.text(string(j.submitter))
	e.uint(uint64(j.createdMS))
	e.uint(uint64(j.touchedMS))
	e.uint(uint64(j.endedMS))
	e.uint(uint64(j.phase))
	e.text(j.err)
	e.bool(j.closed)
	e.raw(j.digest[:])
	e.uint(uint64(j.leasedBelow))
	e.uint(uint64(j.retriedAt))
	e.uint(uint64(len(j.segments)))
	for i := range j.segments {
		encodeSegment(e, &j.segments[i])
	}
	e.uint(uint64(len(j.batches)))
	for _, b := range j.batches {
		encodeBatch(e, b)
	}
	e.uint(uint64(len(j.failures)))
	for _, i := range slices.Sorted(maps.Keys(j.failures)) {
		e.uint(uint64(i))
		e.uint(uint64(j.failures[i]))
	}
}

func encodeSegment(e *encoder, g *segment) {
	e.bool(g.wire != nil)
	if g.wire != nil {
		e.message(g.wire)
		return
	}
	e.uint(uint64(g.count))
	e.uint(g.print)
}

func encodeBatch(e *encoder, b *batch) {
	e.uint(uint64(b.items))
	e.bytes(b.inline)
	if b.inline == nil {
		e.raw(b.page[:])
	}
	e.uint(uint64(len(b.outputs)))
	for _, h := range b.outputs {
		e.raw(h[:])
	}
	e.uint(uint64(b.places.count))
	e.bytes(b.places.codes)
}

// Restore reads what Snapshot wrote, to the end of r. It verifies the checksum
// and that the facts fit together, and allocates nothing for a length it has
// not checked.
func Restore(r io.Reader) (*State, error) {
	d := newDecoder(r)
	s := d.state()
	sum := wire.Hash(d.sum.Sum(nil))
	var want wire.Hash
	d.fill(want[:])
	d.expect(sum == want, "the checksum is wrong")
	if d.err == nil {
		_, err := d.r.ReadByte()
		d.expect(err == io.EOF, "something follows it")
	}
	if d.err != nil {
		return nil, fmt.Errorf("reading a snapshot: %w", d.err)
	}
	return s, nil
}
