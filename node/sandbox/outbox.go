package sandbox

import (
	"io"
	"sync"
	"time"
)

const (
	// outboxFull is the number of bytes at which the outbox is written out.
	outboxFull = 32 << 10
	// outboxDelay is how long a frame may wait for others: tiny tasks share a
	// write, which costs as much as running one of them.
	outboxDelay = 500 * time.Microsecond
)

// outbox gathers frames and writes them. A frame waits at most about
// outboxDelay, even if the program that runs meanwhile never ends.
type outbox struct {
	w    io.Writer
	kick chan struct{} // holds a token when something waits for the flusher
	done chan struct{} // closed when the flusher has ended

	mu   sync.Mutex
	buf  []byte
	last time.Time
	err  error
}

func newOutbox(w io.Writer) *outbox {
	o := &outbox{w: w, kick: make(chan struct{}, 1), done: make(chan struct{})}
	go o.flusher()
	return o
}

// add appends a frame by f; now says that it must not wait.
func (o *outbox) add(now bool, f func([]byte) []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = f(o.buf)
	if now || len(o.buf) >= outboxFull || time.Since(o.last) > outboxDelay {
		o.flushLocked()
		return o.err
	}
	select {
	case o.kick <- struct{}{}:
	default:
	}
	return o.err
}

func (o *outbox) flushLocked() {
	if len(o.buf) == 0 || o.err != nil {
		return
	}
	_, o.err = o.w.Write(o.buf)
	o.buf, o.last = o.buf[:0], time.Now()
}

func (o *outbox) flusher() {
	defer close(o.done)
	for range o.kick {
		time.Sleep(outboxDelay)
		o.mu.Lock()
		o.flushLocked()
		o.mu.Unlock()
	}
}

// close writes what waits and ends the flusher.
func (o *outbox) close() {
	close(o.kick)
	<-o.done
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
}
