package main

import "github.com/spf13/cobra"

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes this program's command lines",
		Example: `  ostrich completion bash > /etc/bash_completion.d/ostrich
  ostrich completion fish > ~/.config/fish/completions/ostrich.fish`,
		ValidArgs: shells,
		Args:      cobra.MatchAll(exactArgs(1, "the name of a shell: bash, zsh, fish or powershell"), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.out, true)
			default:
				return cmd.Root().GenPowerShellCompletionWithDesc(a.out)
			}
		},
	}
}
