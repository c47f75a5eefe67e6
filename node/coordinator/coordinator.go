package coordinator

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Times of section 6 of the design.
const (
	heartbeatEvery = 10 * time.Second
	// offlineAfter is how long a device may be silent before it counts as
	// offline.
	offlineAfter = 60 * time.Second
	// linkGrace is how long the leases of a broken link are kept.
	linkGrace = 5 * time.Second
	// claimGrace is how long a new coordinator waits for the devices that hold
	// leases of the term before.
	claimGrace = 3 * time.Second
	// sweepEvery is how often the state is asked to forget what is out of date.
	sweepEvery = 5 * time.Minute
	// housekeepEvery is the beat of liveness and of corrected weights.
	housekeepEvery = time.Second
)

// Group is the Raft group as the coordinator needs it.
type Group interface {
	// Propose commits op in term and returns what Apply made of it.
	Propose(ctx context.Context, term uint64, op *wire.Op) (state.OpResult, error)
	// Read calls f with the state under its read lock.
	Read(f func(*state.State))
	// Verify returns an error unless this node leads now.
	Verify(ctx context.Context) error
	// Voters lists who votes.
	Voters() []wire.DeviceID
	// Format returns the newest command format that all voters understand.
	Format() uint32
	// CanLose returns an error with CODE_PRECONDITION, and the reason in words,
	// if the other voters could not go on without that device now.
	CanLose(wire.DeviceID) error
}

// Follower is another server of the Raft group as its leader sees it.
type Follower struct {
	ID    wire.DeviceID
	Voter bool
	// Matched is the end of its log as far as it is known to agree, Lag how many
	// committed entries it lacked at its last answer.
	Matched, Lag uint64
	// Silent is the time since that answer; negative if it has given none in
	// this term.
	Silent time.Duration
}

// Replication is how far the log has come, and the servers that receive it.
type Replication struct {
	Committed uint64
	Followers []Follower
}

// Pages is where bytes lie.
type Pages interface {
	// PutReserved returns when the page is on a quorum of the voters, which keep
	// it for the command that the hold is of. It may use the reserve of their
	// disks: results give the space of inputs back.
	PutReserved(ctx context.Context, hold wire.HoldID, data []byte) (wire.Hash, error)
	// Hold returns nil when a quorum of the voters keep pages that were put
	// before for the command that the hold is of. CODE_NOT_FOUND: some page is on
	// none of most of the voters.
	Hold(ctx context.Context, hold wire.HoldID, pages []wire.Hash) error
	// Get returns a page, from another member if need be. The caller must not
	// change it.
	Get(ctx context.Context, hash wire.Hash) ([]byte, error)
}

// Config is what a Coordinator needs of its node.
type Config struct {
	Identity session.Identity
	Group    Group
	Pages    Pages
	// Replication, if not nil, says how the log comes on; it must not block.
	Replication func() Replication
	// Peers returns where devices can be reached.
	Peers func([]wire.DeviceID) []*wire.Peer
	// Publish tells every node of something that happened; it must not block.
	Publish func(*wire.LogLine)
	Log     *slog.Logger
}

// Coordinator coordinates the swarm for one term.
type Coordinator struct {
	cfg   Config
	term  uint64
	swarm swarmFacts
	packs *packCache
	// deflaters holds *flate.Writer for pages that are asked for compressed.
	deflaters sync.Pool

	invites *rate.Limiter
	// handshakes bounds how often refused strangers are told of.
	handshakes *rate.Limiter
	// kick wakes the dispatcher.
	kick chan struct{}
	// background holds the goroutines that outlive a request: recorders.
	background *errgroup.Group

	mu      sync.Mutex
	ctx     context.Context // Run's; nil before, ended after
	devices map[wire.DeviceID]*device
	// left tells of devices without a session; those that are offline are not
	// in it.
	left map[wire.DeviceID]leaving
	// reports are what members say of themselves.
	reports map[wire.DeviceID]memberReport
	jobs    map[wire.JobID]*jobQueue
	counter uint64 // of attempts in this term
	// debts are the results that are not committed yet.
	debts debts
	// confirmers are at work on results that name pages, by device.
	confirmers map[wire.DeviceID]*confirmer
	staging    staging
	useless    useless
	started    time.Time
	done       doneRate
	ended      bool
	removal    time.Time // when somebody last asked to take this node out
	membersDue bool      // devices are to be told who the members are
	// expelled are the sessions of devices that removed themselves: they end
	// when the answer has had time to arrive.
	expelled []*device
	running  sync.WaitGroup // sessions, and what ends them
	// removing has a token while a device is removed: the last member must stay.
	removing chan struct{} // cap 1
}

// swarmFacts never change within a term.
type swarmFacts struct {
	id         wire.SwarmID
	name       string
	generation uint64
	leaseKey   []byte
}

// New returns the coordinator of one term. The group's state must be up to
// date, as it is after the barrier that opens a leadership.
func New(cfg Config, term uint64) *Coordinator {
	c := &Coordinator{
		cfg:        cfg,
		term:       term,
		packs:      newPackCache(cfg.Pages),
		invites:    rate.NewLimiter(rate.Every(time.Minute/5), 5),
		kick:       make(chan struct{}, 1),
		removing:   make(chan struct{}, 1),
		handshakes: rate.NewLimiter(refusalsPerSecond, refusalBurst),
		devices:    make(map[wire.DeviceID]*device),
		left:       make(map[wire.DeviceID]leaving),
		reports:    make(map[wire.DeviceID]memberReport),
		jobs:       make(map[wire.JobID]*jobQueue),
		debts:      debts{of: make(map[wire.DeviceID]int)},
		confirmers: make(map[wire.DeviceID]*confirmer),
		started:    time.Now(),
	}
	cfg.Group.Read(func(s *state.State) {
		c.swarm = swarmFacts{id: s.SwarmID(), name: s.SwarmName(), generation: s.Generation(), leaseKey: s.LeaseKey()}
		for _, j := range s.OpenJobs() {
			c.jobs[j.ID()] = resumeJob(j, c.started.Add(claimGrace))
		}
	})
	return c
}

// Run coordinates until ctx ends; then it says goodbye to every session, and
// returns when all are gone. It calls begun when Serve takes sessions, and ended
// when it no longer does.
func (c *Coordinator) Run(ctx context.Context, begun, ended func()) error {
	work, ctx := errgroup.WithContext(ctx)
	background, backgroundCtx := errgroup.WithContext(ctx)
	c.mu.Lock()
	c.ctx, c.background = backgroundCtx, background
	c.mu.Unlock()
	begun()
	c.say(lineInfo, c.cfg.Identity.ID, "coordinates the swarm in term %d", c.term)
	work.Go(func() error { return c.dispatch(ctx) })
	work.Go(func() error { return c.housekeep(ctx) })
	err := work.Wait()
	ended()
	c.endSessions()
	c.running.Wait()
	_ = background.Wait() // recorders end with ctx; what they could not record the devices keep
	return err
}

// Term is the term in which it coordinates.
func (c *Coordinator) Term() uint64 { return c.term }

// Serve keeps one session over rw, which it closes. It blocks until the
// session has ended. The error says why.
func (c *Coordinator) Serve(ctx context.Context, rw io.ReadWriteCloser) error {
	c.mu.Lock()
	runCtx := c.ctx
	if runCtx == nil || runCtx.Err() != nil {
		c.mu.Unlock()
		return session.Refuse(ctx, rw, &wire.Refusal{Generation: c.swarm.generation, Error: &wire.Error{
			Code: wire.Code_CODE_NOT_COORDINATOR, Text: "this node does not coordinate",
		}})
	}
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()
	return c.serve(ctx, runCtx, rw)
}

// wake lets the dispatcher plan again.
func (c *Coordinator) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// propose commits an operation on behalf of actor. If it names pages, most of the
// voters have said that they keep them, under the holds that it carries and those
// that were made for this proposal. These end with it or, if it fails, with the
// next one, as all do that are of no use any more: what comes later in the log
// than an operation whose outcome is unknown takes nothing from it.
func (c *Coordinator) propose(ctx context.Context, actor wire.DeviceID, op *wire.Op, made ...wire.HoldID) (state.OpResult, error) {
	op.Actor = string(actor)
	ending := append(c.useless.take(), made...)
	op.Holds = slices.Clip(op.Holds) // they may be a request's
	for _, id := range ending {
		op.Holds = append(op.Holds, id[:])
	}
	result, err := c.cfg.Group.Propose(ctx, c.term, op)
	if err != nil {
		c.useless.add(ending...)
	}
	return result, err
}
