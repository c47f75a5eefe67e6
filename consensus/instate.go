package consensus

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// held remembers how far the log is in the state.
type held struct {
	mu      sync.Mutex
	command uint64 // the last one in the state when that was found out
	to      uint64 // no command follows it up to here
}

// inState returns the index of the log up to which the state holds it. raft's
// own AppliedIndex counts what it has handed over, which may be some thousands of
// entries more: on a state that is judged by it, what the rest of a log names
// looks unnamed.
//
// Only commands reach the state, so the entries between the last one there and
// the last that was handed over are looked at: where none is a command, the state
// holds all of them.
func (g *Group) inState() uint64 {
	h := &g.held
	h.mu.Lock()
	defer h.mu.Unlock()
	handed := g.raft.AppliedIndex()
	command := g.fsm.index.Load()
	if h.command != command {
		h.command, h.to = command, command
	}
	if command == 0 && h.to < handed {
		// raft hands over what follows a snapshot once the state is the
		// snapshot's. One that cannot be listed now counts for nothing.
		newest, _ := newestSnapshot(g.stores.snapshots)
		h.to = max(h.to, min(newest, handed))
	}
	if g.noCommand(h.to, handed) {
		h.to = max(h.to, handed)
	}
	return h.to
}

// noCommand reports whether no entry after one and up to another is a command
// that no snapshot holds.
func (g *Group) noCommand(after, to uint64) bool {
	for i := to; i > after; i-- {
		var entry raft.Log
		switch err := g.stores.logs.GetLog(i, &entry); {
		case errors.Is(err, raft.ErrLogNotFound): // it went after a snapshot was taken
			return true
		case err != nil || entry.Type == raft.LogCommand:
			return false
		}
	}
	return true
}
