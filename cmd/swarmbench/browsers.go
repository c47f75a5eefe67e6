package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// crowdSize is as many browsers as a bridge takes.
	crowdSize = 1000
	crowdName = "1,000 browsers of one bridge"
	// crowdTasks are mapped over a crowd; each browser has a good part of them.
	crowdTasks = 50_000
	// beat is how often a device says how it is.
	beat = 10 * time.Second
	// crowdWatch is how long an idle crowd is watched: three beats.
	crowdWatch = 3 * beat
	// crowdLimit bounds the wait for what all of a crowd should do.
	crowdLimit = 3 * time.Minute
)

// crowd is the process of a crowd of browsers: see runCrowd.
type crowd struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports *json.Decoder
}

// crowd starts a crowd, which joins by the node's invite.
func (e *env) crowd(ctx context.Context, n *node) (*crowd, error) {
	out, err := control.Call(ctx, n.client.CreateInvite, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crowd{cmd: exec.CommandContext(ctx, self, "-crowd", out.GetInvite().GetLink())}
	c.cmd.Stderr = e.progress
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.reports = json.NewDecoder(stdout)
	return c, c.cmd.Start()
}

// report asks for what the crowd has seen.
func (c *crowd) report() (r crowdReport, err error) {
	if _, err := fmt.Fprintln(c.in); err != nil {
		return r, fmt.Errorf("asking the crowd: %w", err)
	}
	return r, c.reports.Decode(&r)
}

// stop closes all tabs.
func (c *crowd) stop() {
	c.in.Close()
	_ = c.cmd.Wait()
}

// crowdRun is what one crowd shows.
type crowdRun struct {
	joined         time.Duration // until all had a session
	alone          float64       // anonymous MiB of the node before
	idle, busy     float64       // KiB more of it, per browser
	idleCPU        float64       // of one core, in percent
	received       float64       // bytes per idle browser and beat
	rate           float64       // tasks a second
	told           time.Duration // until all were told of a cancellation
	broken, absent int           // sessions that ended since, browsers that were not online
	lazy           int           // browsers that have done no task
	silence        time.Duration // the longest of any browser
}

// measureBrowsers measures a bridge with as many browsers as it takes, in Go, in
// a process of their own.
func measureBrowsers(ctx context.Context, e *env) error {
	if runtime.GOOS != "linux" {
		e.table.add(figure{what: crowdName, baseline: "not measured: only Linux has all of 127.0.0.0/8, and /proc"})
		return nil
	}
	upper, _ := programs.Get("upper")
	var runs []crowdRun
	var bare []float64
	for range e.runs {
		rate, err := bareLoop(ctx, bareJob{module: upper, args: []string{"upper"}, stdin: []byte("line 1\n"), slots: slots, n: 20_000})
		if err != nil {
			return err
		}
		r, err := e.crowdOnce(ctx)
		if err != nil {
			return err
		}
		bare, runs = append(bare, rate), append(runs, r)
	}
	e.addCrowd(runs, fmt.Sprintf("bare wazero loop on both cores %s tasks/s", number(median(bare))))
	return nil
}

// addCrowd adds what the crowds have shown.
func (e *env) addCrowd(runs []crowdRun, bare string) {
	of := func(value func(crowdRun) float64) (values []float64) {
		for _, r := range runs {
			values = append(values, value(r))
		}
		return values
	}
	alone := median(of(func(r crowdRun) float64 { return r.alone }))
	add := func(which, unit, baseline, goal string, value func(crowdRun) float64) {
		e.table.add(figure{what: crowdName + which, unit: unit, runs: of(value), baseline: baseline, goal: goal})
	}
	add(": until all have a session", "s", "", "", func(r crowdRun) float64 { return r.joined.Seconds() })
	add(", idle: anonymous memory of the node, each", "KiB", fmt.Sprintf("the node alone, in all: %s MiB", number(alone)), "", func(r crowdRun) float64 { return r.idle })
	add(", all computing: the same, greatest", "KiB", "idle: the line above", "under 320 KiB", func(r crowdRun) float64 { return r.busy })
	add(", idle: the node, of one core", "%", "", "", func(r crowdRun) float64 { return r.idleCPU })
	add(fmt.Sprintf(": %s tasks, outputs checked", thousands(crowdTasks)), "tasks/s",
		bare, "", func(r crowdRun) float64 { return r.rate })
	add(": sessions that broke, browsers seen not online, or without a finished task", "in all", "", "0",
		func(r crowdRun) float64 { return float64(r.broken + r.absent + r.lazy) })
	add(": longest silence of any, a heartbeat being due every 10 s", "s", "", "under 20 s: none is missed", func(r crowdRun) float64 { return r.silence.Seconds() })
	add(", idle: bytes to each in the 10 s of a heartbeat", "B", "", "at most 2,048 B", func(r crowdRun) float64 { return r.received })
	add(": until a cancellation has reached the last", "ms", "", "under 1,000 ms", func(r crowdRun) float64 { return float64(r.told.Milliseconds()) })
}

// crowdOnce has a crowd join a new node, idle, compute, and be told of a
// cancellation.
func (e *env) crowdOnce(ctx context.Context) (r crowdRun, err error) {
	s, err := e.swarm(ctx, 1)
	if err != nil {
		return r, err
	}
	defer s.stop()
	time.Sleep(time.Second) // what starting has left to do
	before := bridgeMemory(s[0].cmd.Process.Pid)
	r.alone = float64(before) / (1 << 20)
	begun := time.Now()
	c, err := e.crowd(ctx, s[0])
	if err != nil {
		return r, err
	}
	defer c.stop()
	err = await(ctx, func() (bool, error) {
		report, err := c.report()
		return report.Connected == crowdSize, err
	})
	if err != nil {
		return r, fmt.Errorf("the browsers join: %w", err)
	}
	r.joined = time.Since(begun)
	watch := watchCrowd(ctx, s[0])
	err = r.work(ctx, s[0], c)
	seen := watch.end()
	if err != nil {
		return r, err
	}
	if seen.err != nil {
		return r, fmt.Errorf("listing the devices: %w", seen.err)
	}
	r.idle, r.busy = each(r.idle, before), each(float64(seen.most), before)
	r.absent, r.silence = seen.absent, seen.silence
	return r, nil
}

// each is what each browser of a crowd adds to a node's memory, in KiB.
func each(bytes float64, before int64) float64 {
	return (bytes - float64(before)) / crowdSize / (1 << 10)
}

// work has a crowd idle, compute and be told of a cancellation.
func (r *crowdRun) work(ctx context.Context, n *node, c *crowd) error {
	joined, err := c.report()
	if err != nil {
		return err
	}
	if err := r.watchIdle(ctx, n, c); err != nil {
		return err
	}
	if r.rate, err = n.mapOverCrowd(ctx); err != nil {
		return err
	}
	if r.lazy, err = n.lazy(ctx); err != nil {
		return err
	}
	if r.told, err = n.cancelCrowd(ctx, c); err != nil {
		return err
	}
	report, err := c.report()
	r.broken = report.Sessions - joined.Sessions + crowdSize - report.Connected
	return err
}

// watchIdle measures what a crowd costs that has nothing to do.
func (r *crowdRun) watchIdle(ctx context.Context, n *node, c *crowd) error {
	before, err := c.report()
	if err != nil {
		return err
	}
	cpu := bridgeCPU(n.cmd.Process.Pid)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(crowdWatch):
	}
	r.idleCPU = 100 * (bridgeCPU(n.cmd.Process.Pid) - cpu).Seconds() / crowdWatch.Seconds()
	r.idle = float64(bridgeMemory(n.cmd.Process.Pid))
	after, err := c.report()
	r.received = float64(after.Received-before.Received) / crowdSize * beat.Seconds() / crowdWatch.Seconds()
	return err
}

// await waits until something holds.
func await(ctx context.Context, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, crowdLimit)
	defer cancel()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
