package sessiontest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Swarm is the swarm that the suite's sessions belong to.
const Swarm wire.SwarmID = "000102030405060708090a0b0c0d0e0f"

// NewIdentity returns the identity whose key is made from name.
func NewIdentity(name string) session.Identity {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key}
}

// NewHello returns a valid hello of a device with the given number of slots.
func NewHello(slots uint32) *wire.Hello {
	return &wire.Hello{SwarmId: Swarm.Bytes(), Generation: 1, Slots: slots}
}

// NewAccept returns what a coordinator of term 7 needs that admits everyone.
func NewAccept(coordinator session.Identity) session.Accept {
	return session.Accept{
		Identity: coordinator, Swarm: Swarm, Generation: 1, Term: 7,
		Admit: func(*wire.Hello) (*wire.Welcome, error) {
			return &wire.Welcome{Role: wire.Role_ROLE_WORKER, HeartbeatMs: 10_000, SwarmName: "test"}, nil
		},
	}
}

// TrustAll is a trust function that believes every coordinator.
func TrustAll(wire.DeviceID) error { return nil }

// Pair is the two ends of a session.
type Pair struct{ Device, Coordinator *session.Conn }

// Connect does the handshake over the two ends of a stream. Both ends are
// closed at the end of the test.
func Connect(t testing.TB, a, b io.ReadWriteCloser) Pair {
	t.Helper()
	type outcome struct {
		conn *session.Conn
		err  error
	}
	accepted := make(chan outcome)
	go func() {
		conn, _, err := session.AcceptConn(context.Background(), b, NewAccept(NewIdentity("coordinator")))
		accepted <- outcome{conn, err}
	}()
	device, _, err := session.Dial(context.Background(), a, NewIdentity("device"), NewHello(2), TrustAll)
	coordinator := <-accepted
	if err != nil || coordinator.err != nil {
		t.Fatalf("the handshake: device %v, coordinator %v", err, coordinator.err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
		device.Close("the test is over", false)
		coordinator.conn.Close("the test is over", false)
	})
	return Pair{Device: device, Coordinator: coordinator.conn}
}

// Start runs a session in the background; the outcome is sent on the channel.
func Start(conn *session.Conn, h session.Handler) <-chan error {
	outcome := make(chan error, 1)
	go func() { outcome <- conn.Run(context.Background(), h) }()
	return outcome
}
