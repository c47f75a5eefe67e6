package p2p

import (
	"cmp"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxStrangers bounds the connections of devices without a role, and
	// maxStrangersPerAddress those of one address among them.
	maxStrangers           = 128
	maxStrangersPerAddress = 32
)

// gate decides who may connect. It is libp2p's ConnectionGater; what a connected
// device may do is decided per stream, in Host.Handle.
type gate struct {
	host    *Host
	refused atomic.Uint64
	logs    *rate.Limiter

	mu sync.Mutex
	// expected counts dials of a device that is not known yet: a join.
	expected map[peer.ID]int
	// vouched holds devices that have joined just now, whose role the
	// replicated state is about to tell, and until when that may take.
	vouched map[peer.ID]time.Time
	// strangers counts connections by address. It is counted up as they come
	// and counted afresh by each sweep.
	strangers      map[netip.Prefix]int
	strangersTotal int
}

func newGate(h *Host) *gate {
	return &gate{host: h, logs: rate.NewLimiter(1, 10), expected: make(map[peer.ID]int),
		vouched: make(map[peer.ID]time.Time), strangers: make(map[netip.Prefix]int)}
}

// known reports whether a connection with p is wanted: it has a role, is on the
// member list, is being joined, or has just joined.
func (g *gate) known(p peer.ID, now time.Time) bool {
	if g.host.registered(p) || g.host.book.isMember(deviceID(p)) {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.expected[p] > 0 || g.vouched[p].After(now)
}

// expect allows dialling p until the returned function is called.
func (g *gate) expect(p peer.ID) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected[p]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.expected[p]--; g.expected[p] == 0 {
			delete(g.expected, p)
		}
	}
}

// vouch keeps p connected for a while although no role is known of it yet.
func (g *gate) vouch(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vouched[p] = time.Now().Add(g.host.timing.vouched)
}

// refuse counts and logs that p was refused.
func (g *gate) refuse(p peer.ID, addr ma.Multiaddr, what string) {
	g.refused.Add(1)
	if g.logs.Allow() {
		g.host.log.Warn("refused", "audit", true, "what", what, "device", deviceID(p), "role", cmp.Or(wire.RoleName(g.host.role(p)), "none"), "address", addr)
	}
}

// InterceptPeerDial allows dialling devices that are known.
func (g *gate) InterceptPeerDial(p peer.ID) bool { return g.known(p, time.Now()) }

// InterceptAddrDial allows every address of a device that may be dialled.
func (g *gate) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptAccept allows what the resource manager let through.
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured, called when the other side has proven its key, bounds the
// connections of strangers.
func (g *gate) InterceptSecured(dir network.Direction, p peer.ID, addrs network.ConnMultiaddrs) bool {
	if dir == network.DirOutbound || g.known(p, time.Now()) {
		return true
	}
	if g.countStranger(addrs.RemoteMultiaddr()) {
		return true
	}
	g.refuse(p, addrs.RemoteMultiaddr(), "a stranger's connection: there are too many")
	return false
}

// InterceptUpgraded allows what InterceptSecured did.
func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func (g *gate) countStranger(addr ma.Multiaddr) bool {
	from := addressGroup(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.strangersTotal >= maxStrangers || g.strangers[from] >= maxStrangersPerAddress {
		return false
	}
	g.strangersTotal++
	g.strangers[from]++
	return true
}

// addressGroup is what limits per address count: an IPv4 address, or the /64 of
// an IPv6 address, since one machine has a whole /64 to choose from.
func addressGroup(addr ma.Multiaddr) netip.Prefix {
	ip, ok := ipOf(addr)
	if !ok {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	group, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return group
}

// sweep closes connections that have lasted longer than a stranger may stay and
// are not known: strangers that did not join, and devices that were removed.
func (g *gate) sweep(now time.Time) {
	var over []network.Conn
	strangers := make(map[netip.Prefix]int)
	total := 0
	for _, c := range g.host.stack.swarm.Conns() {
		if g.known(c.RemotePeer(), now) {
			continue
		}
		if now.Sub(c.Stat().Opened) >= g.host.timing.stranger {
			over = append(over, c)
			continue
		}
		strangers[addressGroup(c.RemoteMultiaddr())]++
		total++
	}
	g.mu.Lock()
	g.strangers, g.strangersTotal = strangers, total
	for p, until := range g.vouched {
		if until.Before(now) {
			delete(g.vouched, p)
		}
	}
	g.mu.Unlock()
	for _, c := range over {
		g.refuse(c.RemotePeer(), c.RemoteMultiaddr(), "to stay connected without having joined")
		c.Close()
	}
}

// sweepLoop keeps the connections in order until the host closes.
func (h *Host) sweepLoop() {
	tick := time.NewTicker(h.timing.sweep)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-tick.C:
			h.gate.sweep(now)
			h.gossip.announceConnected(now)
			h.learnConnected()
		}
	}
}
