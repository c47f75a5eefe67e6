package worker

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxBatch bounds the tasks given to a slot at one time.
	maxBatch = 64
	// batchTime is about how long a batch should run at the most, so that slots
	// finish together.
	batchTime = 20 * time.Millisecond
)

// batch is tasks of one lease that run one after the other in one slot.
type batch struct {
	lease  *lease
	places []int32
	done   int // how many have an outcome: the next is the one that runs
	ctx    context.Context
	cancel context.CancelFunc
}

// place is where a task is.
type place struct {
	lease *lease
	at    int32
}

// outcome is an ended task whose result is to be sent.
type outcome struct {
	lease  *lease
	place  int32
	result *wire.TaskResult
}

// take returns the next batch, once there is one that may begin; nil after
// stop. The batch's context is made from ctx.
func (h *holdings) take(ctx context.Context) *batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.stopped {
		if !h.unwell && h.kept < maxKept && h.keptFiles < maxKeptFiles && h.uploads < maxUploads {
			for i, l := range h.order {
				if l.job.path != "" {
					b := h.begin(i)
					b.ctx, b.cancel = context.WithCancel(ctx)
					return b
				}
			}
		}
		h.work.Wait()
	}
	return nil
}

// begin takes a batch from the lease at place i of the order.
func (h *holdings) begin(i int) *batch {
	l := h.order[i]
	n := h.batchSize(l)
	b := &batch{lease: l, places: l.todo[:n:n]}
	if l.todo = l.todo[n:]; len(l.todo) == 0 {
		h.order = append(h.order[:i], h.order[i+1:]...)
	}
	for _, p := range b.places {
		l.tasks[p].state = running
		l.tasks[p].batch = b
	}
	h.waiting -= n
	h.running += n
	return b
}

// batchSize returns how many of the lease's next tasks make a batch: few enough
// that all slots are busy to the end. A task with a large input goes alone.
func (h *holdings) batchSize(l *lease) int {
	n := (h.waiting + 2*h.slots - 1) / (2 * h.slots)
	if l.job.mean > 0 {
		n = min(n, int(batchTime/l.job.mean))
	}
	n = max(1, min(n, maxBatch, len(l.todo)))
	for i, p := range l.todo[:n] {
		if l.tasks[p].input.GetBlob() != nil {
			return max(1, i)
		}
	}
	return n
}

// next notes that the batch's task i has run. The batch ends early if the one
// that runs now is cancelled.
func (h *holdings) next(b *batch, i int) (cancelled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b.done = i + 1
	if b.done < len(b.places) && b.lease.tasks[b.places[b.done]].state == settled {
		b.cancel()
	}
	return b.lease.tasks[b.places[i]].state == settled
}

// giveBack puts the batch's tasks that did not run back into the queue.
func (h *holdings) giveBack(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := b.lease
	var again []int32
	for _, p := range b.places[b.done:] {
		if t := &l.tasks[p]; t.state == running {
			t.state, t.batch = waiting, nil
			again = append(again, p)
		}
	}
	if len(again) == 0 {
		return
	}
	if len(l.todo) == 0 {
		h.order = append(h.order, l)
	}
	l.todo = append(again, l.todo...)
	h.running -= len(again)
	h.waiting += len(again)
	h.work.Broadcast()
}

// uploading notes that an output begins or ends its way to pages.
func (h *holdings) uploading(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uploads += n
	if n < 0 {
		h.work.Broadcast()
	}
}

// end notes a task's result, and has it sent.
func (h *holdings) end(l *lease, place int32, result *wire.TaskResult) {
	size := resultSize(result)
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &l.tasks[place]
	if t.state == settled {
		return
	}
	h.running--
	h.inputs -= int64(len(t.input.GetInline()))
	t.state, t.result, t.input, t.batch, t.stop = ended, result, nil, nil, nil
	h.kept += size
	l.job.learn(time.Duration(result.GetDurationUs()) * time.Microsecond)
	if len(h.outbox) == 0 {
		h.outboxSince = time.Now()
	}
	h.outbox = append(h.outbox, outcome{l, place, result})
	h.outboxBytes += size
	if len(h.outbox) == 1 || h.outboxBytes >= maxResults || h.running+h.waiting == 0 {
		h.signal()
	}
}

// resultSize returns about what a result takes in memory and in a frame.
func resultSize(r *wire.TaskResult) int64 {
	const rest = 160 // the struct, the device's ID, numbers
	return int64(rest + len(r.GetOutput()) + len(r.GetStderr()) + len(r.GetError()) + 34*len(r.GetOutputBlob().GetPages()))
}

// keepFile notes where a running task's output is, and what ends its way to pages
// when the task is settled. It reports false, and keeps nothing, if it is.
func (h *holdings) keepFile(t place, file string, size int64, stop func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := &t.lease.tasks[t.at]
	if k.state == settled {
		return false
	}
	k.file, k.size, k.stop = file, size, stop
	h.keptFiles += size
	return true
}

// again begins another way to pages of outputs whose pages were lost, with stop to
// end it. It reports false if there is nothing to write: the task is settled, its
// output was small, or is on its way.
func (h *holdings) again(t place, stop func()) (file string, size int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := &t.lease.tasks[t.at]
	if k.state != ended || k.result.GetOutputBlob() == nil || k.stop != nil || h.uploads >= maxUploads {
		return "", 0, false
	}
	k.stop = stop
	h.uploads++
	return k.file, k.size, true
}

// wroteAnew ends what again began, and has the result sent again if the output is
// in pages.
func (h *holdings) wroteAnew(t place, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uploads--
	h.work.Broadcast()
	k := &t.lease.tasks[t.at]
	if k.state != ended {
		return
	}
	k.stop = nil
	if ok {
		h.outbox = append(h.outbox, outcome{t.lease, t.at, k.result})
		h.outboxBytes += resultSize(k.result)
		h.outboxSince = time.Now()
		h.signal()
	}
}

// places returns where the tasks of a lease are that an acknowledgement calls
// lost.
func (h *holdings) places(a *wire.ResultsAck) (found []place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.leases[attemptOf(a.GetAttempt())]
	if l == nil {
		return nil
	}
	for _, index := range a.GetLost() {
		if p, ok := l.place(index); ok {
			found = append(found, place{l, p})
		}
	}
	return found
}

// settle forgets a task that is acknowledged or cancelled, and its lease after
// the last. The caller holds mu.
func (h *holdings) settle(l *lease, place int32) {
	t := &l.tasks[place]
	switch t.state {
	case settled:
		return
	case waiting:
		h.waiting--
	case running:
		h.running--
	case ended:
		h.kept -= resultSize(t.result)
	}
	h.inputs -= int64(len(t.input.GetInline()))
	h.keptFiles -= t.size
	if t.stop != nil {
		t.stop()
	}
	if t.file != "" {
		h.trash = append(h.trash, t.file)
	}
	*t = task{state: settled}
	if l.open--; l.open == 0 {
		delete(h.leases, attemptOf(l.claim.GetAttempt()))
		h.leave(l.job)
		h.busy()
	}
}

// leave notes that a job has a lease less.
func (h *holdings) leave(j *job) {
	if j.leases--; j.leases > 0 {
		return
	}
	if j.path != "" {
		j.path = ""
		h.programs.release(j.program)
	}
	if len(h.jobs) > maxIdleJobs && h.jobs[j.id] == j {
		delete(h.jobs, j.id)
	}
}

// inputsOf returns the inputs of a batch that is about to run; nil for a task
// that is cancelled.
func (h *holdings) inputsOf(b *batch) []*wire.LeasedInput {
	inputs := make([]*wire.LeasedInput, len(b.places))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, p := range b.places {
		inputs[i] = b.lease.tasks[p].input
	}
	return inputs
}
