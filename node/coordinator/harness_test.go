package coordinator_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// oneGroup is a Raft group of one: what is proposed is applied at once.
type oneGroup struct {
	mu    sync.RWMutex
	state *state.State
	term  uint64
	now   func() time.Time
	fail  error // what Propose answers instead, when set
	// deposed is what Verify answers, and holdsOn what CanLose does.
	deposed, holdsOn error
	format           uint32
	took             time.Duration // what each proposal takes
}

func (g *oneGroup) Propose(_ context.Context, term uint64, op *wire.Op) (state.OpResult, error) {
	g.mu.RLock()
	took := g.took
	g.mu.RUnlock()
	time.Sleep(took)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		return state.OpResult{}, g.fail
	}
	if need := state.FormatOf(op); need > g.format {
		return state.OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "format %d is not understood by all voters", need)
	}
	out := g.state.Apply(g.term, &wire.Command{Format: state.FormatOf(op), Term: term, TimeMs: g.now().UnixMilli(), Ops: []*wire.Op{op}})
	return out.Results[0], out.Results[0].Err
}

func (g *oneGroup) Read(f func(*state.State)) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	f(g.state)
}

func (g *oneGroup) Verify(context.Context) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.deposed
}

func (g *oneGroup) CanLose(wire.DeviceID) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.holdsOn
}

func (g *oneGroup) Format() uint32 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.format
}

func (g *oneGroup) Voters() []wire.DeviceID { return nil }
func (g *oneGroup) setFail(err error)       { g.set(func() { g.fail = err }) }

// set changes what the group answers.
func (g *oneGroup) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func (g *oneGroup) do(t *testing.T, op *wire.Op) state.OpResult {
	t.Helper()
	r, err := g.Propose(t.Context(), g.term, op)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// memoryPages keeps pages in memory.
type memoryPages struct {
	mu    sync.Mutex
	pages map[wire.Hash][]byte
	// slow, if set, keeps who reads waiting until it is closed.
	slow chan struct{}
	// away says that most of the voters do not answer.
	away bool
	puts int
}

// lose is the end of a page on all disks, or its collection.
func (p *memoryPages) lose(h wire.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pages, h)
}

func (p *memoryPages) has(h wire.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pages[h]
	return ok
}

func (p *memoryPages) PutReserved(_ context.Context, _ wire.HoldID, data []byte) (wire.Hash, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := wire.HashOf(data)
	p.pages[h] = data
	p.puts++
	return h, nil
}

func (p *memoryPages) Hold(ctx context.Context, _ wire.HoldID, pages []wire.Hash) error {
	p.mu.Lock()
	away := p.away
	p.mu.Unlock()
	if away {
		<-ctx.Done()
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "nobody answers")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range pages {
		if _, ok := p.pages[h]; !ok {
			return wire.Errorf(wire.Code_CODE_NOT_FOUND, "no page %v", h)
		}
	}
	return nil
}

func (p *memoryPages) Get(_ context.Context, h wire.Hash) ([]byte, error) {
	if p.slow != nil {
		<-p.slow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.pages[h]; ok {
		return b, nil
	}
	return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "no page %v", h)
}

// harness is a coordinator over a group of one, and what it said.
type harness struct {
	t       *testing.T
	group   *oneGroup
	pages   *memoryPages
	founder session.Identity
	invite  map[wire.Role]ed25519.PrivateKey
	c       *coordinator.Coordinator
	// replication is what the coordinator is told of the log; nil for nothing.
	replication func() coordinator.Replication
	ctx         context.Context
	end         func()

	mu    sync.Mutex
	lines []*wire.LogLine
}

// seededKey makes a key of a number: tests are the same at every run.
func seededKey(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = n
	}
	return ed25519.NewKeyFromSeed(seed)
}

func identity(n byte) session.Identity {
	key := seededKey(n)
	return session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key}
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{
		t:       t,
		group:   &oneGroup{state: state.New(), term: 1, now: time.Now, format: 2},
		pages:   &memoryPages{pages: map[wire.Hash][]byte{wire.HashOf([]byte("program")): []byte("program")}},
		founder: identity(1),
		invite:  make(map[wire.Role]ed25519.PrivateKey),
	}
	root := seededKey(250)
	found := &wire.FoundSwarm{
		RootKey: root.Public().(ed25519.PublicKey), Founder: string(h.founder.ID), Profile: profile("founder"),
		LeaseKey: make([]byte, 32), SwarmName: "test",
	}
	found.Signature = ed25519.Sign(root, wire.FoundingStatement(found))
	h.group.do(t, &wire.Op{Actor: string(h.founder.ID), Kind: &wire.Op_FoundSwarm{FoundSwarm: found}})
	h.lead()
	return h
}

// lead begins a new term with a new coordinator, after ending the old one.
func (h *harness) lead() {
	h.t.Helper()
	if h.end != nil {
		h.end()
		h.group.term++
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	h.c = coordinator.New(coordinator.Config{
		Identity:    h.founder,
		Group:       h.group,
		Pages:       h.pages,
		Replication: h.replication,
		Peers: func(ids []wire.DeviceID) (peers []*wire.Peer) {
			for _, id := range ids {
				peers = append(peers, &wire.Peer{Id: string(id)})
			}
			return peers
		},
		Publish: func(l *wire.LogLine) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lines = append(h.lines, l)
		},
		Log: slog.New(slog.DiscardHandler),
	}, h.group.term)
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.c.Run(ctx, func() { close(begun) }, func() {}) }()
	<-begun
	var once sync.Once
	h.end = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				h.t.Errorf("Run: %v", err)
			}
		})
	}
	h.t.Cleanup(h.end)
}

// register admits a device by an invite for the role.
func (h *harness) register(id session.Identity, role wire.Role) {
	h.t.Helper()
	key, ok := h.invite[role]
	if !ok {
		key = seededKey(200 + byte(role))
		h.invite[role] = key
		h.group.do(h.t, &wire.Op{Actor: string(h.founder.ID), Kind: &wire.Op_IssueInvite{IssueInvite: &wire.IssueInvite{
			LinkKey: key.Public().(ed25519.PublicKey), Role: role, ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
		}}})
	}
	var swarm wire.SwarmID
	h.group.Read(func(s *state.State) { swarm = s.SwarmID() })
	join := &wire.JoinRequest{
		SwarmId: swarm.Bytes(), InviteKey: key.Public().(ed25519.PublicKey), DeviceId: string(id.ID),
		Nonce: make([]byte, 16), Profile: profile("device-" + id.ID.Short()),
	}
	join.InviteSignature = ed25519.Sign(key, wire.JoinStatement(join))
	join.DeviceSignature = ed25519.Sign(id.Key, wire.JoinStatement(join))
	h.group.do(h.t, &wire.Op{Actor: string(h.founder.ID), Kind: &wire.Op_AdmitDevice{AdmitDevice: &wire.AdmitDevice{Join: join}}})
}

func profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name, Type: wire.DeviceType_DEVICE_TYPE_SERVER, Format: state.Format,
		Capabilities: &wire.Capabilities{CpuCores: 4, MemoryGb: 8, Runtime: "wazero"},
	}
}

// peer is a scripted device or client.
type peer struct {
	h      *harness
	id     session.Identity
	conn   *session.Conn
	link   *breakable // the coordinator's end
	leases chan *wire.Lease
	cancel chan *wire.CancelTasks
	acks   chan *wire.ResultsAck
	news   chan *wire.Welcome // after the first
	ended  chan error
}

// dial opens a session of a registered device.
func (h *harness) dial(id session.Identity, slots uint32, claims ...*wire.LeaseClaim) *peer {
	h.t.Helper()
	p, err := h.tryDial(id, slots, claims...)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *harness) tryDial(id session.Identity, slots uint32, claims ...*wire.LeaseClaim) (*peer, error) {
	return h.dialAs(id, &wire.Hello{Slots: slots, Profile: profile("device-" + id.ID.Short()), Leases: claims})
}

// dialAs opens a session with a hello that says more.
func (h *harness) dialAs(id session.Identity, hello *wire.Hello) (*peer, error) {
	ours, theirs := net.Pipe()
	link := &breakable{Conn: theirs}
	served := make(chan error, 1)
	go func() { served <- h.c.Serve(context.Background(), link) }()
	var swarm wire.SwarmID
	h.group.Read(func(s *state.State) { swarm = s.SwarmID() })
	hello.SwarmId, hello.Generation = swarm.Bytes(), 1
	conn, _, err := session.Dial(context.Background(), ours, id, hello, func(wire.DeviceID) error { return nil })
	if err != nil {
		<-served
		return nil, err
	}
	p := &peer{
		h: h, id: id, conn: conn, link: link,
		leases: make(chan *wire.Lease, 1000), cancel: make(chan *wire.CancelTasks, 1000),
		acks: make(chan *wire.ResultsAck, 1000), news: make(chan *wire.Welcome, 1000), ended: make(chan error, 1),
	}
	go func() {
		err := conn.Run(context.Background(), session.Handler{Frame: p.frame})
		<-served
		p.ended <- err
	}()
	h.t.Cleanup(func() { conn.Close("the test is over", false) })
	synctest.Wait() // the coordinator knows the session a moment after its Welcome
	return p, nil
}

func (p *peer) frame(f *wire.Frame) error {
	switch k := f.GetKind().(type) {
	case *wire.Frame_Lease:
		p.leases <- k.Lease
	case *wire.Frame_CancelTasks:
		p.cancel <- k.CancelTasks
	case *wire.Frame_ResultsAck:
		p.acks <- k.ResultsAck
	case *wire.Frame_Welcome:
		p.news <- k.Welcome
	default:
		return fmt.Errorf("an unexpected frame %T", k)
	}
	return nil
}

// do answers the tasks of one lease as outcome says: nil for ok, with the
// input as output.
func (p *peer) do(l *wire.Lease, outcome func(index uint32) error) {
	p.h.t.Helper()
	results := &wire.Results{JobId: l.GetClaim().GetJobId(), Attempt: l.GetClaim().GetAttempt()}
	for i, index := range l.GetClaim().GetIndexes() {
		r := &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_OK, Output: l.GetInputs()[i].GetInline(), DurationUs: 1000}
		if outcome != nil {
			if err := outcome(index); err != nil {
				r = &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: wire.FailureKind_FAILURE_KIND_EXIT, ExitCode: 1, Error: err.Error()}
			}
		}
		results.Results = append(results.Results, r)
	}
	if err := p.conn.Send(p.h.t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: results}}); err != nil {
		p.h.t.Error(err)
	}
}

// serve answers every lease until the session ends.
func (p *peer) serve(outcome func(index uint32) error) {
	go func() {
		for l := range p.leases {
			p.do(l, outcome)
		}
	}()
	p.h.t.Cleanup(func() { close(p.leases) })
}

// submit makes a job of n inputs, "0\n", "1\n" and so on.
func (p *peer) submit(n int, change func(*wire.JobSpec)) wire.JobID {
	p.h.t.Helper()
	var items [][]byte
	for i := range n {
		items = append(items, fmt.Appendf(nil, "%d\n", i))
	}
	return p.submitInputs(items, change)
}

// submitInputs makes a job of these inputs.
func (p *peer) submitInputs(items [][]byte, change func(*wire.JobSpec)) wire.JobID {
	p.h.t.Helper()
	spec := &wire.JobSpec{
		Program: &wire.Program{Name: "prog", Blob: &wire.Blob{Size: 8, Hash: hashOf("program"), Pages: [][]byte{hashOf("program")}}},
		Retries: 2, TimeoutMs: 10_000, MemoryMib: 64, MaxOutputBytes: 1 << 20,
	}
	if change != nil {
		change(spec)
	}
	id := wire.JobID(fmt.Sprintf("job-%d", rand.Uint64()))
	p.submitAs(id, items, spec)
	return id
}

// submitAs makes a job of that ID.
func (p *peer) submitAs(id wire.JobID, items [][]byte, spec *wire.JobSpec) {
	p.h.t.Helper()
	var before, after wire.Digest
	for _, item := range items {
		after = after.Next(wire.HashOf(item))
	}
	p.call(&wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{
		JobId: string(id), Spec: spec, Close: true,
		Inputs: &wire.AppendInputsRequest{JobId: string(id), Segments: p.h.segments(items), DigestBefore: before[:], DigestAfter: after[:]},
	}}})
}

// segments packs inputs, in pages if they are not few.
func (h *harness) segments(items [][]byte) (all []*wire.Segment) {
	for first, n := 0, 0; first < len(items); first += n {
		segment := &wire.Segment{First: uint32(first)}
		size := 0
		for n = 0; first+n < len(items) && size+wire.PackItemSize(len(items[first+n])) < wire.PageSize-8; n++ {
			size += wire.PackItemSize(len(items[first+n]))
			segment.Bytes += uint64(len(items[first+n]))
		}
		segment.Count = uint32(n)
		packed := wire.EncodePack(items[first : first+n])
		if len(packed) <= wire.MaxInline {
			segment.Inline = packed
		} else {
			hash, _ := h.pages.PutReserved(context.Background(), wire.NewHoldID(), packed)
			segment.Page = hash[:]
		}
		all = append(all, segment)
	}
	return all
}

func hashOf(s string) []byte {
	h := wire.HashOf([]byte(s))
	return h[:]
}

// results reads all results of a job in the order asked for, to its end.
func (p *peer) results(id wire.JobID, unordered bool) (all []*wire.TaskResult, job *wire.Job) {
	p.h.t.Helper()
	for from := uint32(0); ; {
		out, err := p.conn.Call(p.h.t.Context(), &wire.Request{Kind: &wire.Request_ReadResults{ReadResults: &wire.ReadResultsRequest{
			JobId: string(id), From: from, Unordered: unordered, WaitMs: 30_000,
		}}})
		if err != nil {
			p.h.t.Fatal(err)
		}
		r := out.GetReadResults()
		all = append(all, r.GetResults()...)
		if from = r.GetNext(); r.GetEnd() {
			return all, r.GetJob()
		}
	}
}

// breakable is a link that can end as a cut cable ends it: with an error, not
// with a clean end of the stream.
type breakable struct {
	net.Conn
	broken atomic.Bool
}

func (b *breakable) cut() {
	b.broken.Store(true)
	b.Conn.Close()
}

func (b *breakable) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if err != nil && b.broken.Load() {
		err = errors.New("connection reset by peer")
	}
	return n, err
}
