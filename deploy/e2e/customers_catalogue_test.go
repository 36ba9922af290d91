package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
)

// With both sensors on, what an office of forty phones and a provider do is told of as nothing, and bans nobody. Then
// the same program has a scanner out after one packet, and tells of a silent login.
func TestCatalogueOfCustomers(t *testing.T) {
	r := newRigOn(t, catalogueLab(t), lab.Ringwall, "sensors: {tap: auto, "+hepConfig(t)+"}\n")
	r.untilSensing("tap", "hep")
	office := ip4(230, 1)
	r.AddAddr(t, lab.Attacker, office)
	sdp := "v=0\r\no=- 1 1 IN IP4 10.99.230.1\r\ns=-\r\nc=IN IP4 10.99.230.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n" +
		strings.Repeat("a=fmtp:0 "+strings.Repeat("x", 60)+"\r\n", 20) + "m=image 40002 udptl t38\r\na=T38FaxVersion:0\r\n"
	for i := range 40 {
		o := lab.AgentOptions{Local: office, Timeout: trial.Patience, Retransmit: true}
		if i%4 == 3 {
			o.Transport = "tcp"
		}
		phone, account := r.Agent(t, lab.Attacker, o), fmt.Sprint(firstAccount+100+i)
		if code, err := phone.Register(account, lab.Password(account)); err != nil || code != 200 {
			t.Fatal(code, err)
		}
		// Again, with the challenge of before.
		again := lab.Request{Method: "REGISTER", User: account, CSeq: 1}
		first, err := phone.Exchange(again)
		if err != nil || first.Challenge() == nil {
			t.Fatal(first, err)
		}
		for range 2 {
			again.CSeq++
			again.Credentials = first.Challenge().Answer(account, lab.Password(account), "REGISTER",
				again.URI(phone.Server()))
			if answer, err := phone.Exchange(again); err != nil || answer.Code != 200 {
				t.Fatal(answer, err)
			}
		}
		if _, err := phone.Options(account); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			if code, err := phone.Invite(account, lab.Password(account), fmt.Sprint("4711", i)); err != nil || code != 404 {
				t.Fatal("a wrong number: ", code, err)
			}
			r := lab.Request{Method: "INVITE", User: account, To: "100", Body: sdp,
				Header: []string{"Content-Type: application/sdp"}}
			if _, err := phone.Exchange(r); err != nil {
				t.Fatal("a large SDP: ", err)
			}
		}
	}
	latin := ip4(233, 1)
	r.AddAddr(t, lab.Attacker, latin)
	for i, transport := range []string{"udp", "tcp"} {
		r.registerInLatin1(latin, transport, fmt.Sprint(firstAccount+150+i))
	}
	caller, callee := ip4(234, 1), ip4(235, 1)
	r.AddAddr(t, lab.Attacker, caller, callee)
	r.callThatBecomesFax(caller, callee)
	provider := r.Agent(t, lab.Trunk, lab.AgentOptions{Port: 5060, Timeout: trial.Patience, Retransmit: true})
	for i := range 12 {
		if _, err := provider.Options("100"); err != nil {
			t.Fatal(err)
		}
		number := "100"
		if i%4 == 3 {
			number = fmt.Sprint("49301234", i)
		}
		if _, err := provider.Invite("4930", "", number); err != nil {
			t.Fatal(number, err)
		}
	}
	r.scannersAreOut()
	r.silentLoginIsTold()
	// All that was seen before is judged by now: the silent login came later, by both sensors.
	for _, a := range []netip.Addr{office, latin, caller, callee, lab.Trunk.IPv4(), lab.Phone.IPv4()} {
		if x := r.explanationOf(a); x.Ban != nil || x.Score != 0 || x.Bans != 0 {
			t.Errorf("%s: %+v", a, x)
		}
		all, err := r.client.History(t.Context(), time.Time{}, a)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			if d.Action != ban.ActionTrust {
				t.Errorf("%s: %+v", a, d)
			}
		}
	}
	r.stopDaemon()
}

// registerInLatin1 is a phone whose names are in Latin-1, as those of old ones are. It asks some times before it logs in.
func (r *rig) registerInLatin1(addr netip.Addr, transport, account string) {
	phone := r.Agent(r.t, lab.Attacker, lab.AgentOptions{Transport: transport, Local: addr, Timeout: trial.Patience,
		Retransmit: true})
	for _, name := range []string{"\"M\xfcller\" ", "M\xfcller ", "\"\xe9\xe8\" ", "\xff"} {
		request := lab.Request{User: account, Display: name, Header: []string{"User-Agent: T\xe9l\xe9phone", "Subject: \xe9t\xe9"}}
		first, err := phone.Exchange(request)
		if err != nil || first.Code != 401 {
			r.t.Fatal(first, err)
		}
		if name == "\xff" {
			request.CSeq = 2
			request.Credentials = first.Challenge().Answer(account, lab.Password(account), "REGISTER",
				request.URI(phone.Server()))
			if last, err := phone.Exchange(request); err != nil || last.Code != 200 {
				r.t.Error(last, err)
			}
		}
	}
}

// Session descriptions of a call, and of the fax that it becomes (ITU-T T.38, annex D).
const (
	audioSDP = "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
	faxSDP   = "v=0\r\no=- 1 2 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=image 40002 udptl t38\r\n" +
		"a=T38FaxVersion:0\r\na=T38MaxBitRate:14400\r\na=T38FaxRateManagement:transferredTCF\r\n" +
		"a=T38FaxMaxBuffer:262\r\na=T38FaxMaxDatagram:90\r\na=T38FaxUdpEC:t38UDPRedundancy\r\n"
)

// callThatBecomesFax has a phone call another, and both change to fax within the call and back again.
func (r *rig) callThatBecomesFax(caller, callee netip.Addr) {
	t := r.t
	o := lab.AgentOptions{Timeout: trial.Patience, Retransmit: true}
	o.Local = callee
	called, calledAccount := r.Agent(t, lab.Attacker, o), fmt.Sprint(firstAccount+161)
	o.Local = caller
	calling, account := r.Agent(t, lab.Attacker, o), fmt.Sprint(firstAccount+160)
	for phone, name := range map[*lab.Agent]string{called: calledAccount, calling: account} {
		if code, err := phone.Register(name, lab.Password(name)); err != nil || code != 200 {
			t.Fatal(code, err)
		}
	}
	hungUp := make(chan error, 1)
	go func() { hungUp <- answerCalls(called, callee) }()

	call := lab.Request{Method: "INVITE", User: account, To: calledAccount, CallID: "fax-" + account, Tag: "caller",
		Header: []string{"Content-Type: application/sdp"}}
	// exchange sends one request of the call, with a password where that is asked for.
	exchange := func() *lab.Response {
		for {
			call.CSeq++
			call.Branch = fmt.Sprintf("z9hG4bK-fax-%d", call.CSeq)
			answer, err := calling.Exchange(call)
			if err != nil {
				t.Fatal(call.Method, err)
			}
			if call.Method == "INVITE" {
				ack := call
				ack.Method, ack.Body, ack.Header, ack.Credentials = "ACK", "", nil, ""
				_, ack.ToTag, _ = strings.Cut(answer.Get("To"), ";tag=")
				if answer.Code < 300 {
					call.ToTag, ack.Branch = ack.ToTag, ack.Branch+"-ack"
				}
				if err := calling.Send(ack.Bytes("udp", calling.Local(), calling.Server())); err != nil {
					t.Fatal(err)
				}
			}
			c := answer.Challenge()
			if answer.Code != 401 || c == nil || call.Credentials != "" {
				return answer
			}
			call.Credentials = c.Answer(account, lab.Password(account), call.Method, call.URI(calling.Server()))
		}
	}
	for i, sdp := range []string{audioSDP, faxSDP, audioSDP} {
		call.Body, call.Credentials = fmt.Sprintf(sdp, caller), ""
		answer := exchange()
		_, media, _ := strings.Cut(string(answer.Raw), "\r\nm=")
		if want := []string{"audio", "image", "audio"}[i]; answer.Code != 200 || !strings.HasPrefix(media, want) {
			t.Errorf("a call with %s: %s", want, answer.Raw)
		}
	}
	call.Method, call.Body, call.Header, call.Credentials = "BYE", "", nil, ""
	if answer := exchange(); answer.Code != 200 {
		t.Error("BYE: ", answer.Code)
	}
	if err := <-hungUp; err != nil {
		t.Error(err)
	}
}

// answerCalls is a phone that takes every call and every change of it, until somebody hangs up.
func answerCalls(phone *lab.Agent, addr netip.Addr) error {
	for {
		b, err := phone.Receive()
		if err != nil {
			return fmt.Errorf("waiting for a call: %w", err)
		}
		method, _, _ := strings.Cut(string(b), " ")
		if method == "ACK" || strings.HasPrefix(method, "SIP/2.0") {
			continue
		}
		answer, body := "SIP/2.0 200 OK\r\n", ""
		for line := range strings.SplitSeq(string(b), "\r\n") {
			switch name, _, _ := strings.Cut(line, ":"); name {
			case "To":
				if !strings.Contains(line, ";tag=") {
					line += ";tag=callee"
				}
				fallthrough
			case "Via", "From", "Call-ID", "CSeq":
				answer += line + "\r\n"
			}
		}
		if method == "INVITE" {
			body = fmt.Sprintf(audioSDP, addr)
			if strings.Contains(string(b), "m=image") {
				body = fmt.Sprintf(faxSDP, addr)
			}
			answer += fmt.Sprintf("Contact: <sip:callee@%s>\r\nContent-Type: application/sdp\r\n", phone.Local())
		}
		answer += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
		if err := phone.Send([]byte(answer)); err != nil || method == "BYE" {
			return err
		}
	}
}

// scannersAreOut has one packet of each of many scanners pass, and logs how long it takes until the next does not.
func (r *rig) scannersAreOut() {
	const scanners, packets = 50, 100
	pause := unix.NsecToTimespec(200_000)
	var dropped []time.Duration
	second := 0
	for i := range scanners {
		addr := ip4(231, 1+i)
		r.AddAddr(r.t, lab.Attacker, addr)
		a := r.Agent(r.t, lab.Attacker, lab.AgentOptions{Local: addr, Timeout: 300 * time.Millisecond})
		var sent [packets]time.Time
		for n := range packets {
			m := lab.Request{Method: "OPTIONS", User: "100", CSeq: n + 1, Header: []string{friendlyScanner}}
			b := m.Bytes("udp", a.Local(), a.Server())
			sent[n] = time.Now()
			if err := a.Send(b); err != nil {
				r.t.Fatal(err)
			}
			_ = unix.Nanosleep(&pause, nil) // time.Sleep takes up to a millisecond more
		}
		last := 0
		for {
			b, err := a.Receive()
			if err != nil {
				break
			}
			var n int
			if _, rest, ok := strings.Cut(string(b), "\r\nCSeq: "); ok {
				_, _ = fmt.Sscan(rest, &n)
			}
			last = max(last, n-1)
		}
		if last > 0 {
			second++
		}
		dropped = append(dropped, sent[min(last+1, packets-1)].Sub(sent[0]))
		if b := r.untilBanned(addr); b.Reason != ban.ReasonScanner {
			r.t.Errorf("%+v", b)
		}
		if i%10 == 0 {
			if _, err := a.Options("100"); err == nil {
				r.t.Errorf("%s: a packet of a banned scanner is answered", addr)
			}
		}
		a.Close()
	}
	slices.Sort(dropped)
	r.t.Logf("figure: from a scanner's packet to the first that is dropped: median %v, p99 %v; "+
		"%d of %d had a second within it",
		dropped[len(dropped)/2], dropped[len(dropped)*99/100], second, scanners)
}

// silentLoginIsTold logs in where Asterisk tells nobody: that is a breach first, and then a ban.
func (r *rig) silentLoginIsTold() {
	addr := ip4(232, 1)
	r.AddAddr(r.t, lab.Attacker, addr)
	agent := r.Agent(r.t, lab.Attacker, lab.AgentOptions{Transport: "tcp", Local: addr, Timeout: trial.Patience})
	a := &assailant{Agent: agent, r: r, ctx: r.t.Context(), addr: addr, account: fmt.Sprint(firstAccount + 200)}
	start := time.Now()
	if rightPassword("REGISTER")(a, 0) != 1 {
		r.t.Fatal("no login")
	}
	answered := time.Now()
	if b := r.untilBanned(addr); b.Reason != ban.ReasonSilentLogin {
		r.t.Errorf("%+v", b)
	}
	r.t.Logf("figure: a silent login is told and banned %v after its answer, %v after its first request",
		time.Since(answered), time.Since(start))
	all, err := r.client.History(r.t.Context(), time.Time{}, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	var told, banned time.Time
	for _, d := range all {
		switch d.Action {
		case ban.ActionBreach:
			told = d.Time
		case ban.ActionBan:
			banned = d.Time
		}
	}
	if told.IsZero() || banned.IsZero() || told.After(banned) {
		r.t.Errorf("no breach before its ban: %+v", all)
	}
	// line is which of the log's tells of an action against him, or -1.
	line := func(action ban.Action) int {
		return slices.IndexFunc(strings.Split(r.daemon.Output(), "\n"), func(line string) bool {
			return strings.Contains(line, " msg="+string(action)+" ") && strings.Contains(line, addr.String())
		})
	}
	r.waitUntil("the log has the ban", func() bool { return line(ban.ActionBan) >= 0 })
	if told := line(ban.ActionBreach); told < 0 || told > line(ban.ActionBan) {
		r.t.Errorf("the log tells of no breach before the ban:\n%s", r.daemon.Output())
	}
}
