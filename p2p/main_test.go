package p2p

import (
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) {
	SetLibraryLog(slog.DiscardHandler)
	goleak.VerifyTestMain(m)
}

var netipLoopback = netip.MustParseAddr("127.0.0.1")

const testSwarm = wire.SwarmID("00112233445566778899aabbccddeeff")

// registry stands in for the replicated state: who has which role.
type registry struct {
	mu    sync.Mutex
	roles map[wire.DeviceID]wire.Role
}

func newRegistry() *registry { return &registry{roles: make(map[wire.DeviceID]wire.Role)} }

func (r *registry) role(id wire.DeviceID) wire.Role {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roles[id]
}

func (r *registry) set(id wire.DeviceID, role wire.Role) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roles[id] = role
}

// fast is a timing that tests need not wait for.
func fast() timing {
	return timing{
		stranger: 300 * time.Millisecond, vouched: 10 * time.Second, sweep: 50 * time.Millisecond,
		join: 5 * time.Second, dial: 3 * time.Second,
		redialMin: 20 * time.Millisecond, redialMax: 200 * time.Millisecond, announce: time.Second,
		replaced: 200 * time.Millisecond,
	}
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type hostOption func(*Config, *timing)

// testHost makes a host on loopback whose roles are those of reg.
func testHost(t testing.TB, reg *registry, options ...hostOption) *Host {
	t.Helper()
	cfg := Config{Key: newKey(t), Listen: "127.0.0.1:0", Role: reg.role, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	times := fast()
	for _, o := range options {
		o(&cfg, &times)
	}
	h, err := newHost(cfg, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

// device makes a host that is registered with a role.
func device(t testing.TB, reg *registry, role wire.Role, options ...hostOption) *Host {
	t.Helper()
	h := testHost(t, reg, options...)
	reg.set(h.ID(), role)
	return h
}

func start(t testing.TB, hosts ...*Host) {
	t.Helper()
	for _, h := range hosts {
		if err := h.Start(t.Context(), testSwarm); err != nil {
			t.Fatal(err)
		}
	}
}

// introduce tells each host of all the others, as members tell each other.
func introduce(hosts ...*Host) {
	var ids []wire.DeviceID
	for _, h := range hosts {
		ids = append(ids, h.ID())
	}
	for _, h := range hosts {
		for _, other := range hosts {
			h.Learn(other.Peers([]wire.DeviceID{other.ID()}))
		}
		h.SetMembers(ids)
	}
}

// eventually waits until ok is true; the bound is for a machine under load.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func inFolder(t testing.TB, name string) string { return filepath.Join(t.TempDir(), name) }
