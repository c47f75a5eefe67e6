package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// browsers lists the browsers that the swarm knows.
func (n *node) browsers(ctx context.Context) (browsers []*wire.Device, err error) {
	out, err := control.Call(ctx, n.client.ListDevices, &wire.ListDevicesRequest{})
	for _, d := range out.GetDevices() {
		if d.GetProfile().GetType() == wire.DeviceType_DEVICE_TYPE_BROWSER {
			browsers = append(browsers, d)
		}
	}
	return browsers, err
}

// crowdSpec is a job that only browsers take.
func crowdSpec(p *wire.Program, args ...string) *wire.JobSpec {
	s := spec(p, args...)
	s.Require, s.MemoryMib = &wire.Requirements{Browser: true}, 64
	return s
}

// lazy counts the browsers that have done no task.
func (n *node) lazy(ctx context.Context) (count int, err error) {
	browsers, err := n.browsers(ctx)
	for _, d := range browsers {
		if d.GetTotalTasksCompleted() == 0 {
			count++
		}
	}
	return count, err
}

// mapOverCrowd maps "upper" over lines, checks the outputs, and returns the
// tasks a second.
func (n *node) mapOverCrowd(ctx context.Context) (rate float64, err error) {
	p, err := n.program(ctx, "upper")
	if err != nil {
		return 0, err
	}
	lines := func(yield func(control.Input, error) bool) {
		for i := range crowdTasks {
			if !yield(control.Input{Data: fmt.Appendf(nil, "line %d\n", i)}, nil) {
				return
			}
		}
	}
	next := 0
	begun := time.Now()
	_, err = n.client.Map(ctx, control.MapOptions{Spec: crowdSpec(p), Inputs: lines, Result: func(_ *wire.TaskResult, out io.Reader) error {
		got, err := io.ReadAll(out)
		if want := fmt.Sprintf("LINE %d\n", next); err == nil && string(got) != want {
			err = fmt.Errorf("the output of task %d is %q, not %q", next, got, want)
		}
		next++
		return err
	}})
	took := time.Since(begun)
	if err == nil && next != crowdTasks {
		err = fmt.Errorf("%d outputs of %d tasks", next, crowdTasks)
	}
	return crowdTasks / took.Seconds(), err
}

// cancelCrowd gives every browser tasks that wait, cancels them, and returns how
// long it took until the last browser knew.
func (n *node) cancelCrowd(ctx context.Context, c *crowd) (time.Duration, error) {
	id, err := n.holdCrowd(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := c.report(); err != nil { // which forgets what was cancelled before
		return 0, err
	}
	begun := time.Now()
	if _, err := control.Call(ctx, n.client.CancelJob, &wire.CancelJobRequest{JobId: string(id)}); err != nil {
		return 0, err
	}
	var told int
	var last time.Time
	err = await(ctx, func() (bool, error) {
		report, err := c.report()
		told += report.Cancelled
		if report.Last.After(last) {
			last = report.Last
		}
		return told >= crowdSize, err
	})
	if err != nil {
		return 0, fmt.Errorf("%d browsers were told of a cancellation: %w", told, err)
	}
	return last.Sub(begun), nil
}

// holdCrowd submits a job of tasks that wait, and returns when every browser
// holds some.
func (n *node) holdCrowd(ctx context.Context) (wire.JobID, error) {
	p, err := n.program(ctx, "noop")
	if err != nil {
		return "", err
	}
	id := wire.NewJobID()
	job := crowdSpec(p, waits)
	job.Detached, job.KeepMs = true, time.Hour.Milliseconds()
	if _, err := n.client.Map(ctx, control.MapOptions{JobID: id, Spec: job, Inputs: numbers(20 * crowdSize)}); err != nil {
		return "", err
	}
	without := 0
	err = await(ctx, func() (bool, error) {
		browsers, err := n.browsers(ctx)
		without = 0
		for _, d := range browsers {
			if d.GetInFlight() == 0 {
				without++
			}
		}
		return without == 0, err
	})
	if err != nil {
		return "", fmt.Errorf("%d browsers got no task: %w", without, err)
	}
	return id, nil
}
