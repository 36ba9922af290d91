package commands

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/doctor"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/setup"
)

// setupResult is the answer to setup --json.
type setupResult struct {
	*setup.Plan
	Written bool           `json:"written"` // all of it, now or before
	Checks  []doctor.Check `json:"checks"`
}

// undoResult is the answer to setup --undo --json.
type undoResult struct {
	*setup.Undo
	Done bool `json:"done"`
}

type setupFlags struct {
	yes, dryRun, undo bool
	root, asterisk    string
}

func (c *commands) setupCommand() *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Let Ringwall in at the Asterisk of this machine",
		Long: `Find Asterisk, as Debian, FreePBX, Issabel, Wazo or make install lay it out; show what lets Ringwall in
there, ask, and write it: a manager user with read = security and a random secret, and /etc/ringwall/ringwall.yaml where
there is none. Then Asterisk reads its files (manager reload), and the doctor's checks prove it. Files of others are
never overwritten: where no folder is meant for a file more, two lines of comment and an include between them are
appended to one.

Without a terminal nothing is asked, and nothing is written without --yes. --undo removes what setup wrote, to the byte.
What was changed since stays, and is named.`,
		Example: `  ringwall setup
  ringwall setup --dry-run
  ringwall setup --yes
  ringwall setup --undo`,
		SuggestFor: []string{"install", "init", "configure"},
		Args:       takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.yes && f.dryRun {
				return usageErrorf("one of them", "--yes writes, and --dry-run does not")
			}
			if !filepath.IsAbs(f.root) {
				return usageErrorf("--root /PATH", "--root %q: allowed are absolute paths", f.root)
			}
			o, err := c.setupOptions(f)
			if err != nil {
				return err
			}
			if f.undo {
				return c.undoSetup(cmd.Context(), o, f)
			}
			return c.setUp(cmd.Context(), o, f)
		},
	}
	cmd.Flags().BoolVar(&f.yes, "yes", false, "write it without a question")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only show what it would write")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "remove what setup wrote")
	cmd.Flags().StringVar(&f.asterisk, "asterisk", "", "`FOLDER` of manager.conf, where it is an unusual one")
	cmd.Flags().StringVar(&f.root, "root", "/",
		"`FOLDER` that holds another machine's etc: nothing is reloaded nor proven there")
	return cmd
}

// setupOptions finds out for whom setup writes.
func (c *commands) setupOptions(f setupFlags) (setup.Options, error) {
	o := setup.Options{Root: f.root, Asterisk: f.asterisk, Config: c.config, Env: c.Env, Group: "ringwall"}
	if !filepath.IsAbs(c.config) {
		return o, usageErrorf("--config /PATH", "setup needs the whole path of %s", printable.Line(c.config))
	}
	o.Config = filepath.Clean(c.config)
	if f.root != "/" || c.Service == nil {
		return o, nil
	}
	u, err := c.Service()
	if u != nil {
		o.Group = u.Group
	}
	return o, err
}

func (c *commands) setUp(ctx context.Context, o setup.Options, f setupFlags) error {
	p, err := setup.Prepare(o)
	if err != nil {
		return err
	}
	if !c.json {
		c.sayPlan(p)
	}
	res := setupResult{Plan: p, Written: len(p.Changes) == 0, Checks: []doctor.Check{}}
	if !res.Written && !f.dryRun {
		if err := c.agree(ctx, f, "Write this?", "ringwall setup --yes"); err != nil {
			return err
		}
		if err := p.Apply(); err != nil {
			return err
		}
		res.Written = true
		if !c.json {
			c.sayf("Written. To take it away again: ringwall setup --undo")
		}
	}
	if res.Written && !f.dryRun && o.Root == "/" {
		if err := c.reloadManager(ctx); err != nil {
			return err
		}
		if res.Checks, err = c.proveLogin(ctx); err == nil && !c.json {
			c.sayf("")
			c.sayf("Asterisk lets Ringwall in. Next: systemctl enable --now ringwall; ringwall doctor")
		}
	}
	if c.json {
		err = errors.Join(c.writeJSON(res), err)
	}
	return err
}

// sayPlan shows what would be written.
func (c *commands) sayPlan(p *setup.Plan) {
	flavour := map[setup.Flavour]string{setup.Source: "Asterisk from source",
		setup.Debian: "Debian's Asterisk"}[p.Flavour]
	if flavour == "" {
		flavour = string(p.Flavour)
	}
	c.sayf("Found %s: %s, the Manager Interface at %s.", flavour, p.ManagerConf, p.Address)
	verbs := map[string]string{"create": "Create ", "append": "Append to ", "insert": "Put into ",
		"replace": "Write anew "}
	for _, change := range p.Changes {
		end := ""
		if change.Lines != "" {
			end = ":"
		}
		c.sayf("")
		c.sayf("%s%s%s", verbs[change.Action], change.Path, end)
		for line := range strings.Lines(change.Lines) {
			c.sayf("%s", strings.TrimRight("    "+line, " \n"))
		}
	}
	c.sayf("")
	for _, path := range p.Kept {
		c.sayf("Stays as it is: %s", path)
	}
	for _, note := range p.Notes {
		c.sayWrappedf("  ", "Look at this: %s.", note)
	}
	if len(p.Changes) == 0 {
		c.sayf("There is nothing to write.")
	}
}

// agree asks, unless the answer was on the command line. Where there is nobody to ask, the answer is no.
func (c *commands) agree(ctx context.Context, f setupFlags, question, command string) error {
	switch {
	case f.yes:
		return nil
	case c.Ask == nil:
		return usageErrorf(command, "nothing was changed: there is no terminal to ask at")
	case !c.Ask(ctx, question):
		return hint.Errorf("", "nothing was changed")
	}
	return nil
}

func (c *commands) reloadManager(ctx context.Context) error {
	if c.ReloadManager == nil {
		return nil
	}
	if err := c.ReloadManager(ctx); err != nil {
		return hint.Errorf("start Asterisk, and say again: ringwall setup; or ringwall setup --undo",
			"it is written, but Asterisk has not read it: %w", err)
	}
	return nil
}

// proveLogin has the doctor look whether Asterisk lets Ringwall in. The daemon may not run yet.
func (c *commands) proveLogin(ctx context.Context) ([]doctor.Check, error) {
	o, p, err := c.doctorOptions()
	if err != nil {
		return nil, err
	}
	o.BeforeStart = true
	if !c.json {
		o.Report = func(check doctor.Check) {
			if check.About != "" || check.Result == doctor.Fail {
				p.Print(check)
			}
		}
	}
	list := doctor.Examine(ctx, o)
	if doctor.Passed(list) {
		return list, nil
	}
	return list, hint.Errorf("what is said there, then ringwall setup again; or: ringwall setup --undo",
		"it is written, but does not work yet: %s", failedChecks(list))
}

func (c *commands) undoSetup(ctx context.Context, o setup.Options, f setupFlags) error {
	u, err := setup.PrepareUndo(o)
	if err != nil {
		return err
	}
	removes := slices.ContainsFunc(u.Things, func(d setup.Undone) bool { return d.Removed })
	if !c.json {
		c.sayUndo(u, removes)
	}
	res := undoResult{Undo: u}
	if !f.dryRun {
		if removes {
			if err := c.agree(ctx, f, "Remove this?", "ringwall setup --undo --yes"); err != nil {
				return err
			}
		}
		if err := u.Apply(); err != nil {
			return err
		}
		res.Done = true
		if removes && !c.json {
			c.sayf("Removed.")
		}
		if removes && o.Root == "/" && c.ReloadManager != nil {
			if err := c.ReloadManager(ctx); err != nil && !c.json { // an Asterisk that is stopped reads it at its start
				c.sayf("Asterisk was not told: %v", err)
			}
		}
	}
	if c.json {
		return c.writeJSON(res)
	}
	return nil
}

func (c *commands) sayUndo(u *setup.Undo, removes bool) {
	if len(u.Things) == 0 {
		c.sayf("There is nothing that setup wrote.")
		return
	}
	if !removes {
		c.sayf("There is nothing left to remove.")
	}
	for _, d := range u.Things {
		switch {
		case d.Removed && d.What == "lines":
			c.sayf("Remove its lines from %s", d.Path)
		case d.Removed:
			c.sayf("Remove %s", d.Path)
		case d.What == "lines":
			c.sayf("Its lines in %s stay: %s", d.Path, d.Why)
		default:
			c.sayf("%s: %s", d.Path, d.Why)
		}
	}
}
