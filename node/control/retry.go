package control

import (
	"context"
	"errors"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// DefaultPatience is how long a map that has begun waits for a swarm
	// without a quorum.
	DefaultPatience = 10 * time.Minute
	// nodePatience is how long it waits for its own node to come back: one that
	// is started again within 15 s has time to start.
	nodePatience = 20 * time.Second
	// firstPause and lastPause bound the back-off.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Patience says how calls are repeated while the swarm cannot answer.
type Patience struct {
	// Limit is how long to go on; 0 means DefaultPatience. A node that is gone
	// is waited for at most 20 s.
	Limit time.Duration
	// Waiting, if not nil, is told what is waited for, each time a call fails,
	// and nil when one got through again. It may be called concurrently.
	Waiting func(error)
}

// Transient reports whether err may pass by itself, so that the same call with
// the same IDs is worth repeating: all calls of the API may be repeated.
func Transient(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_UNKNOWN_OUTCOME, wire.Code_CODE_NOT_COORDINATOR:
		return true
	}
	return false
}

// Retry calls f until it succeeds, fails for good, or patience or ctx ends. It
// returns f's last error, or the cause of ctx's end.
func (p Patience) Retry(ctx context.Context, f func(context.Context) error) error {
	w := p.wait()
	for {
		err := f(ctx)
		if !Transient(err) {
			w.done()
			return err
		}
		if err := w.pause(ctx, err); err != nil {
			return err
		}
	}
}

func (p Patience) wait() *waiter {
	if p.Limit == 0 {
		p.Limit = DefaultPatience
	}
	return &waiter{patience: p}
}

// waiter is one spell of failures: its start and its back-off. Not safe for
// concurrent use.
type waiter struct {
	patience Patience
	since    time.Time
	pauseFor time.Duration
}

// pause sleeps after a failure. It returns an error when waiting is over.
func (w *waiter) pause(ctx context.Context, failure error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	if w.since.IsZero() {
		w.since, w.pauseFor = now, firstPause
	}
	limit := w.patience.Limit
	if errors.Is(failure, ErrNoNode) {
		limit = min(limit, nodePatience)
	}
	if now.Sub(w.since) >= limit {
		return failure
	}
	if w.patience.Waiting != nil {
		w.patience.Waiting(failure)
	}
	timer := time.NewTimer(w.pauseFor)
	defer timer.Stop()
	w.pauseFor = min(2*w.pauseFor, lastPause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// done ends the spell: a call got through.
func (w *waiter) done() {
	if !w.since.IsZero() && w.patience.Waiting != nil {
		w.patience.Waiting(nil)
	}
	w.since = time.Time{}
}
