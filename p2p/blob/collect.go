package blob

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// collectFirst is how long after its start a node first looks through all its
	// pages for those that may go, and collectEvery how often after that.
	collectFirst = 10 * time.Minute
	collectEvery = time.Hour
	// tidyEvery is how often memory and streams out of use are given back.
	tidyEvery = 10 * time.Second
	// currentEvery is how often a node whose state is not current looks whether
	// it is.
	currentEvery = time.Second
)

func (x *Exchange) collectLoop(ctx context.Context) {
	every := x.cfg.CollectEvery
	next := time.Now().Add(min(every, collectFirst))
	tidied := time.Now()
	wait := time.NewTimer(min(tidyEvery, every))
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.notices.newFreed:
		case <-wait.C:
		}
		pause := min(tidyEvery, every)
		switch now := time.Now(); {
		case x.cfg.Current == nil || !x.cfg.Current():
			pause = currentEvery
		default:
			x.judgeFreed()
			if !now.Before(next) {
				x.collect(ctx, now)
				next = now.Add(every)
			}
		}
		if now := time.Now(); now.Sub(tidied) >= tidyEvery {
			x.tidy(now)
			tidied = now
		}
		wait.Reset(pause)
	}
}

// judgeFreed looks at the pages that lost a name or a hold.
func (x *Exchange) judgeFreed() {
	for _, h := range x.notices.takeFreed() {
		x.judge(h)
	}
}

// collect looks at the pages that have neither name nor hold, and were not
// noticed when they lost the last of these: while this node was not there, or
// because the command never came.
func (x *Exchange) collect(ctx context.Context, now time.Time) {
	for h, put := range x.cfg.Store.List() {
		if ctx.Err() != nil {
			return
		}
		if x.fate(h, put) == goes {
			x.judge(h)
		}
	}
}

// judge lets a page go, if it may, and if the state that does not name it is still
// the one to ask: the log may have been opened anew.
func (x *Exchange) judge(h wire.Hash) {
	deleted, err := x.cfg.Store.decide(h, func(put time.Time) fate {
		f := x.fate(h, put)
		if f == goes && !x.cfg.Current() {
			x.notices.free(h)
			return stays
		}
		return f
	})
	if err != nil {
		x.cfg.Log.Warn("a page that nothing names cannot be given back", "page", h, "error", err)
	}
	if deleted {
		x.cache.remove(h)
	}
}

// fate is the one place that says whether a page may go: without hold and name.
// Holds are looked at first, because the state names a page before the hold of
// the command that named it ends. What was put before this node started has no
// holds that are known, so its time counts. docs/architecture.md has the picture.
func (x *Exchange) fate(h wire.Hash, put time.Time) fate {
	switch {
	case x.holds.has(h) || x.inherited(put):
		return stays
	case x.cfg.Names(h):
		return settled
	}
	return goes
}

// inherited reports whether a page of that time was put before this node started,
// for a command that may still come. The hour on top is how inexact the time is.
// One of the future is of a clock that was wrong, and counts as long.
func (x *Exchange) inherited(put time.Time) bool {
	now := time.Now()
	return (put.Before(x.opened) || put.After(now)) && now.Sub(put).Abs() < holdFor+touchEvery
}
