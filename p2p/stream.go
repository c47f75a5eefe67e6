package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// closeWait bounds how long Close of a fresh outgoing stream waits for the
// answer to its protocol.
const closeWait = time.Second

// streamRemoved is the code of a reset that tells a device that it was removed;
// libp2p leaves codes of this range to applications.
const streamRemoved network.StreamErrorCode = 0x6f737401

// Stream is one byte stream to a device, a net.Conn. Reads and writes may run
// side by side; its addresses are device IDs.
type Stream struct {
	raw    network.Stream
	rw     multistream.LazyConn // nil on the accepting side
	local  wire.DeviceID
	remote wire.DeviceID
}

var _ net.Conn = (*Stream)(nil)

// Remote returns the device at the other end, as its key has proven.
func (s *Stream) Remote() wire.DeviceID { return s.remote }

// Read reads from the stream. io.EOF means that the other side has closed its
// half in good order. When the other side has refused the protocol, the error
// has CODE_DENIED, CODE_REMOVED, CODE_EXHAUSTED or CODE_VERSION.
func (s *Stream) Read(p []byte) (int, error) {
	var n int
	var err error
	if s.rw != nil {
		n, err = s.rw.Read(p)
	} else {
		n, err = s.raw.Read(p)
	}
	if n > 0 && err == io.EOF {
		return n, nil // a broken link's end comes so, too, and the next read tells which
	}
	return n, s.explain(err)
}

// Write writes to the stream. The first write of an outgoing stream carries the
// protocol's name along, so opening costs no round trip.
func (s *Stream) Write(p []byte) (int, error) {
	var n int
	var err error
	if s.rw != nil {
		n, err = s.rw.Write(p)
	} else {
		n, err = s.raw.Write(p)
	}
	return n, s.explain(err)
}

// explain turns what says that the other side refused into an error that names
// it.
func (s *Stream) explain(err error) error {
	if err == nil {
		return nil
	}
	var reset *network.StreamError
	if errors.As(err, &reset) && reset.Remote {
		switch reset.ErrorCode {
		case streamRemoved:
			return wire.Errorf(wire.Code_CODE_REMOVED, "device %s says that this device was removed from the swarm", s.remote.Short())
		case network.StreamGated:
			return wire.Errorf(wire.Code_CODE_DENIED, "device %s does not let this device use %s: its role does not allow it", s.remote.Short(), s.raw.Protocol())
		case network.StreamRateLimited:
			return wire.Errorf(wire.Code_CODE_EXHAUSTED, "device %s takes no more of %s for now: wait a minute and try again", s.remote.Short(), s.raw.Protocol())
		}
	}
	var unknown multistream.ErrNotSupported[protocol.ID]
	if errors.As(err, &unknown) {
		return wire.Errorf(wire.Code_CODE_VERSION, "device %s does not know %s: it runs another version of ostrich", s.remote.Short(), s.raw.Protocol())
	}
	return err
}

// CloseWrite ends this side's half: the other side reads io.EOF.
func (s *Stream) CloseWrite() error {
	if s.rw != nil {
		if f, ok := s.rw.(interface{ Flush() error }); ok {
			f.Flush() // an error shows at the next read
		}
	}
	return s.raw.CloseWrite()
}

// Close ends both halves; written bytes are still delivered. Reads that wait
// end with an error.
func (s *Stream) Close() error {
	if s.rw == nil {
		return s.raw.Close()
	}
	// Closing an outgoing stream finishes its negotiation first, which must not
	// wait for a device that does not answer.
	s.raw.SetReadDeadline(time.Now().Add(closeWait))
	return s.rw.Close()
}

// Reset ends the stream at once; both sides see an error.
func (s *Stream) Reset() error { return s.raw.Reset() }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error { return s.raw.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.raw.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.raw.SetWriteDeadline(t) }

// LocalAddr returns this device's ID as an address.
func (s *Stream) LocalAddr() net.Addr { return deviceAddr(s.local) }

// RemoteAddr returns the other device's ID as an address.
func (s *Stream) RemoteAddr() net.Addr { return deviceAddr(s.remote) }

// deviceAddr is a device's ID as a net.Addr.
type deviceAddr wire.DeviceID

func (a deviceAddr) Network() string { return "libp2p" }
func (a deviceAddr) String() string  { return string(a) }

// Handle serves a protocol: f is called in a goroutine of its own for each
// stream that a device of role least or above opens, and owns the stream. The
// context ends when the host closes, which waits for f. Others are refused.
// Call it before the protocol is needed; a second call replaces the first.
func (h *Host) Handle(protocolName string, least wire.Role, f func(ctx context.Context, s *Stream)) {
	h.stack.host.SetStreamHandler(protocol.ID(protocolName), func(raw network.Stream) {
		remote := raw.Conn().RemotePeer()
		if h.role(remote) < least {
			h.gate.refuse(remote, raw.Conn().RemoteMultiaddr(), protocolName)
			raw.ResetWithError(h.refusalOf(remote))
			return
		}
		if !h.begin() {
			raw.ResetWithError(network.StreamShutdown)
			return
		}
		defer h.wg.Done()
		f(h.ctx, &Stream{raw: raw, local: h.id, remote: deviceID(remote)})
	})
}

// refusalOf is the code with which a device is refused a protocol.
func (h *Host) refusalOf(p peer.ID) network.StreamErrorCode {
	if h.cfg.Removed(deviceID(p)) {
		return streamRemoved
	}
	return network.StreamGated
}

// Open opens a stream to a device, connecting first if need be. Whether the
// device lets this one use the protocol shows at the first read. An error has
// CODE_UNAVAILABLE when the device cannot be reached.
func (h *Host) Open(ctx context.Context, id wire.DeviceID, protocolName string) (*Stream, error) {
	pid, err := peerID(id)
	if err != nil {
		return nil, err
	}
	if id == h.id {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a stream from device %s to itself", id.Short())
	}
	if err := h.connect(ctx, pid); err != nil {
		return nil, err
	}
	return h.openOn(ctx, pid, protocolName)
}

// openOn opens a stream over a connection that there is.
func (h *Host) openOn(ctx context.Context, pid peer.ID, protocolName string) (*Stream, error) {
	raw, err := h.stack.swarm.NewStream(network.WithNoDial(ctx, "connected before"), pid)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no stream to device %s: %v", deviceID(pid).Short(), err)
	}
	name := protocol.ID(protocolName)
	if err := raw.SetProtocol(name); err != nil {
		raw.Reset()
		return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "no stream to device %s: %v", deviceID(pid).Short(), err)
	}
	return &Stream{raw: raw, rw: multistream.NewMSSelect(raw, name), local: h.id, remote: deviceID(pid)}, nil
}

// connected closes the connections with a device that a new one of its making
// takes the place of. Who has a connection makes no other, save at the same
// moment as we do: those that are older lead to a process that is gone. Over
// QUIC nothing else tells, and streams on them would hang for many seconds.
func (h *Host) connected(n network.Network, c network.Conn) {
	if c.Stat().Direction != network.DirInbound {
		return
	}
	var dead []network.Conn
	for _, other := range n.ConnsToPeer(c.RemotePeer()) {
		if c.Stat().Opened.Sub(other.Stat().Opened) >= h.timing.replaced {
			dead = append(dead, other)
		}
	}
	if len(dead) == 0 || !h.begin() {
		return
	}
	go func() { // a notifiee must not wait for the network
		defer h.wg.Done()
		for _, other := range dead {
			other.Close()
		}
	}()
}
