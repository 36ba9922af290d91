package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a daemon in the middle of its day.
type fake struct {
	mu         sync.Mutex
	status     api.Status
	bans       []ban.Ban
	trusted    []ban.Trust
	restricted []ban.Restriction
	activity   engine.Activity
	history    []ban.Decision
	unbans     []api.UnbanRequest
	allows     []api.AllowRequest
	why        func(netip.Addr) engine.Explanation
	err        error // of changes
	asked      int   // snapshots
	log        *slog.Logger
	reach      api.Reach // of an unban
}

func ptr[T any](v T) *T { return &v }

func newFake() *fake {
	now := time.Now()
	f := &fake{}
	f.status = api.Status{
		Version: "v1.0.0", Time: now, Started: now.Add(-76 * time.Hour), Mode: "enforce",
		PBXs: []api.PBXStatus{{
			Name: "pbx1", Address: "127.0.0.1:5038", Up: true, Since: now.Add(-2 * time.Hour),
			Version: "Asterisk 22.10.1",
			Events:  12345, Lag: 0.0013, LastEvent: ptr(now.Add(-time.Second)), Learned: 4,
		}},
		Engine: engine.Stats{Sources: 345, Trusted: 2},
		Kernel: api.KernelStatus{Table: "inet ringwall", OK: true,
			Dropped: []api.Count{{Name: "ban4", Count: 99812}}},
		ObserveOnly: []api.Observed{{Service: "SIP",
			Why: "chan_sip reports whatever address the attacker writes into Via; use PJSIP"}},
	}
	f.trusted = []ban.Trust{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Since: now.Add(-time.Hour), Until: now.Add(23 * time.Hour),
			Left: 23 * 3600, Accounts: []string{"201", "202"}, Score: 6.4},
		{Prefix: netip.MustParsePrefix("2001:db8:aaaa:bbbb::/64"), Since: now.Add(-time.Hour),
			Until: now.Add(23 * time.Hour), Left: 23 * 3600, Accounts: []string{"reception"}},
	}
	office := netip.MustParsePrefix("198.51.100.7/32")
	f.restricted = []ban.Restriction{
		{Kind: ban.RestrictionSlow, Scope: ban.ScopeSource, Prefix: office, Packets: 4, Every: 60, Until: now.Add(time.Hour),
			Left: 3600},
		{Kind: ban.RestrictionCut, Scope: ban.ScopeFlow, Prefix: netip.MustParsePrefix("2001:db8:aaaa:bbbb::/64"),
			Flow:  ban.Flow{Source: netip.MustParseAddrPort("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:54711")},
			Until: now.Add(9 * time.Minute), Left: 540},
	}
	f.activity = engine.Activity{Begin: now.Add(-24*time.Hour + time.Minute).Truncate(time.Minute),
		Since: now.Add(-76 * time.Hour),
		Tried: now.Add(-14 * time.Hour), Minutes: make([]engine.Minute, 24*60)}
	f.why = func(a netip.Addr) engine.Explanation {
		return engine.Explanation{Address: a, Source: netip.PrefixFrom(a, a.BitLen()), Verdict: "unknown",
			Threshold: 10,
			Lines: []string{"nothing is known of " + a.String() +
				": no event named it lately, and nothing bans it"}}
	}
	return f
}

// ban adds a ban.
func (f *fake) ban(b ban.Ban) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bans = append([]ban.Ban{b}, f.bans[:min(len(f.bans), 2*maxBans)]...)
	f.status.Engine.Bans++
	f.status.Kernel.Desired++
	f.status.Kernel.Present++
}

func banOf(prefix string, names ...string) ban.Ban {
	now := time.Now()
	return ban.Ban{Prefix: netip.MustParsePrefix(prefix), Reason: ban.ReasonUnknownAccount, Since: now,
		Until: now.Add(time.Hour), Duration: 3600, Left: 3600,
		Score: 12, Number: 1, PBX: "pbx1", Accounts: names, Attempts: 3}
}

func (f *fake) Status(context.Context) (api.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.status, nil
}

func (f *fake) NewestBans(n int) []ban.Ban {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]ban.Ban(nil), f.bans[:min(n, len(f.bans))]...)
}

func (f *fake) LongestRestricted(n int) []ban.Restriction {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]ban.Restriction(nil), f.restricted[:min(n, len(f.restricted))]...)
}

func (f *fake) NewestTrusted(n int) []ban.Trust {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trusted[:min(n, len(f.trusted))]
}

func (f *fake) Activity(n int) engine.Activity {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.activity
	a.Accounts = a.Accounts[:min(n, len(a.Accounts))]
	return a
}

func (f *fake) Why(_ context.Context, a netip.Addr) (engine.Explanation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why(a), nil
}

func (f *fake) Account(_ context.Context, name string) (api.AccountResult, error) {
	return api.AccountResult{Account: name, All: 2, Sources: []engine.AccountSource{
		{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Address: netip.MustParseAddr("203.0.113.5"),
			Verdict: "banned", Tries: 3, Last: time.Now()},
		{Prefix: netip.MustParsePrefix("192.0.2.10/32"), Address: netip.MustParseAddr("192.0.2.10"), Verdict: "trusted",
			Logins: 1, Trusted: true},
	}}, nil
}

func (f *fake) Place(a netip.Addr) ban.Place {
	if a.Is4() && a.As4()[3]%3 == 0 {
		return ban.Place{Country: "NL", ASN: 64496, ASName: "Example Hosting B.V."}
	}
	return ban.Place{}
}

func (f *fake) History(_ context.Context, _ time.Time, _ netip.Addr, each func([]ban.Decision) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return each(f.history)
}

func (f *fake) Unban(_ context.Context, req api.UnbanRequest) (api.UnbanResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unbans = append(f.unbans, req)
	res := api.UnbanResult{Reach: f.reach}
	for _, r := range f.restricted {
		if r.Prefix.Overlaps(req.Prefix) {
			res.RestrictionCount++
		}
	}
	for i, b := range f.bans {
		if b.Prefix.String() == req.Prefix.String() {
			f.bans = append(f.bans[:i:i], f.bans[i+1:]...)
			f.status.Engine.Bans--
			res.Count, res.Removed = 1, []netip.Prefix{b.Prefix}
			break
		}
	}
	return res, f.err
}

func (f *fake) Allow(_ context.Context, req api.AllowRequest) (api.AllowResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allows = append(f.allows, req)
	return api.AllowResult{Entry: req.Prefix.String(), Added: true, Lasting: true}, f.err
}

// attacked is the fake under a heavy attack.
func attacked(f *fake) *fake {
	now := time.Now()
	reasons := []ban.Reason{ban.ReasonUnknownAccount, ban.ReasonWrongPassword, ban.ReasonHoneypot,
		ban.ReasonUnansweredChallenge, ban.ReasonACL}
	for i := range 100 {
		b := banOf(fmt.Sprintf("203.0.%d.%d/32", 113+i/250, 1+i), fmt.Sprint(1000+i), "admin", "test", "100")
		b.Reason, b.Number, b.Attempts = reasons[i%len(reasons)], 1+i%3, 3+i%7
		b.Since = now.Add(-time.Duration(100-i) * 41 * time.Second)
		b.Until = b.Since.Add(time.Hour << (2 * (i % 3)))
		switch i % 11 {
		case 4:
			b.Prefix = netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x:%x::/64", 0x1000+i, 0xabc0+i))
		case 7:
			b.Manual, b.Reason, b.Comment, b.Accounts, b.Attempts = true, ban.ReasonManual,
				"calls at night, see ticket 4711", nil, 0
		case 9:
			b.Reason, b.Prefix, b.Comment, b.Accounts = ban.ReasonNetwork,
				netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", i)), "12 addresses of this network are banned", nil
		}
		f.ban(b)
	}
	f.status.Engine.Bans, f.status.Kernel.Desired, f.status.Kernel.Present = 10_000, 10_000, 10_000
	for i := range f.activity.Minutes {
		n := 0
		if i%97 < 9 {
			n = 3 + i%5
		}
		if i > 400 && i < 460 {
			n = 40 + (i*7919)%60
		}
		if i > 1290 {
			n = 150 + (i*104729)%110
		}
		f.activity.Minutes[i] = engine.Minute{Attempts: n, Bans: n / 9}
	}
	for i, name := range []string{"1000", "100", "admin", "test", "<script>alert(1)</script>", "200", "\u202e1002",
		"sip", "101", "1001", strings.Repeat("x", 40) + "…", "asterisk"} {
		f.activity.Accounts = append(f.activity.Accounts,
			engine.AccountTries{Account: name, Tries: 4800 / (i + 1), Sources: min(300, 420/(i+1)), Last: now})
	}
	addr := netip.MustParseAddr("198.51.100.7")
	f.history = []ban.Decision{
		{Time: now.Add(-50 * time.Minute), Action: ban.ActionMisconfigured, Reason: ban.ReasonPace, Account: "204",
			Source: addr, Prefix: netip.PrefixFrom(addr, 32), PBX: "pbx1",
			Detail: "this account fails again and again, no faster than a phone retries: its password is wrong"},
		{Time: now.Add(-20 * time.Minute), Action: ban.ActionMisconfigured, Reason: ban.ReasonConfiguration,
			Account: "door", Source: netip.MustParseAddr("192.0.2.44"),
			Prefix: netip.MustParsePrefix("192.0.2.44/32"), PBX: "pbx1",
			Detail: "Asterisk refused the request for its set-up: more contacts than max_contacts of the AOR"},
		{Time: now.Add(-10 * time.Minute), Action: ban.ActionTrust, Reason: ban.ReasonLogin, Account: "201",
			Source: addr, Prefix: netip.PrefixFrom(addr, 32), Duration: 24 * time.Hour},
		{Time: now.Add(-9 * time.Minute), Action: ban.ActionTargeted, Reason: ban.ReasonDistributed, Account: "200",
			PBX: "pbx1", Source: netip.MustParseAddr("203.0.113.9")},
	}
	for i := range 30 {
		a := netip.AddrFrom4([4]byte{203, 0, 113, byte(40 + i)})
		d := ban.Decision{Time: now.Add(-time.Duration(30-i) * 9 * time.Second), Action: ban.ActionBan,
			Reason: reasons[i%5], Account: fmt.Sprint(1000 + i),
			Source: a, Prefix: netip.PrefixFrom(a, 32), Duration: time.Hour, PBX: "pbx1"}
		if i%9 == 5 {
			d.Action, d.Reason, d.Account, d.Duration = ban.ActionUnban, ban.ReasonExpired, "", 0
		}
		f.history = append(f.history, d)
	}
	return f
}

// served is a page at a real server.
type served struct {
	*Page
	f    *fake
	feed *api.Feed
	url  string
	stop func()
}

// serve runs a page until the end of the test.
func serve(t *testing.T, f *fake) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	feed := api.NewFeed(1000)
	log := f.log
	if log == nil {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	p, err := New(Config{Source: f, Feed: feed, Address: netip.MustParseAddrPort(l.Addr().String()), Host: "pbx1",
		Log: log, Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	srv := &http.Server{Handler: p.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(4096) // so that a client that reads nothing stalls at once
			}
			return ctx
		}}
	done.Go(func() { _ = srv.Serve(l) })
	stop := sync.OnceFunc(func() {
		cancel()
		late, over := context.WithTimeout(context.Background(), 20*time.Second)
		defer over()
		if err := srv.Shutdown(late); err != nil {
			t.Errorf("the server does not end: %v", err)
		}
		_ = srv.Close()
		done.Wait()
	})
	t.Cleanup(stop)
	return &served{Page: p, f: f, feed: feed, url: "http://" + l.Addr().String(), stop: stop}
}

// made is a page without a server, whose Handler is asked directly.
func made(t *testing.T, f *fake, address string) *Page {
	t.Helper()
	p, err := New(Config{Source: f, Feed: api.NewFeed(10), Address: netip.MustParseAddrPort(address), Host: "pbx1",
		Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask sends one request to a handler.
func ask(h http.Handler, method, target, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:9646"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// looks is how often a snapshot was made.
func (f *fake) looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}
