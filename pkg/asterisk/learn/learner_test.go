package learn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// run starts a learner in a bubble. heard returns the Knowledge that came since the last call.
func run(t *testing.T, p *pbx, change ...func(*Config)) (l *Learner, heard func() []Knowledge) {
	t.Helper()
	var mu sync.Mutex
	var all []Knowledge
	l, _ = learner(p, append(change, func(c *Config) {
		c.OnKnowledge = func(k Knowledge) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, k)
		}
	})...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l, func() []Knowledge {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := all
		all = nil
		return out
	}
}

func TestAsksAfterEachLoginAndAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := real(t)
		l, heard := run(t, p)
		time.Sleep(time.Hour)
		if asked, told := p.questions(), heard(); len(asked)+len(told) > 0 {
			t.Fatalf("before the first login: asked %v, told %v", asked, told)
		}
		l.Connected()
		if got := heard(); len(got) != 1 || len(got[0].Prefixes) != 3 {
			t.Fatalf("after the login: %+v", got)
		}
		round := len(p.questions())
		time.Sleep(4 * time.Minute)
		if n := len(p.questions()); n != 0 {
			t.Errorf("%d questions within 4 minutes", n)
		}
		time.Sleep(2 * time.Minute)
		if n := len(p.questions()); n != round {
			t.Errorf("%d questions after the interval, want %d", n, round)
		}
		if got := heard(); len(got) != 0 {
			t.Errorf("told again what had not changed: %+v", got)
		}
		p.set("PJSIPShowRegistrationsOutbound",
			strings.Replace(recorded(t, "PJSIPShowRegistrationsOutbound"), "ServerUri: sip:10.99.0.50",
				"ServerUri: sip:203.0.113.5", 1))
		time.Sleep(6 * time.Minute)
		if got := heard(); len(got) != 1 ||
			got[0].Prefixes[netip.MustParsePrefix("203.0.113.5/32")] != "registration itsp-reg" {
			t.Errorf("after a change: %+v", got)
		}
	})
}

func TestDeniedActionsAreTriedOnceInAConnectionAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPBX() // denies everything, as to read=security, write= without anything
		l, heard := run(t, p)
		l.Connected()
		got := heard()
		want := []string{"Command", "DBGetTree", "IAXpeers", "PJSIPShowContacts", "PJSIPShowEndpoints",
			"PJSIPShowRegistrationsOutbound", "SIPpeers"}
		asked := p.questions()
		slices.Sort(asked)
		if !slices.Equal(asked, want) || len(got) != 1 {
			t.Fatalf("asked %v, told %+v", asked, got)
		}
		lines := map[string]string{}
		for _, d := range got[0].Denied {
			lines[d.Action] = d.ManagerConf
			if d.For == "" {
				t.Errorf("%s: for nothing", d.Action)
			}
		}
		if fmt.Sprint(lines) != "map[Command:write = command DBGetTree:write = reporting IAXpeers:write = reporting "+
			"PJSIPShowContacts:write = system PJSIPShowEndpoints:write = system PJSIPShowRegistrationsOutbound:write "+
			"= reporting SIPpeers:write = reporting]" {
			t.Errorf("denied: %v", lines)
		}
		if h := got[0].Hint(); !strings.Contains(h, "\nwrite = system,reporting\n") || !strings.Contains(h, "trunks") ||
			strings.Contains(h, "command\n") {
			t.Errorf("hint: %s", h)
		}
		time.Sleep(time.Hour)
		if asked := p.questions(); len(asked) > 0 {
			t.Errorf("asked again: %v", asked)
		}
		p.set("DBGetTree", recorded(t, "DBGetTree"))
		l.Connected()
		got = heard()
		if n := len(p.questions()); n != 6 || len(got) != 1 || len(got[0].Denied) != 5 {
			t.Errorf("after the next login: %d questions, %+v", n, got)
		}
	})
}

func TestUnknownActionsAreNeitherDeniedNorAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := real(t)
		p.set("IAXpeers", refusal(unknown))
		p.set("SIPpeers", refusal(unknown))
		l, heard := run(t, p)
		l.Connected()
		got := heard()
		if len(got) != 1 || len(got[0].Denied)+len(got[0].Failed) > 0 {
			t.Fatalf("%+v", got)
		}
		p.questions()
		time.Sleep(6 * time.Minute)
		if asked := p.questions(); slices.Contains(asked, "IAXpeers") || slices.Contains(asked, "SIPpeers") ||
			len(asked) == 0 {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestKnowledgeStaysWhileAsteriskIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := real(t)
		l, heard := run(t, p)
		l.Connected()
		heard()
		before := l.Knowledge()
		p.leave(true)
		time.Sleep(24 * time.Hour)
		if got := heard(); len(got) > 0 || !l.Knowledge().equalTo(before) {
			t.Errorf("while away: %+v", got)
		}
		// Back, it has lost the privilege for endpoints: what they told stays until it can be asked again.
		p.leave(false)
		p.set("PJSIPShowEndpoints", "denied")
		p.set("Command", "denied")
		l.Connected()
		heard()
		if k := l.Knowledge(); len(k.Prefixes) != len(before.Prefixes) || len(k.Denied) != 2 {
			t.Errorf("after a loss of privilege: %+v", k)
		}
		p.set("PJSIPShowEndpoints", endpointList("6001"))
		l.Connected()
		heard()
		if k := l.Knowledge(); len(k.Prefixes) != 1 { // siptrunk's, which is the registration's too
			t.Errorf("the trunk's endpoint is gone: %+v", k.Prefixes)
		}
	})
}

func TestAReconnectInTheMiddleBeginsANewRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPBX()
		l, heard := run(t, p)
		var once sync.Once
		p.before = func(action string) {
			if action == "DBGetTree" {
				once.Do(l.Connected)
			}
		}
		l.Connected()
		heard()
		asked := p.questions()
		if strings.Join(asked, " ") != "PJSIPShowEndpoints Command DBGetTree PJSIPShowEndpoints Command DBGetTree "+
			"PJSIPShowContacts PJSIPShowRegistrationsOutbound IAXpeers SIPpeers" {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestASilentAsteriskLosesNothingThatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := real(t)
		l, heard := run(t, p)
		l.Connected()
		heard()
		before := l.Knowledge()
		for _, action := range []string{"PJSIPShowEndpoints", "DBGetTree", "PJSIPShowRegistrationsOutbound", "IAXpeers",
			"SIPpeers"} {
			p.set(action, "silence")
		}
		time.Sleep(8 * time.Minute)
		heard()
		k := l.Knowledge()
		if texts(k.Prefixes) != texts(before.Prefixes) || texts(k.Contacts) != texts(before.Contacts) ||
			len(k.Failed) != 5 {
			t.Fatalf("%+v", k)
		}
		for _, f := range k.Failed {
			if f.Err != "no answer within 20s" {
				t.Errorf("%+v", f)
			}
		}
	})
}

func TestServersWithNamesAreResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		answer := func(string) ([]netip.Addr, error) { return nil, errors.New("SERVFAIL") }
		p := newPBX()
		p.set("PJSIPShowRegistrationsOutbound", list("OutboundRegistrationDetailComplete",
			"Event: OutboundRegistrationDetail\nObjectName: itsp-reg\nServerUri: sip:SIP.example.net\nOutboundProxy: "+
				"sip:proxy.example.net;lr",
			"Event: AuthDetail\nObjectName: itsp-auth\nPassword: hunter2"))
		l, heard := run(t, p, func(c *Config) {
			c.Lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
				mu.Lock()
				defer mu.Unlock()
				return answer(name)
			}
		})
		l.Connected()
		got := heard()
		if k := l.Knowledge(); len(got) == 0 || len(k.Failed) != 2 ||
			k.Failed[0].What != "registration itsp-reg (proxy.example.net)" {
			t.Fatalf("%+v", k)
		}
		mu.Lock()
		answer = func(name string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr(map[string]string{"sip.example.net": "203.0.113.5",
				"proxy.example.net": "203.0.113.6"}[name])}, nil
		}
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		heard()
		k := l.Knowledge()
		equal(t, "Prefixes", k.Prefixes, "203.0.113.5/32 registration itsp-reg (sip.example.net)",
			"203.0.113.6/32 registration itsp-reg (proxy.example.net)")
		if len(k.Failed) > 0 {
			t.Errorf("failed: %v", k.Failed)
		}
		mu.Lock()
		answer = func(string) ([]netip.Addr, error) { return nil, errors.New("SERVFAIL") }
		mu.Unlock()
		time.Sleep(3 * time.Hour)
		heard()
		equal(t, "Prefixes while DNS is down", l.Knowledge().Prefixes,
			"203.0.113.5/32 registration itsp-reg (sip.example.net)",
			"203.0.113.6/32 registration itsp-reg (proxy.example.net)")
	})
}

func TestManyEndpointsAreReadInTurn(t *testing.T) {
	p := newPBX()
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("phone%02d", i))
	}
	l, _ := learner(p, func(c *Config) { c.MaxEndpoints = 10 })
	p.set("PJSIPShowEndpoints", strings.Replace(endpointList(append(names, "trunk")...), "Auths: trunk", "Auths: ", 1))
	p.set("PJSIPShowEndpoint", detail("none", "true"))
	p.set("PJSIPShowEndpoint:trunk", recorded(t, "PJSIPShowEndpoint-trunk"))
	l.Connected()
	for i, read := range []int{10, 20, 26, 26} {
		l.askRound(t.Context())
		n := 0
		for _, e := range l.endpoints {
			if e.lastRound > 0 {
				n++
			}
		}
		if n != read {
			t.Errorf("round %d: %d endpoints were read, want %d", i+1, n, read)
		}
		if len(l.Knowledge().Prefixes) != 3 {
			t.Errorf("round %d: the trunk, which asks for no password, is not among the first", i+1)
		}
	}
}

func TestTornListRemovesNoEndpoint(t *testing.T) {
	p := real(t)
	l, _ := learner(p)
	l.Connected()
	l.askRound(t.Context())
	before := len(l.endpoints)
	torn := strings.Replace(recorded(t, "PJSIPShowEndpoints"), "ObjectName: trunk",
		"ObjectName: trunk\r\nObjectName: x", 1)
	p.set("PJSIPShowEndpoints", torn)
	l.askRound(t.Context())
	if len(l.endpoints) != before || before != 10 || len(l.Knowledge().Prefixes) != 3 {
		t.Errorf("%d endpoints of %d, %v", len(l.endpoints), before, l.Knowledge().Prefixes)
	}
	p.set("PJSIPShowEndpoints", refusal("No endpoints found"))
	l.askRound(t.Context())
	if len(l.endpoints) != 0 {
		t.Errorf("all endpoints are gone, %d remain", len(l.endpoints))
	}
}

func TestOffAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := real(t)
		l, heard := run(t, p, func(c *Config) { c.Off = true })
		l.Connected()
		time.Sleep(time.Hour)
		if told, asked := heard(), p.questions(); len(told)+len(asked) > 0 {
			t.Errorf("asked %v, told %v", asked, told)
		}
	})
}
