package control

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// firstWait is how long the submit waits for inputs to take along.
	firstWait = 2 * linger
	// submitPatience bounds how long a submit is repeated: what has not begun
	// may fail early. A node waits 10 s for a quorum in each call.
	submitPatience = 5 * time.Second
)

// errJobEnded ends an upload whose job ended before its inputs: not an error,
// the job's state says why.
var errJobEnded = errors.New("the job has ended")

// upload feeds the inputs of one job.
type upload struct {
	c        *Client
	id       wire.JobID
	spec     *wire.JobSpec
	inputs   iter.Seq2[Input, error]
	resume   bool
	patience Patience
	sent     func(total uint32)

	// collect and collected are set by begin, together with a goroutine that
	// feeds collect until the inputs or its context end.
	collect   *collector
	collected chan struct{}
	closed    bool // all inputs are acknowledged and the job says so
}

// submit makes the job, with the first inputs if it is new and they come at
// once, and leaves the rest to run. On a job that was begun before, it first
// reads and checks the inputs that are acknowledged.
func (u *upload) submit(ctx context.Context) (*wire.Job, error) {
	if u.resume {
		return u.attach(ctx)
	}
	u.start(ctx, 0, wire.Digest{}, nil)
	b, last, err := u.firstBatch(ctx)
	if err != nil {
		return nil, err
	}
	req := &wire.SubmitJobRequest{JobId: string(u.id), Spec: u.spec}
	if b != nil {
		if err := u.store(ctx, b); err != nil {
			return nil, err
		}
		req.Inputs, req.Close = appendRequest(u.id, b), last
	}
	var job *wire.Job
	err = u.firstPatience().Retry(ctx, func(ctx context.Context) error {
		res, err := Call(ctx, u.c.SubmitJob, req)
		job = res.GetJob()
		// Repeated, it only attaches: settle looks what became of the inputs.
		req = &wire.SubmitJobRequest{JobId: string(u.id), Spec: u.spec}
		return err
	})
	if err == nil && b != nil {
		err = u.settle(ctx, job, b, last)
	}
	return job, err
}

// settle sends what the submit did not take along although it should have.
func (u *upload) settle(ctx context.Context, job *wire.Job, b *batch, last bool) error {
	u.closed = job.GetInputsClosed()
	var err error
	if job.GetTasks().GetTotal() < uint64(b.next()) {
		err = u.resend(ctx, b)
	}
	if err == nil && last && !u.closed {
		err = u.close(ctx, b.next())
		u.closed = true
	}
	if errors.Is(err, errJobEnded) {
		u.closed = true
		return nil
	}
	return err
}

func (u *upload) firstPatience() Patience {
	p := u.patience
	p.Limit = submitPatience
	return p
}

// firstBatch returns nil when no input comes within a moment.
func (u *upload) firstBatch(ctx context.Context) (*batch, bool, error) {
	soon, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	b, last, err := u.collect.take(soon)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, false, nil
	}
	return b, last, err
}

// attach submits without inputs, and checks that those which the job has are
// the first of ours.
func (u *upload) attach(ctx context.Context) (*wire.Job, error) {
	var job *wire.Job
	err := u.firstPatience().Retry(ctx, func(ctx context.Context) error {
		res, err := Call(ctx, u.c.SubmitJob, &wire.SubmitJobRequest{JobId: string(u.id), Spec: u.spec})
		job = res.GetJob()
		return err
	})
	if err != nil {
		return nil, err
	}
	known := make(chan error, 1)
	u.start(ctx, uint32(job.GetTasks().GetTotal()), wire.Digest(padded(job.GetInputDigest())), known)
	select {
	case err = <-known:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if job.GetInputsClosed() {
		u.closed = true
		return job, u.nothingLeft(ctx)
	}
	return job, nil
}

// nothingLeft checks that no input follows those of a job that is closed.
func (u *upload) nothingLeft(ctx context.Context) error {
	b, _, err := u.collect.take(ctx)
	if err == nil && len(b.items) > 0 {
		err = wire.Errorf(wire.Code_CODE_CONFLICT, "job %s has %d inputs and takes no more, but there are more now: give the same inputs, or another --id", u.id, b.first)
	}
	return err
}

// padded returns the digest b; an absent one is that of no inputs.
func padded(b []byte) (d [32]byte) {
	copy(d[:], b)
	return d
}

// start begins to read the inputs. The first skip of them are acknowledged:
// they are only compared with digest, and known is told whether they match.
func (u *upload) start(ctx context.Context, skip uint32, digest wire.Digest, known chan<- error) {
	u.collect = newCollector(skip, digest)
	u.collected = make(chan struct{})
	go func() {
		defer close(u.collected)
		u.collect.end(u.read(ctx, skip, digest, known))
	}()
}

// read feeds the collector from the iterator, after the inputs to skip.
func (u *upload) read(ctx context.Context, skip uint32, digest wire.Digest, known chan<- error) error {
	check := skipped{job: u.id, left: skip, total: skip, want: digest, known: known}
	if err := check.settle(nil); err != nil {
		return err
	}
	var seen uint32
	for in, err := range u.inputs {
		switch {
		case err != nil:
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case seen >= wire.MaxTasks:
			err = wire.Errorf(wire.Code_CODE_INVALID, "a job has at most %d inputs: join some with --chunk", wire.MaxTasks)
		case check.left > 0:
			err = check.add(in)
		default:
			err = u.put(ctx, in)
		}
		if err != nil {
			return check.settle(err)
		}
		seen++
	}
	return check.end()
}

// skipped compares the first inputs with those that a job has.
type skipped struct {
	job         wire.JobID
	left, total uint32
	chain, want wire.Digest
	known       chan<- error // told once; nil when nobody asks
}

func (s *skipped) add(in Input) error {
	h, err := hashInput(in)
	if err != nil {
		return err
	}
	s.chain = s.chain.Next(h)
	s.left--
	return s.settle(nil)
}

// settle tells the outcome once it is known, err or the comparison's, and
// returns it.
func (s *skipped) settle(err error) error {
	if err == nil && s.left > 0 {
		return nil
	}
	if s.known == nil {
		return err
	}
	if err == nil && s.chain != s.want {
		err = wire.Errorf(wire.Code_CODE_CONFLICT, "the first %d inputs are not those that job %s has: give the same inputs, or another --id", s.total, s.job)
	}
	s.known <- err
	s.known = nil
	return err
}

func (s *skipped) end() error {
	if s.left == 0 {
		return nil
	}
	return s.settle(wire.Errorf(wire.Code_CODE_CONFLICT, "job %s has %d inputs already, but there are only %d now: give the same inputs, or another --id", s.job, s.total, s.total-s.left))
}

// put hands one input to the collector, one that is not in memory as a blob.
func (u *upload) put(ctx context.Context, in Input) error {
	if in.Open == nil {
		it := item{input: &wire.Input{Data: in.Data}, hash: wire.HashOf(in.Data)}
		if len(in.Data) > MaxInlineInput {
			it.input, it.large = &wire.Input{}, in.Data
		}
		return u.collect.add(ctx, it)
	}
	input, hash, err := u.putBlob(ctx, in.Open)
	if err != nil {
		return err
	}
	return u.collect.add(ctx, item{input: input, hash: hash})
}

func (u *upload) putBlob(ctx context.Context, open func() (io.ReadCloser, error)) (input *wire.Input, hash wire.Hash, err error) {
	err = u.patience.Retry(ctx, func(ctx context.Context) error {
		r, err := open()
		if err != nil {
			return &readError{err}
		}
		defer r.Close()
		input, hash, err = u.c.PutBlob(ctx, r)
		return err
	})
	return input, hash, err
}

// hashInput returns the SHA-256 of an input's bytes.
func hashInput(in Input) (wire.Hash, error) {
	if in.Open == nil {
		return wire.HashOf(in.Data), nil
	}
	r, err := in.Open()
	if err != nil {
		return wire.Hash{}, &readError{err}
	}
	defer r.Close()
	return hashReader(r)
}
