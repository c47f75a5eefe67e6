package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// mapFlags are the flags of map.
type mapFlags struct {
	specFlags
	inputFlags
	ordered     bool
	unordered   bool
	out         string
	keepGoing   bool
	maxInFlight uint32
}

func (a *app) mapCommand() *cobra.Command {
	var f mapFlags
	cmd := &cobra.Command{
		Use:   "map PROG [FLAGS] [PATH...] [-- ARGS]",
		Short: "Run a program once for each input, on all machines",

		DisableFlagsInUseLine: true,
		Long: `Runs a WebAssembly (WASI preview 1) command once for each input, on the machines
of the swarm: the input is its stdin, and its stdout goes to stdout here, in the
order of the inputs, each followed by a newline if it does not end in one.

PROG is a file, or builtin:NAME. The inputs are the lines of stdin, each with its
newline, unless --null, --chunk, --range, --files or --files-from says otherwise.
With --null an input is what stands before a zero byte, without it. Each task has
its number, from 0, in OSTRICH_INDEX. A failed task prints nothing on stdout; its
stderr comes on stderr, after "task INDEX: ".

Ctrl-C cancels the job. A map that was cut off otherwise goes on with the same
command, if it had an --id; its job is kept for a day after its end, or until
"ostrich job rm ID". Exit status: 0, or 3 when some tasks failed.`,
		Example: `  ostrich map builtin:upper < words.txt
  ostrich map render.wasm --range 1..500 --out frames -- --width 640
  ostrich map builtin:wordcount --files src
  find . -name '*.log' -print | ostrich map grep.wasm --files-from - -- error
  ostrich map sim.wasm --range 1..1000000 --detach --keep 30d`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("map needs a PROG: a file, or builtin:NAME")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, after := split(cmd, args)
			if len(before) == 0 {
				return usagef("map needs a PROG before --")
			}
			return a.runMap(cmd.Context(), &f, before, after)
		},
	}
	f.specFlags.add(cmd, wire.DefaultRetries)
	f.inputFlags.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.ordered, "ordered", false, "outputs in the order of the inputs (the default)")
	flags.BoolVar(&f.unordered, "unordered", false, "outputs as they come")
	flags.StringVar(&f.out, "out", "", "write each output to a file `DIR`/INDEX instead of stdout")
	flags.BoolVar(&f.keepGoing, "keep-going", false, "go on when a task has failed for good")
	flags.Uint32Var(&f.maxInFlight, "max-in-flight", 0, "tasks that run at one time, at most `N` (default: as many as the devices take)")
	return cmd
}

// runMap runs PROG, words[0], over inputs.
func (a *app) runMap(ctx context.Context, f *mapFlags, words, args []string) error {
	if f.ordered && f.unordered {
		return usagef("give one of --ordered and --unordered")
	}
	if f.detach && (f.out != "" || f.json) {
		return usagef("--detach does not wait for outputs; read them later with: ostrich job results -f ID")
	}
	spec, err := f.spec(args)
	if err != nil {
		return err
	}
	spec.KeepGoing, spec.MaxInFlight = f.keepGoing, f.maxInFlight
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	source, err := f.source(reading, a.in, words[1:])
	if err != nil {
		return err
	}
	o := control.MapOptions{
		Spec: spec, JobID: wire.JobID(f.id), Resume: f.id != "", Inputs: source, StopInputs: stopReading, Unordered: f.unordered,
	}
	return a.withNode(func(c *control.Client) error {
		if spec.Program, err = a.program(ctx, c, words[0]); err != nil {
			return err
		}
		if f.detach {
			return a.detach(ctx, c, o)
		}
		w, err := a.newResultWriter(f.json, f.out)
		if err != nil {
			return err
		}
		return a.follow(ctx, c, o, w)
	})
}

// detach feeds a job and leaves it to the swarm.
func (a *app) detach(ctx context.Context, c *control.Client, o control.MapOptions) error {
	p := a.newProgress()
	defer p.end()
	p.options(&o)
	var failed error
	o.Submitted = func(j *wire.Job) {
		failed = p.around(func() error {
			_, err := fmt.Fprintln(a.out, j.GetId())
			return err
		})
	}
	if _, err := c.Map(ctx, o); err != nil {
		return resumable(err, o)
	}
	return failed
}

// follow feeds a job, puts its results out, and says how it ended.
func (a *app) follow(ctx context.Context, c *control.Client, o control.MapOptions, w *resultWriter) error {
	if o.JobID == "" {
		o.JobID = wire.NewJobID()
	}
	p := a.newProgress()
	p.options(&o)
	w.aside = p.around
	o.Result = func(r *wire.TaskResult, output io.Reader) error { return w.write(r, output) }
	job, err := c.Map(ctx, o)
	p.end()
	if err != nil {
		return resumable(err, o)
	}
	if w.raw && w.failed > 0 {
		// A run: its one task is all there is to say.
		a.acknowledge(ctx, c, o)
		return nil
	}
	outcome := jobOutcome(job, w.failed)
	switch {
	case outcome == nil:
		a.acknowledge(ctx, c, o)
	case o.Resume && job.GetState() == wire.JobState_JOB_STATE_CANCELLED:
		outcome = fmt.Errorf("%w; to begin anew, give another --id, or first say: ostrich job rm %s", outcome, o.JobID)
	}
	return outcome
}

// acknowledge frees the swarm of a job whose results are safe here. That it
// fails costs space for a day and is nobody's concern. A job that was given an
// ID stays that long: the same command attaches to it, another is refused.
func (a *app) acknowledge(ctx context.Context, c *control.Client, o control.MapOptions) {
	if o.Resume {
		return
	}
	if err := c.Acknowledge(ctx, o.JobID); err != nil && !control.Transient(err) && ctx.Err() == nil && wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
		a.notice("job %s is done, but the swarm still keeps it: %v", o.JobID.Short(), err)
	}
}

// resumable adds to an error that may pass how to go on.
func resumable(err error, o control.MapOptions) error {
	if !control.Transient(err) {
		return err
	}
	if !o.Resume {
		return err
	}
	return fmt.Errorf("%w (the same command goes on where it was, with --id %s)", err, o.JobID)
}

// statusOf is the exit status of a failed task's program.
func statusOf(r *wire.TaskResult) int {
	switch r.GetFailure() {
	case wire.FailureKind_FAILURE_KIND_EXIT:
		if code := r.GetExitCode(); code >= 1 && code <= math.MaxUint8 {
			return int(code)
		}
		return math.MaxUint8
	case wire.FailureKind_FAILURE_KIND_TIMEOUT:
		return exitTime
	case wire.FailureKind_FAILURE_KIND_MEMORY, wire.FailureKind_FAILURE_KIND_OUTPUT:
		return exitBound
	case wire.FailureKind_FAILURE_KIND_TRAP:
		return exitTrap
	default:
		return exitOstrich
	}
}
