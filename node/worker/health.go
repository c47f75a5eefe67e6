package worker

import (
	"context"
	"fmt"
	"time"
)

// unwellPatience is how long tasks may wait in a device whose sandbox can run
// nothing. A coordinator that understands takes them back at once; for one that
// does not they fail then.
const unwellPatience = 15 * time.Second

// unwell says why the sandbox can run nothing now, "" if it can.
func (w *Worker) unwell() (why string, changed <-chan struct{}) {
	if w.config.Unwell == nil {
		return "", nil
	}
	return w.config.Unwell()
}

// watchHealth tells the coordinator at once when the sandbox can run nothing,
// and when it can again, and keeps tasks from it meanwhile.
func (w *Worker) watchHealth(ctx context.Context) {
	for before := ""; ctx.Err() == nil; {
		why, changed := w.unwell()
		w.holdings.setUnwell(why != "")
		if why != before {
			before = why
			select {
			case w.news <- struct{}{}:
			default:
			}
		}
		w.outlast(ctx, why, changed)
	}
}

// outlast waits for a change. What waits for long in an unwell device fails.
func (w *Worker) outlast(ctx context.Context, why string, changed <-chan struct{}) {
	var late <-chan time.Time // never, while it is well
	if why != "" {
		ticker := time.NewTicker(unwellPatience)
		defer ticker.Stop()
		late = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-late:
		}
		if now, _ := w.unwell(); now != why {
			return
		}
		for _, t := range w.holdings.abandonAll() {
			w.fail(t, fmt.Errorf("the sandbox of this device breaks, whatever the program: %s", why))
		}
	}
}

// abandonAll is abandon for all leases.
func (h *holdings) abandonAll() []place {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.abandon(func(*lease) bool { return true })
}
