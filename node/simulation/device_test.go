package simulation

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// device is a process of a machine that only works.
type device struct {
	worker *worker.Worker
	parts  parts
}

func startDevice(m *machine) (*device, error) {
	d, dialer := &device{}, newDialer(m)
	var err error
	d.worker, err = worker.New(worker.Config{
		Link: dialer.link(dialer.dial), Slots: m.slots, Sandbox: m.sandbox(), Dir: m.dir,
	})
	if err != nil {
		return nil, err
	}
	d.parts.start(d.worker.Run)
	return d, nil
}

func (d *device) link() *worker.Link { return d.worker.Link() }
func (d *device) kill()              { d.parts.endAll() }
func (d *device) quit()              { d.parts.endInTurn() }

// Inputs begin with a letter that says what their task does.
const (
	plain = 'P' // takes 20 to 95 ms: all slots together can do twice what is offered
	flaky = 'F' // fails the first two times it runs
	large = 'L' // has an output that does not fit in a frame
	slow  = 'S' // takes a few seconds
)

// largeOutput is the size of an output that travels in a page.
const largeOutput = sandbox.InlineOutput + 16<<10

// output is what the task with this input must give in a job.
func output(job string, input []byte) []byte {
	sum := wire.HashOf(append([]byte(job+"\n"), input...))
	text := []byte(hex.EncodeToString(sum[:]))
	if input[0] == large {
		text = bytes.Repeat(text, largeOutput/len(text))
	}
	return text
}

// fakeSandbox runs the one program that the simulation knows.
type fakeSandbox struct {
	ledger *ledger
	places chan struct{}
}

// sandbox is what runs programs on the machine.
func (m *machine) sandbox() worker.Sandbox {
	if make := m.swarm.options.sandbox; make != nil {
		return make(m)
	}
	return newSandbox(m)
}

func newSandbox(m *machine) *fakeSandbox {
	return &fakeSandbox{ledger: m.swarm.ledger, places: make(chan struct{}, m.slots)}
}

func (s *fakeSandbox) Run(ctx context.Context, program sandbox.Program, tasks []sandbox.Task, done func(int, sandbox.Result)) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.places }()
	for i, t := range tasks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := nameOf(t.Env)
		needed := 1
		if t.Stdin[0] == flaky {
			needed = 3
		}
		run := s.ledger.ran(name, needed)
		took := 20*time.Millisecond + time.Duration(len(t.Stdin)%16)*5*time.Millisecond
		if t.Stdin[0] == slow {
			took = time.Duration(2+len(t.Stdin)%4) * time.Second
		}
		if err := sleep(ctx, took); err != nil {
			return err
		}
		result := sandbox.Result{Duration: took}
		if run < needed {
			result.ExitCode = 1
		} else if err := write(&result, t, output(name.job, t.Stdin)); err != nil {
			return err
		}
		done(i, result)
	}
	return nil
}

func write(r *sandbox.Result, t sandbox.Task, out []byte) error {
	r.StdoutSize = uint64(len(out))
	if len(out) <= sandbox.InlineOutput {
		r.Stdout = out
		return nil
	}
	r.StdoutPath = t.OutputPath
	return os.WriteFile(t.OutputPath, out, 0o600)
}

// task names one task; job is the incarnation of the job, see jobPlan.
type task struct {
	job   string
	index uint32
}

func nameOf(env []string) (name task) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "JOB="); ok {
			name.job = v
		}
		if v, ok := strings.CutPrefix(e, "OSTRICH_INDEX="); ok {
			n, _ := strconv.ParseUint(v, 10, 32) // the worker writes no other
			name.index = uint32(n)
		}
	}
	return name
}
