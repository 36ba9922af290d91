package notify

import (
	"fmt"
	"net/netip"
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
