package blob

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// unnamedFor is how long a page lives that nothing names.
	unnamedFor = 24 * time.Hour
	// firstCollect is how long after its start a node first looks for such
	// pages, and collectEvery how often after that.
	firstCollect = 10 * time.Minute
	collectEvery = time.Hour
	// tidyEvery is how often memory and streams out of use are given back.
	tidyEvery = time.Minute
	// currentEvery is how often a node whose state is not current looks whether
	// it is.
	currentEvery = time.Second
)

func (x *Exchange) collectLoop(ctx context.Context) {
	next := time.Now().Add(firstCollect)
	tidied := time.Now()
	wait := time.NewTimer(tidyEvery)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.notices.newReleased:
		case <-wait.C:
		}
		pause := tidyEvery
		switch now := time.Now(); {
		case x.cfg.Current == nil || !x.cfg.Current():
			pause = currentEvery
		default:
			x.dropReleased()
			if !now.Before(next) {
				x.collect(ctx, now)
				next = now.Add(collectEvery)
			}
		}
		if now := time.Now(); now.Sub(tidied) >= tidyEvery {
			x.tidy(now)
			tidied = now
		}
		wait.Reset(pause)
	}
}

// dropReleased deletes the released pages that nothing names, unless somebody
// put them again: what he puts he is about to name.
func (x *Exchange) dropReleased() {
	for _, h := range x.notices.allReleased() {
		x.drop(h, func(time.Time) bool { return !x.cfg.Names(h) && !x.wasPutAgain(h) })
		x.notices.settle(h)
	}
}

// collect deletes the pages that nothing names and nobody has put for a day.
// The hour on top is how inexact the time of a further put is.
func (x *Exchange) collect(ctx context.Context, now time.Time) {
	old := func(put time.Time) bool { return now.Sub(put) > unnamedFor+touchEvery }
	for h, put := range x.cfg.Store.List() {
		if ctx.Err() != nil {
			return
		}
		if old(put) && !x.cfg.Names(h) {
			x.drop(h, func(put time.Time) bool { return old(put) && !x.cfg.Names(h) })
		}
	}
}

func (x *Exchange) drop(h wire.Hash, unwanted func(put time.Time) bool) {
	deleted, err := x.cfg.Store.deleteIf(h, unwanted)
	if err != nil {
		x.cfg.Log.Warn("a page that nothing names cannot be deleted", "page", h, "error", err)
	}
	if deleted {
		x.cache.remove(h)
	}
}
