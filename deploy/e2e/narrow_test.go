package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
)

// A hundred times as fast as by default: what a device does each half minute, these do three times a second.
const hundredfold = "policy: {half_life: 6s, misconfigured: {per_minute: 600}}\n"

// Who fails as a device does is named, and nobody loses anything by it; what an attacker does costs him alone. Each
// case has addresses and accounts of its own.
func TestVerdictsHitOnlyWhoIsMeant(t *testing.T) {
	l := lab.Start(t, lab.Options{PublicAMI: true, Edit: func(file, content string) string {
		switch file {
		case "manager.conf":
			return content + "\n[crm]\nsecret = new\nread = call\nwrite = call\n"
		case "pjsip.conf":
			content += "\n[provider]\ntype = registration\ntransport = t-udp4\nserver_uri = sip:" + provider.String() +
				"\nclient_uri = sip:us@" + provider.Addr().String() + "\nretry_interval = 600\n"
		}
		return addAccounts(file, content)
	}})
	type testCase struct {
		name string
		test func(r *rig)
	}
	for _, group := range []struct {
		name, policy string
		cases        []testCase
	}{
		{"devices", hundredfold, []testCase{
			{"a deleted extension in an office over TLS", func(r *rig) {
				r.deletedExtension(ip4(170, 1), "tls", 6201, 300*time.Millisecond)
			}},
			{"a deleted extension in an office over UDP", func(r *rig) {
				r.deletedExtension(ip4(171, 1), "udp", 6241, 1400*time.Millisecond)
			}},
			{"a program with an old secret of the manager", (*rig).oldManagerSecret},
			{"two devices of one account over TLS", func(r *rig) { r.twoDevices(ip4(173, 1), "tls", "6291") }},
			{"two devices of one account over UDP", func(r *rig) { r.twoDevices(ip4(174, 1), "udp", "6292") }},
			{"two hundred customers behind a proxy", (*rig).customersBehindProxy},
			{"an old password alone over UDP", func(r *rig) { r.oldPasswordAlone(ip4(176, 1), "udp", "6293") }},
			{"an old password alone over TCP", func(r *rig) { r.oldPasswordAlone(ip4(177, 1), "tcp", "6294") }},
		}},
		{"forgers", "policy: {trust: {ttl: 2s}}\n", []testCase{
			{"in the name of a stranger", func(r *rig) { r.forgedStranger(ip4(180, 1), "6501", false) }},
			{"in the name of a phone whose trust is over", func(r *rig) { r.forgedStranger(ip4(181, 1), "6502", true) }},
			{"in the name of a provider", (*rig).forgedProvider},
		}},
		{"attackers", "", []testCase{
			{"through a relay over TCP", (*rig).attackerThroughRelay},
			{"none: an unknown office starts over UDP", func(r *rig) { r.unknownOffice(ip4(184, 1), "udp", 6460) }},
			{"none: an unknown office starts over TLS", func(r *rig) { r.unknownOffice(ip4(185, 1), "tls", 6510) }},
		}},
	} {
		t.Run(group.name, func(t *testing.T) {
			// The bans of the group before would be adopted.
			_, _ = l.Exec(t.Context(), lab.Server, "nft", "delete", "table", "inet", "ringwall")
			r := newRigOn(t, l, lab.Ringwall, group.policy)
			var all sync.WaitGroup
			for _, c := range group.cases { // they wait most of the time, so that go test -parallel is no measure
				all.Go(func() { t.Run(c.name, func(t *testing.T) { c.test(r.forSubtest(t)) }) })
			}
			all.Wait()
			r.stopDaemon()
		})
	}
}

// wantSpared fails the test where a source, or anybody behind it, lost anything.
func (r *rig) wantSpared(a netip.Addr) {
	r.t.Helper()
	lost := r.decisionsAbout(a, ban.ActionBan, ban.ActionExtend, ban.ActionCut, ban.ActionUntrust, ban.ActionBreach)
	if x := r.explanationOf(a); len(lost) > 0 || x.Ban != nil {
		r.t.Errorf("%q, %+v", lost, x.Ban)
	}
}

// isNamed says whether an account was reported as one of a device that is to be mended.
func (r *rig) isNamed(a netip.Addr, account string) bool {
	return slices.ContainsFunc(r.decisionsAbout(a, ban.ActionMisconfigured), func(d string) bool {
		return strings.HasSuffix(d, " "+account)
	})
}

// besideOffice has an office register all the time while something goes on beside it, and fails the test where that
// costs a registration.
func (r *rig) besideOffice(a netip.Addr, transport string, firstAccount, n int, something func()) {
	r.t.Helper()
	r.AddAddr(r.t, lab.Spare, a)
	o := r.openOffice(a, transport, firstAccount, n)
	ctx, cancel := context.WithCancel(r.t.Context())
	var work sync.WaitGroup
	work.Go(func() { o.keepRegistering(ctx, 5*time.Second) })
	something()
	cancel()
	work.Wait()
	if o.lost.Load() > 0 || o.registered.Load() == 0 {
		r.t.Errorf("%d of %d registrations of the office were lost", o.lost.Load(), o.registered.Load())
	}
	r.wantSpared(a)
	if r.explanationOf(a).Trust == nil {
		r.t.Error("the office is not trusted any more")
	}
}

// repeat does something at a pace until it is enough.
func (r *rig) repeat(every time.Duration, something func(), enough func(n int) bool) (n int) {
	r.t.Helper()
	for end := time.Now().Add(trial.Patience); ; {
		begin := time.Now()
		something()
		if n++; enough(n) {
			return n
		}
		if begin.After(end) {
			r.t.Fatalf("not enough after %d times", n)
		}
		time.Sleep(time.Until(begin.Add(every)))
	}
}

// A phone of an extension that was deleted tries for ever, beside forty that work.
func (r *rig) deletedExtension(a netip.Addr, transport string, firstAccount int, every time.Duration) {
	const deleted = "9217"
	r.besideOffice(a, transport, firstAccount, phonesOfOffice, func() {
		phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: time.Second})
		n := r.repeat(every, func() {
			if code, err := phone.Register(deleted, "old"); err == nil && code != 401 && code != 403 {
				r.t.Fatalf("the deleted extension: %d", code)
			}
		}, func(int) bool { return r.isNamed(a, deleted) })
		r.t.Logf("figure: a deleted extension over %s: named after %d tries", transport, n)
	})
}

// A program logs in to the manager with the secret of last week, from an office.
func (r *rig) oldManagerSecret() {
	a := ip4(172, 1)
	r.besideOffice(a, "tls", 6281, 10, func() {
		n := r.repeat(300*time.Millisecond, func() { r.logInToManager(a) }, func(int) bool { return r.isNamed(a, "crm") })
		r.t.Logf("figure: an old secret of the manager: named after %d tries", n)
	})
}

func (r *rig) logInToManager(a netip.Addr) {
	r.t.Helper()
	c, err := r.dialAs(lab.Spare, a, netip.AddrPortFrom(r.SIPAddress(false).Addr(), 5038).String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(trial.Patience))
	if _, err := c.Write([]byte("Action: Login\r\nUsername: crm\r\nSecret: old\r\n\r\n")); err != nil {
		r.t.Fatal(err)
	}
	for buf := make([]byte, 1024); ; { // until Asterisk has said no, and hung up
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// A softphone has last week's password of the desk phone beside it.
func (r *rig) twoDevices(a netip.Addr, transport, account string) {
	r.AddAddr(r.t, lab.Spare, a)
	desk := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: trial.Patience / 10,
		Retransmit: true})
	soft := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: time.Second})
	n := r.repeat(150*time.Millisecond, func() {
		_, _ = soft.Register(account, "old")
	}, func(n int) bool {
		if n%20 == 1 {
			if code := r.logIn(desk, account); code != 200 {
				r.t.Fatalf("the desk phone: %d", code)
			}
		}
		return r.isNamed(a, account)
	})
	r.t.Logf("figure: two devices of one account over %s: named after %d tries", transport, n)
	r.wantSpared(a)
}

// A proxy has one connection for all who register through it, of whom some have old passwords.
func (r *rig) customersBehindProxy() {
	a, customers := ip4(175, 1), 200
	const first, foreign = 6300, 6295
	r.AddAddr(r.t, lab.Spare, a)
	proxy := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: "tcp", Local: a, Timeout: trial.Patience / 10})
	logIn := func(account int) {
		r.t.Helper()
		name := fmt.Sprint(account)
		if code, err := proxy.Register(name, lab.Password(name)); err != nil || code != 200 {
			r.t.Fatalf("customer %s: %d, %v", name, code, err)
		}
	}
	for n := range customers {
		logIn(first + n)
	}
	local := proxy.Local()
	for n := range 200 {
		_, _ = proxy.Register(fmt.Sprint(first+n%10), "old") // customers
		_, _ = proxy.Register(fmt.Sprint(9300+n), "guess")   // an attacker, who came through it
		_, _ = proxy.Register(fmt.Sprint(foreign), "guess")
	}
	for n := range customers {
		logIn(first + n)
	}
	r.wantSpared(a)
	r.wantDecision(ban.ActionProxy, a, ban.ReasonProxy, "")
	if s := r.daemonStatus(); s.Engine.Proxies != 1 || proxy.Local() != local {
		r.t.Errorf("%d proxies; through %v, before %v", s.Engine.Proxies, proxy.Local(), local)
	}
	r.t.Logf("figure: a proxy: %d customers, told: %q", customers,
		r.decisionsAbout(a, ban.ActionProxy, ban.ActionGuessing))
}

// A proxy whose customers are registered is scanned before one of them logs in under the program's eyes, as on the day of
// its installation.
func TestAProxyIsKnownByItsContacts(t *testing.T) {
	l := lab.Start(t, lab.Options{Edit: addAccounts})
	a, customers := ip4(178, 1), 40
	l.AddAddr(t, lab.Spare, a)
	proxy := l.Agent(t, lab.Spare, lab.AgentOptions{Transport: "tcp", Local: a, Timeout: trial.Patience})
	logIn := func() {
		t.Helper()
		for n := range customers {
			name := fmt.Sprint(firstAccount + n)
			if code, err := proxy.Register(name, lab.Password(name)); err != nil || code != 200 {
				t.Fatalf("customer %s: %d, %v", name, code, err)
			}
		}
	}
	logIn()
	r := newRigOn(t, l, lab.SecFull, "")
	r.waitUntil("the proxy is told", func() bool { return r.daemonStatus().Engine.Proxies == 1 })
	for n := range 100 {
		_, _ = proxy.Register(fmt.Sprint(9300+n), "guess")
	}
	logIn()
	r.wantSpared(a)
	r.wantDecision(ban.ActionProxy, a, ban.ReasonProxy, "")
	r.stopDaemon()
}

// A phone at home has an old password for hours, until somebody mends it.
func (r *rig) oldPasswordAlone(a netip.Addr, transport, account string) {
	r.AddAddr(r.t, lab.Spare, a)
	heard := r.countGuesses(a)
	phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: 500 * time.Millisecond})
	tried := 0
	try := func() {
		tried++
		if _, err := phone.Register(account, "old"); err != nil {
			phone.Close()
		}
	}
	begin := time.Now()
	r.repeat(150*time.Millisecond, try, func(int) bool { return time.Since(begin) > 15*time.Second })
	guesses := heard()
	// Somebody mends it. It does what phones do: it sends again, and tries again each few seconds.
	phone.Close()
	mended := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: 32 * time.Second,
		Retransmit: true})
	begin = time.Now()
	r.repeat(3*time.Second, mended.Close, func(int) bool {
		code, err := mended.Register(account, lab.Password(account))
		return err == nil && code == 200
	})
	r.t.Logf("figure: an old password alone over %s: %d of %d tries within 15s judged; in %v after it was mended",
		transport, guesses, tried, time.Since(begin).Round(time.Millisecond))
	if guesses <= 20 || guesses > 20+8 {
		r.t.Errorf("%d tries were judged", guesses)
	}
	r.wantSpared(a)
}

// Three packets in the name of somebody close UDP there, but for a trickle, and nothing else; his login opens it again.
func (r *rig) forgedStranger(a netip.Addr, account string, wasTrusted bool) {
	r.AddAddr(r.t, lab.Spare, a)
	phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Local: a, Port: 5062, Timeout: 32 * time.Second, Retransmit: true})
	if wasTrusted {
		if code := r.logIn(phone, account); code != 200 {
			r.t.Fatalf("before: %d", code)
		}
		r.waitUntil("its trust is over", func() bool {
			return len(r.decisionsAbout(a, ban.ActionUntrust)) > 0
		})
	}
	r.forgeScan(netip.AddrPortFrom(a, 5066))
	b := r.untilBanned(a)
	if b.Closes != ban.ClosesUDP {
		r.t.Errorf("%+v", b)
	}
	for _, transport := range []string{"tcp", "ws"} {
		other := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: trial.Patience})
		if code, err := other.Options(account); err != nil || code == 0 {
			r.t.Errorf("over %s: %d, %v", transport, code, err)
		}
	}
	if wasTrusted { // the flow from which it logged in, before a new one
		if code, err := phone.Register(account, lab.Password(account)); err != nil || code != 200 {
			r.t.Errorf("from where it logged in: %d, %v", code, err)
		}
	} else {
		begin := time.Now()
		code, err := phone.Register(account, lab.Password(account))
		r.t.Logf("figure: a forged stranger logs in over UDP within %v", time.Since(begin).Round(time.Millisecond))
		if err != nil || code != 200 {
			r.t.Errorf("over UDP: %d, %v", code, err)
		}
	}
	r.waitUntil("the ban is lifted", func() bool { return r.explanationOf(a).Ban == nil })
	r.waitUntil("other ports get through again", func() bool {
		return countAnswers(r.t, r.Agent(r.t, lab.Spare, lab.AgentOptions{Local: a, Timeout: 2 * time.Second}), 20) > 10
	})
}

// forgeScan sends three requests for accounts that do not exist, in somebody's name, and more where one gets lost.
func (r *rig) forgeScan(from netip.AddrPort) {
	r.t.Helper()
	server := r.SIPAddress(false)
	for n := range 20 {
		before := r.explanationOf(from.Addr()).Attempts
		forged := lab.Request{User: fmt.Sprint(9500 + n)}
		if err := r.Forge(lab.Attacker, from, server, forged.Bytes("udp", from, server)); err != nil {
			r.t.Fatal(err)
		}
		for wait := time.Now().Add(time.Second); r.explanationOf(from.Addr()).Attempts == before &&
			time.Now().Before(wait); {
			time.Sleep(5 * time.Millisecond)
		}
		if r.explanationOf(from.Addr()).Ban != nil {
			return
		}
	}
}

// provider is one at whom Asterisk registers; it never logs in.
var provider = netip.MustParseAddrPort("10.99.182.1:5060")

// Three packets in the name of a provider do not end Asterisk's registration there.
func (r *rig) forgedProvider() {
	r.AddAddr(r.t, lab.Spare, provider.Addr())
	answered := r.serveRegistrations(provider)
	// What Asterisk tried at its start, when nobody listened there, keeps it from another try for 32 s (timer F of RFC 3261
	// section 17.1.2.2), so that it is asked more than once.
	register := func() {
		r.t.Helper()
		before, asked := answered(), time.Time{}
		r.waitUntil("Asterisk registers with the provider", func() bool {
			if time.Since(asked) > 2*time.Second { // an answer that comes after its transaction counts for nothing
				r.CLI(r.t, "pjsip send register provider")
				asked = time.Now()
			}
			return answered() > before && strings.Contains(r.CLI(r.t, "pjsip show registrations"), "Registered")
		})
	}
	register()
	r.forgeScan(provider)
	if b := r.untilBanned(provider.Addr()); b.Closes != ban.ClosesUDP {
		r.t.Errorf("%+v", b)
	}
	begin := time.Now()
	r.CLI(r.t, "pjsip send unregister provider")
	register()
	r.t.Logf("figure: a forged provider: Asterisk is registered again within %v", time.Since(begin).Round(time.Millisecond))
	other := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: "tcp", Local: provider.Addr(), Timeout: trial.Patience})
	if code, err := other.Options("6001"); err != nil || code == 0 {
		r.t.Errorf("over TCP: %d, %v", code, err)
	}
}

// serveRegistrations says yes to all requests at an address of the spare node, as a provider's registrar does. The
// function that it returns counts them.
func (r *rig) serveRegistrations(at netip.AddrPort) (answered func() int) {
	r.t.Helper()
	var c net.PacketConn
	err := r.Do(lab.Spare, func() (err error) {
		c, err = net.ListenPacket("udp", at.String())
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 65536); ; {
			length, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			answer := "SIP/2.0 200 OK\r\n"
			for line := range strings.SplitSeq(string(buf[:length]), "\r\n") {
				switch name, _, _ := strings.Cut(line, ":"); name {
				case "Via", "From", "Call-ID", "CSeq":
					answer += line + "\r\n"
				case "To":
					answer += line + ";tag=provider\r\n"
				case "Contact":
					answer += line + ";expires=3600\r\n"
				}
			}
			if _, err := c.WriteTo([]byte(answer+"Content-Length: 0\r\n\r\n"), from); err == nil {
				mu.Lock()
				n++
				mu.Unlock()
			}
		}
	}()
	r.t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// dialAs opens a TCP connection from an address of a node.
func (r *rig) dialAs(node lab.Node, local netip.Addr, to string) (c net.Conn, err error) {
	err = r.Do(node, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: local.AsSlice()}, Timeout: trial.Patience}
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// Fifty phones register through a relay, which has a connection for each, and so does an attacker: only his ends.
func (r *rig) attackerThroughRelay() {
	const phones, first = 50, 6400
	a := ip4(183, 1)
	r.AddAddr(r.t, lab.Spare, a)
	ln, err := r.Listen(r.t.Context(), lab.Spare, "tcp", netip.AddrPortFrom(a, 5060).String())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		relayAll(ctx, ln, func(context.Context) (net.Conn, error) {
			return r.dialAs(lab.Spare, a, r.SIPAddress(false).String())
		})
	}()
	defer func() {
		cancel()
		_ = ln.Close()
		<-done
	}()
	through := func(timeout time.Duration) *lab.Agent {
		return r.Agent(r.t, lab.Phone, lab.AgentOptions{Transport: "tcp", Through: netip.AddrPortFrom(a, 5060),
			Timeout: timeout})
	}
	o := &office{rig: r}
	for i := range phones {
		o.phones, o.accounts = append(o.phones, through(trial.Patience/10)), append(o.accounts, fmt.Sprint(first+i))
		if code := r.logIn(o.phones[i], o.accounts[i]); code != 200 {
			r.t.Fatalf("phone %d: %d", i, code)
		}
	}
	r.waitUntil("the relay is trusted", func() bool { return r.explanationOf(a).Trust != nil })

	bad, judged := through(time.Second), 0
	for n := range manyGuesses { // of 8 accounts of the house
		_, err := bad.GuessAnew(fmt.Sprint(first+n%8), "guess")
		if err != nil {
			r.t.Logf("the attacker: %v", err)
			break
		}
		judged++
		time.Sleep(roundTrip)
	}
	r.waitUntil("he is told of", func() bool { return len(r.decisionsAbout(a, ban.ActionCut, ban.ActionBan)) > 0 })
	registerAll := func() {
		r.t.Helper()
		for i, p := range o.phones {
			local := p.Local()
			code, err := p.Register(o.accounts[i], lab.Password(o.accounts[i]))
			if err != nil || code != 200 || p.Local() != local {
				r.t.Errorf("phone %d: %d, %v; from %v, before from %v", i, code, err, p.Local(), local)
			}
		}
	}
	registerAll()
	r.t.Logf("figure: an attacker through a relay: %d of %d guesses judged; told: %q", judged, manyGuesses,
		r.decisionsAbout(a, ban.ActionCut, ban.ActionBan, ban.ActionUntrust))
	if judged > 8*mostGuesses {
		r.t.Errorf("%d guesses were judged", judged)
	}
	r.wantDecision(ban.ActionCut, a, "", "")
	late := through(trial.Patience / 10)
	if code, err := late.Register("6450", lab.Password("6450")); err != nil || code != 200 {
		r.t.Errorf("a phone that comes later: %d, %v", code, err)
	}
	// And another attacker, who asks for accounts that do not exist.
	scanner := through(time.Second)
	for n := range manyGuesses {
		if _, err := scanner.Probe(fmt.Sprint(9700 + n)); err != nil {
			break
		}
		time.Sleep(roundTrip)
	}
	registerAll()
	r.t.Logf("figure: a scanner through a relay; told: %q",
		r.decisionsAbout(a, ban.ActionCut, ban.ActionBan, ban.ActionUntrust))
	if _, err := scanner.Probe("9799"); !errors.Is(err, lab.ErrNoReply) && err == nil {
		r.t.Error("the scanner goes on")
	}
}

// Forty phones of an office that nobody knows start at once.
func (r *rig) unknownOffice(a netip.Addr, transport string, firstAccount int) {
	const soon = 20 * time.Second
	r.AddAddr(r.t, lab.Spare, a)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range phonesOfOffice {
		phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: 32 * time.Second,
			Retransmit: true})
		account := fmt.Sprint(firstAccount + i)
		all.Go(func() {
			if code, err := phone.Register(account, lab.Password(account)); err != nil || code != 200 {
				r.t.Errorf("%s: %d, %v", account, code, err)
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	r.t.Logf("figure: %d phones of an unknown office over %s are registered within %v", phonesOfOffice, transport,
		took.Round(time.Millisecond))
	if took > soon {
		r.t.Errorf("%v", took)
	}
	r.wantSpared(a)
}
