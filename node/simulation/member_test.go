package simulation

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Services of a member.
const (
	raftService    = "raft"
	sessionService = "session"
	pageService    = "page"
)

// watchEvery is the least time between two looks at who leads, as in package
// node.
const watchEvery = 100 * time.Millisecond

// member is a process of a machine that is a member, put together as package
// node does it, with the simulated network in the place of libp2p.
type member struct {
	machine *machine
	dialer  *dialer
	group   *consensus.Group
	opened  atomic.Pointer[consensus.Group] // group, once all is known of it
	pages   *blob.Exchange
	worker  *worker.Worker
	lead    atomic.Pointer[coordinator.Coordinator]
	changed chan struct{} // cap 1

	ctx   context.Context // ends when the process is dead
	die   context.CancelFunc
	parts parts // in the order in which a graceful stop ends them
	tasks sync.WaitGroup

	mu   sync.Mutex
	dead bool
}

// startMember starts a process on the machine's folder.
func startMember(m *machine) (*member, error) {
	if err := m.joinGeneration(m.newestGeneration()); err != nil {
		return nil, err
	}
	p := &member{machine: m, dialer: newDialer(m), changed: make(chan struct{}, 1)}
	p.ctx, p.die = context.WithCancel(context.Background())
	store, err := blob.Open(filepath.Join(m.dir, "pages"))
	if err != nil {
		return nil, err
	}
	p.pages = blob.NewExchange(p.exchangeConfig(store))
	wrap := m.disk.open
	if m.swarm.options.realDisks {
		wrap = nil
	}
	p.group, err = consensus.Open(consensus.Options{
		Self: m.id.ID, Dir: m.raftFolder(), Streams: newRaftStreams(p),
		Generation: m.generation.Load(), Superseded: m.superseded,
		Pages: p.pages.Pages, Changed: p.stateChanged, Wrap: wrap, Clock: m.clock, Faults: m.swarm.options.broken,
	})
	if err != nil {
		p.pages.Close()
		return nil, err
	}
	replica := p.group.Replica()
	m.replica.Store(&replica)
	p.opened.Store(p.group)
	p.worker, err = worker.New(worker.Config{
		Link: p.dialer.link(p.dial), Slots: m.slots, Sandbox: m.sandbox(), Dir: m.dir,
	})
	if err != nil {
		p.group.Close()
		p.pages.Close()
		return nil, err
	}
	m.swarm.net.open(m.id.ID, sessionService, p.takeSession)
	m.swarm.net.open(m.id.ID, pageService, p.takePages)
	m.swarm.net.open(m.id.ID, generationService, p.tellGeneration)
	p.parts.start(p.worker.Run)
	p.parts.start(p.watchState)
	p.parts.start(func(ctx context.Context) error { return p.group.Run(ctx, p.coordinate) })
	p.parts.start(p.pages.Run)
	return p, nil
}

// exchangeConfig is as package node has it.
func (p *member) exchangeConfig(store *blob.Store) blob.Config {
	return blob.Config{
		Self: p.machine.id.ID, Store: store,
		Dial: func(ctx context.Context, id wire.DeviceID) (net.Conn, error) {
			return p.machine.swarm.net.dial(ctx, p.machine.id.ID, id, pageService)
		},
		Voters: func() []wire.DeviceID {
			if g := p.opened.Load(); g != nil {
				return g.Voters()
			}
			return nil
		},
		Members: p.machine.swarm.memberIDs,
		Keep:    func() bool { return true },
		Names: func(h wire.Hash) (named bool) {
			g := p.opened.Load()
			if g == nil {
				return true
			}
			g.Read(func(s *state.State) { named = s.Names(h) })
			return named
		},
		Named: func() (all []wire.Hash) {
			if g := p.opened.Load(); g != nil {
				g.Read(func(s *state.State) { all = slices.Collect(s.Pages()) })
			}
			return all
		},
		CollectEvery: p.machine.swarm.options.collectEvery,
		FreeSpace:    func() (uint64, error) { return cmp.Or(p.machine.free.Load(), 1<<40), nil },
		Current: func() bool {
			g := p.opened.Load()
			if g == nil {
				return false
			}
			founded := false
			g.Read(func(s *state.State) { founded = s.Founded() })
			return founded && g.Current()
		},
	}
}

// stateChanged is called after each entry, on the goroutine that applies.
func (p *member) stateChanged() {
	if g := p.opened.Load(); g != nil {
		p.machine.swarm.ledger.look(p.machine.id.ID, g)
		if applied := p.machine.swarm.options.applied; applied != nil {
			applied(p.machine, g)
		}
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// coordinate is the member's role while it leads.
func (p *member) coordinate(ctx context.Context, term uint64) error {
	s := p.machine.swarm
	s.ledger.count.elections.Add(1)
	c := coordinator.New(coordinator.Config{
		Identity: p.machine.id,
		Group:    &witness{Group: s.options.wrap(p.group), self: p.machine.id.ID, ledger: s.ledger, generation: p.group.Generation()},
		Pages:    s.options.wrapPages(p.pages),
		Peers:    peersOf,
		Publish:  func(*wire.LogLine) {},
		Log:      s.log.With("member", p.machine.name),
	}, term)
	if s.options.clings {
		ctx = p.ctx
	}
	return c.Run(ctx, func() {
		p.lead.Store(c)
		p.worker.Link().Redial()
	}, func() { p.lead.Store(nil) })
}

// watchState dials anew when another member leads, as package node does.
func (p *member) watchState(ctx context.Context) error {
	var leader wire.DeviceID
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.changed:
		}
		self := p.machine.id.ID
		if id, _ := p.group.Leader(); id != leader {
			if leader = id; id != "" && id != self && id != p.worker.Link().Coordinator() {
				p.worker.Link().Redial()
			}
		}
		if sleep(ctx, watchEvery) != nil {
			return nil
		}
	}
}

// dial is the one way to the coordinator.
func (p *member) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	if c := p.lead.Load(); c != nil {
		ours, theirs := net.Pipe()
		if !p.begin(func() { c.Serve(p.ctx, theirs) }) {
			return nil, net.ErrClosed
		}
		return ours, nil
	}
	if id, _ := p.group.Leader(); id != "" && id != p.machine.id.ID {
		return p.dialer.dialTo(ctx, id)
	}
	return p.dialer.dial(ctx)
}

// takeSession serves a session if this member coordinates, and otherwise says
// who does.
func (p *member) takeSession(from wire.DeviceID, c net.Conn) {
	if !p.begin(func() {
		if lead := p.lead.Load(); lead != nil {
			lead.Serve(p.ctx, c)
			return
		}
		p.dialer.refuse(p.ctx, c, p.group)
	}) {
		c.Close()
	}
}

func (p *member) takePages(from wire.DeviceID, c net.Conn) {
	if !p.begin(func() { p.pages.Serve(p.ctx, from, c) }) {
		c.Close()
	}
}

// begin runs f unless the process is dead.
func (p *member) begin(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return false
	}
	p.tasks.Go(f)
	return true
}

// link is where clients of this process ask.
func (p *member) link() *worker.Link { return p.worker.Link() }

// kill is the end of the process without a word.
func (p *member) kill() {
	p.mark()
	p.group.Close()
	p.parts.endAll()
	p.close()
}

// quit stops the process gracefully.
func (p *member) quit() {
	p.parts.endInTurn()
	p.mark()
	p.group.Close()
	p.close()
}

func (p *member) mark() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.die()
}

func (p *member) close() {
	p.pages.Close()
	p.tasks.Wait()
	for _, err := range p.parts.errors {
		p.machine.swarm.ledger.red("%s stopped: %v", p.machine.name, err)
	}
}

// parts are functions that run side by side.
type parts struct {
	all []part

	mu     sync.Mutex
	errors []error // other than the end of their context
}

type part struct {
	end  context.CancelFunc
	done chan struct{}
}

func (s *parts) start(f func(context.Context) error) {
	ctx, end := context.WithCancel(context.Background())
	p := part{end, make(chan struct{})}
	s.all = append(s.all, p)
	go func() {
		defer close(p.done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.errors = append(s.errors, err)
		}
	}()
}

func (s *parts) endInTurn() {
	for _, p := range s.all {
		p.end()
		<-p.done
	}
}

func (s *parts) endAll() {
	for _, p := range s.all {
		p.end()
	}
	s.endInTurn()
}

// raftStreams is a member's raft.StreamLayer.
type raftStreams struct {
	p      *member
	accept chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func newRaftStreams(p *member) *raftStreams {
	l := &raftStreams{p: p, accept: make(chan net.Conn, 64), done: make(chan struct{})}
	p.machine.swarm.net.open(p.machine.id.ID, raftService, func(_ wire.DeviceID, c net.Conn) {
		select {
		case l.accept <- c:
		default:
			c.Close()
		}
	})
	return l
}

func (l *raftStreams) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *raftStreams) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *raftStreams) Addr() net.Addr { return address(l.p.machine.id.ID) }

func (l *raftStreams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.p.ctx, timeout)
	defer cancel()
	return l.p.machine.swarm.net.dial(ctx, l.p.machine.id.ID, wire.DeviceID(to), raftService)
}

// peersOf says where devices are: in the simulation an ID is an address.
func peersOf(ids []wire.DeviceID) []*wire.Peer {
	var peers []*wire.Peer
	for _, id := range ids {
		peers = append(peers, &wire.Peer{Id: string(id)})
	}
	return peers
}

// loseLog empties the folder of the replicated log, as a disk that was replaced.
func (m *machine) loseLog() error {
	m.disk.empty()
	if err := os.RemoveAll(m.raftFolder()); err != nil {
		return fmt.Errorf("emptying the log of %s: %w", m.name, err)
	}
	return nil
}
