package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Timing of the group. 500/500/250 ms is the fastest setting without unwanted
// elections on a loaded machine (measured.md).
const (
	heartbeatTimeout = 500 * time.Millisecond
	electionTimeout  = 500 * time.Millisecond
	leaseTimeout     = 250 * time.Millisecond
	// commitTimeout bounds how long a follower learns of the last commit later
	// than the leader when nothing else is sent; it is what an idle group costs.
	commitTimeout = 250 * time.Millisecond
	// rpcTimeout bounds one exchange between members, dial included.
	rpcTimeout = 5 * time.Second
	// handOverTimeout bounds how long a stopping leader tries to hand over.
	handOverTimeout = 3 * time.Second
	// settleTimeout bounds how long Close waits for entries in flight. Raft ends
	// them within the lease where there is no quorum.
	settleTimeout = 2 * time.Second
)

// Sizes of the log.
const (
	// snapshotBytes of log, or snapshotEntries, make a snapshot due.
	snapshotBytes   = 64 << 20
	snapshotEntries = 1 << 14
	// snapshotInterval is how often raft looks at its count of entries.
	snapshotInterval = 30 * time.Second
	// trailingEntries stay in the log after a snapshot, so that a follower a
	// little behind needs no snapshot.
	trailingEntries = 256
	// maxAppendEntries bounds a batch to a follower: 4 MiB of full entries.
	maxAppendEntries = 16
)

// Options say what a Group works with.
type Options struct {
	// Self is this device.
	Self wire.DeviceID
	// Dir is the folder of raft.db and the snapshots. Open makes it.
	Dir string
	// Generation of the swarm as the caller knows it: 0 or 1 where no recovery
	// has raised it. A log of an older generation is set aside by Open, which
	// then starts with an empty folder.
	Generation uint64
	// Superseded is called when a member of a newer generation of the swarm was
	// met, once for each higher value; this node has left the group by then. The
	// caller closes the Group, sets its folder aside (SetAside) and opens a new
	// one. It must not block. May be nil.
	Superseded func(generation uint64)
	// PagesMissing says how many of the pages that the state names a member
	// lacks; known is false where that is not known. A standby takes the place of
	// an absent voter only when it is known to lack none. It must not call the
	// Group, nor block. Nil stands for members that lack none.
	PagesMissing func(id wire.DeviceID) (n uint64, known bool)
	// Streams carries raft between members; its addresses are device IDs. The
	// Group owns it from Open on, closes it, and does so also when Open fails.
	Streams raft.StreamLayer
	// Pages is told, after each entry and in order, of which term it is, which
	// pages the state names now and did not before, which it names no more, and
	// which holds have ended: those of the entry's operations that were not
	// refused. After a snapshot was installed (the first may be before Open
	// returns) named is all of them, and term 0. It runs on the goroutine that
	// applies: it must not block long, nor call the Group. May be nil.
	Pages func(term uint64, named, released []wire.Hash, ended []wire.HoldID)
	// Changed is called when an entry was applied, or the leader or the servers
	// changed. Concurrent calls are possible; it must not block. May be nil.
	Changed func()
	// Log receives what an operator would act on. Nil discards it.
	Log *slog.Logger
	// Wrap puts something between the group and its disk, for tests of disks
	// that fail. Nil changes nothing.
	Wrap func(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore)
	// Clock tells the time that commands are given, for tests of clocks that jump.
	// Nil means time.Now.
	Clock func() time.Time
	// Faults break the group on purpose, for tests that check the checks.
	Faults Faults
}

// Faults are ways in which a group can be broken, so that a test can show that
// it would notice. The zero value breaks nothing.
type Faults struct {
	// NoReplicas: a device that lost its log is taken for the server that it was,
	// and votes from memory that it lacks.
	NoReplicas bool
	// NoSync: what was written to the log is not made durable.
	NoSync bool
}

// Group is this node's membership of the swarm's Raft group. Its methods may be
// called concurrently, unless they say otherwise.
type Group struct {
	me         Server // this node's memory, as a voter
	generation uint64
	fence      fence
	dir        string
	log        *slog.Logger
	raft       *raft.Raft
	fsm        *fsm
	transport  *transport
	streams    *streams
	stores     *stores
	disk       *disk
	held       held
	currency   currency
	observer   *raft.Observer
	committer  *committer
	hadState   bool
	tune       tuning
	clock      func() time.Time

	changes notifier // leader, servers, faults
	applied func()   // Options.Changed
	missing func(wire.DeviceID) (uint64, bool)
	members chan struct{} // cap 1: the registry's members may have changed
	running atomic.Bool

	closing   chan struct{} // closed when Close begins
	closeOnce sync.Once
	closeErr  error
	closed    chan struct{} // closed when Close is done
	wait      sync.WaitGroup

	futuresMu sync.Mutex // guards adding to futures once closing has begun
	futures   sync.WaitGroup
}

// tuning is what tests make smaller.
type tuning struct {
	snapshotBytes    int64
	snapshotEntries  uint64
	trailingEntries  uint64
	absentAfter      time.Duration
	reconcileIdle    time.Duration
	reconcileHurried time.Duration

	heartbeat, election, lease time.Duration
}

func defaultTuning() tuning {
	return tuning{
		snapshotBytes:    snapshotBytes,
		snapshotEntries:  snapshotEntries,
		trailingEntries:  trailingEntries,
		absentAfter:      absentAfter,
		reconcileIdle:    reconcileIdle,
		reconcileHurried: reconcileHurried,
		heartbeat:        heartbeatTimeout,
		election:         electionTimeout,
		lease:            leaseTimeout,
	}
}

// Open opens the folder and takes part in the group that it remembers. With an
// empty folder the Group waits: to be founded, or to be contacted by the leader
// of a group whose registry has this device as a member.
//
// Errors: CODE_CONFLICT when another process uses the folder, CODE_VERSION when
// it was written by a newer version, CODE_INTERNAL, naming the file, when
// something in it is damaged.
//
// An interrupted Recover is finished or undone first.
func Open(o Options) (*Group, error) {
	st, err := openFolder(o)
	if err != nil {
		o.Streams.Close()
		return nil, err
	}
	g, err := open(o, st, defaultTuning())
	if err != nil {
		o.Streams.Close()
		return nil, errors.Join(err, st.close())
	}
	return g, nil
}

// openFolder opens the folder's stores, after it has been put in order.
func openFolder(o Options) (*stores, error) {
	if err := resumeRecovery(o.Dir); err != nil {
		return nil, err
	}
	st, err := openStores(o)
	if err != nil {
		return nil, err
	}
	generation, had, err := st.generation()
	if err != nil {
		return nil, errors.Join(damaged(o.Dir, err), st.close())
	}
	if !had || generation >= o.Generation {
		return st, nil
	}
	if err := st.close(); err != nil {
		return nil, err
	}
	kept, err := SetAside(o.Dir, fmt.Sprintf("generation-%d", generation))
	if err != nil {
		return nil, err
	}
	loggerOf(o).Warn("the log is of an older generation of the swarm: it was set aside, and this node starts with an empty one",
		"generation", o.Generation, "kept", kept)
	return openStores(o)
}

func loggerOf(o Options) *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log.With("component", "consensus")
}

// open makes a Group over stores that are open. The caller closes them, and the
// streams, if it fails.
func open(o Options, st *stores, tune tuning) (*Group, error) {
	g := &Group{
		dir:     o.Dir,
		log:     loggerOf(o),
		stores:  st,
		tune:    tune,
		members: make(chan struct{}, 1),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
		applied: o.Changed,
		missing: o.PagesMissing,
		clock:   o.Clock,
	}
	if g.clock == nil {
		g.clock = time.Now
	}
	g.fence.superseded = o.Superseded
	g.fsm = newFSM(fsmHooks{
		pages:    o.Pages,
		changed:  g.change,
		members:  func() { nudge(g.members) },
		snapshot: tune.snapshotBytes,
	})
	if err := g.identify(o); err != nil {
		return nil, damaged(o.Dir, err)
	}
	logger := newRaftLog(g.log)
	g.streams = newStreams(o.Streams, g.card(o))
	var err error
	g.transport = newTransport(g, g.streams, logger)
	g.disk = newDisk(g, st)
	if g.raft, err = g.start(logger); err != nil {
		g.transport.Close()
		g.streams.closeConns()
		return nil, err
	}
	g.disk.live.Store(true)
	g.observe()
	g.committer = newCommitter(g)
	g.wait.Go(g.committer.run)
	g.wait.Go(g.committer.settle)
	g.wait.Go(g.takeSnapshots)
	g.streams.start()
	return g, nil
}

// start makes the raft instance, which restores the snapshot and reads the log.
func (g *Group) start(logger *raftLog) (r *raft.Raft, err error) {
	defer func() {
		if fault := recover(); fault != nil { // NewRaft panics at a gap in the log
			r, err = nil, damaged(g.dir, fmt.Errorf("%v", fault))
		}
	}()
	conf := raft.DefaultConfig()
	conf.LocalID = g.me.id()
	conf.HeartbeatTimeout = g.tune.heartbeat
	conf.ElectionTimeout = g.tune.election
	conf.LeaderLeaseTimeout = g.tune.lease
	conf.CommitTimeout = commitTimeout
	conf.MaxAppendEntries = maxAppendEntries
	conf.BatchApplyCh = true
	conf.ShutdownOnRemove = false
	conf.SnapshotInterval = snapshotInterval
	conf.SnapshotThreshold = g.tune.snapshotEntries
	conf.TrailingLogs = g.tune.trailingEntries
	conf.NoLegacyTelemetry = true
	conf.Logger = logger
	cache, err := raft.NewLogCache(cachedEntries, g.disk)
	if err != nil {
		return nil, err
	}
	r, err = raft.NewRaft(conf, g.fsm, cache, g.disk, g.stores.snapshots, g.transport)
	if fault := g.fsm.fault(); fault != nil {
		err = fault // says more than raft, which only logs why a snapshot was refused
	} else if err != nil {
		err = damaged(g.dir, err)
	}
	if err != nil && r != nil {
		return nil, errors.Join(err, r.Shutdown().Error())
	}
	return r, err
}

// observe turns raft's observations into changes.
func (g *Group) observe() {
	observed := make(chan raft.Observation, 64)
	g.observer = raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation:
			return true
		}
		return false
	})
	g.raft.RegisterObserver(g.observer)
	g.wait.Go(func() {
		for {
			select {
			case <-observed:
				g.change()
			case <-g.closing:
				return
			}
		}
	})
}

// change wakes who waits for the group to change, and tells the caller of Open.
func (g *Group) change() {
	g.changes.notify()
	if g.applied != nil {
		g.applied()
	}
}

// takeSnapshots takes one each time the log has grown by snapshotBytes.
func (g *Group) takeSnapshots() {
	for {
		select {
		case <-g.closing:
			return
		case <-g.fsm.snapshotDue:
		}
		err := g.raft.Snapshot().Error()
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
			g.log.Warn("no snapshot could be taken; the log grows until one can", "error", err)
		}
	}
}

// HasState reports whether the folder held a log or a snapshot when it was
// opened. It says nothing about whether the swarm's founding was committed.
func (g *Group) HasState() bool { return g.hadState }

// Found makes this node the sole voter of a new group and commits its first
// operation. On a folder where an earlier Found was interrupted it goes on from
// there, with the same keys or others; where another swarm was founded, or a
// group joined, it is CODE_CONFLICT. It needs no Run.
func (g *Group) Found(ctx context.Context, found *wire.FoundSwarm) error {
	err := g.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{g.me.raft()}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) && !g.soleVoter() {
		return wire.Errorf(wire.Code_CODE_CONFLICT, "%s already belongs to a swarm", g.dir)
	}
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("founding a group in %s: %w", g.dir, err)
	}
	term, err := g.awaitLead(ctx)
	if err != nil {
		return err
	}
	_, err = g.Propose(ctx, term, &wire.Op{
		Actor: found.GetFounder(),
		Kind:  &wire.Op_FoundSwarm{FoundSwarm: found},
	})
	return err
}

func (g *Group) soleVoter() bool {
	voters := slices.DeleteFunc(g.Servers(), func(s Server) bool { return !s.Voter })
	return len(voters) == 1 && voters[0] == g.me
}

// Replica names this node's memory of the log, for its profile in the registry:
// 16 hex digits, or "" for a folder that was made before replicas had names.
func (g *Group) Replica() string { return g.me.Replica }

// Generation returns the generation of the swarm that this node's log belongs
// to: 1 before any recovery.
func (g *Group) Generation() uint64 { return g.generation }

// Read calls f with the state under the read lock. f must be short, must not
// call the Group, and must not keep what it read.
func (g *Group) Read(f func(*state.State)) { g.fsm.read(f) }

// ReadAt is Read, and tells f the index of the last entry of the log that the
// state holds: two nodes with the same index have the same state. It is 0 while
// that is not known: before the first entry, and after a snapshot was installed
// until the next entry.
func (g *Group) ReadAt(f func(index uint64, s *state.State)) { g.fsm.readAt(f) }
