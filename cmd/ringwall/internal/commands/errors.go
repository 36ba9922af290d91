package commands

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

// usageError is a command line that makes no sense: exit code 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usageErrorf(try, format string, args ...any) error {
	return &usageError{hint.Errorf(try, format, args...)}
}

// asUsage makes a usageError of what the package api says of a value on the command line.
func asUsage(err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return &usageError{e}
	}
	return err
}

// printError writes what and why, and on a line of its own what to try.
func printError(w io.Writer, err error) {
	var config config.Errors
	if errors.As(err, &config) {
		for _, e := range config {
			fmt.Fprintln(w, printable.Line(e.Error()))
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "ringwall: %s\n", printable.Line(strings.TrimSuffix(line, "\n")))
	}
	if try := hint.Of(err); try != "" {
		fmt.Fprintf(w, "Try: %s\n", printable.Line(try))
	}
}

// printJournalError is printError for systemd's journal: one line a failure, with what to try, as an error of
// syslog(3).
func printJournalError(w io.Writer, err error) {
	var b strings.Builder
	printError(&b, err)
	for line := range strings.Lines(strings.ReplaceAll(b.String(), "\nTry: ", ". Try: ")) {
		fmt.Fprintf(w, "<3>%s", line)
	}
}

// noSuchCommand is the Args of a command that only has subcommands: an argument is a mistyped one.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	try := cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		try = cmd.CommandPath() + " " + near[0]
	}
	return usageErrorf(try, "there is no command %q", cmd.CommandPath()+" "+printable.String(args[0]))
}

// takesArgs is the Args of a command with from least to most arguments; what names them in errors.
func takesArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageErrorf(usageLine(cmd), "%s needs %s", cmd.CommandPath(), what)
		case len(args) > most && most == 0:
			return usageErrorf(usageLine(cmd), "%s takes no arguments, and there is %q", cmd.CommandPath(),
				printable.String(args[0]))
		case len(args) > most:
			return usageErrorf(usageLine(cmd), "%s takes %s, and then there is %q", cmd.CommandPath(), what,
				printable.String(args[most]))
		}
		return nil
	}
}

// usageLine is how the command is typed, such as "ringwall why ADDR".
func usageLine(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

// flagError makes a usageError of what cobra says of a flag, with the flag that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	try := cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.LocalFlags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		if near := hint.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			try = cmd.CommandPath() + " --" + near
		}
		return usageErrorf(try, "%s has no flag --%s", cmd.CommandPath(), printable.String(unknown.GetSpecifiedName()))
	}
	return usageErrorf(try, "%s", printable.Limit(err.Error(), 200))
}
