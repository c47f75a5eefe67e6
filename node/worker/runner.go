package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// sandboxRest is the pause after the sandbox could not run anything.
const sandboxRest = time.Second

// runBatches runs batches, one at a time, until ctx ends or the
// holdings are stopped.
func (w *Worker) runBatches(ctx context.Context) {
	for ctx.Err() == nil { // a batch of an ended ctx would be given back at once, for ever
		b := w.holdings.take(ctx)
		if b == nil {
			return
		}
		err := w.runBatch(b)
		stopped := b.ctx.Err() != nil
		b.cancel()
		if why, _ := w.unwell(); why != "" && !stopped {
			w.holdings.giveBack(b) // the coordinator takes it back: see watchHealth
			sleep(ctx, sandboxRest)
			continue
		}
		if err != nil && !stopped {
			w.failRest(ctx, b, err)
			continue
		}
		w.holdings.giveBack(b)
	}
}

// failRest fails what is left of a batch that the sandbox could not run.
func (w *Worker) failRest(ctx context.Context, b *batch, err error) {
	w.log.Warn("the sandbox cannot run a program", "job", b.lease.job.id, "error", err)
	for _, p := range b.places[b.done:] {
		w.fail(place{b.lease, p}, err)
	}
	sleep(ctx, sandboxRest) // an end of ctx shows at the next take
}

// fail ends a task that this device could not run.
func (w *Worker) fail(t place, err error) {
	w.holdings.end(t.lease, t.at, &wire.TaskResult{
		Index:   t.lease.claim.Indexes[t.at],
		Status:  wire.TaskStatus_TASK_STATUS_FAILED,
		Failure: wire.FailureKind_FAILURE_KIND_INTERNAL,
		Error:   firstCharacters(err.Error(), wire.MaxErrorText),
		Device:  string(w.self),
	})
}

// runBatch runs a batch in a slot. An error that is not the end of the batch's
// context means that the sandbox could not run.
func (w *Worker) runBatch(b *batch) error {
	tasks, err := w.prepare(b)
	defer removeInputs(tasks)
	if err != nil {
		if b.ctx.Err() == nil {
			w.fail(place{b.lease, b.places[0]}, fmt.Errorf("the input cannot be read: %w", err))
			w.holdings.next(b, 0)
		}
		return b.ctx.Err()
	}
	job := b.lease.job
	program := sandbox.Program{Hash: job.program, Path: w.holdings.programs.path(job.program)}
	err = w.config.Sandbox.Run(b.ctx, program, tasks, func(i int, r sandbox.Result) {
		if w.holdings.next(b, i) {
			removeOutput(r.StdoutPath)
			return
		}
		w.finish(place{b.lease, b.places[i]}, r)
	})
	if err != nil {
		removeOutput(tasks[min(b.done, len(tasks)-1)].OutputPath) // of the one that was killed
	}
	return err
}

// prepare makes the sandbox's tasks of a batch. A large input, which is alone
// in its batch, is read into a file first.
func (w *Worker) prepare(b *batch) ([]sandbox.Task, error) {
	job := b.lease.job
	spec := job.spec
	tasks := make([]sandbox.Task, len(b.places))
	prefix := w.workFile(b.lease.claim.GetAttempt())
	inputs := w.holdings.inputsOf(b)
	env := make([]string, 0, len(b.places)*(len(spec.GetEnv())+1))
	for i, p := range b.places {
		index := b.lease.claim.Indexes[p]
		number := strconv.FormatUint(uint64(index), 10)
		start := len(env)
		env = append(append(env, spec.GetEnv()...), "OSTRICH_INDEX="+number)
		tasks[i] = sandbox.Task{
			Args:       job.args,
			Env:        env[start:len(env):len(env)],
			Seed:       sandbox.Seed(job.id, index),
			Timeout:    time.Duration(spec.GetTimeoutMs()) * time.Millisecond,
			MemoryMiB:  spec.GetMemoryMib(),
			MaxOutput:  spec.GetMaxOutputBytes(),
			OutputPath: prefix + number + ".out",
		}
		if inputs[i].GetBlob() == nil {
			tasks[i].Stdin = inputs[i].GetInline()
			continue
		}
		tasks[i].StdinPath = prefix + number + ".in"
		if err := w.readInput(b.ctx, inputs[i].GetBlob(), tasks[i].StdinPath); err != nil {
			return tasks, err
		}
	}
	return tasks, nil
}

// workFile returns how the paths of a lease's files begin.
func (w *Worker) workFile(a *wire.Attempt) string {
	return filepath.Join(w.workDir, fmt.Sprintf("%d-%d-", a.GetTerm(), a.GetCounter()))
}

func (w *Worker) readInput(ctx context.Context, blob *wire.Blob, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = w.call.readBlob(ctx, blob, file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

func removeInputs(tasks []sandbox.Task) {
	for i := range tasks {
		if tasks[i].StdinPath != "" {
			os.Remove(tasks[i].StdinPath) // what is left is removed at the next start
		}
	}
}

func removeOutput(path string) {
	if path != "" {
		os.Remove(path) // likewise
	}
}

// finish takes the outcome of a task that has run. A large output goes into
// pages first, while the slot goes on.
func (w *Worker) finish(t place, r sandbox.Result) {
	result := w.result(t, &r)
	if r.StdoutPath == "" {
		w.holdings.end(t.lease, t.at, result)
		return
	}
	size := int64(r.StdoutSize)
	ctx, stop := context.WithCancel(w.ctx)
	if !w.holdings.keepFile(t, r.StdoutPath, size, stop) {
		stop()
		removeOutput(r.StdoutPath)
		return
	}
	w.holdings.uploading(1)
	w.tasks.Go(func() {
		defer stop()
		defer w.holdings.uploading(-1)
		blob, err := w.writer(t).writeBlob(ctx, r.StdoutPath, size, w.uploads)
		switch {
		case ctx.Err() != nil: // we stop, or the task is settled
		case err != nil:
			w.fail(t, fmt.Errorf("the output cannot be stored: %w", err))
		default:
			result.OutputBlob = blob
			w.holdings.end(t.lease, t.at, result)
		}
	})
}

// writer writes the pages of a task's output.
func (w *Worker) writer(t place) writer {
	claim := t.lease.claim
	return writer{call: w.call, attempt: claim.GetAttempt(), index: claim.Indexes[t.at]}
}

// writeAnew writes outputs into pages again that the coordinator calls lost, and
// has their results sent again. What cannot be written is asked for again.
func (w *Worker) writeAnew(a *wire.ResultsAck) {
	for _, t := range w.holdings.places(a) {
		ctx, stop := context.WithCancel(w.ctx)
		file, size, ok := w.holdings.again(t, stop)
		if !ok {
			stop()
			continue
		}
		w.tasks.Go(func() {
			defer stop()
			_, err := w.writer(t).writeBlob(ctx, file, size, w.uploads)
			if err != nil && ctx.Err() == nil {
				w.log.Warn("an output that the swarm lost cannot be written again", "job", t.lease.job.id, "error", err)
			}
			w.holdings.wroteAnew(t, err == nil)
		})
	}
}

// result puts what the sandbox says into the wire's words.
func (w *Worker) result(t place, r *sandbox.Result) *wire.TaskResult {
	result := &wire.TaskResult{
		Index:      t.lease.claim.Indexes[t.at],
		Status:     wire.TaskStatus_TASK_STATUS_OK,
		Failure:    r.Failure,
		ExitCode:   r.ExitCode,
		Output:     r.Stdout,
		Stderr:     r.Stderr[max(0, len(r.Stderr)-wire.MaxStderr):],
		Device:     string(w.self),
		DurationUs: uint64(max(0, r.Duration.Microseconds())),
	}
	if result.Failure == wire.FailureKind_FAILURE_KIND_UNSPECIFIED && r.ExitCode != 0 {
		result.Failure = wire.FailureKind_FAILURE_KIND_EXIT
	}
	if result.Failure != wire.FailureKind_FAILURE_KIND_UNSPECIFIED {
		result.Status = wire.TaskStatus_TASK_STATUS_FAILED
		result.Error = firstCharacters(r.Error, wire.MaxErrorText)
		if result.Error == "" {
			result.Error = failureText(t.lease.job.spec, result)
		}
	}
	return result
}

// failureText says in words why a task failed, where the sandbox has not.
func failureText(spec *wire.JobSpec, r *wire.TaskResult) string {
	switch r.GetFailure() {
	case wire.FailureKind_FAILURE_KIND_EXIT:
		return fmt.Sprintf("exit status %d", r.GetExitCode())
	case wire.FailureKind_FAILURE_KIND_TRAP:
		return "trap"
	case wire.FailureKind_FAILURE_KIND_TIMEOUT:
		return fmt.Sprintf("time limit of %v exceeded", time.Duration(spec.GetTimeoutMs())*time.Millisecond)
	case wire.FailureKind_FAILURE_KIND_MEMORY:
		return fmt.Sprintf("memory limit of %d MiB exceeded", spec.GetMemoryMib())
	case wire.FailureKind_FAILURE_KIND_OUTPUT:
		return fmt.Sprintf("output limit of %d MiB exceeded", spec.GetMaxOutputBytes()>>20)
	}
	return "the device could not run the task"
}

// firstCharacters returns the first n characters of s, as valid UTF-8: protobuf
// sends no other strings.
func firstCharacters(s string, n int) string {
	if len(s) <= n && utf8.ValidString(s) {
		return s
	}
	runes := []rune(s)
	return string(runes[:min(n, len(runes))])
}
