package consensus

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// streams is the stream layer that the caller gave, with each open connection
// remembered: raft's transport forgets those it has accepted, and its handlers
// would outlive it.
type streams struct {
	raft.StreamLayer
	addr address

	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func newStreams(layer raft.StreamLayer, self wire.DeviceID) *streams {
	return &streams{StreamLayer: layer, addr: address(self), open: make(map[*conn]struct{})}
}

// Addr returns this device's address, which is its ID.
func (s *streams) Addr() net.Addr { return s.addr }

func (s *streams) Accept() (net.Conn, error) {
	return s.track(s.StreamLayer.Accept())
}

func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.track(s.StreamLayer.Dial(to, timeout))
}

func (s *streams) track(raw net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, streams: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		raw.Close()
		return nil, errors.New("this node's raft streams are closed")
	}
	s.open[c] = struct{}{}
	return c, nil
}

// closeConns closes every connection, and those that come later.
func (s *streams) closeConns() {
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
}

func (c *conn) Close() error {
	c.streams.mu.Lock()
	delete(c.streams.open, c)
	c.streams.mu.Unlock()
	return c.Conn.Close()
}

// address is a device's ID as a net.Addr.
type address wire.DeviceID

func (address) Network() string  { return "ostrich" }
func (a address) String() string { return string(a) }
