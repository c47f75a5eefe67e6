package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// watchEvery is the least time between two looks at the registry.
	watchEvery = 100 * time.Millisecond
	// kickAfter is how long a removed device stays connected: one that has left
	// still waits for the answer that says so.
	kickAfter = time.Second
	// maxAsked bounds the members that are dialled at once while no coordinator
	// is known, each headStart after the one before.
	maxAsked  = 3
	headStart = 250 * time.Millisecond
)

// stream is a byte stream to the coordinator.
type stream = io.ReadWriteCloser

func publicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// roleOf answers the gate: what a device may do here. A member knows from the
// replicated state; where that has not arrived yet, and on workers, the members
// that the swarm told of count as members, and the servers that the log names.
func (n *node) roleOf(id wire.DeviceID) wire.Role {
	role := wire.Role_ROLE_UNSPECIFIED
	g := n.group()
	removed, founded := false, false
	if g != nil {
		g.Read(func(s *state.State) {
			removed, founded = s.Removed(id), s.Founded()
			if d := s.Device(id); d != nil {
				role = d.Role
			}
		})
	}
	if role != wire.Role_ROLE_UNSPECIFIED || removed {
		return role
	}
	_, admitted := n.admitted.Load(id)
	if admitted || g != nil && !founded && slices.ContainsFunc(g.Servers(), func(s consensus.Server) bool { return s.ID == id }) {
		return wire.Role_ROLE_MEMBER
	}
	return role
}

// wasRemoved reports whether the replicated state says that a device was taken
// out of the swarm.
func (n *node) wasRemoved(id wire.DeviceID) bool {
	_, gone := n.registeredRole(id)
	return gone
}

// trust says whether a device may be believed when it says that it coordinates.
func (n *node) trust(id wire.DeviceID) error {
	if id == n.id.ID || n.roleOf(id) >= wire.Role_ROLE_MEMBER {
		return nil
	}
	return wire.Errorf(wire.Code_CODE_DENIED, "device %s is not a member of this swarm", id.Short())
}

// hello is what this device says of itself at the start of a session.
func (n *node) hello() *wire.Hello {
	m := n.swarm.Load()
	profile := proto.CloneOf(n.profile)
	if g := n.group(); g != nil {
		profile.Replica = g.Replica()
	}
	return &wire.Hello{
		SwarmId:    m.SwarmID.Bytes(),
		Generation: m.Generation,
		Slots:      uint32(n.cfg.slots()),
		Profile:    profile,
	}
}

// welcomed takes what a session's start tells: who the members are, and who are
// members no more.
func (n *node) welcomed(w *wire.Welcome) {
	n.welcome.Store(w)
	members := make(map[wire.DeviceID]bool)
	for _, m := range w.GetMembers() {
		members[wire.DeviceID(m.GetId())] = true
	}
	n.admitted.Range(func(id, _ any) bool {
		if !members[id.(wire.DeviceID)] {
			n.admitted.Delete(id)
		}
		return true
	})
	n.meet(w.GetMembers())
	n.connectedOnce.Do(func() { close(n.connected) })
}

// meet remembers members and where they are.
func (n *node) meet(members []*wire.Peer) {
	var ids []wire.DeviceID
	for _, m := range members {
		id := wire.DeviceID(m.GetId())
		ids = append(ids, id)
		n.admitted.Store(id, struct{}{})
	}
	if len(ids) > 0 {
		n.host.SetMembers(ids)
	}
	n.host.Learn(members)
}

// refused takes a member's word that it does not coordinate, and who does. Only
// members are asked, over streams on which they have proven their keys.
func (n *node) refused(r *wire.Refusal) {
	switch ours, theirs := n.swarm.Load().Generation, r.GetGeneration(); {
	case theirs > ours:
		n.heardGeneration(theirs)
		return
	case theirs != 0 && theirs < ours: // it has not heard of the recovery yet
		n.hint.Store(nil)
		return
	}
	switch r.GetError().GetCode() {
	case wire.Code_CODE_REMOVED:
		n.toldRemoved(wire.DecodeError(r.GetError()))
		return
	case wire.Code_CODE_WRONG_SWARM, wire.Code_CODE_VERSION:
		n.stop(wire.DecodeError(r.GetError()))
		return
	}
	if c := r.GetCoordinator(); c.GetId() != "" {
		id := wire.DeviceID(c.GetId())
		n.admitted.Store(id, struct{}{}) // it may have joined while this device was away
		n.host.Learn([]*wire.Peer{c})
		n.hint.Store(&id)
		return
	}
	n.hint.Store(nil)
}

// toldRemoved ends a node whose device was taken out of the swarm by another.
func (n *node) toldRemoved(err error) {
	if !n.leaving.Load() {
		n.stop(err)
	}
}

// toCoordinator is a stream to a member, which may say that this device was
// removed instead of answering. It keeps the whole of the stream: what ends a
// session over a link that hangs needs Reset.
type toCoordinator struct {
	*p2p.Stream
	node *node
}

// Read implements io.Reader.
func (s toCoordinator) Read(p []byte) (int, error) {
	read, err := s.Stream.Read(p)
	if err != nil && wire.CodeOf(err) == wire.Code_CODE_REMOVED {
		s.node.toldRemoved(fmt.Errorf("%w; join again with another data folder and a new invite", err))
	}
	return read, err
}

// likelyCoordinators returns whom to dial, the likeliest first: Raft's leader, or
// the last hint and a few members, any of whom will know. The hint may be of one
// that has died without a word.
func (n *node) likelyCoordinators() ([]wire.DeviceID, error) {
	if g := n.group(); g != nil {
		if id, _ := g.Leader(); id != "" && id != n.id.ID {
			return []wire.DeviceID{id}, nil
		}
	}
	hinted := n.id.ID
	if hint := n.hint.Load(); hint != nil {
		hinted = *hint
	}
	var others []wire.DeviceID
	for _, id := range n.host.Members() {
		if id != n.id.ID && id != hinted {
			others = append(others, id)
		}
	}
	rand.Shuffle(len(others), func(i, k int) { others[i], others[k] = others[k], others[i] })
	if hinted != n.id.ID {
		others = slices.Insert(others, 0, hinted)
	}
	if len(others) == 0 {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no coordinator is known yet")
	}
	return others[:min(len(others), maxAsked)], nil
}

// openFirst opens a session's stream to the first of some devices that answers.
// Each gets a head start on the next: the addresses that are known of one may be
// of yesterday, and to find that out takes seconds.
func (n *node) openFirst(ctx context.Context, ids []wire.DeviceID) (stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var opening sync.WaitGroup
	var mu sync.Mutex
	var first *p2p.Stream
	var failed error
	for i, id := range ids {
		opening.Go(func() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(i) * headStart):
			}
			s, err := n.host.Open(ctx, id, p2p.ProtocolSession)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = cmp.Or(failed, err)
				n.forgetHint(id)
			case first != nil:
				s.Close()
			default:
				first = s
				cancel()
			}
		})
	}
	opening.Wait()
	if first == nil {
		return nil, cmp.Or(failed, context.Cause(ctx))
	}
	return toCoordinator{first, n}, nil
}

// forgetHint drops a hint that led nowhere.
func (n *node) forgetHint(id wire.DeviceID) {
	if hint := n.hint.Load(); hint != nil && *hint == id {
		n.hint.CompareAndSwap(hint, nil)
	}
}

// leadTerm is the term in which this node coordinates; 0 where it does not.
func (n *node) leadTerm() uint64 {
	if c := n.lead.Load(); c != nil {
		return c.Term()
	}
	return 0
}

// heardCoordinator takes a member's word by gossip that it coordinates in a
// term. Members know better from Raft; a worker goes there without waiting until
// it misses the coordinator before, whose link may have been cut in silence. A
// false word costs a session: the next dial finds the way back.
func (n *node) heardCoordinator(id wire.DeviceID, term uint64) {
	link := n.worker.Link()
	if n.group() != nil || term <= link.Term() || !raise(&n.heardTerm, term) {
		return
	}
	n.hint.Store(&id)
	link.Redial()
}

// serveStreams begins to answer other devices.
func (n *node) serveStreams() error {
	n.host.Handle(p2p.ProtocolSession, wire.Role_ROLE_WORKER, n.serveSession)
	if r := n.replica.Load(); r != nil {
		n.host.Handle(p2p.ProtocolPage, wire.Role_ROLE_MEMBER, func(ctx context.Context, s *p2p.Stream) {
			r.pages.Serve(ctx, s.Remote(), s)
		})
		n.host.Handle(protocolGeneration, wire.Role_ROLE_MEMBER, n.serveGreeting)
		n.host.ServeJoin(n.swarm.Load().SwarmID, n.admit)
	}
	return n.host.Subscribe(topicLog, func(from wire.DeviceID, data []byte) {
		if from != n.id.ID && n.roleOf(from) >= wire.Role_ROLE_MEMBER {
			n.heardCoordinator(from, n.logs.heard(data))
		}
	})
}

// serveSession takes a session if this node coordinates, and otherwise says who
// does.
func (n *node) serveSession(ctx context.Context, s *p2p.Stream) {
	if c := n.lead.Load(); c != nil {
		if err := c.Serve(ctx, s); err != nil {
			n.log.Debug("a session ended", "device", s.Remote(), "err", err)
		}
		return
	}
	refusal := &wire.Refusal{
		Error:      &wire.Error{Code: wire.Code_CODE_NOT_COORDINATOR, Text: "this node does not coordinate"},
		Generation: n.swarm.Load().Generation,
	}
	if g := n.group(); g != nil {
		if id, _ := g.Leader(); id != "" && id != n.id.ID {
			if peers := n.host.Peers([]wire.DeviceID{id}); len(peers) > 0 {
				refusal.Coordinator = peers[0]
			}
		}
	}
	if err := session.Refuse(ctx, s, refusal); err != nil {
		n.log.Debug("a session was not refused in good order", "device", s.Remote(), "err", err)
	}
}

// admit passes a joiner's proof to the coordinator.
func (n *node) admit(ctx context.Context, join *wire.JoinRequest) (*wire.AdmitResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	out, err := n.worker.Link().Call(ctx, &wire.Request{Kind: &wire.Request_Admit{Admit: &wire.AdmitRequest{Join: join}}})
	if err != nil {
		return nil, err
	}
	return out.GetAdmit(), nil
}

// watchState makes the host follow the registry: whom to stay connected with,
// and whom to cut off.
func (n *node) watchState(ctx context.Context) error {
	r := n.replica.Load()
	f := follower{known: make(map[wire.DeviceID]bool), removed: make(map[wire.DeviceID]time.Time)}
	var leader wire.DeviceID
	for {
		var due <-chan time.Time
		if len(f.removed) > 0 {
			due = time.After(kickAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		case <-due:
		}
		group := r.now.Load()
		if id, _ := group.Leader(); id != leader {
			leader = id
			n.followLeader(id)
		}
		n.followRegistry(group, &f)
		if n.wasRemoved(n.id.ID) && !n.leaving.Load() {
			n.stop(wire.Errorf(wire.Code_CODE_REMOVED, "this device was removed from the swarm; join again with another data folder and a new invite"))
		}
		select { // a busy log changes hundreds of times a second
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// followLeader goes to the leader that Raft names, with this device's session and
// those of the browsers that it bridges, without waiting until the links with the
// one before are found to be dead. There may be no leader now.
func (n *node) followLeader(id wire.DeviceID) {
	if id == "" {
		return
	}
	if id != n.id.ID && id != n.worker.Link().Coordinator() {
		n.worker.Link().Redial()
	}
	if g := n.bridging.Load(); g != nil {
		g.follow(id)
	}
}

// follower is what a node has seen of the registry.
type follower struct {
	known map[wire.DeviceID]bool
	// removed are devices to cut off, and since when.
	removed map[wire.DeviceID]time.Time
}

// followRegistry compares the registry with the devices known before.
func (n *node) followRegistry(g *openGroup, f *follower) {
	var members []wire.DeviceID
	now := make(map[wire.DeviceID]bool)
	founded := false
	g.Read(func(s *state.State) {
		founded = s.Founded()
		for _, d := range s.Devices() {
			now[d.ID] = true
			if d.Role >= wire.Role_ROLE_MEMBER {
				members = append(members, d.ID)
			}
		}
	})
	if !founded {
		return // what it knew before holds until the state is here
	}
	changed := false
	for id := range now {
		changed = changed || !f.known[id]
		f.known[id] = true
	}
	for id := range f.known {
		if !now[id] {
			changed = true
			delete(f.known, id)
			n.admitted.Delete(id)
			f.removed[id] = time.Now()
		}
	}
	if changed && len(members) > 0 {
		n.host.SetMembers(members)
	}
	for id, since := range f.removed {
		if time.Since(since) >= kickAfter {
			delete(f.removed, id)
			n.host.Kick(id)
		}
	}
}
