package notify

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

func TestEveryActionAndReasonCanBeAskedFor(t *testing.T) {
	text := "asterisk: [{address: a, username: b, secret: c}]\nnotify: [{url: \"https://a.example/\", actions: [" +
		list(ban.Actions()) + "], reasons: [" + list(ban.Reasons()) + "]}]\n"
	if _, _, err := config.Parse(strings.NewReader(text), "ringwall.yaml", config.Environment{}); err != nil {
		t.Error(err)
	}
}

func list[T ~string](words []T) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(words), "[]"), " ", ", ")
}

func TestEveryActionHasATitle(t *testing.T) {
	titles := map[string]ban.Action{}
	for _, action := range ban.Actions() {
		d := banDecision(1)
		d.Action = action
		m := describeDecision(d, "host")
		if other, taken := titles[m.Title]; taken ||
			strings.HasPrefix(m.Title, "Ringwall on host: "+string(action)+" ") || strings.Contains(m.Title, "100") {
			t.Errorf("%s: %q, as %s", action, m.Title, other)
		}
		titles[m.Title] = action
	}
}

func TestABanInWords(t *testing.T) {
	d := banDecision(1)
	d.Detail, d.Duration = "five guesses in a minute", 90*time.Minute
	m := describeDecision(d, "pbx.example.net")
	if m.Title != "Ringwall on pbx.example.net: 10.0.0.1 is banned" ||
		m.Text != "Reason: unknown account, score 12, for 1h30m, at pbx1. five guesses in a minute" ||
		m.Duration != "1h30m" {
		t.Errorf("%+v", m)
	}
	if m := describeDecision(ban.Decision{Action: ban.ActionTampering}, "h"); m.Source != "" || m.Prefix != "" ||
		!strings.Contains(m.Title, "tampers") {
		t.Errorf("%+v", m)
	}
}

// What is not about all of a source must not sound so, and a program that passes it on must be able to tell.
func TestANarrowVerdictInWords(t *testing.T) {
	office := netip.MustParseAddr("198.51.100.7")
	of := func(a ban.Action, r ban.Reason, s ban.Scope, c ban.Closes) ban.Decision {
		return ban.Decision{Action: a, Reason: r, Scope: s, Closes: c, Source: office, Prefix: netip.PrefixFrom(office, 32),
			Duration: time.Hour}
	}
	cut := of(ban.ActionCut, ban.ReasonWrongPassword, ban.ScopeFlow, ban.ClosesAll)
	cut.Flow = ban.Flow{Source: netip.AddrPortFrom(office, 4711)}
	for _, row := range []struct {
		d                    ban.Decision
		text                 string
		scope, closes, sends string
	}{
		{of(ban.ActionBan, ban.ReasonUnknownAccount, ban.ScopeSource, ban.ClosesAll), "Reason: unknown account, for 1h.",
			"source", "all", ""},
		{of(ban.ActionBan, ban.ReasonUnknownAccount, ban.ScopeSource, ban.ClosesUDP),
			"Reason: unknown account, for 1h, UDP only.", "source", "udp", ""},
		{of(ban.ActionBan, ban.ReasonManager, ban.ScopeService, ban.ClosesManager),
			"Reason: manager, for 1h, the manager's ports only.", "service", "manager", ""},
		{cut, "Reason: wrong password, for 1h, tcp 198.51.100.7:4711.", "flow", "", "tcp 198.51.100.7:4711"},
		{ban.Decision{Action: ban.ActionTrust, Reason: ban.ReasonLogin}, "Reason: login.", "", "", ""},
	} {
		m := describeDecision(row.d, "pbx")
		if m.Text != row.text || m.Scope != row.scope || m.Closes != row.closes || m.Flow != row.sends {
			t.Errorf("%+v", m)
		}
		for _, want := range []string{"RINGWALL_SCOPE=" + row.scope, "RINGWALL_CLOSES=" + row.closes,
			"RINGWALL_FLOW=" + row.sends} {
			if !slices.Contains(environmentOf(m), want) {
				t.Errorf("no %s", want)
			}
		}
	}
	for reason, want := range map[ban.Reason]string{
		ban.ReasonStorm: "many customers fail at once", ban.ReasonManual: "somebody let it in", ban.ReasonLimit: "a bound",
		ban.ReasonPace: "attacks, and is not banned",
	} {
		if m := describeDecision(ban.Decision{Action: ban.ActionObserve, Reason: reason}, "pbx"); !strings.Contains(m.Title,
			want) || strings.Contains(m.Title, "would be banned") {
			t.Errorf("%s: %q", reason, m.Title)
		}
	}
	if m := describeDecision(of(ban.ActionProxy, ban.ReasonProxy, "", ban.ClosesAll), "pbx"); m.Title !=
		"Ringwall on pbx: 198.51.100.7 looks like a proxy: many accounts log in through it" {
		t.Errorf("%q", m.Title)
	}
	m := describeDecision(ban.Decision{Action: ban.ActionReview, Reason: ban.ReasonObserved, Detail: "12 would be"}, "pbx")
	if m.Title != "Ringwall on pbx: what observing has shown: who would be banned, and whether customers are among them" ||
		m.Text != "Reason: observed. 12 would be" {
		t.Errorf("%q, %q", m.Title, m.Text)
	}
}

func TestASummaryAddsUp(t *testing.T) {
	var s summary
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.addDecision(banDecision(1), start)
	s.addDecision(banDecision(1), start.Add(time.Second))
	first := s.toMessage("host", start)
	if first.Count != 2 || len(first.Prefixes) != 1 {
		t.Errorf("%+v", first)
	}
	var next summary
	next.addDecision(breach(), start.Add(time.Minute))
	next.addMessage(first, start)
	next.addMessage(message.Message{Action: "ban", Prefix: "192.0.2.0/24"}, start.Add(time.Hour))
	next.addSummary(summary{})
	next.addSummary(s)
	m := next.toMessage("host", start)
	if m.Count != 6 || len(m.Actions) != 2 || m.Actions[1].Count != 5 || !next.since.Equal(start) ||
		len(m.Prefixes) != 3 ||
		!strings.Contains(m.Text, "1 breach, 5 ban") || !strings.Contains(m.Text, "2026-01-02 03:04:05") {
		t.Errorf("%+v", m)
	}
}

// Who is never banned is not said to be about to be.
func TestTheExemptWouldNotBeBanned(t *testing.T) {
	d := ban.Decision{Action: ban.ActionObserve, Reason: ban.ReasonAllowed, Source: netip.MustParseAddr("127.0.0.1"),
		Prefix: netip.MustParsePrefix("127.0.0.1/32")}
	if m := describeDecision(d, "pbx"); m.Title != "Ringwall on pbx: 127.0.0.1 attacks, but is on the allow list" {
		t.Errorf("%q", m.Title)
	}
	d.Reason = ban.ReasonProtected
	if m := describeDecision(d, "pbx"); m.Title != "Ringwall on pbx: 127.0.0.1 looks like an attacker, but Asterisk "+
		"knows it" {
		t.Errorf("%q", m.Title)
	}
}
