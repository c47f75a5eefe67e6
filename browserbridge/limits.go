package browserbridge

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of what strangers may cost. Tests set smaller ones.
type Limits struct {
	// Browsers is how many may be connected at one time, and OfAddress how many
	// of them from one address.
	Browsers, OfAddress int
	// Handshakes is how many may be under way at one time.
	Handshakes int
	// Requests a second to /signal from one address, and for how many seconds'
	// worth of them an address may save up.
	Requests, RequestSeconds float64
	// Offers a second that the node answers in all; two seconds' worth may come
	// at once.
	Offers float64
	// Failures a minute of one address, and AllFailures of the node: requests
	// that a guesser or forger would send.
	Failures, AllFailures float64
}

// DefaultLimits are those of section 9 and 11 of the design, where they say
// one: 1,000 browsers, 10 failures a minute of an address, 60 of the node.
func DefaultLimits() Limits {
	return Limits{
		Browsers: 1000, OfAddress: 256, Handshakes: 256,
		Requests: 20, RequestSeconds: 2.5, Offers: 100,
		Failures: 10, AllFailures: 60,
	}
}

// maxAddresses bounds the addresses that the gate remembers.
const maxAddresses = 4096

// bucket is a token bucket: so much of it is used. Its zero value is full.
type bucket struct {
	used float64
	last time.Time
}

// take takes n tokens if there are so many; they come back at rate a second, up
// to size.
func (b *bucket) take(now time.Time, n, rate, size float64) bool {
	b.drain(now, rate)
	if b.used+n > size {
		return false
	}
	b.used += n
	return true
}

func (b *bucket) drain(now time.Time, rate float64) {
	if d := now.Sub(b.last).Seconds(); d > 0 {
		b.used = max(0, b.used-d*rate)
		b.last = now
	}
}

// gate bounds requests per address and in all. An offer under way counts as
// failed until it has ended otherwise, so that many at a time cannot pass where
// one after the other could not.
type gate struct {
	limits Limits

	mu               sync.Mutex
	offers, failures bucket
	guesses          float64 // under way
	addresses        map[netip.Prefix]*visitor
	ended            chan struct{} // closes, and is replaced, when an offer ends
}

// visitor is an address.
type visitor struct {
	requests, failures bucket
	pending            float64
	browsers           int
}

func newGate(l Limits) *gate {
	return &gate{limits: l, addresses: make(map[netip.Prefix]*visitor), ended: make(chan struct{})}
}

// group is what limits per address count: an IPv4 address, or the /64 of an IPv6
// address, since one machine has a whole /64 to choose from.
func group(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// visitor returns what is known of an address; nil when too many are.
func (g *gate) visitor(from netip.Prefix, now time.Time) *visitor {
	v := g.addresses[from]
	if v == nil {
		if len(g.addresses) >= maxAddresses {
			g.forget(now)
		}
		if len(g.addresses) >= maxAddresses {
			return nil
		}
		v = &visitor{}
		g.addresses[from] = v
	}
	return v
}

// forget drops addresses that owe nothing.
func (g *gate) forget(now time.Time) {
	for from, v := range g.addresses {
		v.requests.drain(now, g.limits.Requests)
		v.failures.drain(now, g.limits.Failures/60)
		if v.browsers == 0 && v.pending == 0 && v.requests.used == 0 && v.failures.used == 0 {
			delete(g.addresses, from)
		}
	}
}

// request reports whether an address may ask anything now.
func (g *gate) request(from netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visitor(from, now)
	return v != nil && v.requests.take(now, 1, g.limits.Requests, g.limits.Requests*g.limits.RequestSeconds)
}

// begin reports whether an address may make an offer now; then the caller calls
// end. guessing says that it shows an invite of a device that does not belong
// yet: only those count for the node as a whole, so that a guesser cannot keep
// out who belongs. It waits for offers under way, since each may turn out to be
// one failure too many, until ctx ends.
func (g *gate) begin(ctx context.Context, from netip.Prefix, guessing bool) bool {
	if !g.offer(time.Now()) {
		return false
	}
	for {
		ok, wait := g.tryBegin(from, guessing, time.Now())
		if wait == nil {
			return ok
		}
		select {
		case <-ctx.Done():
			return false
		case <-wait:
		}
	}
}

// offer takes one of the offers that the node answers in a second.
func (g *gate) offer(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.offers.take(now, 1, g.limits.Offers, 2*g.limits.Offers)
}

// tryBegin begins an offer, or refuses it, or returns what closes when another
// has ended.
func (g *gate) tryBegin(from netip.Prefix, guessing bool, now time.Time) (ok bool, wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visitor(from, now)
	if v == nil {
		return false, nil
	}
	v.failures.drain(now, g.limits.Failures/60)
	g.failures.drain(now, g.limits.AllFailures/60)
	left, allLeft := g.limits.Failures-v.failures.used, g.limits.AllFailures-g.failures.used
	if left < 1 || guessing && allLeft < 1 {
		return false, nil
	}
	if left < v.pending+1 || guessing && allLeft < g.guesses+1 {
		return false, g.ended
	}
	v.pending++
	if guessing {
		g.guesses++
	}
	return true, nil
}

// end says how an offer that began ended.
func (g *gate) end(from netip.Prefix, guessing, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.ended)
	g.ended = make(chan struct{})
	v := g.addresses[from] // it is not forgotten while an offer of it is under way
	v.pending--
	if failed {
		v.failures.used++
	}
	if guessing {
		g.guesses--
		if failed {
			g.failures.used++
		}
	}
}

// connect takes one of the places that an address has; disconnect gives it back.
func (g *gate) connect(from netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visitor(from, now)
	if v == nil || v.browsers >= g.limits.OfAddress {
		return false
	}
	v.browsers++
	return true
}

func (g *gate) disconnect(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v := g.addresses[from]; v != nil {
		v.browsers--
	}
}
