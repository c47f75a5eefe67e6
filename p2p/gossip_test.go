package p2p

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// heard collects the messages of a topic.
type heard struct {
	mu   sync.Mutex
	from map[string]wire.DeviceID
}

func listen(t *testing.T, h *Host) *heard {
	t.Helper()
	l := &heard{from: make(map[string]wire.DeviceID)}
	err := h.Subscribe(TopicLog, func(from wire.DeviceID, data []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.from[string(data)] = from
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *heard) who(data string) wire.DeviceID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from[data]
}

// say publishes new messages with a common beginning until ok: a mesh takes a
// moment to form, and what is sent before is lost by right.
func say(t *testing.T, h *Host, text string, ok func(data string) bool) {
	t.Helper()
	n := 0
	eventually(t, "a message to arrive", func() bool {
		n++
		data := fmt.Sprintf("%s %d", text, n)
		if err := h.Publish(t.Context(), TopicLog, []byte(data)); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if ok(data) {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
}

func TestGossipReachesAllRegisteredDevices(t *testing.T) {
	reg := newRegistry()
	var hosts []*Host
	var ears []*heard
	for range 3 {
		hosts = append(hosts, device(t, reg, wire.Role_ROLE_MEMBER))
	}
	introduce(hosts...)
	start(t, hosts...)
	for _, h := range hosts {
		ears = append(ears, listen(t, h))
	}
	say(t, hosts[0], "news", func(data string) bool {
		return ears[1].who(data) == hosts[0].ID() && ears[2].who(data) == hosts[0].ID()
	})
	if got := ears[0].who("news 1"); got != "" {
		t.Error("a host heard itself")
	}
}

func TestGossipIsHeardFromADeviceOnceItIsRegistered(t *testing.T) {
	reg := newRegistry()
	slow := func(_ *Config, times *timing) { times.stranger, times.unknown = time.Minute, time.Minute }
	a := device(t, reg, wire.Role_ROLE_MEMBER, slow)
	b := stranger(t, a, slow)
	b.SetMembers([]wire.DeviceID{a.ID()})
	start(t, a, b)
	ear := listen(t, a)
	eventually(t, "the stranger to connect", func() bool { return a.Connected(b.ID()) })
	for i := range 10 {
		if err := b.Publish(t.Context(), TopicLog, fmt.Appendf(nil, "lies %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	reg.set(b.ID(), wire.Role_ROLE_WORKER)
	say(t, b, "truth", func(data string) bool { return ear.who(data) == b.ID() })
	if got := ear.who("lies 0"); got != "" {
		t.Error("a stranger was heard")
	}
}

func TestGossipValidatesAuthorAndSize(t *testing.T) {
	reg := newRegistry()
	h, other := device(t, reg, wire.Role_ROLE_MEMBER), testHost(t, reg)
	start(t, h)
	message := func(size int) *pubsub.Message {
		return &pubsub.Message{Message: &pb.Message{From: []byte(other.self), Data: make([]byte, size)}}
	}
	if got := h.gossip.validate(t.Context(), "", message(1)); got != pubsub.ValidationIgnore {
		t.Errorf("a stranger's message: %v, want ignored", got)
	}
	reg.set(other.ID(), wire.Role_ROLE_WORKER)
	if got := h.gossip.validate(t.Context(), "", message(wire.MaxGossip)); got != pubsub.ValidationAccept {
		t.Errorf("a registered device's message: %v, want accepted", got)
	}
	if got := h.gossip.validate(t.Context(), "", message(wire.MaxGossip+1)); got != pubsub.ValidationReject {
		t.Errorf("a message above the bound: %v, want rejected", got)
	}
}

func TestGossipOfOneAuthorIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gossip{}
		g.authors = newAuthors()
		burst := 0
		for g.allow("a") {
			burst++
		}
		if burst != gossipBurst {
			t.Errorf("%d messages at once, want %d", burst, gossipBurst)
		}
		if !g.allow("b") {
			t.Error("one author's flood silenced another")
		}
		time.Sleep(time.Second)
		later := 0
		for g.allow("a") {
			later++
		}
		if later != gossipRate {
			t.Errorf("%d messages after a second, want %d", later, gossipRate)
		}
	})
}

func TestGossipRefusesWhatItCannotSend(t *testing.T) {
	reg := newRegistry()
	h := device(t, reg, wire.Role_ROLE_MEMBER)
	if err := h.Publish(t.Context(), TopicLog, nil); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("before Start: %v", err)
	}
	start(t, h)
	if err := h.Publish(t.Context(), "nonesuch", nil); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("on an unknown topic: %v", err)
	}
	if err := h.Publish(t.Context(), TopicLog, bytes.Repeat([]byte{1}, wire.MaxGossip+1)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("above the bound: %v", err)
	}
	if err := h.Publish(t.Context(), TopicLog, bytes.Repeat([]byte{1}, wire.MaxGossip)); err != nil {
		t.Errorf("at the bound: %v", err)
	}
	if err := h.Start(t.Context(), testSwarm); err == nil {
		t.Error("a host was started twice")
	}
}
