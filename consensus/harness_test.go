package consensus

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network joins the members of one test by pipes.
type network struct {
	mu     sync.Mutex
	layers map[string]*pipeLayer
	cut    map[string]bool
}

func newNetwork() *network {
	return &network{layers: make(map[string]*pipeLayer), cut: make(map[string]bool)}
}

// isolate cuts a member off, its open connections included, or lets it back.
func (n *network) isolate(id wire.DeviceID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[string(id)] = cut
	if cut {
		for _, l := range n.layers {
			l.drop(func(a, b string) bool { return a == string(id) || b == string(id) })
		}
	}
}

func (n *network) listen(id wire.DeviceID) *pipeLayer {
	l := &pipeLayer{net: n, id: string(id), accept: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layers[string(id)] = l
	return l
}

// pipeLayer is one member's raft.StreamLayer.
type pipeLayer struct {
	net    *network
	id     string
	accept chan net.Conn
	done   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	pipes []pipe
}

type pipe struct {
	a, b string
	conn net.Conn
	gone *atomic.Bool
}

// pipeEnd is one end of a connection. Once it is gone nothing arrives any more,
// and neither end is told.
type pipeEnd struct {
	net.Conn
	gone *atomic.Bool
}

func (e *pipeEnd) Write(p []byte) (int, error) {
	if e.gone.Load() {
		return len(p), nil
	}
	return e.Conn.Write(p)
}

// forget makes the connections that two members have silent for ever. New ones
// work.
func (n *network) forget(x, y wire.DeviceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.layers {
		l.mu.Lock()
		for _, p := range l.pipes {
			if p.a == string(x) && p.b == string(y) || p.a == string(y) && p.b == string(x) {
				p.gone.Store(true)
			}
		}
		l.mu.Unlock()
	}
}

func (l *pipeLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeLayer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeLayer) Addr() net.Addr { return address(l.id) }

func (l *pipeLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.net.mu.Lock()
	peer := l.net.layers[string(to)]
	cut := l.net.cut[l.id] || l.net.cut[string(to)]
	l.net.mu.Unlock()
	if peer == nil || cut {
		return nil, fmt.Errorf("no way to %s", to)
	}
	a, b := net.Pipe()
	gone := new(atomic.Bool)
	here, there := &pipeEnd{Conn: a, gone: gone}, &pipeEnd{Conn: b, gone: gone}
	select {
	case peer.accept <- there:
	case <-peer.done:
		return nil, fmt.Errorf("%s does not listen", to)
	case <-l.done:
		return nil, net.ErrClosed
	case <-time.After(timeout):
		return nil, fmt.Errorf("%s does not answer", to)
	}
	l.mu.Lock()
	l.pipes = append(l.pipes, pipe{l.id, string(to), here, gone})
	l.mu.Unlock()
	return here, nil
}

func (l *pipeLayer) drop(match func(a, b string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pipes {
		if match(p.a, p.b) {
			p.conn.Close()
		}
	}
}

// identity is a device's key, the same for the same name.
type identity struct {
	key ed25519.PrivateKey
	id  wire.DeviceID
}

func newIdentity(name string) identity {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return identity{key: key, id: wire.NewDeviceID(key.Public().(ed25519.PublicKey))}
}

func profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name, Type: wire.DeviceType_DEVICE_TYPE_SERVER, Format: state.Format, Version: "test",
		Capabilities: &wire.Capabilities{CpuCores: 2, MemoryGb: 4, Runtime: "wazero"},
	}
}

// node is one member in a test: its group, its Run, and what its lead saw.
type node struct {
	t    testing.TB
	net  *network
	dir  string
	self identity
	tune tuning
	// memory is set for a node without files.
	memory *stores
	*Group

	stop   context.CancelFunc
	ran    chan error
	mu     sync.Mutex
	terms  []uint64
	leads  int           // lead calls that are under way
	linger time.Duration // how long lead takes to end
	gaveUp error         // what lead returns at once
	pages  []wire.Hash
	ended  []wire.HoldID  // likewise
	newer  []uint64       // generations that Superseded was told of
	more   func(*Options) // what a test adds; may be nil
}

// newNode opens a member over files in a folder of its own, and runs it.
func newNode(t testing.TB, net *network, name string) *node {
	t.Helper()
	return newNodeIn(t, net, name, t.TempDir())
}

func newNodeIn(t testing.TB, net *network, name, dir string) *node {
	t.Helper()
	return startNode(&node{t: t, net: net, dir: filepath.Join(dir, "raft"), self: newIdentity(name), tune: defaultTuning()})
}

// newMemoryNode opens a member whose stores are in memory, and outlive kill.
func newMemoryNode(t testing.TB, net *network, name string) *node {
	t.Helper()
	log := raft.NewInmemStore()
	return startNode(&node{
		t: t, net: net, self: newIdentity(name), tune: defaultTuning(),
		memory: &stores{logs: log, stable: log, snapshots: raft.NewInmemSnapshotStore()},
	})
}

func startNode(n *node) *node {
	n.t.Helper()
	n.open()
	n.t.Cleanup(n.kill)
	return n
}

func (n *node) options() Options {
	o := Options{
		Self: n.self.id, Dir: n.dir, Streams: n.net.listen(n.self.id),
		Pages: func(_ uint64, named, _ []wire.Hash, ended []wire.HoldID) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.pages = append(n.pages, named...)
			n.ended = append(n.ended, ended...)
		},
		Superseded: func(generation uint64) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.newer = append(n.newer, generation)
		},
	}
	if n.more != nil {
		n.more(&o)
	}
	return o
}

func (n *node) superseded() []uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.newer)
}

// loseDisk kills n, and starts it with an empty folder.
func (n *node) loseDisk() {
	n.t.Helper()
	n.kill()
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Fatal(err)
	}
	n.open()
}

func (n *node) open() {
	n.t.Helper()
	o := n.options()
	st, err := n.memory, error(nil)
	if st == nil {
		st, err = openFolder(o)
	}
	if err != nil {
		n.t.Fatalf("opening the stores: %v", err)
	}
	if n.Group, err = open(o, st, n.tune); err != nil {
		n.t.Fatalf("opening the group: %v", err)
	}
	n.run()
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.ran = cancel, make(chan error, 1)
	group, ran := n.Group, n.ran
	go func() { ran <- group.Run(ctx, n.lead) }()
}

func (n *node) lead(ctx context.Context, term uint64) error {
	n.mu.Lock()
	n.leads++
	if n.leads > 1 {
		n.t.Errorf("%d calls of lead at one time", n.leads)
	}
	if len(n.terms) > 0 && term <= n.terms[len(n.terms)-1] {
		n.t.Errorf("lead(%d) after %v", term, n.terms)
	}
	n.terms = append(n.terms, term)
	n.mu.Unlock()
	if n.gaveUp != nil {
		return n.gaveUp
	}
	<-ctx.Done()
	time.Sleep(n.linger)
	n.mu.Lock()
	n.leads--
	n.mu.Unlock()
	return ctx.Err()
}

func (n *node) seenTerms() []uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.terms)
}

// kill closes without handing over, as a crash would.
func (n *node) kill() {
	n.t.Helper()
	if err := n.Close(); err != nil {
		n.t.Errorf("closing: %v", err)
	}
	n.stop()
	n.finish()
}

// quit stops gracefully.
func (n *node) quit() {
	n.t.Helper()
	n.stop()
	n.finish()
	if err := n.Close(); err != nil {
		n.t.Errorf("closing: %v", err)
	}
}

func (n *node) finish() {
	if n.ran == nil {
		return
	}
	if err := <-n.ran; err != nil {
		n.t.Errorf("Run: %v", err)
	}
	n.ran = nil
}

func (n *node) hash() (h [32]byte) {
	n.Read(func(s *state.State) { h = s.Hash() })
	return h
}

func (n *node) name(id wire.DeviceID) (name string) {
	n.Read(func(s *state.State) {
		if d := s.Device(id); d != nil {
			name = d.Name
		}
	})
	return name
}

// found founds a swarm of which n is the only member.
func (n *node) found() *node {
	n.t.Helper()
	if err := n.Found(n.t.Context(), foundation(n.self)); err != nil {
		n.t.Fatalf("founding: %v", err)
	}
	n.until("lead is called", func() bool { return len(n.seenTerms()) > 0 })
	n.report([]*node{n})
	return n
}

// report tells the registry which memory n has, as the Hello of its session does.
func (n *node) report(nodes []*node) {
	n.t.Helper()
	p := profile(n.name(n.self.id))
	if p.Name == "" {
		p.Name = "member"
	}
	p.Replica = n.Replica()
	propose(n.t, nodes, &wire.Op{Actor: string(n.self.id), Kind: &wire.Op_UpdateDevice{
		UpdateDevice: &wire.UpdateDevice{DeviceId: string(n.self.id), Profile: p},
	}})
}

func foundation(self identity) *wire.FoundSwarm {
	root := newIdentity("root").key
	f := &wire.FoundSwarm{
		RootKey: public(root), Founder: string(self.id), Profile: profile("founder"),
		LeaseKey: make([]byte, 32), SwarmName: "test",
	}
	f.Signature = ed25519.Sign(root, wire.FoundingStatement(f))
	return f
}

// propose commits an operation on whoever leads, and fails the test if that
// takes 30 s.
func propose(t testing.TB, nodes []*node, op *wire.Op) state.OpResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, n := range nodes {
			term, ok := n.leading()
			if !ok {
				continue
			}
			result, err := n.Propose(ctx, term, op)
			if err == nil {
				return result
			}
			if code := wire.CodeOf(err); code != wire.Code_CODE_UNAVAILABLE && code != wire.Code_CODE_UNKNOWN_OUTCOME {
				t.Fatalf("proposing: %v", err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nobody committed an operation within 30 s")
	return state.OpResult{}
}

func rename(actor, id wire.DeviceID, name string) *wire.Op {
	return &wire.Op{Actor: string(actor), Kind: &wire.Op_UpdateDevice{
		UpdateDevice: &wire.UpdateDevice{DeviceId: string(id), Name: name},
	}}
}

// issue makes an invite whose public keys follow from its name.
func issue(actor wire.DeviceID, name string, role wire.Role, expiresAtMS int64) (*wire.Op, ed25519.PrivateKey) {
	link, code := newIdentity("link "+name).key, newIdentity("code "+name).key
	return &wire.Op{Actor: string(actor), Kind: &wire.Op_IssueInvite{IssueInvite: &wire.IssueInvite{
		LinkKey: public(link), CodeKey: public(code), Role: role, ExpiresAtMs: expiresAtMS,
	}}}, link
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// admit lets a device in as a member, by an invite of its own.
func admit(t testing.TB, nodes []*node, founder wire.DeviceID, joiner identity) {
	t.Helper()
	var swarm wire.SwarmID
	var now int64
	nodes[0].Read(func(s *state.State) { swarm, now = s.SwarmID(), s.TimeMS() })
	op, invite := issue(founder, string(joiner.id), wire.Role_ROLE_MEMBER, now+time.Hour.Milliseconds())
	propose(t, nodes, op)
	join := &wire.JoinRequest{
		SwarmId: swarm.Bytes(), InviteKey: public(invite), DeviceId: string(joiner.id),
		Role: wire.Role_ROLE_MEMBER, Nonce: make([]byte, 32), Profile: profile("member"),
	}
	join.InviteSignature = ed25519.Sign(invite, wire.JoinStatement(join))
	join.DeviceSignature = ed25519.Sign(joiner.key, wire.JoinStatement(join))
	propose(t, nodes, &wire.Op{Actor: string(founder), Kind: &wire.Op_AdmitDevice{AdmitDevice: &wire.AdmitDevice{Join: join}}})
}

// until waits for a condition, and fails the test if it takes 30 s.
func (n *node) until(what string, cond func() bool) {
	n.t.Helper()
	eventually(n.t, what, cond)
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s it is still not so that %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// swarm founds a swarm and admits others until it has so many members, and waits
// until the right number of them vote and the rest are standbys.
func swarm(t testing.TB, size int) (*network, []*node) {
	t.Helper()
	return swarmOf(t, size, newNode)
}

func swarmOf(t testing.TB, size int, open func(testing.TB, *network, string) *node) (*network, []*node) {
	t.Helper()
	net := newNetwork()
	nodes := []*node{open(t, net, "device 0").found()}
	for i := 1; i < size; i++ {
		n := open(t, net, fmt.Sprintf("device %d", i))
		admit(t, nodes, nodes[0].self.id, n.self)
		n.report(nodes)
		nodes = append(nodes, n)
	}
	eventually(t, fmt.Sprintf("%d members have their votes", size), func() bool {
		for _, n := range nodes {
			if len(n.Voters()) != TargetVoters(size) || len(n.Servers()) != min(size, TargetVoters(size)+maxStandbys) {
				return false
			}
		}
		return true
	})
	return net, nodes
}

func leader(nodes []*node) *node {
	for _, n := range nodes {
		if _, ok := n.leading(); ok {
			return n
		}
	}
	return nil
}

func others(nodes []*node, not *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == not })
}

// agree waits until all nodes hold the same state.
func agree(t testing.TB, nodes []*node) {
	t.Helper()
	eventually(t, "all hold the same state", func() bool {
		for _, n := range nodes[1:] {
			if n.hash() != nodes[0].hash() {
				return false
			}
		}
		return true
	})
}

func wantCode(t testing.TB, err error, want wire.Code) {
	t.Helper()
	if got := wire.CodeOf(err); got != want {
		t.Errorf("the error is %v (%v), want %v", err, got, want)
	}
}

var errTest = errors.New("test")
