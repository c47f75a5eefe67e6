package coordinator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/scheduler"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxLeaseBytes bounds the inputs that travel in one lease.
	maxLeaseBytes = 256 << 10
	// maxUnrecorded is how many results of a job may wait to be committed
	// before no more of its tasks are leased.
	maxUnrecorded = 32 << 10
	// maxSpecsSent bounds the memory of which specs a session was sent; a spec
	// sent twice does no harm.
	maxSpecsSent = 1024
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
		if next := c.lease(time.Now()); !next.IsZero() {
			timer.Reset(max(time.Millisecond, time.Until(next)))
		}
	}
}

// lease makes one plan and carries it out. It returns when a task that waits
// may run; zero if none waits.
func (c *Coordinator) lease(now time.Time) (next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := c.view(now)
	if len(view.Devices) > 0 && len(view.Jobs) > 0 {
		for _, g := range scheduler.Plan(view) {
			c.carryOut(view, g, now)
		}
	}
	for _, q := range c.jobs {
		if t := q.nextReady(); t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// view is what the scheduler plans with: the jobs that have tasks to lease and
// the devices that can take some. Both are sorted, so that equal views give
// equal plans.
func (c *Coordinator) view(now time.Time) scheduler.View {
	var v scheduler.View
	for _, q := range c.jobs {
		if ready := q.ready(now); ready > 0 && len(q.recorder.queue) < maxUnrecorded {
			v.Jobs = append(v.Jobs, q.schedulable(ready))
		}
	}
	if len(v.Jobs) == 0 {
		return v
	}
	for _, d := range c.devices {
		if d.gone.IsZero() && d.slots > 0 && len(d.grants) < maxGrants {
			v.Devices = append(v.Devices, d.schedulable())
		}
	}
	slices.SortFunc(v.Jobs, func(a, b scheduler.Job) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(v.Devices, func(a, b scheduler.Device) int { return cmp.Compare(a.ID, b.ID) })
	return v
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
func (c *Coordinator) carryOut(v scheduler.View, g scheduler.Grant, now time.Time) {
	q := c.jobs[g.Job]
	eligible := c.eligible(v, q)
	left := g.Tasks - c.leaseTo(q, c.devices[g.Device], g.Tasks, eligible)
	job := q.schedulable(0)
	for _, d := range v.Devices {
		if left == 0 || q.ready(now) == 0 {
			return
		}
		if d.ID == g.Device || !scheduler.Eligible(d, job) {
			continue
		}
		known, ok := q.taskTime[d.ID]
		room := scheduler.Quota(d, known, ok) - d.InFlight[q.id]
		left -= c.leaseTo(q, c.devices[d.ID], min(left, room), eligible)
	}
}

// leaseTo leases up to n tasks of a job to a device, and returns how many.
func (c *Coordinator) leaseTo(q *jobQueue, d *device, n, eligible int) int {
	if n <= 0 || len(d.grants) == cap(d.grants) {
		return 0
	}
	indexes := q.take(d.id, n, eligible, time.Now())
	if len(indexes) > 0 {
		d.hold(q.id, len(indexes))
		d.grants <- grant{q.id, indexes}
	}
	return len(indexes)
}

// eligible counts the devices that can run a job's tasks.
func (c *Coordinator) eligible(v scheduler.View, q *jobQueue) int {
	n := 0
	job := q.schedulable(0)
	for _, d := range v.Devices {
		if scheduler.Eligible(d, job) {
			n++
		}
	}
	return n
}

// sendGrants sends the tasks that are granted to d, with their inputs, until
// its session ends.
func (c *Coordinator) sendGrants(ctx context.Context, d *device) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case g := <-d.grants:
			if err := c.sendGrant(ctx, d, g); err != nil {
				return err
			}
		}
	}
}

// sendGrant sends the tasks of a grant in as many leases as the bound of a
// lease asks for.
func (c *Coordinator) sendGrant(ctx context.Context, d *device, g grant) error {
	inputs, spec := c.inputsOf(d, g)
	out := leaseWriter{c: c, d: d, job: g.job, spec: spec}
	for _, in := range inputs {
		input, err := c.readInput(ctx, in.ref)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			c.cfg.Log.Warn("an input cannot be read now", "job", g.job, "task", in.index, "err", err)
			c.giveBack(d, g.job, in.index, time.Now().Add(inputRetry))
			continue
		}
		if err := out.add(ctx, in.index, input); err != nil {
			return err
		}
	}
	return out.flush(ctx)
}

type indexedInput struct {
	index uint32
	ref   state.InputRef
}

// inputsOf finds where the inputs of a grant lie. Tasks that have ended since
// are dropped.
func (c *Coordinator) inputsOf(d *device, g grant) (inputs []indexedInput, spec *wire.JobSpec) {
	var ended []uint32
	c.cfg.Group.Read(func(s *state.State) {
		j := s.Job(g.job)
		if j == nil || j.Ended() {
			ended = g.indexes
			return
		}
		spec = j.Spec()
		inputs = make([]indexedInput, 0, len(g.indexes))
		for _, index := range g.indexes {
			ref, ok := j.Input(index)
			if !ok || j.TaskDone(index) {
				ended = append(ended, index)
				continue
			}
			inputs = append(inputs, indexedInput{index, ref})
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.jobs[g.job]; q != nil {
		for _, index := range ended {
			if q.leased[index] == d.id {
				d.hold(g.job, -1)
			}
			q.forget(index)
		}
	}
	return inputs, spec
}

// readInput returns an input as a lease carries it.
func (c *Coordinator) readInput(ctx context.Context, ref state.InputRef) (*wire.LeasedInput, error) {
	if blob := ref.Segment.GetBlob(); blob != nil {
		return &wire.LeasedInput{Blob: blob}, nil
	}
	var page wire.Hash
	copy(page[:], ref.Segment.GetPage())
	data, err := c.packs.item(ctx, ref.Segment.GetInline(), page, ref.Item)
	if err != nil {
		return nil, err
	}
	return &wire.LeasedInput{Inline: data}, nil
}

// giveBack takes a task back from d that it was not sent.
func (c *Coordinator) giveBack(d *device, job wire.JobID, index uint32, notBefore time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.jobs[job]
	if q == nil || q.leased[index] != d.id {
		return
	}
	q.release(index, d.id, notBefore)
	d.hold(job, -1)
	c.wake()
}

// leaseWriter gathers tasks of one job into leases of bounded size.
type leaseWriter struct {
	c     *Coordinator
	d     *device
	job   wire.JobID
	spec  *wire.JobSpec
	lease *wire.Lease
	bytes int
}

func (w *leaseWriter) add(ctx context.Context, index uint32, input *wire.LeasedInput) error {
	size := len(input.GetInline()) + 32*len(input.GetBlob().GetPages()) + 16
	if w.lease != nil && w.bytes+size > maxLeaseBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if w.lease == nil {
		w.lease = &wire.Lease{Claim: &wire.LeaseClaim{JobId: string(w.job), Attempt: w.c.nextAttempt()}}
		w.bytes = 0
	}
	w.lease.Claim.Indexes = append(w.lease.Claim.Indexes, index)
	w.lease.Inputs = append(w.lease.Inputs, input)
	w.bytes += size
	return nil
}

func (w *leaseWriter) flush(ctx context.Context) error {
	if w.lease == nil {
		return nil
	}
	lease := w.lease
	w.lease = nil
	lease.Claim.Token = wire.LeaseToken(w.c.swarm.leaseKey, w.d.id, lease.Claim)
	if len(w.d.specSent) >= maxSpecsSent {
		clear(w.d.specSent)
	}
	if _, sent := w.d.specSent[w.job]; !sent {
		lease.Spec = w.spec
		w.d.specSent[w.job] = struct{}{}
	}
	return w.d.conn.Send(ctx, &wire.Frame{Kind: &wire.Frame_Lease{Lease: lease}})
}

func (c *Coordinator) nextAttempt() *wire.Attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counter++
	return &wire.Attempt{Term: c.term, Counter: c.counter}
}
