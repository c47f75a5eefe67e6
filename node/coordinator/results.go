package coordinator

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxInlineOutput is the largest output that a result may carry itself;
	// devices send larger ones in pages first. Sandboxes cut at 64 KiB.
	maxInlineOutput = 256 << 10
	// maxResultSize bounds a result, pages apart; maxDurationUS what it may say of
	// its time: ten years.
	maxResultSize = maxInlineOutput + wire.MaxStderr + 4*wire.MaxErrorText + 1024
	maxDurationUS = 10 * 366 * 24 * 3600 * 1_000_000
	// maxBatchBytes and maxBatchRecords bound the results that one command
	// records: they share one page.
	maxBatchBytes   = wire.PageSize - 64<<10
	maxBatchRecords = 4096
	// maxBatchPages bounds the pages of large outputs that one command names.
	maxBatchPages = 2048
	// resultOverhead is about what a result costs besides its bytes, and
	// confirmOverhead what it costs to look for its pages: a device has at most a
	// thousand of those.
	resultOverhead  = 256
	confirmOverhead = 8 << 10
	// addedSize is what the coordinator adds to a result: the device's ID, the
	// number of runs.
	addedSize = 128
	// linger is how long results gather under load before they are committed,
	// so that an entry and a page serve hundreds: a tenth of what a batch of
	// tasks is worth.
	linger = 8 * time.Millisecond
	// lingerBelow is the number of results that need not wait for more.
	lingerBelow = 512
	// recordRetry is the pause after a commit that was refused or is unknown.
	recordRetry = 100 * time.Millisecond
)

// recorder holds the results of a job that came and are not committed yet.
type recorder struct {
	queue  []received
	active bool
}

// received is a result and whom to tell when it is recorded.
type received struct {
	device  wire.DeviceID
	attempt *wire.Attempt
	result  *wire.TaskResult
	size    int // of the result, in bytes
	debt    int // what of it counts against its device
	// holds keep the pages of its output until it is recorded.
	holds []wire.HoldID
	// unconfirmed is set while its pages are looked for.
	unconfirmed *unconfirmed
}

// receive takes results from a device. Those it was leased wait to be recorded;
// others are told at once that nobody wants them. It waits while too many of the
// device's results do.
func (c *Coordinator) receive(ctx context.Context, d *device, r *wire.Results) error {
	if err := c.checkResults(r); err != nil {
		return err
	}
	if !c.awaitDebts(ctx, d) {
		return nil // the session has ended; the device keeps its results
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.jobs[wire.JobID(r.GetJobId())]
	var unwanted []uint32
	for _, result := range r.GetResults() {
		if q == nil || !c.accept(d, q, r.GetAttempt(), result) {
			unwanted = append(unwanted, result.GetIndex())
			c.useless.add(d.staged.takeHolds(r.GetAttempt(), result.GetIndex(), result.GetOutputBlob().GetPages())...)
		}
	}
	if len(unwanted) > 0 {
		d.acknowledge(&wire.ResultsAck{Attempt: r.GetAttempt(), Indexes: unwanted})
	}
	if q != nil {
		c.startRecorder(q)
	}
	c.wake()
	return nil
}

// startRecorder lets a job's recorder run while it has something to do. The
// caller holds the mutex.
func (c *Coordinator) startRecorder(q *jobQueue) {
	if len(q.recorder.queue) > 0 && !q.recorder.active {
		q.recorder.active = true
		c.background.Go(func() error { c.record(c.ctx, q); return nil })
	}
}

// accept queues one result for the record. It reports false for a result that
// is not wanted.
func (c *Coordinator) accept(d *device, q *jobQueue, attempt *wire.Attempt, result *wire.TaskResult) bool {
	index := result.GetIndex()
	if r, recording := q.recording[index]; recording {
		// If it came twice, the record answers both.
		ours := r.device == d.id && proto.Equal(r.attempt, attempt)
		if ours && r.unconfirmed != nil {
			c.hurry(r.unconfirmed)
		}
		return ours
	}
	ok := result.GetStatus() == wire.TaskStatus_TASK_STATUS_OK
	l := q.leased[index]
	if l == nil || l.device.id != d.id || !proto.Equal(l.attempt, attempt) {
		if !ok || !c.acceptLate(d, q, index) {
			return false
		}
	}
	if result.GetFailure() == wire.FailureKind_FAILURE_KIND_INTERNAL && c.tryElsewhere(d.id, q, index) {
		return false
	}
	result.Device = string(d.id)
	result.Attempts = q.runs(index)
	if ok {
		q.measure(d.id, time.Duration(result.GetDurationUs())*time.Microsecond)
	}
	c.enqueue(q, received{device: d.id, attempt: attempt, result: result})
	return true
}

// acceptLate reports whether a result is welcome of a task that its device had
// once, as it has proved, and that is still open. Who has it now may stop.
func (c *Coordinator) acceptLate(d *device, q *jobQueue, index uint32) bool {
	if _, proved := d.late[q][index]; !proved {
		return false
	}
	delete(d.late[q], index)
	if l := q.leased[index]; l != nil {
		if l.attempt != nil {
			l.device.cancel(q.id, l.attempt, []uint32{index})
		}
		return true
	}
	_, open := q.again[index]
	delete(q.again, index)
	return open
}

// tryElsewhere has a task run by another device, if one is there that has not
// tried it, when it was not the program that failed but the device. That counts
// as no attempt, as the loss of a device does not.
func (c *Coordinator) tryElsewhere(device wire.DeviceID, q *jobQueue, index uint32) bool {
	able := c.eligible(q)
	others := slices.DeleteFunc(able, func(id wire.DeviceID) bool { return id == device })
	if !q.untried(index, others) {
		return false
	}
	q.failed(index, device, others, time.Now())
	return true
}

// enqueue puts the result of a task, which nobody holds any more, into the
// recorder's queue, once it is sure that the pages which it names are there. The
// caller holds the mutex.
func (c *Coordinator) enqueue(q *jobQueue, r received) {
	index := r.result.GetIndex()
	r.size = proto.Size(r.result)
	r.debt = r.size + resultOverhead
	if len(r.result.GetOutputBlob().GetPages()) > 0 {
		r.debt += confirmOverhead
	}
	q.end(index)
	q.recording[index] = received{device: r.device, attempt: r.attempt}
	c.debts.add(r.device, r.debt)
	if len(r.result.GetOutputBlob().GetPages()) > 0 {
		c.confirm(q, r)
		return
	}
	q.recorder.queue = append(q.recorder.queue, r)
}

// checkResults refuses what no honest device sends.
func (c *Coordinator) checkResults(r *wire.Results) error {
	if r.GetAttempt() == nil {
		return wire.Errorf(wire.Code_CODE_INVALID, "results without the attempt that they are of")
	}
	for _, result := range r.GetResults() {
		if n := len(result.GetOutput()); n > maxInlineOutput {
			return wire.Errorf(wire.Code_CODE_INVALID, "an output of %d bytes outside pages: at most %d are allowed", n, maxInlineOutput)
		}
		blob := result.GetOutputBlob()
		if _, err := wire.HashesFromBytes(blob.GetPages()); err != nil {
			return wire.Errorf(wire.Code_CODE_INVALID, "an output: %v", err)
		}
		if blob.GetSize() > wire.MaxBlob || uint64(len(blob.GetPages())) != (blob.GetSize()+wire.PageSize-1)/wire.PageSize {
			return wire.Errorf(wire.Code_CODE_INVALID, "an output of %d bytes in %d pages", blob.GetSize(), len(blob.GetPages()))
		}
		if len(result.GetStderr()) > wire.MaxStderr || utf8.RuneCountInString(result.GetError()) > wire.MaxErrorText {
			return wire.Errorf(wire.Code_CODE_INVALID, "the error text of a task is above its bound")
		}
		if size := proto.Size(result); size > maxResultSize+34*len(blob.GetPages()) || result.GetDurationUs() > maxDurationUS {
			return wire.Errorf(wire.Code_CODE_INVALID, "a result of %d bytes, after %d µs, is out of bounds", size, result.GetDurationUs())
		}
		switch result.GetStatus() {
		case wire.TaskStatus_TASK_STATUS_OK, wire.TaskStatus_TASK_STATUS_FAILED:
		default:
			return wire.Errorf(wire.Code_CODE_INVALID, "a result that is neither ok nor failed")
		}
	}
	return nil
}

// tell tells a device, if it is there, what became of results. The caller holds the
// mutex.
func (c *Coordinator) tell(id wire.DeviceID, ack *wire.ResultsAck) {
	if d := c.devices[id]; d != nil && d.gone.IsZero() {
		d.acknowledge(ack)
	}
}

// record commits what a job's recorder holds, a batch after another, until it
// is empty or the term ends.
func (c *Coordinator) record(ctx context.Context, q *jobQueue) {
	for {
		c.gather(ctx, q)
		batch := c.takeBatch(q)
		if batch == nil {
			return
		}
		for {
			err := c.commit(ctx, q, batch)
			if err == nil {
				break
			}
			c.cfg.Log.Debug("results are not recorded yet", "job", q.id, "results", len(batch), "err", err)
			if !sleep(ctx, recordRetry) {
				return
			}
		}
	}
}

// gather waits a little for more results while many tasks are in flight.
func (c *Coordinator) gather(ctx context.Context, q *jobQueue) {
	c.mu.Lock()
	few := len(q.recorder.queue) < lingerBelow && len(q.leased) > len(q.recorder.queue)
	c.mu.Unlock()
	if few {
		sleep(ctx, linger)
	}
}

// takeBatch returns results that fit one command; nil when there are none left.
func (c *Coordinator) takeBatch(q *jobQueue) []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bytes, pages, n int
	for _, r := range q.recorder.queue {
		bytes += wire.PackItemSize(r.size + addedSize)
		pages += len(r.result.GetOutputBlob().GetPages())
		if n > 0 && (bytes > maxBatchBytes || pages > maxBatchPages || n == maxBatchRecords) {
			break
		}
		n++
	}
	if n == 0 {
		q.recorder.active = false
		q.recorder.queue = nil
		return nil
	}
	batch := q.recorder.queue[:n:n]
	q.recorder.queue = q.recorder.queue[n:]
	return batch
}

// commit records a batch: its bytes on a quorum, then the fact in the log.
func (c *Coordinator) commit(ctx context.Context, q *jobQueue, batch []received) error {
	op, packed, err := c.completion(ctx, q, batch)
	if err != nil {
		return err
	}
	result, err := c.propose(ctx, c.cfg.Identity.ID, op, packed...)
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNSPECIFIED:
	case wire.Code_CODE_NOT_FOUND, wire.Code_CODE_PRECONDITION: // the job is gone
		result.Verdicts = nil
		c.releaseBatch(batch)
	case wire.Code_CODE_INVALID: // trying again would change nothing
		c.cfg.Log.Error("results were refused; their tasks run again", "job", q.id, "results", len(batch), "err", err)
		result.Verdicts = slices.Repeat([]state.Verdict{state.Retry}, len(batch))
		c.releaseBatch(batch)
	default:
		return err
	}
	c.settle(q, batch, result.Verdicts)
	c.afterRecord(ctx, q)
	return nil
}

// releaseBatch gives the outputs of results up that were refused.
func (c *Coordinator) releaseBatch(batch []received) {
	for _, r := range batch {
		c.useless.add(r.holds...)
	}
}

// completion encodes a batch, its bytes in a page if they are too many to
// travel in the command; packed is the hold of that page.
func (c *Coordinator) completion(ctx context.Context, q *jobQueue, batch []received) (out *wire.Op, packed []wire.HoldID, err error) {
	var holds [][]byte
	op := &wire.CompleteTasks{JobId: string(q.id), Results: &wire.Segment{Count: uint32(len(batch))}}
	items := make([][]byte, len(batch))
	devices := make(map[wire.DeviceID]uint32)
	for i, r := range batch {
		for _, id := range r.holds {
			holds = append(holds, id[:])
		}
		item, err := proto.Marshal(r.result)
		if err != nil {
			return nil, nil, err
		}
		items[i] = item
		place, ok := devices[r.device]
		if !ok {
			place = uint32(len(devices))
			devices[r.device] = place
			op.Devices = append(op.Devices, string(r.device))
		}
		op.DeviceOf = append(op.DeviceOf, place)
		op.Indexes = append(op.Indexes, r.result.GetIndex())
		op.Outcomes = append(op.Outcomes, outcome(r.result))
		op.OutputPages = append(op.OutputPages, r.result.GetOutputBlob().GetPages()...)
		op.Results.Bytes += uint64(len(r.result.GetOutput())) + r.result.GetOutputBlob().GetSize()
	}
	c.mu.Lock()
	op.LeasedBelow = q.cursor
	c.mu.Unlock()
	if pack := wire.EncodePack(items); len(pack) <= wire.MaxInline {
		op.Results.Inline = pack
	} else {
		hold := wire.NewTermHoldID(c.term)
		hash, err := c.cfg.Pages.PutReserved(ctx, hold, pack)
		if err != nil {
			c.useless.add(hold)
			return nil, nil, err
		}
		op.Results.Page, packed = hash[:], []wire.HoldID{hold}
	}
	return &wire.Op{Holds: holds, Kind: &wire.Op_CompleteTasks{CompleteTasks: op}}, packed, nil
}

// outcome says what a result means for its task.
func outcome(r *wire.TaskResult) byte {
	if r.GetStatus() == wire.TaskStatus_TASK_STATUS_OK {
		return wire.OutcomeOK
	}
	return wire.OutcomeFailed
}

// settle makes the soft state follow what Apply decided. No verdicts means that
// the job is gone.
func (c *Coordinator) settle(q *jobQueue, batch []received, verdicts []state.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var able []wire.DeviceID
	paid := make(map[wire.DeviceID]int)
	acks := make(map[*wire.Attempt][]uint32)
	from := make(map[*wire.Attempt]wire.DeviceID)
	for i, r := range batch {
		verdict := state.Unwanted
		if i < len(verdicts) {
			verdict = verdicts[i]
		}
		index := r.result.GetIndex()
		paid[r.device] += r.debt
		switch verdict {
		case state.Retry:
			if able == nil {
				able = c.eligible(q)
			}
			q.failed(index, r.device, able, now)
		case state.Recorded, state.FailedFinally:
			c.done.add(now, 1)
			q.forget(index)
		default:
			q.forget(index)
		}
		if r.attempt != nil { // nil: the coordinator's own word
			acks[r.attempt] = append(acks[r.attempt], index)
			from[r.attempt] = r.device
		}
	}
	for device, size := range paid {
		c.pay(device, size)
	}
	for attempt, indexes := range acks {
		c.tell(from[attempt], &wire.ResultsAck{Attempt: attempt, Indexes: indexes})
	}
	c.wake()
}

// afterRecord ends the soft state of a job that has ended, wakes those who
// wait, and packs inline results when they have become many.
func (c *Coordinator) afterRecord(ctx context.Context, q *jobQueue) {
	c.follow(q.id)
	var inline int
	c.cfg.Group.Read(func(s *state.State) {
		if j := s.Job(q.id); j != nil {
			inline = j.InlineBytes()
		}
	})
	if inline > maxInlineResults {
		if err := c.packResults(ctx, q.id); err != nil {
			c.cfg.Log.Debug("inline results stay inline", "job", q.id, "err", err)
		}
	}
}

// endJob forgets an ended job's soft state and cancels what still runs of it.
// The caller holds the mutex.
func (c *Coordinator) endJob(q *jobQueue) {
	delete(c.jobs, q.id)
	for _, d := range c.devices {
		delete(d.late, q)
		n := d.inFlight[q.id]
		if n == 0 {
			continue
		}
		d.hold(q.id, -n)
		for l := range d.leases {
			if l.queue != q {
				continue
			}
			if l.attempt != nil {
				d.cancel(q.id, l.attempt, nil)
			}
			l.lose(l.open)
		}
	}
	clear(q.leased)
	q.announce()
	c.wake()
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
