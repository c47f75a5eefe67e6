package browserbridge

import (
	"net"
	"net/netip"
	"sync"
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
func (b *Bridge) SetMaxRecords(n uint64) { b.maxRecords = n }

// SetDrain sets how long a channel's other side may take nothing.
func (c *Channel) SetDrain(d time.Duration) { c.stall, c.look = d, d/4 }

// Queued is how much waits to leave.
func (c *Channel) Queued() uint64 { return c.raw.BufferedAmount() }

// Inside is a stack in the process of the test, where its sockets are seen.
type Inside struct {
	mu     sync.Mutex
	server *stackServer
}

// PutInside has the bridge's stack in this process from now on.
func (b *Bridge) PutInside() *Inside {
	i := &Inside{}
	b.stack.start = i.start
	return i
}

// PutOutside has it in a process of its own, as it is without PutInside.
func (b *Bridge) PutOutside() { b.stack.start = startStack }

// StackRuns reports whether there is a stack.
func (b *Bridge) StackRuns() bool { return b.stack.running() }

// SetStackIdle sets how long a stack stays without a browser.
func (b *Bridge) SetStackIdle(d time.Duration) { b.stack.stays = d }

func (i *Inside) start() (*stackProcess, error) {
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s, err := newStackServer(theirs)
		if err != nil {
			return
		}
		i.mu.Lock()
		i.server = s
		i.mu.Unlock()
		<-s.session.CloseChan()
		s.close()
	}()
	return &stackProcess{ours, func() string {
		ours.Close()
		<-ended
		return "it ended"
	}}, nil
}

// stack returns the stack; nil before a browser comes.
func (i *Inside) stack() *stack {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.server == nil {
		return nil
	}
	return i.server.stack
}

// Sockets returns the addresses of the sockets for browsers.
func (i *Inside) Sockets() (all []netip.AddrPort) {
	s := i.stack()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, mux := range s.udp {
		all = append(all, netip.MustParseAddrPort(mux.LocalAddr().String()))
	}
	return all
}

// Fallback returns the address of the TCP fallback.
func (i *Inside) Fallback() net.Addr {
	s := i.stack()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tcp.LocalAddr()
}
