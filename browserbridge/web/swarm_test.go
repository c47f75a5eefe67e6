package web_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/web"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const testSwarm wire.SwarmID = "000102030405060708090a0b0c0d0e0f"

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func identity(name string) session.Identity {
	key := testKey(name)
	return session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key}
}

// swarm is a coordinator that does what its test says, with the bridges that
// lead to it.
type swarm struct {
	t        testing.TB
	sessions chan *deviceSession

	mu      sync.Mutex
	bridges []*bridge
	members map[wire.DeviceID]bool // devices that were admitted
	refusal error                  // of every join
	removed map[wire.DeviceID]bool // devices that get no session any more
	silent  bool                   // sessions are taken, and then nothing is said
	offers  int                    // that bridges were posted
	joins   []*wire.JoinRequest
	pages   map[wire.Hash][]byte
	reads   int // of pages
	term    uint64
	invite  ed25519.PublicKey // nil takes every one
	tasks   sync.WaitGroup
}

// bridge is a real bridge, and its public listener.
type bridge struct {
	*browserbridge.Bridge
	server *httptest.Server
	url    string
}

// deviceSession is the coordinator's end of a session.
type deviceSession struct {
	conn    *session.Conn
	hello   *wire.Hello
	results chan *wire.Results
	ended   chan error // its end, once
}

func newSwarm(t testing.TB) *swarm {
	s := &swarm{
		t: t, sessions: make(chan *deviceSession, 16), term: 1,
		members: make(map[wire.DeviceID]bool), removed: make(map[wire.DeviceID]bool), pages: make(map[wire.Hash][]byte),
	}
	t.Cleanup(s.close)
	return s
}

func (s *swarm) close() {
	for _, b := range s.bridges {
		b.Close()
		b.server.CloseClientConnections()
		b.server.Close()
	}
	s.tasks.Wait()
}

// bridge adds a bridge.
func (s *swarm) bridge(name string) *bridge {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	id := identity(name)
	b := &bridge{url: "http://" + listener.Addr().String()}
	b.Bridge = browserbridge.New(browserbridge.Config{
		ID: id.ID, Key: id.Key, Swarm: testSwarm, SwarmName: func() string { return "the flock" },
		Address: netip.MustParseAddrPort(listener.Addr().String()),
		Dial:    s.dial, Role: s.role, Admit: s.admit, Bridges: s.urls, Audit: func(string) {}, Log: slog.New(slog.DiscardHandler),
	})
	mux := http.NewServeMux()
	mux.Handle("/", web.Pages())
	mux.HandleFunc("/signal", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			s.mu.Lock()
			s.offers++
			s.mu.Unlock()
		}
		b.Bridge.ServeHTTP(w, r)
	})
	b.server = httptest.NewUnstartedServer(mux)
	b.server.Listener.Close()
	b.server.Listener = listener
	b.server.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bridges = append(s.bridges, b)
	return b
}

// link is an invite's link by a bridge.
func (b *bridge) link() string {
	return p2p.Invite{Swarm: testSwarm, Secret: [16]byte{1, 2, 3}, PublicURL: b.url}.Link()
}

func (s *swarm) urls() (urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bridges {
		urls = append(urls, b.url)
	}
	return urls
}

func (s *swarm) role(id wire.DeviceID) (wire.Role, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[id] {
		return wire.Role_ROLE_WORKER, false
	}
	return wire.Role_ROLE_UNSPECIFIED, false
}

func (s *swarm) admit(_ context.Context, join *wire.JoinRequest) (*wire.AdmitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joins = append(s.joins, join)
	if s.refusal != nil {
		return nil, s.refusal
	}
	if s.invite != nil && !s.invite.Equal(ed25519.PublicKey(join.GetInviteKey())) {
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no such invite")
	}
	s.members[wire.DeviceID(join.GetDeviceId())] = true
	return &wire.AdmitResponse{Role: wire.Role_ROLE_WORKER, Generation: 1, SwarmName: "the flock"}, nil
}

// dial gives the bridge a stream to the coordinator, which serves it.
func (s *swarm) dial(context.Context) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	s.tasks.Go(func() { s.serve(theirs) })
	return ours, nil
}

func (s *swarm) serve(rw io.ReadWriteCloser) {
	s.mu.Lock()
	term, silent := s.term, s.silent
	s.mu.Unlock()
	d := &deviceSession{results: make(chan *wire.Results, 4096), ended: make(chan error, 1)}
	var err error
	d.conn, d.hello, err = session.AcceptConn(s.t.Context(), rw, session.Accept{
		Identity: identity("coordinator"), Swarm: testSwarm, Generation: 1, Term: term,
		Admit: func(h *wire.Hello) (*wire.Welcome, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.removed[wire.DeviceID(h.GetDeviceId())] {
				return nil, wire.Errorf(wire.Code_CODE_REMOVED, "this device was removed from the swarm")
			}
			return &wire.Welcome{Role: wire.Role_ROLE_WORKER, HeartbeatMs: 1000, SwarmName: "the flock", DeviceName: h.GetProfile().GetName()},
				wire.CheckProfile(h.GetProfile())
		},
	})
	if err != nil {
		return // the page went away
	}
	select {
	case s.sessions <- d:
	default:
		s.t.Error("more sessions than the test expects")
	}
	if silent {
		_, _ = io.Copy(io.Discard, rw) // until the bridge ends it
		_ = d.conn.Close("the test is over", false)
		return
	}
	d.ended <- d.conn.Run(context.Background(), session.Handler{
		Request: s.answer,
		Frame: func(f *wire.Frame) error {
			if r := f.GetResults(); r != nil {
				d.results <- r
			}
			return nil
		},
	})
}

// answer serves pages.
func (s *swarm) answer(_ context.Context, r *wire.Request) *wire.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind := r.GetKind().(type) {
	case *wire.Request_ReadPage:
		s.reads++
		page := s.pages[wire.Hash(kind.ReadPage.GetHash())]
		from := min(len(page), int(kind.ReadPage.GetOffset()))
		to := min(len(page), from+int(kind.ReadPage.GetLength()))
		data, small := page[from:to], deflate(page[from:to])
		if kind.ReadPage.GetDeflate() && len(small) < len(data) {
			data = small
		}
		return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{
			Data: data, Size: uint32(len(page)), Deflated: len(data) < to-from,
		}}}
	case *wire.Request_WritePage:
		w := kind.WritePage
		hash := wire.Hash(w.GetHash())
		s.pages[hash] = append(s.pages[hash][:w.GetOffset()], w.GetData()...)
		return &wire.Response{Kind: &wire.Response_WritePage{WritePage: &wire.WritePageResponse{}}}
	}
	return &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_INVALID, Text: "the test does not serve that"}}
}

// store puts bytes into pages.
func (s *swarm) store(b []byte) *wire.Blob {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash := wire.HashOf(b)
	blob := &wire.Blob{Size: uint64(len(b)), Hash: hash[:]}
	for page := range slices.Chunk(b, wire.PageSize) {
		name := wire.HashOf(page)
		s.pages[name] = page
		blob.Pages = append(blob.Pages, name[:])
	}
	return blob
}

// load reads what lies in pages.
func (s *swarm) load(blob *wire.Blob) (b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range blob.GetPages() {
		b = append(b, s.pages[wire.Hash(name)]...)
	}
	return b
}

// spec is a job of a program of node/sandbox.
func (s *swarm) spec(file string) *wire.JobSpec {
	s.t.Helper()
	module, err := os.ReadFile("../../node/sandbox/" + file)
	if err != nil {
		s.t.Fatal(err)
	}
	return &wire.JobSpec{Program: &wire.Program{Name: file, Blob: s.store(module)}, TimeoutMs: 60_000, MemoryMib: 64, MaxOutputBytes: 16 << 20}
}

// session waits for the next session.
func (s *swarm) session() *deviceSession {
	s.t.Helper()
	select {
	case d := <-s.sessions:
		return d
	case <-time.After(patience):
		s.t.Fatalf("no session within %v", patience)
		return nil
	}
}

// lease leases a job's tasks from index first on.
func (d *deviceSession) lease(t testing.TB, counter uint64, spec *wire.JobSpec, first uint32, inputs ...*wire.LeasedInput) {
	t.Helper()
	claim := &wire.LeaseClaim{JobId: "job", Attempt: &wire.Attempt{Term: d.conn.Term(), Counter: counter}, Token: []byte("token")}
	for i := range inputs {
		claim.Indexes = append(claim.Indexes, first+uint32(i))
	}
	frame := &wire.Frame{Kind: &wire.Frame_Lease{Lease: &wire.Lease{Claim: claim, Spec: spec, Inputs: inputs}}}
	if err := d.conn.Send(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
}

// lines are n inputs, "line 0\n" and so on.
func lines(first, n int) (inputs []*wire.LeasedInput) {
	for i := range n {
		inputs = append(inputs, &wire.LeasedInput{Inline: fmt.Appendf(nil, "line %d\n", first+i)})
	}
	return inputs
}

// take waits for n results and acknowledges them if that is wanted.
func (d *deviceSession) take(t testing.TB, n int, acknowledge bool) map[uint32]*wire.TaskResult {
	t.Helper()
	got := make(map[uint32]*wire.TaskResult)
	timeout := time.After(patience)
	for len(got) < n {
		select {
		case r := <-d.results:
			ack := &wire.ResultsAck{Attempt: r.GetAttempt()}
			for _, result := range r.GetResults() {
				if got[result.GetIndex()] != nil {
					t.Errorf("the result of task %d came twice", result.GetIndex())
				}
				got[result.GetIndex()] = result
				ack.Indexes = append(ack.Indexes, result.GetIndex())
			}
			if acknowledge {
				d.conn.Post(&wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: ack}})
			}
		case <-timeout:
			t.Fatalf("%d of %d results within %v", len(got), n, patience)
		}
	}
	return got
}

// end waits for the session's end.
func (d *deviceSession) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(patience):
		t.Fatalf("the session did not end within %v", patience)
		return nil
	}
}
