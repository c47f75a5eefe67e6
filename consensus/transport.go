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

func newTransport(s *streams, logger *raftLog) *transport {
	return &transport{
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

// AppendEntries sends entries or a heartbeat, and notes the answer.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
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
