package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// builtin is how PROG names a program that Ostrich brings along.
	builtin = "builtin:"
	// putPatience is how long storing a program is tried while the swarm has no
	// coordinator; the node itself waits in each try.
	putPatience = 5 * time.Second
)

// specFlags are the flags that run and map share.
type specFlags struct {
	env       []string
	retries   uint32
	timeout   durationFlag
	memory    mibFlag
	maxOutput mibFlag
	priority  int32
	require   []string
	detach    bool
	keep      durationFlag
	id        string
	json      bool
}

func (f *specFlags) add(cmd *cobra.Command, retries uint32) {
	f.timeout.v, f.memory.v, f.maxOutput.v = wire.DefaultTimeout, wire.DefaultMemoryMiB, wire.DefaultMaxOutput>>20
	f.keep.v = wire.DefaultKeep
	flags := cmd.Flags()
	flags.StringArrayVar(&f.env, "env", nil, "put `K=V` into the environment (again for more)")
	flags.Uint32Var(&f.retries, "retries", retries, "`N` further attempts after a failed one")
	flags.Var(&f.timeout, "timeout", "time that a task may take, such as 90s or 1h")
	flags.Var(&f.memory, "memory", "memory that a task may use, in `MiB`")
	flags.Var(&f.maxOutput, "max-output", "output that a task may write, in `MiB`")
	flags.Int32Var(&f.priority, "priority", 0, "jobs of a higher `P` go first")
	flags.StringArrayVar(&f.require, "require", nil, "only on devices that are `native|browser|gpu|K=V` (again for more)")
	flags.BoolVar(&f.detach, "detach", false, "print the job's ID and do not wait; see: ostrich job results -f ID")
	flags.Var(&f.keep, "keep", "how long a detached job is kept after its end")
	flags.StringVar(&f.id, "id", "", "the job's `ID`; the same again, with the same flags, goes on where it was")
	flags.BoolVar(&f.json, "json", false, "print an object for each task")
}

// spec returns what the flags say, without the program.
func (f *specFlags) spec(args []string) (*wire.JobSpec, error) {
	env, err := environment(f.env)
	if err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &wire.JobSpec{
		Args: args, Env: env, Retries: f.retries, TimeoutMs: max(1, f.timeout.v.Milliseconds()),
		MemoryMib: uint32(f.memory.v), MaxOutputBytes: f.maxOutput.v << 20, Priority: f.priority,
		Detached: f.detach,
	}
	if f.detach {
		s.KeepMs = f.keep.v.Milliseconds()
	}
	for _, r := range f.require {
		if s.Require == nil {
			s.Require = &wire.Requirements{}
		}
		if err := require(s.Require, r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// check refuses what no job may have.
func (f *specFlags) check() error {
	switch {
	case f.retries > wire.MaxRetries:
		return usagef("--retries %d: at most %d", f.retries, wire.MaxRetries)
	case f.timeout.v > wire.MaxTimeout:
		return usagef("--timeout %s: at most %s", &f.timeout, &durationFlag{wire.MaxTimeout})
	case f.memory.v > wire.MaxMemoryMiB:
		return usagef("--memory %d: at most %d MiB", f.memory.v, wire.MaxMemoryMiB)
	case f.maxOutput.v > wire.MaxBlob>>20:
		return usagef("--max-output %d: at most %d MiB", f.maxOutput.v, wire.MaxBlob>>20)
	case f.keep.v > wire.MaxKeep:
		return usagef("--keep %s: at most %s", &f.keep, &durationFlag{wire.MaxKeep})
	case slices.Contains(f.require, "native") && slices.Contains(f.require, "browser"):
		return usagef("--require: no device is both native and a browser")
	case f.id != "":
		if err := wire.JobID(f.id).Check(); err != nil {
			return usagef("--id %s: %w", f.id, err)
		}
	}
	return nil
}

// environment returns what --env gives: of a name that is given twice the last.
func environment(pairs []string) (env []string, err error) {
	for _, pair := range pairs {
		key, _, err := parsePair(pair, "K=V, as --env wants it")
		if err != nil {
			return nil, &usageError{err}
		}
		if key == "OSTRICH_INDEX" {
			return nil, usagef("--env %s: OSTRICH_INDEX is the number of the input, which every task is told", pair)
		}
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		env = append(env, pair)
	}
	return env, nil
}

func require(to *wire.Requirements, what string) error {
	switch what {
	case "native":
		to.Native = true
	case "browser":
		to.Browser = true
	case "gpu":
		to.Gpu = true
	default:
		k, v, err := parsePair(what, "native, browser, gpu or K=V")
		if err != nil {
			return usagef("--require: %w", err)
		}
		if to.Labels == nil {
			to.Labels = map[string]string{}
		}
		to.Labels[k] = v
	}
	return nil
}

// program opens what PROG names and gives it to the node.
func (a *app) program(ctx context.Context, c *control.Client, prog string) (*wire.Program, error) {
	module, name, err := openProgram(prog)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	var p *wire.Program
	err = control.Patience{Limit: putPatience}.Retry(ctx, func(ctx context.Context) error {
		if _, err := module.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("the program cannot be read: %w", err)
		}
		p, err = c.PutProgram(ctx, name, module)
		return err
	})
	if wire.CodeOf(err) == wire.Code_CODE_INVALID {
		err = fmt.Errorf("the program %s: %w", prog, err)
	}
	return p, err
}

// openProgram returns a program's bytes and its base name.
func openProgram(prog string) (io.ReadSeekCloser, string, error) {
	if name, ok := strings.CutPrefix(prog, builtin); ok {
		module, ok := programs.Get(name)
		if !ok {
			return nil, "", fmt.Errorf("there is no program %s; there are: %s", prog, strings.Join(programs.Names(), ", "))
		}
		return nopCloser{bytes.NewReader(module)}, name, nil
	}
	info, err := os.Stat(prog)
	if err != nil {
		return nil, "", fmt.Errorf("the program cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, "", fmt.Errorf("the program %s is not a file", prog)
	}
	f, err := os.Open(prog)
	if err != nil {
		return nil, "", fmt.Errorf("the program cannot be read: %w", err)
	}
	return f, filepath.Base(prog), nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }
