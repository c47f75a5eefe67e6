package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"golang.org/x/time/rate"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Topics of the gossip.
const (
	// TopicLog carries what happened, for people: wire.GossipLog.
	TopicLog = "log"
	// TopicState carries the coordinator's view.
	TopicState = "state"
)

const (
	// gossipRate and gossipBurst bound the messages of one author.
	gossipRate  = 20
	gossipBurst = 40
	// Queues that carry 1,000 messages a second between three hosts; the
	// library's own drop some (measured.md).
	gossipOutbound     = 512
	gossipSubscription = 1024
	// gossipOverhead is what signature, key and topic add to a message.
	gossipOverhead = 4 << 10
	// maxUnknown bounds the streams that wait until their device is known, and
	// unknownLook is how often they look.
	maxUnknown  = 64
	unknownLook = 50 * time.Millisecond
	// maxGossipAuthors bounds the rate limiters kept.
	maxGossipAuthors = wire.MaxDevices
)

// gossip is this host's part in the swarm's gossipsub: messages signed by their
// author, from registered devices only, on our topics only.
type gossip struct {
	host *Host
	bus  event.Emitter
	base string // of topic names: they belong to one swarm

	mu       sync.Mutex // guards what follows
	pubsub   *pubsub.PubSub
	topics   map[string]*pubsub.Topic
	authors  map[peer.ID]*rate.Limiter
	lastFull time.Time // when all connected devices were announced
	told     map[peer.ID]bool
}

// start joins the gossip of a swarm; it ends with the host's context.
func (g *gossip) start(h *Host, swarm wire.SwarmID) error {
	bus := eventbus.NewBus()
	emitter, err := bus.Emitter(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	base := "/ostrich/" + string(swarm) + "/"
	names := []string{base + TopicLog, base + TopicState}
	quiet := slog.New(slog.DiscardHandler) // its warnings repeat what the gate logs
	ps, err := pubsub.NewGossipSub(h.ctx, &gossipHost{Host: h.stack.host, gate: h, bus: bus, unknown: make(chan struct{}, maxUnknown)},
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(names...), 2*len(names))),
		pubsub.WithBlacklist(unregistered{h}),
		pubsub.WithPeerOutboundQueueSize(gossipOutbound),
		pubsub.WithMaxMessageSize(wire.MaxGossip+gossipOverhead),
		pubsub.WithLogger(quiet), pubsub.WithRPCLogger(quiet))
	if err != nil {
		return fmt.Errorf("gossip cannot be started: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.host, g.bus, g.base, g.pubsub = h, emitter, base, ps
	g.topics = make(map[string]*pubsub.Topic)
	g.authors = newAuthors()
	g.told = make(map[peer.ID]bool)
	for _, name := range []string{TopicLog, TopicState} {
		if err := g.joinTopic(name); err != nil {
			return err
		}
	}
	return nil
}

func newAuthors() map[peer.ID]*rate.Limiter { return make(map[peer.ID]*rate.Limiter) }

// joinTopic is called with mu held.
func (g *gossip) joinTopic(name string) error {
	full := g.base + name
	if err := g.pubsub.RegisterTopicValidator(full, g.validate, pubsub.WithValidatorInline(true)); err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	topic, err := g.pubsub.Join(full)
	if err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	g.topics[name] = topic
	return nil
}

// validate decides whether a message is delivered and passed on. Its signature
// has been checked. Too many from one author are dropped without blaming the
// neighbour who passed them on.
func (g *gossip) validate(_ context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	author := m.GetFrom()
	switch {
	case author == g.host.self:
		return pubsub.ValidationAccept
	case len(m.GetData()) > wire.MaxGossip:
		return pubsub.ValidationReject
	case !g.host.registered(author):
		return pubsub.ValidationIgnore
	case !g.allow(author):
		return pubsub.ValidationIgnore
	}
	return pubsub.ValidationAccept
}

func (g *gossip) allow(author peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.authors[author]
	if l == nil {
		if len(g.authors) >= maxGossipAuthors {
			clear(g.authors)
		}
		l = rate.NewLimiter(gossipRate, gossipBurst)
		g.authors[author] = l
	}
	return l.Allow()
}

// announce tells gossipsub of a connected device, if it is registered.
func (g *gossip) announce(p peer.ID) {
	g.mu.Lock()
	bus := g.bus
	if bus == nil || !g.host.registered(p) {
		g.mu.Unlock()
		return
	}
	g.told[p] = true
	g.mu.Unlock()
	// Emit fails only when the bus is closed: then there is no gossip to tell.
	_ = bus.Emit(event.EvtPeerIdentificationCompleted{Peer: p, Protocols: []protocol.ID{pubsub.GossipSubID_v12}})
}

// announceConnected announces connected devices whose role has become known
// since, and now and then all of them: gossipsub gives up a neighbour that
// refused it for a while.
func (g *gossip) announceConnected(now time.Time) {
	g.mu.Lock()
	if g.bus == nil {
		g.mu.Unlock()
		return
	}
	all := now.Sub(g.lastFull) >= g.host.timing.announce
	if all {
		g.lastFull = now
		clear(g.told)
	}
	g.mu.Unlock()
	for _, p := range g.host.stack.swarm.Peers() {
		g.mu.Lock()
		told := g.told[p]
		g.mu.Unlock()
		if !told {
			g.announce(p)
		}
	}
}

// Publish sends data, at most wire.MaxGossip bytes, to the devices that
// subscribe to the topic. It returns when the message is queued; delivery is
// not certain, and more than 20 messages a second are dropped by the others.
func (h *Host) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > wire.MaxGossip {
		return wire.Errorf(wire.Code_CODE_INVALID, "a gossip message of %d bytes: at most %d are allowed", len(data), wire.MaxGossip)
	}
	t, err := h.gossip.topic(topic)
	if err != nil {
		return err
	}
	return t.Publish(ctx, data)
}

func (g *gossip) topic(name string) (*pubsub.Topic, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pubsub == nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "gossip has not begun: the node belongs to no swarm yet")
	}
	t := g.topics[name]
	if t == nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "there is no gossip topic %q", name)
	}
	return t, nil
}

// Subscribe calls f with each message of the topic, one after the other, until
// the host closes; this device's own messages are left out. It needs Start to
// have been called. Messages that come faster than f takes them are dropped.
func (h *Host) Subscribe(topic string, f func(from wire.DeviceID, data []byte)) error {
	t, err := h.gossip.topic(topic)
	if err != nil {
		return err
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(gossipSubscription))
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	if !h.begin() {
		sub.Cancel()
		return errClosed
	}
	go func() {
		defer h.wg.Done()
		defer sub.Cancel()
		for {
			m, err := sub.Next(h.ctx)
			if err != nil {
				return
			}
			if from := m.GetFrom(); from != h.self {
				f(deviceID(from), m.GetData())
			}
		}
	}()
	return nil
}

// unregistered is gossipsub's blacklist: everyone without a role.
type unregistered struct{ host *Host }

// Add does nothing: roles decide.
func (u unregistered) Add(peer.ID) bool { return false }

// Contains reports whether p is kept out.
func (u unregistered) Contains(p peer.ID) bool {
	return p != u.host.self && !u.host.registered(p)
}

// gossipHost is the libp2p host as gossipsub sees it: it hears of registered
// devices only, through a bus of its own, and takes and opens streams with no
// others.
type gossipHost struct {
	libp2phost.Host
	gate *Host
	bus  event.Bus
	// unknown has a place for each stream that waits.
	unknown chan struct{}
}

var errNotRegistered = errors.New("not a device of this swarm")

func (g *gossipHost) EventBus() event.Bus { return g.bus }

func (g *gossipHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	g.Host.SetStreamHandler(id, g.guard(f))
}

func (g *gossipHost) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	g.Host.SetStreamHandlerMatch(id, match, g.guard(f))
}

func (g *gossipHost) guard(f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		p := s.Conn().RemotePeer()
		if !g.comesToBeKnown(p) {
			g.gate.gate.refuse(p, s.Conn().RemoteMultiaddr(), string(s.Protocol()))
			s.ResetWithError(network.StreamGated)
			return
		}
		f(s)
	}
}

// comesToBeKnown reports whether a device is registered, or will be in a moment:
// the registry may learn of one that has joined later than the device itself.
// Were its stream refused, its gossipsub could forget for good which topics this
// node listens to, which it is told of once.
func (g *gossipHost) comesToBeKnown(p peer.ID) bool {
	if g.gate.registered(p) {
		return true
	}
	select {
	case g.unknown <- struct{}{}:
		defer func() { <-g.unknown }()
	default:
		return false
	}
	limit := time.NewTimer(g.gate.timing.unknown)
	defer limit.Stop()
	look := time.NewTicker(unknownLook)
	defer look.Stop()
	for {
		select {
		case <-g.gate.ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-look.C:
			if g.gate.registered(p) {
				return true
			}
		}
	}
}

func (g *gossipHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if !g.gate.registered(p) {
		return nil, errNotRegistered
	}
	return g.Host.NewStream(network.WithNoDial(ctx, "gossip uses the connections there are"), p, ids...)
}
