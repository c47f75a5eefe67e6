package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// heardWithin is how long ago a leader must have been heard for what it said to
// count as news.
const heardWithin = 10 * time.Second

// newsAfter is how long after it was first heard what a leader says is news: the
// first message may have been held back (see transport), and several follow it.
const newsAfter = 2 * time.Second

// currency remembers how far the log was, by what the leader said, when it was
// last asked whether the state is current.
type currency struct {
	mu     sync.Mutex
	target uint64
}

// Current reports whether the state here is as far as the leader's log was at the
// last call of it, or at this one: a state that takes in thousands of entries a
// second is never exactly at the end. Before a leader was heard in this opening
// of the folder, and while none is, it is not. It is for one caller, who calls it
// every now and then.
func (g *Group) Current() bool {
	committed := g.transport.heard.Load()
	if term, leads := g.leading(); leads {
		committed = g.committedIn(term)
	} else if contact := g.raft.LastContact(); contact.IsZero() || time.Since(contact) > heardWithin ||
		time.Since(time.Unix(0, g.transport.first.Load())) < newsAfter {
		return false
	}
	held := g.inState()
	g.currency.mu.Lock()
	defer g.currency.mu.Unlock()
	if g.currency.target == 0 {
		g.currency.target = committed
	}
	current := committed > 0 && held >= g.currency.target
	if current {
		g.currency.target = committed
	}
	return current
}

// committedIn returns how far the log is committed, by this node's word as the
// leader of a term; 0 before an entry of that term is: until then a leader does
// not know what its predecessors have committed.
func (g *Group) committedIn(term uint64) uint64 {
	index := g.raft.CommitIndex()
	var entry raft.Log
	if err := g.stores.logs.GetLog(index, &entry); err != nil || entry.Term != term {
		return 0
	}
	return index
}
