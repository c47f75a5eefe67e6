package browserbridge_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const testSwarm wire.SwarmID = "000102030405060708090a0b0c0d0e0f"

func TestMain(m *testing.M) {
	if browserbridge.IsChild() {
		go panicWhenAsked()
		os.Exit(browserbridge.ChildMain(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// testKey returns the key that is made from a name.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func testID(key ed25519.PrivateKey) wire.DeviceID {
	return wire.NewDeviceID(key.Public().(ed25519.PublicKey))
}

// harness is a bridge with a swarm that is a map.
type harness struct {
	*browserbridge.Bridge
	inside *browserbridge.Inside
	url    string
	// streams are the coordinator's ends of what the bridge dialled.
	streams chan net.Conn

	mu      sync.Mutex
	roles   map[wire.DeviceID]wire.Role
	removed map[wire.DeviceID]bool
	admit   func(*wire.JoinRequest) error // whether a proof lets its bearer in
	dialErr error
	audits  []string
}

func newHarness(t testing.TB, change ...func(*browserbridge.Config)) *harness {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newHarnessAt(t, listener, change...)
}

// newHarnessAt is newHarness with a public listener of the test's own.
func newHarnessAt(t testing.TB, listener net.Listener, change ...func(*browserbridge.Config)) *harness {
	t.Helper()
	h := &harness{
		streams: make(chan net.Conn, 16), roles: make(map[wire.DeviceID]wire.Role), removed: make(map[wire.DeviceID]bool),
		admit: func(*wire.JoinRequest) error { return nil },
	}
	address := netip.MustParseAddrPort(listener.Addr().String())
	h.url = "http://" + listener.Addr().String()
	key := testKey("the bridge")
	c := browserbridge.Config{
		ID: testID(key), Key: key, Swarm: testSwarm, SwarmName: func() string { return "test" }, Address: address,
		Dial: h.dial, Role: h.role, Admit: h.let, Bridges: func() []string { return []string{h.url} },
		Audit: h.audit, Log: slog.New(slog.DiscardHandler), Limits: browserbridge.DefaultLimits(),
	}
	for _, f := range change {
		f(&c)
	}
	h.Bridge = browserbridge.New(c)
	h.inside = h.PutInside()
	server := httptest.NewUnstartedServer(h.Bridge)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		h.Close()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return h
}

func (h *harness) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	h.mu.Lock()
	err := h.dialErr
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	broken := new(atomic.Bool)
	select {
	case h.streams <- pipeEnd{theirs, broken}:
		return pipeEnd{ours, broken}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeEnd is one end of a pipe that can be broken as well as closed.
type pipeEnd struct {
	net.Conn
	broken *atomic.Bool
}

func (p pipeEnd) Reset() error {
	p.broken.Store(true)
	return p.Close()
}

func (p pipeEnd) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == io.EOF && p.broken.Load() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (h *harness) role(id wire.DeviceID) (wire.Role, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.roles[id], h.removed[id]
}

func (h *harness) let(_ context.Context, join *wire.JoinRequest) (*wire.AdmitResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.admit(join); err != nil {
		return nil, err
	}
	h.roles[wire.DeviceID(join.GetDeviceId())] = wire.Role_ROLE_WORKER
	return &wire.AdmitResponse{Role: wire.Role_ROLE_WORKER, SwarmName: "test"}, nil
}

func (h *harness) audit(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.audits = append(h.audits, message)
}

// belongs lets a device in without an invite.
func (h *harness) belongs(key ed25519.PrivateKey, role wire.Role) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roles[testID(key)] = role
}

// stream waits for the coordinator's end of the next session.
func (h *harness) stream(t testing.TB) net.Conn {
	t.Helper()
	select {
	case s := <-h.streams:
		t.Cleanup(func() { s.Close() })
		return s
	case <-time.After(30 * time.Second):
		t.Fatal("the bridge did not dial the coordinator within 30 s")
		return nil
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// within returns a context that is long enough for a slow machine.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect connects a device that belongs already.
func (h *harness) connect(t testing.TB, name string) *gobrowser.Browser {
	t.Helper()
	key := testKey(name)
	h.belongs(key, wire.Role_ROLE_WORKER)
	b, err := gobrowser.Connect(within(t), gobrowser.Config{URL: h.url, Key: key})
	if err != nil {
		t.Fatalf("connecting %s: %v", name, err)
	}
	t.Cleanup(b.Close)
	return b
}

// tryConnect connects a device that belongs already for a moment.
func (h *harness) tryConnect(t testing.TB, name string) error {
	key := testKey(name)
	h.belongs(key, wire.Role_ROLE_WORKER)
	b, err := gobrowser.Connect(within(t), gobrowser.Config{URL: h.url, Key: key})
	if err == nil {
		b.Close()
	}
	return err
}

// session opens a channel of b, and returns it and its coordinator's end.
func (h *harness) session(t testing.TB, b *gobrowser.Browser) (*browserbridge.Channel, net.Conn) {
	t.Helper()
	channel, err := b.Open(within(t))
	if err != nil {
		t.Fatalf("opening a channel: %v", err)
	}
	t.Cleanup(func() { channel.Close() })
	return channel, h.stream(t)
}
