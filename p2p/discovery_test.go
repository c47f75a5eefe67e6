package p2p

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMembersConnectByThemselvesOnceStarted(t *testing.T) {
	reg := newRegistry()
	var hosts []*Host
	for range 3 {
		hosts = append(hosts, device(t, reg, wire.Role_ROLE_MEMBER))
	}
	introduce(hosts...)
	start(t, hosts...)
	for _, h := range hosts {
		eventually(t, "all members to be connected", func() bool {
			s := h.Status()
			return s.MembersConnected == 2 && s.Members == 2
		})
	}
	hosts[0].Kick(hosts[1].ID())
	eventually(t, "a member to be dialled again", func() bool { return hosts[0].Connected(hosts[1].ID()) })
}

// restart closes a host and makes another with its key and peers file.
func restart(t *testing.T, reg *registry, h *Host, listen string) *Host {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again := testHost(t, reg, func(c *Config, _ *timing) {
		c.Key, c.PeersFile, c.Listen = h.cfg.Key, h.cfg.PeersFile, listen
	})
	start(t, again)
	return again
}

func TestAMemberThatComesBackElsewhereIsFoundAgain(t *testing.T) {
	reg := newRegistry()
	a := device(t, reg, wire.Role_ROLE_MEMBER)
	b := device(t, reg, wire.Role_ROLE_MEMBER, func(c *Config, _ *timing) { c.PeersFile = inFolder(t, "peers.json") })
	introduce(a, b)
	start(t, a, b)
	eventually(t, "the members to connect", func() bool { return a.Connected(b.ID()) && b.Connected(a.ID()) })
	old := listenText(b)
	b = restart(t, reg, b, "127.0.0.1:0")
	eventually(t, "it to dial from its peers file", func() bool { return a.Connected(b.ID()) && b.Connected(a.ID()) })
	if listenText(b) == old {
		t.Skip("the system gave the same port again")
	}
	eventually(t, "its new address to be learnt", func() bool {
		return hasPort(a.Peers([]wire.DeviceID{b.ID()}), portText(b))
	})
	echo(b, wire.Role_ROLE_MEMBER)
	b.Kick(a.ID())
	eventually(t, "a stream to its new address", func() bool {
		s, err := a.Open(t.Context(), b.ID(), testProtocol)
		if err != nil {
			return false
		}
		defer s.Close()
		return roundTrip(s) == nil
	})
}

func TestWhereADeviceListensIsLearntThoughItConnectedBeforeItWasKnown(t *testing.T) {
	for what, known := range map[string]func(here *registry, h *Host, id wire.DeviceID){
		"a member": func(_ *registry, h *Host, id wire.DeviceID) { h.SetMembers([]wire.DeviceID{id}) },
		"a worker": func(here *registry, _ *Host, id wire.DeviceID) { here.set(id, wire.Role_ROLE_WORKER) },
	} {
		t.Run(what, func(t *testing.T) {
			here, there := newRegistry(), newRegistry()
			patient := func(_ *Config, times *timing) { times.stranger = time.Minute }
			a, b := device(t, here, wire.Role_ROLE_MEMBER, patient), device(t, there, wire.Role_ROLE_MEMBER)
			there.set(a.ID(), wire.Role_ROLE_MEMBER)
			identifiedAs := watchIdentifications(t, a)
			b.Learn(a.Peers([]wire.DeviceID{a.ID()}))
			b.SetMembers([]wire.DeviceID{a.ID()})
			start(t, a, b)
			identifiedAs(b)
			if got := a.Peers([]wire.DeviceID{b.ID()}); len(got) != 0 {
				t.Fatalf("it has learnt %v of a stranger", got)
			}
			known(here, a, b.ID())
			eventually(t, "its address to be learnt", func() bool { return hasPort(a.Peers([]wire.DeviceID{b.ID()}), portText(b)) })
		})
	}
}

// watchIdentifications returns a function that waits until a host has taken note
// of who another one is.
func watchIdentifications(t *testing.T, h *Host) func(other *Host) {
	bus := h.stack.host.EventBus()
	seen, err := bus.Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { seen.Close() })
	return func(other *Host) {
		for e := range seen.Out() {
			if e.(event.EvtPeerIdentificationCompleted).Peer == other.self {
				break
			}
		}
		// The host is told of one after the other: once it has taken note of
		// this one, it has of the other.
		marker := device(t, newRegistry(), wire.Role_ROLE_MEMBER)
		h.SetMembers(append(h.Members(), marker.ID()))
		marker.Learn(h.Peers([]wire.DeviceID{h.ID()}))
		marker.SetMembers([]wire.DeviceID{h.ID()})
		start(t, marker)
		eventually(t, "the next one to be identified", func() bool { return len(h.Peers([]wire.DeviceID{marker.ID()})) > 0 })
	}
}

func portText(h *Host) string {
	_, port, _ := net.SplitHostPort(listenText(h))
	return port
}

func hasPort(peers []*wire.Peer, port string) bool {
	for _, p := range peers {
		for _, a := range p.GetAddresses() {
			if strings.Contains(a, "/"+port) {
				return true
			}
		}
	}
	return false
}

func TestAMemberThatWasAwayIsDialledAtItsOldAddress(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	start(t, a)
	eventually(t, "the members to connect", func() bool { return a.Connected(b.ID()) })
	listen := listenText(b)
	b.Close()
	eventually(t, "its loss to be noticed", func() bool { return !a.Connected(b.ID()) })
	// It remembers nobody, so that only the redial loop can bring it back.
	again := testHost(t, reg, func(c *Config, _ *timing) { c.Key, c.Listen = b.cfg.Key, listen })
	eventually(t, "it to be dialled", func() bool { return again.Connected(a.ID()) })
}

func TestThePeersFileKeepsMembersAndAddresses(t *testing.T) {
	reg := newRegistry()
	path := inFolder(t, "peers.json")
	a := device(t, reg, wire.Role_ROLE_MEMBER, func(c *Config, _ *timing) { c.PeersFile = path })
	b, hint := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_WORKER)
	a.SetMembers([]wire.DeviceID{a.ID(), b.ID(), b.ID(), "junk"})
	a.Learn([]*wire.Peer{
		{Id: string(b.ID()), Addresses: []string{"/ip4/192.0.2.1/tcp/1", "/dns4/example.com/tcp/1", "junk", "/ip4/0.0.0.0/tcp/1"}},
		{Id: string(b.ID()), Addresses: []string{"/ip4/192.0.2.2/udp/1/quic-v1"}},
		{Id: string(hint.ID()), Addresses: []string{"/ip4/192.0.2.3/tcp/1"}},
	})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openBook(path, a.ID(), a.log)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.memberList(); !slices.Equal(got, []wire.DeviceID{b.ID()}) {
		t.Errorf("members %v, want %v", got, b.ID())
	}
	want := []string{"/ip4/192.0.2.2/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/1"}
	if got := addrTexts(again.addresses(b.ID())); !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if got := again.addresses(hint.ID()); len(got) != 0 {
		t.Errorf("the hint of a worker was kept: %v", got)
	}
}

func TestThePeersFileIsWrittenWithoutClosing(t *testing.T) {
	path := inFolder(t, "peers.json")
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER, func(c *Config, _ *timing) { c.PeersFile = path }), device(t, reg, wire.Role_ROLE_MEMBER)
	a.SetMembers([]wire.DeviceID{b.ID()})
	eventually(t, "the file to name the member", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(data), string(b.ID()))
	})
}

func TestADamagedPeersFileIsSetAside(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":2,"members":[]}`, `{"version":1,"members":[{"id":"x"}]}`} {
		path := inFolder(t, "peers.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		h := testHost(t, newRegistry(), func(c *Config, _ *timing) { c.PeersFile = path })
		if got := h.Members(); len(got) != 0 {
			t.Errorf("%q gave members %v", content, got)
		}
		if got, _ := os.ReadFile(path + ".damaged"); string(got) != content {
			t.Errorf("%q was not set aside", content)
		}
	}
}

func TestAddressesOfADeviceAreBoundedNewestFirst(t *testing.T) {
	b, err := openBook("", "self", nil)
	if err != nil {
		t.Fatal(err)
	}
	id := wire.DeviceID("x")
	for port := 1; port <= 3*maxAddresses; port++ {
		b.learn(id, []ma.Multiaddr{listenAddrs(netipLoopback, uint16(port))[0]})
	}
	got := b.addresses(id)
	if len(got) != maxAddresses || portOf(got[0]) != "48" {
		t.Errorf("%d addresses, the first %v", len(got), got[0])
	}
	for i := range 3 * maxHints {
		b.learn(wire.DeviceID(string(rune(i+100))), []ma.Multiaddr{listenAddrs(netipLoopback, 1)[0]})
	}
	if len(b.addrs) > maxHints {
		t.Errorf("addresses of %d devices are kept", len(b.addrs))
	}
}

func TestRedialBacksOffUpToItsBoundAndForgetsAtNews(t *testing.T) {
	r := newRedial()
	id := wire.DeviceID("x")
	now := time.Now()
	for range 10 {
		if ok, _ := r.start(id, now, time.Second); !ok {
			t.Fatal("not started when due")
		}
		if ok, _ := r.start(id, now, time.Second); ok {
			t.Fatal("started twice")
		}
		r.finish(id, false, 4*time.Second)
		now = now.Add(time.Hour)
	}
	ok, wait := r.start(id, time.Now(), time.Second)
	if ok || wait < time.Second || wait > 6*time.Second {
		t.Errorf("after many failures: start %v, wait %v; want about 4 s", ok, wait)
	}
	r.soon(id)
	if ok, _ := r.start(id, time.Now(), time.Second); !ok {
		t.Error("news did not end the wait")
	}
	r.finish(id, true, time.Second)
	if len(r.tries) != 0 || len(r.busy) != 0 {
		t.Error("a success left state behind")
	}
}

func TestMDNSHintsCountForKnownDevicesOnly(t *testing.T) {
	reg := newRegistry()
	a, member, other := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER), testHost(t, reg)
	a.SetMembers([]wire.DeviceID{member.ID()})
	start(t, a)
	lan := &lanDiscovery{host: a}
	for _, h := range []*Host{member, other} {
		pid, _ := peerID(h.ID())
		lan.HandlePeerFound(peer.AddrInfo{ID: pid, Addrs: append(h.dialable(), ma.StringCast("/dns4/example.com/tcp/1"))})
	}
	eventually(t, "the member to be dialled", func() bool { return a.Connected(member.ID()) })
	if got := a.Peers([]wire.DeviceID{other.ID()}); len(got) != 0 {
		t.Errorf("addresses of a stranger were kept: %v", got)
	}
	for _, p := range a.Peers([]wire.DeviceID{member.ID()}) {
		if strings.Contains(strings.Join(p.Addresses, " "), "dns4") {
			t.Errorf("a name was kept as address: %v", p.Addresses)
		}
	}
}

func TestMembersFindEachOtherByMDNS(t *testing.T) {
	if !hasMulticast() {
		t.Skip("this machine has no interface with multicast")
	}
	reg := newRegistry()
	with := func(c *Config, _ *timing) { c.MDNS, c.Listen = true, ":0" }
	a, b := device(t, reg, wire.Role_ROLE_MEMBER, with), device(t, reg, wire.Role_ROLE_MEMBER, with)
	a.SetMembers([]wire.DeviceID{b.ID()})
	start(t, a, b)
	eventually(t, "the members to find each other", func() bool { return a.Connected(b.ID()) })
}

func hasMulticast() bool {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return true
		}
	}
	return false
}

func TestDialsPreferTCPAndNearAddresses(t *testing.T) {
	in := []string{"/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/1", "/ip4/192.168.1.2/tcp/1"}
	want := []string{"/ip4/192.168.1.2/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/udp/1/quic-v1"}
	var got []string
	for _, d := range rankDials(parseAddrs(in)) {
		got = append(got, d.Addr.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	for _, d := range rankDials(parseAddrs(in[1:2])) {
		if d.Delay != 0 {
			t.Errorf("QUIC alone waits %v", d.Delay)
		}
	}
}

func FuzzPeersFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"members":[{"id":"12D3KooWCMg3sqr7ECddGNgsKnvUyAf1NXYbKEu3yH9oh3KpP1h7","addresses":["/ip4/192.0.2.1/tcp/1"]}]}`))
	f.Add([]byte(`{"version":1,"members":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		peers, err := decodePeers(data)
		if err != nil {
			return
		}
		again, err := encodePeers(peers)
		if err != nil {
			t.Fatal(err)
		}
		second, err := decodePeers(again)
		if err != nil || len(second) != len(peers) {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
	})
}

// A process that was killed says nothing: over QUIC its connections seem to live
// on, and streams on them hang.
func TestANewConnectionTakesThePlaceOfThoseOfADeadProcess(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	start(t, a) // b only answers: it stands for a process that is gone
	eventually(t, "the members to connect", func() bool { return a.Connected(b.ID()) })
	time.Sleep(a.timing.replaced) // connections of one moment are kept: both sides may have dialled
	again := testHost(t, reg, func(c *Config, _ *timing) { c.Key = b.cfg.Key })
	introduce(again, a)
	start(t, again)
	eventually(t, "the connection of the process before to end", func() bool {
		return again.Connected(a.ID()) && len(a.stack.swarm.ConnsToPeer(b.self)) == 1 && !b.Connected(a.ID())
	})
}
