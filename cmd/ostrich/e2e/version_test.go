package e2e

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// stranger is a device of our own making: a host without a node.
type stranger struct {
	host  *p2p.Host
	key   ed25519.PrivateKey
	swarm wire.SwarmID
	peer  wire.DeviceID
}

// joinAs joins a swarm with a text of an invite and no node behind it.
func joinAs(t *testing.T, text string) *stranger {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	invite, err := p2p.ParseInvite(text)
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{key: key, swarm: invite.Swarm, peer: wire.DeviceID(invite.Peers[0].GetId())}
	s.host, err = p2p.New(p2p.Config{Key: key, Listen: "127.0.0.1:0", Role: func(id wire.DeviceID) wire.Role {
		if id == s.peer {
			return wire.Role_ROLE_MEMBER
		}
		return wire.Role_ROLE_UNSPECIFIED
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.host.Close() })
	if err := s.host.Start(t.Context(), invite.Swarm); err != nil {
		t.Fatal(err)
	}
	_, err = s.host.JoinAny(t.Context(), invite.Peers, func(nonce []byte) (*wire.JoinRequest, error) {
		return p2p.SignJoin(&wire.JoinRequest{
			SwarmId: invite.Swarm.Bytes(), Nonce: nonce,
			Profile: &wire.DeviceProfile{
				Name: "stranger", Type: wire.DeviceType_DEVICE_TYPE_DESKTOP,
				Capabilities: &wire.Capabilities{CpuCores: 1, MemoryGb: 1, Runtime: "wazero"},
			},
		}, invite.Key(), key)
	})
	if err != nil {
		t.Fatalf("joining: %v", err)
	}
	return s
}

// greet opens a session with a hello and returns the first frame that answers.
func (s *stranger) greet(t *testing.T, hello *wire.Hello) *wire.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := s.host.Open(ctx, s.peer, p2p.ProtocolSession)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(patience))
	if err := wire.WriteMessage(stream, wire.MaxFrame, &wire.Frame{Kind: &wire.Frame_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	answer := &wire.Frame{}
	if err := wire.ReadMessage(stream, wire.MaxFrame, answer); err != nil {
		t.Fatalf("no answer to the hello: %v", err)
	}
	return answer
}

func TestAPeerOfANewerVersionIsRefusedInWords(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	s := joinAs(t, n.invite("worker"))
	hello := func(version uint32) *wire.Hello {
		public := s.key.Public().(ed25519.PublicKey)
		return &wire.Hello{
			Version: version, SwarmId: s.swarm.Bytes(), Generation: 1, DeviceId: string(wire.NewDeviceID(public)),
			Nonce: make([]byte, 32), Slots: 1,
		}
	}
	refusal := s.greet(t, hello(99)).GetRefusal()
	if refusal == nil {
		t.Fatal("a hello of version 99 was not refused")
	}
	text := refusal.GetError().GetText()
	t.Logf("the refusal: %s", text)
	if got, want := refusal.GetError().GetCode(), wire.Code_CODE_VERSION; got != want || !strings.Contains(text, "99") || !strings.Contains(text, "same version") {
		t.Errorf("a hello of version 99 is refused with %v %q, want %v, the number and the way out", got, text, want)
	}
	if answer := s.greet(t, hello(wire.SessionVersion)); answer.GetChallenge() == nil {
		t.Errorf("a hello of the version that is spoken gets %v, want a challenge", answer)
	}
	works(t, n)
}
