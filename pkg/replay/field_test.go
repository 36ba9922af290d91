package replay_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

// field plays the recordings of one case, each by itself.
func field(t *testing.T, pattern string, check func(t *testing.T, r result)) {
	t.Helper()
	files, err := filepath.Glob("testdata/field/" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { check(t, run(t, nil, name)) })
	}
}

// names are the accounts of the decisions of one action, each once.
func (r result) names(action ban.Action) (names []string) {
	for _, d := range r.decisions {
		if d.Action == action && !slices.Contains(names, d.Account) {
			names = append(names, d.Account)
		}
	}
	return names
}

// wantNobodyBanned wants no ban, not even an observed one, and nobody to lose trust by failing.
func (r result) wantNobodyBanned(t *testing.T) {
	t.Helper()
	if r.Bans+r.Observed > 0 || slices.ContainsFunc(r.decisions, func(d ban.Decision) bool {
		return d.Action == ban.ActionUntrust && d.Reason != ban.ReasonExpired
	}) {
		t.Errorf("%q", briefs(r.decisions))
	}
}

// wantNames wants exactly these accounts in the decisions of an action.
func (r result) wantNames(t *testing.T, action ban.Action, want ...string) {
	t.Helper()
	if got := r.names(action); !slices.Equal(got, want) {
		t.Errorf("%s: accounts %q, want %q; %q", action, got, want, briefs(r.decisions))
	}
}

// TestOfficeWithADeletedExtension has an office of forty phones, one of which belongs to an extension that was deleted,
// and such a phone alone in a new branch.
func TestOfficeWithADeletedExtension(t *testing.T) {
	field(t, "deleted-extension/*", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionMisconfigured, "217")
	})
}

// TestOfficeWithAnOldManagerSecret has an office of forty phones, and a program there whose manager secret is last
// week's, or whose address the manager's ACL forbids.
func TestOfficeWithAnOldManagerSecret(t *testing.T) {
	field(t, "old-manager-secret/*", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionMisconfigured, "crm")
	})
}

// TestAnonymousEndpoint has requests that only an endpoint without auth takes: three hundred within a minute, and others
// at a device's pace.
func TestAnonymousEndpoint(t *testing.T) {
	isFlood := func(d ban.Decision) bool { return d.Source.String() == "203.0.113.95" }
	field(t, "anonymous-endpoint/*", func(t *testing.T, r result) {
		if i := slices.IndexFunc(r.decisions, isFlood); i < 0 || r.decisions[i].Action != ban.ActionBan {
			t.Errorf("not banned first of all: %q", briefs(r.decisions))
		}
		for _, m := range r.Misconfigured {
			if m.Source.Addr().String() == "203.0.113.95" {
				t.Errorf("called misconfigured: %+v", m)
			}
		}
	})
	honeypots := func(o *replay.Options) { o.Policy.Honeypots = []string{"anonymous"} }
	r := run(t, honeypots, "testdata/field/anonymous-endpoint/security.log.gz")
	if r.Bans == 0 || r.decisions[0].Reason != ban.ReasonHoneypot || r.Blocked < 299 {
		t.Errorf("%d blocked, %q", r.Blocked, briefs(r.decisions))
	}
}

// TestChanSIPOffice has an office whose phones log in through chan_sip, three of them with an old password.
func TestChanSIPOffice(t *testing.T) {
	for _, mode := range []config.Mode{config.Observe, config.Enforce} {
		r := run(t, func(o *replay.Options) {
			o.Policy.Services = map[string]config.Mode{"PJSIP": config.Enforce, "AMI": config.Enforce, "SIP": mode}
		}, "testdata/field/chan-sip-office/security.log.gz")
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionMisconfigured, "300", "301", "302")
		if trusted := mode == config.Enforce; r.LoggedIn != 1 || (r.Trusted == 1) != trusted {
			t.Errorf("%s: %d sources with logins, %d trusted", mode, r.LoggedIn, r.Trusted)
		}
	}
}

// TestFloodOfCalls has requests for accounts that exist, of which none gets an answer with a password.
func TestFloodOfCalls(t *testing.T) {
	field(t, "invite-flood/*", func(t *testing.T, r result) {
		if r.Bans != 1 || len(r.Customers) > 0 || r.Banned[0].Reason != ban.ReasonUnansweredChallenge {
			t.Errorf("%q", briefs(r.decisions))
		}
	})
}

// TestStolenPassword has an account that always logged in from one place, and at night from four others.
func TestStolenPassword(t *testing.T) {
	field(t, "stolen-password/*", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionNewPlace, "203")
		if len(r.NewPlaces) != 1 || r.NewPlaces[0].First.Format("15:04") != "03:10" {
			t.Errorf("%+v", r.NewPlaces)
		}
	})
}

// TestSIPProxy has two hundred customers who log in through one address, and an attacker behind it.
func TestSIPProxy(t *testing.T) {
	field(t, "proxy/proxy-[TU]??.log.gz", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		if len(r.Proxies) != 1 || r.Proxies[0].Source.Addr().String() != "198.51.100.9" {
			t.Errorf("%+v", r.Proxies)
		}
	})
	// Nobody knows it yet, and the attacker goes on through the door: all that can be said is what it looks like.
	field(t, "proxy/*-first-scan.log.gz", func(t *testing.T, r result) {
		if r.Bans != 1 || len(r.Customers) != 1 || r.Customers[0].Through != 200 {
			t.Errorf("%+v", r.Customers)
		}
	})
}
