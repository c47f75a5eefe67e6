package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// dialTry bounds one try of a dial and its preamble.
	dialTry = time.Second
	// hungAfter is how long an answer may take on a stream when a newer one to the
	// same server works.
	hungAfter = time.Second
)

// streams is the stream layer that the caller gave, with the preamble spoken on
// each stream, and each open connection remembered: raft's transport forgets
// those it has accepted, and its handlers would outlive it.
type streams struct {
	raft.StreamLayer
	card card
	// ready is closed when the Group can take streams, or never will.
	ready   chan struct{}
	readied sync.Once

	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func newStreams(layer raft.StreamLayer, c card) *streams {
	return &streams{StreamLayer: layer, card: c, ready: make(chan struct{}), open: make(map[*conn]struct{})}
}

// start lets streams in.
func (s *streams) start() { s.readied.Do(func() { close(s.ready) }) }

// Addr returns this server's address, which is its ID.
func (s *streams) Addr() net.Addr { return address(s.card.me.id()) }

// Accept returns the next stream. Its preamble is read with the first bytes, by
// who handles it, so that Accept waits for nobody.
func (s *streams) Accept() (net.Conn, error) {
	<-s.ready
	raw, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(&conn{Conn: &acceptedConn{Conn: raw, card: s.card}, streams: s})
}

// Dial is the dialers'.
func (s *streams) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, errors.New("this transport only takes streams")
}

// dialer is the stream layer of a transport that only sends.
type dialer struct {
	*streams
	urgent bool
	once   *sync.Once
	done   chan struct{}
}

func newDialer(s *streams, urgent bool) dialer {
	return dialer{streams: s, urgent: urgent, once: new(sync.Once), done: make(chan struct{})}
}

// Accept waits for Close.
func (d dialer) Accept() (net.Conn, error) {
	<-d.done
	return nil, net.ErrClosed
}

// Close ends Accept. The streams live on.
func (d dialer) Close() error {
	d.once.Do(func() { close(d.done) })
	return nil
}

// Dial opens a stream to a server, and returns it when the server has said that
// it is the one that is meant. Where nothing is heard it tries again: the way
// that was tried may lead to a process that is gone.
func (d dialer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	deadline := time.Now().Add(timeout)
	for {
		c, err := d.try(to, min(dialTry, time.Until(deadline)))
		if err == nil || !isTimeout(err) || time.Until(deadline) <= 0 {
			return c, err
		}
	}
}

func (d dialer) try(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	deadline := time.Now().Add(timeout)
	server := serverOf(raft.ServerID(to))
	c, err := d.open(to, timeout)
	if err != nil {
		return nil, err
	}
	err = d.card.greet(c, server, deadline)
	if err == nil {
		return c, nil
	}
	c.Close()
	if !errors.Is(err, errNoPreamble) || server.Replica != "" || d.card.generation > 1 {
		return nil, fmt.Errorf("opening a raft stream to device %s: %w", server.ID.Short(), err)
	}
	// A program from before the preamble hung up: it takes streams without.
	return d.open(to, time.Until(deadline))
}

func (d dialer) open(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	raw, err := d.StreamLayer.Dial(raft.ServerAddress(serverOf(raft.ServerID(to)).ID), timeout)
	if err != nil {
		return nil, err
	}
	return d.track(&conn{Conn: raw, streams: d.streams, to: to, urgent: d.urgent, born: time.Now()})
}

func isTimeout(err error) bool {
	timeout := net.Error(nil)
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

func (s *streams) track(c *conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Conn.Close()
		return nil, errors.New("this node's raft streams are closed")
	}
	s.open[c] = struct{}{}
	return c, nil
}

// dropHung closes the streams to a server on which an answer is overdue, if an
// urgent one was opened after them: the server is there, and they lead elsewhere.
func (s *streams) dropHung(to raft.ServerAddress) {
	s.mu.Lock()
	var newest time.Time
	for c := range s.open {
		if c.to == to && c.urgent && c.born.After(newest) {
			newest = c.born
		}
	}
	var hung []*conn
	for c := range s.open {
		if c.to == to && !c.urgent && c.born.Before(newest) && c.waits() > hungAfter {
			hung = append(hung, c)
		}
	}
	s.mu.Unlock()
	for _, c := range hung {
		c.Close()
	}
}

// closeConns closes every connection, and those that come later.
func (s *streams) closeConns() {
	s.start()
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = make(map[*conn]struct{})
	s.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// conn is a connection that streams remembers while it is open.
type conn struct {
	net.Conn
	streams *streams
	// to, urgent and born are set on those that this node dialled.
	to     raft.ServerAddress
	urgent bool
	born   time.Time
	// asked is when something was last written that nothing was read after, in
	// nanoseconds since 1970; 0 when nothing is awaited.
	asked atomic.Int64
}

// Write writes, and notes that an answer is awaited.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.asked.Store(time.Now().UnixNano())
	return n, err
}

// Read reads an answer.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.asked.Store(0)
	}
	return n, err
}

// waits returns for how long an answer has been awaited.
func (c *conn) waits() time.Duration {
	asked := c.asked.Load()
	if asked == 0 {
		return 0
	}
	return time.Since(time.Unix(0, asked))
}

// Close closes the connection.
func (c *conn) Close() error {
	c.streams.mu.Lock()
	delete(c.streams.open, c)
	c.streams.mu.Unlock()
	return c.Conn.Close()
}

// address is a server's address as a net.Addr.
type address raft.ServerAddress

func (address) Network() string  { return "ostrich" }
func (a address) String() string { return string(a) }
