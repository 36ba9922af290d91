package learn

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// real is the recorded Asterisk 22 with everything allowed, and its older drivers.
func real(t testing.TB) *pbx {
	p := newPBX()
	for _, name := range []string{"PJSIPShowEndpoints", "DBGetTree", "PJSIPShowContacts",
		"PJSIPShowRegistrationsOutbound", "IAXpeers", "SIPpeers"} {
		p.set(name, recorded(t, name))
	}
	p.set("PJSIPShowEndpoint", refusal("Unable to retrieve endpoint"))
	p.set("PJSIPShowEndpoint:6001", recorded(t, "PJSIPShowEndpoint-6001"))
	p.set("PJSIPShowEndpoint:trunk", recorded(t, "PJSIPShowEndpoint-trunk"))
	p.set("Command", recorded(t, "Command-identifies"))
	return p
}

func TestEverythingThatARealAsteriskTells(t *testing.T) {
	l, log := learner(real(t))
	l.Connected()
	l.askRound(t.Context())
	k := l.Knowledge()
	equal(t, "Prefixes", k.Prefixes, "10.98.0.0/24 trunk trunk", "10.99.0.50/32 trunk siptrunk (SIP peer)",
		"fd99::50/128 trunk trunk")
	// The phone's endpoint has rewrite_contact=yes, so its private address is its source; the other endpoints could not
	// be read, so theirs are claims. IAX2 takes the address from the packet.
	equal(t, "Contacts", k.Contacts, "10.99.0.10/32 contact of 6001 and 1 more", "fd99::10/128 contact of 6001")
	if want := (Skipped{Private: 4}); k.Skipped != want {
		t.Errorf("skipped %+v, want %+v", k.Skipped, want)
	}
	if len(k.Denied)+len(k.Refused)+len(k.Failed) > 0 || k.At.IsZero() || k.PBX != "pbx1" || k.Hint() != "" {
		t.Errorf("%+v", k)
	}
	for _, secret := range []string{"goodpass", "labcust", "Password"} {
		if everything := fmt.Sprintf("%+v %s %+v", k, log, l.endpoints["6001"]); strings.Contains(everything, secret) {
			t.Errorf("%q is kept or logged: %s", secret, everything)
		}
	}
}

func TestEachRecordedQuery(t *testing.T) {
	for _, c := range []struct {
		name     string
		queries  map[string]string
		prefixes []string
		contacts []string
	}{
		{"contacts of unknown endpoints", map[string]string{"DBGetTree": "DBGetTree"}, nil, nil},
		{"identify sections on the console", map[string]string{"Command": "Command-identifies"},
			[]string{"10.99.0.50/32 trunk trunk", "10.98.0.0/24 trunk trunk", "fd99::50/128 trunk trunk"}, nil},
		{"no identify section", map[string]string{"Command": "Command-unidentified"}, nil, nil},
		{"outbound registration", map[string]string{"PJSIPShowRegistrationsOutbound": "PJSIPShowRegistrationsOutbound"},
			[]string{"10.99.0.50/32 registration itsp-reg"}, nil},
		{"IAX2 peers", map[string]string{"IAXpeers": "IAXpeers"}, nil, []string{"10.99.0.10/32 contact of iax100"}},
		{"chan_sip peers", map[string]string{"SIPpeers": "SIPpeers"},
			[]string{"10.99.0.50/32 trunk siptrunk (SIP peer)"}, nil},
		{"one trunk", map[string]string{"PJSIPShowEndpoints": "PJSIPShowEndpoints",
			"PJSIPShowEndpoint:trunk": "PJSIPShowEndpoint-trunk"},
			[]string{"10.99.0.50/32 trunk trunk", "10.98.0.0/24 trunk trunk", "fd99::50/128 trunk trunk"}, nil},
		{"contacts by the second way", map[string]string{"PJSIPShowEndpoints": "PJSIPShowEndpoints",
			"PJSIPShowEndpoint:6001": "PJSIPShowEndpoint-6001",
			"PJSIPShowContacts":      "PJSIPShowContacts"}, nil,
			[]string{"10.99.0.10/32 contact of 6001", "fd99::10/128 contact of 6001"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPBX()
			p.set("PJSIPShowEndpoint", refusal("Unable to retrieve endpoint"))
			for action, file := range c.queries {
				p.set(action, recorded(t, file))
			}
			k := once(t, p)
			equal(t, "Prefixes", k.Prefixes, c.prefixes...)
			equal(t, "Contacts", k.Contacts, c.contacts...)
			if len(k.Failed) > 0 {
				t.Errorf("failed: %v", k.Failed)
			}
		})
	}
}

// A PBX whose clock is wrong, by as much as a dead battery or a restored machine makes of it, and one that has
// forgotten to remove a phone that is gone.
func TestContactsExpireByAsterisksOwnClock(t *testing.T) {
	pong := func(at time.Time) string {
		return fmt.Sprintf("Response: Success\r\nActionID: q1\r\nPing: Pong\r\nTimestamp: %d.214397\r\n\r\n", at.Unix())
	}
	years := func(n int) func(*Config) {
		return func(c *Config) { c.Now = func() time.Time { return recordedAt().AddDate(n, 0, 0) } }
	}
	const everything, nothing = "10.99.0.10/32 fd99::10/128", ""
	for _, c := range []struct {
		name     string
		change   func(*Config)
		ping     string
		contacts string
		expired  int
		failed   bool
	}{
		{"the same time", years(0), pong(recordedAt()), everything, 0, false},
		{"Asterisk is ten years behind", years(10), recorded(t, "Ping"), everything, 0, false},
		{"Asterisk is ten years ahead", years(-10), recorded(t, "Ping"), everything, 0, false},
		{"both know that it is late", years(10), pong(recordedAt().AddDate(10, 0, 0)), nothing, 10, false},
		{"Asterisk is further on than we, and late", years(10), pong(recordedAt().AddDate(20, 0, 0)), nothing, 10,
			false},
		{"Asterisk does not tell", years(10), "denied", nothing, 10, false},
		{"nor does an older one", years(10), "Response: Pong\r\nActionID: q1\r\n\r\n", nothing, 10, false},
		{"two times", years(10), strings.Replace(recorded(t, "Ping"), "Ping: Pong", "Timestamp: 1", 1), nothing, 10,
			false},
		{"no time", years(10), strings.Replace(recorded(t, "Ping"), "1795384960", "yesterday", 1), nothing, 10, false},
		{"a time before all times", years(10),
			strings.Replace(recorded(t, "Ping"), "1795384960", "-9223372036854775808", 1), nothing, 10, false},
		{"a time after all times", years(0),
			strings.Replace(recorded(t, "Ping"), "1795384960", "9223372036854775807", 1), everything, 0, false},
		{"a time after all times, and late", years(10),
			strings.Replace(recorded(t, "Ping"), "1795384960", "9223372036854775807", 1), nothing, 10, false},
		{"an error", years(10), refusal("x"), nothing, 10, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := real(t)
			p.set("IAXpeers", "denied") // its contacts do not expire
			p.set("SIPpeers", "denied")
			p.set("Ping", c.ping)
			k := once(t, p, c.change)
			var got []string
			for prefix := range k.Contacts {
				got = append(got, prefix.String())
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.contacts || k.Skipped.Expired != c.expired || len(k.Failed) > 0 != c.failed {
				t.Errorf("contacts %v, want %v; skipped %+v, want %d expired; failed %v", got, c.contacts, k.Skipped,
					c.expired, k.Failed)
			}
			for _, d := range k.Denied {
				if d.Action == "Ping" {
					t.Errorf("Asterisk's user is told to ask for %+v", d)
				}
			}
		})
	}
	// Where no contact is out of date, nothing is asked for.
	p := real(t)
	once(t, p)
	if asked := p.questions(); slices.Contains(asked, "Ping") {
		t.Errorf("asked %v", asked)
	}
}
