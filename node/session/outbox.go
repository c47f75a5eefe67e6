package session

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxQueued is the size at which a queue takes no further frame: it holds at
	// most that and one frame more.
	maxQueued = 1 << 20
	// writeSize is how much is written in one call, save that a frame in the
	// bulk queue is taken whole.
	writeSize = 64 << 10
	// keepSize is the largest buffer that is kept while there is nothing to write:
	// a coordinator has a thousand sessions that were sent a program once.
	keepSize = 8 << 10
)

// Queues of an outbox.
const (
	control = iota
	bulk
)

// outbox holds encoded frames that wait to be written, in two queues: what is
// in control goes before what is in bulk. Frames are encoded straight into the
// queue, and taken out many at a time.
type outbox struct {
	wake chan struct{} // capacity 1: there may be something to take

	mu     sync.Mutex
	queues [2]queue
	sealed bool // nothing is taken in any more
}

// queue is encoded frames, each with its length before it.
type queue struct {
	buf  []byte
	head int           // buf[:head] is taken
	room chan struct{} // closed when there is room again; nil if nobody waits
}

func (q *queue) size() int { return len(q.buf) - q.head }

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put encodes the frame into the queue. It blocks while the queue is full, until
// ctx or done ends. queued, if not nil, is called before anything can have been
// written. It returns errSealed after seal.
func (o *outbox) put(ctx context.Context, done <-chan struct{}, frame *wire.Frame, queued func()) error {
	which := control
	if isBulk(frame) {
		which = bulk
	}
	for {
		room, err := o.tryPut(which, frame, queued)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-done:
			return errSealed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryPut encodes the frame into the queue, or returns a channel that is closed
// when there is room.
func (o *outbox) tryPut(which int, frame *wire.Frame, queued func()) (room <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := &o.queues[which]
	if o.sealed {
		return nil, errSealed
	}
	if q.size() >= maxQueued {
		if q.room == nil {
			q.room = make(chan struct{})
		}
		return q.room, nil
	}
	return nil, o.append(q, frame, queued)
}

// force encodes a frame of the session's own into the control queue, full or
// not. There are few of those.
func (o *outbox) force(frame *wire.Frame) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return errSealed
	}
	return o.append(&o.queues[control], frame, nil)
}

// append encodes the frame. The caller holds mu.
func (o *outbox) append(q *queue, frame *wire.Frame, queued func()) error {
	if q.head > len(q.buf)/2 {
		q.buf = q.buf[:copy(q.buf, q.buf[q.head:])]
		q.head = 0
	}
	buf, err := wire.AppendMessage(q.buf, wire.MaxFrame, frame)
	if err != nil {
		return wire.Errorf(wire.Code_CODE_INVALID, "%v", err)
	}
	q.buf = buf
	if queued != nil {
		queued()
	}
	o.signal()
	return nil
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// seal ends the outbox: what is in the bulk queue is dropped, what is in the
// control queue may still be taken, with last, if not nil, behind it.
func (o *outbox) seal(last *wire.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return
	}
	if last != nil {
		o.append(&o.queues[control], last, nil) // a goodbye is far below the limit
	}
	o.sealed = true
	o.queues[bulk] = queue{room: o.queues[bulk].room}
	o.signal()
}

// take appends to buf what is to be written next: all control frames, then bulk
// frames until there is writeSize. When nothing is left for ever, more is
// false.
func (o *outbox) take(buf []byte) (taken []byte, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	buf = o.queues[control].takeAll(buf)
	for q := &o.queues[bulk]; len(buf) < writeSize && q.size() > 0; {
		buf = q.takeFrame(buf)
	}
	for i := range o.queues {
		o.queues[i].release()
	}
	return buf, len(buf) > 0 || !o.sealed
}

// takeAll moves everything to buf. An empty buf is exchanged for the queue's.
func (q *queue) takeAll(buf []byte) []byte {
	if len(buf) == 0 && q.head == 0 {
		buf, q.buf = q.buf, buf
		return buf
	}
	buf = append(buf, q.buf[q.head:]...)
	q.buf, q.head = q.buf[:0], 0
	return buf
}

// takeFrame moves the first frame to buf.
func (q *queue) takeFrame(buf []byte) []byte {
	const length = 4
	end := q.head + length + int(binary.BigEndian.Uint32(q.buf[q.head:]))
	buf = append(buf, q.buf[q.head:end]...)
	if q.head = end; q.head == len(q.buf) {
		q.buf, q.head = q.buf[:0], 0
		q.trim()
	}
	return buf
}

// release lets those go on who wait for room, if there is some.
func (q *queue) release() {
	if q.room != nil && q.size() < maxQueued {
		close(q.room)
		q.room = nil
	}
}

// trim gives large empty buffers back: a session that has become quiet costs
// little.
func (o *outbox) trim() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.queues {
		o.queues[i].trim()
	}
}

func (q *queue) trim() {
	if q.size() == 0 && cap(q.buf) > keepSize {
		q.buf, q.head = nil, 0
	}
}
