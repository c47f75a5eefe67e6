package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Heartbeats come at the interval that the coordinator asks for, within these.
const (
	defaultHeartbeat = 10 * time.Second
	shortestBeat     = time.Second
	longestBeat      = time.Minute
)

// Sandbox runs programs: *sandbox.Pool, whose contract this is.
type Sandbox interface {
	Run(ctx context.Context, program sandbox.Program, tasks []sandbox.Task, done func(i int, r sandbox.Result)) error
}

// Config is what a worker needs.
type Config struct {
	// Link leads to the coordinator. The worker adds slots, leases and programs
	// to what its Hello returns.
	Link LinkConfig
	// Slots is the number of tasks run at one time. With 0 the worker offers
	// none, and its link serves requests only.
	Slots int
	// Sandbox runs the tasks, with as many slots.
	Sandbox Sandbox
	// Unwell says why the sandbox can run nothing now, "" if it can, with what is
	// closed when that changes: (*sandbox.Pool).Unwell. Nil means that it always
	// can.
	Unwell func() (why string, changed <-chan struct{})
	// Dir is the data folder: the worker owns its programs/ and work/.
	Dir string
	// Report says what a member has to say of itself in each heartbeat; it must
	// not block. Nil on workers.
	Report func() *wire.MemberReport
	// Log takes what an operator would act on; nil means nowhere.
	Log *slog.Logger
}

// Worker runs the tasks that the coordinator leases to this device. Its methods
// may be called from several goroutines.
type Worker struct {
	config   Config
	self     wire.DeviceID
	log      *slog.Logger
	workDir  string
	link     *Link
	call     call
	holdings *holdings
	uploads  chan struct{}      // a token for each page on its way
	beat     chan time.Duration // capacity 1: the interval of heartbeats
	news     chan struct{}      // capacity 1: a heartbeat is due at once

	tasks sync.WaitGroup  // fetches and uploads under way
	ctx   context.Context // theirs: Run's
}

// Status is what a worker is doing.
type Status struct {
	Connected bool
	// Coordinator is the other end of the session; "" without one.
	Coordinator wire.DeviceID
	Slots       int
	// Running and Queued count tasks, Leases what they belong to.
	Running, Queued, Leases int
	// Unacknowledged is the bytes of results that are kept until they are
	// recorded, in memory and in files.
	Unacknowledged uint64
	// ProgramBytes is the space that programs take on disk.
	ProgramBytes uint64
}

// New returns a worker that does nothing until Run. It clears what an earlier
// process left half done in the data folder.
func New(config Config) (*Worker, error) {
	w := &Worker{
		config:  config,
		self:    config.Link.Identity.ID,
		log:     config.Log,
		workDir: filepath.Join(config.Dir, "work"),
		uploads: make(chan struct{}, pagesInFlight),
		beat:    make(chan time.Duration, 1),
		news:    make(chan struct{}, 1),
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if err := os.RemoveAll(w.workDir); err != nil {
		return nil, fmt.Errorf("clearing the folder of large inputs and outputs: %w", err)
	}
	if err := os.MkdirAll(w.workDir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of large inputs and outputs: %w", err)
	}
	link := config.Link
	link.Hello = w.hello
	w.link = NewLink(link, Handler{Opened: w.opened, Frame: w.frame, Closed: w.closed})
	w.call = w.link.Call
	programs, err := openPrograms(filepath.Join(config.Dir, "programs"), maxPrograms, w.call)
	if err != nil {
		return nil, err
	}
	w.holdings = newHoldings(config.Slots, programs)
	return w, nil
}

// Link returns the worker's link, for the node's own requests.
func (w *Worker) Link() *Link { return w.link }

// Run works until ctx ends, says goodbye, ends what runs and returns ctx's
// error. It is called once at most.
func (w *Worker) Run(ctx context.Context) error {
	w.ctx = ctx
	var parts sync.WaitGroup
	// A slot always has a batch ready: twice as many runners as slots.
	for range 2 * w.config.Slots {
		parts.Go(func() { w.runBatches(ctx) })
	}
	parts.Go(func() { w.report(ctx) })
	parts.Go(func() { w.heartbeats(ctx) })
	parts.Go(func() { w.watchHealth(ctx) })
	stop := context.AfterFunc(ctx, w.holdings.stop)
	defer stop()
	err := w.link.Run(ctx)
	parts.Wait()
	w.tasks.Wait()
	return err
}

// Status returns what the worker is doing.
func (w *Worker) Status() Status {
	s := Status{Connected: w.link.Connected(), Coordinator: w.link.Coordinator(), Slots: w.config.Slots}
	h := w.holdings
	h.programs.mu.Lock()
	s.ProgramBytes = uint64(h.programs.bytes)
	h.programs.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Running, s.Queued, s.Leases = h.running, h.waiting, len(h.leases)
	s.Unacknowledged = uint64(h.kept + h.keptFiles)
	return s
}

// hello says what this device is, and what it holds.
func (w *Worker) hello() *wire.Hello {
	hello := w.config.Link.Hello()
	hello.Slots = uint32(w.config.Slots)
	hello.Leases = w.holdings.claims()
	hello.Programs = w.holdings.programs.names()
	return hello
}

func (w *Worker) opened(conn *session.Conn, welcome *wire.Welcome) {
	w.holdings.opened(conn)
	interval := time.Duration(welcome.GetHeartbeatMs()) * time.Millisecond
	if interval <= 0 {
		interval = defaultHeartbeat
	}
	select {
	case <-w.beat: // the interval of a session that is over
	default:
	}
	w.beat <- min(max(interval, shortestBeat), longestBeat)
}

func (w *Worker) closed() { w.holdings.closed() }

// frame takes what the coordinator sends.
func (w *Worker) frame(frame *wire.Frame) error {
	switch kind := frame.GetKind().(type) {
	case *wire.Frame_Lease:
		if w.config.Slots == 0 {
			return errors.New("a lease for a device without slots")
		}
		job, err := w.holdings.add(kind.Lease)
		if err != nil {
			return err
		}
		if job != nil {
			w.tasks.Go(func() { w.fetchProgram(job) })
		}
	case *wire.Frame_CancelTasks:
		w.holdings.cancel(kind.CancelTasks)
	case *wire.Frame_ResultsAck:
		w.holdings.acknowledge(kind.ResultsAck)
		w.writeAnew(kind.ResultsAck)
	}
	return nil
}

// fetchProgram brings a job's program here; if that cannot be, the job's tasks
// fail.
func (w *Worker) fetchProgram(j *job) {
	path, err := w.holdings.programs.acquire(w.ctx, j.spec.GetProgram().GetBlob())
	if w.ctx.Err() != nil {
		return
	}
	if err != nil {
		w.log.Warn("a program cannot be had", "job", j.id, "error", err)
	}
	for _, t := range w.holdings.fetched(j, path, err) {
		w.fail(t, err)
	}
}

// heartbeats says now and then how the device is, until ctx ends.
func (w *Worker) heartbeats(ctx context.Context) {
	interval := defaultHeartbeat
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case interval = <-w.beat:
		case <-w.news:
		case <-timer.C:
		}
		timer.Reset(interval)
		conn, _, _ := w.link.current()
		if conn == nil {
			continue
		}
		running, queued := w.holdings.counts()
		beat := &wire.Heartbeat{Running: uint32(running), Queued: uint32(queued), Load: loadAverage() / float64(runtime.NumCPU())}
		beat.Unwell, _ = w.unwell()
		if w.config.Report != nil {
			beat.Member = w.config.Report()
		}
		conn.Send(ctx, &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: beat}}) // an error means that the session has ended
	}
}
