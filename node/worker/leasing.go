package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// add takes a lease in. It returns the job if its program has to be fetched. An
// error means that the coordinator breaks the protocol.
func (h *holdings) add(frame *wire.Lease) (fetch *job, err error) {
	l, bytes, err := newLease(frame)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := attemptOf(l.claim.GetAttempt())
	if h.leases[id] != nil {
		return nil, nil // we have it
	}
	if h.waiting+h.running+len(l.tasks) > maxHeldTasks || h.inputs+bytes > maxHeldInput {
		return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "more is leased to the device than it can hold")
	}
	l.job, err = h.jobOf(frame)
	if err != nil {
		return nil, err
	}
	h.leases[id] = l
	h.inputs += bytes
	h.waiting += len(l.tasks)
	h.order = append(h.order, l)
	fetch = h.enter(l.job)
	h.busy()
	h.applyEarly(l)
	h.work.Broadcast()
	return fetch, nil
}

// enter notes that a job has a lease more, and finds its program. It returns the
// job if the program is not here and not on its way.
func (h *holdings) enter(j *job) (fetch *job) {
	j.leases++
	if j.path == "" && !j.fetching {
		if path, ok := h.programs.acquireHere(j.program); ok {
			j.path = path
		} else {
			j.fetching = true
			return j
		}
	}
	return nil
}

// newLease checks a lease and returns it with the bytes of its inputs.
func newLease(frame *wire.Lease) (*lease, int64, error) {
	claim, inputs := frame.GetClaim(), frame.GetInputs()
	indexes := claim.GetIndexes()
	if len(indexes) == 0 || len(indexes) > wire.MaxPackItems || len(indexes) != len(inputs) || claim.GetAttempt() == nil {
		return nil, 0, wire.Errorf(wire.Code_CODE_INVALID, "a lease of %d tasks with %d inputs", len(indexes), len(inputs))
	}
	l := &lease{claim: claim, tasks: make([]task, len(inputs)), todo: make([]int32, len(inputs)), open: len(inputs)}
	consecutive := true
	var bytes int64
	for i, input := range inputs {
		if input.GetBlob() != nil {
			if err := checkBlob(input.GetBlob(), wire.MaxBlob); err != nil {
				return nil, 0, err
			}
		}
		l.tasks[i].input = input
		l.todo[i] = int32(i)
		bytes += int64(len(input.GetInline()))
		consecutive = consecutive && uint64(indexes[i]) == uint64(indexes[0])+uint64(i)
	}
	if consecutive {
		return l, bytes, nil
	}
	l.places = make(map[uint32]int32, len(indexes))
	for i, index := range indexes {
		l.places[index] = int32(i)
	}
	if len(l.places) != len(indexes) {
		return nil, 0, wire.Errorf(wire.Code_CODE_INVALID, "a lease that names a task twice")
	}
	return l, bytes, nil
}

// checkBlob reports why a blob cannot be one.
func checkBlob(b *wire.Blob, limit uint64) error {
	pages := (b.GetSize() + wire.PageSize - 1) / wire.PageSize
	if b.GetSize() > limit || uint64(len(b.GetPages())) != pages {
		return wire.Errorf(wire.Code_CODE_INVALID, "a blob of %d bytes in %d pages", b.GetSize(), len(b.GetPages()))
	}
	for _, page := range b.GetPages() {
		if _, err := wire.HashFromBytes(page); err != nil {
			return wire.Errorf(wire.Code_CODE_INVALID, "the name of a page: %v", err)
		}
	}
	return nil
}

// jobOf returns the job of a lease, known or new. A job of another spec is
// another: the ID of one that was removed may be used again.
func (h *holdings) jobOf(frame *wire.Lease) (*job, error) {
	id := wire.JobID(frame.GetClaim().GetJobId())
	if j := h.jobs[id]; j != nil && (frame.GetSpec() == nil || proto.Equal(frame.GetSpec(), j.spec)) {
		return j, nil
	}
	if frame.GetSpec() == nil {
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "a lease of job %q, which this session has not described", id)
	}
	j, err := newJob(id, frame.GetSpec())
	if err == nil {
		h.jobs[id] = j
	}
	return j, err
}

// newJob checks a spec as far as the device depends on it.
func newJob(id wire.JobID, spec *wire.JobSpec) (*job, error) {
	if err := id.Check(); err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a lease: %v", err)
	}
	blob := spec.GetProgram().GetBlob()
	if err := checkBlob(blob, wire.MaxProgram); err != nil {
		return nil, fmt.Errorf("the program of job %s: %w", id, err)
	}
	hash, err := wire.HashFromBytes(blob.GetHash())
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "the program of job %s: %v", id, err)
	}
	name := filepath.Base(spec.GetProgram().GetName())
	return &job{id: id, spec: spec, program: hash, args: append([]string{name}, spec.GetArgs()...)}, nil
}

// fetched notes what became of a job's program. After an error it returns the
// tasks that cannot run.
func (h *holdings) fetched(j *job, path string, err error) (lost []place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j.fetching = false
	if err == nil {
		if j.leases == 0 {
			h.programs.release(j.program)
			return nil
		}
		j.path = path
		h.work.Broadcast()
		return nil
	}
	return h.abandon(func(l *lease) bool { return l.job == j })
}

// abandon takes the waiting tasks of some leases out of the order, for the
// caller to end. The caller holds mu.
func (h *holdings) abandon(of func(*lease) bool) (lost []place) {
	for _, l := range h.order {
		if !of(l) {
			continue
		}
		for _, p := range l.todo {
			l.tasks[p].state = running
			lost = append(lost, place{l, p})
		}
		h.waiting -= len(l.todo)
		h.running += len(l.todo)
		l.todo = nil
	}
	h.compact()
	return lost
}

// compact takes leases without waiting tasks out of the order.
func (h *holdings) compact() {
	h.order = slices.DeleteFunc(h.order, func(l *lease) bool { return len(l.todo) == 0 })
}

// cancel ends work on tasks. A cancellation may come before its lease: leases
// wait behind other frames.
func (h *holdings) cancel(c *wire.CancelTasks) {
	h.mu.Lock()
	l := h.leases[attemptOf(c.GetAttempt())]
	if l == nil {
		if h.early = append(h.early, c); len(h.early) > maxEarly {
			h.early = h.early[1:]
		}
	} else {
		h.cancelIn(l, c)
	}
	h.mu.Unlock()
	h.sweep()
}

// applyEarly applies cancellations that came before the lease. The caller holds
// mu.
func (h *holdings) applyEarly(l *lease) {
	id := attemptOf(l.claim.GetAttempt())
	h.early = slices.DeleteFunc(h.early, func(c *wire.CancelTasks) bool {
		if attemptOf(c.GetAttempt()) != id {
			return false
		}
		h.cancelIn(l, c)
		return true
	})
}

// cancelIn settles the tasks that c names. The caller holds mu.
func (h *holdings) cancelIn(l *lease, c *wire.CancelTasks) {
	stop := func(p int32) {
		if b := l.tasks[p].batch; b != nil && b.done < len(b.places) && b.places[b.done] == p {
			b.cancel() // the sandbox kills what runs now
		}
		h.settle(l, p)
	}
	if len(c.GetIndexes()) == 0 {
		for p := range l.tasks {
			stop(int32(p))
		}
	}
	for _, index := range c.GetIndexes() {
		if p, ok := l.place(index); ok {
			stop(p)
		}
	}
	l.todo = slices.DeleteFunc(l.todo, func(p int32) bool { return l.tasks[p].state != waiting })
	h.compact()
}

// acknowledge forgets results that are recorded.
func (h *holdings) acknowledge(a *wire.ResultsAck) {
	h.mu.Lock()
	l := h.leases[attemptOf(a.GetAttempt())]
	full := h.kept >= maxKept || h.keptFiles >= maxKeptFiles
	for _, index := range a.GetIndexes() {
		if l == nil {
			break
		}
		if p, ok := l.place(index); ok && l.tasks[p].state == ended {
			h.settle(l, p)
		}
	}
	if full {
		h.work.Broadcast()
	}
	h.mu.Unlock()
	h.sweep()
}

// sweep removes files that are no longer needed.
func (h *holdings) sweep() {
	h.mu.Lock()
	trash := h.trash
	h.trash = nil
	h.mu.Unlock()
	for _, file := range trash {
		os.Remove(file) // what is left is removed at the next start
	}
}
