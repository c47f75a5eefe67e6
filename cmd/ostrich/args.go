package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagsLast moves the flags before "--" behind the other arguments, so that
// they may stand anywhere, before the name of a command too. A flag's name
// takes a value in all commands or in none.
func flagsLast(root *cobra.Command, args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], "__") {
		return args // shells ask for completions
	}
	valued := map[string]bool{}
	eachFlag(root, func(f *pflag.Flag) {
		valued["--"+f.Name] = f.NoOptDefVal == ""
		if f.Shorthand != "" {
			valued["-"+f.Shorthand] = f.NoOptDefVal == ""
		}
	})
	words, flags := []string{}, []string{} // of none, not nil: cobra takes that for the process's own
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return append(append(words, flags...), args[i:]...)
		case len(arg) < 2 || arg[0] != '-':
			words = append(words, arg)
		case valued[arg] && i+1 < len(args):
			flags = append(flags, arg, args[i+1])
			i++
		default:
			flags = append(flags, arg)
		}
	}
	return append(words, flags...)
}

// eachFlag calls f for each flag of a command and those below it.
func eachFlag(cmd *cobra.Command, f func(*pflag.Flag)) {
	cmd.Flags().VisitAll(f)
	cmd.PersistentFlags().VisitAll(f)
	for _, c := range cmd.Commands() {
		eachFlag(c, f)
	}
}

// split parts a command's arguments at "--".
func split(cmd *cobra.Command, args []string) (before, after []string) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:]
	}
	return args, nil
}
