package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

const (
	// clockEpoch is the time of the first reading: 2026-01-01T00:00:00Z in
	// nanoseconds.
	clockEpoch = 1_767_225_600_000_000_000
	// clockTick is what each reading adds, in nanoseconds.
	clockTick = 1_000_000
	// clockEnd is where the clock stops, so that it never overflows: 146 years.
	clockEnd = uint64(1) << 62
)

// clock is the time that a program sees: nanoseconds since its start, moved on
// by its readings and sleeps alone.
type clock struct{ elapsed uint64 }

// read returns the time of the WASI clock id and moves on by one tick.
func (c *clock) read(id uint32) uint64 {
	now := c.now(id)
	c.advance(clockTick)
	return now
}

// now returns the time of the WASI clock id: 0 is the time of day, the others
// count from the start.
func (c *clock) now(id uint32) uint64 {
	if id == 0 {
		return clockEpoch + c.elapsed
	}
	return c.elapsed
}

func (c *clock) advance(by uint64) {
	c.elapsed += min(by, clockEnd-c.elapsed)
}

// stream is a task's randomness: SHA-256(seed ‖ 0), SHA-256(seed ‖ 1), … with
// the counter as eight bytes, big endian.
type stream struct {
	seed    [32]byte
	counter uint64
	block   [sha256.Size]byte
	left    int
}

// read fills b with the next bytes of the stream.
func (s *stream) read(b []byte) {
	for len(b) > 0 {
		if s.left == 0 {
			var in [40]byte
			copy(in[:], s.seed[:])
			binary.BigEndian.PutUint64(in[32:], s.counter)
			s.block, s.left = sha256.Sum256(in[:]), sha256.Size
			s.counter++
		}
		n := copy(b, s.block[sha256.Size-s.left:])
		s.left -= n
		b = b[n:]
	}
}

func (h *host) randomGet(c call) errno {
	size := c.u32(1)
	buf := c.bytes(c.u32(0), size)
	if buf == nil && size > 0 {
		return errnoFault
	}
	h.random.read(buf)
	return errnoOK
}

// clocks is the number of clocks that WASI preview 1 has.
const clocks = 4

func (h *host) clockResGet(c call) errno {
	if c.u32(0) >= clocks {
		return errnoInval
	}
	if !c.putU64(c.u32(1), clockTick) {
		return errnoFault
	}
	return errnoOK
}

func (h *host) clockTimeGet(c call) errno {
	if c.u32(0) >= clocks {
		return errnoInval
	}
	// The second argument is a precision, of which there is but one.
	if !c.putU64(c.u32(2), h.clock.read(c.u32(0))) {
		return errnoFault
	}
	return errnoOK
}

const (
	subscriptionSize = 48
	eventSize        = 32

	eventClock   = 0
	eventFdRead  = 1
	eventFdWrite = 2

	flagAbsolute = 1

	// maxSubscriptions bounds one poll_oneoff.
	maxSubscriptions = 1 << 16
)

// wait returns how long the clock subscription sub waits.
func (h *host) wait(sub []byte) uint64 {
	timeout := binary.LittleEndian.Uint64(sub[24:])
	if binary.LittleEndian.Uint16(sub[40:])&flagAbsolute == 0 {
		return timeout
	}
	now := h.clock.now(binary.LittleEndian.Uint32(sub[16:]))
	return timeout - min(now, timeout)
}

// pollOneoff ends at once: descriptors are always ready; if only clocks are
// asked for, the time moves on to the first that rings.
func (h *host) pollOneoff(c call) errno {
	count := c.u32(2)
	if count == 0 || count > maxSubscriptions {
		return errnoInval
	}
	subs, events := c.bytes(c.u32(0), count*subscriptionSize), c.bytes(c.u32(1), count*eventSize)
	if subs == nil || events == nil {
		return errnoFault
	}
	first := uint64(math.MaxUint64)
	for at := 0; at < len(subs); at += subscriptionSize {
		sub := subs[at : at+subscriptionSize]
		switch sub[8] {
		case eventClock:
			if binary.LittleEndian.Uint32(sub[16:]) >= clocks {
				return errnoInval
			}
			first = min(first, h.wait(sub))
		case eventFdRead, eventFdWrite:
			first = 0
		default:
			return errnoInval
		}
	}
	ready := h.putEvents(subs, events, first)
	h.clock.advance(first)
	if !c.putU32(c.u32(3), ready) {
		return errnoFault
	}
	return errnoOK
}

// putEvents writes an event for each subscription that is due after wait, in
// their order, and returns how many.
func (h *host) putEvents(subs, events []byte, wait uint64) uint32 {
	ready := uint32(0)
	for at := 0; at < len(subs); at += subscriptionSize {
		// A copy: the program may have its events lie over its subscriptions.
		sub := [subscriptionSize]byte(subs[at:])
		if sub[8] == eventClock && h.wait(sub[:]) > wait {
			continue
		}
		event := events[ready*eventSize : (ready+1)*eventSize]
		clear(event)
		copy(event[:8], sub[:8])
		event[10] = sub[8]
		if sub[8] != eventClock {
			failure, size := h.readiness(sub[8], binary.LittleEndian.Uint32(sub[16:]))
			event[8] = byte(failure)
			binary.LittleEndian.PutUint64(event[16:], size)
		}
		ready++
	}
	return ready
}

// readiness returns what an event says of a descriptor: an error, or that one
// byte can be read or written without waiting.
func (h *host) readiness(kind byte, fd uint32) (errno, uint64) {
	if !h.open(fd) || (kind == eventFdRead) != (fd == fdStdin) {
		return errnoBadf, 0
	}
	return errnoOK, 1
}
