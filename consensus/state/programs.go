package state

import (
	"bytes"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// programGraceMS is how long a program is held after its last job is gone.
const programGraceMS = dayMS

// program is a program that the swarm holds: one reference to each of its
// pages, however many jobs use it.
type program struct {
	program *wire.Program
	// jobs counts the jobs that refer to it; lastUsedMS is when that last
	// changed.
	jobs       int
	lastUsedMS int64
}

func programHash(p *wire.Program) wire.Hash { return wire.Hash(p.GetBlob().GetHash()) }

// checkHeld refuses a program that has the hash of one that is held but other
// pages, as one of the two is not what it says, and one program too many.
func (s *State) checkHeld(p *wire.Program) error {
	held := s.programs[programHash(p)]
	switch {
	case held == nil && len(s.programs) >= maxPrograms:
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "the swarm holds %d programs, as many as it can; they go a day after their last job", maxPrograms)
	case held == nil || sameBlob(held.program.GetBlob(), p.GetBlob()):
		return nil
	}
	return wire.Errorf(wire.Code_CODE_CONFLICT, "the swarm holds a program of that hash with other pages")
}

func sameBlob(a, b *wire.Blob) bool {
	return a.GetSize() == b.GetSize() && slices.EqualFunc(a.GetPages(), b.GetPages(), bytes.Equal)
}

// useProgram counts a job more that refers to the program, which was checked.
func (s *State) useProgram(p *wire.Program) {
	held := s.programs[programHash(p)]
	if held == nil {
		held = &program{program: p}
		s.programs[programHash(p)] = held
		each(p.GetBlob().GetPages(), s.pages.name)
	}
	held.jobs++
	held.lastUsedMS = s.nowMS
}

// leaveProgram counts a job less.
func (s *State) leaveProgram(p *wire.Program) {
	held := s.programs[programHash(p)]
	held.jobs--
	held.lastUsedMS = s.nowMS
}

// forgetPrograms drops those that no job has used for long. The order does not
// matter to the state, but the account of pages is the same on every node.
func (s *State) forgetPrograms() {
	for _, h := range sortedHashes(s.programs) {
		p := s.programs[h]
		if p.jobs == 0 && s.nowMS-p.lastUsedMS >= programGraceMS {
			each(p.program.GetBlob().GetPages(), s.pages.drop)
			delete(s.programs, h)
		}
	}
}

// sortedHashes returns the keys of a map in order.
func sortedHashes[V any](m map[wire.Hash]V) []wire.Hash {
	keys := make([]wire.Hash, 0, len(m))
	for h := range m {
		keys = append(keys, h)
	}
	slices.SortFunc(keys, func(a, b wire.Hash) int { return bytes.Compare(a[:], b[:]) })
	return keys
}
