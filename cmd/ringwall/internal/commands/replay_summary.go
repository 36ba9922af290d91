package commands

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/replay"
	"github.com/ringwall/ringwall/pkg/wording"
)

// summaryRows is how long a list of the summary is at most; --json has all.
const summaryRows = 50

// proxyAccounts is from how many accounts on a banned address looks like a proxy: more than an office has phones.
const proxyAccounts = 100

// sayReplay writes the summary, what customers would have suffered first. decisions says whether decisions were written
// before it.
func (c *commands) sayReplay(s *replay.Summary, decisions bool) error {
	if decisions {
		c.sayf("")
	}
	if err := c.sayCustomers(s); err != nil {
		return err
	}
	for _, r := range firstRows(s.Breaches) {
		c.sayf("BREACH: %s logged in as %s right after guessing its password, at %s. Change that password.",
			humanize.Prefix(r.Source), printable.String(r.Account), c.dateAndTime(r.First))
	}
	if err := c.sayBanned(s); err != nil {
		return err
	}
	if len(s.Misconfigured) > 0 {
		c.sayf("")
		c.sayf("Misconfigured, not attacking:")
		t := table{header: []string{"SOURCE", "ACCOUNT", "SINCE", "WHAT"}, cutOrder: []int{3, 1}}
		for _, r := range firstRows(s.Misconfigured) {
			t.addRow(humanize.Prefix(r.Source), printable.String(r.Account), c.dateAndTime(r.First),
				printable.Line(r.Detail))
		}
		if err := t.flushTo(c.out, c.Columns); err != nil {
			return err
		}
		c.sayMore(len(s.Misconfigured))
	}
	for _, r := range firstRows(s.Guessing) {
		c.sayf("%s guesses passwords (account %s) since %s, and would not have been banned: %s.",
			humanize.Prefix(r.Source), printable.String(r.Account),
			c.dateAndTime(r.First), printable.Line(r.Detail))
	}
	for _, r := range firstRows(s.Cuts) {
		c.sayf("%s, account %s, since %s: %s.", humanize.Prefix(r.Source), printable.String(r.Account),
			c.dateAndTime(r.First), printable.Line(r.Detail))
	}
	for _, r := range firstRows(s.Proxies) {
		c.sayf("%s, since %s: %s.", humanize.Prefix(r.Source), c.dateAndTime(r.First), printable.Line(r.Detail))
	}
	for _, r := range firstRows(s.NewPlaces) {
		c.sayf("%s, account %s, at %s: %s.", humanize.Prefix(r.Source), printable.String(r.Account),
			c.dateAndTime(r.First),
			printable.Line(r.Detail))
	}
	for _, r := range firstRows(s.Targeted) {
		c.sayf("Many sources guess the password of account %s, since %s.", printable.String(r.Account),
			c.dateAndTime(r.First))
	}
	if len(s.Accounts) > 0 {
		var list []string
		for _, a := range s.Accounts[:min(10, len(s.Accounts))] {
			list = append(list, fmt.Sprintf("%s (%d)", printable.String(a.Account), a.Failures))
		}
		c.sayf("")
		c.sayf("Accounts that failed most: %s", strings.Join(list, ", "))
	}
	c.sayf("")
	c.sayTotals(s)
	for _, n := range s.Notes {
		c.sayf("Note: %s.", strings.TrimSuffix(n, "."))
	}
	c.sayf("Note: what Asterisk tells of trunks and registered contacts, which are never banned, " +
		"is not in a recording.")
	return nil
}

func (c *commands) sayCustomers(s *replay.Summary) error {
	if len(s.Customers) == 0 {
		switch {
		case s.LoggedIn > 0:
			c.sayf("No customer is hit: nobody who ever logged in would have been banned (%s with logins).",
				humanize.Plural(s.LoggedIn, "source", "sources"))
		case s.Decoded > 0:
			c.sayf("Nobody logged in with a password in this recording, so it cannot show whether a customer is hit.")
		}
		return nil
	}
	c.sayf("!!! %s THAT LOGGED IN WOULD HAVE BEEN BANNED !!!",
		strings.ToUpper(humanize.Plural(len(s.Customers), "source", "sources")))
	t := table{
		header:       []string{"SOURCE", "BANNED", "FOR", "WHY", "LOGINS", "LOCKED OUT", "LAST LOGIN", "ACCOUNTS"},
		rightAligned: map[int]bool{2: true, 4: true, 5: true}, cutOrder: []int{7},
	}
	locked := int64(0)
	for i, u := range s.Customers {
		locked += u.LoginsWhileBanned
		if i < summaryRows {
			t.addRow(humanize.Prefix(u.Prefix), c.dateAndTime(u.First), humanize.Duration(u.Total),
				humanize.Words(u.Reason),
				strconv.FormatInt(u.Logins, 10),
				strconv.FormatInt(u.LoginsWhileBanned, 10), c.dateAndTime(u.LastLogin), humanize.Names(u.Accounts, 5))
		}
	}
	if err := t.flushTo(c.out, c.Columns); err != nil {
		return err
	}
	c.sayMore(len(s.Customers))
	if locked > 0 {
		c.sayf("%s came while the source was banned: these people would not have got in.",
			humanize.Plural(int(locked), "login", "logins"))
	}
	for _, u := range firstRows(s.Customers) {
		if u.Through >= proxyAccounts {
			c.sayf("%s looks like a proxy: %d accounts log in through it. Allow it, or name it in policy.proxies.",
				humanize.Prefix(u.Source), u.Through)
		}
	}
	c.sayf("If they are yours, name them in policy.allow, or raise policy.threshold; if a login is not a customer's, " +
		"change its password.")
	return nil
}

func (c *commands) sayBanned(s *replay.Summary) error {
	if len(s.Banned) == 0 {
		c.sayf("Nobody would have been banned.")
		return nil
	}
	c.sayf("")
	c.sayf("Would have been banned:")
	t := table{
		header:       []string{"SOURCE", "SINCE", "BANS", "FOR", "STOPPED", "WHY", "ACCOUNT"},
		rightAligned: map[int]bool{2: true, 3: true, 4: true}, cutOrder: []int{6},
	}
	observed := false
	for _, b := range firstRows(s.Banned) {
		why := humanize.Words(b.Reason)
		if only := wording.ClosesOnly(b.Closes); only != "" {
			why = only + ": " + why
		}
		if !b.Enforced {
			why += " (observed)"
			observed = true
		}
		t.addRow(humanize.Prefix(b.Prefix), c.dateAndTime(b.First), strconv.Itoa(b.Bans), humanize.Duration(b.Total),
			strconv.FormatInt(b.Blocked, 10), why,
			printable.String(b.Account))
	}
	if err := t.flushTo(c.out, c.Columns); err != nil {
		return err
	}
	c.sayMore(len(s.Banned))
	if observed {
		c.sayf("Observed: policy.mode or policy.services says observe, so that packets would still have passed.")
	}
	return nil
}

func (c *commands) sayTotals(s *replay.Summary) {
	if s.Decoded > 0 {
		c.sayf("%s to %s", c.dateAndTime(s.From), c.dateAndTime(s.To))
	}
	c.sayf("%s from %s: %s, %d would be, %d trusted. Bans would have stopped %s.",
		humanize.Plural(int(s.Decoded), "event", "events"),
		humanize.Plural(s.Sources, "source", "sources"), humanize.Plural(int(s.Bans), "ban", "bans"), s.Observed,
		s.Trusted,
		humanize.Plural(int(s.Blocked), "event", "events"))
	if s.Repeated > 0 {
		c.sayf("%s of these, which syslog did not write again (\"message repeated\"), played too.",
			humanize.Plural(int(s.Repeated), "repetition", "repetitions"))
	}
	if s.Passed > 0 {
		c.sayf("WARNING: %s of banned sources came to ports that are not in firewall.ports, where a ban stops nothing.",
			humanize.Plural(int(s.Passed), "event", "events"))
	}
	if s.Tampered > 0 {
		c.sayf("%s: somebody put line breaks or the like into a name. They count neither for nor against anybody.",
			humanize.Plural(int(s.Tampered), "tampered record", "tampered records"))
	}
	c.sayNotUnderstood(s)
	if s.Skipped > 0 {
		c.sayf("%s skipped: longer than any event.", humanize.Plural(int(s.Skipped), "record", "records"))
	}
	if s.Truncated > 0 {
		c.sayf("%s cut off.", humanize.Plural(int(s.Truncated), "record", "records"))
	}
}

// excerptColumns is how much of a record that was not understood is shown.
const excerptColumns = 100

// sayNotUnderstood says of each file what was not understood in it, where, and what to try.
func (c *commands) sayNotUnderstood(s *replay.Summary) {
	if s.NotUnderstood == 0 {
		return
	}
	c.sayf("%s not understood. They count neither for nor against anybody.",
		humanize.Plural(int(s.NotUnderstood), "record", "records"))
	const most = 5
	files := 0
	for _, f := range s.Files {
		if f.NotUnderstood == 0 {
			continue
		}
		if files++; files > most {
			continue
		}
		where := printable.Limit(f.Name, 500)
		if f.First.Line > 0 {
			where += ":" + strconv.FormatInt(f.First.Line, 10)
		}
		if f.NotUnderstood > 1 {
			where += fmt.Sprintf(", the first of %d", f.NotUnderstood)
		}
		c.sayf("  %s: %s; %s.", where, f.First.Why, f.First.Try)
		c.sayf("    %s", printable.Limit(f.First.Excerpt, excerptColumns))
	}
	if files > most {
		c.sayf("  … and in %s more", humanize.Plural(files-most, "file", "files"))
	}
}

func firstRows[T any](list []T) []T { return list[:min(summaryRows, len(list))] }

func (c *commands) sayMore(n int) {
	if n > summaryRows {
		c.sayf("… and %d more", n-summaryRows)
	}
}
