package worker

import (
	"context"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSandbox is a Sandbox whose programs are a function.
type fakeSandbox struct {
	places chan struct{}
	run    func(context.Context, sandbox.Task) sandbox.Result

	mu      sync.Mutex
	batches []int // the sizes of the batches
}

func newFakeSandbox(slots int, run func(context.Context, sandbox.Task) sandbox.Result) *fakeSandbox {
	return &fakeSandbox{places: make(chan struct{}, slots), run: run}
}

// echo gives stdin back.
func echo(_ context.Context, t sandbox.Task) sandbox.Result {
	return sandbox.Result{Stdout: t.Stdin, StdoutSize: uint64(len(t.Stdin)), Duration: time.Microsecond}
}

func (s *fakeSandbox) Run(ctx context.Context, program sandbox.Program, tasks []sandbox.Task, done func(int, sandbox.Result)) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.places }()
	s.mu.Lock()
	s.batches = append(s.batches, len(tasks))
	s.mu.Unlock()
	if _, err := os.Stat(program.Path); err != nil {
		return err
	}
	for i, task := range tasks {
		result := s.run(ctx, task)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		done(i, result)
	}
	return nil
}

// coordinator is a scripted one: it takes the worker's sessions, serves pages
// and passes on what arrives.
type coordinator struct {
	t        *testing.T
	identity session.Identity
	sessions chan *served
	refuse   func() *wire.Refusal // nil, or returning nil: accept

	mu      sync.Mutex
	pages   map[wire.Hash][]byte
	staged  map[wire.Hash][]byte
	reads   int
	answer  func(*wire.Request) error // an error to answer with; may be nil
	running sync.WaitGroup
}

// served is a session that the coordinator has taken.
type served struct {
	t       *testing.T
	conn    *session.Conn
	hello   *wire.Hello
	link    io.Closer // the coordinator's end of the stream
	results chan *wire.Results
	beats   chan *wire.Heartbeat
}

func newCoordinator(t *testing.T) *coordinator {
	return &coordinator{
		t: t, identity: sessiontest.NewIdentity("coordinator"),
		sessions: make(chan *served, 100),
		pages:    make(map[wire.Hash][]byte),
		staged:   make(map[wire.Hash][]byte),
	}
}

// dial is the worker's way to the coordinator.
func (c *coordinator) dial(context.Context) (io.ReadWriteCloser, error) {
	a, b := net.Pipe()
	c.running.Go(func() { c.serve(b) })
	return a, nil
}

func (c *coordinator) serve(rw io.ReadWriteCloser) {
	if c.refuse != nil {
		if refusal := c.refuse(); refusal != nil {
			session.Refuse(context.Background(), rw, refusal)
			return
		}
	}
	conn, hello, err := session.AcceptConn(context.Background(), rw, sessiontest.NewAccept(c.identity))
	if err != nil {
		return
	}
	s := &served{t: c.t, conn: conn, hello: hello, link: rw, results: make(chan *wire.Results, 10_000), beats: make(chan *wire.Heartbeat, 1000)}
	c.sessions <- s
	conn.Run(context.Background(), session.Handler{Request: c.request, Frame: s.frame})
}

func (s *served) frame(f *wire.Frame) error {
	switch kind := f.GetKind().(type) {
	case *wire.Frame_Results:
		s.results <- kind.Results
	case *wire.Frame_Heartbeat:
		s.beats <- kind.Heartbeat
	}
	return nil
}

func (c *coordinator) request(_ context.Context, r *wire.Request) *wire.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer != nil {
		if err := c.answer(r); err != nil {
			return &wire.Response{Error: wire.EncodeError(err)}
		}
	}
	switch kind := r.GetKind().(type) {
	case *wire.Request_ReadPage:
		c.reads++
		page := c.pages[wire.Hash(kind.ReadPage.GetHash())]
		from := kind.ReadPage.GetOffset()
		if page == nil || from > uint32(len(page)) {
			return &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_NOT_FOUND, Text: "no such page"}}
		}
		to := min(from+kind.ReadPage.GetLength(), uint32(len(page)))
		return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{Data: page[from:to], Size: uint32(len(page))}}}
	case *wire.Request_WritePage:
		return c.writePage(kind.WritePage)
	}
	return &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_INVALID}}
}

// writePage takes the ranges of a page, in order only.
func (c *coordinator) writePage(w *wire.WritePageRequest) *wire.Response {
	name := wire.Hash(w.GetHash())
	if w.GetOffset() == 0 {
		c.staged[name] = nil
	}
	if len(c.staged[name]) != int(w.GetOffset()) {
		return &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_PRECONDITION, Text: "not the next range"}}
	}
	c.staged[name] = append(c.staged[name], w.GetData()...)
	if len(c.staged[name]) == int(w.GetSize()) {
		if wire.HashOf(c.staged[name]) != name {
			return &wire.Response{Error: &wire.Error{Code: wire.Code_CODE_INVALID, Text: "damaged"}}
		}
		c.pages[name] = c.staged[name]
	}
	return &wire.Response{Kind: &wire.Response_WritePage{WritePage: &wire.WritePageResponse{}}}
}

// store puts bytes into pages.
func (c *coordinator) store(data []byte) *wire.Blob {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(data)
	blob := &wire.Blob{Size: uint64(len(data)), Hash: sum[:]}
	for at := 0; at < len(data); at += wire.PageSize {
		page := data[at:min(len(data), at+wire.PageSize)]
		name := wire.HashOf(page)
		c.pages[name] = page
		blob.Pages = append(blob.Pages, name[:])
	}
	return blob
}

// spec returns the spec of a job with a program of its own.
func (c *coordinator) spec(program string) *wire.JobSpec {
	return &wire.JobSpec{
		Program: &wire.Program{Name: "prog.wasm", Blob: c.store([]byte(program))},
		Args:    []string{"-x"}, Env: []string{"K=V"},
		TimeoutMs: 600_000, MemoryMib: 256, MaxOutputBytes: 16 << 20,
	}
}

// newLeaseFrame returns a lease of tasks first … first+n-1, each with its index
// in decimal as input.
func newLeaseFrame(job string, counter uint64, spec *wire.JobSpec, inputs map[uint32][]byte) *wire.Lease {
	l := &wire.Lease{Spec: spec, Claim: &wire.LeaseClaim{
		JobId: job, Attempt: &wire.Attempt{Term: 7, Counter: counter}, Token: []byte("token"),
	}}
	for i := uint32(0); len(l.Inputs) < len(inputs); i++ {
		if input, ok := inputs[i]; ok {
			l.Claim.Indexes = append(l.Claim.Indexes, i)
			l.Inputs = append(l.Inputs, &wire.LeasedInput{Inline: input})
		}
	}
	return l
}

// inputs returns n inputs from index first on.
func inputs(first, n uint32) map[uint32][]byte {
	m := make(map[uint32][]byte)
	for i := first; i < first+n; i++ {
		m[i] = []byte{byte(i), byte(i >> 8)}
	}
	return m
}

func (s *served) send(f *wire.Frame) {
	s.t.Helper()
	if err := s.conn.Send(context.Background(), f); err != nil {
		s.t.Errorf("sending: %v", err)
	}
}

func (s *served) lease(l *wire.Lease) {
	s.t.Helper()
	s.send(&wire.Frame{Kind: &wire.Frame_Lease{Lease: l}})
}

func (s *served) cancel(counter uint64, indexes ...uint32) {
	s.send(&wire.Frame{Kind: &wire.Frame_CancelTasks{CancelTasks: &wire.CancelTasks{Attempt: &wire.Attempt{Term: 7, Counter: counter}, Indexes: indexes}}})
}

// ack acknowledges results.
func (s *served) ack(r *wire.Results) {
	ack := &wire.ResultsAck{Attempt: r.GetAttempt()}
	for _, result := range r.GetResults() {
		ack.Indexes = append(ack.Indexes, result.GetIndex())
	}
	s.send(&wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: ack}})
}

// collect acknowledges and returns the next n results.
func (s *served) collect(n int) map[uint32]*wire.TaskResult {
	got := make(map[uint32]*wire.TaskResult)
	for len(got) < n {
		r := <-s.results
		for _, result := range r.GetResults() {
			if got[result.GetIndex()] != nil {
				s.t.Errorf("task %d was reported twice", result.GetIndex())
			}
			got[result.GetIndex()] = result
		}
		s.ack(r)
	}
	return got
}

// start runs a worker until the test ends.
func start(t *testing.T, c *coordinator, slots int, s Sandbox) *Worker {
	t.Helper()
	return startMember(t, c, slots, s, nil)
}

// startMember is start for a device that reports in its heartbeats.
func startMember(t *testing.T, c *coordinator, slots int, s Sandbox, report func() *wire.MemberReport) *Worker {
	t.Helper()
	return startConfig(t, c, Config{Slots: slots, Sandbox: s, Report: report})
}

// startConfig runs a worker of the coordinator's, in a folder of its own, until the
// test ends.
func startConfig(t *testing.T, c *coordinator, config Config) *Worker {
	t.Helper()
	config.Link = LinkConfig{
		Identity: sessiontest.NewIdentity("device"), Dial: c.dial, Trust: sessiontest.TrustAll,
		Hello: func() *wire.Hello { return sessiontest.NewHello(0) },
	}
	config.Dir = t.TempDir()
	w, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		c.running.Wait()
	})
	return w
}
