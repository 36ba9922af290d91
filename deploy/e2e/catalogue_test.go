package e2e

import (
	"bytes"
	"context"
	"crypto/md5" // RFC 5456, section 8.6.15
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/iax"
)

// attack is a row of the catalogue.
type attack struct {
	name string
	way  lab.AgentOptions
	// send makes one try, and returns how many requests Asterisk answered of those that are the attack: asking for a
	// challenge is none.
	send func(a *assailant, try int) (answered int)
	// most is how many requests Asterisk answers before the ban, of somebody who waits until each is judged; 0 where it
	// answers none, and so tells the assailant nothing.
	most int
	// every is how many tries make one attempt; 0 is one.
	every int
	// encrypted is what no tap can read, and Asterisk tells nobody of.
	encrypted bool
	// onlyAsks is what finds nothing out, since Asterisk answers alike whatever is asked for: it ends in no ban.
	onlyAsks bool
}

// assailant is who makes an attack, at an address of his own.
type assailant struct {
	*lab.Agent
	r         *rig
	ctx       context.Context
	addr      netip.Addr
	account   string
	challenge *lab.Challenge
}

// answerTime is how long an assailant waits for an answer: none comes to what Asterisk cannot read, nor to the banned.
const answerTime = 2 * time.Second

// askedBefore is how much less the CSeq is of what asks for a challenge: chan_sip takes none that goes down.
const askedBefore = 1000

// request is one that has the assailant's account, and a branch.
func (a *assailant) request(method, callID string, try int) lab.Request {
	return lab.Request{Method: method, User: a.account, CallID: callID, CSeq: try + 1 + askedBefore,
		Branch: fmt.Sprintf("z9hG4bK-%s-%d-%d", a.account, try, time.Now().UnixNano())}
}

// ask gets a challenge, with a request of the same kind.
func (a *assailant) ask(r lab.Request) bool {
	r.Branch += "a"
	r.CSeq -= askedBefore
	response, err := a.Exchange(r)
	if err != nil {
		return false
	}
	if c := response.Challenge(); c != nil {
		a.challenge = c
		return true
	}
	return false
}

func (a *assailant) answerTo(r lab.Request, password string) string {
	return a.challenge.Answer(r.User, password, r.Method, r.URI(a.Server()))
}

// deliver sends requests as they are in so many pieces, and counts those that are answered.
func (a *assailant) deliver(pieces [][]byte, branches ...string) (answered int) {
	for i, p := range pieces {
		if i > 0 {
			time.Sleep(2 * time.Millisecond) // or the kernel puts them together
		}
		if a.Send(p) != nil {
			a.Close()
			return 0
		}
	}
	open := slices.Clone(branches)
	for len(open) > 0 {
		b, err := a.Receive()
		if err != nil {
			break
		}
		if bytes.HasPrefix(b, []byte("SIP/2.0 1")) {
			continue
		}
		before := len(open)
		open = slices.DeleteFunc(open, func(branch string) bool { return bytes.Contains(b, []byte(branch)) })
		answered += before - len(open)
	}
	return answered
}

func (a *assailant) exchange(r lab.Request) (answered int) {
	if _, err := a.Exchange(r); err != nil {
		return 0
	}
	return 1
}

// guesses are wrong passwords, with a Call-ID for each that format makes.
func guesses(method, format string, headers ...string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request(method, fmt.Sprintf(format, a.account, try), try)
		r.Header = headers
		if method == "INVITE" {
			r.To = "100"
		}
		if !a.ask(r) {
			return 0
		}
		r.Credentials = a.answerTo(r, fmt.Sprint("wrong", try))
		return a.exchange(r)
	}
}

// changed are guesses whose message is changed before it is sent. The challenge is asked for with a plain one.
func changed(change func(message string, try int) (pieces []string)) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request("REGISTER", fmt.Sprintf("%s-%d", a.account, try), try)
		if a.challenge == nil && !a.ask(r) {
			return 0
		}
		r.Credentials = a.answerTo(r, fmt.Sprint("wrong", try))
		var pieces [][]byte
		for _, p := range change(string(r.Bytes(a.Transport(), a.Local(), a.Server())), try) {
			pieces = append(pieces, []byte(p))
		}
		return a.deliver(pieces, r.Branch)
	}
}

// replaced are guesses in which something is replaced.
func replaced(old, new string) func(*assailant, int) int {
	return changed(func(m string, _ int) []string { return []string{strings.Replace(m, old, new, 1)} })
}

// behind adds the byte 0xff to a header's value.
func behind(header string) func(*assailant, int) int {
	return changed(func(m string, _ int) []string {
		before, rest, _ := strings.Cut(m, "\r\n"+header+": ")
		value, rest, _ := strings.Cut(rest, "\r\n")
		return []string{before + "\r\n" + header + ": " + value + "\xff\r\n" + rest}
	})
}

var compactForms = strings.NewReplacer("\r\nCall-ID:", "\r\ni:", "\r\nFrom:", "\r\nf:", "\r\nTo:", "\r\nt:",
	"\r\nVia:", "\r\nv:", "\r\nContact:", "\r\nm:", "\r\nContent-Length:", "\r\nl:")

// unreadable are requests that pjproject refuses.
func unreadable(old, new string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request("REGISTER", fmt.Sprintf("%s-%d", a.account, try), try)
		b := bytes.Replace(r.Bytes(a.Transport(), a.Local(), a.Server()), []byte(old), []byte(new), 1)
		return a.deliver([][]byte{b}, r.Branch)
	}
}

// garbage is no SIP.
func garbage(text string) func(*assailant, int) int {
	return func(a *assailant, _ int) int { return a.deliver([][]byte{[]byte(text)}, "no branch") }
}

// names asks for another user in each try, with a scanner's headers if there are some.
func names(method string, headers ...string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request(method, fmt.Sprintf("%d%s", 1000000000+try, a.account), try)
		r.User, r.Header = fmt.Sprint(7000+try), headers
		return a.exchange(r)
	}
}

// numbers calls another number in each try, in a user's name.
func numbers(user string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request("INVITE", fmt.Sprintf("%s-%d", a.account, try), try)
		r.User, r.To = user, fmt.Sprintf("0097259%04d", try)
		return a.exchange(r)
	}
}

// rightPassword logs in where Asterisk tells nobody.
func rightPassword(method string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request(method, fmt.Sprintf("%s-%d\xff", a.account, try), try)
		if method == "INVITE" {
			r.To = "4711"
		}
		if !a.ask(r) {
			return 0
		}
		r.Credentials = a.answerTo(r, lab.Password(a.account))
		return a.exchange(r)
	}
}

// pipelined are silent guesses, all in one segment.
func pipelined(n int) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		if a.challenge == nil && !a.ask(a.request("REGISTER", a.account, 0)) {
			return 0
		}
		var (
			all      []byte
			branches []string
		)
		for i := range n {
			r := a.request("REGISTER", fmt.Sprintf("%s-%d-%d\xff", a.account, try, i), i)
			r.Credentials = a.answerTo(r, fmt.Sprint("wrong", try, i))
			all = append(all, r.Bytes(a.Transport(), a.Local(), a.Server())...)
			branches = append(branches, r.Branch)
		}
		return a.deliver([][]byte{all}, branches...)
	}
}

// oneChallenge are guesses that all answer one challenge, under one Call-ID, as svcrack's.
func oneChallenge(headers ...string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		r := a.request("REGISTER", fmt.Sprint(2000000000, a.account), try)
		r.Header = headers
		if a.challenge == nil && !a.ask(r) {
			return 0
		}
		r.Credentials = a.answerTo(r, fmt.Sprint(100+try))
		return a.exchange(r)
	}
}

// iaxGuesses register with wrong passwords by IAX2.
func iaxGuesses(user string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		conn, err := a.dial("udp", 4569)
		if err != nil {
			return 0
		}
		defer conn.Close()
		far, oseq, iseq := uint16(0), byte(0), byte(0)
		exchange := func(elements ...[]byte) (f iax.Frame, ok bool) {
			frame := []byte{0x80, 7, byte(far >> 8), byte(far), 0, 0, 0, 3, oseq, iseq, 6, byte(iax.RegReq)}
			for _, e := range elements {
				frame = append(frame, e...)
			}
			if _, err := conn.Write(frame); err != nil {
				return f, false
			}
			_ = conn.SetReadDeadline(time.Now().Add(answerTime))
			for {
				b := make([]byte, 2048)
				n, err := conn.Read(b)
				if err != nil {
					return f, false
				}
				if iax.Parse(b[:n], &f) == nil && f.Subclass != iax.Ack && !f.Retransmitted {
					return f, true
				}
			}
		}
		name := iaxElement(6, user)
		f, ok := exchange(name, iaxElement(54, ""))
		if !ok {
			return 0
		}
		if f, ok = exchange(name, iaxElement(54, string(f.CallToken))); !ok {
			return 0
		}
		if f.Subclass == iax.RegAuth {
			sum := md5.Sum([]byte(string(f.Challenge) + fmt.Sprint("wrong", try)))
			far, oseq, iseq = f.Source, 1, 1
			if _, ok = exchange(name, iaxElement(16, hex.EncodeToString(sum[:]))); !ok {
				return 0
			}
		}
		return 1
	}
}

// dial opens a connection to one of Asterisk's ports.
func (a *assailant) dial(network string, port uint16) (conn net.Conn, err error) {
	to := netip.AddrPortFrom(a.Server().Addr(), port).String()
	err = a.r.Do(lab.Attacker, func() error {
		d := net.Dialer{Timeout: answerTime, LocalAddr: &net.TCPAddr{IP: a.addr.AsSlice()}}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: a.addr.AsSlice()}
		}
		conn, err = d.DialContext(a.ctx, network, to)
		return err
	})
	return conn, err
}

// webGuesses ask Asterisk's web server.
func webGuesses(request func(try int) string) func(*assailant, int) int {
	return func(a *assailant, try int) int {
		conn, err := a.dial("tcp", 8088)
		if err != nil {
			return 0
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(answerTime))
		if _, err := conn.Write([]byte(request(try))); err != nil {
			return 0
		}
		if n, _ := conn.Read(make([]byte, 4096)); n == 0 {
			return 0
		}
		return 1
	}
}

// Marks of SIPVicious.
const (
	friendlyScanner = "User-Agent: friendly-scanner"
	plainAgent      = "User-Agent: Phone 1.0"
)

var (
	overIPv6      = lab.AgentOptions{IPv6: true}
	overTCPOnIPv6 = lab.AgentOptions{Transport: "tcp", IPv6: true}

	overTCP = lab.AgentOptions{Transport: "tcp"}
	overTLS = lab.AgentOptions{Transport: "tls"}
	overWS  = lab.AgentOptions{Transport: "ws"}
	overWSS = lab.AgentOptions{Transport: "wss"}
)

// catalogue is the attacks that everybody knows, and those that Asterisk tells nobody of.
func catalogue() []attack {
	const invented = `realm="asterisk" nonce="00000000"`
	list := []attack{
		{name: "wrong passwords, UDP", send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, TCP", way: overTCP, send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, WebSocket", way: overWS, send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, TLS", way: overTLS, send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, WSS", way: overWSS, send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, Call-ID with 0xff, UDP", send: guesses("REGISTER", "%s-%d\xff"), most: 1},
		{name: "wrong passwords, Call-ID with 0xff, TCP", way: overTCP, send: guesses("REGISTER", "%s-%d\xff"), most: 1},
		{name: "wrong passwords, Call-ID with 0xff, WebSocket", way: overWS, send: guesses("REGISTER", "%s-%d\xff"), most: 1},
		{name: "wrong passwords, Call-ID with 0xff, TLS", way: overTLS, send: guesses("REGISTER", "%s-%d\xff"), most: 1,
			encrypted: true},
		{name: "wrong passwords, Call-ID with 0xff, WSS", way: overWSS, send: guesses("REGISTER", "%s-%d\xff"), most: 1,
			encrypted: true},
		{name: "INVITE, wrong passwords, Call-ID with 0xff", send: guesses("INVITE", "%s-%d\xff"), most: 1},
		{name: "SUBSCRIBE, wrong passwords, Call-ID with 0xff", send: guesses("SUBSCRIBE", "%s-%d\xff"), most: 1},
		{name: "the right password, Call-ID with 0xff, UDP", send: rightPassword("REGISTER"), most: 1},
		{name: "the right password, Call-ID with 0xff, TCP", way: overTCP, send: rightPassword("REGISTER"), most: 1},
		{name: "the right password, Call-ID with 0xff, TLS", way: overTLS, send: rightPassword("REGISTER"), most: 1,
			encrypted: true},
		{name: "the right password, Call-ID with 0xff, WSS", way: overWSS, send: rightPassword("REGISTER"), most: 1,
			encrypted: true},
		{name: "a call with the right password, Call-ID with 0xff", send: rightPassword("INVITE"), most: 1},
		{name: "unknown accounts, Call-ID with 0xff", send: func(a *assailant, try int) int {
			r := a.request("REGISTER", fmt.Sprintf("%s-%d\xff", a.account, try), try)
			r.User = fmt.Sprint("nobody", try)
			return a.exchange(r)
		}, most: 3},
		{name: "OPTIONS by a scanner's program", send: names("OPTIONS", friendlyScanner), most: 1},
		{name: "OPTIONS of many names", send: names("OPTIONS", plainAgent), most: 24, every: 4},
		{name: "calls of a guest to numbers that do not exist", send: numbers("guest"), most: 6},
		{name: "the same of an endpoint without auth", send: numbers("6103"), most: 6},
		{name: "no CSeq", send: unreadable("CSeq: ", "X-CSeq: ")},
		{name: "a bad request line", send: unreadable(" SIP/2.0\r\n", "\r\n")},
		{name: "0xff in the user", send: unreadable("From: <sip:6", "From: <sip:\xff6")},
		// What is stray may come from a customer: it is told of once a minute.
		{name: "binary garbage", send: garbage(strings.Repeat("\x01\x9c", 300))},
		{name: "text that is not SIP", send: garbage("GET / HTTP/1.0\r\nsomething that is not SIP at all\r\n\r\n")},
		{name: "many silent guesses in one segment", way: overTCP, send: pipelined(10), most: 10},
		{name: "guesses cut in two anywhere", way: overTCP, send: changed(func(m string, try int) []string {
			cut := (try*97 + 13) % len(m)
			return []string{m[:cut], m[cut:]}
		}), most: 6},
		{name: "silent guesses in pieces of 40 bytes", way: overTCP, send: changed(func(m string, _ int) (pieces []string) {
			m = strings.Replace(m, "\r\nCall-ID: ", "\r\nCall-ID: \xff", 1)
			for chunk := range slices.Chunk([]byte(m), 40) {
				pieces = append(pieces, string(chunk))
			}
			return pieces
		}), most: 1},
		{name: "compact forms", send: changed(func(m string, _ int) []string { return []string{compactForms.Replace(m)} }),
			most: 6},
		{name: "compact forms, Call-ID with 0xff", send: changed(func(m string, _ int) []string {
			return []string{strings.Replace(compactForms.Replace(m), "\r\ni: ", "\r\ni: \xff", 1)}
		}), most: 1},
		{name: "svmap", send: names("OPTIONS", friendlyScanner), most: 1},
		{name: "svwar", send: names("REGISTER", friendlyScanner), most: 1},
		{name: "svwar with a phone's User-Agent", send: names("REGISTER", plainAgent), most: 3},
		{name: "svcrack", send: oneChallenge(friendlyScanner), most: 1},
		{name: "svcrack with a phone's User-Agent", send: oneChallenge(plainAgent), most: 6},
		{name: "IAX2, wrong passwords", send: iaxGuesses("known"), most: 6},
		{name: "IAX2, unknown accounts", send: iaxGuesses("nobody"), most: 6},
		{name: "ARI, wrong passwords", send: webGuesses(func(try int) string {
			return httpRequest("/ari/asterisk/info", basic("known", fmt.Sprint("wrong", try)))
		}), most: 3},
		{name: "ARI, wrong keys", send: webGuesses(func(try int) string {
			return httpRequest(fmt.Sprint("/ari/asterisk/info?api_key=known:wrong", try))
		}), most: 3},
		{name: "manager over HTTP, wrong passwords", send: webGuesses(func(try int) string {
			return httpRequest(fmt.Sprint("/rawman?action=login&username=reader&secret=wrong", try))
		}), most: 3},
		{name: "manager over HTTP, wrong digests", send: webGuesses(func(try int) string {
			return httpRequest("/arawman?action=ping", digest(invented, "reader", fmt.Sprint("wrong", try),
				"/arawman?action=ping"))
		}), most: 3},
	}
	// pjproject refuses what it cannot read, and answers nothing.
	for _, header := range []string{"Via", "Max-Forwards", "From", "To", "CSeq", "Contact", "Expires", "Authorization",
		"Content-Length"} {
		list = append(list, attack{name: "wrong passwords, 0xff behind " + header, send: behind(header)})
	}
	list = append(list,
		attack{name: "wrong passwords, 0xff in User-Agent", send: replaced("\r\nContent-Length",
			"\r\nUser-Agent: \xff\r\nContent-Length"), most: 6},
		attack{name: "wrong passwords, 0xff in the request's URI", send: replaced("REGISTER sip:", "REGISTER sip:\xff@")},
		attack{name: "wrong passwords, 0xff in the user of From", send: replaced("From: <sip:6", "From: <sip:\xff6")},
		attack{name: "wrong passwords, 0xff in the tag of From", send: replaced(";tag=", ";tag=\xff")},
		attack{name: "wrong passwords, 0xff in the branch", send: replaced(";branch=z9hG4bK", ";branch=z9hG4bK\xff")},
		attack{name: "wrong passwords, 0xff in the digest's response", send: replaced(`response="`, "response=\"\xff"),
			most: 1},
		attack{name: "wrong passwords, 0xff in the digest's user", send: replaced(`username="`, "username=\"\xff"), most: 6},
	)
	return append(list,
		attack{name: "IPv6: wrong passwords, UDP", way: overIPv6, send: guesses("REGISTER", "%s-%d"), most: 6},
		attack{name: "IPv6: wrong passwords, TCP", way: overTCPOnIPv6, send: guesses("REGISTER", "%s-%d"), most: 6},
		attack{name: "IPv6: wrong passwords, Call-ID with 0xff, UDP", way: overIPv6,
			send: guesses("REGISTER", "%s-%d\xff"), most: 1},
		attack{name: "IPv6: wrong passwords, Call-ID with 0xff, TCP", way: overTCPOnIPv6,
			send: guesses("REGISTER", "%s-%d\xff"), most: 1},
		attack{name: "IPv6: the right password, Call-ID with 0xff, UDP", way: overIPv6,
			send: rightPassword("REGISTER"), most: 1},
		attack{name: "IPv6: OPTIONS by a scanner's program", way: overIPv6,
			send: names("OPTIONS", friendlyScanner), most: 1},
		attack{name: "IPv6: OPTIONS of many names", way: overIPv6,
			send: names("OPTIONS", plainAgent), most: 24, every: 4},
		attack{name: "IPv6: wrong passwords, 0xff behind Via", way: overIPv6, send: behind("Via")},
		attack{name: "IPv6: IAX2, wrong passwords", way: overIPv6, send: iaxGuesses("known"), most: 6},
		attack{name: "IPv6: ARI, wrong passwords", way: overIPv6, send: webGuesses(func(try int) string {
			return httpRequest("/ari/asterisk/info", basic("known", fmt.Sprint("wrong", try)))
		}), most: 3},
	)
}

// outcome is what became of one attack.
type outcome struct {
	from     netip.Addr
	answered int
	banned   bool
	seenBy   string
	reason   ban.Reason
	closes   ban.Closes
	attempts int
}

// why is Explanation of an address, for goroutines.
func (a *assailant) why() (engine.Explanation, bool) {
	x, err := a.r.client.Why(a.ctx, a.addr)
	return x, err == nil
}

// judgementTime is how long the judgement of a try is waited for.
const judgementTime = 8 * time.Second

// mostUnjudged is how many tries in a row nobody judges who sees the attack: a busy machine loses one.
const mostUnjudged = 3

// run attacks until the ban.
func (a *assailant) run(row *attack) (o outcome) {
	defer a.Close()
	o.from = a.addr
	unjudged := 0
	for try := 0; try < 3*row.most+12 && unjudged < mostUnjudged; try++ {
		before, _ := a.why()
		o.answered += row.send(a, try)
		patience := judgementTime
		if row.every > 0 && (try+1)%row.every != 0 {
			patience = 0
		}
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			x, ok := a.why()
			o.attempts = max(o.attempts, x.Attempts)
			if ok && x.Ban != nil {
				o.banned, o.reason, o.closes = true, x.Ban.Reason, x.Ban.Closes
				for _, e := range x.Evidence {
					o.seenBy = e.SeenBy
				}
				return o
			}
			mayGoOn := row.most == 0 || o.answered < row.most // else the ban is on its way
			if ok && x.Attempts > before.Attempts && mayGoOn {
				unjudged = 0
				break
			}
			if time.Now().After(end) || a.ctx.Err() != nil {
				if patience > 0 {
					unjudged++
				}
				break
			}
		}
	}
	return o
}

// addressOf is the address of an attack, in a network of its own: one of /24, or /48.
func addressOf(rows []attack, i, host int) netip.Addr {
	if rows[i].way.IPv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd99:0:%x%02x::1", host, 100+i))
	}
	return ip4(100+i, host)
}

// attackers is how many attack at the same time.
const attackers = 10

// newAssailant is who makes an attack, from an address that ends in host.
func newAssailant(r *rig, rows []attack, i, host int) *assailant {
	addr := addressOf(rows, i, host)
	r.AddAddr(r.t, lab.Attacker, addr)
	o := rows[i].way
	o.Local, o.Timeout = addr, answerTime
	return &assailant{Agent: r.Agent(r.t, lab.Attacker, o), r: r, ctx: r.t.Context(), addr: addr,
		account: fmt.Sprint(firstAccount + i)}
}

// runAll has each attack made that is wanted, from addresses that end in host. One that was answered too often is made
// once more, from elsewhere: a busy machine loses a packet's copy, or judges late.
func runAll(r *rig, rows []attack, host int, wanted func(i int) bool) []outcome {
	out := make([]outcome, len(rows))
	places := make(chan struct{}, attackers)
	var all sync.WaitGroup
	for i := range rows {
		a, again := newAssailant(r, rows, i, host), newAssailant(r, rows, i, host+10)
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if wanted(i) {
				out[i] = a.run(&rows[i])
				r.t.Logf("%s: %+v", rows[i].name, out[i])
				if out[i].answered > rows[i].most && !rows[i].onlyAsks {
					out[i] = again.run(&rows[i])
					r.t.Logf("%s, again: %+v", rows[i].name, out[i])
				}
				return
			}
			for try := range min(rows[i].most, 3) {
				rows[i].send(a, try)
			}
		})
	}
	all.Wait()
	for i := range rows {
		if !wanted(i) {
			x := r.explanationOf(addressOf(rows, i, host))
			out[i].from, out[i].banned, out[i].attempts = addressOf(rows, i, host), x.Ban != nil, x.Attempts
		}
	}
	return out
}

// toldBy counts the attempts that Asterisk's events told of, by the source.
type toldBy map[netip.Addr]int

func (told toldBy) add(frames []lab.Frame) {
	for _, f := range frames {
		var ev event.Event
		if event.Decode(string(f), &ev) == nil && ev.Type != event.ChallengeSent && ev.Type != event.SuccessfulAuth {
			told[ev.Remote.AddrPort.Addr()]++
		}
	}
}

// catalogueLab is an Asterisk that has all that is attacked.
func catalogueLab(t *testing.T) *lab.Lab {
	return lab.Start(t, lab.Options{Version: 22, HTTPAMI: true,
		Edit: func(file, content string) string {
			switch file {
			case "http.conf":
				content = strings.Replace(content, "bindaddr = 0.0.0.0\n", "bindaddr = ::\n", 1)
			case "modules.conf":
				content += "load = app_dial.so\nload = res_pjsip_t38.so\n"
			case "extensions.conf":
				content = strings.Replace(content, "[from-internal]\n",
					"[from-internal]\nexten => _6[2-5]XX,1,Dial(PJSIP/${EXTEN})\n", 1)
			case "pjsip.conf":
				content = strings.Replace(content, "[phone](!)\n", "[phone](!)\nt38_udptl = yes\n", 1)
			}
			return addAccounts(file, forTheWire(file, content))
		},
		Files: map[string]string{
			"hep.conf":                 example(t, "hep.conf"),
			"extensions_ringwall.conf": example(t, "extensions_ringwall.conf"),
			"ari.conf":                 "[general]\nenabled = yes\n[known]\ntype = user\npassword = right\n",
			"websocket_client.conf":    "",
			"iax.conf": "[general]\nbindaddr = [::]:4569\n" +
				"[known]\ntype = friend\nsecret = right\nhost = dynamic\ncontext = from-internal\n",
		}})
}

// hepConfig has a program listen to Asterisk's copies.
func hepConfig(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "hep-password")
	if err := os.WriteFile(file, []byte("a-long-random-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("hep: {listen: \"127.0.0.1:9061\", password_file: %s}", file)
}

// untilSensing waits until a sensor works, and until events and what it sees are known to be of one Asterisk.
func (r *rig) untilSensing(names ...string) {
	r.t.Helper()
	phone := r.Agent(r.t, lab.Phone, lab.AgentOptions{Timeout: trial.Patience, Retransmit: true})
	account := map[int]string{22: "6001", 16: "7001"}[r.Version]
	for _, name := range names {
		r.waitUntil("the sensor works: "+name, func() bool {
			for _, s := range r.daemonStatus().Sensors {
				if s.Name == name && s.Error != "" && name == "tap" {
					r.t.Skip("this kernel copies no packets: ", s.Error)
				}
				if s.Name == name && s.Alive {
					return true
				}
			}
			return false
		})
		r.waitUntil("the sensor sees: "+name, func() bool {
			if code, err := phone.Register(account, lab.Password(account)); err != nil || code != 200 {
				r.t.Fatal(code, err)
			}
			phone.Close()
			for _, s := range r.daemonStatus().Sensors {
				if s.Name == name && s.Heard > 0 {
					return true
				}
			}
			return false
		})
	}
}

// logInOver has a phone log in over each transport: that a login's silence means something is known only where Asterisk
// has told of one.
func (r *rig) logInOver(ways ...lab.AgentOptions) {
	r.t.Helper()
	for _, way := range ways {
		way.Timeout, way.Retransmit = trial.Patience, true
		phone := r.Agent(r.t, lab.Phone, way)
		if code, err := phone.Register("6001", lab.Password("6001")); err != nil || code != 200 {
			r.t.Fatalf("%+v: %d, %v", way, code, err)
		}
		phone.Close()
	}
}

// Every attack of the catalogue that Asterisk answers is told of by its events, by the tap, or by its copies of
// messages, and ends in a ban after few requests. The table in security.md says by whom.
func TestCatalogueOfAttacks(t *testing.T) {
	l := catalogueLab(t)
	rows := catalogue()
	session, told := l.DialAMI(t, lab.Ringwall), toldBy{}

	r := newRigOn(t, l, lab.Ringwall, "sensors: {tap: auto}\n")
	r.untilSensing("tap")
	r.logInOver(overTCP, overWS, overIPv6)
	byTap := runAll(r, rows, 1, func(i int) bool { return !rows[i].encrypted })
	told.add(session.DrainFrames())
	r.wantNoLeak()
	r.stopDaemon()

	r = newRigOn(t, l, lab.Ringwall, "sensors: {tap: off, "+hepConfig(t)+"}\n")
	r.untilSensing("hep")
	r.logInOver(overTCP, overTLS, overWS, overWSS, overIPv6)
	byHEP := runAll(r, rows, 2, func(i int) bool { return rows[i].encrypted || byTap[i].answered > 0 })
	told.add(session.DrainFrames())
	r.wantNoLeak()
	r.stopDaemon()

	var table strings.Builder
	table.WriteString("| Attack | Asterisk's events | Tap | HEP | Answered before the ban, at most | Reason | Closes |\n" +
		"|---|---|---|---|---|---|---|\n")
	for i := range rows {
		row, tap, hep := &rows[i], &byTap[i], &byHEP[i]
		isTold := told[tap.from]+told[hep.from] > 0
		first := tap
		if !tap.banned {
			first = hep
		}
		reason, closes := "`"+string(first.reason)+"`", first.closes.String()
		if !first.banned {
			if reason, closes = "–", "–"; tap.answered+hep.answered > 0 {
				t.Errorf("%s: Asterisk answers it, and nobody is banned", row.name)
			}
		}
		if first.answered > row.most {
			t.Errorf("%s: Asterisk answered %d before the ban, %d are allowed", row.name, first.answered, row.most)
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %d | %s | %s |\n", row.name, tells(isTold, first), sees(tap, isTold),
			sees(hep, isTold), row.most, reason, closes)
	}
	compareCatalogue(t, "catalogue", table.String())
}

// wantNoLeak fails the test where somebody is said to get through a ban: whoever attacks goes on after it, and what of his
// is on its way then is no leak.
func (r *rig) wantNoLeak() {
	r.t.Helper()
	all, err := r.client.History(r.t.Context(), time.Time{}, netip.Addr{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range all {
		if d.Action == ban.ActionLeak {
			r.t.Errorf("said to get through its ban: %+v", d)
		}
	}
	if len(all) == 0 || strings.Contains(r.daemon.Output(), string(ban.ActionLeak)) {
		r.t.Errorf("%d decisions, and the log: %s", len(all), r.daemon.Output())
	}
}

// tells says what events tell: of a scanner whose mark bans him nothing, or what comes before the ban is in the kernel.
func tells(told bool, o *outcome) string {
	switch {
	case o.reason == ban.ReasonScanner:
		return "–"
	case told:
		return "yes"
	}
	return "no"
}

// sees says what a sensor adds to events.
func sees(o *outcome, told bool) string {
	switch {
	case o.attempts == 0:
		return "no"
	case told && o.reason != ban.ReasonScanner:
		return "–"
	}
	return "yes"
}

// compareCatalogue compares the table with that of security.md, or writes it there.
func compareCatalogue(t *testing.T, name, table string) {
	t.Helper()
	const file, end = "../docs/security.md", "<!-- end -->\n"
	begin := "<!-- " + name + " -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, isOpen := strings.Cut(string(text), begin)
	old, after, isClosed := strings.Cut(rest, end)
	if !isOpen || !isClosed {
		t.Fatal("security.md has no place for the ", name)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table {
		t.Errorf("security.md differs from what was seen: go -C deploy test ./e2e -run %s -update\n%s",
			t.Name(), table)
	}
}
