package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// dialAndAccept does both sides of a handshake over a pipe.
func dialAndAccept(hello *wire.Hello, id session.Identity, a session.Accept, trust func(wire.DeviceID) error) (dialErr, acceptErr error) {
	x, y := net.Pipe()
	accepted := make(chan error)
	go func() {
		conn, _, err := session.AcceptConn(context.Background(), y, a)
		if err == nil {
			conn.Close("done", false)
		}
		accepted <- err
	}()
	conn, _, err := session.Dial(context.Background(), x, id, hello, trust)
	if err == nil {
		conn.Close("done", false)
	}
	return err, <-accepted
}

func TestAHandshakeIsRefusedWithACode(t *testing.T) {
	t.Parallel()
	device := sessiontest.NewIdentity("device")
	impostor := session.Identity{ID: device.ID, Key: sessiontest.NewIdentity("impostor").Key}
	tests := []struct {
		name   string
		change func(*wire.Hello, *session.Accept)
		id     session.Identity
		want   wire.Code
	}{
		{"another swarm", func(h *wire.Hello, _ *session.Accept) { h.SwarmId = make([]byte, 16) }, device, wire.Code_CODE_WRONG_SWARM},
		{"no swarm", func(h *wire.Hello, _ *session.Accept) { h.SwarmId = nil }, device, wire.Code_CODE_WRONG_SWARM},
		{"a later generation", func(h *wire.Hello, _ *session.Accept) { h.Generation = 2 }, device, wire.Code_CODE_WRONG_SWARM},
		{"another's ID", func(*wire.Hello, *session.Accept) {}, impostor, wire.Code_CODE_BAD_PROOF},
		{"not an ID", func(*wire.Hello, *session.Accept) {}, session.Identity{ID: "x", Key: device.Key}, wire.Code_CODE_INVALID},
		{"not admitted", func(_ *wire.Hello, a *session.Accept) {
			a.Admit = func(*wire.Hello) (*wire.Welcome, error) {
				return nil, wire.Errorf(wire.Code_CODE_REMOVED, "the device was removed")
			}
		}, device, wire.Code_CODE_REMOVED},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hello, accept := sessiontest.NewHello(1), sessiontest.NewAccept(sessiontest.NewIdentity("coordinator"))
			test.change(hello, &accept)
			dialErr, acceptErr := dialAndAccept(hello, test.id, accept, sessiontest.TrustAll)
			for side, err := range map[string]error{"Dial": dialErr, "AcceptConn": acceptErr} {
				var refused *session.Refused
				if !errors.As(err, &refused) || wire.CodeOf(err) != test.want {
					t.Errorf("%s: got %v (%v), want a refusal with %v", side, err, wire.CodeOf(err), test.want)
				} else if refused.Generation() != 1 {
					t.Errorf("%s: the refusal says generation %d, want 1", side, refused.Generation())
				}
			}
		})
	}
}

func TestAnAdmitErrorThatIsARefusalIsSentAsItIs(t *testing.T) {
	t.Parallel()
	accept := sessiontest.NewAccept(sessiontest.NewIdentity("coordinator"))
	accept.Admit = func(*wire.Hello) (*wire.Welcome, error) {
		return nil, &session.Refused{Refusal: &wire.Refusal{Coordinator: &wire.Peer{Id: "other"}}}
	}
	err, _ := dialAndAccept(sessiontest.NewHello(1), sessiontest.NewIdentity("device"), accept, sessiontest.TrustAll)
	var refused *session.Refused
	if !errors.As(err, &refused) || refused.Coordinator().GetId() != "other" {
		t.Errorf("got %v, want the refusal with the coordinator", err)
	}
}

func TestTheDeviceChecksTheCoordinator(t *testing.T) {
	t.Parallel()
	device := sessiontest.NewIdentity("device")
	coordinator := sessiontest.NewIdentity("coordinator")
	t.Run("its key", func(t *testing.T) {
		accept := sessiontest.NewAccept(session.Identity{ID: coordinator.ID, Key: sessiontest.NewIdentity("impostor").Key})
		err, _ := dialAndAccept(sessiontest.NewHello(1), device, accept, sessiontest.TrustAll)
		if wire.CodeOf(err) != wire.Code_CODE_BAD_PROOF {
			t.Errorf("got %v, want CODE_BAD_PROOF", err)
		}
	})
	t.Run("whether it is trusted", func(t *testing.T) {
		stranger := errors.New("a stranger")
		var asked wire.DeviceID
		err, _ := dialAndAccept(sessiontest.NewHello(1), device, sessiontest.NewAccept(coordinator), func(id wire.DeviceID) error {
			asked = id
			return stranger
		})
		if !errors.Is(err, stranger) || asked != coordinator.ID {
			t.Errorf("got %v about %s, want %v about %s", err, asked, stranger, coordinator.ID)
		}
	})
}

func TestAVersionThatIsNotSpokenIsRefused(t *testing.T) {
	t.Parallel()
	x, y := net.Pipe()
	accepted := make(chan error)
	go func() {
		_, _, err := session.AcceptConn(context.Background(), y, sessiontest.NewAccept(sessiontest.NewIdentity("coordinator")))
		accepted <- err
	}()
	hello := sessiontest.NewHello(1)
	hello.Version = 99
	answer := new(wire.Frame)
	err := errors.Join(wire.WriteMessage(x, wire.MaxFrame, &wire.Frame{Kind: &wire.Frame_Hello{Hello: hello}}), wire.ReadMessage(x, wire.MaxFrame, answer))
	if err != nil || answer.GetRefusal().GetError().GetCode() != wire.Code_CODE_VERSION {
		t.Errorf("got %v, %v, want a refusal with CODE_VERSION", answer, err)
	}
	<-accepted
}

func TestAHandshakeThatStallsEndsAfterTenSeconds(t *testing.T) {
	sides := map[string]func(io.ReadWriteCloser) error{
		"Dial": func(rw io.ReadWriteCloser) error {
			_, _, err := session.Dial(context.Background(), rw, sessiontest.NewIdentity("device"), sessiontest.NewHello(1), sessiontest.TrustAll)
			return err
		},
		"AcceptConn": func(rw io.ReadWriteCloser) error {
			_, _, err := session.AcceptConn(context.Background(), rw, sessiontest.NewAccept(sessiontest.NewIdentity("coordinator")))
			return err
		},
		"Refuse": func(rw io.ReadWriteCloser) error {
			return session.Refuse(context.Background(), rw, &wire.Refusal{})
		},
	}
	for name, side := range sides {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, y := net.Pipe()
				defer y.Close()
				begun := time.Now()
				err := side(x)
				if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || time.Since(begun) != 10*time.Second {
					t.Errorf("got %v after %v, want CODE_UNAVAILABLE after 10 s", err, time.Since(begun))
				}
				if _, err := x.Write([]byte{0}); err == nil {
					t.Error("the stream is still open")
				}
			})
		})
	}
}

func TestAHandshakeThatEndsInGarbageClosesTheStream(t *testing.T) {
	t.Parallel()
	for name, bytes := range map[string][]byte{
		"too long":       {0xff, 0xff, 0xff, 0xff},
		"not a frame":    {0, 0, 0, 2, 0xff, 0xff},
		"another frame":  {0, 0, 0, 2, 7<<3 | 2, 0},
		"an empty frame": {0, 0, 0, 0},
		"cut off":        {0, 0, 0, 9, 1},
	} {
		t.Run(name, func(t *testing.T) {
			x, y := net.Pipe()
			go func() {
				y.Write(bytes)
				if name == "cut off" {
					y.Close()
				}
			}()
			_, _, err := session.AcceptConn(context.Background(), x, sessiontest.NewAccept(sessiontest.NewIdentity("coordinator")))
			if err == nil {
				t.Error("the handshake succeeded")
			}
			if _, err := x.Write([]byte{0}); err == nil {
				t.Error("the stream is still open")
			}
		})
	}
}
