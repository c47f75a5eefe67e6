package p2p

import (
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxAddresses bounds the addresses kept of one peer.
	maxAddresses = 16
	// maxAddressText bounds one address in text form.
	maxAddressText = 256
)

// ipOf returns the IP address that an address begins with.
func ipOf(a ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// usable reports whether an address that somebody told us is one to dial: an
// IP address with TCP or QUIC, and nothing else. Names would let a hint make
// this node ask DNS for anything.
func usable(a ma.Multiaddr) bool {
	ip, ok := ipOf(a)
	if !ok || ip.IsUnspecified() || ip.IsMulticast() || portOf(a) == "0" {
		return false
	}
	names := ""
	ma.ForEach(a, func(c ma.Component) bool {
		names += "/" + c.Protocol().Name
		return len(names) < maxAddressText
	})
	switch names {
	case "/ip4/tcp", "/ip6/tcp", "/ip4/udp/quic-v1", "/ip6/udp/quic-v1":
		return true
	}
	return false
}

// parseAddrs returns the usable ones among texts, at most maxAddresses.
func parseAddrs(texts []string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, t := range texts {
		if len(out) == maxAddresses {
			break
		}
		if len(t) > maxAddressText {
			continue
		}
		if a, err := ma.NewMultiaddr(t); err == nil && usable(a) {
			out = append(out, a)
		}
	}
	return out
}

func addrTexts(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// mergeAddrs returns fresh followed by what old has besides, at most
// maxAddresses.
func mergeAddrs(fresh, old []ma.Multiaddr) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, min(len(fresh)+len(old), maxAddresses))
	for _, list := range [2][]ma.Multiaddr{fresh, old} {
		for _, a := range list {
			if len(out) < maxAddresses && !containsAddr(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func containsAddr(list []ma.Multiaddr, a ma.Multiaddr) bool {
	for _, b := range list {
		if b.Equal(a) {
			return true
		}
	}
	return false
}

func equalAddrs(a, b []ma.Multiaddr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// cleanPeer returns p with its usable addresses only, nil if p names no device.
func cleanPeer(p *wire.Peer) *wire.Peer {
	id := wire.DeviceID(p.GetId())
	if _, err := id.PublicKey(); err != nil {
		return nil
	}
	return &wire.Peer{Id: string(id), Addresses: addrTexts(parseAddrs(p.GetAddresses()))}
}
