package worker

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxResults is the size at which a frame of results takes no further one.
	maxResults = 256 << 10
	// resultsWait is how long a result waits for others while tasks run.
	resultsWait = 5 * time.Millisecond
)

// report sends results as tasks end, several in a frame, until ctx ends.
func (w *Worker) report(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.holdings.wake:
		case <-timer.C:
		}
		outcomes, conn, wait := w.holdings.drain()
		if wait > 0 {
			timer.Reset(wait)
		}
		for _, frame := range resultFrames(outcomes) {
			if conn.Send(ctx, frame) != nil {
				break // the session has ended: the next sends all again
			}
		}
	}
}

// drain returns the outcomes that are to be sent now, and the session, or how
// long to wait for more.
func (h *holdings) drain() (outcomes []outcome, conn *session.Conn, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil || len(h.outbox) == 0 {
		return nil, nil, 0
	}
	if h.running+h.waiting > 0 && h.outboxBytes < maxResults {
		if wait := resultsWait - time.Since(h.outboxSince); wait > 0 {
			return nil, nil, wait
		}
	}
	outcomes = h.outbox
	h.outbox, h.outboxBytes = nil, 0
	return outcomes, h.conn, 0
}

// resultFrames packs outcomes into frames, each with results of one lease.
func resultFrames(outcomes []outcome) []*wire.Frame {
	type open struct {
		results *wire.Results
		size    int64
	}
	frames := make([]*wire.Frame, 0, 1)
	current := make(map[*lease]*open, 1)
	for _, o := range outcomes {
		to := current[o.lease]
		if to == nil || to.size >= maxResults {
			claim := o.lease.claim
			to = &open{results: &wire.Results{JobId: claim.GetJobId(), Attempt: claim.GetAttempt()}}
			current[o.lease] = to
			frames = append(frames, &wire.Frame{Kind: &wire.Frame_Results{Results: to.results}})
		}
		to.results.Results = append(to.results.Results, o.result)
		to.size += resultSize(o.result)
	}
	return frames
}
