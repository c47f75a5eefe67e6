package p2p

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestRaftStreamsCarryBytesBetweenMembersByDeviceID(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	layer := b.RaftStreams()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := layer.Accept()
		if err != nil {
			return
		}
		accepted <- c
		io.Copy(c, c)
		c.Close()
	}()
	c, err := a.RaftStreams().Dial(raft.ServerAddress(b.ID()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := roundTrip(c); err != nil {
		t.Errorf("round trip: %v", err)
	}
	if got := layer.Addr().String(); got != string(b.ID()) {
		t.Errorf("the layer's address is %s, want %s", got, b.ID())
	}
	if got := (<-accepted).RemoteAddr().String(); got != string(a.ID()) {
		t.Errorf("the accepted stream is from %s, want %s", got, a.ID())
	}
}

func TestARemovedMemberIsCutOffBetweenTwoRPCs(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	layer := b.RaftStreams()
	ended := make(chan error, 1)
	go func() {
		c, err := layer.Accept()
		if err != nil {
			ended <- err
			return
		}
		_, err = io.Copy(c, c)
		ended <- err
	}()
	c, err := a.RaftStreams().Dial(raft.ServerAddress(b.ID()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	reg.set(a.ID(), wire.Role_ROLE_WORKER)
	if err := roundTrip(c); err == nil {
		t.Error("a removed member's RPC was answered")
	}
	if err := <-ended; wire.CodeOf(err) != wire.Code_CODE_DENIED {
		t.Errorf("the stream ended with %v, want CODE_DENIED", err)
	}
}

func TestARaftLayerEndsAndTheNextTakesOver(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	first := b.RaftStreams()
	accepted := make(chan error, 1)
	go func() {
		_, err := first.Accept()
		accepted <- err
	}()
	for range 2 {
		if err := first.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed layer: %v", err)
	}
	stale, err := a.RaftStreams().Dial(raft.ServerAddress(b.ID()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer stale.Close()
	if err := roundTrip(stale); err == nil {
		t.Error("a closed layer took a stream")
	}
	second := b.RaftStreams()
	go func() {
		if c, err := second.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := a.RaftStreams().Dial(raft.ServerAddress(b.ID()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := roundTrip(c); err != nil {
		t.Errorf("over the second layer: %v", err)
	}
}

func TestARaftGroupElectsOverTheseStreams(t *testing.T) {
	reg := newRegistry()
	var hosts []*Host
	var config raft.Configuration
	for range 3 {
		h := device(t, reg, wire.Role_ROLE_MEMBER)
		hosts = append(hosts, h)
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(h.ID()), Address: raft.ServerAddress(h.ID())})
	}
	introduce(hosts...)
	start(t, hosts...)
	var nodes []*raft.Raft
	for _, h := range hosts {
		transport := raft.NewNetworkTransport(h.RaftStreams(), 3, time.Second, io.Discard)
		defer transport.Close()
		store := raft.NewInmemStore()
		c := raft.DefaultConfig()
		c.LocalID, c.LogOutput = raft.ServerID(h.ID()), io.Discard
		r, err := raft.NewRaft(c, &raft.MockFSM{}, store, store, raft.NewInmemSnapshotStore(), transport)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { r.Shutdown().Error() }()
		if err := r.BootstrapCluster(config).Error(); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
	}
	applied := func() bool {
		for _, n := range nodes {
			if n.State() == raft.Leader && n.Apply([]byte("x"), time.Second).Error() == nil {
				return true
			}
		}
		return false
	}
	eventually(t, "a leader to commit an entry", applied)
}
