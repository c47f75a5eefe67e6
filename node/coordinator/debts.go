package coordinator

import (
	"context"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxDebt is how many bytes of a device's results may wait to be recorded.
	maxDebt = 8 << 20
	// fullDebt is how many bytes of all results may wait before those devices are
	// slowed down that have more than an equal share of it. As the others have
	// less, no more than twice as many wait in all, 64 MiB, and the frames that
	// were being taken.
	fullDebt = 32 << 20
)

// debts are the bytes of results that are not recorded yet, by device. Who has
// too many is slowed down, and nobody else.
type debts struct {
	of    map[wire.DeviceID]int
	total int
	// slowed are the sessions whose results wait to be taken.
	slowed map[*device]struct{}
}

func (b *debts) add(id wire.DeviceID, size int) {
	b.of[id] += size
	b.total += size
}

// over reports whether a device has to wait.
func (b *debts) over(id wire.DeviceID) bool {
	debt := b.of[id]
	return debt >= maxDebt || b.total >= fullDebt && debt > 0 && debt >= fullDebt/len(b.of)
}

// pay notes that a result is settled, and lets those go on that waited. The
// caller holds the mutex.
func (c *Coordinator) pay(id wire.DeviceID, size int) {
	b := &c.debts
	b.total -= size
	if b.of[id] -= size; b.of[id] <= 0 {
		delete(b.of, id)
	}
	for d := range b.slowed {
		select {
		case d.slowed <- struct{}{}:
		default:
		}
	}
	c.wake() // who was over its share may be given tasks
}

// awaitDebts waits while a device has too many results that are not recorded; false:
// its session has ended.
func (c *Coordinator) awaitDebts(ctx context.Context, d *device) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.debts.over(d.id) {
		if c.debts.slowed == nil {
			c.debts.slowed = make(map[*device]struct{})
		}
		c.debts.slowed[d] = struct{}{}
		c.mu.Unlock()
		ended := false
		select {
		case <-d.slowed:
		case <-ctx.Done():
			ended = true
		case <-d.conn.Ended():
			ended = true
		}
		c.mu.Lock()
		delete(c.debts.slowed, d)
		if ended {
			return false
		}
	}
	return true
}
