package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
)

// measureBinary measures the size of the released program.
func measureBinary(_ context.Context, e *env) error {
	info, err := os.Stat(e.ostrich)
	if err != nil {
		return err
	}
	e.table.add(figure{what: "stripped binary", unit: "MB", runs: []float64{float64(info.Size()) / 1e6}, goal: "under 60 MB"})
	return nil
}

// measureStart measures the time from "up" to "ready", on a new folder and a
// used one.
func measureStart(ctx context.Context, e *env) error {
	var fresh, used []float64
	for i := range e.runs {
		dir := filepath.Join(e.dir, fmt.Sprint("start", i))
		for _, list := range []*[]float64{&fresh, &used} {
			n, err := e.up(ctx, dir)
			if err != nil {
				return err
			}
			n.stop()
			*list = append(*list, float64(n.ready.Milliseconds()))
		}
	}
	e.table.add(figure{what: "up to ready, new swarm", unit: "ms", runs: fresh, goal: "under 1,500 ms"})
	e.table.add(figure{what: "up to ready, used folder", unit: "ms", runs: used, goal: "under 1,500 ms"})
	return nil
}

// measureLatency measures a run of a trivial, cached program on an idle swarm
// of three.
func measureLatency(ctx context.Context, e *env) error {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return err
	}
	defer s.stop()
	const each = 100
	for i, where := range []string{"on the coordinator", "on another member"} {
		p, err := s[i].program(ctx, "noop")
		if err != nil {
			return err
		}
		var medians []float64
		for range e.runs {
			var times []float64
			for range each {
				job := spec(p)
				job.Single, job.Retries = true, 0
				took, err := s[i].mapOver(ctx, job, numbers(1), nil)
				if err != nil {
					return err
				}
				times = append(times, took.Seconds()*1000)
			}
			medians = append(medians, median(times))
		}
		e.table.add(figure{
			what: "one run of a cached program, three idle members, asked " + where + " (median of 100)", unit: "ms", runs: medians,
			baseline: "Bacalhau, one node, same kind of machine: 36 ms", goal: "20 ms",
		})
	}
	return nil
}

// measureNoop measures three members on this machine, and whether their memory
// stays flat.
func measureNoop(ctx context.Context, e *env) error {
	const tasks = 200_000
	var rates, growth []float64
	for range e.runs {
		rate, grew, err := e.noopOnce(ctx, tasks)
		if err != nil {
			return err
		}
		rates, growth = append(rates, rate), append(growth, grew)
	}
	module, _ := programs.Get("noop")
	bare, err := bareLoop(ctx, bareJob{module: module, args: []string{"noop"}, slots: 2, n: 20_000})
	if err != nil {
		return err
	}
	e.table.add(figure{
		what: "C no-op, three members here, 200,000 tasks, submit to ordered output", unit: "tasks/s", runs: rates,
		baseline: fmt.Sprintf("bare wazero loop on both cores %s tasks/s; NATS JetStream, 3 replicas, fsync, nothing run: 8,400 messages/s", number(bare)),
		goal:     "at least 8,000 tasks/s",
	})
	e.table.add(figure{what: "anonymous memory of the three at the end against a tenth of the way", unit: "%", runs: growth, goal: "at most 110 %"})
	return nil
}

func (e *env) noopOnce(ctx context.Context, tasks int) (rate, growth float64, err error) {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return 0, 0, err
	}
	defer s.stop()
	p, err := s[1].program(ctx, "noop")
	if err != nil {
		return 0, 0, err
	}
	var count int
	var early, late float64
	took, err := s[1].mapOver(ctx, spec(p), numbers(tasks), func() {
		switch count++; count {
		case tasks / 10:
			early = s.anonymous()
		case tasks:
			late = s.anonymous()
		}
	})
	if err != nil {
		return 0, 0, err
	}
	return float64(tasks) / took.Seconds(), 100 * late / early, nil
}

// measureStream sends a long stream through three members.
func measureStream(ctx context.Context, e *env) error {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return err
	}
	defer s.stop()
	p, err := s[1].program(ctx, "noop")
	if err != nil {
		return err
	}
	raw, err := diskRate(e.dir)
	if err != nil {
		return err
	}
	const chunk = 1 << 20
	n := int(e.streamSize / chunk)
	var rates, greatest []float64
	var early float64
	for range e.runs {
		var count int
		var most float64
		took, err := s[1].mapOver(ctx, spec(p), chunks(n, chunk), func() {
			if count++; count%(n/10+1) == 0 {
				most = max(most, s.anonymous())
				if early == 0 {
					early = most
				}
			}
		})
		if err != nil {
			return err
		}
		rates = append(rates, float64(e.streamSize)/1e6/took.Seconds())
		greatest = append(greatest, most)
	}
	e.table.add(figure{
		what: fmt.Sprintf("stream of %d GiB in tasks of 1 MiB through three members, on a quorum before it is acknowledged", e.streamSize>>30),
		unit: "MB/s", runs: rates,
		baseline: fmt.Sprintf("writing and syncing 1 MiB files on the same disk, once: %s MB/s; the swarm writes each byte three times", number(raw)),
	})
	e.table.add(figure{
		what: "anonymous memory of the three while it flows, greatest", unit: "MiB", runs: greatest,
		baseline: fmt.Sprintf("a tenth of the first way: %s MiB", number(early)), goal: "bounded",
	})
	return nil
}

// diskRate writes files of 1 MiB, each synced, and returns the MB a second.
func diskRate(dir string) (float64, error) {
	const files = 256
	page := make([]byte, 1<<20)
	begun := time.Now()
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("raw", i)))
		if err != nil {
			return 0, err
		}
		_, err = f.Write(page)
		if err == nil {
			err = f.Sync()
		}
		f.Close()
		if err != nil {
			return 0, err
		}
		defer os.Remove(f.Name())
	}
	return files * float64(len(page)) / 1e6 / time.Since(begun).Seconds(), nil
}

// chunks are n inputs of so many bytes, all different.
func chunks(n, size int) func(func(control.Input, error) bool) { return chunksFrom(0, n, size) }

// chunksFrom are n inputs of so many bytes, which differ from each other and from
// those of another first number that is at least n away.
func chunksFrom(first, n, size int) func(func(control.Input, error) bool) {
	return func(yield func(control.Input, error) bool) {
		for i := range n {
			data := make([]byte, size)
			for k := 0; k < size; k += 4096 {
				copy(data[k:], fmt.Sprintf("%d %d\n", first+i, k))
			}
			open := func() (io.ReadCloser, error) { return io.NopCloser(newReader(data)), nil }
			if !yield(control.Input{Open: open}, nil) {
				return
			}
		}
	}
}

// measureIdle measures what a node costs that has nothing to do, and a voter
// after 20,000 tasks.
func measureIdle(ctx context.Context, e *env) error {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return err
	}
	defer s.stop()
	var resident, load, anonymous []float64
	for range e.runs {
		before := make([]time.Duration, len(s))
		for i, n := range s {
			before[i] = cpuOf(n.cmd.Process.Pid)
		}
		const watch = 20 * time.Second
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watch):
		}
		for i, n := range s {
			resident = append(resident, float64(memoryOf(n.cmd.Process.Pid).resident)/(1<<20))
			load = append(load, 100*(cpuOf(n.cmd.Process.Pid)-before[i]).Seconds()/watch.Seconds())
		}
	}
	p, err := s[1].program(ctx, "noop")
	if err != nil {
		return err
	}
	if _, err := s[1].mapOver(ctx, spec(p), numbers(20_000), nil); err != nil {
		return err
	}
	for _, n := range s {
		anonymous = append(anonymous, float64(memoryOf(n.cmd.Process.Pid).anonymous)/(1<<20))
	}
	e.table.add(figure{what: "idle member of three, resident", unit: "MiB", runs: resident, goal: "under 64 MiB"})
	e.table.add(figure{what: "idle member of three, of one core", unit: "%", runs: load, goal: "under 1 %"})
	e.table.add(figure{what: "voter after 20,000 tasks, anonymous memory", unit: "MiB", runs: anonymous, baseline: "NATS server 60–65 MiB resident", goal: "under 90 MiB"})
	return nil
}
