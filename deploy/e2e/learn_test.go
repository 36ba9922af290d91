package e2e

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/learn"
)

// relayToAMI lets a session of this process reach AMI in the lab's namespace: it has no dialer to give.
func relayToAMI(t *testing.T, l *lab.Lab) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		relayAll(ctx, ln, func(ctx context.Context) (net.Conn, error) {
			return l.DialContext(ctx, lab.Server, "tcp", lab.AMIAddress)
		})
	}()
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// learnFrom runs a session and a learner over it, until all questions are answered.
func learnFrom(t *testing.T, name string, cfg ami.Config) learn.Knowledge {
	t.Helper()
	known := make(chan learn.Knowledge, 100)
	var l *learn.Learner
	cfg.OnState = func(s ami.State) {
		if s.Kind == ami.Connected {
			l.Connected()
		}
	}
	s := ami.New(cfg)
	l = learn.New(learn.Config{Name: name, Session: s, OnKnowledge: func(k learn.Knowledge) { known <- k }})
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
	deadline := time.After(trial.Patience)
	for {
		select {
		case k := <-known:
			if !k.At.IsZero() {
				return k
			}
		case <-deadline:
			t.Fatalf("%s: not learned in time", name)
		}
	}
}

// prefixNotes renders a map of prefixes, sorted.
func prefixNotes(m map[netip.Prefix]string) string {
	var lines []string
	for p, note := range m {
		lines = append(lines, p.String()+" "+note)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func wantPrefixes(t *testing.T, what string, got map[netip.Prefix]string, lines ...string) {
	t.Helper()
	slices.Sort(lines)
	if want := strings.Join(lines, "\n"); prefixNotes(got) != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, prefixNotes(got), want)
	}
}

func TestARealAsteriskTeachesPhonesAndTrunks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{Version: 22, Edit: func(file, content string) string {
		if file == "pjsip.conf" {
			content += "\n[itsp-auth]\ntype = auth\nauth_type = userpass\nusername = labcust\npassword = hunter2\n" +
				"\n[itsp-reg]\ntype = registration\ntransport = t-udp4\noutbound_auth = itsp-auth\nserver_uri = " +
				"sip:10.99.0.77:5060\nclient_uri = sip:labcust@10.99.0.77\nretry_interval = 600\n"
			content = strings.Replace(content, "[6002](phone)\n", "[6002](phone)\nrewrite_contact = no\n", 1)
		}
		return content
	}})
	address := relayToAMI(t, l)
	secfull := ami.Config{Address: address, Username: string(lab.SecFull), Secret: lab.SecFull.Secret()}
	k := learnFrom(t, "secfull", secfull)
	prefixes := []string{"10.99.0.50/32 trunk trunk", "fd99::50/128 trunk trunk", "10.99.0.77/32 registration itsp-reg"}
	wantPrefixes(t, "Prefixes", k.Prefixes, prefixes...)
	wantPrefixes(t, "Contacts before anybody registered", k.Contacts)
	if len(k.Denied)+len(k.Failed)+len(k.Refused) > 0 {
		t.Errorf("%+v", k)
	}

	for _, ipv6 := range []bool{false, true} {
		phone := l.Agent(t, lab.Phone, lab.AgentOptions{IPv6: ipv6, Timeout: time.Minute})
		if code, err := phone.Register("6001", lab.Password("6001")); code != 200 || err != nil {
			t.Fatalf("Register: %d, %v", code, err)
		}
	}
	claims := l.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: time.Minute})
	if code, err := claims.Register("6002", lab.Password("6002")); code != 200 || err != nil {
		t.Fatalf("Register: %d, %v", code, err)
	}
	k = learnFrom(t, "secfull", secfull)
	wantPrefixes(t, "Prefixes", k.Prefixes, prefixes...)
	if k.Skipped != (learn.Skipped{Claimed: 1}) {
		t.Errorf("rewrite_contact=no: skipped %+v", k.Skipped)
	}
	if got := prefixNotes(k.Contacts); !strings.Contains(got, "contact of 6001") ||
		strings.Contains(got, "10.99.0.66") {
		t.Errorf("Contacts: %s, skipped %+v", got, k.Skipped)
	}

	k = learnFrom(t, "learn", ami.Config{Address: address, Username: string(lab.Learn), Secret: lab.Learn.Secret()})
	wantPrefixes(t, "Prefixes with write=reporting", k.Prefixes, "10.99.0.77/32 registration itsp-reg")
	if len(k.Contacts) != 0 || k.Skipped.Private == 0 || len(k.Failed) > 0 {
		t.Errorf("with write=reporting: %+v", k)
	}
	k = learnFrom(t, "ringwall", ami.Config{Address: address, Username: string(lab.Ringwall),
		Secret: lab.Ringwall.Secret()})
	names := ""
	for _, d := range k.Denied {
		names += d.Action + " "
	}
	if len(k.Prefixes)+len(k.Contacts)+len(k.Failed) > 0 || !strings.HasPrefix(names,
		"PJSIPShowEndpoints Command DBGetTree PJSIPShowContacts PJSIPShowRegistrationsOutbound") {
		t.Errorf("with write= empty: %+v", k)
	}
}

func TestARealChanSIPTeachesItsPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{Version: 16})
	phone := l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: time.Minute})
	if code, err := phone.Register("7001", lab.Password("7001")); code != 200 || err != nil {
		t.Fatalf("Register: %d, %v", code, err)
	}
	k := learnFrom(t, "secfull", ami.Config{Address: relayToAMI(t, l), Username: string(lab.SecFull),
		Secret: lab.SecFull.Secret()})
	wantPrefixes(t, "Prefixes", k.Prefixes, "10.99.0.50/32 trunk trunk (SIP peer)")
	wantPrefixes(t, "Contacts", k.Contacts) // chan_sip believes the phone
	if k.Skipped != (learn.Skipped{Private: 1}) {
		t.Errorf("skipped %+v", k.Skipped)
	}
	if len(k.Denied)+len(k.Failed) > 0 {
		t.Errorf("%+v", k)
	}
}
