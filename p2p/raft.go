package p2p

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// raftBacklog bounds streams that wait to be accepted by the Raft transport.
const raftBacklog = 64

// RaftStreams returns the transport of the Raft group: streams of ProtocolRaft
// to and from members, addressed by device ID. The sender's role is checked
// when a stream opens and again on each read, so a removed member is cut off
// between two RPCs. One layer is active at a time: the next call, after the
// group has closed the one before, takes over.
func (h *Host) RaftStreams() raft.StreamLayer {
	l := &raftLayer{host: h, incoming: make(chan *raftStream, raftBacklog), done: make(chan struct{})}
	h.raft.mu.Lock()
	defer h.raft.mu.Unlock()
	if old := h.raft.layer; old != nil {
		old.Close()
	}
	h.raft.layer = l
	if h.ctx.Err() != nil {
		l.Close()
	}
	return l
}

// raftDoor hands incoming streams to the layer that is active.
type raftDoor struct {
	mu    sync.Mutex
	layer *raftLayer
}

// accept takes an incoming stream of a member. It returns when the stream has
// been closed, so that the host's Close waits for it.
func (d *raftDoor) accept(ctx context.Context, s *Stream) {
	d.mu.Lock()
	l := d.layer
	d.mu.Unlock()
	if l == nil {
		s.Reset()
		return
	}
	rs := &raftStream{Stream: s, host: l.host, closed: make(chan struct{})}
	select {
	case l.incoming <- rs:
	default: // nobody accepts: the sender tries again
		s.Reset()
		return
	}
	select {
	case <-rs.closed:
	case <-l.done:
		rs.Close()
	case <-ctx.Done():
		rs.Close()
	}
}

func (d *raftDoor) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.layer != nil {
		d.layer.Close()
	}
}

// raftLayer is a raft.StreamLayer.
type raftLayer struct {
	host     *Host
	incoming chan *raftStream
	once     sync.Once
	done     chan struct{}
}

// Accept waits for the next stream of a member.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case s := <-l.incoming:
		return s, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and the streams that came in: a transport that was closed
// answers no RPC any more, so the others must open new ones to the next.
func (l *raftLayer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns this device's ID.
func (l *raftLayer) Addr() net.Addr { return deviceAddr(l.host.id) }

// Dial opens a stream to the device whose ID the address is.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.host.ctx, timeout)
	defer cancel()
	return l.host.Open(ctx, wire.DeviceID(address), ProtocolRaft)
}

// raftStream is an accepted stream whose every read checks its sender's role.
type raftStream struct {
	*Stream
	host   *Host
	once   sync.Once
	closed chan struct{}
}

// Read reads from the stream. What a device sent that is no member any more is
// not handed on, even if it came before.
func (s *raftStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if s.host.cfg.Role(s.remote) < wire.Role_ROLE_MEMBER {
		s.Close()
		return 0, wire.Errorf(wire.Code_CODE_DENIED, "device %s is no member: its Raft stream is cut", s.remote.Short())
	}
	return n, err
}

// Close closes the stream.
func (s *raftStream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Stream.Close()
}
