package learn

import (
	"fmt"
	"strings"
	"testing"
)

// real is the recorded Asterisk 22 with everything allowed, and its older drivers.
func real(t testing.TB) *pbx {
	p := newPBX()
	for _, name := range []string{"PJSIPShowEndpoints", "DBGetTree", "PJSIPShowContacts", "PJSIPShowRegistrationsOutbound", "IAXpeers", "SIPpeers"} {
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
	l.ask(t.Context())
	k := l.Knowledge()
	equal(t, "Prefixes", k.Prefixes, "10.98.0.0/24 trunk trunk", "10.99.0.50/32 trunk siptrunk (SIP peer)", "fd99::50/128 trunk trunk")
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
		{"chan_sip peers", map[string]string{"SIPpeers": "SIPpeers"}, []string{"10.99.0.50/32 trunk siptrunk (SIP peer)"}, nil},
		{"one trunk", map[string]string{"PJSIPShowEndpoints": "PJSIPShowEndpoints", "PJSIPShowEndpoint:trunk": "PJSIPShowEndpoint-trunk"},
			[]string{"10.99.0.50/32 trunk trunk", "10.98.0.0/24 trunk trunk", "fd99::50/128 trunk trunk"}, nil},
		{"contacts by the second way", map[string]string{"PJSIPShowEndpoints": "PJSIPShowEndpoints", "PJSIPShowEndpoint:6001": "PJSIPShowEndpoint-6001",
			"PJSIPShowContacts": "PJSIPShowContacts"}, nil, []string{"10.99.0.10/32 contact of 6001", "fd99::10/128 contact of 6001"}},
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
