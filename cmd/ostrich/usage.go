package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// needsSubcommand is the RunE of a command that only groups others.
func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return usagef("%q needs a command", cmd.CommandPath())
}

// noArgs refuses arguments; where a command has others below it, what stands
// there was to be one of those.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return needsSubcommand(cmd, args)
	}
	return fmt.Errorf("unexpected argument %q: %q takes none", args[0], cmd.CommandPath())
}

// exactArgs wants n arguments; what names them.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%q takes %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

// helpCommand shows the help of a command, and knows one that is none.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Say how a command is used",
		GroupID: groupOther,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q; \"ostrich help\" lists them", strings.Join(args, " "))
			}
			about.InitDefaultHelpFlag() // or the help does not mention it
			return about.Help()
		},
	}
}

// flagError says what is wrong with a flag's value in our words.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	why := invalid.Unwrap()
	var value *strconv.NumError
	if errors.As(why, &value) {
		why = fmt.Errorf("not %s", kindWords(invalid.GetFlag().Value.Type()))
	}
	return fmt.Errorf("--%s %s: %w", invalid.GetFlag().Name, invalid.GetValue(), why)
}

// kindWords says what values a flag of one of the library's types takes.
func kindWords(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "uint32":
		return fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32))
	}
	return "a whole number, or it is too large"
}
