package commands

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/printable"
)

// completionTimeout keeps a shell from hanging at the TAB key.
const completionTimeout = time.Second

func (c *commands) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print the completion script of a shell",
		Example:   "  ringwall completion bash > /etc/bash_completion.d/ringwall",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      takesArgs(1, 1, "one shell: bash, zsh, fish or powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.out)
			}
			return usageErrorf(usageLine(cmd), "there is no completion for %q", printable.String(args[0]))
		},
	}
}
