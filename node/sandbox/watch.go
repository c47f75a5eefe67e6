package sandbox

import (
	"sync"
	"time"
)

// watch is the clock of the task at the head of a batch. When it runs out it
// kills the child, and remembers for which task.
type watch struct {
	mu       sync.Mutex
	timer    *time.Timer
	deadline time.Time // zero while it does not run
	child    *child
	task     int
	phase    phase
	fired    bool
}

// phase is what a watch measures.
type phase uint8

const (
	phaseRun phase = iota
	phaseCompile
)

// arm measures d from now for the given task on c, in place of what was
// measured before.
func (w *watch) arm(c *child, task int, ph phase, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.child != c {
		w.child, w.fired = c, false
	}
	if w.fired {
		return // the child is dead: who it was killed for stays known
	}
	w.task, w.phase = task, ph
	w.deadline = time.Now().Add(d)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.fire)
		return
	}
	w.timer.Reset(d)
}

// stop ends the measuring.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
}

// fire runs when the timer does, and takes care that it is not an old one.
func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadline.IsZero() || time.Now().Before(w.deadline) {
		return
	}
	w.deadline, w.fired = time.Time{}, true
	w.child.kill()
}

// verdict reports whether the clock ran out, for which task and in which phase.
func (w *watch) verdict() (fired bool, task int, ph phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired, w.task, w.phase
}
