package p2p

import (
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Bounds of the resource manager. libp2p's own are made for nodes of a public
// network: 96 inbound connections on a machine with 4 GB, and one new
// connection in five seconds from an address, where a swarm has thousands of
// devices, many behind one address.
const (
	maxConnections     = 16 << 10
	maxStreams         = 256 << 10
	maxTransient       = 512 // connections before their handshake is done
	maxPeerConnections = 16
	maxPeerStreams     = 8 << 10
	maxAddressConns    = 4 << 10 // connections of one IPv4 address or IPv6 /56
	addressConnRate    = 20      // new connections a second of one address …
	addressConnBurst   = 200     // … and at once
	// Memory counts the windows that streams may fill, most of which stay
	// empty.
	maxMemory     = 1 << 30
	maxPeerMemory = 256 << 20
)

func newResourceManager() (network.ResourceManager, error) {
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: maxConnections, ConnsInbound: maxConnections, ConnsOutbound: maxConnections, FD: maxConnections,
			Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 2 * maxTransient, ConnsInbound: maxTransient, ConnsOutbound: maxTransient, FD: 2 * maxTransient,
			Streams: maxPeerStreams, StreamsInbound: maxPeerStreams, StreamsOutbound: maxPeerStreams, Memory: maxPeerMemory,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: maxPeerConnections, ConnsInbound: maxPeerConnections, ConnsOutbound: maxPeerConnections, FD: maxPeerConnections,
			Streams: maxPeerStreams, StreamsInbound: maxPeerStreams, StreamsOutbound: maxPeerStreams, Memory: maxPeerMemory,
		},
	}
	v4 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxAddressConns}}
	v6 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: maxAddressConns}}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(rcmgr.InfiniteLimits)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(v4, v6),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("127.0.0.0/8"), ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("::1/128"), ConnCount: math.MaxInt}}),
		rcmgr.WithConnRateLimiters(newConnRates()))
}

func newConnRates() *rate.Limiter {
	limit := rate.Limit{RPS: addressConnRate, Burst: addressConnBurst}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			{Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: limit}},
			GracePeriod:      time.Minute,
		},
	}
}
