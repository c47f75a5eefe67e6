package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// stallGrace is how long a node whose disk hangs tries to end in good order.
const stallGrace = 5 * time.Second

// node is one device put together.
//
//	control API ─▶ service ─▶ link (one session) ─▶ coordinator, here or elsewhere
//	libp2p ─▶ serveSession ─▶ coordinator (while this node leads)
//	       ─▶ raft streams ─▶ group        ─▶ pages ─▶ exchange
type node struct {
	cfg     Config
	log     *slog.Logger
	id      session.Identity
	folder  *folder
	swarm   atomic.Pointer[membership]
	host    *p2p.Host
	replica atomic.Pointer[replica] // nil on a worker
	pool    *sandbox.Pool
	worker  *worker.Worker
	logs    *logBook
	control *control.Server
	public  *publicServer
	profile *wire.DeviceProfile

	// bridging lets browsers in; nil on a worker, and until the node is open.
	bridging atomic.Pointer[bridging]

	// lead is the coordinator of the term in which this node leads; nil in
	// all others.
	lead atomic.Pointer[coordinator.Coordinator]
	// hint is the device that was last said to coordinate, heardTerm the highest
	// term in which one has said so by gossip.
	hint      atomic.Pointer[wire.DeviceID]
	heardTerm atomic.Uint64
	view      viewCache
	// admitted answers for devices while the replicated state is not here yet.
	admitted sync.Map // wire.DeviceID → struct{}: members that the join named

	// spare are holds that this node made for requests that failed.
	spare spareHolds

	// opened is set when all parts are there; until then the API has to wait.
	opened atomic.Bool
	// connected closes with the first session.
	connected     chan struct{}
	connectedOnce sync.Once
	// stop ends the node, with the reason as the cause.
	stop context.CancelCauseFunc
	// leaving is set while this device asks to leave the swarm, left when it has.
	leaving, left atomic.Bool
	sessions      sync.WaitGroup
	// goals are how far members must be for their reports to count, while this
	// node leads.
	goals pageGoals
	// newest is the highest generation of the swarm that this device has heard
	// of; newer, of capacity 1, says that it is above ours.
	newest atomic.Uint64
	newer  chan struct{}
	disk   diskWatch
	// logNote says why this member began with an empty log; nil when it did not.
	logNote atomic.Pointer[string]
	// recovering is held by the one recovery that goes on.
	recovering sync.Mutex
	// ending closes when the node begins to end, stalled when its disk hangs.
	ending, stalled chan struct{}
	// welcome is the newest word of a coordinator about this device.
	welcome atomic.Pointer[wire.Welcome]
}

// Run runs a node until ctx ends, it is stopped by its control API, or it
// cannot go on. It calls ready once, when the node can take work. It returns
// when all is stopped; nil after a stop that was asked for. Errors are whole
// sentences, with wire codes: CODE_CONFLICT for a folder or port in use,
// CODE_WRONG_SWARM, CODE_DENIED and others for an invite that does not work.
func Run(ctx context.Context, c Config, ready func()) error {
	if err := c.Validate(); err != nil {
		return err
	}
	folder, err := openFolder(c.DataDir)
	if err != nil {
		return err
	}
	defer folder.close()
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n := &node{
		cfg: c, log: c.Log, folder: folder, stop: stop,
		logs: newLogBook(), connected: make(chan struct{}), newer: make(chan struct{}, 1),
		ending: make(chan struct{}), stalled: make(chan struct{}),
	}
	if err = n.live(inner, ready); errors.Is(err, errStalledDisk) {
		return err
	}
	switch cause := context.Cause(inner); {
	case n.left.Load():
		return folder.forget()
	case err == nil && ctx.Err() == nil && cause != errStopped:
		return cause
	}
	return err
}

var (
	// errStopped is the cause of an end that was asked for.
	errStopped = fmt.Errorf("stopped: %w", context.Canceled)
	// errStalledDisk is the end of a node whose disk does not answer.
	errStalledDisk = errors.New("the disk of the data folder does not answer")
)

// live opens the node, runs it until ctx ends, and closes it. A disk that hangs
// may keep its goroutines for ever: then it returns without them, and the
// process has to end.
func (n *node) live(ctx context.Context, ready func()) error {
	done := make(chan error, 1)
	go func() {
		err := n.open(ctx)
		switch {
		case err == nil:
			err = n.run(ctx, ready)
		case ctx.Err() != nil:
			err = nil // what it was about to do no longer matters
		}
		n.close()
		done <- err
	}()
	if err, ended := awaitEnd(done, n.stalled); ended {
		return err
	}
	return fmt.Errorf("%w: %s; the node ends so that the swarm can go on without it", errStalledDisk, n.folder.dir)
}

// awaitEnd waits for the end of a node, once it has stalled for a bounded time.
func awaitEnd(done <-chan error, stalled <-chan struct{}) (err error, ended bool) {
	select {
	case err := <-done:
		return err, true
	case <-stalled:
	}
	select {
	case err := <-done:
		return err, true
	case <-time.After(stallGrace):
		return nil, false
	}
}

// open makes all parts: afterwards the device belongs to a swarm and listens.
func (n *node) open(ctx context.Context) error {
	key, err := p2p.LoadOrCreateKey(n.folder.path("key"))
	if err != nil {
		return err
	}
	n.id = session.Identity{ID: wire.NewDeviceID(publicKey(key)), Key: key}
	n.profile = n.cfg.profile(n.folder.name(n.cfg.Name))
	if n.host, err = p2p.New(p2p.Config{
		Key:       key,
		Listen:    n.cfg.P2P,
		LastPort:  n.folder.ports().P2P,
		MDNS:      !n.cfg.NoMDNS,
		Role:      n.roleOf,
		Removed:   n.wasRemoved,
		PeersFile: n.folder.path("peers.json"),
		Log:       slog.New(auditHandler{n.log.With("part", "p2p").Handler(), n.logs, n.id.ID}),
	}); err != nil {
		return err
	}
	if n.public, err = newPublicServer(n); err != nil {
		return err
	}
	if err := n.folder.rememberPorts(ports{P2P: n.host.Port(), Public: portOf(n.public.listener)}); err != nil {
		n.log.Warn("the ports of this node were not remembered", "err", err)
	}
	n.control = control.NewServer(control.ServerConfig{
		Service: &service{node: n},
		DataDir: n.cfg.DataDir,
		Listen:  n.cfg.Control,
		Log:     n.log.With("part", "control"),
	})
	if err := n.control.Start(); err != nil {
		return err
	}
	if err := n.belong(ctx); err != nil {
		return err
	}
	if err := n.openWorker(); err != nil {
		return err
	}
	n.openBridge()
	n.opened.Store(true)
	return nil
}

// openWorker makes the device's own part: the sandbox and the one session.
func (n *node) openWorker() error {
	n.pool = sandbox.New(sandbox.Options{
		Slots:    n.cfg.slots(),
		CacheDir: n.folder.path("cache"),
		Log:      n.log.With("part", "sandbox"),
	})
	var err error
	n.worker, err = worker.New(worker.Config{
		Slots:   n.cfg.slots(),
		Sandbox: n.pool,
		Unwell:  n.pool.Unwell,
		Dir:     n.cfg.DataDir,
		Report:  n.report,
		Log:     n.log.With("part", "worker"),
		Link: worker.LinkConfig{
			Identity:   n.id,
			Dial:       n.dialCoordinator,
			Trust:      n.trust,
			Hello:      n.hello,
			Welcome:    n.welcomed,
			Refused:    n.refused,
			Generation: n.heardGeneration,
		},
	})
	return err
}

// run keeps all parts going until ctx ends, and ends them in the order in which
// they need each other: first what takes work, then what records it.
func (n *node) run(ctx context.Context, ready func()) error {
	stop := context.AfterFunc(ctx, func() { close(n.ending) })
	defer stop()
	if err := n.host.Start(ctx, n.swarm.Load().SwarmID); err != nil {
		return err
	}
	if err := n.serveStreams(); err != nil {
		return err
	}
	stages := []func(context.Context) error{
		func(ctx context.Context) error { return n.announceReady(ctx, ready) },
		n.worker.Run, n.followGeneration,
	}
	if r := n.replica.Load(); r != nil {
		stages = append(stages, n.watchState, n.watchDisk, n.keepGroup, r.pages.Run)
	}
	stages = append(stages, func(ctx context.Context) error { return n.logs.gossip(ctx, n.leadTerm, n.host.Publish) })
	return runStages(ctx, stages...)
}

// announceReady calls ready when the node has its first session.
func (n *node) announceReady(ctx context.Context, ready func()) error {
	select {
	case <-ctx.Done():
	case <-n.connected:
		ready()
		<-ctx.Done()
	}
	return nil
}

// close ends all parts that open made.
func (n *node) close() {
	if n.control != nil {
		n.control.Close()
	}
	if n.public != nil {
		n.public.close()
	}
	n.closeBridge()
	if n.pool != nil {
		n.pool.Close()
	}
	if r := n.replica.Load(); r != nil {
		r.close()
	}
	if n.host != nil {
		n.host.Close()
	}
	n.sessions.Wait()
}

// runStages runs all stages side by side until ctx ends or one of them returns,
// then ends one after the other in the order given. It returns the first
// error.
func runStages(ctx context.Context, stages ...func(context.Context) error) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	returned := make(chan error, len(stages))
	var all []running
	for _, stage := range stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{cancel, make(chan struct{})}
		all = append(all, r)
		go func() {
			defer close(r.done)
			err := stage(stageCtx)
			if stageCtx.Err() != nil && errors.Is(err, context.Canceled) {
				err = nil // the end that was asked for
			}
			returned <- err
		}()
	}
	var first error
	select {
	case <-ctx.Done():
	case first = <-returned:
	}
	for _, r := range all {
		r.cancel()
		<-r.done
	}
	for len(returned) > 0 {
		if err := <-returned; first == nil {
			first = err
		}
	}
	return first
}

// dialCoordinator is the one way to the coordinator: to ourselves while we
// lead, else to whom Raft, the last refusal, or the list of members points.
func (n *node) dialCoordinator(ctx context.Context) (stream, error) {
	if c := n.lead.Load(); c != nil {
		ours, theirs := newPipe()
		n.sessions.Go(func() {
			if err := c.Serve(context.WithoutCancel(ctx), theirs); err != nil {
				n.log.Debug("the session with ourselves ended", "err", err)
			}
		})
		return ours, nil
	}
	ids, err := n.likelyCoordinators()
	if err != nil {
		return nil, err
	}
	return n.openFirst(ctx, ids)
}
