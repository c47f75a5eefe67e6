package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// offeredRate is how many tasks all clients offer in a second.
	offeredRate = 100
	// maxOpen bounds the jobs that one client has under way.
	maxOpen = 12
	// callLimit is how long a client waits for one answer before it asks by
	// another member.
	callLimit = 12 * time.Second
	// maxKept bounds the jobs that one client leaves in the swarm.
	maxKept = 12
	// chunkSize is how many inputs one append brings at most.
	chunkSize = 64
)

// jobPlan is a job as its client means it.
type jobPlan struct {
	id     wire.JobID
	name   string // of this incarnation: an ID may be used again
	inputs [][]byte
	spec   *wire.JobSpec
	cancel time.Duration // 0: never
	order  bool          // read by index, not by completion
	small  bool          // its history is checked

	mu        sync.Mutex
	acked     uint32 // inputs
	closed    bool
	cancelled bool // acknowledged
	ended     wire.JobState
	results   map[uint32]*wire.TaskResult
	removed   bool
}

// client offers jobs by the members' links, as people do by the control API.
type client struct {
	swarm   *swarm
	number  int
	random  *rand.Rand
	program *wire.Program
	made    int

	mu   sync.Mutex
	jobs []*jobPlan
	kept []*jobPlan   // that are over and not removed, the oldest first
	free []wire.JobID // of removed jobs
}

// errStop ends what a client does.
var errStop = errors.New("the simulation is over")

// ask sends a request by some member, and by another when there is no answer,
// until there is one or ctx ends.
func (s *swarm) ask(ctx context.Context, first *machine, r *wire.Request) (*wire.Response, error) {
	for m := first; ctx.Err() == nil; m = nil {
		if m == nil {
			m = s.members[rand.IntN(len(s.members))]
		}
		if response, err := m.askOnce(ctx, r); !transient(err) {
			return response, err
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil, errStop
}

// ask sends a request by this machine only, until there is an answer or ctx
// ends: what it makes is this machine's.
func (m *machine) ask(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	for ctx.Err() == nil {
		if response, err := m.askOnce(ctx, r); !transient(err) {
			return response, err
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil, errStop
}

func (m *machine) askOnce(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	p := m.process()
	if p == nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%s is down", m.name)
	}
	short, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return p.link().Call(short, r)
}

// transient reports whether an answer is none: a call that was given up ends
// with its context's error while it is under way.
func transient(err error) bool {
	return wire.CodeOf(err) == wire.Code_CODE_UNAVAILABLE || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// offer makes jobs until ctx ends, and waits for them until patience ends.
func (c *client) offer(ctx, patience context.Context, rate float64) {
	var running sync.WaitGroup
	places := make(chan struct{}, maxOpen)
	for ctx.Err() == nil {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		j := c.plan()
		running.Go(func() {
			defer func() { <-places }()
			c.run(patience, j)
		})
		c.swarm.ledger.count.offered.Add(int64(len(j.inputs)))
		sleep(ctx, time.Duration(float64(len(j.inputs))/rate*float64(time.Second)))
	}
	running.Wait()
}

// plan draws a job.
func (c *client) plan() *jobPlan {
	c.made++
	j := &jobPlan{
		id:      wire.JobID(fmt.Sprintf("c%d-%d", c.number, c.made)),
		order:   c.random.IntN(3) > 0,
		results: make(map[uint32]*wire.TaskResult),
	}
	n := 20 + c.random.IntN(280)
	if j.small = c.random.IntN(3) == 0; j.small {
		n = 1 + c.random.IntN(24)
	}
	c.mu.Lock()
	if c.swarm.options.reuses && len(c.free) > 0 && !j.small {
		j.id, c.free = c.free[0], c.free[1:]
		c.swarm.ledger.history.again(j.id)
	}
	c.mu.Unlock()
	j.name = fmt.Sprintf("%s.%d", j.id, c.made)
	for i := range n {
		kind := plain
		switch x := c.random.IntN(1000); {
		case x < 20:
			kind = flaky
		case x < 24:
			kind = large
		case x < 26:
			kind = slow
		}
		pad := c.random.IntN(60)
		j.inputs = append(j.inputs, fmt.Appendf(nil, "%c%s/%d/%*d", kind, j.name, i, pad, i))
	}
	if c.random.IntN(8) == 0 {
		j.cancel = time.Duration(1+c.random.IntN(4000)) * time.Millisecond
	}
	j.spec = &wire.JobSpec{
		Program: c.program, Env: []string{"JOB=" + j.name}, Retries: 3, TimeoutMs: 60_000, MemoryMib: 64,
		MaxOutputBytes: 1 << 20, Detached: true, KeepMs: time.Hour.Milliseconds(),
	}
	if j.small {
		c.swarm.ledger.history.track(j.id)
	}
	c.mu.Lock()
	c.jobs = append(c.jobs, j)
	c.mu.Unlock()
	c.swarm.ledger.count.jobs.Add(1)
	return j
}

// run does all that a client does with one job.
func (c *client) run(ctx context.Context, j *jobPlan) {
	home := c.swarm.members[rand.IntN(len(c.swarm.members))]
	var side sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	submitted := make(chan struct{})
	if j.cancel > 0 {
		side.Go(func() { <-submitted; c.cancelLater(ctx, j) })
	}
	if j.small {
		side.Go(func() { <-submitted; c.observe(stop, j) })
	}
	err := c.submit(ctx, home, j)
	close(submitted)
	if err == nil {
		err = c.feed(ctx, home, j)
	}
	if err == nil {
		err = c.read(ctx, home, j)
	}
	if err == nil {
		err = c.readAgain(ctx, j)
	}
	if err != nil && err != errStop {
		c.swarm.ledger.red("job %s: %v", j.id, err)
	}
	cancel()
	side.Wait()
	if err == nil {
		c.keep(ctx, j)
	}
}

// keep removes a job that is over, half of them at once and the others, read
// once more, when many have come after it.
func (c *client) keep(ctx context.Context, j *jobPlan) {
	if rand.IntN(2) > 0 {
		c.mu.Lock()
		c.kept = append(c.kept, j)
		j = nil
		if len(c.kept) > maxKept {
			j, c.kept = c.kept[0], c.kept[1:]
		}
		c.mu.Unlock()
		if j == nil {
			return
		}
		if err := c.readAgain(ctx, j); err != nil && err != errStop {
			c.swarm.ledger.red("job %s, some time after its end: %v", j.id, err)
			return
		}
	}
	c.remove(ctx, j)
}

// call is ask, with its place in the job's history.
func (c *client) call(ctx context.Context, m *machine, j *jobPlan, in jobInput, r *wire.Request) (*wire.Response, error) {
	called := time.Now()
	response, err := c.swarm.ask(ctx, m, r)
	var seen jobOutput
	if job := response.GetGetJob().GetJob(); job != nil {
		seen = jobOutput{
			state: job.GetState(), total: job.GetTasks().GetTotal(),
			completed: job.GetTasks().GetCompleted(), closed: job.GetInputsClosed(),
		}
	}
	recorded := err
	if err == errStop {
		recorded = wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "%v", err)
	}
	c.swarm.ledger.history.job(called, j.id, in, recorded, seen)
	return response, err
}

// pack makes the segment of inputs [first, first+n), in a page on a quorum if
// they are many.
func (c *client) pack(ctx context.Context, j *jobPlan, first, n int) (*wire.AppendInputsRequest, error) {
	items := j.inputs[first : first+n]
	segment := &wire.Segment{First: uint32(first), Count: uint32(n)}
	for _, item := range items {
		segment.Bytes += uint64(len(item))
	}
	if packed := wire.EncodePack(items); len(packed) <= wire.MaxInline {
		segment.Inline = packed
	} else {
		hash, err := c.swarm.putPage(ctx, packed)
		if err != nil {
			return nil, err
		}
		segment.Page = hash[:]
	}
	before := digest(j.inputs[:first])
	after := digest(j.inputs[:first+n])
	return &wire.AppendInputsRequest{
		JobId: string(j.id), Segments: []*wire.Segment{segment}, DigestBefore: before[:], DigestAfter: after[:],
	}, nil
}

func digest(inputs [][]byte) (d wire.Digest) {
	for _, in := range inputs {
		d = d.Next(wire.HashOf(in))
	}
	return d
}

// putPage puts a page by any member that can.
func (s *swarm) putPage(ctx context.Context, data []byte) (wire.Hash, error) {
	for ctx.Err() == nil {
		if p := s.members[rand.IntN(len(s.members))].member(); p != nil {
			short, cancel := context.WithTimeout(ctx, callLimit)
			hash, err := p.pages.Put(short, wire.NewHoldID(), data)
			cancel()
			if err == nil {
				return hash, nil
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return wire.Hash{}, errStop
}

func (c *client) submit(ctx context.Context, m *machine, j *jobPlan) error {
	n := min(chunkSize, len(j.inputs))
	inputs, err := c.pack(ctx, j, 0, n)
	if err != nil {
		return err
	}
	all := n == len(j.inputs)
	in := jobInput{kind: "submit", n: uint32(n), close: all}
	_, err = c.call(ctx, m, j, in, &wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{
		JobId: string(j.id), Spec: j.spec, Inputs: inputs, Close: all,
	}}})
	if err != nil {
		return fmt.Errorf("submitting: %w", err)
	}
	j.note(func() { j.acked, j.closed = uint32(n), all })
	return nil
}

func (j *jobPlan) note(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
}

// refusedByEnd reports whether err is what a job that was cancelled answers.
func (j *jobPlan) refusedByEnd(err error) bool {
	return j.cancel > 0 && wire.CodeOf(err) == wire.Code_CODE_PRECONDITION
}

// feed appends the rest of the inputs and closes the job.
func (c *client) feed(ctx context.Context, m *machine, j *jobPlan) error {
	for first := int(j.acked); first < len(j.inputs); first = int(j.acked) {
		n := min(chunkSize, len(j.inputs)-first)
		r, err := c.pack(ctx, j, first, n)
		if err != nil {
			return err
		}
		in := jobInput{kind: "append", first: uint32(first), n: uint32(n)}
		_, err = c.call(ctx, m, j, in, &wire.Request{Kind: &wire.Request_AppendInputs{AppendInputs: r}})
		if j.refusedByEnd(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("appending from %d on: %w", first, err)
		}
		j.note(func() { j.acked = uint32(first + n) })
	}
	if j.closed {
		return nil
	}
	total := uint32(len(j.inputs))
	_, err := c.call(ctx, m, j, jobInput{kind: "close", n: total}, &wire.Request{Kind: &wire.Request_CloseInputs{
		CloseInputs: &wire.CloseInputsRequest{JobId: string(j.id), Total: total},
	}})
	if j.refusedByEnd(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	j.note(func() { j.closed = true })
	return nil
}

func (c *client) cancelLater(ctx context.Context, j *jobPlan) {
	if sleep(ctx, j.cancel) != nil {
		return
	}
	_, err := c.call(ctx, nil, j, jobInput{kind: "cancel"}, &wire.Request{Kind: &wire.Request_CancelJob{
		CancelJob: &wire.CancelJobRequest{JobId: string(j.id)},
	}})
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNSPECIFIED:
		j.note(func() { j.cancelled = true })
		c.swarm.ledger.count.cancels.Add(1)
	case wire.Code_CODE_PRECONDITION, wire.Code_CODE_NOT_FOUND: // it had ended
	default:
		if err != errStop {
			c.swarm.ledger.red("cancelling job %s: %v", j.id, err)
		}
	}
}

// observe looks at the job now and then, by any member.
func (c *client) observe(ctx context.Context, j *jobPlan) {
	for range 8 {
		if sleep(ctx, time.Duration(20+rand.IntN(600))*time.Millisecond) != nil {
			return
		}
		c.call(ctx, nil, j, jobInput{kind: "get"}, &wire.Request{Kind: &wire.Request_GetJob{
			GetJob: &wire.GetJobRequest{JobId: string(j.id)},
		}})
	}
}

// page reads results from a place on.
func (c *client) page(ctx context.Context, m *machine, j *jobPlan, from uint32) (*wire.ReadResultsResponse, error) {
	r, err := c.swarm.ask(ctx, m, &wire.Request{Kind: &wire.Request_ReadResults{ReadResults: &wire.ReadResultsRequest{
		JobId: string(j.id), Unordered: !j.order, From: from, WaitMs: 10_000,
	}}})
	return r.GetReadResults(), err
}

// read reads all results to the end of the job.
func (c *client) read(ctx context.Context, m *machine, j *jobPlan) error {
	for from := uint32(0); ; {
		out, err := c.page(ctx, m, j, from)
		if err != nil {
			return fmt.Errorf("reading results from %d on: %w", from, err)
		}
		for _, r := range out.GetResults() {
			if err := c.take(ctx, j, r, from); err != nil {
				return err
			}
			from = max(from, place(j, r)+1)
		}
		if out.GetNext() < from {
			return fmt.Errorf("results were read to %d and go on at %d", from, out.GetNext())
		}
		if from = out.GetNext(); out.GetEnd() {
			return j.finish(out.GetJob())
		}
	}
}

// place is where a result stands in the order in which its job is read.
func place(j *jobPlan, r *wire.TaskResult) uint32 {
	if j.order {
		return r.GetIndex()
	}
	return r.GetNumber()
}

// take checks one result and notes it.
func (c *client) take(ctx context.Context, j *jobPlan, r *wire.TaskResult, from uint32) error {
	i := r.GetIndex()
	if place(j, r) < from {
		return fmt.Errorf("task %d comes at %d, after %d", i, place(j, r), from)
	}
	if int(i) >= len(j.inputs) {
		return fmt.Errorf("a result of task %d, which there is not", i)
	}
	if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
		return fmt.Errorf("task %d failed: %s", i, r.GetError())
	}
	want := output(j.name, j.inputs[i])
	if blob := r.GetOutputBlob(); blob != nil {
		if err := c.swarm.checkPage(ctx, blob, want); err != nil {
			return fmt.Errorf("the output of task %d: %w", i, err)
		}
	} else if !bytes.Equal(r.GetOutput(), want) {
		return fmt.Errorf("task %d has the output %.80q, want %.80q", i, r.GetOutput(), want)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.results[i]; old != nil {
		return fmt.Errorf("task %d has two results", i)
	}
	j.results[i] = r
	return nil
}

// checkPage reads a large output and compares it.
func (s *swarm) checkPage(ctx context.Context, blob *wire.Blob, want []byte) error {
	hash := wire.HashOf(want)
	if len(blob.GetPages()) != 1 || !bytes.Equal(blob.GetPages()[0], hash[:]) {
		return fmt.Errorf("it is another")
	}
	r, err := s.ask(ctx, nil, &wire.Request{Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{Hash: hash[:], Length: wire.MaxChunk}}})
	if err != nil {
		return err
	}
	if got := r.GetReadPage().GetData(); !bytes.Equal(got, want) {
		return fmt.Errorf("its page has %d bytes, want %d", len(got), len(want))
	}
	return nil
}

// finish checks the end of a job.
func (j *jobPlan) finish(job *wire.Job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = job.GetState()
	switch j.ended {
	case wire.JobState_JOB_STATE_DONE:
		if j.cancelled {
			return fmt.Errorf("it is done although its cancellation was acknowledged")
		}
		if len(j.results) != len(j.inputs) {
			return fmt.Errorf("%d results of %d tasks", len(j.results), len(j.inputs))
		}
	case wire.JobState_JOB_STATE_CANCELLED:
		if j.cancel == 0 {
			return fmt.Errorf("it was cancelled and nobody asked for that")
		}
	default:
		return fmt.Errorf("it ended as %v: %s", j.ended, job.GetError())
	}
	return nil
}

// readAgain reads everything once more, by other members, and compares.
func (c *client) readAgain(ctx context.Context, j *jobPlan) error {
	seen := 0
	for from := uint32(0); ; {
		out, err := c.page(ctx, nil, j, from)
		if err != nil {
			return fmt.Errorf("reading results again from %d on: %w", from, err)
		}
		for _, r := range out.GetResults() {
			old := j.results[r.GetIndex()]
			if old == nil || old.GetNumber() != r.GetNumber() || old.GetDevice() != r.GetDevice() || !bytes.Equal(old.GetOutput(), r.GetOutput()) {
				return fmt.Errorf("the result of task %d has changed from %v to %v", r.GetIndex(), old, r)
			}
			seen++
		}
		if from = out.GetNext(); out.GetEnd() {
			if out.GetJob().GetState() != j.ended || seen != len(j.results) {
				return fmt.Errorf("it was %v with %d results and is %v with %d", j.ended, len(j.results), out.GetJob().GetState(), seen)
			}
			c.swarm.ledger.count.reread.Add(1)
			return nil
		}
	}
}

// remove forgets the job; its ID may be used again.
func (c *client) remove(ctx context.Context, j *jobPlan) {
	j.note(func() { j.removed = true })
	_, err := c.swarm.ask(ctx, nil, &wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: &wire.RemoveJobRequest{JobId: string(j.id)}}})
	if err != nil && wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND { // asked twice, it is gone the second time
		if err != errStop {
			c.swarm.ledger.red("removing job %s: %v", j.id, err)
		}
		return
	}
	c.swarm.ledger.count.removed.Add(1)
	if j.small {
		return // its history ends here
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, j.id)
}
