package commands

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/doctor"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// doctorResult is the answer to doctor --json.
type doctorResult struct {
	OK     bool           `json:"ok"`
	Checks []doctor.Check `json:"checks"`
}

func (c *commands) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Prove that it works, from Asterisk to the kernel",
		Long: `Try each link of the chain, and say how to mend what is broken: configuration, login to Asterisk,
security events that really arrive, a test ban in the kernel and out again, state, clock, and who could be locked out.
It takes some seconds and changes nothing that lasts. Run it as root, with or without a running daemon.`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, p, err := c.doctorOptions()
			if err != nil {
				return err
			}
			if !c.json {
				o.Report = p.Print
			}
			list := doctor.Examine(cmd.Context(), o)
			if c.json {
				err = c.writeJSON(doctorResult{OK: doctor.Passed(list), Checks: list})
			} else {
				p.PrintSummary(list)
			}
			if !doctor.Passed(list) {
				err = errors.Join(err, errors.New("not everything works: "+failedChecks(list)))
			}
			return err
		},
	}
}

// doctorOptions are what to examine, and how it is shown.
func (c *commands) doctorOptions() (doctor.Options, doctor.Printer, error) {
	o := doctor.Options{ConfigPath: c.config, Env: c.Env, Socket: c.socket}
	p := doctor.Printer{W: c.out, UTF8: c.showsUTF8(), Colour: c.Columns > 0 && c.envVariable("NO_COLOR") == "",
		Columns: c.Columns}
	env, user, err := c.serviceEnvironment()
	if user != nil {
		o.Service, o.ServiceEnv = user.Name, env
	}
	return o, p, err
}

// failedChecks names the first links that failed.
func failedChecks(list []doctor.Check) string {
	var failed []string
	for _, c := range list {
		name := strings.TrimSpace(c.About + " " + c.Name)
		if c.Result == doctor.Fail && (len(failed) == 0 || failed[len(failed)-1] != name) {
			failed = append(failed, name)
		}
	}
	return humanize.Names(failed, 5)
}

// showsUTF8 follows the locale as setlocale(3) does: the first of the variables that is set.
func (c *commands) showsUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(c.envVariable(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func (c *commands) envVariable(name string) string {
	if c.Env.Lookup == nil {
		return ""
	}
	v, _ := c.Env.Lookup(name)
	return v
}
