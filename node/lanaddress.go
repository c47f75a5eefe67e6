package node

import (
	"net"
	"net/netip"
	"strings"
)

// reachable is an address of this machine, and what tells whether others on the
// LAN reach it there.
type reachable struct {
	address netip.Addr
	// name and pointToPoint are its interface's.
	name         string
	pointToPoint bool
	// route is set for the address from which this machine reaches the internet.
	route bool
}

// lanAddress is the address under which others on the LAN most likely reach this
// machine. --public HOST:PORT says another.
func lanAddress() string {
	route := routeAddress()
	var all []reachable
	interfaces, _ := net.Interfaces() // without the list there is loopback
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					ip = ip.Unmap()
					all = append(all, reachable{ip, i.Name, i.Flags&net.FlagPointToPoint != 0, ip == route})
				}
			}
		}
	}
	return bestAddress(all).String()
}

// routeAddress asks the system which address it would send from; it sends
// nothing. Invalid without a network.
func routeAddress() netip.Addr {
	conn, err := net.Dial("udp4", "192.0.2.1:9") // an address that is nobody's (RFC 5737)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// bestAddress chooses an address for a link that a phone opens: a LAN's rather
// than a tunnel's or a container bridge's, private IPv4 rather than other IPv4
// rather than IPv6, that of the way to the internet rather than another, and the
// first of equals. Loopback if there is none.
func bestAddress(all []reachable) netip.Addr {
	best, most := netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0
	for _, r := range all {
		if worth := r.worth(); worth > most {
			best, most = r.address, worth
		}
	}
	return best
}

// worth is how likely it is that others reach an address; 0 for never.
func (r reachable) worth() int {
	a := r.address
	if !a.IsGlobalUnicast() {
		return 0
	}
	worth := 1
	if !r.pointToPoint && !inner(r.name) {
		worth += 8
	}
	if a.Is4() {
		worth += 4
	}
	if a.IsPrivate() {
		worth += 2
	}
	if r.route {
		worth++
	}
	return worth
}

// inner reports whether an interface leads into this machine, to containers and
// virtual machines, or into a private network of software, and not to a LAN.
func inner(name string) bool {
	for _, prefix := range []string{"docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "vEthernet", "cni", "flannel", "lxc", "lxd", "podman", "utun", "tun", "tap", "wg", "zt", "tailscale"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
