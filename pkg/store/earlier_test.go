package store

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// The files were written by the programs of commits 6e911f9 and, with an entry of the allow list that ends, d494128.
func TestFilesOfEarlierProgramsAreRead(t *testing.T) {
	p := netip.MustParsePrefix
	want := State{
		Bans: []ban.Ban{
			{Prefix: p("192.0.2.0/24"), Source: netip.MustParseAddr("192.0.2.9"), Reason: ban.ReasonNetwork,
				Since: start.Add(3 * time.Hour), Until: start.Add(6 * time.Hour), Number: 1, PBX: "pbx1", Attempts: 5,
				Comment: "5 addresses of this network are banned"},
			{Prefix: p("192.0.2.77/32"), Reason: ban.ReasonAdopted, Since: start, Until: start.Add(5 * time.Hour)},
			{Prefix: p("198.51.100.0/24"), Reason: ban.ReasonManual, Since: start.Add(2 * time.Hour),
				Until: start.Add(365 * 24 * time.Hour), Manual: true,
				Comment: "a call centre that nobody knows: ticket 4711"},
			{
				Prefix: p("203.0.113.5/32"), Source: netip.MustParseAddr("203.0.113.5"),
				Reason: ban.ReasonWrongPassword,
				Since:  start, Until: start.Add(24 * time.Hour), Score: 12.25, Proven: true, Number: 3, PBX: "pbx1",
				Attempts: 41,
				Evidence: []ban.Evidence{
					{Time: start.Add(-2 * time.Second), Event: "InvalidAccountID", Service: "PJSIP", Transport: "UDP",
						Account: "a\x00\u2028\xff", Reason: ban.ReasonUnknownAccount, Points: 4, Score: 4, PBX: "pbx1"},
					{Time: start, Event: "ChallengeResponseFailed", Service: "PJSIP", Transport: "TLS", Account: "201",
						Reason: ban.ReasonWrongPassword, Points: 8.25, Score: 12.25, Proven: true, PBX: "pbx1",
						Note:       "the account logged in elsewhere within a day: allowance for a roaming user",
						Multiplier: 2, Country: "NL", ASN: 64496},
				},
			},
			{Prefix: p("2001:db8:1:2::/64"), Source: netip.MustParseAddr("2001:db8:1:2::7"),
				Reason: ban.ReasonUnknownAccount,
				Since:  start.Add(time.Hour), Until: start.Add(48 * time.Hour), Score: 10, Number: 1, PBX: "pbx2",
				Attempts: 3},
		},
		Offenders: []ban.Offender{
			{Prefix: p("203.0.113.5/32"), Bans: 2, Last: start.Add(-30 * time.Hour)},
			{Prefix: p("203.0.113.9/32"), Bans: 7, Last: start.Add(-time.Hour)},
		},
		Trusts: []ban.Trust{
			{Prefix: p("2001:db8:9::/64"), Since: start, Until: start, Last: start},
			{Prefix: p("203.0.113.66/32"), Since: start.Add(-240 * time.Hour), Until: start.Add(24 * time.Hour),
				Last:     start,
				Accounts: []string{"201", "202"}},
		},
		Allow: []Allow{
			{Host: "phone.example.net", Added: start.Add(time.Minute), By: "root"},
			{Prefix: p("203.0.113.128/25"), Added: start, By: "alice (uid 1000)", Note: "the office"},
		},
		Graces: []ban.Grace{{Prefix: p("198.51.100.7/32"), Since: start, Until: start.Add(12 * time.Hour)}},
	}
	byPrefix := func(s *State) {
		sortBy(s.Bans, func(b ban.Ban) string { return b.Prefix.String() })
		sortBy(s.Offenders, func(o ban.Offender) string { return o.Prefix.String() })
		sortBy(s.Trusts, func(t ban.Trust) string { return t.Prefix.String() })
		sortBy(s.Allow, func(a Allow) string { return a.Host + a.Prefix.String() })
	}
	limited := Allow{Prefix: p("203.0.113.99/32"), Added: start, By: "bob (uid 1001)", Until: start.Add(8 * time.Hour)}
	for file, allow := range map[string][]Allow{
		"testdata/version-1.db": want.Allow, "testdata/version-1-until.db": append([]Allow{limited}, want.Allow...),
	} {
		path := statePath(t)
		writeFile(t, path, readFile(t, file))
		s, r := mustOpen(t, path, Options{})
		want := want
		want.Allow = allow
		got := mustLoad(t, s, start.Add(3*time.Hour+time.Minute))
		byPrefix(&want)
		byPrefix(&got)
		if r.Adopt() || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\ngot  %+v\nwant %+v", file, r, got, want)
		}
		lines, err := s.History(t.Context(), time.Time{}, netip.Addr{})
		if err != nil || len(lines) != 2 {
			t.Fatalf("%s: %d lines, %v", file, len(lines), err)
		}
		if l := lines[0]; l.Time != start || l.Source.String() != "203.0.113.5" || l.Prefix != p("203.0.113.5/32") {
			t.Errorf("%s: %+v", file, l)
		}
		if l := lines[1]; l.Time != start.Add(time.Second) || l.Source.IsValid() || l.Prefix.IsValid() {
			t.Errorf("%s: %+v", file, l)
		}
	}
}
