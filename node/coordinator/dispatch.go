package coordinator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/scheduler"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxLeaseBytes bounds the inputs that travel in one lease.
	maxLeaseBytes = 256 << 10
	// maxUnrecorded is how many results of a job may wait to be committed before
	// no more of its tasks are leased.
	maxUnrecorded = 32 << 10
	// maxSpecsSent bounds the memory of which specs a session was sent; a spec
	// sent twice does no harm.
	maxSpecsSent = 1024
	// longPlan is how long a plan may take before the next waits a little.
	longPlan = time.Millisecond
	// inputRetry is how long a task waits whose input cannot be read now.
	inputRetry = time.Second
)

// dispatch leases tasks whenever there is something new to lease or someone
// new to lease it to.
func (c *Coordinator) dispatch(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
		case <-timer.C:
		}
		begun := time.Now()
		if next := c.lease(begun); !next.IsZero() {
			timer.Reset(max(time.Millisecond, time.Until(next)))
		}
		// A plan for a thousand devices must not keep the mutex from them.
		if took := time.Since(begun); took > longPlan && !sleep(ctx, took) {
			return nil
		}
	}
}

// lease makes one plan and carries it out. It returns when a task that waits
// may run; zero if none waits.
func (c *Coordinator) lease(now time.Time) (next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.plan(now); p != nil {
		for _, g := range scheduler.Plan(p.view) {
			c.carryOut(p, g)
		}
	}
	for _, q := range c.jobs {
		if t := q.nextReady(); t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// planning is what one plan is made and carried out with.
type planning struct {
	now  time.Time
	view scheduler.View
	able map[wire.JobID][]wire.DeviceID // see eligible
}

// plan returns what the scheduler plans with: the jobs that have tasks to lease
// or hold some, and the devices that can take more; nil if there is nothing to
// do. Both are sorted, so that equal views give equal plans.
func (c *Coordinator) plan(now time.Time) *planning {
	p := &planning{now: now, able: make(map[wire.JobID][]wire.DeviceID)}
	anything := false
	for _, q := range c.jobs {
		ready := q.ready(now)
		if len(q.recorder.queue) >= maxUnrecorded {
			ready = 0
		}
		anything = anything || ready > 0
		if ready > 0 || len(q.leased) > 0 {
			p.view.Jobs = append(p.view.Jobs, q.schedulable(ready))
		}
	}
	if !anything {
		return nil
	}
	for _, d := range c.devices {
		if d.gone.IsZero() && d.slots > 0 && len(d.grants) < maxGrants && !c.debts.over(d.id) {
			p.view.Devices = append(p.view.Devices, d.schedulable())
		}
	}
	if len(p.view.Devices) == 0 {
		return nil
	}
	slices.SortFunc(p.view.Jobs, func(a, b scheduler.Job) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(p.view.Devices, func(a, b scheduler.Device) int { return cmp.Compare(a.ID, b.ID) })
	return p
}

// schedulable is the job as the scheduler sees it, with so many tasks to lease.
func (q *jobQueue) schedulable(ready int) scheduler.Job {
	return scheduler.Job{
		ID:          q.id,
		Submitter:   q.submitter,
		Priority:    int(q.spec.GetPriority()),
		CreatedAtMS: q.createdMS,
		Pending:     ready,
		InFlight:    len(q.leased),
		MaxInFlight: int(q.spec.GetMaxInFlight()),
		MemoryMiB:   int(q.spec.GetMemoryMib()),
		Require:     q.spec.GetRequire(),
		TaskTime:    q.taskTime,
	}
}

// carryOut leases what a grant says. Tasks that the device has failed go to
// others that have room for them instead.
func (c *Coordinator) carryOut(p *planning, g scheduler.Grant) {
	q := c.jobs[g.Job]
	left := g.Tasks - c.leaseTo(p, q, c.devices[g.Device], g.Tasks)
	job := q.schedulable(0)
	for _, d := range p.view.Devices {
		if left == 0 || q.ready(p.now) == 0 {
			return
		}
		if d.ID == g.Device || !scheduler.Eligible(d, job) {
			continue
		}
		known, ok := q.taskTime[d.ID]
		room := scheduler.Quota(d, known, ok) - d.InFlight[q.id]
		left -= c.leaseTo(p, q, c.devices[d.ID], min(left, room))
	}
}

// leaseTo leases up to n tasks of a job to a device, and returns how many.
func (c *Coordinator) leaseTo(p *planning, q *jobQueue, d *device, n int) int {
	n = min(n, maxHeld-d.total)
	if n <= 0 || len(d.grants) == cap(d.grants) {
		return 0
	}
	var able []wire.DeviceID
	if len(q.failedOn) > 0 {
		if able = p.able[q.id]; able == nil {
			able = c.eligible(q)
			p.able[q.id] = able
		}
	}
	indexes := q.take(d.id, n, able, p.now)
	if len(indexes) > 0 {
		d.grants <- q.lend(d, nil, indexes)
	}
	return len(indexes)
}

// eligible lists the connected devices that can run a job's tasks.
func (c *Coordinator) eligible(q *jobQueue) []wire.DeviceID {
	able := []wire.DeviceID{}
	job := q.schedulable(0)
	for _, d := range c.devices {
		if d.gone.IsZero() && d.slots > 0 && scheduler.Eligible(d.schedulable(), job) {
			able = append(able, d.id)
		}
	}
	return able
}

// sendGrants sends the tasks that are granted to d, with their inputs, until
// its session ends.
func (c *Coordinator) sendGrants(ctx context.Context, d *device) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-d.grants:
			if err := c.sendGrant(ctx, l); err != nil {
				return err
			}
		}
	}
}
