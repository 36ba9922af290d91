package learn

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

// play answers with a recording, under the ActionID of the request.
func play(raw string) func(amiserver.Request) string {
	return func(r amiserver.Request) string {
		return strings.ReplaceAll(raw, "\r\nActionID: q1\r\n", "\r\nActionID: "+r.Get("ActionID")+"\r\n")
	}
}

func TestOverARealSocket(t *testing.T) {
	detail6001, trunk := recorded(t, "PJSIPShowEndpoint-6001"), recorded(t, "PJSIPShowEndpoint-trunk")
	actions := map[string]amiserver.Action{
		"PJSIPShowEndpoint": {Privilege: amiserver.ClassSystem, Reply: func(r amiserver.Request) string {
			switch r.Get("Endpoint") {
			case "6001":
				return play(detail6001)(r)
			case "trunk":
				return play(trunk)(r)
			}
			return r.Reply("Error") + "Message: Unable to retrieve endpoint " + r.Get("Endpoint") + "\r\n\r\n"
		}},
	}
	for name, class := range map[string]amiserver.Class{
		"PJSIPShowEndpoints": amiserver.ClassSystem, "PJSIPShowContacts": amiserver.ClassSystem,
		"DBGetTree": amiserver.ClassReporting, "PJSIPShowRegistrationsOutbound": amiserver.ClassReporting,
		"IAXpeers": amiserver.ClassReporting, "SIPpeers": amiserver.ClassReporting,
	} {
		actions[name] = amiserver.Action{Privilege: class, Reply: play(recorded(t, name))}
	}
	server := amiserver.New(amiserver.Config{
		Users: []amiserver.User{
			{Name: "full", Secret: "s", Read: amiserver.ClassSecurity,
				Write: amiserver.ClassSystem | amiserver.ClassReporting},
			{Name: "bare", Secret: "s", Read: amiserver.ClassSecurity},
		},
		Actions: actions,
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	then := func(c *Config, _ *ami.Config) { c.Now = recordedAt }
	k := session(t, "full", ami.Config{Address: ln.Addr().String(), Username: "full", Secret: "s"},
		func(k Knowledge) bool { return !k.At.IsZero() }, then)
	equal(t, "Prefixes", k.Prefixes, "10.98.0.0/24 trunk trunk", "10.99.0.50/32 trunk siptrunk (SIP peer)",
		"fd99::50/128 trunk trunk")
	equal(t, "Contacts", k.Contacts, "10.99.0.10/32 contact of 6001 and 1 more", "fd99::10/128 contact of 6001")
	if len(k.Denied)+len(k.Failed) > 0 {
		t.Errorf("%+v", k)
	}
	k = session(t, "bare", ami.Config{Address: ln.Addr().String(), Username: "bare", Secret: "s"},
		func(k Knowledge) bool { return !k.At.IsZero() })
	if len(k.Prefixes)+len(k.Contacts)+len(k.Failed) > 0 || len(k.Denied) != 7 {
		t.Errorf("%+v", k)
	}
}

// session runs a real session and a Learner over it until good, and returns what was known then.
func session(t *testing.T, name string, cfg ami.Config, good func(Knowledge) bool,
	change ...func(*Config, *ami.Config)) Knowledge {
	t.Helper()
	known := make(chan Knowledge, 100)
	lc := Config{Name: name, OnKnowledge: func(k Knowledge) { known <- k }}
	for _, f := range change {
		f(&lc, &cfg)
	}
	var l *Learner
	cfg.OnState = func(s ami.State) {
		if s.Kind == ami.Connected {
			l.Connected()
		}
	}
	s := ami.New(cfg)
	lc.Session = s
	l = New(lc)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	deadline := time.After(60 * time.Second)
	var last Knowledge
	for {
		select {
		case last = <-known:
			if good(last) {
				return last
			}
		case <-deadline:
			t.Fatalf("%s: not learned in time; the last was %+v", name, last)
		}
	}
}
