package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// lanCheck is how often the announced addresses are compared with those that
// this machine has.
const lanCheck = 5 * time.Second

// mdnsService is the service under which nodes of one swarm find each other on
// a LAN: a DNS label of at most 15 characters.
func mdnsService(swarm wire.SwarmID) string {
	return "_ost" + string(swarm[:10]) + "._udp"
}

// lanDiscovery announces this node by mDNS and takes in what it hears of
// members. The library announces the addresses of its start and reports a peer
// once, so it is started again whenever the addresses have changed.
type lanDiscovery struct {
	host    *Host
	service string
}

// run serves until the host closes. A machine without multicast is logged once;
// members are found by their remembered addresses all the same.
func (l *lanDiscovery) run() {
	var current interface{ Close() error }
	var announced []ma.Multiaddr
	warned := false
	tick := time.NewTicker(lanCheck)
	defer tick.Stop()
	for {
		if addrs := l.host.dialable(); current == nil || !equalAddrs(addrs, announced) {
			if current != nil {
				current.Close()
				current = nil
			}
			service := mdns.NewMdnsService(l.host.stack.host, l.service, l)
			if err := service.Start(); err == nil {
				current, announced = service, addrs
			} else {
				service.Close()
				if !warned {
					l.host.log.Warn("this node cannot be found by mDNS; it finds members by the addresses it knows", "error", err)
					warned = true
				}
			}
		}
		select {
		case <-l.host.ctx.Done():
			if current != nil {
				current.Close()
			}
			return
		case <-tick.C:
		}
	}
}

// HandlePeerFound takes in one answer. Anyone on the LAN can make one up, so it
// counts for devices only that belong to the swarm, and as a hint.
func (l *lanDiscovery) HandlePeerFound(info peer.AddrInfo) {
	id := deviceID(info.ID)
	if !l.host.book.isMember(id) && !l.host.registered(info.ID) {
		return
	}
	var addrs []ma.Multiaddr
	for _, a := range info.Addrs {
		if usable(a) && len(addrs) < maxAddresses {
			addrs = append(addrs, a)
		}
	}
	if l.host.book.learn(id, addrs) || !l.host.Connected(id) {
		l.host.redial.soon(id)
	}
}
