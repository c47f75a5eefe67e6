package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// confirmTime bounds one look whether the pages of an output are there, and
	// is the pause before the next.
	confirmTime = 2 * time.Second
	// lostAfter is how long a device may take to write anew what was lost, or the
	// next page of it; lostAtMost, for all of it.
	lostAfter  = time.Minute
	lostAtMost = 15 * time.Minute
	// maxForgiven bounds the results of a device that are lost and do not count as
	// its debt: while it is over that it cannot write anything.
	maxForgiven = 1024
	// hurryAfter is the pause before a look that a device asks for by sending its
	// result again.
	hurryAfter = 100 * time.Millisecond
	// maxConfirming bounds the results of a device that are looked at together.
	maxConfirming = 8
)

// confirmer makes sure, for one device, that most of the voters keep the pages
// that its results name. A result joins a batch only then, so that one that names
// what nobody has delays no other device's.
//
//	received ─▶ waiting ─┬─ kept by most ──────────────▶ in the recorder's queue
//	               ▲     ├─ on none: told to its device ─┐
//	               └─────┴─ not known ───────────────────┤ 2 s later, or written anew
//	                     └─ on none for a minute ───────▶ failed
type confirmer struct {
	waiting  []*unconfirmed
	forgiven int           // of those
	wake     chan struct{} // capacity 1
}

// unconfirmed is a result whose pages are looked for.
type unconfirmed struct {
	received
	queue  *jobQueue
	looked time.Time // when it was last looked
	next   time.Time // when to look
	lost   time.Time // when it was first told to its device that they are lost
}

// hurry has the pages of a result looked for soon: its device sent it again. The
// caller holds the coordinator's mutex.
func (c *Coordinator) hurry(u *unconfirmed) {
	u.next = u.looked.Add(hurryAfter)
	if f := c.confirmers[u.device]; f != nil {
		f.rouse()
	}
}

// settle notes that a result is looked for no more.
func (f *confirmer) settle(u *unconfirmed) {
	if !u.lost.IsZero() && u.debt == 0 {
		f.forgiven--
	}
}

func (f *confirmer) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// confirm has the pages of a result looked for. The caller holds the mutex.
func (c *Coordinator) confirm(q *jobQueue, r received) {
	r.holds = []wire.HoldID{wire.NewTermHoldID(c.term)}
	f := c.confirmers[r.device]
	if f == nil {
		f = &confirmer{wake: make(chan struct{}, 1)}
		c.confirmers[r.device] = f
		c.background.Go(func() error { c.confirmAll(c.ctx, r.device, f); return nil })
	}
	u := &unconfirmed{received: r, queue: q}
	q.recording[r.result.GetIndex()] = received{device: r.device, attempt: r.attempt, unconfirmed: u}
	f.waiting = append(f.waiting, u)
	f.rouse()
}

// confirmAll looks for the pages of a device's results until none is left or the
// term ends.
func (c *Coordinator) confirmAll(ctx context.Context, id wire.DeviceID, f *confirmer) {
	for {
		due, next := c.takeUnconfirmed(id, f, time.Now())
		if len(due) == 0 && next.IsZero() {
			return
		}
		if len(due) == 0 && !f.rest(ctx, time.Until(next)) {
			return
		}
		found := make([]error, len(due))
		var looks sync.WaitGroup
		for i, u := range due {
			looks.Go(func() { found[i] = c.lookForPages(ctx, u) })
		}
		looks.Wait()
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		for i, u := range due {
			c.judgePages(f, u, found[i])
		}
		c.mu.Unlock()
	}
}

// rest waits until more is to be done; false: the term has ended.
func (f *confirmer) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-f.wake:
	case <-timer.C:
	}
	return true
}

// takeUnconfirmed takes results whose time has come out of those that wait, or
// says when the next one's does; zero if none is left, and then the confirmer is
// no more. Those of jobs that have ended are settled.
func (c *Coordinator) takeUnconfirmed(id wire.DeviceID, f *confirmer, now time.Time) (due []*unconfirmed, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := f.waiting[:0]
	for _, u := range f.waiting {
		switch {
		case c.jobs[u.queue.id] != u.queue:
			c.dismiss(f, u)
		case len(due) < maxConfirming && !u.next.After(now):
			due = append(due, u)
		default:
			if rest = append(rest, u); next.IsZero() || u.next.Before(next) {
				next = u.next
			}
		}
	}
	clear(f.waiting[len(rest):])
	f.waiting = rest
	if len(due)+len(rest) == 0 {
		delete(c.confirmers, id)
	}
	return due, next
}

// dismiss answers a result that nobody wants any more. The caller holds the
// mutex.
func (c *Coordinator) dismiss(f *confirmer, u *unconfirmed) {
	f.settle(u)
	c.takeHolds(u)
	c.useless.add(u.holds...)
	c.pay(u.device, u.debt)
	u.queue.forget(u.result.GetIndex())
	c.tell(u.device, &wire.ResultsAck{Attempt: u.attempt, Indexes: []uint32{u.result.GetIndex()}})
}

// forgive takes a lost result out of its device's debt: the device has to be heard
// to mend it. The caller holds the mutex.
func (c *Coordinator) forgive(f *confirmer, u *unconfirmed) {
	if f.forgiven < maxForgiven {
		f.forgiven++
		c.pay(u.device, u.debt)
		u.debt = 0
	}
}

// lastWrote returns when the device of a lost result last did something for it.
// The caller holds the mutex.
func (c *Coordinator) lastWrote(u *unconfirmed) time.Time {
	if d := c.devices[u.device]; d != nil {
		if wrote := d.staged.lastWrote(); wrote.After(u.lost) {
			return wrote
		}
	}
	return u.lost
}

// takeHolds adds the holds that its pages have since they were written to those of a
// result. The caller holds the mutex.
func (c *Coordinator) takeHolds(u *unconfirmed) {
	if d := c.devices[u.device]; d != nil {
		u.holds = append(u.holds, d.staged.takeHolds(u.attempt, u.result.GetIndex(), u.result.GetOutputBlob().GetPages())...)
	}
}

// lookForPages has most of the voters keep the pages of an output.
func (c *Coordinator) lookForPages(ctx context.Context, u *unconfirmed) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	pages, err := wire.HashesFromBytes(u.result.GetOutputBlob().GetPages())
	if err != nil {
		return err // never: checkResults has looked
	}
	return c.cfg.Pages.Hold(ctx, u.holds[0], pages)
}

// judgePages does what follows from a look. The caller holds the mutex.
func (c *Coordinator) judgePages(f *confirmer, u *unconfirmed, err error) {
	now := time.Now()
	switch {
	case err == nil:
		f.settle(u)
		c.takeHolds(u)
		u.queue.recording[u.result.GetIndex()] = received{device: u.device, attempt: u.attempt}
		u.queue.recorder.queue = append(u.queue.recorder.queue, u.received)
		c.startRecorder(u.queue)
		return
	case wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND:
		// Too few voters answered: that is not the device's to mend.
	case u.lost.IsZero():
		u.lost = now
		c.forgive(f, u)
	case now.Sub(c.lastWrote(u)) >= lostAfter || now.Sub(u.lost) >= lostAtMost:
		c.giveUp(f, u)
		return
	}
	c.cfg.Log.Debug("the pages of an output are not confirmed", "job", u.queue.id, "task", u.result.GetIndex(), "device", u.device, "err", err)
	if !u.lost.IsZero() {
		c.tell(u.device, &wire.ResultsAck{Attempt: u.attempt, Lost: []uint32{u.result.GetIndex()}})
	}
	u.looked, u.next = now, now.Add(confirmTime)
	f.waiting = append(f.waiting, u)
}

// giveUp makes a result, whose output its device did not bring, a failed one; the
// task runs elsewhere if it can. The caller holds the mutex.
func (c *Coordinator) giveUp(f *confirmer, u *unconfirmed) {
	f.settle(u)
	q, index := u.queue, u.result.GetIndex()
	u.result.Status, u.result.Failure = wire.TaskStatus_TASK_STATUS_FAILED, wire.FailureKind_FAILURE_KIND_INTERNAL
	c.takeHolds(u)
	c.useless.add(u.holds...)
	u.holds = nil
	u.result.Error, u.result.OutputBlob = "its output was lost on the way", nil
	if c.tryElsewhere(u.device, q, index) {
		c.pay(u.device, u.debt)
		c.tell(u.device, &wire.ResultsAck{Attempt: u.attempt, Indexes: []uint32{index}})
		return
	}
	q.recorder.queue = append(q.recorder.queue, u.received)
	c.startRecorder(q)
}
