package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
)

// What a guesser gets for nothing: guesses that Asterisk judges before the ban. After it, it judges none.
const (
	mostGuesses = 6 // from one address
	// the same behind a decoy, a second or more apart: longer pauses may be a retransmission's, and a busy machine
	// makes them
	mostSlowly  = 15
	mostHidden  = 3  // from one address that hides behind control characters
	mostForeign = 12 // over TCP from an address with a stolen account, of accounts that never logged in from there
	mostTrusted = 12 // over UDP from there, of accounts that never logged in from there
	mostInA48   = 12 // from all /64s of a /48
)

// What a test does at most, where nobody stops it: enough to tell the wrong from the right.
const (
	manyGuesses = 60
	slowGuesses = 20  // at one a second
	manySources = 300 // /64s of one /48
	burst       = 5000
)

// The accounts of these tests, besides those of the lab: each test guesses its own, since an account that many guess is
// judged in another way.
const firstAccount, lastAccount = 6201, 6599

// addAccounts gives Asterisk's configuration these accounts.
func addAccounts(file, content string) string {
	if file != "pjsip.conf" {
		return content
	}
	var b strings.Builder
	b.WriteString(content)
	for n := firstAccount; n <= lastAccount; n++ {
		fmt.Fprintf(&b, "\n[%d](phone)\nauth = %[1]d\naors = %[1]d\n[%[1]d](phone-auth)\nusername = %[1]d\n"+
			"password = %s\n[%[1]d](phone-aor)\n", n, lab.Password(fmt.Sprint(n)))
	}
	return b.String()
}

// Attacks that once got through, with real packets against Asterisk 22. Each begins with a program that knows nobody.
func TestGuessersHaveNoFreePasses(t *testing.T) {
	l := lab.Start(t, lab.Options{Edit: addAccounts})
	for _, c := range []struct {
		name, policy string
		test         func(r *rig)
	}{
		{"control characters", "", (*rig).controlCharacters},
		{"decoys", "", (*rig).sameAnswerDecoys},
		{"many accounts behind a decoy", "", (*rig).decoyOfManyAccounts},
		{"a stolen account over UDP", "", (*rig).stolenOverUDP},
		{"a storm of forged packets", "", (*rig).forgedStorm},
		{"a storm of one stolen account", "", (*rig).stormOfOneAccount},
		{"a stale nonce", "", (*rig).staleNonce},
		{"a network for each guess", "", (*rig).manyNetworks},
		{"forged wrong passwords", "", (*rig).forgedGuesses},
		{"forged distributed guessing", "", (*rig).forgedTargeted},
		{"slow guessing", "policy: {misconfigured: {per_minute: 600, burst: 4}}", (*rig).slowGuessing},
		{"a burst", "", (*rig).guessesInBurst},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The bans of the test before would be adopted.
			_, _ = l.Exec(t.Context(), lab.Server, "nft", "delete", "table", "inet", "ringwall")
			r := newRigOn(t, l, lab.Ringwall, c.policy)
			c.test(r)
			r.stopDaemon()
		})
	}
}

// guesser is an attacker at one address, who counts what Asterisk judges.
type guesser struct {
	*rig
	addr    netip.Addr
	options lab.AgentOptions
	agent   *lab.Agent
	judged  int  // guesses that were answered
	banned  bool // in the kernel

	dress     func(r *lab.Request, answer string) // writes the answer into a request; nil: as a phone does
	callID    string                              // of all guesses; empty: a new one for each
	challenge *lab.Challenge                      // that is answered; nil: Asterisk is asked for one
	invented  bool                                // the challenge is, and stays as it is
	hasty     bool                                // does not wait until the program has heard of a guess
	cseq      int
	last      time.Time     // a guess went out
	pause     time.Duration // the longest between two guesses
}

func (r *rig) newGuesser(transport string, a netip.Addr) *guesser {
	r.t.Helper()
	r.AddAddr(r.t, lab.Attacker, a)
	g := &guesser{rig: r, addr: a, options: lab.AgentOptions{Transport: transport, Local: a}}
	g.agent = r.Agent(r.t, lab.Attacker, g.options)
	return g
}

// setAnswerTimeout sets how long the guesser waits for an answer.
func (g *guesser) setAnswerTimeout(d time.Duration) {
	g.options.Timeout = d
	g.agent.Close()
	g.agent = g.Agent(g.t, lab.Attacker, g.options)
}

// useInventedChallenge has the guesser answer a challenge that Asterisk never sent, so that one packet is a guess.
func (g *guesser) useInventedChallenge() *guesser {
	g.challenge, g.invented = inventedChallenge(), true
	return g
}

func inventedChallenge() *lab.Challenge {
	return &lab.Challenge{Realm: "asterisk", Nonce: "1700000000/0123456789abcdef0123456789abcdef", QOP: true}
}

// guessPassword tries a password and returns Asterisk's answer, or 0 where a ban keeps it away. It waits until the
// program has heard of it, as long as an answer takes over the Internet, so that the count does not depend on this
// machine's load.
func (g *guesser) guessPassword(user, password string) int {
	g.t.Helper()
	resp := g.sendGuess(user, password)
	if resp == nil {
		return 0
	}
	return resp.Code
}

func (g *guesser) sendGuess(user, password string) *lab.Response {
	g.t.Helper()
	for range 20 { // on a busy machine a packet gets lost
		if g.challenge == nil && !g.askForChallenge(user) {
			return nil
		}
		r := g.guessRequest(user, password)
		before := g.eventsHeard()
		if !g.last.IsZero() {
			g.pause = max(g.pause, time.Since(g.last))
		}
		g.last = time.Now()
		resp, err := g.agent.Exchange(r)
		if err == nil {
			g.judged++
			if c := resp.Challenge(); c != nil && !g.invented {
				g.challenge = c
			}
			if !g.hasty {
				g.waitUntil("the program has heard of the guess", func() bool { return g.eventsHeard() > before })
				g.isBanned()
			}
			return resp
		}
		g.agent.Close()
		lost := g.eventsHeard() > before
		if lost { // the answer was
			g.judged++
		}
		if g.isBanned() {
			return nil
		}
		g.t.Logf("%v, guess %d of %s, judged: %t: %v", g.addr, g.judged+1, user, lost, err)
	}
	g.t.Fatalf("%v is not banned, and gets no answer", g.addr)
	return nil
}

// askForChallenge asks for a challenge, in a dialogue of its own, and says whether there was one.
func (g *guesser) askForChallenge(user string) bool {
	g.t.Helper()
	for range 20 {
		before := g.eventsHeard()
		resp, err := g.agent.Exchange(lab.Request{User: user})
		if err == nil {
			if g.challenge = resp.Challenge(); g.challenge == nil {
				g.t.Fatalf("%d without a challenge", resp.Code)
			}
			g.waitUntil("the program has heard of the challenge", func() bool { return g.eventsHeard() > before })
			return true
		}
		g.agent.Close()
		if g.isBanned() {
			return false
		}
	}
	g.t.Fatalf("%v is not banned, and gets no challenge", g.addr)
	return false
}

func (g *guesser) guessRequest(user, password string) lab.Request {
	g.cseq++
	r := lab.Request{User: user, CallID: g.callID, CSeq: g.cseq}
	answer := g.challenge.Answer(user, password, "REGISTER", r.URI(g.SIPAddress(g.addr.Is6())))
	if g.dress == nil {
		r.Credentials = answer
	} else {
		g.dress(&r, answer)
	}
	return r
}

// eventsHeard counts what the program has judged of what Asterisk told.
func (r *rig) eventsHeard() uint64 {
	r.t.Helper()
	s := r.daemonStatus().PBXs[0]
	return s.Events + s.Tampered
}

// isBanned says whether the guesser is banned, and waits until the kernel has the ban.
func (g *guesser) isBanned() bool {
	g.t.Helper()
	b := g.explanationOf(g.addr).Ban
	if b == nil || b.Observed {
		return false
	}
	if !g.banned {
		g.waitUntil("the kernel has the ban of "+b.Prefix.String(), func() bool {
			out, err := g.Exec(g.t.Context(), lab.Server, "nft", "list", "table", "inet", "ringwall")
			if err != nil {
				g.t.Fatalf("%v: %s", err, out)
			}
			host, _, _ := strings.Cut(b.Prefix.String(), "/")
			return strings.Contains(string(out), b.Prefix.String()+" timeout") ||
				strings.Contains(string(out), host+" timeout")
		})
	}
	g.banned = true
	return true
}

// guessUntilBanned makes up to n wrong guesses of an account, until the ban, with a pause between them.
func (g *guesser) guessUntilBanned(n int, user string, pause time.Duration) {
	g.t.Helper()
	for i := 0; i < n && !g.banned; i++ {
		if i > 0 {
			time.Sleep(pause)
		}
		if code := g.guessPassword(user, fmt.Sprintf("guess-%d", i)); code != 0 && code != 401 && code != 403 {
			g.t.Fatalf("a wrong password: %d", code)
		}
	}
}

// guessFromAnotherPort makes five more guesses, from another port, and returns how many are answered.
func (g *guesser) guessFromAnotherPort() (answers int) {
	g.t.Helper()
	o := g.options
	o.Port, o.Timeout = 40000, 300*time.Millisecond
	a := g.Agent(g.t, lab.Attacker, o)
	defer a.Close()
	c := inventedChallenge()
	transport := o.Transport
	if transport == "" {
		transport = "udp"
	}
	for i := range 5 {
		r := lab.Request{User: "6001"}
		r.Credentials = c.Answer(r.User, fmt.Sprintf("knock-%d", i), "REGISTER", r.URI(g.SIPAddress(g.addr.Is6())))
		if err := a.Send(r.Bytes(transport, a.Local(), g.SIPAddress(g.addr.Is6()))); err != nil {
			break // no TCP connection
		}
	}
	if !isAnswered(g.t, g.Agent(g.t, lab.Phone, lab.AgentOptions{IPv6: g.addr.Is6(), Timeout: trial.Patience / 10})) {
		g.t.Fatal("Asterisk answers nobody")
	}
	for { // who came after them was answered, and they were not
		if _, err := a.Receive(); err != nil {
			return answers
		}
		answers++
	}
}

// mostAfterBan is how many guesses are judged after a ban: over UDP it has a door, which is shut for who attacks through
// it.
func (g *guesser) mostAfterBan() int {
	if g.agent.Transport() == "udp" {
		return 4
	}
	return 0
}

// logAndBound logs what a guesser got in one line, and fails where that is more than a limit, or anything after the
// ban.
func (g *guesser) logAndBound(what string, limit int) {
	g.t.Helper()
	if !g.banned {
		g.t.Logf("figure: %s: %d guesses judged, and no ban", what, g.judged)
		g.t.Errorf("%s: no ban after %d guesses", what, g.judged)
		return
	}
	after := g.guessFromAnotherPort()
	g.t.Logf("figure: %s: %d guesses judged before the ban, %d after it", what, g.judged, after)
	if g.judged > limit || after > g.mostAfterBan() {
		g.t.Errorf("%s: %d guesses judged before the ban, allowed are %d; %d after it", what, g.judged, limit, after)
	}
}

// decisionsAbout returns the decisions so far about an address, or about all where it is not valid, with one of the
// actions.
func (r *rig) decisionsAbout(a netip.Addr, actions ...ban.Action) (out []string) {
	r.t.Helper()
	all, err := r.client.History(r.t.Context(), time.Time{}, a)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range all {
		if slices.Contains(actions, d.Action) {
			out = append(out, strings.Join([]string{string(d.Action), d.Source.String(), string(d.Reason), d.Account},
				" "))
		}
	}
	return out
}

// wantDecision fails the test unless there is such a decision: "ACTION SOURCE REASON ACCOUNT" with an empty reason
// for any.
func (r *rig) wantDecision(action ban.Action, source netip.Addr, reason ban.Reason, account string) bool {
	r.t.Helper()
	all := r.decisionsAbout(source, action)
	for _, d := range all {
		part := strings.SplitN(d, " ", 4)
		if part[1] == source.String() && (reason == "" || part[2] == string(reason)) &&
			(account == "" || part[3] == account) {
			return true
		}
	}
	r.t.Errorf("no %s %s of account %q from %v was told, but: %q", action, reason, account, source, all)
	return false
}

// newCustomer is a phone of a customer, at an address of its own and port 5062, that has registered and is trusted.
func (r *rig) newCustomer(a netip.Addr, account string) *lab.Agent {
	r.t.Helper()
	r.AddAddr(r.t, lab.Spare, a)
	phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Local: a, Port: 5062, Timeout: 5 * time.Second})
	if code := r.logIn(phone, account); code != 200 {
		r.t.Fatalf("a customer registers: %d", code)
	}
	r.waitUntil("the customer is trusted", func() bool { return r.explanationOf(a).Trust != nil })
	return phone
}

// logIn registers with the right password. It returns 0 if there is no answer.
func (r *rig) logIn(a *lab.Agent, account string) int {
	r.t.Helper()
	for range 10 {
		code, err := a.Register(account, lab.Password(account))
		if err == nil {
			return code
		}
		if !errors.Is(err, lab.ErrNoReply) {
			r.t.Logf("%s registers: %v", account, err)
		}
		a.Close()
		if b := r.explanationOf(a.Local().Addr()).Ban; b != nil {
			r.t.Logf("%s registers from where a ban is: %+v", account, *b)
			return 0
		}
	}
	r.t.Fatalf("%s registers, and gets no answer", account)
	return 0
}

// forgeWrongPassword sends a wrong password in the name of somebody, again until the program has judged it: packets
// get lost.
func (r *rig) forgeWrongPassword(from netip.AddrPort, account string) {
	r.t.Helper()
	server := r.SIPAddress(false)
	before := r.explanationOf(from.Addr()).Attempts
	for range 20 {
		q := lab.Request{User: account}
		q.Credentials = inventedChallenge().Answer(account, "forged", "REGISTER", q.URI(server))
		if err := r.Forge(lab.Attacker, from, server, q.Bytes("udp", from, server)); err != nil {
			r.t.Fatal(err)
		}
		for wait := time.Now().Add(2 * time.Second); time.Now().Before(wait); time.Sleep(2 * time.Millisecond) {
			if r.explanationOf(from.Addr()).Attempts > before {
				return
			}
		}
	}
	r.t.Fatalf("a packet that is forged in the name of %v is not judged", from)
}

func ip4(net, host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, byte(net), byte(host)}) }

// Asterisk takes a control character in a Call-ID, and tells of it as it came. No phone sends one.
func (r *rig) controlCharacters() {
	characters := []struct{ name, text string }{
		{"TAB", "\t"}, {"DEL", "\x7f"}, {"0x01", "\x01"}, {"ESC", "\x1b"}, {"U+0085", "\u0085"},
	}
	var hidden []netip.Addr
	for i, c := range characters {
		account := fmt.Sprint(firstAccount + i)
		g := r.newGuesser("udp", ip4(101, i+1))
		g.callID = "hide" + c.text + "me@lab"
		g.guessUntilBanned(manyGuesses, account, 0)
		g.logAndBound(c.name+" in the Call-ID", mostHidden)
		hidden = append(hidden, g.addr)
		if b := r.explanationOf(g.addr).Ban; b != nil && b.Reason != "malformed" {
			r.t.Errorf("%s: banned for %s", c.name, b.Reason)
		}

		g = r.newGuesser("udp", ip4(102, i+1))
		g.callID = "found" + c.text + "out@lab"
		if code := g.guessPassword(account, lab.Password(account)); code != 200 {
			r.t.Errorf("%s: the right password: %d", c.name, code)
		}
		r.wantDecision(ban.ActionBreach, g.addr, "", account)
		if r.explanationOf(g.addr).Trust != nil {
			r.t.Errorf("%s: who hides is trusted", c.name)
		}
		hidden = append(hidden, g.addr)
	}
	// What a decoy holds is told, too. A CR without LF is one more control character: it ends no line.
	for i, c := range []struct{ name, from, to string }{
		{"TAB in a nonce", `nonce="`, "nonce=\"\t"}, {"CR in a nonce", `nonce="`, "nonce=\"\r"},
		{"CR at the end of a nonce", `", uri`, "\r\", uri"}, {"TAB in a response", `response="`, "response=\"\t"},
		{"CR in a response", `response="`, "response=\"\r"}, {"CR at the end of a response", `00"`, "00\r\""},
	} {
		account := fmt.Sprint(firstAccount + 5)
		g := r.newGuesser("udp", ip4(101, 20+2*i))
		g.callID = "one-for-all@lab"
		g.dress = func(q *lab.Request, answer string) {
			behindDecoy(q, answer)
			q.Credentials = strings.Replace(q.Credentials, c.from, c.to, 1)
		}
		g.guessUntilBanned(manyGuesses, account, 0)
		g.logAndBound(c.name, mostHidden)
		found := r.newGuesser("udp", ip4(101, 21+2*i))
		found.dress = g.dress
		if code := found.guessPassword(account, lab.Password(account)); code != 200 { // so that the others are guesses
			r.t.Errorf("%s: the right password: %d", c.name, code)
		}
		hidden = append(hidden, g.addr, found.addr)
	}
	// Names are searched for that way, too.
	scanner := r.newGuesser("udp", ip4(101, 40))
	for i := 0; i < manyGuesses && !scanner.banned; i++ {
		before := r.eventsHeard()
		q := lab.Request{User: fmt.Sprint(9000 + i), CallID: fmt.Sprintf("hide\t%d@lab", i)}
		if _, err := scanner.agent.Exchange(q); err == nil {
			scanner.judged++
			r.waitUntil("the program has heard of the search", func() bool { return r.eventsHeard() > before })
		}
		scanner.isBanned()
	}
	scanner.logAndBound("unknown names, TAB in the Call-ID", mostHidden)

	bans, history := r.runCommand("list", "bans"), r.runCommand("history")
	for i, a := range hidden {
		why := r.runCommand("why", a.String())
		for command, out := range map[string]string{"why": why, "list bans": bans, "history": history} {
			if at := strings.IndexFunc(out, func(c rune) bool { return c != '\n' && unicode.IsControl(c) }); at >= 0 {
				r.t.Errorf("%s shows a raw byte: %q", command, out[max(0, at-40):min(len(out), at+40)])
			}
			named := strings.Contains(out, a.String()) && strings.Contains(out, "malformed")
			if banned := i%2 == 0; banned && !named {
				r.t.Errorf("%s does not say that %v is banned for what is malformed:\n%s", command, a, out)
			}
		}
		if !strings.Contains(history, a.String()) {
			r.t.Errorf("history does not name %v:\n%s", a, history)
		}
	}
}

// Asterisk reports the first Authorization header, if its scheme is spelled Digest, and verifies the one of its realm.
const decoy = `Digest username="6001", realm="elsewhere", nonce="1700000000/fedcba9876543210fedcba9876543210", ` +
	`uri="sip:10.99.0.1", algorithm=MD5, response="00000000000000000000000000000000"`

func behindDecoy(r *lab.Request, answer string) {
	r.Credentials, r.Header = decoy, []string{"Authorization: " + answer}
}

func inLowerCase(r *lab.Request, answer string) {
	r.Credentials = "digest" + strings.TrimPrefix(answer, "Digest")
}

// attackWithoutPause has guessers attack until none was held up by the machine's load: copies of an answer that come
// as slowly as a phone sends one again are not judged as guesses at once.
func (r *rig) attackWithoutPause(attack func(host int) []*guesser) []*guesser {
	r.t.Helper()
	for host := 1; ; host++ {
		all := attack(host)
		paused := slices.ContainsFunc(all, func(g *guesser) bool { return g.pause >= 1500*time.Millisecond })
		if !paused || host == 5 {
			return all
		}
		r.t.Logf("attack %d was held up, it is made again", host)
	}
}

// What Asterisk tells of the answer may be the same for all guesses: they are no retransmissions.
func (r *rig) sameAnswerDecoys() {
	net := 103
	for _, dress := range []struct {
		name string
		put  func(r *lab.Request, answer string)
	}{{"a decoy", behindDecoy}, {"digest in lower case", inLowerCase}} {
		for _, transport := range []string{"udp", "tcp"} {
			account := fmt.Sprint(firstAccount + 10 + net - 103)
			g := r.attackWithoutPause(func(host int) []*guesser {
				g := r.newGuesser(transport, ip4(net, host))
				g.dress, g.callID = dress.put, "one-for-all@lab"
				g.setAnswerTimeout(time.Second)
				g.guessUntilBanned(manyGuesses, account, 0)
				return []*guesser{g}
			})[0]
			g.logAndBound(dress.name+" over "+transport, mostGuesses)

			g = r.newGuesser(transport, ip4(net, 101))
			g.dress, g.callID, g.hasty = dress.put, "one-for-all@lab", true
			g.setAnswerTimeout(time.Second)
			for i := 0; i < 10*manyGuesses && !g.banned; i++ {
				g.guessPassword(account, fmt.Sprintf("guess-%d", i))
			}
			g.t.Logf("figure: %s over %s, as fast as the answers come: %d guesses judged, banned: %t", dress.name,
				transport, g.judged, g.banned)

			g = r.newGuesser(transport, ip4(net, 102)) // so that the others are guesses
			g.dress = dress.put
			if code := g.guessPassword(account, lab.Password(account)); code != 200 {
				r.t.Errorf("%s over %s: Asterisk answers the right password with %d", dress.name, transport, code)
			}
			net++
		}
	}
	slow := r.attackWithoutPause(func(host int) (all []*guesser) {
		for n, put := range []func(r *lab.Request, answer string){behindDecoy, inLowerCase} {
			g := r.newGuesser("udp", ip4(net+n, host))
			g.dress, g.callID = put, "one-for-all@lab"
			g.setAnswerTimeout(time.Second)
			all = append(all, g)
		}
		for i := 0; i < slowGuesses && !(all[0].banned && all[1].banned); i++ {
			begin := time.Now()
			for n, g := range all {
				if !g.banned {
					g.guessPassword(fmt.Sprint(firstAccount+20+n), fmt.Sprintf("guess-%d", i))
				}
			}
			time.Sleep(time.Until(begin.Add(time.Second)))
		}
		return all
	})
	slow[0].logAndBound("a decoy, one guess a second", mostSlowly)
	slow[1].logAndBound("digest in lower case, one guess a second", mostGuesses)
}

// Behind one decoy many accounts are guessed: each of them is known.
func (r *rig) decoyOfManyAccounts() {
	g := r.newGuesser("udp", ip4(110, 1))
	g.dress, g.callID = behindDecoy, "one-for-all@lab"
	var tried []string
	for i := 0; i < manyGuesses && !g.banned; i++ {
		account := fmt.Sprint(firstAccount + 30 + i%30)
		if g.guessPassword(account, fmt.Sprintf("guess-%d", i)) != 0 && !slices.Contains(tried, account) {
			tried = append(tried, account)
		}
	}
	g.logAndBound("many accounts behind a decoy", mostGuesses)
	seen := map[string]bool{}
	for _, e := range r.explanationOf(g.addr).Evidence {
		seen[e.Account] = true
	}
	r.t.Logf("figure: many accounts behind a decoy: %d accounts tried, %d seen", len(tried), len(seen))
	for _, account := range tried {
		if !seen[account] {
			r.t.Errorf("%s was guessed, and why does not know of it: %v", account, seen)
		}
	}
}

// Who has an account and guesses others over UDP is not banned, since all that could be forged in a customer's name. But
// he crawls from then on, from whatever port; the flow that logged in lives. He is told of, and what he finds is a
// breach, however many accounts he tried.
func (r *rig) stolenOverUDP() {
	const stolen, first, found = firstAccount + 60, firstAccount + 61, firstAccount + 160
	r.AddAddr(r.t, lab.Attacker, ip4(111, 1))
	agent := func(port uint16) *lab.Agent {
		return r.Agent(r.t, lab.Attacker, lab.AgentOptions{Local: ip4(111, 1), Port: port, Timeout: trial.Patience / 10,
			Retransmit: true})
	}
	phone := agent(5062)
	if code := r.logIn(phone, fmt.Sprint(stolen)); code != 200 {
		r.t.Fatalf("the stolen account: %d", code)
	}
	r.waitUntil("the attacker is trusted", func() bool { return r.explanationOf(ip4(111, 1)).Trust != nil })
	g := r.newGuesser("udp", ip4(111, 1)).useInventedChallenge()
	g.setAnswerTimeout(300 * time.Millisecond)
	account := func(i int) string {
		if i < 80 {
			return fmt.Sprint(first + i)
		}
		return fmt.Sprint(found)
	}
	// Until he is slowed, he guesses as fast as the answers come.
	before := 0
	for ; before < 2*mostTrusted; before++ {
		if _, err := g.agent.Exchange(g.guessRequest(account(before), "guess")); err != nil {
			break
		}
		time.Sleep(roundTrip)
	}
	r.waitUntil("he is told of", func() bool { return len(r.decisionsAbout(g.addr, ban.ActionGuessing)) > 0 })
	// Then he sends from where he logged in, once more as soon as that is heard, and from twenty ports at once.
	volley := func(sender *lab.Agent) int {
		codes, err := sender.ExchangeMany(20, 20, func(int) lab.Request { return g.guessRequest(fmt.Sprint(found), "guess") })
		if err != nil {
			r.t.Fatal(err)
		}
		return 20 - codes[0]
	}
	quick := func(port uint16) *lab.Agent {
		return r.Agent(r.t, lab.Attacker, lab.AgentOptions{Local: g.addr, Port: port, Timeout: 200 * time.Millisecond})
	}
	phone.Close()
	good := quick(5062)
	atOnce, begin, after := volley(good), time.Now(), volley(good)
	good.Close()
	for range 20 {
		after += volley(quick(0))
	}
	took := time.Since(begin)
	if code, err := phone.Register(fmt.Sprint(stolen), lab.Password(fmt.Sprint(stolen))); err != nil || code != 200 {
		r.t.Errorf("the flow that logged in: %d, %v", code, err)
	}
	code, err := agent(0).Register(fmt.Sprint(found), lab.Password(fmt.Sprint(found)))
	r.t.Logf("figure: a stolen account over UDP: %d guesses judged before he is slowed, then %d at once from where he logged in; "+
		"after that %d of 420 in %v; told: %q; the right password: %d, %v", before, atOnce, after, took.Round(time.Millisecond),
		r.decisionsAbout(g.addr, ban.ActionGuessing, ban.ActionObserve), code, err)
	// A packet a second from where he logged in, and 15 a minute from elsewhere, 4 of each at once.
	if most := int(took.Seconds()*(1+15.0/60)) + 8; before > mostTrusted || after > most {
		r.t.Errorf("%d guesses before he is slowed, allowed are %d; %d afterwards, allowed are %d", before, mostTrusted,
			after, most)
	}
	if code == 200 {
		r.waitUntil("a breach is told", func() bool { return len(r.decisionsAbout(g.addr, ban.ActionBreach)) > 0 })
		r.wantDecision(ban.ActionBreach, g.addr, "", fmt.Sprint(found))
	}
}

// roundTrip is how long an answer is on its way over the Internet: an attacker in the same house as the PBX could have
// the next guess there before the kernel knows what became of the last.
const roundTrip = 20 * time.Millisecond

// newAccountThief is a guesser over TCP who has logged in with an account.
func (r *rig) newAccountThief(a netip.Addr, account string) *guesser {
	r.t.Helper()
	g := r.newGuesser("tcp", a)
	if code := r.logIn(g.agent, account); code != 200 {
		r.t.Fatalf("the stolen account: %d", code)
	}
	r.waitUntil("the attacker is trusted", func() bool { return r.explanationOf(a).Trust != nil })
	return g
}

// guessUntilCut guesses one account at a known good source, which loses the connection by that, comes back from new ones,
// and fails the test where that is worth anything.
func (g *guesser) guessUntilCut(account string) {
	g.t.Helper()
	g.useInventedChallenge().setAnswerTimeout(300 * time.Millisecond)
	guessOn := func() (judged int) { // in one connection
		for g.agent.Close(); judged < manyGuesses; judged++ {
			heard := g.eventsHeard()
			if _, err := g.agent.Exchange(g.guessRequest(account, "guess")); err != nil {
				break
			}
			g.waitUntil("the program has heard of the guess", func() bool { return g.eventsHeard() > heard })
			time.Sleep(roundTrip)
		}
		return judged
	}
	const connections = 20
	before, after := guessOn(), 0
	for range connections {
		after += guessOn()
	}
	g.t.Logf("figure: a stolen account over TCP, guesses of one other account: %d judged before the connection ends, "+
		"%d from %d new ones", before, after, connections)
	g.wantDecision(ban.ActionCut, g.addr, "", account)
	if before > mostGuesses || after > 2*mostGuesses {
		g.t.Errorf("%d guesses before the connection ends, %d afterwards", before, after)
	}
}

// stormDecisions returns the decisions that a storm made.
func (r *rig) stormDecisions() []string {
	return slices.DeleteFunc(r.decisionsAbout(netip.Addr{}, ban.ActionUnban, ban.ActionObserve), func(d string) bool {
		return !strings.Contains(d, " "+string(ban.ReasonStorm)+" ")
	})
}

// Forged packets of a few customers are no fault of the PBX, during which nobody would be banned.
func (r *rig) forgedStorm() {
	const first = firstAccount + 170
	var phones []*lab.Agent
	for i := range 5 {
		phones = append(phones, r.newCustomer(ip4(121+i, 1), fmt.Sprint(6001+i)))
	}
	without := r.newAccountThief(ip4(112, 1), "6006")
	for i := 0; i < manyGuesses && !without.banned; i++ {
		without.guessPassword(fmt.Sprint(first+i), "guess")
	}
	without.logAndBound("a stolen account over TCP", mostForeign)

	one := r.newAccountThief(ip4(114, 1), "6009")
	one.guessUntilCut(fmt.Sprint(first + manyGuesses))

	with := r.newAccountThief(ip4(113, 1), "6007")
	forged := time.Time{}
	for i := 0; i < manyGuesses && !with.banned; i++ {
		if time.Since(forged) > 3*time.Second {
			forged = time.Now()
			for n, p := range phones {
				r.forgeWrongPassword(p.Local(), fmt.Sprint(6001+n))
			}
		}
		with.guessPassword(fmt.Sprint(first+i), "guess")
	}
	with.logAndBound("a stolen account over TCP, and forged packets of five customers", mostForeign)
	if s := r.stormDecisions(); len(s) > 0 {
		r.t.Errorf("forged packets made a storm: %q", s)
	}
	for i, p := range phones {
		if code := r.logIn(p, fmt.Sprint(6001+i)); code != 200 {
			r.t.Errorf("customer %d: %d", i, code)
		}
		if x := r.explanationOf(p.Local().Addr()); x.Ban != nil || x.Trust == nil {
			r.t.Errorf("customer %d: %+v", i, x)
		}
	}
}

// Several addresses with one account are one attacker, and no storm.
func (r *rig) stormOfOneAccount() {
	const first = firstAccount + 240
	var all []*guesser
	for i := range 6 {
		all = append(all, r.newAccountThief(ip4(131+i, 1), "6008"))
	}
	for i := range manyGuesses {
		for _, g := range all {
			if !g.banned {
				g.guessPassword(fmt.Sprint(first+i), "guess")
			}
		}
		if !slices.ContainsFunc(all, func(g *guesser) bool { return !g.banned }) {
			break
		}
	}
	for i, g := range all {
		g.logAndBound(fmt.Sprintf("one stolen account over TCP, address %d of 6", i+1), mostForeign)
	}
	if s := r.stormDecisions(); len(s) > 0 {
		r.t.Errorf("one account made a storm: %q", s)
	}
}

// Asterisk answers the right password with a stale nonce by another challenge, and tells nobody. Who guesses that way
// logs in from elsewhere later.
func (r *rig) staleNonce() {
	account := fmt.Sprint(firstAccount + 310)
	r.newCustomer(ip4(141, 1), account)
	judged := 0
	for i := 0; i < 8; i++ {
		g := r.newGuesser("udp", ip4(142, i+1)).useInventedChallenge()
		g.guessUntilBanned(mostGuesses, account, 0)
		judged += g.judged
	}
	if judged <= 20 {
		r.t.Fatalf("only %d guesses were judged", judged)
	}
	g := r.newGuesser("udp", ip4(142, 100)).useInventedChallenge()
	resp := g.sendGuess(account, lab.Password(account))
	if resp == nil || resp.Code != 401 || !strings.Contains(string(resp.Raw), "stale=true") {
		r.t.Fatalf("the right password with a stale nonce: %+v", resp)
	}
	elsewhere := r.newGuesser("udp", ip4(143, 1))
	code := r.logIn(elsewhere.agent, account)
	x := r.explanationOf(elsewhere.addr)
	r.t.Logf("figure: a stale nonce: %d guesses judged, then a login from elsewhere: %d, trusted: %t, told: %q",
		judged+1, code, x.Trust != nil, r.decisionsAbout(elsewhere.addr, ban.ActionBreach, ban.ActionTrust))
	if code != 200 {
		r.t.Fatalf("the login: %d", code)
	}
	r.wantDecision(ban.ActionBreach, elsewhere.addr, "", account)
	if x.Trust != nil {
		r.t.Error("who may have guessed the password is trusted")
	}
}

// A /48 is 65,536 sources of one owner.
func (r *rig) manyNetworks() {
	for n, way := range []struct {
		name, transport string
		step            int // from one /64 to the next
	}{
		{"one /64 after the other over UDP", "udp", 1}, {"each in another /56 over UDP", "udp", 256},
		{"one /64 after the other over TCP", "tcp", 1}, {"each in another /56 over TCP", "tcp", 256},
	} {
		account := fmt.Sprint(firstAccount + 320 + n)
		judged, sources := 0, 0
		cut := "" // the ban of a /64 that never sent
		for i := 0; sources < manySources && i < 1<<16; sources++ {
			a := netip.MustParseAddr(fmt.Sprintf("fd99:0:%x:%x::1", 0x10+n, i))
			g := r.newGuesser(way.transport, a).useInventedChallenge()
			g.setAnswerTimeout(time.Second)
			fresh := r.explanationOf(a).Ban != nil
			if fresh {
				g.isBanned()
				g.setAnswerTimeout(300 * time.Millisecond)
			}
			g.guessPassword(account, "guess")
			g.agent.Close()
			judged += min(g.judged, 1) // another one is the same again, since an answer was lost
			if !fresh {
				i += way.step
				continue
			}
			if cut = r.explanationOf(a).Ban.Prefix.String(); strings.HasSuffix(cut, "/48") {
				break
			}
			i = i&^255 + 256 // he moves on to where he is not banned
		}
		r.t.Logf("figure: a guess from each /64 of a /48, %s: %d guesses judged from %d sources, then banned: %q",
			way.name, judged, sources+1, cut)
		most := mostInA48
		if way.transport == "udp" {
			most += 4 // what knocks at the ban of a /56
		}
		if judged > most || !strings.HasSuffix(cut, "/48") {
			r.t.Errorf("%s: %d guesses judged, allowed are %d; banned: %q", way.name, judged, most, cut)
		}
	}
}

// Wrong passwords in the name of a phone say nothing against its next login.
func (r *rig) forgedGuesses() {
	account := fmt.Sprint(firstAccount + 330)
	phone := r.newCustomer(ip4(151, 1), account)
	local := phone.Local()
	before := r.explanationOf(local.Addr()).Trust.Until
	for i := range 6 {
		r.forgeWrongPassword(netip.AddrPortFrom(local.Addr(), local.Port()+uint16(i%2)), account)
	}
	if code := r.logIn(phone, account); code != 200 {
		r.t.Errorf("the phone registers: %d", code)
	}
	r.waitUntil("the login is heard", func() bool {
		x := r.explanationOf(local.Addr())
		return x.Trust == nil || x.Trust.Until.After(before) ||
			len(r.decisionsAbout(local.Addr(), ban.ActionBreach)) > 0
	})
	x, told := r.explanationOf(local.Addr()), r.decisionsAbout(local.Addr(), ban.ActionBreach)
	renewed := x.Trust != nil && x.Trust.Until.After(before)
	r.t.Logf("figure: six forged wrong passwords: breaches told: %q; trust goes on: %t", told, renewed)
	if len(told) > 0 || !renewed || x.Ban != nil {
		r.t.Errorf("forged packets: breaches %q, %+v", told, x)
	}
}

// Packets in the names of many sources do not take from an account's user the right to a mistake.
func (r *rig) forgedTargeted() {
	account := fmt.Sprint(firstAccount + 340)
	r.newCustomer(ip4(152, 1), account)
	for i := range 20 {
		r.forgeWrongPassword(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 5060), account)
	}
	person := r.newGuesser("udp", ip4(153, 1))
	person.guessPassword(account, "a typo")
	x := r.explanationOf(person.addr)
	r.t.Logf("figure: twenty forged packets, and a typo in a new place: banned: %t; told: %q", x.Ban != nil,
		r.decisionsAbout(netip.Addr{}, ban.ActionTargeted))
	if x.Ban != nil {
		r.t.Fatalf("a typo in a new place: %+v", *x.Ban)
	}
	if code := r.logIn(person.agent, account); code != 200 {
		r.t.Errorf("the right password: %d", code)
	}
	x = r.explanationOf(person.addr)
	r.t.Logf("figure: twenty forged packets, and a login in a new place: trusted: %t; told: %q", x.Trust != nil,
		r.decisionsAbout(person.addr, ban.ActionBreach, ban.ActionTrust))
	if x.Ban != nil {
		r.t.Errorf("the right password in a new place: %+v", *x.Ban)
	}
}

// Whoever guesses no faster than a phone, but longer than anybody leaves a phone like that, is told of.
func (r *rig) slowGuessing() {
	account := fmt.Sprint(firstAccount + 350)
	g := r.newGuesser("udp", ip4(154, 1))
	g.guessUntilBanned(25, account, 120*time.Millisecond) // the policy takes ten a second for a phone's
	r.t.Logf("figure: slow guessing: %d guesses judged, banned: %t; told: %q", g.judged, g.banned,
		r.decisionsAbout(g.addr, "guessing", ban.ActionMisconfigured))
	if g.banned {
		r.t.Errorf("a phone's pace: %+v", *r.explanationOf(g.addr).Ban)
	}
	r.wantDecision("guessing", g.addr, "", account)
}

// Of guesses that do not wait for their answers, those that are in Asterisk's socket when the first are judged are
// judged, too.
func (r *rig) guessesInBurst() {
	account := fmt.Sprint(firstAccount + 360)
	g := r.newGuesser("udp", ip4(155, 1)).useInventedChallenge()
	g.setAnswerTimeout(time.Second)
	server := r.SIPAddress(false)
	// Now the socket is open: what follows sends and receives at once.
	if err := g.agent.Send([]byte("\r\n\r\n")); err != nil {
		r.t.Fatal(err)
	}
	requests := make([][]byte, burst)
	for i := range requests {
		q := g.guessRequest(account, fmt.Sprintf("guess-%d", i))
		requests[i] = q.Bytes("udp", g.agent.Local(), server)
	}
	var answers atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for { // until nothing comes for as long as the agent waits
			if _, err := g.agent.Receive(); err != nil {
				return
			}
			answers.Add(1)
		}
	}()
	begin := time.Now()
	if err := g.agent.SendAll(requests); err != nil {
		r.t.Fatal(err)
	}
	took := time.Since(begin)
	r.waitUntil("the burst is banned", g.isBanned)
	sofar := answers.Load()
	<-done
	after := g.guessFromAnotherPort()
	r.t.Logf("figure: a burst of %d within %v: %d guesses answered, %d of them when the ban was seen; %d after it",
		burst, took.Round(time.Millisecond), answers.Load(), sofar, after)
	if after > g.mostAfterBan() {
		r.t.Errorf("%d guesses were judged after the ban", after)
	}
	// What firewall.meter lets through while they are sent: 100 at once, and 200 a second.
	if most := max(150, 110+int(200*took.Seconds())); answers.Load() > int64(most) {
		r.t.Errorf("%d guesses were judged, allowed are %d", answers.Load(), most)
	}
}
