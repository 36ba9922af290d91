package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// hostile are events of all types and services, and what makes every kind of decision, with names that show where they
// end.
type hostile struct {
	texts   []string
	names   map[string]bool            // as they are remembered
	sources map[string]map[string]bool // names by source
	n       int
}

// add makes an event that Asterisk could write. own are the lines of its type.
func (h *hostile) add(typ event.Type, service event.Service, account, addr, transport, own string) {
	h.n++
	head := fmt.Sprintf("Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: Error\r\nService: "+
		"%s\r\nEventVersion: 1\r\n",
		typ, time.Now().UTC().Format("2006-01-02T15:04:05.000+0000"), service)
	ends := fmt.Sprintf("SessionID: session-%d\r\nLocalAddress: IPV4/%s/192.0.2.1/5060\r\nRemoteAddress: "+
		"IPV4/%s/%s/5060\r\n", h.n, transport, transport, addr)
	who := "AccountID: " + account + "\r\n"
	if typ == event.RequestBadFormat {
		who, own = "", own+who
	}
	h.texts = append(h.texts, strings.TrimSuffix(head+who+ends+own, "\r\n"))
	if len(account) > 39 {
		account = strings.ToValidUTF8(account[:39], "") + "…"
	}
	h.names[account] = true
	if h.sources[addr] == nil {
		h.sources[addr] = make(map[string]bool)
	}
	h.sources[addr][account] = true
}

// own are the lines of a type after the addresses.
func (h *hostile) own(typ event.Type) string {
	switch typ {
	case event.FailedACL:
		return []string{"ACLName: not_match_endpoint_acl\r\n",
			"ACLName: registrar_attempt_exceeds_maximum_configured_contacts\r\n"}[h.n%2]
	case event.RequestNotSupported, event.RequestNotAllowed, event.RequestBadFormat:
		return "RequestType: <i>INVITE</i>\r\n"
	case event.AuthMethodNotAllowed:
		return "AuthMethod: md5\r\n"
	case event.SuccessfulAuth:
		return "UsingPassword: 1\r\n"
	case event.UnexpectedAddress:
		return "ExpectedAddress: IPV4/UDP/192.0.2.7/5060\r\n"
	case event.ChallengeResponseFailed:
		return fmt.Sprintf("Challenge: 1/%d\r\nResponse: r%d\r\nExpectedResponse: \r\n", h.n, h.n)
	case event.InvalidPassword:
		return fmt.Sprintf("Challenge: c\r\nReceivedChallenge: 1/%d\r\nReceivedHash: r%d\r\n", h.n, h.n)
	case event.ChallengeSent:
		return "Challenge: 1\r\n"
	case event.InvalidTransport:
		return "AttemptedTransport: UDP\r\n"
	}
	return ""
}

const (
	honeypot = `trap "1"`
	lastOne  = "203.0.113.250"
)

func newHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{names: make(map[string]bool), sources: make(map[string]map[string]bool)}
	shapes := []string{`<b>%s %d</b>`, `%%n%%s "%s" $(%d)`, `é☎%s' OR %d--`,
		`日本語 %s %d, a name that is longer than anybody keeps of it ☎☎☎☎☎`}
	add := func(typ event.Type, service event.Service, account, addr, transport string) {
		h.add(typ, service, account, addr, transport, h.own(typ))
	}
	host := 0
	for typ := event.FailedACL; typ <= event.InvalidTransport; typ++ {
		for _, service := range []event.Service{event.PJSIP, event.SIP, event.AMI, event.IAX2} {
			host++
			for try := range 4 {
				add(typ, service, fmt.Sprintf(shapes[(host+try)%len(shapes)], typ, host),
					fmt.Sprintf("203.0.113.%d", host), "TCP")
			}
		}
	}
	const wrong, right = event.ChallengeResponseFailed, event.SuccessfulAuth
	for range 8 { // breach
		add(wrong, event.PJSIP, `victim "v"`, "198.51.100.20", "TLS")
	}
	add(right, event.PJSIP, `victim "v"`, "198.51.100.20", "TLS")
	for i := range 30 { // targeted
		add(wrong, event.PJSIP, `<target>`, fmt.Sprintf("198.51.100.%d", 100+i), "TCP")
	}
	add(right, event.PJSIP, `office é`, "198.51.100.10", "TLS")
	for i := range 40 { // observe: too many accounts at a customer's, by evidence that could be forged
		add(wrong, event.PJSIP, fmt.Sprintf("neighbour <%d>", i), "198.51.100.10", "UDP")
	}
	add(event.InvalidAccountID, event.PJSIP, honeypot, "203.0.113.240", "TCP")
	h.texts = append(h.texts, h.texts[0]+"\r\nAccountID: <twice>") // tampering
	for range 4 {
		add(event.InvalidAccountID, event.PJSIP, fmt.Sprintf(shapes[2], "last", h.n), lastOne, "TCP")
	}
	for i, text := range h.texts {
		var ev event.Event
		if err := event.Decode(text, &ev); (err != nil) != strings.Contains(text, "<twice>") {
			t.Fatalf("event %d: %v\n%q", i, err, text)
		}
	}
	return h
}

// A frame may be large: nothing that anybody remembers or tells later may lie in its memory, or all of it would be
// kept.
func TestNothingOfAFrameIsKeptAfterItsJudgement(t *testing.T) {
	for name, send := range map[string]func(*testing.T, *rig, []string){
		"over the session": func(t *testing.T, r *rig, texts []string) {
			for _, text := range texts {
				if r.server.Broadcast([]byte(text+"\r\n\r\n")) != 1 {
					t.Fatal("nobody heard the event")
				}
			}
		},
		"from memory that is overwritten": func(_ *testing.T, r *rig, texts []string) {
			p := &pbx{name: "pbx1", pipeline: r.d.pipeline, ports: r.d.ports, metrics: r.d.metrics.PBX("pbx1"),
				log: r.d.log}
			for len(texts) > 0 {
				part := texts[:min(len(texts), 23)]
				texts = texts[len(part):]
				memory := []byte(strings.Join(part, ""))
				var frames []ami.Frame
				at := 0
				for _, text := range part {
					frames = append(frames, ami.Frame{Text: unsafe.String(&memory[at], len(text)),
						Received: time.Now()})
					at += len(text)
				}
				p.judgeFrames(frames)
				for i := range memory {
					memory[i] = 0xfe
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *config.Config) { c.Policy.Honeypots = []string{honeypot} })
			h := newHostile(t)
			send(t, r, h.texts)
			last := r.await(ban.ActionBan, lastOne+"/32")
			h.known(t, "the last ban", last.Account)
			h.check(t, r, true)
			r.stop()
			r.start()
			h.check(t, r, false) // what was stored
		})
	}
}

func (h *hostile) known(t *testing.T, what, account string) {
	t.Helper()
	if account != "" && !h.names[account] {
		t.Errorf("%s: nobody sent the name %q", what, account)
	}
}

// clean reports bytes that no frame had: those that memory is overwritten with, and what becomes of them in JSON.
func (h *hostile) clean(t *testing.T, what string, v any) {
	t.Helper()
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if !utf8.ValidString(text) || strings.Contains(text, `\ufffd`) || strings.ContainsRune(text, utf8.RuneError) {
		t.Errorf("%s has bytes that nobody sent: %q", what, text)
	}
}

// check looks at everything that is remembered.
func (h *hostile) check(t *testing.T, r *rig, fresh bool) {
	t.Helper()
	ctx := t.Context()
	actions, names := make(map[ban.Action]bool), make(map[string]bool)
	r.mu.Lock()
	told := slices.Clone(r.decisions)
	r.mu.Unlock()
	for _, d := range told {
		h.known(t, fmt.Sprint("decision ", d.Action, " ", d.Prefix), d.Account)
		h.clean(t, "a decision", []string{d.Account, d.Detail, d.PBX, string(d.Reason)})
		actions[d.Action] = true
	}
	history, err := r.client.History(ctx, time.Time{}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range history {
		h.known(t, fmt.Sprint("history ", d.Action, " ", d.Prefix), d.Account)
		names[d.Account] = true
	}
	h.clean(t, "the history", history)
	evidence := 0
	for addr, sent := range h.sources {
		why, err := r.client.Why(ctx, netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range why.Evidence {
			evidence++
			if names[ev.Account] = true; !sent[ev.Account] {
				t.Errorf("why %s: it never named %q", addr, ev.Account)
			}
		}
		h.clean(t, "why "+addr, why)
	}
	bans, err := r.client.Bans(ctx, api.BanFilter{})
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := r.client.Trusted(ctx)
	if err != nil {
		t.Fatal(err)
	}
	status, err := r.client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.d.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, a := range e.Activity(now, 1000).Accounts {
			h.known(t, "activity", a.Account)
			names[a.Account] = true
		}
	})
	h.clean(t, "the bans", bans)
	h.clean(t, "the trusted", trusted)
	h.clean(t, "the status", status)
	h.clean(t, "the metrics", get(t, r.site()+"/metrics"))
	if len(bans) < 10 || len(trusted) == 0 || evidence < 100 && fresh || evidence == 0 || len(names) < 30 {
		t.Errorf("%d bans, %d trusted, %d pieces of evidence, %d names: too few to tell", len(bans), len(trusted),
			evidence,
			len(names))
	}
	for _, a := range []ban.Action{ban.ActionBan, ban.ActionTrust, ban.ActionBreach, ban.ActionTargeted,
		ban.ActionMisconfigured, ban.ActionObserve, ban.ActionTampering} {
		if !actions[a] {
			t.Errorf("nothing was decided that is a %s: the test does not tell", a)
		}
	}
}
