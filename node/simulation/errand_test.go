package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxErrands bounds the ended jobs that one customer leaves in the swarm.
	maxErrands = 3
	// maxTries bounds how often a client submits again what the swarm has not got
	// any more, and retries what failed.
	maxTries = 10
)

// When a job is cancelled.
const (
	never = iota
	uploading
	running
)

// errand is a job of recurring bytes as its client means it.
type errand struct {
	id       wire.JobID
	name     string // of this incarnation
	program  int
	inputs   []int
	first    int  // inputs that come with the submit
	detached bool // and kept
	twice    bool // submitted by two calls at one time
	fails    bool // until it is retried
	reused   bool // there was another job of this ID
	cancel   int

	mended  atomic.Bool
	created atomic.Int64 // as the swarm says; 0 before that is known

	// turn is held by who reads, or removes, what has ended. It is no mutex: who
	// waits for one stops the simulated time.
	turn  chan struct{} // cap 1
	gone  bool
	state wire.JobState // in the end
}

// mustFail reports whether a task ends badly now.
func (e *errand) mustFail(index uint32) bool {
	return e.fails && index%2 == 0 && !e.mended.Load()
}

// customer makes one job after another.
type customer struct {
	world  *recurring
	number int
	random *rand.Rand
	made   int
	kept   []*errand
	free   []wire.JobID
}

// trade makes jobs until ctx ends, and waits for the last until patience ends.
func (c *customer) trade(ctx, patience context.Context) {
	for ctx.Err() == nil {
		e := c.plan()
		if err := c.run(patience, e); err != nil && !errors.Is(err, errStop) {
			c.world.ledger.red("job %s (program %d, inputs %v): %v", e.name, e.program, e.inputs, err)
		}
		c.world.look(false)
		sleep(ctx, time.Duration(c.random.IntN(4000))*time.Millisecond)
	}
}

// plan draws a job.
func (c *customer) plan() *errand {
	c.made++
	one := func(n int) bool { return c.random.IntN(n) == 0 }
	e := &errand{
		id: wire.JobID(fmt.Sprintf("c%d-%d", c.number, c.made)), program: c.random.IntN(kinds), turn: make(chan struct{}, 1),
		detached: one(2), twice: one(6), fails: one(6),
	}
	n := 1 + c.random.IntN(4)
	if e.program > 2 {
		n = 1 + c.random.IntN(2) // large outputs cost time
	}
	for range n {
		e.inputs = append(e.inputs, c.random.IntN(kinds))
	}
	if e.first = n; n > 1 && one(2) {
		e.first = 1
	}
	if one(6) {
		e.cancel = uploading + c.random.IntN(2)
	}
	if len(c.free) > 0 && one(2) {
		// Appends that arrive late could be taken for those of this one.
		e.id, c.free, e.first, e.reused = c.free[0], c.free[1:], n, true
		c.world.ledger.history.again(e.id)
		c.world.count.reused.Add(1)
	}
	e.name = fmt.Sprintf("%s.%d", e.id, c.made)
	c.world.mu.Lock()
	c.world.errands[e.name] = e
	c.world.mu.Unlock()
	c.world.count.jobs.Add(1)
	return e
}

// run does all that a client does with one job.
func (c *customer) run(ctx context.Context, e *errand) error {
	if err := c.submit(ctx, e); err != nil {
		return fmt.Errorf("submitting: %w", err)
	}
	var side sync.WaitGroup
	defer side.Wait()
	if e.cancel == running {
		pause := time.Duration(c.random.IntN(1000)) * time.Millisecond
		side.Go(func() { sleep(ctx, pause); c.cancelJob(ctx, e) })
	}
	if e.cancel == uploading && e.first < len(e.inputs) {
		c.cancelJob(ctx, e)
	}
	if err := c.feed(ctx, e); err != nil {
		return fmt.Errorf("uploading: %w", err)
	}
	job, err := c.world.read(ctx, nil, e)
	for tries := 0; err == nil && tries < maxTries && job.GetState() == wire.JobState_JOB_STATE_FAILED && e.fails; tries++ {
		if err = c.retry(ctx, e, job); err == nil {
			job, err = c.world.read(ctx, nil, e)
		}
	}
	if err != nil {
		return err
	}
	side.Wait()
	return c.end(ctx, e, job)
}

// end looks how the job ended, and gives it back or keeps it.
func (c *customer) end(ctx context.Context, e *errand, job *wire.Job) error {
	switch e.state = job.GetState(); {
	case e.state == wire.JobState_JOB_STATE_DONE:
		c.world.count.done.Add(1)
	case e.state == wire.JobState_JOB_STATE_CANCELLED && e.cancel != never:
		c.world.count.cancelled.Add(1)
	default:
		return fmt.Errorf("it ended as %v: %s", e.state, job.GetError())
	}
	if !e.detached {
		return c.remove(ctx, e, true)
	}
	c.kept = append(c.kept, e)
	c.world.keep(e)
	for len(c.kept) > maxErrands || len(c.kept) > 0 && c.random.IntN(3) == 0 {
		k := c.random.IntN(len(c.kept))
		old := c.kept[k]
		c.kept = slices.Delete(c.kept, k, k+1)
		if err := c.remove(ctx, old, false); err != nil {
			return err
		}
	}
	return nil
}

// insist does something by one member after another, drawn by chance, until there
// is an answer or ctx ends.
func (w *recurring) insist(ctx context.Context, do func(ctx context.Context, m *machine) error) error {
	for ctx.Err() == nil {
		m := w.members[rand.IntN(len(w.members))]
		short, cancel := context.WithTimeout(ctx, callLimit)
		err := do(short, m)
		cancel()
		if !transient(err) && wire.CodeOf(err) != wire.Code_CODE_NO_SPACE {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return errStop
}

// counter packs inputs as package node does it, by whichever member is asked.
// Blobs, which clients put before, are put once.
type counter struct {
	world *recurring
	blobs map[int]*wire.Input
}

func (s *counter) append(ctx context.Context, m *machine, e *errand, from, to int) (*wire.AppendInputsRequest, error) {
	p := m.member()
	if p == nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%s is down", m.name)
	}
	before, after := s.world.digest(e.inputs[:from]), s.world.digest(e.inputs[:to])
	r := &wire.AppendInputsRequest{JobId: string(e.id), DigestBefore: before[:], DigestAfter: after[:]}
	hold := wire.NewHoldID()
	var items [][]byte
	flush := func(at int) error {
		if len(items) == 0 {
			return nil
		}
		segment := &wire.Segment{First: uint32(at - len(items)), Count: uint32(len(items))}
		for _, item := range items {
			segment.Bytes += uint64(len(item))
		}
		packed := wire.EncodePack(items)
		if items = nil; len(packed) <= wire.MaxInline {
			segment.Inline = packed
		} else {
			hash, err := p.pages.Put(ctx, hold, packed)
			if err != nil {
				return err
			}
			segment.Page = hash[:]
			r.Holds = append(r.Holds, hold[:])
		}
		r.Segments = append(r.Segments, segment)
		return nil
	}
	for at := from; at < to; at++ {
		kind := e.inputs[at]
		data := s.world.goods.inputs[kind]
		if len(data) <= largestPacked {
			items = append(items, data)
			continue
		}
		if err := flush(at); err != nil {
			return nil, err
		}
		input := s.blobs[kind]
		if input == nil {
			hold := wire.NewHoldID()
			blob, err := p.pages.PutBlob(ctx, hold, bytes.NewReader(data), wire.MaxBlob)
			if err != nil {
				return nil, err
			}
			input = &wire.Input{Blob: blob, Hold: hold[:]}
			s.blobs[kind] = input
		}
		r.Segments = append(r.Segments, &wire.Segment{First: uint32(at), Count: 1, Blob: input.GetBlob(), Bytes: input.GetBlob().GetSize()})
		r.Holds = append(r.Holds, input.GetHold())
	}
	return r, flush(to)
}

// largestPacked is the largest input that is not a blob: see package control.
const largestPacked = 256 << 10

func (w *recurring) digest(inputs []int) (d wire.Digest) {
	for _, i := range inputs {
		d = d.Next(wire.HashOf(w.goods.inputs[i]))
	}
	return d
}

func (w *recurring) spec(e *errand) *wire.JobSpec {
	spec := &wire.JobSpec{
		Program: w.programs[e.program], Env: []string{"JOB=" + e.name}, Retries: 3, TimeoutMs: 60_000, MemoryMib: 64,
		MaxOutputBytes: 4 << 20, KeepGoing: true, Detached: e.detached,
	}
	if e.detached {
		spec.KeepMs = wire.MaxKeep.Milliseconds()
	}
	if e.fails {
		spec.Retries = 0
	}
	return spec
}

// submit makes the job, by one call or by two at one time.
func (c *customer) submit(ctx context.Context, e *errand) error {
	if !e.twice {
		return c.submitOnce(ctx, e)
	}
	c.world.count.twice.Add(1)
	var both sync.WaitGroup
	var errs [2]error
	for i := range errs {
		both.Go(func() { errs[i] = c.submitOnce(ctx, e) })
	}
	both.Wait()
	return errors.Join(errs[:]...)
}

func (c *customer) submitOnce(ctx context.Context, e *errand) error {
	s := &counter{world: c.world, blobs: make(map[int]*wire.Input)}
	for tries := 0; ; tries++ {
		err := c.world.insist(ctx, func(ctx context.Context, m *machine) error {
			inputs, err := s.append(ctx, m, e, 0, e.first)
			if err != nil {
				return err
			}
			r, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{
				JobId: string(e.id), Spec: c.world.spec(e), Inputs: inputs, Close: e.first == len(e.inputs),
			}}})
			if err == nil {
				e.created.Store(r.GetSubmitJob().GetJob().GetCreatedAtMs())
			}
			return err
		})
		switch code := wire.CodeOf(err); {
		case tries >= maxTries:
			return err
		case code == wire.Code_CODE_PRECONDITION: // something that it names is gone
			c.world.count.again.Add(1)
			clear(s.blobs)
			if _, err := c.world.putProgram(ctx, e.program); err != nil {
				return err
			}
		case code == wire.Code_CODE_CONFLICT && e.reused:
			// A call that was given up, with the job that had the ID before.
			c.world.count.late.Add(1)
			if err := c.world.purge(ctx, &wire.RemoveJobRequest{JobId: string(e.id)}); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// ended reports whether err is the answer of a job that has been cancelled.
func (e *errand) ended(err error) bool {
	return e.cancel != never && wire.CodeOf(err) == wire.Code_CODE_PRECONDITION
}

// feed appends the inputs that did not come with the submit.
func (c *customer) feed(ctx context.Context, e *errand) error {
	if e.first == len(e.inputs) {
		return nil
	}
	s := &counter{world: c.world, blobs: make(map[int]*wire.Input)}
	for tries := 0; ; tries++ {
		err := c.world.insist(ctx, func(ctx context.Context, m *machine) error {
			r, err := s.append(ctx, m, e, e.first, len(e.inputs))
			if err != nil {
				return err
			}
			_, err = m.askOnce(ctx, &wire.Request{Kind: &wire.Request_AppendInputs{AppendInputs: r}})
			return err
		})
		if e.ended(err) {
			return nil
		}
		if err == nil {
			break
		}
		if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION || tries >= maxTries {
			return err
		}
		c.world.count.again.Add(1)
		clear(s.blobs)
	}
	err := c.world.insist(ctx, func(ctx context.Context, m *machine) error {
		_, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_CloseInputs{
			CloseInputs: &wire.CloseInputsRequest{JobId: string(e.id), Total: uint32(len(e.inputs))},
		}})
		return err
	})
	if e.ended(err) {
		return nil
	}
	return err
}

func (c *customer) cancelJob(ctx context.Context, e *errand) {
	err := c.world.insist(ctx, func(ctx context.Context, m *machine) error {
		_, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_CancelJob{CancelJob: &wire.CancelJobRequest{JobId: string(e.id)}}})
		return err
	})
	if err != nil && !errors.Is(err, errStop) && wire.CodeOf(err) != wire.Code_CODE_PRECONDITION { // it had ended
		c.world.ledger.red("cancelling job %s: %v", e.name, err)
	}
}

// retry lets the failed tasks run again, and they do not fail any more.
func (c *customer) retry(ctx context.Context, e *errand, job *wire.Job) error {
	e.mended.Store(true)
	time.Sleep(100 * time.Millisecond) // what was recorded is in the ledger by then
	c.world.ledger.history.again(e.id)
	c.world.count.retried.Add(1)
	err := c.world.insist(ctx, func(ctx context.Context, m *machine) error {
		_, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_RetryJob{RetryJob: &wire.RetryJobRequest{
			JobId: string(e.id), EndedAtMs: job.GetEndedAtMs(),
		}}})
		return err
	})
	if err != nil {
		return fmt.Errorf("retrying: %w", err)
	}
	return nil
}

// remove forgets a job that has ended; its ID may be used again if no call that
// was given up can end the next one.
func (c *customer) remove(ctx context.Context, e *errand, acknowledge bool) error {
	e.turn <- struct{}{}
	e.gone = true
	<-e.turn
	c.world.forget(e)
	err := c.world.purge(ctx, &wire.RemoveJobRequest{JobId: string(e.id), Acknowledge: acknowledge, CreatedAtMs: e.created.Load()})
	if err != nil {
		return fmt.Errorf("removing: %w", err)
	}
	c.world.count.removed.Add(1)
	if e.cancel == never && !e.fails {
		c.free = append(c.free, e.id)
	}
	return nil
}

func (w *recurring) purge(ctx context.Context, r *wire.RemoveJobRequest) error {
	return w.insist(ctx, func(ctx context.Context, m *machine) error {
		_, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: r}})
		return err
	})
}

// read reads the job to its end by a member, or by any at each step, and checks
// every result. The caller sees to it that nobody removes the job.
func (w *recurring) read(ctx context.Context, by *machine, e *errand) (*wire.Job, error) {
	unordered := rand.IntN(2) == 0
	for from := uint32(0); ; {
		var out *wire.ReadResultsResponse
		err := w.insist(ctx, func(ctx context.Context, m *machine) error {
			if by != nil {
				m = by
			}
			r, err := m.askOnce(ctx, &wire.Request{Kind: &wire.Request_ReadResults{ReadResults: &wire.ReadResultsRequest{
				JobId: string(e.id), Unordered: unordered, From: from, WaitMs: 5000,
			}}})
			out = r.GetReadResults()
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading results from %d on: %w", from, err)
		}
		for _, r := range out.GetResults() {
			if err := w.check(ctx, by, e, r); err != nil {
				return nil, err
			}
			w.count.results.Add(1)
		}
		if from = out.GetNext(); out.GetEnd() {
			return out.GetJob(), nil
		}
	}
}

// check compares a result with what the program gives for the input.
func (w *recurring) check(ctx context.Context, by *machine, e *errand, r *wire.TaskResult) error {
	i := r.GetIndex()
	if int(i) >= len(e.inputs) {
		return fmt.Errorf("a result of task %d of %d", i, len(e.inputs))
	}
	if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK && !e.fails {
		return fmt.Errorf("task %d failed: %s", i, r.GetError())
	}
	want, got := w.goods.outputs[e.program][e.inputs[i]], r.GetOutput()
	if r.GetFailure() == wire.FailureKind_FAILURE_KIND_INTERNAL {
		return nil // of a job that is retried
	}
	if b := r.GetOutputBlob(); b != nil {
		var data bytes.Buffer
		err := w.insist(ctx, func(ctx context.Context, m *machine) error {
			if by != nil {
				m = by
			}
			p := m.member()
			if p == nil {
				return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%s is down", m.name)
			}
			data.Reset()
			return p.pages.ReadBlob(ctx, b, &data)
		})
		if err != nil {
			return fmt.Errorf("the output of task %d: %w", i, err)
		}
		got = data.Bytes()
		w.count.blobs.Add(1)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("task %d has another output, of %d bytes, than program %d gives, of %d", i, len(got), e.program, len(want))
	}
	return nil
}
