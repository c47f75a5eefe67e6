package node

import (
	"net"
	"os"
	"strconv"

	"github.com/ostrich-legs/ostrich/p2p"
)

// ports are the numbers that a node listened on last. Where any free one is
// asked for it takes those again if they are: members that all restart at once
// find each other at the addresses that they remember, and the links of invites
// stay good.
type ports struct {
	P2P    uint16 `json:"p2p"`
	Public uint16 `json:"public"`
}

// ports reads ports.json. What cannot be read is not known: any ports will do.
func (f *folder) ports() (p ports) {
	b, err := os.ReadFile(f.path("ports.json"))
	if err != nil || p2p.Unseal(b, &p) != nil {
		return ports{}
	}
	return p
}

// rememberPorts writes ports.json, if it says something else.
func (f *folder) rememberPorts(p ports) error {
	if p == f.ports() {
		return nil
	}
	b, err := p2p.Seal(p)
	if err != nil {
		return err
	}
	return p2p.WriteFile(f.path("ports.json"), b)
}

// listenAgain listens on an address; where that leaves the port open, on the
// last one if it is free.
func listenAgain(address string, last uint16) (net.Listener, error) {
	if host, port, err := net.SplitHostPort(address); err == nil && port == "0" && last != 0 {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(last)))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", address)
}

// portOf returns the port of a listener.
func portOf(l net.Listener) uint16 {
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		return addr.AddrPort().Port()
	}
	return 0
}
