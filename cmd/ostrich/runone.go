package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) runCommand() *cobra.Command {
	var f specFlags
	cmd := &cobra.Command{
		Use:   "run PROG [FLAGS] [-- ARGS]",
		Short: "Run a program once, somewhere in the swarm: stdin to stdout",

		DisableFlagsInUseLine: true,
		Long: `Runs a WebAssembly (WASI preview 1) command once, on some machine of the swarm,
with what comes on stdin here, and puts its output on stdout when it has ended.

Exit status: the program's own; 124 when it took too long, 137 when it passed
another bound, 134 when it trapped, 125 when Ostrich itself could not do it.`,
		Example: `  echo hello | ostrich run builtin:upper
  ostrich run prime.wasm --timeout 1h -- 1000003`,
		Args: func(cmd *cobra.Command, args []string) error {
			before, _ := split(cmd, args)
			switch {
			case len(before) == 0:
				return fmt.Errorf("run needs a PROG: a file, or builtin:NAME")
			case len(before) > 1:
				return fmt.Errorf("unexpected argument %q: the program's own arguments follow --", before[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, after := split(cmd, args)
			return ofOstrich(cmd.Context(), a.runOne(cmd.Context(), &f, before[0], after))
		},
	}
	f.add(cmd, 0)
	return cmd
}

// ofOstrich keeps what went wrong before the program ran apart from the
// program's own status.
func ofOstrich(ctx context.Context, err error) error {
	var exit *exitError
	if status, _ := exitStatus(ctx, err); status != exitFailed || errors.As(err, &exit) {
		return err
	}
	return &exitError{exitOstrich, err}
}

func (a *app) runOne(ctx context.Context, f *specFlags, prog string, args []string) error {
	if f.detach && f.json {
		return usagef("--detach does not wait for the output that --json would show")
	}
	spec, err := f.spec(args)
	if err != nil {
		return err
	}
	spec.Single = true
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	o := control.MapOptions{
		Spec: spec, JobID: wire.JobID(f.id), Resume: f.id != "",
		Inputs: whole(pump(reading, a.in)), StopInputs: stopReading,
	}
	return a.withNode(func(c *control.Client) error {
		if spec.Program, err = a.program(ctx, c, prog); err != nil {
			return err
		}
		if f.detach {
			return a.detach(ctx, c, o)
		}
		w, err := a.newResultWriter(f.json, "")
		if err != nil {
			return err
		}
		w.raw = true
		if err := a.follow(ctx, c, o, w); err != nil {
			return err
		}
		return a.taskStatus(w)
	})
}

// taskStatus ends a run as its program ended.
func (a *app) taskStatus(w *resultWriter) error {
	r := w.last
	if r == nil {
		return nil
	}
	if w.json {
		return &exitError{status: statusOf(r)}
	}
	for _, line := range stderrLines(r) {
		fmt.Fprintln(a.err, w.printable(line))
	}
	if r.GetFailure() == wire.FailureKind_FAILURE_KIND_EXIT {
		return &exitError{status: statusOf(r)}
	}
	return &exitError{statusOf(r), errors.New(r.GetError())}
}

// whole yields all of r as one input.
func whole(r io.Reader) inputs {
	return func(yield func(control.Input, error) bool) {
		var all spool
		defer all.reset()
		if _, err := io.Copy(&all, r); err != nil {
			yield(control.Input{}, err)
			return
		}
		yield(all.input(all.size), nil)
	}
}
