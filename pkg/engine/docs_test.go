package engine

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// TestTheDocsSayWhatTheCodeDoes compares the tables and the example of decisions.md with the code.
func TestTheDocsSayWhatTheCodeDoes(t *testing.T) {
	const file = "../../deploy/docs/decisions.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for name, want := range map[string]string{
		"evidence": evidenceDocs(), "defaults": defaultDocs(config.Default().Policy), "example": exampleDocs(t),
	} {
		_, rest, ok := strings.Cut(text, "<!-- "+name+" -->\n")
		got, _, closed := strings.Cut(rest, "<!-- end -->\n")
		if !ok || !closed || got != want {
			t.Errorf("%s, after <!-- %s -->; got\n%s\nwant\n%s", file, name, got, want)
		}
	}
}

func evidenceDocs() string {
	var b strings.Builder
	b.WriteString("| Service | Event | ACLName | AccountID | What it is | Points |\n|---|---|---|---|---|---|\n")
	cell := func(s string) string {
		switch s {
		case "":
			return "any"
		case emptyAccount:
			return "empty"
		case someAccount:
			return "not empty"
		}
		return "`" + s + "`"
	}
	for _, r := range evidenceTable() {
		name, worth := "–", "–"
		if r.typ == event.FailedACL && r.service != event.AMI {
			name = cell(r.aclName)
			if r.aclName == "" {
				name = "any other"
			}
		}
		account := cell(r.account)
		if r.typ == event.ChallengeResponseFailed && r.service == event.PJSIP && r.account == "" {
			account = "any other"
		}
		what := ""
		switch r.kind {
		case kindLogin:
			what = "a right password: trust, if UsingPassword is 1"
			if r.service == event.SIP {
				what = "a right password: trust, if that and `services.SIP` is `enforce`"
			}
		case kindChallenge:
			what, worth = "nothing by itself: see unanswered challenges", "`"+string(r.reason)+"`"
		case kindAttempt:
			what, worth = "hostile, once in each dialogue and account", "`"+string(r.reason)+"`"
		case kindGuess:
			what, worth = "a guess, once for each distinct answer", "`"+string(r.reason)+"`"
		case kindConnection:
			what, worth = "hostile, each time", "`"+string(r.reason)+"`"
		case kindMisconfigured:
			what = "an error of set-up: reported once an hour"
		case kindRefused:
			what = "an error of set-up where somebody logged in; else hostile, once in each dialogue and account"
			worth = "`" + string(r.reason) + "`"
		case kindSilentGuess:
			what, worth = "a wrong password that no event tells of, seen by a sensor", "`"+string(r.reason)+"`"
		case kindSilentLogin:
			what = "a right password that no event tells of, seen by a sensor: a breach, closed at once"
		case kindScanner:
			what, worth = "a scanner's mark, seen by a sensor: hostile, unless from a customer's address", "`"+string(r.reason)+"`"
		case kindProbe:
			what, worth = "hostile, unless somebody logged in from there", "`"+string(r.reason)+"`"
		case kindRefusedAccount:
			what, worth = "wrong credentials, seen by a sensor: a guess", "`"+string(r.reason)+"`"
		case kindNothing:
			what = "nothing: a good phone dialled a wrong number"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.service, r.typ, name, account, what, worth)
	}
	return b.String()
}

func defaultDocs(p config.Policy) string {
	var b strings.Builder
	b.WriteString("| Key of `policy` | Default |\n|---|---|\n")
	row := func(key string, value any) {
		if d, ok := value.(time.Duration); ok {
			value = humanize.ExactDuration(d)
		}
		fmt.Fprintf(&b, "| `%s` | %v |\n", key, value)
	}
	row("threshold", p.Threshold)
	row("half_life", p.HalfLife)
	row("ipv6_prefix", p.IPv6Prefix)
	row("points.unknown_account", p.Points.UnknownAccount)
	row("points.wrong_password", p.Points.WrongPassword)
	row("points.acl", p.Points.ACL)
	row("points.unanswered_challenge", p.Points.UnansweredChallenge)
	row("points.manager", p.Points.Manager)
	row("points.honeypot", p.Points.Honeypot)
	row("points.silent_guess", p.Points.SilentGuess)
	row("points.probing", p.Points.Probing)
	row("points.scanner", p.Points.Scanner)
	row("points.malformed_sip", p.Points.MalformedSIP)
	row("points.iax", p.Points.IAX)
	row("points.http", p.Points.HTTP)
	row("points.dialplan", p.Points.Dialplan)
	row("ban.first", p.Ban.First)
	row("ban.factor", p.Ban.Factor)
	row("ban.max", p.Ban.Max)
	row("ban.forgeable_max", p.Ban.ForgeableMax)
	row("ban.knock", p.Ban.Knock)
	row("ban.knock_source", p.Ban.KnockSource)
	row("ban.memory", p.Ban.Memory)
	row("trust.ttl", p.Trust.TTL)
	row("trust.tolerance", p.Trust.Tolerance)
	row("trust.accounts", p.Trust.Accounts)
	row("proxies.accounts", p.Proxies.Accounts)
	row("misconfigured.per_minute", p.Misconfigured.PerMinute)
	row("misconfigured.burst", p.Misconfigured.Burst)
	row("misconfigured.accounts", p.Misconfigured.Accounts)
	row("challenges.answer_within", p.Challenges.AnswerWithin)
	row("challenges.accounts", p.Challenges.Accounts)
	row("challenges.per_minute", p.Challenges.PerMinute)
	row("challenges.warmup", p.Challenges.Warmup)
	row("breach.failures", p.Breach.Failures)
	row("targeted.sources", p.Targeted.Sources)
	row("targeted.within", p.Targeted.Within)
	row("roaming.within", p.Roaming.Within)
	row("roaming.guesses", p.Roaming.Guesses)
	row("newplace.learning", p.NewPlace.Learning)
	row("newplace.places", p.NewPlace.Places)
	row("storm.sources", p.Storm.Sources)
	row("storm.within", p.Storm.Within)
	row("storm.memory", p.Storm.Memory)
	row("networks.sources", p.Networks.Sources)
	row("networks.ipv4_prefix", p.Networks.IPv4Prefix)
	return b.String()
}

// exampleDocs plays the example of the page and writes it down.
func exampleDocs(t *testing.T) string {
	t.Helper()
	const scanner, office = "203.0.113.66", "198.51.100.10"
	e := New(config.Default().Policy)
	var b strings.Builder
	b.WriteString("```\n")
	calls := 0
	var seen []ban.Decision
	say := func(out []ban.Decision) {
		for _, d := range out {
			seen = append(seen, d)
			line := fmt.Sprintf("%s  %-14s → %s, %s", d.Time.Format("15:04:05"), d.Source, d.Action, d.Reason)
			if d.Duration > 0 {
				line += ", for " + humanize.ExactDuration(d.Duration)
			}
			if d.Action == ban.ActionMisconfigured {
				line += ", account " + d.Account
			}
			b.WriteString(line + "\n")
		}
	}
	send := func(at, from, account string, write bool, types ...event.Type) {
		clock, err := time.Parse("15:04:05", at)
		if err != nil {
			t.Fatal(err)
		}
		now := epoch.Truncate(24 * time.Hour).Add(clock.Sub(clock.Truncate(24 * time.Hour)))
		calls++
		out, _ := e.Tick(now, nil)
		say(out)
		out = nil
		for i, typ := range types {
			ev := event.Event{Type: typ, Service: event.PJSIP, Account: account, Session: fmt.Sprint(calls),
				Response:      fmt.Sprint(i),
				UsingPassword: typ == event.SuccessfulAuth,
				Remote: event.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(from), 5060),
					Transport: event.UDP}}
			if typ == event.ChallengeSent && types[0] == event.InvalidAccountID {
				ev.Account = unknownAccount
			}
			out = e.Handle(now, "pbx", &ev, out)
		}
		if write {
			x := e.Why(now, netip.MustParseAddr(from))
			last := x.Evidence[len(x.Evidence)-1]
			fmt.Fprintf(&b, "%s  %-14s %s %s: %.1f points, score %.1f\n", at, from, last.Event, last.Account,
				last.Points, last.Score)
		}
		say(out)
	}
	const ia, cs, crf, sa = event.InvalidAccountID, event.ChallengeSent, event.ChallengeResponseFailed,
		event.SuccessfulAuth
	send("11:59:00", office, "201", false, cs, sa)
	send("12:00:00", scanner, "100", true, ia, cs)
	send("12:00:30", office, "203", true, cs, crf, crf)
	send("12:01:30", office, "203", true, cs, crf, crf)
	send("12:10:00", scanner, "101", true, ia, cs)
	send("12:12:00", scanner, "102", true, ia, cs)
	send("12:13:00", scanner, "103", true, ia, cs)
	for _, account := range []string{"104", "105", "106"} {
		send("13:30:00", scanner, account, true, ia, cs)
	}
	b.WriteString("```\n")
	for _, d := range seen {
		if d.Action == ban.ActionBan && d.Source.String() == office {
			t.Errorf("the office is banned: %+v", d)
		}
	}
	return b.String()
}
