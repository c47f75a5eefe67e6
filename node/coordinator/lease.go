package coordinator

import (
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// lease is the right of one session of a device to run tasks of a job. A grant
// is one lease until its inputs are sent; then it is one for each frame. All
// fields are guarded by the coordinator's mutex.
type lease struct {
	device  *device
	queue   *jobQueue
	attempt *wire.Attempt // nil until it is sent
	indexes []uint32
	open    int // how many of indexes are leased by it still
	bytes   int // of the inputs that went with it
}

// lend leases tasks, which nobody holds now, to a device.
func (q *jobQueue) lend(d *device, attempt *wire.Attempt, indexes []uint32) *lease {
	l := &lease{device: d, queue: q, attempt: attempt, indexes: indexes, open: len(indexes)}
	for _, index := range indexes {
		q.leased[index] = l
	}
	d.leases[l] = struct{}{}
	d.hold(q.id, len(indexes))
	return l
}

// end ends the lease of a task, if there is one.
func (q *jobQueue) end(index uint32) {
	l := q.leased[index]
	if l == nil {
		return
	}
	delete(q.leased, index)
	l.device.hold(q.id, -1)
	l.lose(1)
}

// lose counts n tasks less, and forgets the lease after the last.
func (l *lease) lose(n int) {
	if l.open -= n; l.open > 0 {
		return
	}
	delete(l.device.leases, l)
	l.device.inputBytes -= l.bytes
	l.device.freed()
}

// split makes a lease of its own, with an attempt, of those tasks of l that it
// still holds, and returns it with their places in indexes; nil if there are
// none, or the job is over.
func (c *Coordinator) split(l *lease, indexes []uint32, bytes int) (sent *lease, places []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := l.queue
	if c.jobs[q.id] != q {
		return nil, nil
	}
	var held []uint32
	for i, index := range indexes {
		if q.leased[index] == l {
			held = append(held, index)
			places = append(places, i)
		}
	}
	if len(held) == 0 {
		return nil, nil
	}
	c.counter++
	attempt := &wire.Attempt{Term: c.term, Counter: c.counter}
	sent = &lease{device: l.device, queue: q, attempt: attempt, indexes: held, open: len(held), bytes: bytes}
	for _, index := range held {
		q.leased[index] = sent
	}
	l.device.leases[sent] = struct{}{}
	l.device.inputBytes += bytes
	l.lose(len(held))
	return sent, places
}

// release gives all that a session holds to others, from a time on. The caller
// holds the mutex.
func (c *Coordinator) release(d *device, notBefore time.Time) {
	for l := range d.leases {
		for _, index := range l.indexes {
			if l.queue.leased[index] == l {
				l.queue.release(index, notBefore)
			}
		}
	}
	c.wake()
}

// adopt takes over the tasks of a claim that are open and that nobody else
// holds. The device is told to stop working on those that have ended; those that
// another device has now it may finish too, and the first result wins. The
// caller holds the mutex.
func (c *Coordinator) adopt(d *device, claim *wire.LeaseClaim) {
	q := c.jobs[wire.JobID(claim.GetJobId())]
	if q == nil {
		d.cancel(wire.JobID(claim.GetJobId()), claim.GetAttempt(), nil)
		return
	}
	settled := make(map[uint32]bool, len(claim.GetSettled()))
	for _, index := range claim.GetSettled() {
		settled[index] = true
	}
	var adopted, ended []uint32
	for _, index := range claim.GetIndexes() {
		if settled[index] {
			continue // it failed, say, and waits for another run
		}
		holder, leased := q.leased[index]
		record, recording := q.recording[index]
		switch {
		case leased && (holder == nil || holder.device == d): // claimed twice
		case leased && holder.device.id == d.id:
			q.end(index)
			q.leased[index] = nil // until it is lent below
			adopted = append(adopted, index)
		case leased:
			d.expect(q, index)
		case recording && record.device == d.id: // its result is here
		case recording || !q.claim(index):
			ended = append(ended, index)
		default:
			q.leased[index] = nil
			adopted = append(adopted, index)
		}
	}
	if len(adopted) > 0 {
		q.lend(d, claim.GetAttempt(), adopted)
	}
	if len(ended) > 0 {
		d.cancel(q.id, claim.GetAttempt(), ended)
	}
}
