package commands

import (
	"io"

	"github.com/spf13/cobra"
)

// Tree is every command with its flags and texts, for those who describe them: the manual. Its commands are not to be
// executed.
func Tree() *cobra.Command {
	return (&commands{App: &App{Out: io.Discard, Err: io.Discard}, out: io.Discard}).rootCommand()
}
