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
	"github.com/ringwall/ringwall/pkg/spelling"
)

// usageError is a command line that makes no sense: exit code 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(try, format string, args ...any) error {
	return &usageError{hint.Errorf(try, format, args...)}
}

// asUsage is for values on the command line that the package api has read.
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

// journalError is printError for systemd's journal: one line a failure, with what to try, as an error of syslog(3).
func journalError(w io.Writer, err error) {
	var b strings.Builder
	printError(&b, err)
	for line := range strings.Lines(strings.ReplaceAll(b.String(), "\nTry: ", ". Try: ")) {
		fmt.Fprintf(w, "<3>%s", line)
	}
}

// noSuchCommand is the Args of a command that only holds others.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	try := cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		try = cmd.CommandPath() + " " + near[0]
	}
	return usagef(try, "there is no command %q", cmd.CommandPath()+" "+printable.String(args[0]))
}

// takes is the Args of a command with arguments: how many, and what they are.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(useLine(cmd), "%s needs %s", cmd.CommandPath(), what)
		case len(args) > most && most == 0:
			return usagef(useLine(cmd), "%s takes no arguments, and there is %q", cmd.CommandPath(),
				printable.String(args[0]))
		case len(args) > most:
			return usagef(useLine(cmd), "%s takes %s, and then there is %q", cmd.CommandPath(), what,
				printable.String(args[most]))
		}
		return nil
	}
}

// useLine is what to type, such as "ringwall why ADDR".
func useLine(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

func wrongFlag(cmd *cobra.Command, err error) error {
	try := cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.LocalFlags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		if near := spelling.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			try = cmd.CommandPath() + " --" + near
		}
		return usagef(try, "%s has no flag --%s", cmd.CommandPath(), printable.String(unknown.GetSpecifiedName()))
	}
	return usagef(try, "%s", printable.Limit(err.Error(), 200))
}
