package witness_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/sip"
	"github.com/ringwall/ringwall/pkg/witness"
)

var asteriskAddr = netip.MustParseAddrPort("192.0.2.1:5060")

const pbxName = "pbx"

// A world has an Asterisk that does as PJSIP does, a network that sensors look at, and a session of its manager. What
// each of them tells comes as late as the world says.
type world struct {
	t   *testing.T
	w   *witness.Witness
	now time.Time
	due []delayed
	n   int

	sensorDelay, eventDelay time.Duration
	seenBy                  []event.Sensor
	transport               event.Transport
	segments                int               // TCP: how many bytes each has; 0: messages come without packets
	sequences               map[string]uint32 // of each flow
	deaf                    bool              // the manager's session is down
	noEvents                bool              // it has none for this Asterisk
	unseen                  bool              // no sensor sees what is sent
	loseAnswers             bool              // a sensor does not see them
	filtered                func(event.Type) bool
	noAuth                  bool // endpoints without a password, and the dialplan knows 1xx
	unauthenticatedOptions  bool
	service                 event.Service

	findings []witness.Finding
	matches  []witness.Match
	events   []event.Event
	nonces   map[string]time.Time
}

type delayed struct {
	at time.Time
	n  int
	do func()
}

func newWorld(t *testing.T, c witness.Config) *world {
	return &world{
		t: t, w: witness.New(c), now: time.Unix(1_800_000_000, 0), seenBy: []event.Sensor{event.ByTap},
		sensorDelay: 2 * time.Millisecond, eventDelay: 3 * time.Millisecond,
		transport: event.UDP, service: event.PJSIP, nonces: map[string]time.Time{}, sequences: map[string]uint32{},
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.n++
	w.due = append(w.due, delayed{w.now.Add(d), w.n, do})
}

// pass lets time go by.
func (w *world) pass(d time.Duration) *world {
	const tick = 100 * time.Millisecond
	for end := w.now.Add(d); ; {
		next := w.now.Truncate(tick).Add(tick)
		first := -1
		for i, e := range w.due {
			if !e.at.After(next) && (first < 0 || e.at.Before(w.due[first].at) || e.at.Equal(w.due[first].at) && e.n < w.due[first].n) {
				first = i
			}
		}
		if first >= 0 && !w.due[first].at.After(end) {
			e := w.due[first]
			w.due = slices.Delete(w.due, first, first+1)
			w.now = e.at
			e.do()
			continue
		}
		if next.After(end) {
			w.now = end
			return w
		}
		w.now = next
		w.findings = w.w.Due(w.now, w.findings)
	}
}

// A peer sends requests.
type peer struct {
	w      *world
	addr   netip.AddrPort
	user   string
	callID string
	cseq   int
	branch string
	nonce  string // the last that it got
	header string // more lines
	to     string // another user than its own
	toTag  string
	last   string // that was sent
	answer string // the last that it got
}

func (w *world) peer(addr, user, callID string) *peer {
	return &peer{w: w, addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 5060), user: user, callID: callID}
}

// request is the text of a message; with an answer to a challenge, if one is given.
func (p *peer) request(method, nonce, password string) string {
	p.cseq++
	p.branch = fmt.Sprintf("z9hG4bK%s-%d", p.user, p.cseq)
	return p.text(method, nonce, password)
}

func (p *peer) text(method, nonce, password string) string {
	to := p.user
	if p.to != "" {
		to = p.to
	}
	tag := ""
	if p.toTag != "" {
		tag = ";tag=" + p.toTag
	}
	lines := []string{
		method + " sip:" + to + "@pbx.example SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=" + p.branch + ";rport",
		"From: <sip:" + p.user + "@pbx.example>;tag=1", "To: <sip:" + to + "@pbx.example>" + tag, "Call-ID: " + p.callID,
		fmt.Sprintf("CSeq: %d %s", p.cseq, method),
	}
	if nonce != "" {
		lines = append(lines, fmt.Sprintf(`Authorization: Digest username="%s",realm="asterisk",nonce="%s",uri="sip:x",response="%s"`,
			p.user, nonce, password))
	}
	if p.header != "" {
		lines = append(lines, p.header)
	}
	return strings.Join(append(lines, "Content-Length: 0", "", ""), "\r\n")
}

// send sends a request, and returns Asterisk's status.
func (p *peer) send(text string) int {
	p.last = text
	return p.w.deliver(p, text)
}

// see has the sensors see a message.
func (w *world) see(p *peer, toAsterisk bool, text string) {
	if w.unseen || w.loseAnswers && !toAsterisk {
		return
	}
	if w.segments > 0 {
		w.seeSegments(p, toAsterisk, text)
		return
	}
	for i, s := range w.seenBy {
		w.after(w.sensorDelay*time.Duration(1+3*i), func() {
			var m sip.Message
			if err := sip.Parse([]byte(text), &m); err != nil {
				return
			}
			w.w.Message(w.now, witness.Sight{
				SeenBy: s, ToAsterisk: toAsterisk, Asterisk: asteriskAddr, Remote: p.addr, Transport: w.transport,
			}, &m)
		})
	}
}

// seeSegments has the tap see a message in pieces.
func (w *world) seeSegments(p *peer, toAsterisk bool, text string) {
	k := packet.Packet{Source: asteriskAddr, Destination: p.addr, Protocol: packet.TCP, Flags: packet.Acknowledge}
	if toAsterisk {
		k.Source, k.Destination = k.Destination, k.Source
	}
	flow := k.Source.String() + k.Destination.String()
	for piece := range slices.Chunk([]byte(text), w.segments) {
		k := k
		k.Payload, k.PayloadSize, k.Sequence = piece, len(piece), w.sequences[flow]
		w.sequences[flow] += uint32(len(piece))
		w.after(w.sensorDelay, func() { w.w.Packet(w.now, toAsterisk, &k) })
	}
}

// deliver is what Asterisk does with a request (res_pjsip/pjsip_distributor.c, res_pjsip_authenticator_digest.c).
func (w *world) deliver(p *peer, text string) (status int) {
	w.see(p, true, text)
	var m sip.Message
	if err := sip.Parse([]byte(text), &m); err != nil || m.Malformed.Any(sip.MalformedRefused) {
		return 0
	}
	method := string(m.Method)
	answer := func(status int, header string) {
		tag := string(m.To.Tag)
		if tag == "" {
			tag = "as1"
		}
		lines := []string{
			fmt.Sprintf("SIP/2.0 %d X", status),
			"Via: SIP/2.0/UDP 10.0.0.9:5060;branch=" + strings.ReplaceAll(string(m.Branch), ":", "%3a") + ";received=1.2.3.4",
			"Call-ID: " + string(m.First.CallID), "From: <" + string(m.From.URI.Raw) + ">;tag=1",
			"To: <" + string(m.To.URI.Raw) + ">;tag=" + tag, fmt.Sprintf("CSeq: %d %s", m.First.CSeq, m.First.CSeqMethod),
		}
		if header != "" {
			lines = append(lines, header)
		}
		p.answer = strings.Join(append(lines, "Content-Length: 0", "", ""), "\r\n")
		w.see(p, false, p.answer)
	}
	tell := func(t event.Type, account string) {
		ev := event.Event{
			Type: t, Service: w.service, Time: w.now, Account: account, Session: string(m.CallID), UsingPassword: true,
			Remote: event.Address{AddrPort: p.addr, Transport: w.transport},
		}
		if t == event.ChallengeResponseFailed && len(m.Credentials()) > 0 {
			c := m.Credentials()[0]
			ev.Challenge, ev.Response = string(c.Nonce[:min(len(c.Nonce), 63)]), string(c.Response)
		}
		if w.deaf || w.noEvents || w.filtered != nil && w.filtered(t) ||
			!utf8.ValidString(ev.Session+ev.Challenge+ev.Response+account) {
			return
		}
		w.after(w.eventDelay, func() {
			w.matches = append(w.matches, w.w.Told(w.now, pbxName, &ev))
			w.events = append(w.events, ev)
		})
	}
	challenge := func(stale bool) int {
		nonce := fmt.Sprintf("%d/%032x", w.now.Unix(), []byte(p.addr.Addr().String()))
		w.nonces[nonce], p.nonce = w.now, nonce
		text := `WWW-Authenticate: Digest realm="asterisk",nonce="` + nonce + `",opaque="1",algorithm=MD5,qop="auth"`
		if stale {
			text += ",stale=true"
		}
		answer(401, text)
		return 401
	}
	final := func() int {
		status := 200
		if method == "INVITE" && !strings.HasPrefix(string(m.To.User), "1") {
			status = 404
		}
		if method == "INVITE" {
			answer(100, "")
			if status == 200 {
				answer(180, "")
			}
		}
		answer(status, "")
		return status
	}
	switch {
	case method == "ACK":
		return 0
	case len(m.To.Tag) > 0 && method != "REGISTER":
		answer(200, "")
		return 200
	case w.noAuth, method == "OPTIONS" && w.unauthenticatedOptions:
		return final()
	}
	known := strings.HasPrefix(string(m.From.User), "2")
	account := string(m.From.User)
	if !known {
		tell(event.InvalidAccountID, account)
		account = "<unknown>"
	}
	if len(m.Credentials()) == 0 {
		tell(event.ChallengeSent, account)
		return challenge(false)
	}
	c := m.Credentials()[0]
	right := known && string(c.Response) == "right"
	at, valid := w.nonces[string(c.Nonce)]
	switch {
	case !right:
		tell(event.ChallengeResponseFailed, account)
		return challenge(false)
	case !valid || w.now.Sub(at) > 32*time.Second:
		tell(event.ChallengeSent, account)
		return challenge(true)
	}
	tell(event.SuccessfulAuth, account)
	return final()
}

// dialogue sends a request, and an answer to the challenge.
func (p *peer) dialogue(method, password string) int {
	if p.nonce == "" {
		p.send(p.request(method, "", ""))
		p.w.pass(20 * time.Millisecond)
	}
	for range 2 {
		status := p.send(p.request(method, p.nonce, password))
		p.w.pass(20 * time.Millisecond)
		if status != 401 || password != "right" {
			return status
		}
	}
	return 401
}

// want compares what was found, by type.
func (w *world) want(types ...event.Type) *world {
	w.t.Helper()
	w.pass(8 * time.Second)
	got := map[string]int{}
	for _, f := range w.findings {
		got[f.Event.Type.String()]++
		if !utf8.ValidString(f.Event.Session+f.Event.Account+f.Event.Detail) || strings.ContainsAny(f.Event.Session, "\r\n") {
			w.t.Errorf("not fit to be told: %+v", f.Event)
		}
		if f.Event.SeenBy == event.ByAMI || !f.Event.Remote.AddrPort.IsValid() || f.Event.Time.IsZero() {
			w.t.Errorf("nobody, nowhere or never: %+v", f.Event)
		}
	}
	want := map[string]int{}
	for _, t := range types {
		want[t.String()]++
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("found %v, want %v", got, want)
		for _, f := range w.findings {
			w.t.Logf("  %+v", f)
		}
	}
	return w
}

func (w *world) wantProven(proven bool) *world {
	w.t.Helper()
	for _, f := range w.findings {
		if f.Event.Proven != proven {
			w.t.Errorf("%v is proven: %v", f.Event.Type, f.Event.Proven)
		}
	}
	return w
}

// others is a phone that works, so that events are known to come.
func (w *world) others() *world {
	if status := w.peer("198.51.100.7", "299", "others").dialogue("REGISTER", "right"); status != 200 {
		w.t.Fatalf("status %d", status)
	}
	return w.pass(3 * time.Second)
}
