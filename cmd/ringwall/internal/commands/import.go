package commands

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/fail2ban"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// importResult is the answer to import --json.
type importResult struct {
	Files       []string        `json:"files"`
	Database    string          `json:"database"`
	Found       []string        `json:"found"`
	Jails       []importedJail  `json:"jails"`
	Bans        []importedBan   `json:"bans"`
	Allow       []string        `json:"allow"`
	From        string          `json:"policy_from"`
	Policy      string          `json:"policy_yaml"`
	NotImported []notImported   `json:"not_imported"`
	BansLost    string          `json:"bans_lost,omitempty"` // why there are none, although there is a database
	Applied     *importedReport `json:"applied,omitempty"`
}

type importedJail struct {
	Name     string `json:"name"`
	Imported bool   `json:"imported"`
	Why      string `json:"why"`
}

type importedBan struct {
	Prefix  string  `json:"prefix"`
	Jail    string  `json:"jail"`
	Left    float64 `json:"left_seconds"` // 0 where it is for ever
	Forever bool    `json:"forever"`
}

type notImported struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// importedReport is what the daemon took.
type importedReport struct {
	Allowed  int           `json:"allowed"`
	Banned   int           `json:"banned"`
	Enforced int           `json:"enforced"`
	Refused  []notImported `json:"refused"`
}

func (c *commands) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Take over from another program: fail2ban",
		Args:  noSuchCommand,
		RunE: func(*cobra.Command, []string) error {
			return usageErrorf("ringwall import fail2ban", "ringwall import needs the name of a program")
		},
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(c.importFail2banCommand())
	return cmd
}

func (c *commands) importFail2banCommand() *cobra.Command {
	var o fail2ban.Options
	var apply bool
	cmd := &cobra.Command{
		Use:   "fail2ban",
		Short: "Suggest a policy from fail2ban's files, and take over its bans",
		Long: `Read fail2ban's jail files, and ask it for its bans, or read its database where it does not run. All of
it stays as it is. Without --apply nothing changes here either: the policy and the allow list come as YAML for
ringwall.yaml, and on stderr what was found and what cannot be carried over. With --apply the running daemon gets the
allow list, and the bans with the time that they have left.`,
		Example: `  ringwall import fail2ban > policy.yaml
  ringwall import fail2ban --apply
  ringwall import fail2ban --jail backup/fail2ban --db backup/fail2ban.sqlite3`,
		SuggestFor: []string{"f2b", "fail2ban-client"},
		Args:       takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Now = c.Now()
			im, err := fail2ban.Read(cmd.Context(), o)
			if err != nil {
				return importError(err)
			}
			if !c.json {
				c.sayImport(im)
			}
			var report *importedReport
			var failed error
			if apply {
				report, failed = c.applyImport(cmd, im)
			}
			switch {
			case c.json:
				return errors.Join(c.writeImportJSON(im, report), failed)
			case apply:
				return failed
			}
			return im.WriteYAML(c.out)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Jail, "jail", "",
		"jail `FILE`, or a folder like "+fail2ban.DefaultDir+" (the default); the files that belong to it are read too")
	flags.StringVar(&o.DB, "db", "",
		"database `FILE` (default: the running fail2ban, else dbfile of fail2ban.conf, or "+
			fail2ban.DefaultDatabase+")")
	flags.StringArrayVar(&o.Also, "also", nil,
		"take the bans of this `JAIL` too, although it is not about telephony; may be repeated")
	flags.BoolVar(&apply, "apply", false, "hand the allow list and the bans to the running daemon")
	return cmd
}

func importError(err error) error {
	return hint.Errorf(importHint(err), "%s", printable.Limit(err.Error(), 500))
}

func importHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "sudo ringwall import fail2ban"
	case errors.Is(err, fs.ErrNotExist):
		return "ringwall import fail2ban --jail FOLDER --db FILE, with copies from the machine that fail2ban runs on"
	case errors.Is(err, fail2ban.ErrNoPython):
		return "apt install python3, or ringwall import fail2ban on the machine that fail2ban runs on"
	case errors.Is(err, fail2ban.ErrSchema):
		return "ringwall import fail2ban --db FILE, with the database of fail2ban 0.11 to 1.1"
	}
	return ""
}

// sayImport writes to stderr what people read; stdout is for the YAML.
func (c *commands) sayImport(im *fail2ban.Import) {
	say := func(format string, args ...any) {
		fmt.Fprintln(c.Err, printable.Line(fmt.Sprintf(format, args...)))
	}
	say("Found:")
	for _, f := range im.Found {
		say("  %s", f)
	}
	for _, j := range im.Jails {
		what := "taken over"
		if !j.VoIP {
			what = "not taken over"
		}
		say("  jail %q: %s (%s)", printable.String(j.Name), what, j.Why)
	}
	say("")
	if im.BansLost != nil {
		say("Bans in force: unknown, for the database cannot be read; the policy and the allow list come all the same")
		if try := importHint(im.BansLost); try != "" {
			say("  Try: %s", try)
		}
	} else {
		say("Bans in force: %d", len(im.Bans))
	}
	const most = 20
	for i, b := range im.Bans {
		if i == most {
			say("  and %d more; --json has them all", len(im.Bans)-most)
			break
		}
		left := "for ever in fail2ban, " + humanize.Duration(api.MaxDuration) + " here"
		if !b.Forever {
			left = humanize.Duration(min(b.Left, api.MaxDuration)) + " left"
		}
		say("  %s  %s  jail %q", humanize.Prefix(b.Prefix), left, printable.String(b.Jail))
	}
	if len(im.NotImported) > 0 {
		say("")
		say("Not carried over:")
		for _, l := range im.NotImported {
			say("  %s: %s", l.What, l.Why)
		}
	}
	say("")
}

func (c *commands) writeImportJSON(im *fail2ban.Import, report *importedReport) error {
	var yaml strings.Builder
	if err := im.WriteYAML(&yaml); err != nil {
		return err
	}
	lost := ""
	if im.BansLost != nil {
		lost = printable.Limit(im.BansLost.Error(), 500)
	}
	res := importResult{
		Files: append([]string{}, im.Files...), Database: im.Database, Found: im.Found, From: im.Policy.From,
		Policy: yaml.String(),
		Jails:  []importedJail{}, Bans: []importedBan{}, Allow: []string{}, NotImported: []notImported{},
		BansLost: lost,
		Applied:  report,
	}
	for _, j := range im.Jails {
		res.Jails = append(res.Jails, importedJail{j.Name, j.VoIP, j.Why})
	}
	for _, b := range im.Bans {
		res.Bans = append(res.Bans, importedBan{b.Prefix.String(), b.Jail, b.Left.Seconds(), b.Forever})
	}
	for _, a := range im.Allow {
		res.Allow = append(res.Allow, a.String())
	}
	for _, l := range im.NotImported {
		res.NotImported = append(res.NotImported, notImported{l.What, l.Why})
	}
	return c.writeJSON(res)
}

// applyImport hands the allow list over first, so that no ban of a customer comes before it. It goes on after a
// refusal, and ends when the daemon does not answer.
func (c *commands) applyImport(cmd *cobra.Command, im *fail2ban.Import) (*importedReport, error) {
	report := &importedReport{Refused: []notImported{}}
	client, err := c.newClient(cmd)
	if err != nil {
		return report, err
	}
	gone := c.handOverEntries(cmd.Context(), client, im, report)
	if !c.json {
		for _, r := range report.Refused {
			fmt.Fprintln(c.Err, printable.Line("refused: "+r.What+": "+r.Why))
		}
		c.sayf("Allowed: %d of %d. Banned: %d of %d, %d of them in the kernel.",
			report.Allowed, len(im.Allow), report.Banned, len(im.Bans), report.Enforced)
		if report.Banned > report.Enforced {
			c.sayf("The packets of the others still pass: ringwall status says why.")
		}
	}
	switch {
	case gone != nil:
		return report, gone
	case im.BansLost != nil:
		return report, importError(im.BansLost)
	case len(report.Refused) > 0:
		return report, hint.Errorf("ringwall why ADDRESS says why an address is not banned",
			"%s", humanize.Plural(len(report.Refused), "entry was refused", "entries were refused"))
	}
	return report, nil
}

func (c *commands) handOverEntries(ctx context.Context, client *api.Client, im *fail2ban.Import,
	report *importedReport) error {
	refused := func(what string, err error) error {
		if !errors.Is(err, api.ErrRefused) && !errors.Is(err, api.ErrInvalid) {
			return err
		}
		report.Refused = append(report.Refused, notImported{what, printable.Limit(err.Error(), 300)})
		return nil
	}
	for _, a := range im.Allow {
		switch _, err := client.Allow(ctx, api.AllowRequest{Prefix: a.Prefix, Host: a.Host}); {
		case err == nil:
			report.Allowed++
		default:
			if err := refused("allow "+a.String(), err); err != nil {
				return err
			}
		}
	}
	for _, b := range im.Bans {
		length := min(max(b.Left, api.MinDuration), api.MaxDuration)
		if b.Forever {
			length = api.MaxDuration
		}
		req := api.BanRequest{Prefix: b.Prefix, For: length.Round(time.Second),
			Reason: "fail2ban " + printable.Limit(b.Jail, 40)}
		switch res, err := client.Ban(ctx, req); {
		case err == nil:
			report.Banned++
			if res.Enforced {
				report.Enforced++
			}
		default:
			if err := refused("ban "+humanize.Prefix(b.Prefix), err); err != nil {
				return err
			}
		}
	}
	return nil
}
