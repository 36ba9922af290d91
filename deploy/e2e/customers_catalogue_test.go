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
	for _, a := range []netip.Addr{office, latin, lab.Trunk.IPv4(), lab.Phone.IPv4()} {
		if x := r.explanationOf(a); x.Ban != nil || x.Score != 0 || x.Bans != 0 {
			t.Errorf("%s: %+v", a, x)
		}
		if told := r.decisionsAbout(a, ban.ActionBan, ban.ActionBreach); len(told) > 0 {
			t.Errorf("%s: %q", a, told)
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
	slices.SortStableFunc(all, func(a, b ban.Decision) int { return a.Time.Compare(b.Time) })
	order := map[ban.Action]int{}
	for i, d := range all {
		order[d.Action] = i + 1
	}
	if order[ban.ActionBreach] == 0 || order[ban.ActionBan] == 0 {
		r.t.Errorf("no breach and ban: %+v", all)
	}
}
