package consensus

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// transport is raft's network transport, and remembers what the answers to this
// node's own messages say about its followers: raft keeps that to itself, and a
// standby must not get a vote before its log has caught up.
type transport struct {
	*raft.NetworkTransport
	leads   func(term uint64) bool
	closing <-chan struct{}

	mu        sync.Mutex
	term      uint64 // the term that followers are about
	followers map[raft.ServerID]follower
}

// follower is what a leader knows about another server in its present term.
type follower struct {
	// matched is the last index up to which its log is the leader's.
	matched uint64
	// contact is when it last answered.
	contact time.Time
}

const (
	// contactTick is how often a held message looks for a sign of life.
	contactTick = 50 * time.Millisecond
	// maxHold bounds how long one is held: raft does not see meanwhile that the
	// server was removed.
	maxHold = time.Minute
)

func newTransport(g *Group, s *streams, logger *raftLog) *transport {
	return &transport{
		leads:   g.leads,
		closing: g.closing,
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:          s,
			MaxPool:         3,
			MaxRPCsInFlight: 1, // pipelining can deadlock replication (measured.md)
			Timeout:         rpcTimeout,
			Logger:          logger,
		}),
		followers: make(map[raft.ServerID]follower),
	}
}

// AppendEntries sends entries or a heartbeat, and notes the answer. Entries that
// did not arrive are sent again when a heartbeat has: raft itself backs off to
// 10 s, and for so long a follower that is back would not count.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.append(id, target, args, resp)
	if err != nil && !isHeartbeat(args) && t.awaitContact(id, args.Term) {
		return t.append(id, target, args, resp)
	}
	return err
}

// isHeartbeat tells raft's heartbeats by the same mark as raft does.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// awaitContact waits until a server answers again. False: it did not within
// maxHold, or this node leads in that term no more, or is closing.
func (t *transport) awaitContact(id raft.ServerID, term uint64) bool {
	start := time.Now()
	tick := time.NewTicker(contactTick)
	defer tick.Stop()
	for time.Since(start) < maxHold && t.leads(term) {
		select {
		case <-tick.C:
		case <-t.closing:
			return false
		}
		if t.follower(wire.DeviceID(id), term).contact.After(start) {
			return true
		}
	}
	return false
}

func (t *transport) append(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term <= args.Term {
		matched := uint64(0)
		if resp.Success {
			matched = args.PrevLogEntry + uint64(len(args.Entries))
		}
		t.note(id, args.Term, matched)
	}
	return err
}

// InstallSnapshot sends a snapshot, and notes the answer.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err == nil && resp.Success && resp.Term <= args.Term {
		t.note(id, args.Term, args.LastLogIndex)
	}
	return err
}

func (t *transport) note(id raft.ServerID, term, matched uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term < t.term {
		return
	}
	if term > t.term {
		t.term = term
		clear(t.followers)
	}
	f := t.followers[id]
	t.followers[id] = follower{matched: max(f.matched, matched), contact: time.Now()}
}

// follower returns what is known about id in term; the zero follower when that
// is nothing.
func (t *transport) follower(id wire.DeviceID, term uint64) follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term != term {
		return follower{}
	}
	return t.followers[raft.ServerID(id)]
}
