package replay

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

// closed is an engine behind a kernel that does what it is told: only what passes is heard.
type closed struct {
	t      interface{ Fatalf(string, ...any) }
	e      *engine.Engine
	now    time.Time
	kernel *kernel
	bans   map[netip.Prefix]ban.Decision
	log    []ban.Decision
	calls  int
}

func newClosed(t interface{ Fatalf(string, ...any) }) *closed {
	p := config.Default().Policy
	e := engine.NewRepeatable(p)
	return &closed{t: t, e: e, now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), kernel: newKernel(e, p),
		bans: make(map[netip.Prefix]ban.Decision)}
}

// pass lets time go by, a second at a time.
func (c *closed) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(min(time.Second, end.Sub(c.now)))
		for more := true; more; {
			var out []ban.Decision
			out, more = c.e.Tick(c.now, nil)
			c.take(out)
		}
	}
}

func (c *closed) take(out []ban.Decision) {
	for _, d := range out {
		switch d.Action {
		case ban.ActionBan, ban.ActionExtend:
			c.bans[d.Prefix] = d
		case ban.ActionUnban:
			delete(c.bans, d.Prefix)
		}
	}
	c.log = append(c.log, out...)
	c.kernel.take(out, c.now)
}

// send says whether a packet arrives, and then lets Asterisk tell of it.
func (c *closed) send(typ event.Type, service event.Service, over event.Transport, from, account string) bool {
	c.calls++
	c.now = c.now.Add(time.Millisecond)
	ev := event.Event{Type: typ, Time: c.now, Service: service, Account: account, Session: fmt.Sprint(c.calls),
		Challenge: "1/a",
		Response:  fmt.Sprint(c.calls), UsingPassword: true,
		Remote: event.Address{AddrPort: netip.MustParseAddrPort(from), Transport: over}}
	if !c.kernel.passes(&ev, c.now) {
		return false
	}
	c.take(c.e.Handle(c.now, "pbx", &ev, nil))
	return true
}

// login is a phone's: a request, and another one with the right answer.
func (c *closed) login(over event.Transport, from, account string) bool {
	return c.send(event.ChallengeSent, event.PJSIP, over, from, account) &&
		c.send(event.SuccessfulAuth, event.PJSIP, over, from, account)
}

// loginAgain is a phone's that renews its registration in time: it sends each request again until it is answered, and
// has half of the registration's hour for that.
func (c *closed) loginAgain(p phone) bool {
	for _, typ := range []event.Type{event.ChallengeSent, event.SuccessfulAuth} {
		for tries := 0; !c.send(typ, event.PJSIP, p.over, p.from, p.account); tries++ {
			if tries > 15*30 {
				return false
			}
			c.pass(4 * time.Second)
		}
	}
	return true
}

// phone is one that registers from an address which others have, too.
type phone struct {
	over          event.Transport
	from, account string
}

// TestWhoIsRegisteredStaysSo has offices, neighbours behind the same address, forgers and guessers, all at random: who
// logged in keeps the flow from which it did, whatever the others do.
func TestWhoIsRegisteredStaysSo(t *testing.T) {
	property.Check(t, func(t *property.T) {
		c := newClosed(t)
		office := []string{"198.51.100.1", "198.51.100.2"}
		var phones []phone
		for i := range property.Int(t, 1, 8) {
			over := property.OneOf(t, event.UDP, event.TCP, event.TLS, event.WSS)
			p := phone{over, fmt.Sprintf("%s:%d", property.OneOf(t, office...), 20_000+i), fmt.Sprint(200 + i)}
			if !c.login(p.over, p.from, p.account) {
				t.Fatalf("the first login of %+v", p)
			}
			phones = append(phones, p)
		}
		for i := range property.Count(t, 1, 40) {
			a := property.OneOf(t, append(office, "203.0.113.66")...)
			over := property.OneOf(t, event.UDP, event.UDP, event.TCP, event.TLS)
			port := property.Int(t, 40_000, 40_003)
			if over == event.UDP && property.Bool(t) { // forged in the name of whoever sits there
				port = 20_000 + property.Int(t, 0, 7)
			}
			from := fmt.Sprintf("%s:%d", a, port)
			kind := property.OneOf(t, event.ChallengeResponseFailed, event.InvalidAccountID, event.InvalidPassword)
			service := event.PJSIP
			if kind == event.InvalidPassword {
				service, over = event.AMI, event.TCP
				from = fmt.Sprintf("%s:%d", a, 40_004)
			}
			names := property.Int(t, 1, 20)
			for i := range property.Int(t, 1, 120) {
				c.send(kind, service, over, from, fmt.Sprint(900+i%names))
			}
			c.pass(property.OneOf(t, 0, time.Second, time.Minute, 20*time.Minute))
			for _, p := range phones { // each registers again before trust.flow_ttl is over
				if !c.loginAgain(p) {
					t.Fatalf("%+v is out; bans %+v", p, c.bans)
				}
			}
			if i%8 == 0 {
				if texts := c.kernel.differs(c.now); len(texts) > 0 {
					t.Fatalf("%q", texts)
				}
			}
		}
	})
}

// guesser is an attacker at one address.
type guesser struct {
	known    bool // somebody logged in from there: a phone of the house, or the attacker himself
	over     event.Transport
	ports    []string // from which he guesses, in turns
	accounts []string
	every    time.Duration
}

func anyGuesser(t *property.T) guesser {
	g := guesser{known: property.Bool(t), over: property.OneOf(t, event.UDP, event.TCP),
		every: property.OneOf(t, 10*time.Millisecond, 100*time.Millisecond, time.Second, 3*time.Second)}
	from := property.OneOf(t, "203.0.113.66:", "[2001:db8:7:1::66]:")
	for i := range property.OneOf(t, 1, 3, 20, 200) {
		g.ports = append(g.ports, from+fmt.Sprint(40_000+i))
	}
	for i := range property.OneOf(t, 1, 2, 5, 30) {
		g.accounts = append(g.accounts, fmt.Sprint(250+i))
	}
	if property.Bool(t) && !g.known {
		g.over = event.UDP
	}
	return g
}

// TestHowMuchAGuesserHears counts the guesses that arrive after the verdict, from an address that nobody knows and from
// a customer's, whatever ports and accounts the guesser takes: none over TCP from a stranger and four over UDP, and
// from inside a customer's address no more than twenty a minute. In the first it is forty, since buckets are full then: a phone retransmits
// four times. Of several flows of a thief that were good before each has a bucket, and a verdict, of its own.
func TestHowMuchAGuesserHears(t *testing.T) {
	property.Check(t, func(t *property.T) {
		c, g := newClosed(t), anyGuesser(t)
		stolen := 0 // flows
		if g.known {
			house := netip.AddrPortFrom(netip.MustParseAddrPort(g.ports[0]).Addr(), 20_000).String()
			c.login(event.TLS, house, "200")
			if property.Bool(t) { // an account is stolen
				stolen = min(len(g.ports), property.OneOf(t, 1, 2, 5, 200))
				for _, port := range g.ports[:stolen] {
					c.login(g.over, port, "200")
				}
			}
			c.pass(property.OneOf(t, time.Minute, 48*time.Hour))
		}
		calls := 0
		guess := func() bool {
			calls++
			return c.send(event.ChallengeResponseFailed, event.PJSIP, g.over, g.ports[calls%len(g.ports)],
				g.accounts[calls/3%len(g.accounts)])
		}
		judged := func() bool {
			return len(c.bans) > 0 || slices.ContainsFunc(c.e.FlowElements(c.now), func(el engine.Element) bool {
				return el.Kind != engine.GoodFlow
			})
		}
		for tries := 0; !judged(); tries++ {
			if tries > 5000 {
				if g.known && g.over == event.TCP && g.every == 3*time.Second { // devices of a house, which are only named
					return
				}
				t.Fatalf("no verdict about %+v", g)
			}
			guess()
			c.pass(g.every)
		}
		c.pass(100 * time.Millisecond) // what was with Asterisk before the verdict
		const minutes, fullBuckets = 12, 40
		var heard [minutes]int
		for end := c.now.Add(minutes * time.Minute); c.now.Before(end); c.pass(g.every) {
			if guess() {
				heard[minutes-1-min(minutes-1, int(end.Sub(c.now)/time.Minute))]++
			}
		}
		all := 0
		for _, n := range heard {
			all += n
		}
		if perMinute := (all - heard[0]) / (minutes - 1); perMinute > 20 || heard[0] > fullBuckets && g.over == event.UDP &&
			stolen < 2 {
			g.ports = g.ports[:1]
			t.Fatalf("%d a minute: %v heard of %+v; %+v; %+v", perMinute, heard, g, append(c.e.FlowElements(c.now),
				c.e.EnforcedBans(c.now)...), c.log)
		}
		if most := map[event.Transport]int{event.UDP: 4}[g.over]; !g.known && all > most {
			t.Fatalf("%v heard of %+v, at most %d", heard, g, most)
		}
	})
}

// TestAForgedCustomerGetsIn has forged packets in the name of a customer, and his phone at a new port, which tries each
// 15 s: it is in within a minute after they end, and within five while there is one each ten seconds.
func TestAForgedCustomerGetsIn(t *testing.T) {
	property.Check(t, func(t *property.T) {
		c := newClosed(t)
		const home = "198.51.100.7"
		c.login(event.UDP, home+":20000", "201")
		c.pass(48 * time.Hour)
		every := property.OneOf(t, 100*time.Millisecond, time.Second, 10*time.Second)
		forge := func() {
			c.send(event.InvalidAccountID, event.PJSIP, event.UDP, fmt.Sprintf("%s:%d", home,
				property.Int(t, 1024, 65_535)), fmt.Sprint(900+property.Int(t, 0, 50)))
		}
		for i := range 60 {
			if forge(); i > 4 {
				c.pass(every)
			}
		}
		if _, banned := c.bans[netip.MustParsePrefix(home+"/32")]; !banned {
			return
		}
		for i := range 20 { // five minutes
			if c.login(event.UDP, home+":31000", "201") {
				return
			}
			if every == 10*time.Second || i > 16 {
				for range 15 {
					if c.pass(time.Second); i <= 15 && c.now.Unix()%10 == 0 {
						forge()
					}
				}
				continue
			}
			c.pass(15 * time.Second) // the forging has ended
			if i >= 4 {
				break
			}
		}
		t.Fatalf("the phone is out, forged each %v", every)
	})
}

// TestServicesAreApart has one service attacked from a trusted source, at any pace: the other one stays open to all who
// are there, from new ports, too.
func TestServicesAreApart(t *testing.T) {
	property.Check(t, func(t *property.T) {
		c := newClosed(t)
		const office = "198.51.100.7"
		c.login(event.TLS, office+":20000", "201")
		manager := property.Bool(t)
		over, kind, service := property.OneOf(t, event.UDP, event.TCP), event.ChallengeResponseFailed, event.PJSIP
		if manager {
			over, kind, service = event.TCP, event.InvalidPassword, event.AMI
		}
		every := property.OneOf(t, 10*time.Millisecond, time.Second, 20*time.Second)
		names := property.Int(t, 1, 5) // with more, nobody trusts the source any longer
		for i := range property.Int(t, 1, 400) {
			c.send(kind, service, over, fmt.Sprintf("%s:%d", office, 30_000+property.Int(t, 0, 3)),
				fmt.Sprint(900+i%names))
			c.pass(every)
		}
		for p, d := range c.bans {
			if !manager || d.Closes != ban.ClosesManager {
				t.Fatalf("%v closes %v; the manager was attacked: %v", p, d.Closes, manager)
			}
		}
		other, from := event.AMI, office+":41000"
		if manager {
			other = event.PJSIP
		}
		slowed := slices.ContainsFunc(c.e.FlowElements(c.now),
			func(el engine.Element) bool { return el.Kind == engine.SlowSource })
		if !c.send(event.SuccessfulAuth, other, event.TCP, from, "202") && !slowed {
			t.Fatalf("%v is closed; %v, %v", other, c.bans, c.e.FlowElements(c.now))
		}
	})
}
