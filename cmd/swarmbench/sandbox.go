package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
)

// slots is how many tasks run at one time, in a node and in the bare loop.
const slots = 2

// bareJob is what the bare loop runs: a program n times, with stdin if there is
// one.
type bareJob struct {
	module []byte
	args   []string
	stdin  []byte
	slots  int
	n      int
}

// bareLoop runs a program with wazero and nothing else, and returns the tasks a
// second.
func bareLoop(ctx context.Context, b bareJob) (float64, error) {
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return 0, err
	}
	compiled, err := r.CompileModule(ctx, b.module)
	if err != nil {
		return 0, err
	}
	next := make(chan struct{}, b.n)
	for range b.n {
		next <- struct{}{}
	}
	close(next)
	begun := time.Now()
	var loops sync.WaitGroup
	failed := make(chan error, b.slots)
	for range b.slots {
		loops.Go(func() {
			for range next {
				config := wazero.NewModuleConfig().WithName("").WithArgs(b.args...).
					WithStdin(bytes.NewReader(b.stdin)).WithStdout(io.Discard)
				m, err := r.InstantiateModule(ctx, compiled, config)
				if err != nil && !strings.Contains(err.Error(), "exit_code(0)") {
					failed <- err
					return
				}
				if m != nil {
					m.Close(ctx)
				}
			}
		})
	}
	loops.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return float64(b.n) / time.Since(begun).Seconds(), nil
	}
}

// calibrate finds the argument with which spin takes about a millisecond here.
func calibrate(ctx context.Context, spin []byte) (perMillisecond int, err error) {
	for arg := 100; ; arg *= 2 {
		rate, err := bareLoop(ctx, bareJob{module: spin, args: []string{"spin", fmt.Sprint(arg)}, slots: 1, n: 100})
		if err != nil {
			return 0, err
		}
		if rate < 700 {
			return int(float64(arg) * rate / 1000), nil
		}
	}
}

// measureSandbox compares one node with a bare wazero loop on the same slots.
func measureSandbox(ctx context.Context, e *env) error {
	spin, _ := programs.Get("spin")
	unit, err := calibrate(ctx, spin)
	if err != nil {
		return err
	}
	s, err := e.swarm(ctx, 1, "--slots", fmt.Sprint(slots))
	if err != nil {
		return err
	}
	defer s.stop()
	p, err := s[0].program(ctx, "spin")
	if err != nil {
		return err
	}
	for _, task := range []struct {
		ms, n int
		goal  string
	}{{10, 1000, "at least 95 % of the bare loop"}, {1, 8000, "at least 80 % of the bare loop"}} {
		arg := fmt.Sprint(unit * task.ms)
		err := e.besideBare(ctx, figure{
			what: fmt.Sprintf("C tasks of %d ms, one node, %d slots", task.ms, slots), goal: task.goal,
		}, bareJob{module: spin, args: []string{"spin", arg}, slots: slots, n: task.n}, func() (time.Duration, error) {
			return s[0].mapOver(ctx, spec(p, arg), numbers(task.n), nil)
		})
		if err != nil {
			return err
		}
	}
	return e.measureGo(ctx, s[0])
}

// measureGo compares a Go program over chunks of a text with the bare loop over
// the same chunks.
func (e *env) measureGo(ctx context.Context, n *node) error {
	path := filepath.Join(e.dir, "wordcount-go.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path,
		"github.com/ostrich-legs/ostrich/node/sandbox/testdata/wordcount-go")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build wordcount-go: %w\n%s", err, out)
	}
	module, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	p, err := n.client.PutProgram(ctx, "wordcount-go", bytes.NewReader(module))
	if err != nil {
		return err
	}
	const count, size = 200, 256 << 10
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog and runs away\n"), size/58)
	chunks := func(yield func(control.Input, error) bool) {
		for range count {
			if !yield(control.Input{Data: text}, nil) {
				return
			}
		}
	}
	return e.besideBare(ctx, figure{
		what: fmt.Sprintf("Go tasks, word count of 256 KiB chunks, one node, %d slots", slots), goal: "at least 80 % of the bare loop",
	}, bareJob{module: module, args: []string{"wordcount-go"}, stdin: text, slots: slots, n: count}, func() (time.Duration, error) {
		return n.mapOver(ctx, spec(p), chunks, nil)
	})
}

// besideBare measures ours and the bare loop in turns, and adds the figure.
func (e *env) besideBare(ctx context.Context, f figure, b bareJob, ours func() (time.Duration, error)) error {
	if _, err := ours(); err != nil { // compiled and warm, as the bare loop is
		return err
	}
	var bare []float64
	for range e.runs {
		rate, err := bareLoop(ctx, b)
		if err != nil {
			return err
		}
		took, err := ours()
		if err != nil {
			return err
		}
		bare = append(bare, rate)
		f.runs = append(f.runs, float64(b.n)/took.Seconds())
	}
	f.unit = "tasks/s"
	f.baseline = fmt.Sprintf("bare wazero loop %s tasks/s: %.0f %%", number(median(bare)), 100*median(f.runs)/median(bare))
	e.table.add(f)
	return nil
}
