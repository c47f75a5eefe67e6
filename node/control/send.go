package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// window is how many calls with inputs are in flight at most.
	window = 4
	// maxResyncs bounds how often one batch is refused by a job that somebody
	// else feeds at the same time.
	maxResyncs = 10
)

// run sends the inputs that follow and closes the job. It returns nil when the
// job has ended before, and waits for all that it started, the reader of the
// inputs excepted: finish does.
func (u *upload) run(ctx context.Context) error {
	if u.closed {
		return nil
	}
	total, err := u.sendAll(ctx)
	if err == nil {
		err = u.close(ctx, total)
	}
	if errors.Is(err, errJobEnded) {
		return nil
	}
	return err
}

// sendAll keeps up to window calls in flight and returns the number of inputs.
func (u *upload) sendAll(ctx context.Context) (uint32, error) {
	calls, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, window)
	before := make(chan struct{}) // the call before has been acknowledged
	close(before)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return 0, failure(calls, context.Cause(ctx))
		}
		b, last, err := u.collect.take(ctx)
		if err != nil {
			return 0, failure(calls, err)
		}
		if len(b.items) > 0 {
			prior, acknowledged := before, make(chan struct{})
			before = acknowledged
			calls.Go(func() error {
				defer func() { <-slots }()
				if err := u.append(ctx, b, prior); err != nil {
					return err
				}
				close(acknowledged)
				return nil
			})
		} else {
			<-slots
		}
		if last {
			return b.next(), calls.Wait()
		}
	}
}

// failure waits for the calls and returns what went wrong first: theirs, or err.
func failure(calls *errgroup.Group, err error) error {
	if cause := calls.Wait(); cause != nil {
		return cause
	}
	return err
}

// append sends one batch. The calls of a window overtake each other: one that
// is refused for that waits for the call before it and looks where the job is.
func (u *upload) append(ctx context.Context, b *batch, prior <-chan struct{}) error {
	if err := u.store(ctx, b); err != nil {
		return err
	}
	total := b.next()
	_, err := Call(ctx, u.c.AppendInputs, appendRequest(u.id, b))
	if err != nil {
		if !Transient(err) && !misplaced(err) {
			return err
		}
		select {
		case <-prior:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := u.resend(ctx, b); err != nil {
			return err
		}
	}
	if u.sent != nil {
		u.sent(total)
	}
	return nil
}

// misplaced reports whether err may mean that the job's inputs do not end where
// the batch begins.
func misplaced(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_PRECONDITION, wire.Code_CODE_CONFLICT, wire.Code_CODE_EXHAUSTED:
		return true
	}
	return false
}

// resend asks what the job has and sends what is missing of b, until all of it
// is acknowledged.
func (u *upload) resend(ctx context.Context, b *batch) error {
	pause := firstPause
	for resyncs := 0; ; {
		err := u.patience.Retry(ctx, func(ctx context.Context) error { return u.sendMissing(ctx, b) })
		if err == nil || !misplaced(err) {
			return err
		}
		// A full swarm takes more when it has worked some off.
		if wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED {
			resyncs++
		} else if u.patience.Waiting != nil {
			u.patience.Waiting(err)
		}
		if resyncs > maxResyncs {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

func (u *upload) sendMissing(ctx context.Context, b *batch) error {
	res, err := Call(ctx, u.c.GetJob, &wire.GetJobRequest{JobId: string(u.id)})
	if err != nil {
		return err
	}
	job := res.GetJob()
	total := uint32(job.GetTasks().GetTotal())
	switch {
	case total >= b.next():
		return nil
	case Ended(job):
		return errJobEnded
	case total < b.first:
		return wire.Errorf(wire.Code_CODE_INTERNAL, "job %s has %d inputs although %d were acknowledged", u.id, total, b.first)
	}
	b.skip(total)
	if !bytes.Equal(job.GetInputDigest(), b.before[:]) && total > 0 {
		return wire.Errorf(wire.Code_CODE_CONFLICT, "somebody else feeds job %s with other inputs: use another --id", u.id)
	}
	_, err = Call(ctx, u.c.AppendInputs, appendRequest(u.id, b))
	return err
}

// store makes blobs of the batch's large inputs.
func (u *upload) store(ctx context.Context, b *batch) error {
	for i := range b.items {
		it := &b.items[i]
		if it.large == nil {
			continue
		}
		input, _, err := u.putBlob(ctx, func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(it.large)), nil
		})
		if err != nil {
			return err
		}
		it.input, it.large = input, nil
	}
	return nil
}

// close says that the inputs are complete.
func (u *upload) close(ctx context.Context, total uint32) error {
	err := u.patience.Retry(ctx, func(ctx context.Context) error {
		_, err := Call(ctx, u.c.CloseInputs, &wire.CloseInputsRequest{JobId: string(u.id), Total: total})
		return err
	})
	if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		return err
	}
	res, gerr := Call(ctx, u.c.GetJob, &wire.GetJobRequest{JobId: string(u.id)})
	if gerr == nil && Ended(res.GetJob()) {
		return errJobEnded
	}
	return err
}

// finish waits for the reader of the inputs, whose context has ended.
func (u *upload) finish() {
	if u.collected != nil {
		<-u.collected
	}
}

func appendRequest(id wire.JobID, b *batch) *wire.AppendInputsRequest {
	return &wire.AppendInputsRequest{
		JobId: string(id), First: b.first, Items: b.inputs(),
		DigestBefore: b.before[:], DigestAfter: b.after[:],
	}
}
