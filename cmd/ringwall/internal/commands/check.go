package commands

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

type checkResult struct {
	File     string          `json:"file"`
	OK       bool            `json:"ok"`
	Errors   []configMistake `json:"errors"`
	Warnings []configMistake `json:"warnings"`
}

type configMistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key"`
	What    string `json:"what"`
	Value   string `json:"value,omitempty"`
	Allowed string `json:"allowed,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

func (c *commands) checkCommand() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration",
		Long: `Read the configuration as the service would, and name every mistake with its line. For root, that is with
the rights of the service's user. The daemon is not asked.`,
		Args: takesArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			if show && c.json {
				return usageErrorf("one of them", "--print writes YAML, and --json wants JSON")
			}
			env, _, err := c.serviceEnvironment()
			if err != nil {
				return err
			}
			config, warnings, err := config.Load(c.config, env)
			_, places := c.readGeo(config)
			warnings = append(warnings, places...)
			if c.json {
				return errors.Join(c.writeJSON(newCheckResult(c.config, warnings, err)), err)
			}
			for _, w := range warnings {
				fmt.Fprintln(c.Err, "warning: "+printable.Line(w.String()))
			}
			if err != nil {
				return err
			}
			if show {
				return config.Print(c.out)
			}
			c.sayf("%s is right: %s, policy %s, %s.", c.config,
				humanize.Plural(len(config.Asterisk), "Asterisk", "Asterisks"),
				config.Policy.Mode, humanize.Plural(len(warnings), "warning", "warnings"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&show, "print", false,
		"write every value in effect, defaults included, with its meaning; no secrets")
	return cmd
}

func newCheckResult(file string, warnings []config.Warning, err error) checkResult {
	res := checkResult{File: file, OK: err == nil, Errors: []configMistake{}, Warnings: []configMistake{}}
	var errs config.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			res.Errors = append(res.Errors, configMistake{e.File, e.Line, e.Column, e.Key, e.What, e.Value, e.Allowed,
				e.Try})
		}
	}
	for _, w := range warnings {
		res.Warnings = append(res.Warnings, configMistake{w.File, w.Line, w.Column, w.Key, w.What, w.Value, "", w.Try})
	}
	return res
}
