package p2p

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of joins. Failed ones are what guessing looks like: at 60 a minute a
// short code of 50 bits outlives its day by far.
const (
	joinsPerSecond       = 1
	joinBurst            = 4
	joinMaxWait          = 4 * time.Second
	failuresPerMinute    = 10 // of one address
	allFailuresPerMinute = 60
	// maxJoins bounds the joins that run at one time.
	maxJoins = 32
	// maxJoinAddresses bounds the addresses remembered.
	maxJoinAddresses = 4096
)

// bucket is a token bucket. Its zero value is full.
type bucket struct {
	used float64
	last time.Time
}

// drain brings the bucket to now at rate tokens a second.
func (b *bucket) drain(now time.Time, rate float64) {
	if d := now.Sub(b.last).Seconds(); d > 0 {
		b.used = max(0, b.used-d*rate)
	}
	b.last = now
}

// joinLimits bounds joins per address and in all. A join counts as failed from
// its beginning until it has ended otherwise, so that many at a time cannot
// pass where one after the other could not.
type joinLimits struct {
	failed atomic.Uint64

	mu        sync.Mutex
	running   int
	all       bucket
	addresses map[netip.Prefix]*joinAddress
}

type joinAddress struct {
	tries    bucket
	failures bucket
	running  int
}

func newJoinLimits() *joinLimits {
	return &joinLimits{addresses: make(map[netip.Prefix]*joinAddress)}
}

// begin asks to start a join from an address. If it may, the caller waits for
// so long, then goes on, and calls end.
func (l *joinLimits) begin(from netip.Prefix, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.addresses[from]
	if a == nil {
		if len(l.addresses) >= maxJoinAddresses && !l.evict(now) {
			return 0, false
		}
		a = &joinAddress{}
		l.addresses[from] = a
	}
	l.drain(a, now)
	over := a.tries.used + 1 - joinBurst
	wait = max(0, time.Duration(over*float64(time.Second)/joinsPerSecond))
	if l.running >= maxJoins || wait > joinMaxWait ||
		a.failures.used+1 > failuresPerMinute || l.all.used+1 > allFailuresPerMinute {
		return 0, false
	}
	a.tries.used++
	a.failures.used++
	a.running++
	l.all.used++
	l.running++
	return wait, true
}

// end says how a join that began ended.
func (l *joinLimits) end(from netip.Prefix, failed bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	a := l.addresses[from]
	a.running--
	l.drain(a, now)
	if failed {
		l.failed.Add(1)
		return
	}
	a.failures.used = max(0, a.failures.used-1)
	l.all.used = max(0, l.all.used-1)
}

func (l *joinLimits) drain(a *joinAddress, now time.Time) {
	a.tries.drain(now, joinsPerSecond)
	a.failures.drain(now, failuresPerMinute/60.0)
	l.all.drain(now, allFailuresPerMinute/60.0)
}

// evict forgets addresses that owe nothing, and reports whether there were any.
func (l *joinLimits) evict(now time.Time) bool {
	for from, a := range l.addresses {
		l.drain(a, now)
		if a.running == 0 && a.tries.used == 0 && a.failures.used == 0 {
			delete(l.addresses, from)
		}
	}
	return len(l.addresses) < maxJoinAddresses
}
