package wording

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func clock(t time.Time) string { return t.Format("15:04") }

func TestVerdict(t *testing.T) {
	banned := &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Reason: ban.ReasonNetwork, Until: noon,
		Left: 3480, Attempts: 6, Accounts: []string{"201", "\x1b[31m"}}
	allow := &ban.Exemption{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Origin: "config", Note: "the office"}
	trust := &ban.Trust{Until: noon, Accounts: []string{"201"}}
	for _, row := range []struct {
		verdict string
		ban     *ban.Ban
		want    string
	}{
		{"banned", banned, `203.0.113.5 is banned with all of 203.0.113.0/24 until 12:00, for another 58m: network, 6 attempts on 2 accounts (201, \x1b[31m).`},
		{"observed", banned, `203.0.113.5 would be banned until 12:00, but Ringwall only observes: network, 6 attempts on 2 accounts (201, \x1b[31m).`},
		{"banned", &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonScanner, Until: noon, Left: 1,
			Origin: "pbx-berlin", Comment: "3 attempts"},
			"203.0.113.5 is banned until 12:00, for another 1s: scanner, seen by pbx-berlin (3 attempts)."},
		{"banned", &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Manual: true, Until: noon, Left: 1,
			Comment: "spam"}, `203.0.113.5 is banned until 12:00, for another 1s: by hand, "spam".`},
		{"banned", &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Until: noon, Left: 60, Attempts: 3,
			Reason: ban.ReasonUnknownAccount, Closes: ban.ClosesUDP},
			`203.0.113.5 is banned until 12:00, for another 1m (UDP only): unknown account, 3 attempts.`},
		{"banned", &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Until: noon, Left: 60, Attempts: 3,
			Reason: ban.ReasonManager, Closes: ban.ClosesManager},
			`203.0.113.5 is banned until 12:00, for another 1m (AMI only): manager, 3 attempts.`},
		{"trusted", nil, `203.0.113.5 is not banned, and trusted until 12:00: 201 logged in from there with the right password.`},
		{"allowed", banned, `203.0.113.5 is never banned: it is on the allow list (203.0.113.5/32, from config: the office).`},
		{"protected", banned, `203.0.113.5 is never banned: Asterisk knows it (203.0.113.5/32, from config: the office).`},
		{"suspicious", nil, `203.0.113.5 is not banned: its score is 4.5 of 10 points.`},
		{"unknown", nil, `203.0.113.5 is not banned: Ringwall has seen nothing from it.`},
	} {
		got := VerdictSentence(engine.Explanation{Address: netip.MustParseAddr("203.0.113.5"),
			Source: netip.MustParsePrefix("203.0.113.5/32"), Verdict: row.verdict, Ban: row.ban, Allow: allow,
			Trust: trust, Score: 4.5, Threshold: 10}, clock)
		if got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.verdict, got, row.want)
		}
	}
}

func TestEvidenceHasNoByteFromTheWireUnescaped(t *testing.T) {
	by, note := EvidenceNote(ban.Evidence{Service: "PJ\x1bSIP", Transport: "UDP\n", Reason: ban.ReasonWrongPassword})
	if by != `PJ\x1bSIP/UDP\x0a` || note != "wrong password" {
		t.Errorf("%q %q", by, note)
	}
	if _, note = EvidenceNote(ban.Evidence{Reason: ban.ReasonSilentGuess,
		SeenBy: "tap"}); note != "silent guess (seen by: tap)" {
		t.Errorf("%q", note)
	}
	if _, note = EvidenceNote(ban.Evidence{Note: "a\u202eb"}); strings.Contains(note, "\u202e") {
		t.Errorf("%q", note)
	}
}
