package browserbridge

import (
	"net"
	"net/netip"
	"time"
)

// Timing are the limits of a bridge that tests shorten.
type Timing struct{ Handshake, Idle, Dial, Drain, Age time.Duration }

// Shorten sets the limits that are not zero.
func (b *Bridge) Shorten(t Timing) {
	for _, limit := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&b.timing.handshake, t.Handshake}, {&b.timing.idle, t.Idle}, {&b.timing.dial, t.Dial}, {&b.timing.drain, t.Drain}, {&b.timing.age, t.Age}} {
		if limit.from != 0 {
			*limit.to = limit.from
		}
	}
}

// SetMaxRecords sets how many records are sent under one key.
func (b *Bridge) SetMaxRecords(n uint64) { b.stack.cfg.records = n }

// SetDrain sets how long a channel's other side may take nothing.
func (c *Channel) SetDrain(d time.Duration) { c.stall, c.look = d, d/4 }

// Sockets returns the addresses of the sockets for browsers.
func (b *Bridge) Sockets() (all []netip.AddrPort) {
	b.stack.mu.Lock()
	defer b.stack.mu.Unlock()
	for _, mux := range b.stack.udp {
		all = append(all, netip.MustParseAddrPort(mux.LocalAddr().String()))
	}
	return all
}

// Fallback returns the address of the TCP fallback.
func (b *Bridge) Fallback() net.Addr {
	b.stack.mu.Lock()
	defer b.stack.mu.Unlock()
	return b.stack.tcp.LocalAddr()
}
