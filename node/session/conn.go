package session

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"google.golang.org/protobuf/proto"
)

const (
	// readSize is what a session holds to read small frames into; large ones are
	// read past it. A coordinator has a session for each of many browsers.
	readSize = 4 << 10
	// firstRead is how much of a large frame is made room for before any of it
	// has come.
	firstRead = 64 << 10
	// goodbyeLimit bounds how long Close waits for its goodbye to be taken.
	goodbyeLimit = time.Second
)

// errSealed says that the outbox takes nothing more.
var errSealed = errors.New("the session is ending")

// Handler is what a side does with what arrives.
type Handler struct {
	// Request answers a request. It runs in a goroutine of its own, at most 64
	// of them at a time; its context ends with the session. Nil means that
	// requests are not taken: one that arrives ends the session.
	Request func(context.Context, *wire.Request) *wire.Response
	// Frame takes all other frames, one after the other, in the order in which
	// they were sent within their queue (see Send). An error ends the session.
	// While it runs nothing is read, so it must not wait for the other side.
	Frame func(*wire.Frame) error
}

// Conn is a session whose handshake is done. All methods may be called from
// several goroutines.
type Conn struct {
	rw               io.ReadWriteCloser
	in               *bufio.Reader
	side             side
	remote           wire.DeviceID
	term, generation uint64
	out              *outbox
	pulse            *pulse
	calls            calls
	open             atomic.Int32 // requests of the other side without an answer

	ended   chan struct{} // closed when the session has an outcome
	written chan struct{} // closed when the writer has returned
	stalled chan struct{} // capacity 1: Post found the queue full
	closing atomic.Bool   // this side has called Close
	leaving atomic.Bool   // this side is saying goodbye
	once    sync.Once
	reason  error // the outcome; set before ended is closed
}

func newConn(rw io.ReadWriteCloser, s side, remote wire.DeviceID, challenge *wire.Challenge) *Conn {
	c := &Conn{
		rw:         rw,
		side:       s,
		remote:     remote,
		term:       challenge.GetTerm(),
		generation: challenge.GetGeneration(),
		out:        newOutbox(),
		pulse:      newPulse(),
		calls:      newCalls(),
		ended:      make(chan struct{}),
		written:    make(chan struct{}),
		stalled:    make(chan struct{}, 1),
	}
	c.in = bufio.NewReaderSize(c.pulse.reader(rw), readSize)
	go c.write()
	return c
}

// Remote returns the device at the other end, as it has proved.
func (c *Conn) Remote() wire.DeviceID { return c.remote }

// Term returns the coordinator's term, which its signature covers.
func (c *Conn) Term() uint64 { return c.term }

// Generation returns the swarm's generation as the coordinator has it.
func (c *Conn) Generation() uint64 { return c.generation }

// Ended is closed when the session has ended.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// SetBusy says whether leases are out on this session: then the other side's
// silence is noticed after 4 s, otherwise after 13 s.
func (c *Conn) SetBusy(busy bool) { c.pulse.setBusy(busy) }

// Send queues a frame; it is encoded before Send returns, and may be reused.
// Leases, and requests and responses that carry bulk data, wait behind all
// other frames; within each of the two queues order is kept. Send blocks while
// the frame's queue is full (1 MiB), until ctx ends. A frame that is too large
// gives CODE_INVALID, an ended session CODE_UNAVAILABLE. That Send succeeds
// does not mean that the frame arrives.
func (c *Conn) Send(ctx context.Context, frame *wire.Frame) error {
	return c.send(ctx, frame, nil)
}

func (c *Conn) send(ctx context.Context, frame *wire.Frame, queued func()) error {
	err := c.out.put(ctx, c.ended, frame, queued)
	if err == errSealed {
		return unavailable(c.why())
	}
	return err
}

// why returns the session's outcome, or ErrClosed while its end is under way.
func (c *Conn) why() error {
	select {
	case <-c.ended:
		return c.reason
	default:
		return ErrClosed
	}
}

// Close says goodbye, waits up to 1 s until that is on its way, and closes the
// stream. A Run under way ends. redial tells the device to dial again at once.
// It may be called more than once, and from a handler.
func (c *Conn) Close(reason string, redial bool) error {
	c.closing.Store(true)
	c.leave(ErrClosed, &wire.Goodbye{Reason: reason, Redial: redial})
	<-c.written
	return nil
}

// leave gives the other side a short time to take a goodbye, then ends the
// session with err as its outcome.
func (c *Conn) leave(err error, goodbye *wire.Goodbye) {
	c.leaving.Store(true)
	c.out.seal(&wire.Frame{Kind: &wire.Frame_Goodbye{Goodbye: goodbye}})
	timer := time.NewTimer(goodbyeLimit)
	defer timer.Stop()
	select {
	case <-c.written:
	case <-c.ended:
	case <-timer.C:
	}
	c.end(err)
}

// end sets the outcome, if there is none yet, and ends the stream.
func (c *Conn) end(err error) {
	c.once.Do(func() {
		c.reason = err
		close(c.ended)
		c.out.seal(nil)
		select {
		case <-c.written:
			c.rw.Close() // nobody writes: this end is clean
		default:
			breakLink(c.rw)
		}
	})
}

// write writes what is queued until the outbox is sealed and empty, or the
// stream fails.
func (c *Conn) write() {
	defer close(c.written)
	var buf []byte
	for {
		taken, more := c.out.take(buf[:0])
		buf = taken
		switch {
		case !more:
			return
		case len(taken) == 0:
			if cap(buf) > keepSize {
				buf = nil
			}
			<-c.out.wake
		default:
			if err := c.pulse.write(c.rw, taken); err != nil {
				c.writeFailed(err)
				return
			}
		}
	}
}

// writeFailed ends the session, once the reader has had a moment to find the
// goodbye that the other side may have sent before it closed the stream.
func (c *Conn) writeFailed(err error) {
	c.out.seal(nil)
	if c.leaving.Load() {
		return
	}
	timer := time.NewTimer(goodbyeLimit)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
		c.end(fmt.Errorf("%w: %w", ErrBroken, err))
	}
}

// Run reads until the session ends, and returns why: a *GoodbyeError, one of
// this package's errors, or ctx's. It waits for all that it started, the
// handlers of requests included. When ctx ends the stream is closed without a
// goodbye: call Close first where one is due. Run is called once at most.
func (c *Conn) Run(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.end(ctx.Err()) })
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := c.pulse.watch(c.ended, c.ping, c.out.trim); err != nil {
			c.end(err)
		}
	})
	tasks.Go(func() {
		select {
		case <-c.stalled:
			c.end(ErrStalled)
		case <-c.ended:
		}
	})
	r := runner{Conn: c, ctx: ctx, handler: h, tasks: &tasks}
	err := r.read()
	switch {
	case c.closing.Load():
		err = ErrClosed
	case !errors.Is(err, ErrBroken) && !errors.Is(err, ErrGoodbye):
		c.leave(err, &wire.Goodbye{Reason: err.Error()})
	}
	c.end(err)
	stop()
	cancel()
	c.calls.fail()
	tasks.Wait()
	<-c.written
	return c.reason
}

func (c *Conn) ping() {
	c.out.force(&wire.Frame{Kind: &wire.Frame_Ping{Ping: &wire.Ping{}}}) // an error means that the session is ending
}

// runner is a Run under way.
type runner struct {
	*Conn
	ctx     context.Context
	handler Handler
	tasks   *sync.WaitGroup
}

// read reads and handles frames until one ends the session.
func (r *runner) read() error {
	for {
		frame, err := r.next()
		if err != nil {
			return err
		}
		if err := r.handle(frame); err != nil {
			return err
		}
	}
}

// next reads a frame. A clean end of the stream is a goodbye.
func (c *Conn) next() (*wire.Frame, error) {
	head, err := c.in.Peek(4)
	if err != nil {
		if err == io.EOF && len(head) == 0 {
			return nil, &GoodbyeError{Reason: "the stream ended"}
		}
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > wire.MaxFrame {
		return nil, protocolError("a frame of %d bytes: at most %d are allowed", size, wire.MaxFrame)
	}
	c.in.Discard(4)
	body, err := c.body(int(size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if err := checkFrame(body, c.side); err != nil {
		return nil, err
	}
	frame := new(wire.Frame)
	if err := proto.Unmarshal(body, frame); err != nil {
		return nil, protocolError("a frame that is none")
	}
	if size <= readSize {
		c.in.Discard(int(size))
	}
	return frame, nil
}

// body returns the next size bytes: a view of the reader's buffer if they fit,
// otherwise memory that grows as they arrive, so that a length that is only
// claimed costs nothing.
func (c *Conn) body(size int) ([]byte, error) {
	if size <= readSize {
		return c.in.Peek(size)
	}
	var body []byte
	for len(body) < size {
		grown := make([]byte, min(size, max(firstRead, 4*len(body))))
		n := copy(grown, body)
		if _, err := io.ReadFull(c.in, grown[n:]); err != nil {
			return nil, err
		}
		body = grown
	}
	return body, nil
}

func (r *runner) handle(frame *wire.Frame) error {
	switch kind := frame.GetKind().(type) {
	case *wire.Frame_Ping:
		return r.pong()
	case *wire.Frame_Pong:
		return nil
	case *wire.Frame_Goodbye:
		return &GoodbyeError{Reason: kind.Goodbye.GetReason(), Redial: kind.Goodbye.GetRedial()}
	case *wire.Frame_Response:
		return r.calls.settle(kind.Response)
	case *wire.Frame_Request:
		return r.serve(kind.Request)
	default:
		if r.handler.Frame == nil {
			return protocolError("%s is not taken here", kindName(frame))
		}
		return r.pulse.serve(func() error { return r.handler.Frame(frame) })
	}
}

// pong answers a ping, unless so much is queued that it would say nothing new.
func (r *runner) pong() error {
	_, err := r.out.tryPut(control, &wire.Frame{Kind: &wire.Frame_Pong{Pong: &wire.Pong{}}}, nil)
	if err == errSealed {
		return nil
	}
	return err
}

// serve starts the handler of a request.
func (r *runner) serve(request *wire.Request) error {
	if r.handler.Request == nil {
		return protocolError("requests are not taken here")
	}
	if r.open.Add(1) > maxOpen {
		return protocolError("more than %d open requests", maxOpen)
	}
	r.tasks.Go(func() {
		response := r.handler.Request(r.ctx, request)
		if response == nil {
			response = &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_INTERNAL, Text: "no answer"}}
		}
		r.answer(request.GetId(), response)
	})
	return nil
}

// answer sends a response. The request stops counting as open when its response
// is queued: before the other side can know, and not before there was room.
func (r *runner) answer(id uint64, response *wire.Response) {
	done := func() { r.open.Add(-1) }
	response.Id = id
	err := r.send(r.ctx, &wire.Frame{Kind: &wire.Frame_Response{Response: response}}, done)
	if wire.CodeOf(err) != wire.Code_CODE_INVALID {
		return // sent, or the session has ended
	}
	short := &wire.Response{Id: id, Error: &wire.Error{Code: wire.Code_CODE_INTERNAL, Text: "the answer is too large for a frame"}}
	r.send(r.ctx, &wire.Frame{Kind: &wire.Frame_Response{Response: short}}, done) // an error means that the session has ended
}
