package demo

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/printable"
)

var update = flag.Bool("update", false, "write the golden files")

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// played is the end of a run in which all went well.
func played() snapshot {
	s := snapshot{start: start, elapsed: 30100 * time.Millisecond, tampered: 1}
	for _, p := range allParticipants() {
		r := participantRow{participant: p, sent: 500, arrived: 3, first: start,
			last: start.Add(101 * time.Millisecond)}
		switch p.role {
		case attacker:
			r.ban = &ban.Decision{Action: ban.ActionBan, Prefix: p.judgedSource(), Reason: ban.ReasonUnknownAccount,
				Duration: time.Hour}
			r.inKernel, r.reaction = true, 440*time.Microsecond
		case customer:
			r.arrived, r.answered, r.trusted, r.misconfigured = 500, true, p.earnsTrust(), !p.earnsTrust()
		case forger:
			r.sent, r.arrived, r.tamperingReported = 1, 1, true
		}
		s.rows = append(s.rows, r)
	}
	return s
}

func TestHostileNamesDoNotReachTheTerminal(t *testing.T) {
	s := played()
	for i, name := range []string{
		"\x1b[2J\x1b]0;owned\a", "100\r\n\x1b[1A", "\u202e\u0300abc", "\xff\xfe\u009b31m", strings.Repeat("漢", 100),
		`back\slash`,
	} {
		s.recent = append(s.recent, ban.Decision{
			Time: start.Add(time.Duration(i) * 1111 * time.Millisecond), Action: ban.ActionBan, Account: name,
			Score:    12,
			Duration: 4 * time.Hour,
			Prefix:   netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonUnknownAccount,
			Service: event.PJSIP,
		})
	}
	for _, width := range []int{20, 80, 100} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			var out strings.Builder
			story := newReporter(Options{Out: &out, Terminal: true, Width: width}, environment{})
			for range 2 {
				story.progress(s, nil)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\x1b[J"), "\n") {
				for _, own := range []string{"\x1b[17A\r", "\x1b[18A\r", "\x1b[J", "\x1b[K"} {
					line = strings.ReplaceAll(line, own, "")
				}
				if printable.Line(line) != line || printable.Width(line) >= width {
					t.Errorf("%d columns: %q", printable.Width(line), line)
				}
			}
			if width == 100 {
				golden(t, "table.golden", out.String())
			}
		})
	}
}

func TestSummaryForPeople(t *testing.T) {
	var out strings.Builder
	story := newReporter(Options{Out: &out}, environment{userNS: true})
	s := played()
	story.start(s)
	if err := story.finish(s, nil, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.golden", out.String())
}

func TestDryRunSaysSoToPeople(t *testing.T) {
	var out strings.Builder
	story := newReporter(Options{Out: &out}, environment{dryRun: true, dryRunReason: "\x1b[2J"})
	s := played()
	s.dry = true
	story.start(s)
	if err := story.finish(s, nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DRY RUN", "would be banned", "would ban", `\x1b[2J`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	for _, lie := range []string{"BANNED", "is banned for", "were stopped", "ban was in the kernel", "\x1b"} {
		if strings.Contains(out.String(), lie) {
			t.Errorf("a dry run says %q:\n%s", lie, &out)
		}
	}
}

func TestFailuresAreTold(t *testing.T) {
	for _, o := range []Options{{}, {JSON: true}, {Terminal: true, Width: 80}} {
		var out strings.Builder
		o.Out = &out
		err := newReporter(o, environment{}).finish(played(), []string{"it rained\x1b"}, errors.New("it rained"))
		if err != nil || !strings.Contains(out.String(), "it rained") || strings.Contains(out.String(), "Next:") ||
			strings.Contains(out.String(), "rained\x1b") || strings.Contains(out.String(), `"ok":true`) {
			t.Errorf("%v: %s", err, &out)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what came (write it with -update):\n%s", file, got)
	}
}

func TestFailures(t *testing.T) {
	find := func(s *snapshot, name string) *participantRow {
		return &s.rows[slices.IndexFunc(s.rows, func(r participantRow) bool { return r.name == name })]
	}
	for _, r := range []struct {
		name   string
		change func(*snapshot)
		want   string // "" is none
	}{
		{"all is well", func(*snapshot) {}, ""},
		{"not banned", func(s *snapshot) { find(s, "scanner").ban = nil }, "scanner (203.0.113.5) was not banned"},
		{"not in the kernel", func(s *snapshot) { find(s, "IPv6 scanner").inKernel = false },
			"IPv6 scanner (2001:db8:bad::/64) was banned, but the kernel does not have it"},
		{"the same in a dry run", func(s *snapshot) { s.dry = true; find(s, "scanner").inKernel = false }, ""},
		{"packets came later", func(s *snapshot) { find(s, "scanner").arrivedAfterBan = 2 },
			"scanner (203.0.113.5) was banned, but 2 packets that it sent later arrived"},
		{"what the door of a ban of UDP lets through", func(s *snapshot) {
			find(s, "scanner").ban.Closes, find(s, "scanner").arrivedAfterBan = ban.ClosesUDP, 4
		}, ""},
		{"more than that", func(s *snapshot) {
			find(s, "scanner").ban.Closes, find(s, "scanner").arrivedAfterBan = ban.ClosesUDP, 5
		}, "scanner (203.0.113.5) was banned, but 5 packets that it sent later arrived"},
		{"nothing was stopped", func(s *snapshot) { find(s, "guesser").arrived = 500 },
			"guesser (198.51.100.66) was banned, but no packet was stopped"},
		{"a customer in the kernel", func(s *snapshot) { find(s, "home").inKernel = true },
			"home (198.51.100.140) is banned in the kernel"},
		{"a customer without an answer", func(s *snapshot) { find(s, "lone phone").answered = false },
			"lone phone (203.0.113.90) had no answer after the attack"},
		{"a customer without trust", func(s *snapshot) { find(s, "office").trusted = false },
			"office (198.51.100.20) logged in and was not trusted"},
		{"the injector in the kernel", func(s *snapshot) { find(s, "injector").inKernel = true },
			"injector (203.0.113.200) is banned in the kernel for one packet"},
		{"tampering unseen", func(s *snapshot) { find(s, "injector").tamperingReported = false },
			"injector (203.0.113.200) was not reported as tampering"},
	} {
		t.Run(r.name, func(t *testing.T) {
			s := played()
			r.change(&s)
			if got := strings.Join(s.failures(), "; "); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
		})
	}
}

func TestDecisionsThatNobodyShouldMake(t *testing.T) {
	for _, r := range []struct {
		action ban.Action
		prefix string
		want   string
	}{
		{ban.ActionBan, "203.0.113.5/32", ""},
		{ban.ActionBan, "2001:db8:bad::/64", ""},
		{ban.ActionTrust, "198.51.100.20/32", ""},
		{ban.ActionMisconfigured, "198.51.100.20/32", ""},
		{ban.ActionBan, "8.8.8.8/32", "ban of 8.8.8.8/32, which sent nothing"},
		{ban.ActionBan, "198.51.100.20/32", "office was banned"},
		{ban.ActionBan, "198.51.100.0/24", "office was banned; home was banned"},
		{ban.ActionBan, "203.0.113.200/32", "injector was banned"},
		{ban.ActionTrust, "198.51.100.66/32", "guesser was trusted"},
		{ban.ActionTrust, "8.8.8.8/32", "trust of 8.8.8.8/32, which sent nothing"},
		{ban.ActionUntrust, "198.51.100.140/32", "home is no longer trusted"},
		{ban.ActionUnban, "203.0.113.5/32", "the ban of scanner ended"},
	} {
		l := newTally(start, false, allParticipants())
		l.recordDecision(ban.Decision{Action: r.action, Prefix: netip.MustParsePrefix(r.prefix)})
		if got := strings.Join(l.takeSnapshot(start).unexpected, "; "); got != r.want {
			t.Errorf("%s of %s: got %q, want %q", r.action, r.prefix, got, r.want)
		}
	}
}

func TestOnlyPacketsSentAfterTheBanAreLate(t *testing.T) {
	l := newTally(start, false, allParticipants())
	src := netip.MustParseAddr("203.0.113.5")
	r := l.byAddress[src]
	first, onItsWay := l.countSent(r), l.countSent(r)
	l.countArrived(src, first)
	l.recordDecision(ban.Decision{Action: ban.ActionBan, Prefix: netip.MustParsePrefix("203.0.113.5/32")})
	l.countArrived(src, onItsWay)
	if r.arrivedAfterBan != 0 {
		t.Error("a packet that was on its way when the ban came is no leak")
	}
	l.countArrived(src, l.countSent(r))
	if r.arrivedAfterBan != 1 || r.arrived != 3 {
		t.Errorf("%+v", r)
	}
}
