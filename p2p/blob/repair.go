package blob

import (
	"context"
	"errors"
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
	mu    sync.Mutex
	named []wire.Hash
	lost  bool // named was full
	// freed are pages that lost a name or their last hold.
	freed map[wire.Hash]struct{}

	newNamed chan struct{}
	newFreed chan struct{}
}

func newNotices() notices {
	return notices{freed: map[wire.Hash]struct{}{}, newNamed: make(chan struct{}, 1), newFreed: make(chan struct{}, 1)}
}

// Pages tells of an entry of the log that was applied, and of its term: of the
// pages that the state has begun to name, of those that it no longer names, and of
// the holds whose commands came: what those named has its name by now. It does not
// block.
func (x *Exchange) Pages(term uint64, named, released []wire.Hash, ended []wire.HoldID) {
	n := &x.notices
	x.holds.reached(term)
	for _, id := range ended {
		n.free(x.holds.end(id)...)
	}
	n.free(released...)
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
}

// free notes pages that lost a name or their last hold. Those for which there is
// no room are found when all pages are looked through.
func (n *notices) free(pages ...wire.Hash) {
	if len(pages) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range pages[:min(len(pages), maxNotices-len(n.freed))] {
		n.freed[h] = struct{}{}
	}
	signal(n.newFreed)
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

// takeFreed returns the pages freed since it was last called.
func (n *notices) takeFreed() []wire.Hash {
	n.mu.Lock()
	defer n.mu.Unlock()
	freed := n.freed
	n.freed = map[wire.Hash]struct{}{}
	return slices.Collect(maps.Keys(freed))
}

// Run keeps the store as the replicated state wants it, until ctx ends; then it
// returns nil. A node that keeps pages pulls the named ones that it lacks. On
// every node, pages go that have neither name nor hold. It blocks, and is called
// once.
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
	clear(x.lost)
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
			err := x.pullPage(ctx, h)
			x.notePull(h, err)
			if err != nil {
				failure.Store(&err)
			} else {
				done.Add(1)
			}
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

// notePull notes what became of a missing page. One that nobody has is told of at
// once: who needs it cannot be helped by waiting.
func (x *Exchange) notePull(h wire.Hash, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, known := x.lost[h]
	switch {
	case err == nil:
		delete(x.missing, h)
		delete(x.lost, h)
	case !errors.Is(err, ErrMissing):
	case !known:
		x.lost[h] = struct{}{}
		x.cfg.Log.Error("a page that a job or a program needs is on no member's disk", "page", h)
	}
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
