package daemon

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// sipServer answers like PJSIP at a UDP port of the daemon's network, and tells the daemon by AMI what PJSIP tells:
// nothing where a Call-ID is not UTF-8.
type sipServer struct {
	rig    *rig
	conn   *net.UDPConn
	nonces int
}

const sipPassword = "right"

var headerOf = regexp.MustCompile(`(?i)\n(Via|From|To|Call-ID|CSeq): ([^\r]*)`)

func startSIPServer(r *rig) *sipServer {
	r.t.Helper()
	s := &sipServer{rig: r}
	err := r.space.Do(func() (err error) {
		s.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 99, 0, 1), Port: 5060})
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.serve() }()
	r.t.Cleanup(func() { _ = s.conn.Close(); <-done })
	return s
}

func (s *sipServer) serve() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		s.answer(buffer[:n], from)
	}
}

func (s *sipServer) answer(request []byte, from netip.AddrPort) {
	var copied bytes.Buffer
	callID := ""
	for _, m := range headerOf.FindAllSubmatch(request, -1) {
		fmt.Fprintf(&copied, "%s: %s\r\n", m[1], m[2])
		if strings.EqualFold(string(m[1]), "Call-ID") {
			callID = string(m[2])
		}
	}
	remote := fmt.Sprintf("IPV4/UDP/%s/%d", from.Addr(), from.Port())
	tell := func(name, own string) {
		if strings.ToValidUTF8(callID, "") == callID {
			s.rig.event(name, "201", callID, remote, own)
		}
	}
	s.nonces++
	nonce := fmt.Sprintf("%x/%032x", time.Now().Unix(), s.nonces)
	_, credentials, has := strings.Cut(string(request), "nonce=\"")
	answered, _, _ := strings.Cut(credentials, "\"")
	switch {
	case has && strings.Contains(credentials, `response="`+sipPassword):
		tell("SuccessfulAuth", "UsingPassword: 1\r\n")
		_, _ = s.conn.WriteToUDPAddrPort(fmt.Appendf(nil, "SIP/2.0 200 OK\r\n%s\r\n", copied.Bytes()), from)
		return
	case has:
		_, response, _ := strings.Cut(credentials, `response="`)
		response, _, _ = strings.Cut(response, "\"")
		tell("ChallengeResponseFailed", fmt.Sprintf("Challenge: %s\r\nResponse: %s\r\nExpectedResponse: \r\n", answered,
			response))
	default:
		tell("ChallengeSent", "Challenge: "+nonce+"\r\n")
	}
	_, _ = s.conn.WriteToUDPAddrPort(fmt.Appendf(nil, "SIP/2.0 401 Unauthorized\r\n%sWWW-Authenticate: Digest "+
		"realm=\"asterisk\",nonce=\"%s\",algorithm=MD5,qop=\"auth\"\r\n\r\n", copied.Bytes(), nonce), from)
}

// sipClient registers from an address of its own.
type sipClient struct {
	t     *testing.T
	conn  net.Conn
	calls int
	nonce string
	wait  time.Duration // for an answer
	// challenged, if not nil, waits between a challenge and the answer to it, as a network does: until the tap has seen
	// it.
	challenged func(asked func())
}

func dialSIP(t *testing.T, from *netns.Space, address string) *sipClient {
	t.Helper()
	c := &sipClient{t: t, wait: patience}
	err := from.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(address)}}
		c.conn, err = d.Dial("udp4", "10.99.0.1:5060")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// send sends a request, and returns the first line of the answer, or "" where none comes.
func (c *sipClient) send(callID string, number int, more string) string {
	c.t.Helper()
	_, err := fmt.Fprintf(c.conn, "REGISTER sip:10.99.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK%s%d\r\n"+
		"From: <sip:201@10.99.0.1>;tag=a\r\nTo: <sip:201@10.99.0.1>\r\nCall-ID: %s\r\nCSeq: %d "+
		"REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:201@%s>\r\n%sContent-Length: 0\r\n\r\n", c.conn.LocalAddr(), "x",
		number, callID, number, c.conn.LocalAddr(), more)
	if err != nil {
		c.t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	_ = c.conn.SetReadDeadline(time.Now().Add(c.wait))
	n, err := c.conn.Read(buffer)
	if err != nil {
		return ""
	}
	if _, nonce, ok := strings.Cut(string(buffer[:n]), `nonce="`); ok {
		c.nonce, _, _ = strings.Cut(nonce, "\"")
	}
	line, _, _ := strings.Cut(string(buffer[:n]), "\r\n")
	return line
}

// try asks for a challenge and answers it with a password.
func (c *sipClient) try(mark, password string) string {
	c.t.Helper()
	c.calls++
	callID := fmt.Sprintf("%s%d-%s", mark, c.calls, c.conn.LocalAddr())
	line := ""
	ask := func() { line = c.send(callID, 1, "") }
	if c.challenged == nil {
		ask()
	} else {
		c.challenged(ask)
	}
	if line == "" {
		return ""
	}
	return c.send(callID, 2, fmt.Sprintf("Authorization: Digest username=\"201\",realm=\"asterisk\",nonce=\"%s\","+
		"uri=\"sip:10.99.0.1\",response=\"%s%d\",algorithm=MD5,cnonce=\"c\",qop=auth,nc=00000001\r\n", c.nonce,
		password, c.calls))
}

// seesChallenges has a client answer challenges when the tap has seen them: proof must not depend on who is faster.
func (r *rig) seesChallenges(c *sipClient) {
	nonces := func() int {
		r.d.sensors.mu.Lock()
		defer r.d.sensors.mu.Unlock()
		return r.d.sensors.witness.Stats().Nonces
	}
	c.challenged = func(ask func()) {
		before, had := nonces(), c.nonce
		if ask(); c.nonce != had {
			r.until("the tap sees the challenge", func() bool { return nonces() > before })
		}
	}
}

// newSIPRig is a rig with a SIP server, and a network outside with addresses of an office and of attackers.
func newSIPRig(t *testing.T, change ...func(*config.Config)) (r *rig, outside *netns.Space) {
	t.Helper()
	r, outside = newRig(t, change...), netnstest.New(t)
	netnstest.Connect(t, r.space, outside, []string{"10.99.0.1/24"},
		[]string{"10.99.0.2/24", "10.99.0.66/24", "10.99.0.77/24", "10.99.0.88/24"})
	startSIPServer(r)
	return r, outside
}

// logInOffice has a phone of the office log in, so that the office is trusted.
func (r *rig) logInOffice(outside *netns.Space) *sipClient {
	r.t.Helper()
	phone := dialSIP(r.t, outside, "10.99.0.2")
	if got := phone.try("call", sipPassword); got != "SIP/2.0 200 OK" {
		r.t.Fatalf("the phone is answered %q", got)
	}
	r.await(ban.ActionTrust, "10.99.0.2/32")
	return phone
}

// hidden is a byte by which PJSIP is kept from telling anything (main/json.c refuses what is not UTF-8).
const hidden = "\xff"

// TestWhatAsteriskIsSilentAbout has real packets tapped, and judged where no event tells of them.
func TestWhatAsteriskIsSilentAbout(t *testing.T) {
	t.Parallel()
	r, outside := newSIPRig(t)
	office := r.logInOffice(outside)

	// A hidden guess: its challenge was seen to go there, so that it is proven over UDP, too.
	d := func(from, password string) ban.Decision {
		t.Helper()
		guesser := dialSIP(t, outside, from)
		r.seesChallenges(guesser)
		if got := guesser.try(hidden, password); got == "" {
			t.Fatalf("%s: no answer", from)
		}
		d := r.await(ban.ActionBan, from+"/32")
		guesser.wait = 300 * time.Millisecond
		r.until("the kernel has it", func() bool { return guesser.try(hidden, password) == "" })
		return d
	}
	if d := d("10.99.0.66", "guess"); d.Reason != ban.ReasonSilentGuess || !d.Proven || d.Closes != ban.ClosesAll {
		t.Errorf("%+v", d)
	}
	// A hidden login.
	if d := d("10.99.0.77", sipPassword); d.Reason != ban.ReasonSilentLogin {
		t.Errorf("%+v", d)
	}
	r.await(ban.ActionBreach, "10.99.0.77/32")

	// Guesses that events tell of are told once, and proven by the tap.
	guesser := dialSIP(t, outside, "10.99.0.88")
	r.seesChallenges(guesser)
	guesser.wait = time.Second
	for range 10 {
		if guesser.try("call", "guess") == "" {
			break
		}
	}
	if d := r.await(ban.ActionBan, "10.99.0.88/32"); d.Reason != ban.ReasonWrongPassword || !d.Proven || d.Closes != ban.ClosesAll ||
		d.Score < 14 || d.Score > 14.1 { // two more than elsewhere: the account logged in somewhere today
		t.Errorf("%+v", d)
	}

	// The phone has seen nothing of it.
	for range 5 {
		if got := office.try("call", sipPassword); got != "SIP/2.0 200 OK" {
			t.Errorf("the phone is answered %q", got)
		}
	}
	time.Sleep(700 * time.Millisecond) // longer than an event is waited for
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.decisions {
		if d.Action != ban.ActionTrust {
			t.Errorf("besides: %+v", d)
		}
	}
	s := r.status()
	if tap := s.Sensors[0]; tap.Name != "tap" || !tap.Alive || tap.Heard == 0 || tap.Lost != 0 || tap.LastHeard == nil || tap.Lag <= 0 {
		t.Errorf("%+v", tap)
	}
}

// TestAScannersMark has one packet of a scanner enough, and a customer's told of; a list of one's own works after a
// reload, and one with a mistake leaves the one before in force.
func TestAScannersMark(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "marks")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("agent OurScanner\n")
	r, outside := newSIPRig(t, func(c *config.Config) { c.Policy.Signatures.Files = []string{file} })
	r.logInOffice(outside)
	scan := func(from, agent string) *sipClient {
		t.Helper()
		c := dialSIP(t, outside, from)
		c.send("scan-"+from, 1, "User-Agent: "+agent+"\r\n")
		return c
	}
	scanner := scan("10.99.0.66", "friendly-scanner")
	if d := r.await(ban.ActionBan, "10.99.0.66/32"); d.Reason != ban.ReasonScanner || d.SeenBy != event.ByTap ||
		d.Closes != ban.ClosesUDP {
		t.Errorf("%+v", d)
	}
	scanner.wait = 300 * time.Millisecond
	for i := range 3 { // nothing passes, the trickle of a door included
		if got := scanner.send(fmt.Sprint("again", i), 1, ""); got != "" {
			t.Errorf("after the ban: %q", got)
		}
	}
	scan("10.99.0.77", "OurScanner/2")
	r.await(ban.ActionBan, "10.99.0.77/32")

	other := dialSIP(t, outside, "10.99.0.2") // another port: a good flow is not looked at
	other.send("scan", 1, "User-Agent: sipvicious\r\n")
	r.await(ban.ActionObserve, "10.99.0.2/32")

	var s api.Status
	r.until("hits are counted", func() bool { s = r.status(); return len(s.Signatures) == 3 })
	for _, hit := range s.Signatures {
		customers := uint64(0)
		if strings.Contains(hit.Line, "sipvicious") {
			customers = 1
		}
		if hit.Hits != 1 || hit.OnCustomers != customers || hit.LastHit == nil || (hit.List == file) != strings.Contains(hit.Line, "OurScanner") {
			t.Errorf("%+v", hit)
		}
	}
	if _, ok := warned(s, "fits requests from customers' addresses"); !ok {
		t.Errorf("%+v", s.Warnings)
	}
	if hits := r.d.Present().SignatureHits; hits["built-in"] != 2 || hits["files"] != 1 {
		t.Errorf("%v", hits)
	}

	write("nonsense\n")
	if _, err := r.d.sensors.openMarks(); err == nil || !strings.Contains(err.Error(), file+":1") {
		t.Errorf("%v", err)
	}
	if n := len(r.status().Signatures); n != 3 {
		t.Errorf("%d lines with hits", n)
	}
	write("agent OtherScanner\n")
	if _, err := r.d.sensors.openMarks(); err != nil {
		t.Error(err)
	}
	scan("10.99.0.88", "OtherScanner")
	r.await(ban.ActionBan, "10.99.0.88/32")
	if n := len(r.status().Signatures); n != 3 { // two of the built-in list, and this
		t.Errorf("%d lines with hits", n)
	}
}

// TestASilentSensorIsTold has Asterisk tell of attempts that the tap does not see any more.
func TestASilentSensorIsTold(t *testing.T) {
	t.Parallel()
	r, outside := newSIPRig(t)
	attempt := func(n int) {
		remote := fmt.Sprintf("203.0.113.%d", n)
		r.event("InvalidAccountID", "nobody", "call-"+remote, "IPV4/UDP/"+remote+"/5060", "")
	}
	silent := func() bool {
		_, err := r.d.sensors.silence()
		return err != nil
	}
	later := func() {
		r.d.sensors.mu.Lock()
		defer r.d.sensors.mu.Unlock()
		r.d.sensors.unseenAt = r.d.sensors.unseenAt.Add(-unseenFor)
	}
	for n := range unseenEvents {
		attempt(n)
	}
	r.until("they are judged", func() bool { return r.status().PBXs[0].Events >= unseenEvents })
	later()
	if silent() {
		t.Error("told, although no sensor ever saw anything of this Asterisk")
	}
	r.logInOffice(outside)
	for n := range unseenEvents {
		attempt(100 + n)
	}
	for range 2 * unseenEvents { // a customer's attempts on a good flow are not looked at by the tap
		r.event("ChallengeResponseFailed", "299", "customer", "IPV4/UDP/10.99.0.2/5060",
			"Challenge: 1/a\r\nResponse: b\r\nExpectedResponse: \r\n")
	}
	r.until("they are judged", func() bool { return r.status().PBXs[0].Events >= 4*unseenEvents+2 })
	if silent() {
		t.Error("told at once")
	}
	later()
	if !silent() {
		t.Errorf("not told: %d unseen", r.d.sensors.unseen)
	}
	other := dialSIP(t, outside, "10.99.0.2") // from another port: seen, unless its event is faster
	other.wait = time.Second
	r.until("it sees again", func() bool {
		other.try("call", sipPassword)
		return !silent()
	})
}

// TestWhoInjectsLinesIsJudged has a request whose Call-ID breaks the lines of Asterisk's event: the event names nobody,
// and the tap knows who sent it.
func TestWhoInjectsLinesIsJudged(t *testing.T) {
	t.Parallel()
	r, outside := newSIPRig(t)
	dialSIP(t, outside, "10.99.0.2").send("injector", 1, "")
	r.until("it is seen", func() bool { return r.status().Sensors[0].Heard >= 2 })
	for range 3 {
		r.event("InvalidAccountID", "x", "injector\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5060", "IPV4/UDP/10.99.0.2/5060",
			"")
	}
	if d := r.await(ban.ActionBan, "10.99.0.2/32"); d.Reason != ban.ReasonMalformed && d.Reason != ban.ReasonMalformedSIP {
		t.Errorf("%+v", d)
	}
	for _, b := range r.status().Sensors {
		t.Logf("%+v", b)
	}
	if _, banned := r.inKernel(firewall.Ban, "8.8.8.8/32"); banned {
		t.Error("who was named in the injected line is banned")
	}
}
