package control

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// cancelTime is how long a map tries to cancel its job when it cannot go on.
const cancelTime = 5 * time.Second

// MapOptions is what a map needs.
type MapOptions struct {
	Spec *wire.JobSpec
	// JobID is the job's; "" makes a new one.
	JobID wire.JobID
	// Resume says that the job may have been begun before: what it has of the
	// inputs is compared and skipped.
	Resume bool
	// Inputs are read by one goroutine, ahead of what is acknowledged by a few
	// MiB at most.
	Inputs iter.Seq2[Input, error]
	// StopInputs, if not nil, is called when no more inputs are wanted, for
	// whatever reason. It must make an iterator that waits return soon.
	StopInputs func()
	// Unordered hands results on in the order of completion.
	Unordered bool
	// Result is called for each result, as Client.Results does. Nil means that
	// the map ends when all inputs are acknowledged.
	Result func(*wire.TaskResult, io.Reader) error
	// Submitted, if not nil, is told that the job exists.
	Submitted func(*wire.Job)
	// Sent and Progress, if not nil, are told how many inputs are
	// acknowledged, and how the job stands. They may be called concurrently.
	Sent     func(total uint32)
	Progress func(*wire.Job)
	Patience Patience
}

// Map submits a job, feeds it its inputs and hands on its results while they
// come. It returns the job as it ended, whatever its state; an error means that
// the map could not go on, and then the job is cancelled, unless it was another
// one (CODE_CONFLICT) or the swarm cannot be reached: it can be resumed then.
// Memory is bounded. What the end of an attached job asks for, Acknowledge, is
// left to the caller, who knows whether the results are safe.
func (c *Client) Map(ctx context.Context, o MapOptions) (*wire.Job, error) {
	if o.JobID == "" {
		o.JobID = wire.NewJobID()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	u := &upload{c: c, id: o.JobID, spec: o.Spec, inputs: o.Inputs, resume: o.Resume, patience: o.Patience, sent: o.Sent}
	defer u.finish()
	defer func() {
		cancel(context.Canceled)
		if o.StopInputs != nil {
			o.StopInputs()
		}
	}()
	job, err := u.submit(ctx)
	if err != nil {
		if !o.Resume && (job != nil || ctx.Err() != nil) {
			c.cancelJob(ctx, o.JobID, err)
		}
		return nil, err
	}
	if o.Submitted != nil {
		o.Submitted(job)
	}
	job, err = c.feedAndFollow(ctx, cancel, u, &o)
	if err != nil && !Transient(err) && wire.CodeOf(err) != wire.Code_CODE_CONFLICT {
		c.cancelJob(ctx, o.JobID, err)
	}
	return job, err
}

// feedAndFollow runs the upload and the download together. The end of the
// download is the end of the map, whatever of the inputs is left.
func (c *Client) feedAndFollow(ctx context.Context, cancel context.CancelCauseFunc, u *upload, o *MapOptions) (*wire.Job, error) {
	if o.Result == nil {
		if err := u.run(ctx); err != nil {
			return nil, err
		}
		res, err := Call(ctx, c.GetJob, &wire.GetJobRequest{JobId: string(o.JobID)})
		return res.GetJob(), err
	}
	feed, stop := context.WithCancelCause(ctx)
	var feeding sync.WaitGroup
	feeding.Go(func() {
		if err := u.run(feed); err != nil && feed.Err() == nil {
			cancel(err)
		}
	})
	job, err := c.Results(ctx, ResultsOptions{
		JobID: o.JobID, Unordered: o.Unordered, Follow: true, Patience: o.Patience, Progress: o.Progress,
	}, o.Result)
	stop(errJobEnded)
	feeding.Wait()
	if err != nil && ctx.Err() != nil {
		// The upload's error, or the caller's reason, says more.
		err = context.Cause(ctx)
	}
	return job, err
}

// cancelJob does what it can to free the swarm of a job that nobody waits for.
func (c *Client) cancelJob(ctx context.Context, id wire.JobID, cause error) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer done()
	reason := cause.Error()
	if errors.Is(cause, context.Canceled) {
		reason = "its client was interrupted"
	}
	p := Patience{Limit: cancelTime}
	p.Retry(ctx, func(ctx context.Context) error {
		_, err := Call(ctx, c.CancelJob, &wire.CancelJobRequest{JobId: string(id), Reason: reason})
		return err
	})
}

// Ended reports whether a job is in a state that lasts.
func Ended(j *wire.Job) bool {
	switch j.GetState() {
	case wire.JobState_JOB_STATE_DONE, wire.JobState_JOB_STATE_FAILED, wire.JobState_JOB_STATE_CANCELLED:
		return true
	}
	return false
}
