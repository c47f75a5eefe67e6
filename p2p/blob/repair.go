package blob

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// settleFor is what a page that was just named gets to arrive by itself: the
	// put that came before is content with a quorum and may still be sending.
	settleFor = 2 * time.Second
	// lookEvery is how often a node looks through all that is named, or less
	// often: one part in scanShare of its time is the most that goes into it.
	lookEvery = time.Minute
	scanShare = 200
	// keepEvery is how often a node that keeps nothing looks whether it should.
	keepEvery = 5 * time.Second
	// pullers is how many pages are pulled at one time, and pullBatch how many
	// before looking again what is wanted.
	pullers   = 4
	pullBatch = 256
	// firstRetry and lastRetry bound the pauses when nothing that is missing
	// can be had.
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
)

// notices is what the replicated state has said and Run has not yet looked at.
type notices struct {
	mu       sync.Mutex
	named    []wire.Hash
	lost     bool // named was full
	released map[wire.Hash]struct{}

	newNamed    chan struct{}
	newReleased chan struct{}
}

func newNotices() notices {
	return notices{released: map[wire.Hash]struct{}{}, newNamed: make(chan struct{}, 1), newReleased: make(chan struct{}, 1)}
}

// Pages tells of the pages that the state has begun to name and of those that
// it no longer names. It does not block.
func (x *Exchange) Pages(named, released []wire.Hash) {
	n := &x.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(named) > 0 {
		if len(n.named)+len(named) <= maxNotices {
			n.named = append(n.named, named...)
		} else {
			n.lost = true
		}
		signal(n.newNamed)
	}
	if len(released) > 0 {
		// Those for which there is no room go when they are a day old.
		for _, h := range released[:min(len(released), maxNotices-len(n.released))] {
			n.released[h] = struct{}{}
		}
		signal(n.newReleased)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// takeNamed returns the pages named since it was last called, and whether there
// were more.
func (n *notices) takeNamed() (named []wire.Hash, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	named, lost = n.named, n.lost
	n.named, n.lost = nil, false
	return named, lost
}

// allReleased returns the pages that were released and not yet looked at.
func (n *notices) allReleased() []wire.Hash {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.released))
}

// isReleased reports whether the page was released and not yet looked at.
func (n *notices) isReleased(h wire.Hash) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.released[h]
	return ok
}

// settle forgets that the page was released.
func (n *notices) settle(h wire.Hash) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.released, h)
}

// Run keeps the store as the replicated state wants it, until ctx ends; then it
// returns nil. A node that keeps pages pulls the named ones that it lacks. On
// every node, pages go that nothing names: at once if they were released and
// not put again in the day before, else a day after they were last put. It
// blocks, and is called once.
func (x *Exchange) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { x.repairLoop(ctx) })
	loops.Go(func() { x.collectLoop(ctx) })
	loops.Wait()
	return nil
}

// repairer is the repair loop's memory.
type repairer struct {
	keeping  bool // when it last looked
	nextScan time.Time
	pause    time.Duration
}

func (x *Exchange) repairLoop(ctx context.Context) {
	r := &repairer{}
	wait := time.NewTimer(0)
	defer wait.Stop()
	var named []wire.Hash
	for {
		var lost bool
		select {
		case <-ctx.Done():
			return
		case <-x.notices.newNamed:
			named, lost = x.notices.takeNamed()
			if !sleep(ctx, settleFor) {
				return
			}
		case <-wait.C:
			named = nil
		}
		if lost {
			r.nextScan = time.Time{}
		}
		wait.Reset(x.repair(ctx, r, named))
	}
}

// repair looks what is missing, pulls some of it, and returns when to look
// again if no page is named before.
func (x *Exchange) repair(ctx context.Context, r *repairer, named []wire.Hash) time.Duration {
	was := r.keeping
	r.keeping = x.cfg.Keep()
	if !r.keeping {
		x.forgetMissing()
		return keepEvery
	}
	if now := time.Now(); !was || !now.Before(r.nextScan) {
		named = x.cfg.Named()
		x.look(named)
		r.nextScan = time.Now().Add(max(lookEvery, scanShare*time.Since(now)))
	} else {
		x.look(named)
	}
	pulled, left := x.pull(ctx)
	switch {
	case left == 0:
		r.pause = 0
		return max(0, time.Until(r.nextScan))
	case pulled > 0:
		r.pause = 0
		return 0
	default:
		r.pause = min(max(2*r.pause, firstRetry), lastRetry)
		return r.pause
	}
}

// look adds those of the pages that are not in the store to the missing ones.
func (x *Exchange) look(pages []wire.Hash) {
	for _, h := range pages {
		if !x.cfg.Store.Has(h) {
			x.mu.Lock()
			x.missing[h] = struct{}{}
			x.mu.Unlock()
		}
	}
}

func (x *Exchange) forgetMissing() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.missing)
}

// pull fetches some of the missing pages into the store. It returns how many
// are not missing any more, and how many are.
func (x *Exchange) pull(ctx context.Context) (pulled, left int) {
	var done atomic.Int64
	var failure atomic.Pointer[error]
	var workers errgroup.Group
	workers.SetLimit(pullers)
	for _, h := range x.someMissing() {
		workers.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err := x.pullPage(ctx, h); err != nil {
				failure.Store(&err)
				return nil
			}
			done.Add(1)
			x.mu.Lock()
			delete(x.missing, h)
			x.mu.Unlock()
			return nil
		})
	}
	_ = workers.Wait() // the workers keep their errors in failure
	x.mu.Lock()
	left = len(x.missing)
	x.mu.Unlock()
	if err := failure.Load(); err != nil && done.Load() == 0 && ctx.Err() == nil {
		x.cfg.Log.Warn("pages that this node should hold cannot be had; it keeps trying", "missing", left, "error", *err)
	}
	return int(done.Load()), left
}

func (x *Exchange) someMissing() []wire.Hash {
	x.mu.Lock()
	defer x.mu.Unlock()
	some := make([]wire.Hash, 0, min(len(x.missing), pullBatch))
	for h := range x.missing {
		if len(some) == pullBatch {
			break
		}
		some = append(some, h)
	}
	return some
}

// pullPage sees to it that the page is in the store, unless nothing names it
// any more.
func (x *Exchange) pullPage(ctx context.Context, h wire.Hash) error {
	if !x.cfg.Names(h) || x.cfg.Store.Has(h) {
		return nil
	}
	if err := x.space(hardReserve); err != nil {
		return err
	}
	data, err := x.obtain(ctx, h)
	if err != nil || x.cfg.Store.Has(h) {
		return err
	}
	// The search began when this node did not keep pages, or could not store it.
	return x.cfg.Store.put(h, data, nil)
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
