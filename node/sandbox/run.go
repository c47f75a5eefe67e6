package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// windowTasks and windowBytes bound what is sent ahead to a child.
	windowTasks = 256
	windowBytes = 1 << 20
)

// Run takes one slot, for which it waits, runs the tasks there in their order,
// and calls done for each as it ends, in order, on the caller's goroutine. The
// clock of the next task begins when done returns. A task that breaks a bound,
// or its child, fails alone. A Result shares no memory with the pool.
//
// A task whose child breaks for a reason that is not the task's runs again in a
// new one.
//
// The error is ctx's when that ends, which kills what runs; CODE_UNAVAILABLE
// when the pool is closed, or unwell; CODE_INTERNAL when no child can be started.
// The tasks for which done was not called have no result then. A program that
// cannot run fails each task.
func (p *Pool) Run(ctx context.Context, prog Program, tasks []Task, done func(i int, r Result)) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.users.Done()
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	if err := p.well(); err != nil {
		return err
	}
	b := &batch{pool: p, prog: prog, tasks: tasks, done: done, armed: -1}
	defer b.watch.stop()
	for b.next < len(tasks) {
		if err := b.attach(ctx); err != nil {
			return err
		}
		err := b.work()
		if err == nil {
			return b.detach()
		}
		if err := b.broken(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// batch is one call of Run.
type batch struct {
	pool  *Pool
	prog  Program
	tasks []Task
	done  func(int, Result)
	watch watch

	next  int // the task whose result comes next
	sent  int // tasks [next, sent) have been sent
	bytes int // of them
	armed int // the task for which the watch runs
	sizes []int

	child     *child
	warm      bool // the child was idle before, and has not answered since
	compiling bool
	fresh     bool // the next child must be a new one
	renewed   bool // the one that compiled the program was replaced
	uncancel  func() bool
}

// attach gets a child.
func (b *batch) attach(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, warm, err := b.pool.take(b.prog.Hash, b.fresh)
	if err != nil && b.pool.prove(ctx, err.Error()) == nil {
		c, warm, err = b.pool.take(b.prog.Hash, b.fresh)
	}
	if err != nil {
		return err
	}
	b.fresh = false
	b.child, b.warm, b.compiling = c, warm, false
	b.sent, b.bytes, b.armed, b.sizes = b.next, 0, -1, b.sizes[:0]
	b.uncancel = context.AfterFunc(ctx, c.kill)
	c.last = b.prog.Hash
	c.buf = appendFrame(c.buf[:0], frameProgram, string(b.prog.Hash[:]), b.prog.Path)
	return nil
}

// detach gives the child back.
func (b *batch) detach() error {
	b.watch.stop()
	if b.uncancel() {
		b.pool.put(b.child)
	} else {
		b.child.end()
	}
	return nil
}

// bounded returns task i with defaults in place of what it leaves open, and
// what is wrong with it.
func (b *batch) bounded(i int) (Task, error) {
	t := b.tasks[i]
	if t.Timeout <= 0 {
		t.Timeout = wire.DefaultTimeout
	}
	if t.MemoryMiB == 0 {
		t.MemoryMiB = wire.DefaultMemoryMiB
	}
	t.MemoryMiB = min(t.MemoryMiB, wire.MaxMemoryMiB)
	if t.MaxOutput == 0 {
		t.MaxOutput = wire.DefaultMaxOutput
	}
	size := len(t.OutputPath) + len(t.StdinPath)
	for _, list := range [2][]string{t.Args, t.Env} {
		for _, s := range list {
			// A string costs at least its zero byte and its length.
			size += len(s) + 2
			if strings.IndexByte(s, 0) >= 0 {
				return t, errors.New("an argument or environment variable holds a zero byte")
			}
		}
	}
	if size > 3*wire.MaxArgs {
		return t, fmt.Errorf("its arguments and environment have %d bytes: at most %s are allowed", size, bytesText(3*wire.MaxArgs))
	}
	if len(t.Stdin) > MaxInlineInput {
		return t, fmt.Errorf("its input of %d bytes did not come as a file", len(t.Stdin))
	}
	return t, nil
}

// work sends tasks and takes results until all have ended, or until something
// is wrong with the child.
func (b *batch) work() error {
	for b.next < len(b.tasks) {
		t, invalid := b.bounded(b.next)
		if b.armed != b.next && !b.compiling {
			b.armed = b.next
			b.watch.arm(b.child, b.next, phaseRun, t.Timeout)
		}
		if err := b.send(); err != nil {
			return err
		}
		if invalid != nil {
			b.report(internal(invalid.Error()))
			continue
		}
		f, err := readFrame(b.child.r, maxResultFrame)
		if err != nil {
			return err
		}
		if err := b.take(f, &t); err != nil {
			return err
		}
	}
	return nil
}

// send sends tasks ahead, once half of the window is free.
func (b *batch) send() error {
	if b.sent-b.next > windowTasks/2 || (b.sent > b.next && b.bytes > windowBytes/2) {
		return nil
	}
	c := b.child
	for b.sent < len(b.tasks) && b.sent-b.next < windowTasks && (b.sent == b.next || b.bytes < windowBytes) {
		before := len(c.buf)
		if t, invalid := b.bounded(b.sent); invalid == nil {
			c.buf = appendTask(c.buf, &t)
		}
		b.sizes = append(b.sizes, len(c.buf)-before)
		b.bytes += len(c.buf) - before
		b.sent++
	}
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.in.Write(c.buf)
	c.buf = c.buf[:0]
	if cap(c.buf) > 2*windowBytes {
		c.buf = nil
	}
	return err
}

// take takes what the child says; t is the task at the head.
func (b *batch) take(f frame, t *Task) error {
	b.warm = false
	switch f.kind {
	case frameCompiling:
		b.compiling = true
		b.watch.arm(b.child, b.next, phaseCompile, b.pool.compileLimit(b.prog.Path))
	case frameCompiled:
		b.compiling, b.armed = false, -1
		if string(f.body) == conditionWorn && !b.renewed {
			b.renewed = true
			return &spent{}
		}
	case frameSpent:
		return &spent{string(f.body)}
	case frameRefused:
		b.failAll(internal(cut(string(f.body), wire.MaxErrorText)))
	case frameResult:
		res, err := decodeResult(f.body, t)
		if err != nil {
			return err
		}
		b.child.used = true
		b.report(res)
	default:
		return errFrame
	}
	return nil
}

// spent is the end of a child that said so: without a text because it has done
// its part, with one because it is unsound.
type spent struct{ text string }

// Error implements error.
func (s *spent) Error() string { return s.text }

// report hands over the result of the task at the head.
func (b *batch) report(res Result) {
	b.watch.stop()
	i := b.next
	b.next++
	if len(b.sizes) > 0 {
		b.bytes -= b.sizes[0]
		b.sizes = b.sizes[1:]
	}
	b.done(i, res)
}

// failAll fails the tasks that are left.
func (b *batch) failAll(res Result) {
	for b.next < len(b.tasks) {
		b.report(res)
	}
}

// internal is the result of a task that Ostrich itself has failed.
func internal(text string) Result {
	return Result{Failure: wire.FailureKind_FAILURE_KIND_INTERNAL, Error: text}
}

// broken ends a child that is dead, spent, or talks nonsense and finds who is to
// blame. What is left runs on another child, and so does the task at the head if
// it was not that. It was, if a new child broke with it while others work.
func (b *batch) broken(ctx context.Context, cause error) error {
	b.watch.stop()
	c := b.child
	end := c.obituary()
	c.end()
	b.uncancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.pool.isClosed() {
		return errClosed()
	}
	t, _ := b.bounded(b.next)
	fired, task, ph := b.watch.verdict()
	said := (*spent)(nil)
	if errors.As(cause, &said) {
		end = said.text
	}
	byItself := said != nil || !c.killed()
	switch {
	case fired && ph == phaseCompile:
		b.failAll(internal(fmt.Sprintf("the program cannot run: compiling it took longer than %v", b.pool.compileLimit(b.prog.Path))))
	case fired && task == b.next:
		b.blame(&t, Result{Failure: wire.FailureKind_FAILURE_KIND_TIMEOUT, Duration: t.Timeout,
			Error: fmt.Sprintf("it ran longer than its bound of %v", t.Timeout)})
	case fired, b.warm:
		// The clock ran out just as the task ended, or the child died while it
		// had nothing to do: nobody is to blame.
	case said != nil && said.text == "":
		// Nor here.
	case byItself && c.used:
		b.fresh = true
		b.pool.opts.Log.Info("a sandbox child broke and is replaced", "reason", end)
	default:
		if byItself {
			if err := b.pool.prove(ctx, end); err != nil {
				return err
			}
		}
		b.judge(&t, cause, end)
	}
	return nil
}

// judge fails the task at the head, whose new child broke, or all that are left
// if it broke over the program.
func (b *batch) judge(t *Task, cause error, end string) {
	starved := b.child.starved()
	said := (*spent)(nil)
	switch {
	case b.compiling && starved:
		b.failAll(internal("the program cannot run: compiling it takes too much memory"))
	case b.compiling && errors.As(cause, &said):
		b.failAll(internal("the program cannot run: " + end))
	case b.compiling:
		b.failAll(internal("the program cannot run: compiling it broke the sandbox: " + end))
	case errors.As(cause, &said):
		b.blame(t, internal(end))
	case starved:
		b.blame(t, Result{Failure: wire.FailureKind_FAILURE_KIND_MEMORY,
			Error: fmt.Sprintf("it needed more memory than its bound of %d MiB and the sandbox allow", t.MemoryMiB)})
	case errors.Is(cause, errFrame):
		b.blame(t, internal("its sandbox sent nonsense and was ended"))
	default:
		b.blame(t, internal("its sandbox ended: "+end))
	}
}

// blame fails the task at the head, whose child is gone, and removes what it
// left.
func (b *batch) blame(t *Task, res Result) {
	if t.OutputPath != "" {
		_ = os.Remove(t.OutputPath)
	}
	b.pool.opts.Log.Debug("a sandbox child ended with its task", "reason", res.Error)
	b.report(res)
}

func (p *Pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
