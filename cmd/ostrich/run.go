package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ostrich-legs/ostrich/node/control"
)

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	dataDir  string
}

// run is the whole program but signals: it returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: outputWriter{ctx, out}, err: errOut}
	root := a.root()
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(flagsLast(root, args))
	root.SetIn(in)
	root.SetOut(a.out)
	root.SetErr(errOut)
	called, err := root.ExecuteContextC(ctx)
	if err != nil && !started && !errors.Is(err, errOutputClosed) {
		err = &usageError{err}
	}
	status, message := exitStatus(ctx, err)
	if message != "" {
		fmt.Fprintf(errOut, "ostrich: %s\n", message)
	}
	if status == exitUsage {
		fmt.Fprintf(errOut, "Try: %s --help\n", called.CommandPath())
	}
	return status
}

const (
	groupNode  = "node"
	groupWork  = "work"
	groupSwarm = "swarm"
	groupOther = "other"
)

// root returns the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ostrich",
		Short: "Run WebAssembly programs on all your machines",
		Long: `Ostrich makes one computer of the machines that you trust: it runs a WebAssembly
(WASI preview 1) program over many inputs on all of them.

  ostrich demo                                  see it work, on this machine alone
  ostrich up                                    start this machine's node
  ostrich invite --role member                  let another machine in
  ostrich map builtin:upper < words.txt         one task for each line`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 1, // of short names, two letters make any of any
	}
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupNode, Title: "This machine:"},
		&cobra.Group{ID: groupWork, Title: "Work:"},
		&cobra.Group{ID: groupSwarm, Title: "The swarm:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	root.SetHelpCommand(helpCommand())
	root.PersistentFlags().StringVar(&a.dataDir, "data", "", "the `DIR` of this machine's node (default: OSTRICH_DATA, or ostrich in your config folder)")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupNode, a.upCommand(), a.joinCommand(), a.downCommand(), a.leaveCommand(), a.statusCommand(), a.doctorCommand())
	add(groupWork, a.runCommand(), a.mapCommand(), a.jobsCommand(), a.jobCommand())
	add(groupSwarm, a.inviteCommand(), a.devicesCommand(), a.deviceCommand(), a.logsCommand(), a.recoverCommand())
	add(groupOther, a.demoCommand(), a.versionCommand(), a.completionCommand())
	return root
}

// folder returns the data folder that is meant.
func (a *app) folder() (string, error) {
	dir := a.dataDir
	if dir == "" {
		dir = os.Getenv("OSTRICH_DATA")
	}
	if dir != "" {
		return dir, nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the node's data (say --data DIR): %w", err)
	}
	return filepath.Join(config, "ostrich"), nil
}

// dial returns a client of this machine's node.
func (a *app) dial() (*control.Client, error) {
	dir, err := a.folder()
	if err != nil {
		return nil, err
	}
	c, err := control.Dial(dir)
	if errors.Is(err, control.ErrNoNode) && a.dataDir != "" {
		err = fmt.Errorf("%w --data %s", err, a.dataDir) // it ends in the command that starts one
	}
	return c, err
}

// withNode calls f with a client of this machine's node.
func (a *app) withNode(f func(*control.Client) error) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// notice tells the person something, beside the output.
func (a *app) notice(format string, args ...any) {
	fmt.Fprintf(a.err, "ostrich: "+format+"\n", args...)
}

// isTerminal reports whether a stream is one that a person sits at.
func isTerminal(stream any) bool {
	if o, ok := stream.(outputWriter); ok {
		stream = o.w
	}
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
