package consensus

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport is raft's network transport, and remembers what the answers to this
// node's own messages say about its followers: raft keeps that to itself, and a
// standby must not get a vote before its log has caught up.
//
// It is three of raft's transports. One takes what comes in. One sends what is
// small and urgent (heartbeats, votes, "lead now"), and waits for quickTimeout at
// the most. One sends entries and snapshots, which may take long on a slow disk.
// Each keeps streams for reuse; those kept from before may lead to a process that
// is gone. A vote that is lost so costs a round of the election, and an entry
// rpcTimeout, so both begin with new streams: see freshen.
type transport struct {
	*raft.NetworkTransport
	quick, bulk *raft.NetworkTransport
	streams     *streams
	leads       func(term uint64) bool
	closing     <-chan struct{}
	// incoming is what comes in, after a look at it; heard is the highest index
	// that a leader has said to be committed, first when one said so first.
	incoming chan raft.RPC
	heard    atomic.Uint64
	first    atomic.Int64
	done     chan struct{} // closed by Close
	once     sync.Once
	// listening is the goroutine between the two.
	listening sync.WaitGroup
	// freshFor is how long after they were renewed quick streams may be reused by a
	// candidate: half of the shortest round of an election.
	freshFor time.Duration

	mu        sync.Mutex
	term      uint64 // the term that followers are about
	followers map[raft.ServerID]follower
	// freshened is when the quick streams were last renewed; bulkTerm the term in
	// which the others were.
	freshened time.Time
	bulkTerm  uint64
}

// follower is what a leader knows about another server in its present term.
type follower struct {
	// matched is the last index up to which its log is the leader's.
	matched uint64
	// contact is when it last answered.
	contact time.Time
}

const (
	// quickTimeout bounds dialling for what is urgent, and then the exchange: what
	// comes later than an election takes is of no use.
	quickTimeout = time.Second
	// contactTick is how often a held message looks for a sign of life.
	contactTick = 50 * time.Millisecond
	// maxHold bounds how long one is held: raft does not see meanwhile that the
	// server was removed.
	maxHold = time.Minute
)

func newTransport(g *Group, s *streams, logger *raftLog) *transport {
	over := func(layer raft.StreamLayer, pool int, timeout time.Duration) *raft.NetworkTransport {
		return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:          layer,
			MaxPool:         pool,
			MaxRPCsInFlight: 1, // pipelining can deadlock replication (measured.md)
			Timeout:         timeout,
			Logger:          logger,
		})
	}
	t := &transport{
		NetworkTransport: over(s, 0, rpcTimeout),
		quick:            over(newDialer(s, true), 2, quickTimeout),
		bulk:             over(newDialer(s, false), 1, rpcTimeout),
		streams:          s,
		leads:            g.leads,
		closing:          g.closing,
		freshFor:         g.tune.election / 2,
		followers:        make(map[raft.ServerID]follower),
		incoming:         make(chan raft.RPC),
		done:             make(chan struct{}),
	}
	t.listening.Go(t.listen)
	return t
}

// Consumer is where raft takes what comes in.
func (t *transport) Consumer() <-chan raft.RPC { return t.incoming }

// listen notes what leaders say of the log, until the transport closes.
func (t *transport) listen() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			select {
			case t.incoming <- rpc:
			case <-t.done:
				return
			}
			switch m := rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				t.heardOf(m.LeaderCommitIndex)
			case *raft.InstallSnapshotRequest:
				t.heardOf(m.LastLogIndex)
			}
		case <-t.done:
			return
		}
	}
}

func (t *transport) heardOf(committed uint64) {
	if committed > 0 {
		t.first.CompareAndSwap(0, time.Now().UnixNano())
	}
	t.heard.Store(max(t.heard.Load(), committed))
}

// Close ends the transport. It may be called twice.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.done) })
	t.NetworkTransport.Close()
	t.quick.Close()
	t.bulk.Close()
	t.listening.Wait()
	return nil
}

// RequestPreVote asks a server whether it would vote for this one.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	t.freshen()
	return t.quick.RequestPreVote(id, target, args, resp)
}

// RequestVote asks a server for its vote.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	t.freshen()
	return t.quick.RequestVote(id, target, args, resp)
}

// TimeoutNow tells a server to lead now.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.quick.TimeoutNow(id, target, args, resp)
}

// freshen drops the quick streams that were kept, at the first message of each
// round of an election. What the votes were asked on, the new leader's heartbeats
// go on with.
func (t *transport) freshen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.freshened) >= t.freshFor {
		t.freshened = now
		t.quick.CloseStreams()
	}
}

// AppendEntries sends entries or a heartbeat, and notes the answer. Entries that
// did not arrive are sent again when a heartbeat has: raft itself backs off to
// 10 s, and for so long a follower that is back would not count.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		err := t.append(t.quick, id, target, args, resp)
		if err == nil {
			t.streams.dropHung(target)
		}
		return err
	}
	t.freshenBulk(args.Term)
	err := t.append(t.bulk, id, target, args, resp)
	if err != nil && t.awaitContact(id, args.Term) {
		return t.append(t.bulk, id, target, args, resp)
	}
	return err
}

// freshenBulk drops the streams for entries that were kept from earlier terms.
func (t *transport) freshenBulk(term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term > t.bulkTerm {
		t.bulkTerm = term
		t.bulk.CloseStreams()
	}
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
		if t.follower(serverOf(id), term).contact.After(start) {
			return true
		}
	}
	return false
}

func (t *transport) append(over *raft.NetworkTransport, id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := over.AppendEntries(id, target, args, resp)
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
	err := t.bulk.InstallSnapshot(id, target, args, resp, data)
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

// follower returns what is known about a server in term; the zero follower when
// that is nothing.
func (t *transport) follower(s Server, term uint64) follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term != term {
		return follower{}
	}
	return t.followers[s.id()]
}
