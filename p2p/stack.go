package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// stack is libp2p put together by hand: libp2p.New would link WebRTC and
// WebTransport whatever its options (7 MB of binary, see measured.md).
type stack struct {
	swarm *swarm.Swarm
	host  *basichost.BasicHost
	quic  *quicreuse.ConnManager
}

const (
	// dialTimeout bounds one address; LAN peers answer in milliseconds.
	dialTimeout = 5 * time.Second
	// keepAlive finds a silently cut TCP connection within this and yamux's
	// ten seconds for the answer.
	keepAlive = 5 * time.Second
	// streamWindow bounds the bytes in flight on a stream: 1 GB/s at a round
	// trip of 1 ms, and a bound of the memory that a slow reader costs.
	streamWindow = 1 << 20
	// tcpStagger is the head start of each TCP address over the next, and
	// quicDelay that of all of them over QUIC, which costs more CPU and memory.
	tcpStagger = 30 * time.Millisecond
	quicDelay  = 250 * time.Millisecond
)

func newStack(key ed25519.PrivateKey, gater connmgr.ConnectionGater) (*stack, error) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the device's key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("the device's key: %w", err)
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := peers.AddPrivKey(id, priv); err != nil {
		return nil, err
	}
	if err := peers.AddPubKey(id, priv.GetPublic()); err != nil {
		return nil, err
	}
	resources, err := newResourceManager()
	if err != nil {
		return nil, err
	}
	bus := eventbus.NewBus()
	s := &stack{}
	s.swarm, err = swarm.NewSwarm(id, peers, bus,
		swarm.WithConnectionGater(gater), swarm.WithResourceManager(resources),
		swarm.WithDialTimeout(dialTimeout), swarm.WithDialTimeoutLocal(dialTimeout),
		swarm.WithDialRanker(rankDials),
		swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, err
	}
	if err := s.addTransports(priv, gater, resources); err != nil {
		s.close()
		return nil, err
	}
	s.host, err = basichost.NewHost(s.swarm, &basichost.HostOpts{EventBus: bus, UserAgent: "ostrich"})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stack) addTransports(priv crypto.PrivKey, gater connmgr.ConnectionGater, resources network.ResourceManager) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: newMuxer()}}
	overNoise, err := noise.New(noise.ID, priv, muxers)
	if err != nil {
		return err
	}
	overTLS, err := libp2ptls.New(libp2ptls.ID, priv, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{overNoise, overTLS}, muxers, nil, resources, gater)
	if err != nil {
		return err
	}
	// Without SO_REUSEPORT a port that another process listens on is an error
	// instead of a silent sharing of its connections.
	overTCP, err := tcp.NewTCPTransport(up, resources, nil, tcp.DisableReuseport())
	if err != nil {
		return err
	}
	if s.quic, err = newQUIC(priv, resources); err != nil {
		return err
	}
	overQUIC, err := libp2pquic.NewTransport(priv, s.quic, nil, gater, resources)
	if err != nil {
		return err
	}
	for _, t := range []transport.Transport{overTCP, overQUIC} {
		if err := s.swarm.AddTransport(t); err != nil {
			return err
		}
	}
	return nil
}

func newMuxer() *yamux.Transport {
	config := *yamux.DefaultTransport.Config()
	config.KeepAliveInterval = keepAlive
	config.MaxStreamWindowSize = streamWindow
	return (*yamux.Transport)(&config)
}

// newQUIC makes the manager of QUIC's sockets, its incoming connections counted
// by the resource manager before their handshake.
func newQUIC(priv crypto.PrivKey, resources network.ResourceManager) (*quicreuse.ConnManager, error) {
	raw, err := priv.Raw()
	if err != nil {
		return nil, err
	}
	reset, err := hkdf.Key(sha256.New, raw, nil, "ostrich quic stateless reset 1", 32)
	if err != nil {
		return nil, err
	}
	token, err := hkdf.Key(sha256.New, raw, nil, "ostrich quic token 1", 32)
	if err != nil {
		return nil, err
	}
	return quicreuse.NewConnManager(quic.StatelessResetKey(reset), quic.TokenGeneratorKey(token),
		quicreuse.VerifySourceAddress(resources.VerifySourceAddress),
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(info.RemoteAddr, quic.Version1)
			if err != nil {
				addr = nil
			}
			scope, err := resources.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}))
}

// close ends the host, or as much of it as there is.
func (s *stack) close() {
	if s.host != nil {
		s.host.Close()
	} else {
		s.swarm.Close()
		s.swarm.Peerstore().Close()
		s.swarm.ResourceManager().Close()
	}
	if s.quic != nil {
		s.quic.Close()
	}
}

// rankDials orders the addresses of one peer: TCP one after the other, nearest
// first, then QUIC, for networks that let only UDP through.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	ordered := slices.Clone(addrs)
	slices.SortStableFunc(ordered, func(a, b ma.Multiaddr) int { return dialRank(a) - dialRank(b) })
	out := make([]network.AddrDelay, 0, len(ordered))
	var tcps, quics time.Duration
	for _, a := range ordered {
		if isTCP(a) {
			out = append(out, network.AddrDelay{Addr: a, Delay: tcps * tcpStagger})
			tcps++
			continue
		}
		delay := quics * tcpStagger
		if tcps > 0 {
			delay += quicDelay
		}
		out = append(out, network.AddrDelay{Addr: a, Delay: delay})
		quics++
	}
	return out
}

// dialRank is lower for addresses to try earlier: TCP before QUIC; private
// before public before loopback, which is this machine's own unless the peer
// shares it; IPv4 before IPv6.
func dialRank(a ma.Multiaddr) int {
	rank := 0
	if !isTCP(a) {
		rank += 8
	}
	ip, ok := ipOf(a)
	switch {
	case ok && ip.IsLoopback():
		rank += 4
	case ok && !ip.IsPrivate():
		rank += 2
	}
	if ok && ip.Is6() {
		rank++
	}
	return rank
}

func isTCP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}

// portOf returns the TCP or UDP port of an address, "" if it has none.
func portOf(a ma.Multiaddr) string {
	for _, code := range []int{ma.P_TCP, ma.P_UDP} {
		if v, err := a.ValueForProtocol(code); err == nil {
			return v
		}
	}
	return ""
}

// hostPort writes an address as people type it, with the transport's name.
func hostPort(a ma.Multiaddr) string {
	ip, ok := ipOf(a)
	if !ok {
		return a.String()
	}
	name := "QUIC"
	if isTCP(a) {
		name = "TCP"
	}
	return net.JoinHostPort(ip.String(), portOf(a)) + " (" + name + ")"
}
