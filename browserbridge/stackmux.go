package browserbridge

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/logging"
)

const (
	// udpBuffer is what the system holds of datagrams until they are read: a
	// burst of a thousand browsers.
	udpBuffer = 2 << 20
	// maxSockets bounds the local addresses that are listened on.
	maxSockets = 16
	// tcpOffset is what the TCP fallback's port is above the public listener's:
	// that one's number is taken, and the next is the control listener's.
	tcpOffset = 2
	// tcpSilence is how long a TCP connection may say nothing at its start.
	tcpSilence = 5 * time.Second
	tcpBuffer  = 256 << 10
	// maxTCP bounds the TCP connections, and maxTCPAddress those of an address.
	maxTCP        = 1200
	maxTCPAddress = 256
)

// openUDP returns the mux of one peer over the node's sockets of some addresses,
// which it opens where they are not. The stack's lock is held.
func (s *stack) openUDP(addresses []netip.Addr, t *traffic) (*peerUDP, error) {
	p := &peerUDP{traffic: t}
	var failed error
	for _, a := range addresses {
		mux, err := s.socket(a)
		if err != nil {
			failed = err
			continue
		}
		p.muxes = append(p.muxes, mux)
	}
	if len(p.muxes) == 0 {
		return nil, fmt.Errorf("no UDP port for browsers: %w", failed)
	}
	return p, nil
}

// socket returns the mux of the socket at an address. The public listener's
// number is taken if it is free.
func (s *stack) socket(a netip.Addr) (*ice.UDPMuxDefault, error) {
	if mux := s.udp[a]; mux != nil && !mux.IsClosed() {
		return mux, nil
	}
	if len(s.udp) >= maxSockets {
		return nil, fmt.Errorf("%d addresses of this machine are in use for browsers already", maxSockets)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, s.cfg.address.Port())))
	if err != nil {
		if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))); err != nil {
			return nil, err
		}
		s.cfg.warn(fmt.Sprintf("UDP port %d of %s is taken: browsers use %s instead, which a firewall may not let through", s.cfg.address.Port(), a, conn.LocalAddr()))
	}
	_ = conn.SetReadBuffer(udpBuffer) // the system may give less
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: silence{}, UDPConn: filteredConn{conn}})
	s.udp[a] = mux
	return mux, nil
}

// openTCP opens the fallback for networks that let no UDP through. Without it
// browsers have UDP only. The stack's lock is held.
func (s *stack) openTCP() {
	if s.tcpTried {
		return
	}
	s.tcpTried = true
	address := s.cfg.address
	port := uint16(0)
	if address.Port() <= math.MaxUint16-tcpOffset {
		port = address.Port() + tcpOffset
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address.Addr(), port)))
	if err != nil {
		if listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address.Addr(), 0))); err != nil {
			s.cfg.warn(fmt.Sprintf("no TCP port for browsers that cannot use UDP: %v", err))
			return
		}
	}
	s.tcp = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: &filteredListener{Listener: listener, open: make(map[netip.Prefix]int)},
		Logger:   silence{}, ReadBufferSize: 8, WriteBufferSize: tcpBuffer,
		FirstStunBindTimeout: tcpSilence, AliveDurationForConnFromStun: tcpSilence,
	})
}

// peerUDP is the sockets as one peer uses them.
type peerUDP struct {
	muxes   []*ice.UDPMuxDefault
	traffic *traffic
}

// GetConn implements ice.UDPMux.
func (p *peerUDP) GetConn(ufrag string, address net.Addr) (net.PacketConn, error) {
	for _, mux := range p.muxes {
		if mux.LocalAddr().String() == address.String() {
			conn, err := mux.GetConn(ufrag, address)
			if err != nil {
				return nil, err
			}
			return countedConn{conn, p.traffic}, nil
		}
	}
	return nil, fmt.Errorf("no socket at %s", address)
}

// RemoveConnByUfrag implements ice.UDPMux.
func (p *peerUDP) RemoveConnByUfrag(ufrag string) {
	for _, mux := range p.muxes {
		mux.RemoveConnByUfrag(ufrag)
	}
}

// GetListenAddresses implements ice.UDPMux.
func (p *peerUDP) GetListenAddresses() (all []net.Addr) {
	for _, mux := range p.muxes {
		all = append(all, mux.LocalAddr())
	}
	return all
}

// Close implements ice.UDPMux: the sockets are the stack's.
func (p *peerUDP) Close() error { return nil }

// peerTCP is the TCP fallback as one peer uses it.
type peerTCP struct {
	*ice.TCPMuxDefault
	traffic *traffic
}

// GetConnByUfrag implements ice.TCPMux.
func (p peerTCP) GetConnByUfrag(ufrag string, v6 bool, local net.IP) (net.PacketConn, error) {
	conn, err := p.TCPMuxDefault.GetConnByUfrag(ufrag, v6, local)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, p.traffic}, nil
}

// Close implements ice.TCPMux: the listener is the stack's.
func (p peerTCP) Close() error { return nil }

// countedConn counts what is sent to a peer.
type countedConn struct {
	net.PacketConn
	traffic *traffic
}

func (c countedConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.traffic.sent(b)
	return c.PacketConn.WriteTo(b, to)
}

// filteredConn is a socket that reads nothing but what the stack may see.
type filteredConn struct{ *net.UDPConn }

func (c filteredConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.UDPConn.ReadFrom(b)
		if err != nil || wellFormed(b[:n]) {
			return n, from, err
		}
	}
}

// filteredListener accepts so many connections at a time, and from each only
// what the stack may see.
type filteredListener struct {
	net.Listener

	mu    sync.Mutex
	total int
	open  map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *filteredListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := group(conn.RemoteAddr().String())
		if l.take(from) {
			return &filteredStream{Conn: conn, release: sync.OnceFunc(func() { l.give(from) })}, nil
		}
		conn.Close()
	}
}

func (l *filteredListener) take(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxTCP || l.open[from] >= maxTCPAddress {
		return false
	}
	l.total++
	l.open[from]++
	return true
}

func (l *filteredListener) give(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

// filteredStream is a TCP connection that carries datagrams, each after its
// length (RFC 4571). One that the stack may not see ends the connection.
type filteredStream struct {
	net.Conn
	release func()
	left    []byte // of the datagram that is being read
}

func (s *filteredStream) Read(b []byte) (int, error) {
	if len(s.left) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.left)
	s.left = s.left[n:]
	return n, nil
}

func (s *filteredStream) fill() error {
	var head [2]byte
	if _, err := io.ReadFull(s.Conn, head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size > maxDatagram {
		return fmt.Errorf("a datagram of %d bytes: at most %d are allowed", size, maxDatagram)
	}
	datagram := make([]byte, 2+size)
	copy(datagram, head[:])
	if _, err := io.ReadFull(s.Conn, datagram[2:]); err != nil {
		return err
	}
	if !wellFormed(datagram[2:]) {
		return fmt.Errorf("a datagram that is neither an ICE check nor a DTLS record")
	}
	s.left = datagram
	return nil
}

// Close implements net.Conn.
func (s *filteredStream) Close() error {
	s.release()
	return s.Conn.Close()
}

// silence is the stack's log: what matters it tells by its states, and what
// strangers can make it write nobody should read.
type silence struct{}

// NewLogger implements logging.LoggerFactory.
func (silence) NewLogger(string) logging.LeveledLogger { return silence{} }

// The rest implements logging.LeveledLogger.

func (silence) Trace(string)          {}
func (silence) Tracef(string, ...any) {}
func (silence) Debug(string)          {}
func (silence) Debugf(string, ...any) {}
func (silence) Info(string)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Warn(string)           {}
func (silence) Warnf(string, ...any)  {}
func (silence) Error(string)          {}
func (silence) Errorf(string, ...any) {}
