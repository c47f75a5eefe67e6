package coordinator

import (
	"container/heap"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Back-off of a task whose attempts fail, where there is no other device for
// it: section 10 of the design.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

const (
	// maxPassed bounds the tasks that one look passes over because they failed
	// on the device that asks.
	maxPassed = 64
	// maxAgain bounds the tasks that wait to run again before no new ones are
	// begun: a device that fails everything must not put the whole job there.
	maxAgain = 64 << 10
	// maxSkip bounds how far beyond the known high-water mark an earlier term
	// can have leased.
	maxSkip = 4 * maxHeld
	// minCompact is how many entries of the order may be stale.
	minCompact = 1024
)

// jobQueue is the soft state of an open job: which of its tasks are leased, and
// which wait. The tasks that were never leased in this term are not listed one
// by one: they are those from cursor on.
//
// Each task below cursor that is still open is in exactly one of leased,
// recording and again.
type jobQueue struct {
	id        wire.JobID
	spec      *wire.JobSpec
	submitter wire.DeviceID
	createdMS int64

	total  uint32
	cursor uint32
	leased map[uint32]*lease
	// recording holds the tasks whose results came and are not committed yet.
	recording map[uint32]received
	again     map[uint32]*waiting // tasks to run again
	order     waitingHeap         // the same, by when they may run

	// Sparse facts of tasks that were leased more than once.
	extraRuns map[uint32]uint32
	failedOn  map[uint32][]wire.DeviceID

	// claims is until when tasks that an earlier term leased wait for who has
	// them.
	claims   time.Time
	taskTime map[wire.DeviceID]time.Duration
	recorder recorder
	// changed is closed, and replaced, when something was recorded or the job
	// ended.
	changed chan struct{}
}

// waiting is a task that will run again.
type waiting struct {
	index     uint32
	notBefore time.Time
}

// resumeJob returns the queue of a job that the state holds. Tasks that an
// earlier term may have leased wait until claims, for their devices to show up.
func resumeJob(j *state.Job, claims time.Time) *jobQueue {
	q := &jobQueue{
		id:        j.ID(),
		spec:      j.Spec(),
		submitter: j.Submitter(),
		createdMS: j.CreatedAtMS(),
		total:     j.Total(),
		cursor:    j.LeasedBelow(),
		leased:    make(map[uint32]*lease),
		recording: make(map[uint32]received),
		again:     make(map[uint32]*waiting),
		extraRuns: make(map[uint32]uint32),
		failedOn:  make(map[uint32][]wire.DeviceID),
		taskTime:  make(map[wire.DeviceID]time.Duration),
		changed:   make(chan struct{}),
		claims:    claims,
	}
	for i := range q.cursor {
		if !j.TaskDone(i) {
			q.putBack(i, claims)
		}
	}
	return q
}

// pending counts the tasks that no device holds; ready those of them that may
// be leased now.
func (q *jobQueue) pending() int { return len(q.again) + int(q.total-q.cursor) }

func (q *jobQueue) ready(now time.Time) int {
	n := int(q.total - q.cursor)
	if next := q.nextReady(); !next.IsZero() && !next.After(now) {
		n += len(q.again)
	}
	return n
}

// putBack makes a task wait to be leased again, not before a time.
func (q *jobQueue) putBack(index uint32, notBefore time.Time) {
	if _, ok := q.again[index]; ok {
		return
	}
	if len(q.order) > 2*len(q.again)+minCompact {
		q.compact()
	}
	w := &waiting{index: index, notBefore: notBefore}
	q.again[index] = w
	heap.Push(&q.order, w)
}

// compact drops from the order what waits no more.
func (q *jobQueue) compact() {
	q.order = slices.DeleteFunc(q.order, func(w *waiting) bool { return q.again[w.index] != w })
	heap.Init(&q.order)
}

// take removes up to n tasks for a device from those that wait: first those
// that run again and have not failed on it, or failed on all of the eligible
// devices, then new ones, unless too many wait to run again.
func (q *jobQueue) take(device wire.DeviceID, n int, eligible []wire.DeviceID, now time.Time) []uint32 {
	var taken []uint32
	var passed []*waiting
	for len(taken) < n && len(q.order) > 0 && len(passed) < maxPassed {
		w := q.order[0]
		if q.again[w.index] != w { // ended, or claimed, while it waited
			heap.Pop(&q.order)
			continue
		}
		if w.notBefore.After(now) {
			break
		}
		heap.Pop(&q.order)
		if slices.Contains(q.failedOn[w.index], device) && q.untried(w.index, eligible) {
			passed = append(passed, w)
			continue
		}
		delete(q.again, w.index)
		q.extraRuns[w.index]++
		taken = append(taken, w.index)
	}
	for _, w := range passed {
		heap.Push(&q.order, w)
	}
	for len(taken) < n && q.cursor < q.total && len(q.again) < maxAgain {
		taken = append(taken, q.cursor)
		q.cursor++
	}
	return taken
}

// untried reports whether a task has not failed on some of the devices.
func (q *jobQueue) untried(index uint32, devices []wire.DeviceID) bool {
	failed := q.failedOn[index]
	return slices.ContainsFunc(devices, func(d wire.DeviceID) bool { return !slices.Contains(failed, d) })
}

// claim removes a task from those that wait, for a device that proved a lease of
// an earlier term or session. It reports false if the task has ended. Those
// below it that were never leased in this term were in an earlier one, and wait
// for their devices too.
func (q *jobQueue) claim(index uint32) bool {
	switch {
	case index >= q.total || index >= q.cursor && index-q.cursor > maxSkip:
		return false
	case index < q.cursor:
		_, open := q.again[index]
		delete(q.again, index)
		return open
	}
	for ; q.cursor < index; q.cursor++ {
		q.putBack(q.cursor, q.claims)
	}
	q.cursor++
	return true
}

// release takes a task back from who has it.
func (q *jobQueue) release(index uint32, notBefore time.Time) {
	q.end(index)
	q.putBack(index, notBefore)
}

// forget drops what is known of a task that has ended.
func (q *jobQueue) forget(index uint32) {
	q.end(index)
	delete(q.recording, index)
	delete(q.again, index)
	delete(q.extraRuns, index)
	delete(q.failedOn, index)
}

// failed notes that an attempt failed on device, and when the task may run
// again: at once if one of the eligible devices has not failed it, else after a
// back-off.
func (q *jobQueue) failed(index uint32, device wire.DeviceID, eligible []wire.DeviceID, now time.Time) {
	if !slices.Contains(q.failedOn[index], device) {
		q.failedOn[index] = append(q.failedOn[index], device)
	}
	notBefore := now
	if !q.untried(index, eligible) {
		notBefore = now.Add(min(maxBackoff, firstBackoff<<min(q.extraRuns[index], 16)))
	}
	delete(q.recording, index)
	q.release(index, notBefore)
}

// runs counts the runs started for a task that is leased or ends now.
func (q *jobQueue) runs(index uint32) uint32 { return q.extraRuns[index] + 1 }

// nextReady returns when the first waiting task may run; zero if none waits.
func (q *jobQueue) nextReady() time.Time {
	for len(q.order) > 0 && q.again[q.order[0].index] != q.order[0] {
		heap.Pop(&q.order)
	}
	if len(q.order) == 0 {
		return time.Time{}
	}
	return q.order[0].notBefore
}

// announce wakes those who wait for the job to change.
func (q *jobQueue) announce() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// measure notes that device took d for a task, as a weighted mean that follows
// within a few batches.
func (q *jobQueue) measure(device wire.DeviceID, d time.Duration) {
	old, ok := q.taskTime[device]
	if !ok {
		q.taskTime[device] = d
		return
	}
	q.taskTime[device] = old + (d-old)/4
}

// waitingHeap orders tasks by when they may run, then by index.
type waitingHeap []*waiting

func (h waitingHeap) Len() int { return len(h) }
func (h waitingHeap) Less(i, k int) bool {
	if !h[i].notBefore.Equal(h[k].notBefore) {
		return h[i].notBefore.Before(h[k].notBefore)
	}
	return h[i].index < h[k].index
}
func (h waitingHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }

// Push and Pop serve container/heap only.
func (h *waitingHeap) Push(x any) { *h = append(*h, x.(*waiting)) }

// Pop serves container/heap only.
func (h *waitingHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
