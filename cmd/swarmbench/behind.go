package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// rateTasks is the size of the maps that measure a throughput again and again.
	rateTasks = 20_000
	// catchUpLimit bounds how long a member may take to catch up.
	catchUpLimit = 15 * time.Minute
	// pagesInFlight is how many pages a member may lack that has caught up: while
	// work goes on there are always some on their way.
	pagesInFlight = 5
)

// measureBehind measures how a member comes back that is many tasks and bytes of
// pages behind, what that costs the others, and how long members take to start
// afterwards.
func measureBehind(ctx context.Context, e *env) error {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { s.stop() }() // one of them is another by then
	b, err := joinStub(ctx, s, 16)
	if err != nil {
		return err
	}
	defer b.close()
	before, err := s[0].rateFor(ctx, 3*time.Second)
	if err != nil {
		return err
	}
	behind, err := s.follower(ctx)
	if err != nil {
		return err
	}
	dir := s[behind].dir
	s[behind].stop()
	rest := slices.Delete(slices.Clone(s), behind, behind+1)
	e.say("one of three is away; %d tasks and %d MiB of pages go by …", e.behindTasks, e.behindPages>>20)
	if err := rest[0].passBy(ctx, e.behindTasks, e.behindPages); err != nil {
		return err
	}
	goal, err := rest[0].status(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	if s[behind], err = e.up(ctx, dir); err != nil {
		return err
	}
	meanwhile, err := rest[0].rateUntil(ctx, func() (bool, error) { return s[behind].has(ctx, goal) })
	if err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	what := fmt.Sprintf("a member that is %s tasks and %d MiB of pages behind", thousands(int64(e.behindTasks)), e.behindPages>>20)
	e.table.add(figure{what: what + ": until it has all", unit: "s", runs: []float64{took}})
	e.table.add(figure{
		what: what + ": the swarm's throughput meanwhile, queue alone", unit: "tasks/s", runs: meanwhile,
		baseline: fmt.Sprintf("before: %s tasks/s, so that %.0f %% are left", number(median(before)), 100*median(meanwhile)/median(before)), goal: "at least half",
	})
	return e.measureRestarts(ctx, s)
}

// measureRestarts kills each member and measures the time to "ready".
func (e *env) measureRestarts(ctx context.Context, s swarm) error {
	var times []float64
	for i, n := range s {
		_ = n.cmd.Process.Signal(syscall.SIGKILL)
		n.stop()
		again, err := e.up(ctx, n.dir)
		if err != nil {
			return err
		}
		s[i] = again
		times = append(times, float64(again.ready.Milliseconds()))
	}
	e.table.add(figure{
		what: fmt.Sprintf("up to ready after kill -9, %s tasks in the state", thousands(int64(e.behindTasks))), unit: "ms", runs: times, goal: "under 5,000 ms",
	})
	return nil
}

// follower returns the place of a member that does not coordinate, and is not
// the first.
func (s swarm) follower(ctx context.Context) (int, error) {
	st, err := s[0].status(ctx)
	if err != nil {
		return 0, err
	}
	for i, n := range s[1:] {
		own, err := n.status(ctx)
		if err != nil {
			return 0, err
		}
		if own.GetDeviceId() != st.GetView().GetCoordinator() {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("the swarm has no follower")
}

func (n *node) status(ctx context.Context) (*wire.Status, error) {
	out, err := control.Call(ctx, n.client.GetStatus, &wire.GetStatusRequest{})
	return out.GetStatus(), err
}

// has reports whether a member's state goes as far as another's did, and its disk
// holds as much, but for pages that are always on their way.
func (n *node) has(ctx context.Context, goal *wire.Status) (bool, error) {
	st, err := n.status(ctx)
	const slack = pagesInFlight << 20
	return st.GetApplied() >= goal.GetApplied() && st.GetPagesMissing() <= pagesInFlight && st.GetBytesStored()+slack >= goal.GetBytesStored(), err
}

// passBy has the swarm do so many tasks, which stay, and keep so many bytes of
// inputs of tasks that nobody can run.
func (n *node) passBy(ctx context.Context, tasks int, bytes int64) error {
	p, err := n.program(ctx, "noop")
	if err != nil {
		return err
	}
	id := wire.NewJobID()
	done := stubSpec(p)
	done.Detached, done.KeepMs = true, time.Hour.Milliseconds()
	if _, err := n.client.Map(ctx, control.MapOptions{JobID: id, Spec: done, Inputs: numbers(tasks)}); err != nil {
		return err
	}
	for {
		out, err := control.Call(ctx, n.client.GetJob, &wire.GetJobRequest{JobId: string(id)})
		if err != nil {
			return err
		}
		if control.Ended(out.GetJob()) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	const size, each = 1 << 20, 256
	for left := int(bytes / size); left > 0; left -= each {
		kept := stubSpec(p)
		kept.Require.Labels[stubLabel] = fmt.Sprint("none ", left)
		kept.Detached, kept.KeepMs = true, time.Hour.Milliseconds()
		inputs := chunksFrom(left, min(left, each), size)
		if _, err := n.client.Map(ctx, control.MapOptions{JobID: wire.NewJobID(), Spec: kept, Inputs: inputs}); err != nil {
			return err
		}
	}
	return nil
}

// rateFor measures the throughput of the queue again and again for a while.
func (n *node) rateFor(ctx context.Context, lasts time.Duration) ([]float64, error) {
	end := time.Now().Add(lasts)
	return n.rateUntil(ctx, func() (bool, error) { return time.Now().After(end), nil })
}

// rateUntil measures the throughput of the queue again and again, until over
// says so, and once at least.
func (n *node) rateUntil(ctx context.Context, over func() (bool, error)) (rates []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	p, err := n.program(ctx, "noop")
	if err != nil {
		return nil, err
	}
	for {
		took, err := n.mapOver(ctx, stubSpec(p), numbers(rateTasks), nil)
		if err != nil {
			return nil, err
		}
		rates = append(rates, rateTasks/took.Seconds())
		if done, err := over(); done || err != nil {
			return rates, err
		}
	}
}
