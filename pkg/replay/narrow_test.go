package replay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

// closed is an engine behind a kernel that does what it is told: only what passes is heard. What is slow passes, so that
// a guesser hears more than he would.
type closed struct {
	t       *property.T
	e       *engine.Engine
	now     time.Time
	passage passage
	bans    map[netip.Prefix]ban.Decision
	calls   int
}

func newClosed(t *property.T) *closed {
	p := config.Default().Policy
	return &closed{t: t, e: engine.NewRepeatable(p), now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		passage: newPassage(p.Ban.Knock, p.Ban.KnockSource), bans: make(map[netip.Prefix]ban.Decision)}
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
	c.passage.take(c.e.TakeChanged(), c.now.UnixNano())
}

// send says whether a packet arrives, and then lets Asterisk tell of it.
func (c *closed) send(typ event.Type, service event.Service, over event.Transport, from, account string) bool {
	c.calls++
	c.now = c.now.Add(time.Millisecond)
	ev := event.Event{Type: typ, Service: service, Account: account, Session: fmt.Sprint(c.calls), Challenge: "1/a",
		Response: fmt.Sprint(c.calls), UsingPassword: true,
		Remote: event.Address{AddrPort: netip.MustParseAddrPort(from), Transport: over}}
	ns := c.now.UnixNano()
	prefix := netip.PrefixFrom(ev.Remote.AddrPort.Addr(), 32)
	if d, banned := c.bans[prefix]; banned && d.Time.Add(d.Duration).After(c.now) &&
		!c.passage.passesBan(&ev, prefix, d.Closes, ns) || c.passage.isCut(&ev, ns) {
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
		for range property.Count(t, 1, 40) {
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
				if !c.login(p.over, p.from, p.account) {
					t.Fatalf("%+v is out; bans %+v", p, c.bans)
				}
			}
		}
	})
}

// TestHowMuchAGuesserHears counts the guesses that arrive after the verdict, from an address that nobody knows and from
// a customer's.
func TestHowMuchAGuesserHears(t *testing.T) {
	property.Check(t, func(t *property.T) {
		c := newClosed(t)
		from := "203.0.113.66"
		known := property.Bool(t)
		over := property.OneOf(t, event.UDP, event.TCP)
		if known {
			c.login(event.TLS, from+":20000", "200")
			c.pass(property.OneOf(t, time.Minute, 48*time.Hour))
		}
		judged := func() bool {
			_, banned := c.bans[netip.MustParsePrefix(from+"/32")]
			return banned || len(c.passage.cut) > 0
		}
		guess := func() bool {
			port := property.Int(t, 40_000, 40_020)
			return c.send(event.ChallengeResponseFailed, event.PJSIP, over, fmt.Sprintf("%s:%d", from, port), "250")
		}
		for range 500 {
			if guess(); judged() {
				break
			}
		}
		if !judged() {
			if !known || over != event.UDP { // a trusted source is not banned for what could be forged, but slowed
				t.Fatal("no verdict")
			}
			return
		}
		c.pass(100 * time.Millisecond) // what was with Asterisk before the verdict
		minutes, heard := 10, 0
		for range minutes * 60 {
			if guess() {
				heard++
			}
			c.pass(time.Second)
		}
		most := 4
		switch {
		case known && over == event.UDP:
			most = 20 * minutes
		case known: // new connections are slowed, which is not played here
			return
		case over == event.TCP:
			most = 0
		}
		if heard > most {
			t.Fatalf("known %v, over %v: %d guesses heard, at most %d", known, over, heard, most)
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
