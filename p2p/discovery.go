package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxRedials bounds the dials of the redial loop at one time.
const maxRedials = 8

// connect makes a connection to a device that this host may dial, unless there
// is one.
func (h *Host) connect(ctx context.Context, pid peer.ID) error {
	sw := h.stack.swarm
	if sw.Connectedness(pid) == network.Connected {
		return nil
	}
	addrs := h.book.addresses(deviceID(pid))
	sw.Peerstore().AddAddrs(pid, addrs, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(ctx, h.timing.dial)
	defer cancel()
	if _, err := sw.DialPeer(ctx, pid); err != nil {
		return unreachable(deviceID(pid), addrs, err)
	}
	return nil
}

// unreachable says which addresses of a device were tried, and what came of it.
func unreachable(id wire.DeviceID, addrs []ma.Multiaddr, err error) error {
	if len(addrs) == 0 {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "device %s cannot be reached: no address of it is known", id.Short())
	}
	reasons := make(map[string]string)
	var failed *swarm.DialError
	if errors.As(err, &failed) {
		for _, e := range failed.DialErrors {
			reasons[e.Address.String()] = shortReason(e.Cause)
		}
	}
	var tried []string
	for _, a := range addrs {
		reason := reasons[a.String()]
		if reason == "" {
			reason = "no answer"
		}
		tried = append(tried, hostPort(a)+": "+reason)
	}
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "device %s cannot be reached; tried %s", id.Short(), strings.Join(tried, ", "))
}

// shortReason is the last part of a dial error: "connection refused" of a long
// chain that repeats the address.
func shortReason(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	case strings.Contains(err.Error(), "peer id mismatch"):
		return "another device is there"
	case errors.Is(err, swarm.ErrDialBackoff):
		return "failed a moment ago"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}

// redial knows when to try each member that is not connected.
type redial struct {
	wake chan struct{}
	busy chan struct{} // one place for each dial that may run

	mu    sync.Mutex
	tries map[wire.DeviceID]*attempt
}

// attempt is the state of dialling one member.
type attempt struct {
	next    time.Time     // not before
	wait    time.Duration // after the next failure
	running bool
}

func newRedial() *redial {
	return &redial{wake: make(chan struct{}, 1), busy: make(chan struct{}, maxRedials), tries: make(map[wire.DeviceID]*attempt)}
}

// poke makes the loop look at the members now.
func (r *redial) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// soon forgets the back-off of a member: there is news of it.
func (r *redial) soon(id wire.DeviceID) {
	r.mu.Lock()
	if t := r.tries[id]; t != nil && !t.running {
		delete(r.tries, id)
	}
	r.mu.Unlock()
	r.poke()
}

// start reports whether to dial the member now, and if not how long to wait.
func (r *redial) start(id wire.DeviceID, now time.Time, first time.Duration) (bool, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tries[id]
	if t == nil {
		t = &attempt{wait: first}
		r.tries[id] = t
	}
	if t.running {
		return false, time.Hour // its end wakes the loop
	}
	if d := t.next.Sub(now); d > 0 {
		return false, d
	}
	select {
	case r.busy <- struct{}{}:
		t.running = true
		return true, 0
	default:
		return false, time.Hour
	}
}

// finish ends an attempt; after a failure the next one waits, with jitter so
// that two nodes do not dial each other in step.
func (r *redial) finish(id wire.DeviceID, ok bool, longest time.Duration) {
	r.mu.Lock()
	if t := r.tries[id]; ok || t == nil {
		delete(r.tries, id)
	} else {
		t.running = false
		t.next = time.Now().Add(t.wait/2 + rand.N(t.wait))
		t.wait = min(2*t.wait, longest)
	}
	r.mu.Unlock()
	<-r.busy
	r.poke()
}

// forget drops the state of devices that are no members any more.
func (r *redial) forget(isMember func(wire.DeviceID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, t := range r.tries {
		if !t.running && !isMember(id) {
			delete(r.tries, id)
		}
	}
}

// redialLoop dials members that are not connected until the host closes.
func (h *Host) redialLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var dials sync.WaitGroup
	defer dials.Wait()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.redial.wake:
		case <-timer.C:
		}
		h.redial.forget(h.book.isMember)
		wait := time.Hour
		for _, id := range h.book.memberList() {
			if h.Connected(id) {
				continue
			}
			now, d := h.redial.start(id, time.Now(), h.timing.redialMin)
			if now {
				dials.Go(func() { h.redialOne(id) })
				continue
			}
			wait = min(wait, d)
		}
		timer.Reset(wait)
	}
}

// redialOne makes one attempt. A member of which no address is known counts as
// failed: it may call, or mDNS may find it.
func (h *Host) redialOne(id wire.DeviceID) {
	pid, err := peerID(id)
	if err == nil {
		// libp2p's own back-off grows to minutes; this loop has its own.
		h.stack.swarm.Backoff().Clear(pid)
		err = h.connect(h.ctx, pid)
	}
	if err != nil {
		h.log.Debug("a member cannot be reached", "device", id, "error", err)
	}
	h.redial.finish(id, err == nil, h.timing.redialMax)
}

// disconnected is told of each connection that ended.
func (h *Host) disconnected(_ network.Network, c network.Conn) {
	if id := deviceID(c.RemotePeer()); h.book.isMember(id) {
		h.redial.poke()
	}
}

// watchIdentified learns where devices listen from what they say once
// connected, until the host closes.
func (h *Host) watchIdentified() {
	sub, err := h.stack.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		h.log.Error("addresses of peers are not learnt", "error", err)
		return
	}
	defer sub.Close()
	for {
		select {
		case <-h.ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			done := e.(event.EvtPeerIdentificationCompleted)
			h.identified(done)
		}
	}
}

func (h *Host) identified(e event.EvtPeerIdentificationCompleted) {
	h.gossip.announce(e.Peer)
	h.learnFrom(e.Conn, e.ListenAddrs)
}

// learnConnected learns where those devices listen who were identified before
// this node knew them: one that has joined may call before the replicated state
// tells of it.
func (h *Host) learnConnected() {
	for _, c := range h.stack.swarm.Conns() {
		if p := c.RemotePeer(); len(h.book.addresses(deviceID(p))) == 0 {
			h.learnFrom(c, h.stack.swarm.Peerstore().Addrs(p))
		}
	}
}

// learnFrom takes what a known device says of where it listens.
func (h *Host) learnFrom(c network.Conn, listens []ma.Multiaddr) {
	id := deviceID(c.RemotePeer())
	if !h.book.isMember(id) && !h.registered(c.RemotePeer()) {
		return
	}
	ip, ok := ipOf(c.RemoteMultiaddr())
	near := ok && ip.IsLoopback()
	var addrs []ma.Multiaddr
	if c.Stat().Direction == network.DirOutbound && usable(c.RemoteMultiaddr()) {
		addrs = append(addrs, c.RemoteMultiaddr())
	}
	for _, a := range listens {
		ip, ok := ipOf(a)
		if usable(a) && ok && (near || !ip.IsLoopback()) && len(addrs) < maxAddresses {
			addrs = append(addrs, a)
		}
	}
	h.book.learn(id, addrs)
}
