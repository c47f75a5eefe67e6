package blob

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// clientReserve is the free space below which Put refuses: a node that has
	// less takes no new input.
	clientReserve = 512 << 20
	// hardReserve is the free space below which no page is written at all, so
	// that the replicated log always finds room.
	hardReserve = 256 << 20
	// maxNotices bounds the pages named, and those without a name or a hold more,
	// that wait to be looked at. Others are found by going through all.
	maxNotices = 1 << 16
)

// Config is what an Exchange is made of. All functions are needed but
// FreeSpace and Current; they may be called concurrently and must not block
// for long (Dial may, until its context ends).
type Config struct {
	Self  wire.DeviceID
	Store *Store
	// Dial opens a page-protocol stream to a member.
	Dial func(ctx context.Context, id wire.DeviceID) (net.Conn, error)
	// Voters are the current voters; Self may be among them.
	Voters func() []wire.DeviceID
	// Members are those who may be asked for pages; Self may be among them.
	Members func() []wire.DeviceID
	// Keep reports whether this node is a voter or standby, and so holds every
	// named page.
	Keep func() bool
	// Names reports whether the replicated state names the page.
	Names func(wire.Hash) bool
	// Named returns all pages that the state names.
	Named func() []wire.Hash
	// Current reports whether the state here has what the coordinator has
	// committed, as far as this node was told a moment ago. While it has not,
	// nothing is deleted, for the rest of the log may name it. Nil means that it
	// cannot be known: nothing is ever deleted.
	Current func() bool
	// CollectEvery is how often a node looks through all its pages for those that
	// may go; 0 means the default, an hour.
	CollectEvery time.Duration
	// FreeSpace returns the bytes free on the store's disk. Nil means enough.
	FreeSpace func() (uint64, error)
	// Log takes what an operator would act on. Nil means nobody listens.
	Log *slog.Logger
}

// Status is what an Exchange is about.
type Status struct {
	// Missing counts the named pages that this node should hold and does not,
	// as of its last look.
	Missing int
	// Lost are those of them that no member had when all were asked.
	Lost []wire.Hash
	// StoredBytes is the size of the pages on this node's disk.
	StoredBytes uint64
}

// Exchange puts pages on a quorum of the voters, fetches them from members,
// serves them, and keeps this node's store as the replicated state wants it.
// Its methods may be called concurrently.
type Exchange struct {
	cfg   Config
	cache *cache

	ctx  context.Context // of what goes on after the call that began it
	stop context.CancelFunc
	wg   sync.WaitGroup

	notices notices
	holds   holds
	opened  time.Time

	mu      sync.Mutex
	closed  bool
	peers   map[wire.DeviceID]*peer
	flights map[wire.Hash]*flight
	serving map[wire.DeviceID]int // streams open, by who opened them
	missing map[wire.Hash]struct{}
	lost    map[wire.Hash]struct{} // those of missing that nobody has

	receiving chan struct{} // a place for each page that arrives
}

// NewExchange returns an exchange that is ready for use. Run keeps the store in
// order; Close must be called in the end.
func NewExchange(cfg Config) *Exchange {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CollectEvery <= 0 {
		cfg.CollectEvery = collectEvery
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Exchange{
		cfg: cfg, cache: newCache(), ctx: ctx, stop: stop, notices: newNotices(), holds: newHolds(), opened: time.Now(),
		peers: map[wire.DeviceID]*peer{}, flights: map[wire.Hash]*flight{},
		serving: map[wire.DeviceID]int{}, missing: map[wire.Hash]struct{}{}, lost: map[wire.Hash]struct{}{},
		receiving: make(chan struct{}, maxReceiving),
	}
}

// Close breaks off what still goes on, closes the streams to other members and
// waits. It may be called more than once. Calls of other methods end with an
// error from then on.
func (x *Exchange) Close() error {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.stop()
	x.wg.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, p := range x.peers {
		p.retire()
		delete(x.peers, id)
	}
	return nil
}

// start runs f, which Close waits for, and reports whether it could.
func (x *Exchange) start(f func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	x.wg.Go(f)
	return true
}

func errClosed() error {
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this node is stopping")
}

// Status returns what is missing and stored.
func (x *Exchange) Status() Status {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Status{Missing: len(x.missing), Lost: slices.Collect(maps.Keys(x.lost)), StoredBytes: x.cfg.Store.Size()}
}

// peer returns what is known of a member, whom it does not dial yet.
func (x *Exchange) peer(id wire.DeviceID) *peer {
	x.mu.Lock()
	defer x.mu.Unlock()
	p, ok := x.peers[id]
	if !ok {
		p = newPeer(id, x.cfg.Dial)
		x.peers[id] = p
	}
	return p
}

// tidy gives back memory and streams that have not been used lately.
func (x *Exchange) tidy(now time.Time) {
	x.cache.tidy(now)
	x.notices.free(x.holds.expire(now)...)
	known := append(slices.Clone(x.cfg.Voters()), x.cfg.Members()...)
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, p := range x.peers {
		p.closeIdleSince(now.Add(-idleFor))
		if !slices.Contains(known, id) && p.unused() {
			p.retire()
			delete(x.peers, id)
		}
	}
}

// Space returns nil, or why this node takes no new pages of clients: an error
// with CODE_NO_SPACE that says what is free.
func (x *Exchange) Space() error { return x.space(clientReserve) }

// space is an error if less than reserve bytes are free on the store's disk.
func (x *Exchange) space(reserve uint64) error {
	if x.cfg.FreeSpace == nil {
		return nil
	}
	free, err := x.cfg.FreeSpace()
	if err != nil {
		return err
	}
	if free < reserve {
		return wire.Errorf(wire.Code_CODE_NO_SPACE, "%d MiB are free on the disk of %s and %d MiB are kept in reserve: free some space, or remove jobs",
			free>>20, x.cfg.Self, reserve>>20)
	}
	return nil
}

// keep writes the page to this node's disk, where it stays for the command that
// id is of, until that is applied here. If it has been, and does not name the
// page any more, there is nothing to keep it for.
func (x *Exchange) keep(id wire.HoldID, h wire.Hash, data []byte) error {
	if x.holds.over(id) && !x.cfg.Names(h) {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "page %s was put for a command that has been applied", h)
	}
	return x.cfg.Store.put(h, data, func(before time.Time) { x.holdPage(id, h, before) })
}

// holdPage has a page that is here stay for id. If its time said that somebody put
// it before this node started, it stays for that one too: its time is another now.
// The caller owns h.
func (x *Exchange) holdPage(id wire.HoldID, h wire.Hash, before time.Time) {
	if x.inherited(before) {
		x.holds.add(wire.HoldID{}, h)
	}
	if !x.holds.add(id, h) {
		x.notices.free(h) // the command came while it was written
	}
}

// keepHeld has the pages that are here stay for id, and returns the places of those
// that are not.
func (x *Exchange) keepHeld(id wire.HoldID, pages []wire.Hash) (lacking []uint32) {
	for i, h := range pages {
		known := x.holds.has(h) || x.cfg.Names(h)
		here, err := x.cfg.Store.rely(h, known, func(before time.Time) { x.holdPage(id, h, before) })
		if err != nil {
			x.cfg.Log.Error("a page that a command is to name cannot be kept", "page", h, "error", err)
		}
		if !here {
			lacking = append(lacking, uint32(i))
		}
	}
	return lacking
}
