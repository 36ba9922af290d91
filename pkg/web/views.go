package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

// The texts of views are escaped for terminals already, and shortened; html/template escapes them for HTML.

// healthView says whether Ringwall works.
type healthView struct {
	State    string // good, watch or bad
	Title    string
	Text     string
	PBXs     []pbxRow
	Kernel   kernelRow
	Lists    []listRow
	Warnings []warningRow
	More     int      // warnings that are not shown
	Watched  []string // sentences about services that are observed only
	Version  string
	Started  time.Time
}

type pbxRow struct {
	Name, Version string
	Up            bool
	Since         time.Time
	Lag           string
	Events        uint64
	LastEvent     *time.Time
	Blind         string // how long without a connection since the start; empty for not at all
	Forged        int
	Dropped       uint64
	Known         int
}

type kernelRow struct {
	OK      bool
	State   string
	Present string
	Dropped int // packets
}

// listRow is a list of attackers; what is wrong with it is among the warnings.
type listRow struct {
	Name             string
	Good, Observed   bool
	Entries, Packets int
	Fetched          time.Time // zero: never
	LeftOut          int
}

func newListRow(l api.ListStatus) listRow {
	row := listRow{Name: printable.String(l.Name), Observed: l.Mode != "enforce", Entries: l.Entries,
		Packets: int(min(l.Packets, 1<<53)),
		Good:    l.Fetched != nil && !l.Held && !l.Stale && !l.Over}
	if l.Fetched != nil {
		row.Fetched = *l.Fetched
	}
	for _, n := range l.LeftOut {
		row.LeftOut += n
	}
	return row
}

type warningRow struct {
	Bad  bool
	Text string
	Try  []string // lines
}

func (p *Page) viewHealth(s *snapshot) healthView {
	st := s.status
	h := healthView{Version: printable.String(st.Version), Started: st.Started.Truncate(time.Second)}
	if s.statusErr != nil {
		h.State, h.Title, h.Text = "bad", "Ringwall cannot say how it is", boundedLine(s.statusErr.Error())
		return h
	}
	var down []string
	for _, v := range st.PBXs {
		if !v.Up {
			down = append(down, printable.String(v.Name))
		}
		h.PBXs = append(h.PBXs, newPBXRow(v))
	}
	h.Kernel = newKernelRow(st.Kernel)
	for _, l := range st.Lists {
		h.Lists = append(h.Lists, newListRow(l))
	}
	h.setState(st, down)
	h.Warnings = p.viewWarnings(s)
	for _, o := range st.ObserveOnly {
		h.Watched = append(h.Watched, fmt.Sprintf("Watched, but never a reason for a ban: %s (%s).",
			printable.String(o.Service), boundedLine(o.Why)))
	}
	if n := len(h.Warnings) - maxWarnings; n > 0 {
		h.Warnings, h.More = h.Warnings[:maxWarnings], n
	}
	return h
}

// setState says in one sentence how things are; of what is wrong, the worst.
func (h *healthView) setState(st api.Status, down []string) {
	switch {
	case len(down) > 0 && len(down) == len(st.PBXs):
		h.State, h.Title = "bad", "Ringwall hears nothing from Asterisk"
		h.Text = "Attackers are not noticed until the connection is back. Bans that were made stay in force."
	case len(down) > 0:
		h.State, h.Title = "bad", "Ringwall hears nothing from "+strings.Join(down, ", ")
		h.Text = "Attackers there are not noticed until the connection is back. Bans that were made stay in force."
	case !st.Kernel.DryRun && (!st.Kernel.OK || st.Kernel.LastError != ""):
		h.State, h.Title = "bad", "The firewall is not as it should be"
		h.Text = "Ringwall tries again and again; until then some attackers may get through."
	case st.Leaking():
		h.State, h.Title = "bad", "Banned sources get through to Asterisk"
		h.Text = "Their packets should not reach it. Mostly it listens at a port that a ban does not close: see " +
			"below, or ringwall doctor."
	case st.LeavesOut():
		h.State, h.Title = "bad", "Some attackers are not banned"
		h.Text = "As many are as policy.limits allows. Whoever was banned stays so; see below for the bound."
	case st.ShutsOut():
		h.State, h.Title = "bad", "Another firewall keeps out whom you allow"
		h.Text = "Ringwall lets them in, and a rule that is not Ringwall's drops their packets: see below for whom " +
			"and where."
	case st.Mode != "enforce" && st.Engine.Bans > 0:
		h.State, h.Title = "watch", "Ringwall only watches: nobody more is banned"
		h.Text = "Bans that were made before stay until they end. It says whom else it would ban. To go on banning: " +
			"policy.mode: enforce, then systemctl reload ringwall."
	case st.Mode != "enforce":
		h.State, h.Title = "watch", "Ringwall only watches: nobody is banned"
		h.Text = "It says whom it would ban. Once you like what you see: policy.mode: enforce, then systemctl reload " +
			"ringwall."
	case len(st.Ports.OpenPorts()) > 0:
		h.State, h.Title = "bad", "A port of Asterisk is open to the banned"
		h.Text = "At the others attackers are kept out. See below for what to write."
	case st.Kernel.DryRun:
		h.State, h.Title = "watch", "A dry run: nobody is banned"
		h.Text = "Ringwall decides as always, and tells the kernel nothing."
	default:
		h.State, h.Title = "good", "Ringwall is working: attackers are kept out"
		h.Text = "Whoever logs in with the right password is trusted and is not banned for a phone's mistakes."
	}
}

func newPBXRow(v api.PBXStatus) pbxRow {
	r := pbxRow{Name: printable.String(v.Name), Version: printable.String(v.Version), Up: v.Up,
		Since: v.Since.Truncate(time.Second), Events: v.Events,
		Forged: int(v.Tampered), Dropped: v.DroppedFrames, Known: v.Learned}
	if v.LastEvent != nil {
		at := v.LastEvent.Truncate(time.Second)
		r.LastEvent = &at
		r.Lag = humanize.Duration(humanize.FromSeconds(v.Lag))
		if v.Lag < 0.01 {
			r.Lag = "under 10 ms"
		}
	}
	if v.Blind >= 1 {
		r.Blind = humanize.Duration(humanize.FromSeconds(v.Blind))
	}
	return r
}

func newKernelRow(k api.KernelStatus) kernelRow {
	r := kernelRow{OK: k.OK && k.LastError == "", State: "in place"}
	switch {
	case k.DryRun:
		r.OK, r.State = true, "not touched (dry run)"
	case !r.OK:
		r.State = "not as it should be"
	case k.Owner:
		r.State = "in place, protected from nft flush"
	}
	r.Present = fmt.Sprintf("%s of %s", pluralThousands(k.Present, "ban", "bans"), humanize.Thousands(k.Desired))
	if k.Present == k.Desired {
		r.Present = "all " + pluralThousands(k.Desired, "ban", "bans")
		if k.Desired == 1 {
			r.Present = "the one ban"
		} else if k.Desired == 0 {
			r.Present = "no bans"
		}
	}
	for _, c := range k.Dropped {
		r.Dropped += int(c.Count)
	}
	return r
}

// viewWarnings lists what a person should look at, with what to try.
func (p *Page) viewWarnings(s *snapshot) (out []warningRow) {
	add := func(bad bool, text, try string) {
		w := warningRow{Bad: bad, Text: capitalized(boundedLine(text))}
		for line := range strings.SplitSeq(strings.TrimSpace(try), "\n") {
			if line = boundedLine(line); line != "" {
				w.Try = append(w.Try, line)
			}
		}
		out = append(out, w)
	}
	st := s.status
	for _, d := range s.alarms {
		add(d.Action == ban.ActionBreach, alarmText(d)+" ("+p.shortTime(d.Time)+")", alarmHint(d))
	}
	for _, v := range st.PBXs {
		if !v.Up && v.LastError != "" {
			add(true, v.Name+": "+v.LastError, v.Try)
		}
		if v.DroppedFrames > 0 {
			add(true, fmt.Sprintf("%s: %d events were lost, because there were too many at once", v.Name,
				v.DroppedFrames), "")
		}
		var denied []string
		for _, d := range v.Denied {
			denied = append(denied, d.Action)
		}
		if len(denied) > 0 {
			add(false, v.Name+" does not tell Ringwall its trunks and contacts ("+humanize.Names(denied,
				3)+"): only policy.allow protects your providers",
				"ringwall doctor says what Asterisk would have to allow")
		}
	}
	if st.Kernel.LastError != "" {
		add(true, "kernel: "+st.Kernel.LastError, st.Kernel.Try)
	}
	if st.Config.Error != "" {
		add(true, st.Config.Fault(), "ringwall check --config "+printable.Limit(st.Config.Path, 200))
	}
	for _, d := range st.Dropped {
		add(d.Serious(), d.Text(), d.Try)
	}
	for _, w := range st.Warnings {
		add(false, w.Text, w.Try)
	}
	slices.SortStableFunc(out, func(a, b warningRow) int {
		switch {
		case a.Bad == b.Bad:
			return 0
		case a.Bad:
			return -1
		}
		return 1
	})
	return out
}

func alarmText(d ban.Decision) string {
	account, from := printable.String(d.Account), ""
	if d.Source.IsValid() {
		from = " from " + d.Source.String()
	}
	switch d.Action {
	case ban.ActionBreach:
		if d.Reason == ban.ReasonDistributed {
			return "account " + account + " is being guessed, and logged in" + from + ", where it never was"
		}
		if d.Reason == ban.ReasonMalformed {
			return "account " + account + " logged in" + from + " by a program that hides its requests"
		}
		return "account " + account + " was guessed, and then logged in" + from
	case ban.ActionGuessing:
		if d.Reason == ban.ReasonPace {
			return "account " + account + " fails all the time" + from
		}
		if d.Detail != "" {
			return "passwords are guessed" + from + ": " + printable.String(d.Detail)
		}
		return "passwords are guessed" + from + ", which is trusted"
	case ban.ActionCut:
		return "passwords are guessed" + from + ", beside phones that work: the guesser's connections end, theirs go on"
	case ban.ActionNewPlace:
		if d.Reason == ban.ReasonList {
			return "account " + account + " logged in" + from + ", which a list of attackers names"
		}
		return "account " + account + " logged in" + from + ", where it never was"
	case ban.ActionBlind:
		switch d.Reason {
		case ban.ReasonAsterisk:
			return printable.String(d.PBX) + ": no connection to Asterisk, so that attacks are not seen, " +
				printable.String(d.Detail)
		case ban.ReasonKernel:
			return "the kernel does not hold the bans as it should, " + printable.String(d.Detail)
		}
		return "one of the senses is silent, " + printable.String(d.Detail)
	case ban.ActionTargeted:
		return "many sources guess the password of account " + account
	case ban.ActionObserve:
		if d.Reason == ban.ReasonAllowed {
			return "somebody guesses" + from + ", which is on the allow list and therefore never banned"
		}
	case ban.ActionLeak:
		return "the ban of " + d.Source.String() + " does not keep it out: " + printable.String(d.Detail)
	case ban.ActionTampering:
		if d.Source.IsValid() {
			return "a program" + from + " hides its requests from log readers: " + printable.String(d.Detail)
		}
		return printable.String(d.PBX) + ": somebody forges events of Asterisk: " + printable.String(d.Detail)
	}
	return printable.String(d.Detail)
}

func alarmHint(d ban.Decision) string {
	switch d.Action {
	case ban.ActionBreach:
		return "change the password of this account now, and look at its calls"
	case ban.ActionCut:
		return "look whose device it is: ringwall why tells which accounts it tries"
	case ban.ActionNewPlace:
		return "ask its user; if he was not there, change the password, and look at the calls of this account"
	case ban.ActionReview:
		return "nobody is banned until mode: enforce is in the configuration"
	case ban.ActionBlind:
		return "ringwall doctor says what is wrong, and what to try"
	case ban.ActionTargeted:
		return "make sure that this account has a long, random password"
	case ban.ActionGuessing:
		return "mend the phone, if it is one; else change the passwords of that place: ringwall why tells which " +
			"accounts"
	case ban.ActionLeak:
		return "ringwall doctor; the ports that Asterisk listens on belong in firewall.ports, or: firewall.ports: auto"
	case ban.ActionTampering:
		return "nobody is judged by such events; but look who can reach AMI, above all over HTTP (ringwall doctor)"
	case ban.ActionObserve:
		if d.Reason == ban.ReasonAllowed {
			return "ringwall why says by what it is allowed; where a proxy on this machine hands requests on, the " +
				"proxy has to limit who fails (ringwall doctor)"
		}
		return "look at Asterisk first: a database, a changed password, a network; then: ringwall history --since 1h"
	}
	return ""
}

// numbersView is the last day in figures.
type numbersView struct {
	Bans, Observed, Trusted, Sources int
	Hour, Day, DayBans               int
	Peak                             int // attempts within the busiest minute
	Since                            time.Time
	Whole                            bool // all of the day is counted
	Latest                           string
}

func viewNumbers(s *snapshot) numbersView {
	e := s.status.Engine
	n := numbersView{Bans: e.Bans, Observed: e.Observed, Trusted: e.Trusted, Sources: e.Sources,
		Since: s.activity.Since,
		Whole: !s.activity.Since.After(s.activity.Begin)}
	for i, m := range s.activity.Minutes {
		if i >= len(s.activity.Minutes)-60 {
			n.Hour += m.Attempts
		}
		n.Day += m.Attempts
		n.DayBans += m.Bans
		n.Peak = max(n.Peak, m.Attempts)
	}
	if len(s.bans) > 0 {
		n.Latest = humanize.Prefix(s.bans[0].Prefix)
	}
	return n
}

// bansView lists the bans in force, the newest first.
type bansView struct {
	Rows     []banRow
	Total    int  // in force; where Observed, those that would be
	All      int  // and those that are only watched
	More     int  // than there are rows
	Observed bool // nobody is banned at all

	Restricted     []restrictedRow // what is cut or slow while others of its address go on
	AllRestricted  int
	MoreRestricted int // than are listed
}

type restrictedRow struct {
	Who, Address, Prefix string
	Kind, Passes         string
	Until                time.Time
}

type banRow struct {
	Prefix, Bare, Address string
	Place                 string
	Reason                string
	Only                  string // what it closes, where that is not all of telephony
	Accounts              string
	Attempts              int
	Number                int
	Comment               string
	PBX                   string
	Origin                string // the node of the fleet that saw it, if this one did not
	Since, Until          time.Time
	Observed, Network     bool
}

func (p *Page) viewBans(s *snapshot) bansView {
	e := s.status.Engine
	v := bansView{Total: e.Bans, All: e.Bans + e.Observed, Observed: s.status.Mode != "enforce" && e.Bans == 0}
	if v.Observed {
		v.Total = v.All
	}
	several := len(s.status.PBXs) > 1
	for i := range s.bans {
		b := &s.bans[i]
		r := banRow{Prefix: b.Prefix.String(), Bare: humanize.Prefix(b.Prefix), Address: b.Prefix.Addr().String(),
			Network: !b.Prefix.IsSingleIP(),
			Place:   placeText(p.Source.Place(b.Prefix.Addr())), Reason: reasonText(b.Reason),
			Accounts: humanize.Names(b.Accounts, 3), Attempts: b.Attempts, Number: b.Number,
			Since: b.Since, Until: b.Until, Observed: b.Observed && !v.Observed}
		r.Only = wording.ClosesOnly(b.Closes)
		if b.Manual {
			r.Reason = "By hand"
		}
		if b.Comment != "" {
			r.Comment = printable.String(b.Comment)
		}
		if several {
			r.PBX = printable.String(b.PBX)
		}
		r.Origin = printable.String(b.Origin)
		v.Rows = append(v.Rows, r)
	}
	v.All = max(v.All, len(v.Rows))
	v.More = v.All - len(v.Rows)
	for _, c := range s.restricted {
		v.Restricted = append(v.Restricted, restrictedRow{Who: wording.RestrictedWho(c), Prefix: c.Prefix.String(),
			Address: c.Prefix.Addr().String(), Kind: wording.RestrictionKind(c), Passes: wording.Passes(c),
			Until: c.Until})
		if c.Flow.IsValid() {
			v.Restricted[len(v.Restricted)-1].Address = c.Flow.Source.Addr().String()
		}
	}
	v.AllRestricted = max(e.CutFlows+e.SlowFlows+e.SlowSources+e.Trickles, len(v.Restricted))
	v.MoreRestricted = v.AllRestricted - len(v.Restricted)
	return v
}

// reasonText says what led to a ban.
func reasonText(r ban.Reason) string {
	switch r {
	case ban.ReasonUnknownAccount:
		return "Accounts that do not exist"
	case ban.ReasonWrongPassword:
		return "Wrong passwords"
	case ban.ReasonACL:
		return "Forbidden by the account's ACL"
	case ban.ReasonUnansweredChallenge:
		return "Requests without a login"
	case ban.ReasonManager:
		return "Failed logins to AMI"
	case ban.ReasonHoneypot:
		return "Honeypot account"
	case ban.ReasonSilentGuess:
		return "Hidden wrong passwords"
	case ban.ReasonSilentLogin:
		return "Hidden login"
	case ban.ReasonProbing:
		return "Calls to numbers that do not exist"
	case ban.ReasonScanner:
		return "A scanner's program"
	case ban.ReasonMalformedSIP:
		return "Messages that Asterisk cannot read"
	case ban.ReasonIAX:
		return "Wrong passwords over IAX2"
	case ban.ReasonHTTP:
		return "Wrong credentials over HTTP"
	case ban.ReasonDialplan:
		return "Wrong numbers, says the dialplan"
	case ban.ReasonDistributed:
		return "One of many that guess an account"
	case ban.ReasonNetwork:
		return "Network of attackers"
	case ban.ReasonAdopted:
		return "Banned before Ringwall started"
	}
	return capitalized(humanize.Words(r)) // such as manual
}

// placeText writes where an address is registered.
func placeText(g ban.Place) string {
	var parts []string
	if g.Country != "" {
		parts = append(parts, printable.Limit(g.Country, 8))
	}
	if g.ASN != 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("AS%d %s", g.ASN, printable.Limit(g.ASName, 40))))
	}
	return strings.Join(parts, " · ")
}

// phonesView lists the misconfigured phones, which a person should mend.
type phonesView struct{ Rows []phoneRow }

type phoneRow struct {
	Account, Source, Address, PBX string
	Problem, Advice               string
	At                            time.Time
}

func (p *Page) viewPhones(s *snapshot) (v phonesView) {
	several := len(s.status.PBXs) > 1
	for _, d := range s.phones {
		r := phoneRow{Account: printable.String(d.Account), Source: humanize.Prefix(d.Prefix), At: d.Time}
		if d.Prefix.IsValid() {
			r.Address = d.Prefix.Addr().String()
		}
		if d.Source.IsValid() {
			r.Source, r.Address = d.Source.String(), d.Source.String()
		}
		if several {
			r.PBX = printable.String(d.PBX)
		}
		if d.Reason == ban.ReasonPace {
			r.Problem = "Keeps sending a wrong password, at a phone's pace"
			r.Advice = "Enter the account's password in the phone again, or find the old phone that still has this " +
				"account. It is not banned for this."
		} else {
			r.Problem = capitalized(printable.Limit(d.Detail, 200))
			r.Advice = "Mend the account in Asterisk or in the phone; Asterisk's own log says more. It is not banned " +
				"for this."
		}
		v.Rows = append(v.Rows, r)
	}
	return v
}

// accountsView lists the accounts that were tried the most.
type accountsView struct {
	Rows  []accountRow
	Since time.Time
}

type accountRow struct {
	Account string
	Tries   int
	Sources int
	Many    bool // sources is a lower bound
	Last    time.Time
	Width   int // of its bar, 1 to 100
}

func viewAccounts(s *snapshot) accountsView {
	v := accountsView{Since: s.activity.Tried.Truncate(time.Minute)}
	for _, a := range s.activity.Accounts {
		r := accountRow{Account: printable.String(a.Account), Tries: a.Tries, Sources: a.Sources,
			Many: a.Sources >= 300,
			Last: a.Last}
		r.Width = max(1, 100*a.Tries/max(1, s.activity.Accounts[0].Tries))
		v.Rows = append(v.Rows, r)
	}
	return v
}

// trustedView lists the sources whose users logged in.
type trustedView struct {
	Rows  []trustRow
	Total int
	More  int
}

type trustRow struct {
	Bare, Address, Place, Accounts string
	Until                          time.Time
	Score                          string // not empty where something speaks against it
}

func (p *Page) viewTrusted(s *snapshot) trustedView {
	v := trustedView{Total: max(s.status.Engine.Trusted, len(s.trusted))}
	for _, t := range s.trusted {
		r := trustRow{Bare: humanize.Prefix(t.Prefix), Address: t.Prefix.Addr().String(),
			Place:    placeText(p.Source.Place(t.Prefix.Addr())),
			Accounts: humanize.Names(t.Accounts, 4), Until: t.Until.Truncate(time.Minute)}
		if t.Score >= 1 {
			r.Score = humanize.Number(float64(int(t.Score)))
		}
		v.Rows = append(v.Rows, r)
	}
	v.More = v.Total - len(v.Rows)
	return v
}

// decisionsView lists the latest decisions, the newest first.
type decisionsView struct{ Rows []decisionRow }

type decisionRow struct {
	At              time.Time
	Action          string // its name, also the class of its mark
	What            string // for a person
	Source, Address string
	Account         string
	Reason          string
	Only            string // which ports, where not all of telephony are closed
	Detail          string
	For             string
}

func (p *Page) viewDecisions(s *snapshot) (v decisionsView) {
	what := map[ban.Action]string{
		ban.ActionBan: "banned", ban.ActionExtend: "banned for longer", ban.ActionUnban: "let in again",
		ban.ActionTrust:   "trusted",
		ban.ActionUntrust: "no longer trusted", ban.ActionMisconfigured: "misconfigured", ban.ActionBreach: "BREACH",
		ban.ActionTampering: "forged event", ban.ActionTargeted: "under attack", ban.ActionGuessing: "GUESSING",
		ban.ActionLeak: "GETS THROUGH", ban.ActionNewPlace: "NEW PLACE", ban.ActionProxy: "proxy",
		ban.ActionCut:     "CUT OFF",
		ban.ActionBlind:   "BLIND",
		ban.ActionObserve: "not banned", ban.ActionReview: "summed up",
	}
	for _, d := range s.decisions {
		r := decisionRow{At: d.Time, Action: string(d.Action), What: what[d.Action],
			Account: printable.String(d.Account),
			Reason:  humanize.Words(d.Reason), Detail: printable.Limit(d.Detail, 200)}
		if d.Action == ban.ActionBan || d.Action == ban.ActionExtend {
			r.Reason = reasonText(d.Reason)
		}
		if r.What == "" {
			r.Action, r.What = "observe", humanize.Words(d.Action)
		}
		if d.Action == ban.ActionObserve && d.Detail == "would be banned" {
			r.What, r.Detail = "would be banned", ""
		}
		if d.Prefix.IsValid() {
			r.Source, r.Address = humanize.Prefix(d.Prefix), d.Prefix.Addr().String()
		} else if d.Source.IsValid() {
			r.Source, r.Address = d.Source.String(), d.Source.String()
		}
		if d.Flow.IsValid() {
			r.Source = d.Flow.String()
		}
		if d.Action == ban.ActionBan || d.Action == ban.ActionExtend || r.What == "would be banned" {
			r.Only = wording.ClosesOnly(d.Closes)
		}
		if d.Duration > 0 && (d.Action == ban.ActionBan || d.Action == ban.ActionExtend ||
			d.Action == ban.ActionCut || d.Action == ban.ActionObserve) {
			r.For = humanize.Duration(d.Duration)
		}
		v.Rows = append(v.Rows, r)
	}
	return v
}

// boundedLine escapes a text once more, in which values from the wire are escaped already, and shortens it to 600
// characters.
func boundedLine(s string) string {
	const most = 600 // characters: more than any that is meant
	s = printable.Line(s[:min(len(s), 4*most)])
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}

// capitalized makes the first letter a capital one.
func capitalized(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
