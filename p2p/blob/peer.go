package blob

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxPlaces bounds the pages that are on their way to one voter, and so the
	// memory that a slow one costs.
	maxPlaces = 8
	// maxStreams bounds the streams to one member for puts, and as many again
	// for gets.
	maxStreams = 4
	// dialTime and callTime bound the opening of a stream, and one put or get.
	dialTime = 5 * time.Second
	callTime = 10 * time.Second
	// idleFor is how long an unused stream stays open.
	idleFor = 30 * time.Second
	// firstPause and lastPause bound the time for which a member that did not
	// answer is not asked again; each further failure doubles it.
	firstPause = 250 * time.Millisecond
	lastPause  = 2 * time.Second
)

// peer is another member, and the streams to it.
type peer struct {
	id   wire.DeviceID
	dial func(ctx context.Context, id wire.DeviceID) (net.Conn, error)

	places chan struct{} // held by each put that is under way or waits for a stream
	puts   chan struct{} // held by each put under way
	gets   chan struct{} // held by each get under way

	mu       sync.Mutex
	idle     []idleStream
	retired  bool // streams are not kept any more
	failures int
	pausedTo time.Time
	failure  error
}

type idleStream struct {
	conn  net.Conn
	since time.Time
}

func newPeer(id wire.DeviceID, dial func(context.Context, wire.DeviceID) (net.Conn, error)) *peer {
	return &peer{
		id: id, dial: dial,
		places: make(chan struct{}, maxPlaces),
		puts:   make(chan struct{}, maxStreams),
		gets:   make(chan struct{}, maxStreams),
	}
}

// callFunc is call or insist.
type callFunc func(ctx context.Context, limit chan struct{}, do func(net.Conn) error) error

// call runs do with a stream to the peer, under one of the limits puts and
// gets. do leaves the stream at the end of a message or returns an error. It
// may run twice: a stream that was open before may be dead by now. A peer that
// did not answer a moment ago is not asked.
func (p *peer) call(ctx context.Context, limit chan struct{}, do func(net.Conn) error) error {
	return under(ctx, limit, func() error {
		if err := p.paused(); err != nil {
			return err
		}
		return p.converse(ctx, do)
	})
}

// insist is call, of a peer that may not have answered a moment ago.
func (p *peer) insist(ctx context.Context, limit chan struct{}, do func(net.Conn) error) error {
	return under(ctx, limit, func() error { return p.converse(ctx, do) })
}

// under runs f under a limit.
func under(ctx context.Context, limit chan struct{}, f func() error) error {
	select {
	case limit <- struct{}{}:
		defer func() { <-limit }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// converse runs do over a stream that is open, or over a new one.
func (p *peer) converse(ctx context.Context, do func(net.Conn) error) error {
	if conn := p.takeIdle(); conn != nil {
		if err := p.use(ctx, conn, do); err == nil || ctx.Err() != nil {
			return err
		}
		p.closeIdle()
	}
	err := p.callAnew(ctx, do)
	if ctx.Err() == nil {
		p.note(err)
	}
	return err
}

func (p *peer) callAnew(ctx context.Context, do func(net.Conn) error) error {
	dialCtx, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	conn, err := p.dial(dialCtx, p.id)
	if err != nil {
		return err
	}
	return p.use(ctx, conn, do)
}

// use runs do with the stream, which is broken off when ctx ends or the time
// is up, and kept for the next call if all went well.
func (p *peer) use(ctx context.Context, conn net.Conn, do func(net.Conn) error) error {
	err := conn.SetDeadline(time.Now().Add(callTime))
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	if err == nil {
		err = do(conn)
	}
	kept := unwatch() && err == nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if !kept || p.retired {
		conn.Close()
		return err
	}
	p.idle = append(p.idle, idleStream{conn, time.Now()})
	return nil
}

func (p *peer) takeIdle() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	last := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return last.conn
}

func (p *peer) closeIdle() { p.closeIdleSince(time.Now()) }

// closeIdleSince closes the streams that were last used at that time or before.
func (p *peer) closeIdleSince(since time.Time) {
	p.mu.Lock()
	var old, young []idleStream
	for _, s := range p.idle {
		if s.since.After(since) {
			young = append(young, s)
		} else {
			old = append(old, s)
		}
	}
	p.idle = young
	p.mu.Unlock()
	for _, s := range old {
		s.conn.Close()
	}
}

// retire closes the streams that are open, and each other at the end of its
// call.
func (p *peer) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.closeIdle()
}

// enter takes a place for a put: one that is free at once, or one that becomes
// free before ctx ends. The caller owes leave.
func (p *peer) enter(ctx context.Context) bool {
	select {
	case p.places <- struct{}{}:
		return true
	default:
	}
	select {
	case p.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *peer) leave() { <-p.places }

// unused reports whether no put or get is under way.
func (p *peer) unused() bool {
	return len(p.places) == 0 && len(p.puts) == 0 && len(p.gets) == 0
}

// note remembers how a call over a new stream ended.
func (p *peer) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = err
	if err == nil {
		p.failures = 0
		return
	}
	pause := min(firstPause<<min(p.failures, 10), lastPause)
	p.failures++
	p.pausedTo = time.Now().Add(pause)
}

// paused returns the last failure while the peer is not to be asked.
func (p *peer) paused() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil && time.Now().Before(p.pausedTo) {
		return fmt.Errorf("it did not answer a moment ago: %w", p.failure)
	}
	return nil
}

// failing reports whether the last call of the peer failed.
func (p *peer) failing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure != nil
}
