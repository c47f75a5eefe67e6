package node

import (
	"net/netip"
	"testing"
)

func TestALinkNamesAnAddressThatPhonesReach(t *testing.T) {
	at := func(address, name string) reachable {
		return reachable{address: netip.MustParseAddr(address), name: name}
	}
	tunnel := at("10.8.0.2", "ppp0")
	tunnel.pointToPoint, tunnel.route = true, true
	routed := at("192.168.7.2", "wlan0")
	routed.route = true
	for _, tt := range []struct {
		what string
		all  []reachable
		want string
	}{
		{"nothing", nil, "127.0.0.1"},
		{"loopback alone", []reachable{at("127.0.0.1", "lo"), at("::1", "lo"), at("fe80::1", "eth0")}, "127.0.0.1"},
		{"containers before the LAN", []reachable{at("172.17.0.1", "docker0"), at("172.18.0.1", "br-5ad"), at("192.168.1.9", "eth0")}, "192.168.1.9"},
		{"a tunnel that takes all traffic", []reachable{tunnel, at("100.64.0.3", "tailscale0"), at("192.168.1.9", "en0")}, "192.168.1.9"},
		{"two LANs", []reachable{at("192.168.1.9", "eth0"), routed}, "192.168.7.2"},
		{"two LANs without a way out", []reachable{at("192.168.1.9", "eth0"), at("10.0.0.9", "eth1")}, "192.168.1.9"},
		{"a public and a private address", []reachable{at("203.0.113.9", "eth0"), at("10.0.0.9", "eth1")}, "10.0.0.9"},
		{"IPv6 beside IPv4", []reachable{at("fd00::9", "eth0"), at("203.0.113.9", "eth0")}, "203.0.113.9"},
		{"IPv6 alone", []reachable{at("fe80::9", "eth0"), at("fd00::9", "eth0")}, "fd00::9"},
		{"a container's bridge alone", []reachable{at("172.17.0.1", "docker0")}, "172.17.0.1"},
	} {
		if got := bestAddress(tt.all).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.what, got, tt.want)
		}
	}
}
