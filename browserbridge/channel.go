package browserbridge

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// channelLabel is the label of the channel that carries a session.
	channelLabel = "session"
	// writeSize bounds a message that is written: larger ones kill the channel
	// of some browsers silently.
	writeSize = 16 << 10
	// highMark bounds what is queued for the other side or on its way there: at it
	// writing waits until half of it has arrived. A browser close by has a mark of
	// its own, from lowestMark on, and as much as pace brings it in a round trip:
	// browsers take datagrams from a socket of 64 KiB, and when the last ones of a
	// burst do not fit, the stack notices after a second.
	highMark   = 1 << 20
	lowestMark = 48 << 10
	pace       = 8 << 20 // bytes a second
	// drainLimit is how long the other side may take nothing of a full queue.
	drainLimit = 10 * time.Second
	// drainLook is how often a full queue is looked at.
	drainLook = time.Second
)

var (
	// ErrNotDraining says that the other side of a channel takes nothing.
	ErrNotDraining = errors.New("the other side takes no data")
	// ErrBadMessage says that the other side sent what no session's channel
	// carries: text, or a message of more than 64 KiB.
	ErrBadMessage = errors.New("a message that a session does not have")
	errClosed     = errors.New("closed")
)

// DataChannel is a data channel of a WebRTC stack, detached.
type DataChannel interface {
	// ReadDataChannel reads one message, and leaves it where it is when it
	// returns io.ErrShortBuffer.
	ReadDataChannel([]byte) (n int, text bool, err error)
	Write([]byte) (int, error)
	Close() error
	SetReadDeadline(time.Time) error
	BufferedAmount() uint64
	SetBufferedAmountLowThreshold(uint64)
	OnBufferedAmountLow(func())
}

// distant is a DataChannel that knows how long a round trip to the other side
// takes; 0 while it does not.
type distant interface{ RoundTrip() time.Duration }

// Channel is a data channel as a byte stream with a bounded queue. Read and
// Write may run side by side, each in one goroutine.
type Channel struct {
	raw    DataChannel
	rest   []byte        // of a message that was larger than its reader's buffer
	low    chan struct{} // capacity 1: the queue is short again
	done   chan struct{}
	once   sync.Once
	stall  time.Duration
	look   time.Duration
	closed error
}

// NewChannel returns a stream over an open data channel, which is the stream's
// from then on.
func NewChannel(raw DataChannel) *Channel {
	c := &Channel{raw: raw, low: make(chan struct{}, 1), done: make(chan struct{}), stall: drainLimit, look: drainLook}
	raw.OnBufferedAmountLow(func() {
		select {
		case c.low <- struct{}{}:
		default:
		}
	})
	return c
}

// Read reads what has arrived; io.EOF after the other side has closed the
// channel in good order, or its connection.
func (c *Channel) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		n, text, err := c.raw.ReadDataChannel(p)
		if errors.Is(err, io.ErrShortBuffer) {
			large := make([]byte, maxMessage)
			if n, text, err = c.raw.ReadDataChannel(large); err == nil {
				c.rest = large[:n]
			}
		}
		switch {
		case errors.Is(err, io.ErrShortBuffer):
			return 0, fmt.Errorf("%w: more than %d bytes", ErrBadMessage, maxMessage)
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			return 0, fmt.Errorf("reading a data channel: %w", err)
		case text:
			return 0, fmt.Errorf("%w: text", ErrBadMessage)
		case c.rest == nil && n > 0:
			return n, nil
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

// Write sends p in messages of at most 16 KiB. It blocks while 1 MiB is queued,
// or less where the other side is close by; when nothing of that has left for 10 s
// the error is ErrNotDraining.
func (c *Channel) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		piece := p[:min(len(p), writeSize)]
		if err := c.room(len(piece)); err != nil {
			return sent, err
		}
		if _, err := c.raw.Write(piece); err != nil {
			return sent, fmt.Errorf("writing to a data channel: %w", err)
		}
		sent += len(piece)
		p = p[len(piece):]
	}
	return sent, nil
}

// mark is how much may be queued or on its way now.
func (c *Channel) mark() uint64 {
	d, ok := c.raw.(distant)
	if !ok {
		return highMark
	}
	return min(max(uint64(pace*d.RoundTrip().Seconds()), lowestMark), highMark)
}

// room waits until n more bytes may be queued.
func (c *Channel) room(n int) error {
	mark := uint64(lowestMark)
	if c.raw.BufferedAmount()+uint64(n) > mark {
		mark = c.mark()
	}
	if c.raw.BufferedAmount()+uint64(n) <= mark {
		select {
		case <-c.done:
			return errClosed
		default:
			return nil
		}
	}
	low := mark / 2
	c.raw.SetBufferedAmountLowThreshold(low)
	queued := c.raw.BufferedAmount() // what leaves from now on is told
	look := time.NewTicker(c.look)
	defer look.Stop()
	least, since := queued, time.Now()
	for queued > low {
		select {
		case <-c.done:
			return errClosed
		case <-c.low:
		case <-look.C:
		}
		queued = c.raw.BufferedAmount()
		if queued < least {
			least, since = queued, time.Now()
		}
		if time.Since(since) > c.stall {
			return ErrNotDraining
		}
	}
	return nil
}

// Close closes the channel: what is queued is still sent, the other side then
// reads io.EOF. A Read or Write that waits ends with an error. It may be called
// more than once.
func (c *Channel) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.closed = c.raw.Close()
		c.raw.SetReadDeadline(time.Unix(1, 0)) // an error means that the channel is gone
	})
	return c.closed
}
