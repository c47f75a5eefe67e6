package p2p

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// stranger makes a host that knows target, which does not know it.
func stranger(t *testing.T, target *Host, options ...hostOption) *Host {
	t.Helper()
	own := newRegistry()
	own.set(target.ID(), wire.Role_ROLE_MEMBER)
	s := testHost(t, own, options...)
	s.Learn(target.Peers([]wire.DeviceID{target.ID()}))
	return s
}

func TestAStrangerReachesNothingButJoin(t *testing.T) {
	reg := newRegistry()
	member := device(t, reg, wire.Role_ROLE_MEMBER)
	start(t, member)
	echo(member, wire.Role_ROLE_WORKER)
	layer := member.RaftStreams()
	defer layer.Close()
	member.ServeJoin(testSwarm, func(context.Context, *wire.JoinRequest) (*wire.AdmitResponse, error) {
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "no such invite")
	})
	s := stranger(t, member)
	open := map[string]bool{ProtocolJoin: true, "/ipfs/id/1.0.0": true, "/ipfs/id/push/1.0.0": true}
	for _, name := range member.stack.host.Mux().Protocols() {
		stream, err := s.Open(t.Context(), member.ID(), string(name))
		if err != nil {
			t.Fatal(err)
		}
		stream.SetDeadline(time.Now().Add(5 * time.Second))
		stream.Write([]byte{0, 0, 0, 0})
		_, err = stream.Read(make([]byte, 1))
		if denied := wire.CodeOf(err) == wire.Code_CODE_DENIED; denied == open[string(name)] {
			t.Errorf("a stranger at %s: %v", name, err)
		}
		delete(open, string(name))
		stream.Reset()
	}
	if len(open) != 0 {
		t.Errorf("not served: %v", open)
	}
	if got := member.Status().Refused; got < 3 {
		t.Errorf("%d refusals were counted", got)
	}
}

func TestAStrangerIsCutOffUnlessItBecomesKnown(t *testing.T) {
	reg := newRegistry()
	member := device(t, reg, wire.Role_ROLE_MEMBER)
	s, known := stranger(t, member), stranger(t, member)
	for _, h := range []*Host{s, known} {
		pid, _ := peerID(member.ID())
		if err := h.connect(t.Context(), pid); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both connections", func() bool { return member.Connected(s.ID()) && member.Connected(known.ID()) })
	if got := member.Status(); got.Strangers != 2 || got.Connections != 2 {
		t.Errorf("status %+v, want 2 strangers", got)
	}
	reg.set(known.ID(), wire.Role_ROLE_WORKER)
	eventually(t, "the stranger to be cut off", func() bool { return !member.Connected(s.ID()) })
	if !member.Connected(known.ID()) {
		t.Error("the device that became known was cut off")
	}
	reg.set(known.ID(), wire.Role_ROLE_UNSPECIFIED)
	eventually(t, "the removed device to be cut off", func() bool { return !member.Connected(known.ID()) })
}

func TestARemovedDeviceIsToldSo(t *testing.T) {
	var removed atomic.Value
	reg := newRegistry()
	member := device(t, reg, wire.Role_ROLE_MEMBER, func(c *Config, _ *timing) {
		c.Removed = func(id wire.DeviceID) bool { return id == removed.Load() }
	})
	echo(member, wire.Role_ROLE_WORKER)
	s := stranger(t, member)
	for _, c := range []struct {
		removed wire.DeviceID
		want    wire.Code
	}{{"", wire.Code_CODE_DENIED}, {s.ID(), wire.Code_CODE_REMOVED}} {
		removed.Store(c.removed)
		stream, err := s.Open(t.Context(), member.ID(), testProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(stream); wire.CodeOf(err) != c.want {
			t.Errorf("removed %q: %v, want %v", c.removed, err, c.want)
		}
		stream.Reset()
	}
}

func TestConnectionsOfStrangersAreBounded(t *testing.T) {
	g := newGate(&Host{cfg: Config{}, timing: fast()})
	one := ma.StringCast("/ip4/192.0.2.1/tcp/1")
	for i := range maxStrangersPerAddress {
		if !g.countStranger(one) {
			t.Fatalf("connection %d of one address was refused", i)
		}
	}
	if g.countStranger(one) {
		t.Error("one address has more connections than allowed")
	}
	accepted := maxStrangersPerAddress
	for i := range 250 {
		if g.countStranger(ma.StringCast("/ip4/198.51.100." + string(rune('0'+i%10)) + "/tcp/1")) {
			accepted++
		}
	}
	if accepted != maxStrangers {
		t.Errorf("%d strangers were accepted, want %d", accepted, maxStrangers)
	}
}

func TestAddressesAreLimitedInGroupsThatOneMachineOwns(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"/ip4/192.0.2.7/tcp/1", "192.0.2.7/32"},
		{"/ip6/2001:db8:1:2:3:4:5:6/udp/1/quic-v1", "2001:db8:1:2::/64"},
		{"/ip6/::ffff:192.0.2.7/tcp/1", "192.0.2.7/32"},
	} {
		if got := addressGroup(ma.StringCast(c.addr)).String(); got != c.want {
			t.Errorf("addressGroup(%s) = %s, want %s", c.addr, got, c.want)
		}
	}
}

func TestADeviceThatIsNotKnownIsNotDialled(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), testHost(t, reg)
	a.Learn(b.Peers([]wire.DeviceID{b.ID()}))
	if _, err := a.Open(t.Context(), b.ID(), testProtocol); err == nil {
		t.Error("a stranger was dialled")
	}
}

func TestGossipStreamsAreOpenedWithRegisteredDevicesOnly(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), testHost(t, reg)
	pid, _ := peerID(b.ID())
	host := &gossipHost{Host: a.stack.host, gate: a}
	if _, err := host.NewStream(t.Context(), pid, protocol.ID(pubsub.GossipSubID_v12)); err != errNotRegistered {
		t.Errorf("a gossip stream to a stranger: %v", err)
	}
}

func TestKickEndsConnections(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	echo(b, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	s, err := a.Open(t.Context(), b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := roundTrip(s); err != nil {
		t.Fatal(err)
	}
	b.Kick(a.ID())
	if err := roundTrip(s); err == nil {
		t.Error("a stream outlived the kick of its device")
	}
	eventually(t, "the connection's end", func() bool { return !a.Connected(b.ID()) })
}
