package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// A recovery raises the swarm's generation. What a member of an older one has
// counts no more: it sets its log aside and lets the others bring it up to date.
// It hears of the newer generation from whomever it meets first: here, in a
// session, or on a stream of the Raft group.

const (
	// protocolGeneration is spoken by members only. Both sides write a greeting,
	// and read the other's.
	protocolGeneration = "/ostrich/generation/1"
	// greetingSize is that of a greeting: the generation and the last entry of
	// the log, each a big-endian uint64.
	greetingSize = 16
	// askAllLimit bounds the question that all members are asked at the start,
	// and askLimit one that was met later.
	askAllLimit = time.Second
	askLimit    = 5 * time.Second
	// askAgainAfter is the pause before one that did not answer is asked again.
	askAgainAfter = 10 * time.Second
	// meetEvery is how often a member looks whom it is newly connected with.
	meetEvery = time.Second
)

// greeting is what members tell each other when they meet.
type greeting struct {
	generation, last uint64
}

func (g greeting) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, greetingSize), g.generation)
	return binary.BigEndian.AppendUint64(b, g.last)
}

// decodeGreeting reads a greeting, which may say anything.
func decodeGreeting(b []byte) (greeting, error) {
	if len(b) != greetingSize {
		return greeting{}, fmt.Errorf("a greeting of %d bytes: it has %d", len(b), greetingSize)
	}
	g := greeting{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	if g.generation > wire.MaxGeneration {
		return greeting{}, fmt.Errorf("generation %d is beyond all bounds", g.generation)
	}
	return g, nil
}

// greeting is what this member says of itself.
func (n *node) greeting() greeting {
	g := greeting{generation: n.swarm.Load().Generation}
	if group := n.group(); group != nil {
		g.last = group.Status().Last
	}
	return g
}

// greet writes a greeting to a stream and reads the other's.
func (n *node) greet(s io.ReadWriter) (greeting, error) {
	if _, err := s.Write(n.greeting().encode()); err != nil {
		return greeting{}, err
	}
	b := make([]byte, greetingSize)
	if _, err := io.ReadFull(s, b); err != nil {
		return greeting{}, err
	}
	return decodeGreeting(b)
}

// serveGreeting answers a member that has met this one.
func (n *node) serveGreeting(_ context.Context, s *p2p.Stream) {
	defer s.Close()
	if s.SetDeadline(time.Now().Add(askLimit)) != nil {
		return
	}
	if theirs, err := n.greet(s); err == nil {
		n.heardGeneration(theirs.generation)
	}
}

// askGreeting asks a member. The limit is that of ctx.
func (n *node) askGreeting(ctx context.Context, id wire.DeviceID) (greeting, error) {
	s, err := n.host.Open(ctx, id, protocolGeneration)
	if err != nil {
		return greeting{}, err
	}
	defer s.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(end); err != nil {
			return greeting{}, err
		}
	}
	return n.greet(s)
}

// askMembers asks members, all at once, and returns what those said that
// answered within the limit.
func (n *node) askMembers(ctx context.Context, ids []wire.DeviceID, limit time.Duration) map[wire.DeviceID]greeting {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	answers := make(map[wire.DeviceID]greeting)
	for _, id := range ids {
		if id == n.id.ID {
			continue
		}
		asked.Go(func() {
			g, err := n.askGreeting(ctx, id)
			if err != nil {
				n.log.Debug("a member was not asked for its generation", "device", id, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[id] = g
		})
	}
	asked.Wait()
	return answers
}

// newestGeneration asks the members that can be reached at once, before this one
// takes part in anything, and returns the highest generation that it heard of.
func (n *node) newestGeneration(ctx context.Context) uint64 {
	newest := uint64(0)
	for _, g := range n.askMembers(ctx, n.host.Members(), askAllLimit) {
		newest = max(newest, g.generation)
	}
	return newest
}

// renew sets the log of a closed group aside if it is of an older generation,
// and remembers the new one. It does nothing where it is not older.
func (n *node) renew(generation uint64) error {
	m := *n.swarm.Load()
	if generation <= m.Generation {
		return nil
	}
	why := fmt.Sprintf("it is of generation %d, and the swarm was recovered without it and is at generation %d", m.Generation, generation)
	if exists(n.folder.path("raft")) {
		if _, err := n.setAside(fmt.Sprintf("generation-%d", m.Generation), why); err != nil {
			return err
		}
	}
	m.Generation, m.Replica = generation, ""
	return n.rememberSwarm(&m)
}

// heardGeneration notes a generation that the swarm is said to be at. It does
// not block.
func (n *node) heardGeneration(generation uint64) {
	if m := n.swarm.Load(); m == nil || generation <= m.Generation || generation > wire.MaxGeneration {
		return
	}
	raise(&n.newest, generation)
	nudge(n.newer)
}

// raise makes a value the greater one, and reports whether it was less before.
func raise(value *atomic.Uint64, to uint64) bool {
	for {
		now := value.Load()
		if to <= now {
			return false
		}
		if value.CompareAndSwap(now, to) {
			return true
		}
	}
}

// followGeneration brings this device to the newest generation that it hears of,
// until ctx ends; a member asks each that it is newly connected with.
func (n *node) followGeneration(ctx context.Context) error {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	met := make(meetings)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.newer:
			if err := n.catchUp(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-tick.C:
			if n.replica.Load() != nil {
				n.meetMembers(ctx, met)
			}
		}
	}
}

// meetings are the members that this one is connected with, and when to ask
// each again; the zero time is never.
type meetings map[wire.DeviceID]time.Time

// meetMembers asks the members that this one was not connected with at the last
// look.
func (n *node) meetMembers(ctx context.Context, met meetings) {
	now := time.Now()
	var fresh []wire.DeviceID
	for _, id := range n.host.Members() {
		if id == n.id.ID || !n.host.Connected(id) {
			delete(met, id)
			continue
		}
		if again, ok := met[id]; !ok || !again.IsZero() && now.After(again) {
			fresh = append(fresh, id)
			met[id] = now.Add(askAgainAfter)
		}
	}
	if len(fresh) == 0 {
		return
	}
	for id, g := range n.askMembers(ctx, fresh, askLimit) {
		met[id] = time.Time{}
		n.heardGeneration(g.generation)
	}
}

// catchUp brings this device to the newest generation that it has heard of. A
// worker has only to remember it.
func (n *node) catchUp(ctx context.Context) error {
	generation := n.newest.Load()
	m := *n.swarm.Load()
	if generation <= m.Generation {
		return nil
	}
	if n.replica.Load() != nil {
		// Members that are known stay so while the state is empty.
		for _, id := range n.host.Members() {
			n.admitted.Store(id, struct{}{})
		}
		return n.reopen(ctx, func() error { return n.renew(generation) })
	}
	m.Generation = generation
	if err := n.rememberSwarm(&m); err != nil {
		return err
	}
	n.announce(lineInfo, false, fmt.Sprintf("the swarm was recovered, and is at generation %d", generation))
	n.worker.Link().Redial()
	return nil
}
