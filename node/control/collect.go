package control

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// MaxInlineInput is the largest input that travels in AppendInputs; a
	// larger one goes by PutBlob first.
	MaxInlineInput = 256 << 10
	// maxBatchBytes bounds the encoded inputs of one call, so that the call,
	// spec and all, stays below 1 MiB.
	maxBatchBytes = 896 << 10
	// maxBatchItems bounds their number: enough to make a call's cost vanish,
	// few enough that the swarm starts on them soon.
	maxBatchItems = 8192
	// maxPendingBytes bounds the large inputs that a batch holds in memory
	// until they are blobs.
	maxPendingBytes = 4 << 20
	// linger is how long an input waits at most for others to share its call.
	linger = 5 * time.Millisecond
)

// Input is one input of a map.
type Input struct {
	// Data is the input, unless Open is set. It must not change afterwards.
	Data []byte
	// Open opens a large input for reading; it may be called again while the
	// iterator has not gone on, when an upload has to be repeated.
	Open func() (io.ReadCloser, error)
}

// item is an input on its way.
type item struct {
	input *wire.Input
	hash  wire.Hash
	// large holds an input that has to become a blob first.
	large []byte
}

// encodedSize bounds what the item adds to a call.
func (it *item) encodedSize() int {
	const frame = 16 + 18 // with a hold
	if it.large != nil {
		return 2*frame + (len(it.large)/wire.PageSize+1)*40
	}
	return frame + len(it.input.GetData()) + 40*len(it.input.GetBlob().GetPages())
}

// batch is the inputs of one call.
type batch struct {
	first         uint32
	before, after wire.Digest
	items         []item
	bytes         int
	pending       int
}

func (b *batch) fits(it *item) bool {
	return len(b.items) == 0 || len(b.items) < maxBatchItems &&
		b.bytes+it.encodedSize() <= maxBatchBytes && b.pending+len(it.large) <= maxPendingBytes
}

func (b *batch) full() bool {
	return len(b.items) >= maxBatchItems || b.bytes >= maxBatchBytes/2 || b.pending >= maxPendingBytes/2
}

// next returns the index after the batch's last input.
func (b *batch) next() uint32 { return b.first + uint32(len(b.items)) }

// skip drops the inputs before index, which are acknowledged.
func (b *batch) skip(index uint32) {
	for b.first < index {
		b.before = b.before.Next(b.items[0].hash)
		b.items = b.items[1:]
		b.first++
	}
}

// inputs returns the items as a call carries them.
func (b *batch) inputs() []*wire.Input {
	out := make([]*wire.Input, len(b.items))
	for i := range b.items {
		out[i] = b.items[i].input
	}
	return out
}

// collector gathers inputs into batches: one goroutine adds, another takes.
// It holds one batch at most.
type collector struct {
	wake chan struct{} // a batch has begun or is full, or the inputs have ended
	room chan struct{} // the batch was taken

	mu    sync.Mutex
	cur   *batch
	since time.Time // when the batch's first input came
	ended bool
	err   error
}

func newCollector(first uint32, digest wire.Digest) *collector {
	return &collector{
		wake: make(chan struct{}, 1),
		room: make(chan struct{}, 1),
		cur:  &batch{first: first, before: digest, after: digest},
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add waits until the item fits and puts it into the batch.
func (c *collector) add(ctx context.Context, it item) error {
	for !c.tryAdd(it) {
		select {
		case <-c.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *collector) tryAdd(it item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.cur
	if !b.fits(&it) {
		// Full, even if it has room for a smaller one.
		b.bytes = maxBatchBytes
		notify(c.wake)
		return false
	}
	b.items = append(b.items, it)
	b.bytes += it.encodedSize()
	b.pending += len(it.large)
	b.after = b.after.Next(it.hash)
	if len(b.items) == 1 {
		c.since = time.Now()
		notify(c.wake)
	} else if b.full() {
		notify(c.wake)
	}
	return true
}

// end says that no input follows; err says why, if it is not the end of them.
func (c *collector) end(err error) {
	c.mu.Lock()
	c.ended, c.err = true, err
	c.mu.Unlock()
	notify(c.wake)
}

// take waits for a batch that is full, or whose first input has waited long
// enough, or is the last (last is then set; it may be empty).
func (c *collector) take(ctx context.Context) (b *batch, last bool, err error) {
	for {
		b, last, wait, err := c.tryTake()
		if b != nil || err != nil {
			notify(c.room)
			return b, last, err
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-c.wake:
		case <-due:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// tryTake takes the batch if it is ready; else it says how long until it is, 0
// for one that has not begun.
func (c *collector) tryTake() (b *batch, last bool, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended && c.err != nil {
		return nil, false, 0, c.err
	}
	if !c.ended && !c.cur.full() {
		if len(c.cur.items) == 0 {
			return nil, false, 0, nil
		}
		if wait = linger - time.Since(c.since); wait > 0 {
			return nil, false, wait, nil
		}
	}
	b = c.cur
	c.cur = &batch{first: b.next(), before: b.after, after: b.after}
	return b, c.ended, 0, nil
}
