package commands_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when every test happens.
var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func at(t time.Time) *time.Time { return &t }

const hostile = "\x1b[31m2\u202e01\u009b\xff\r\nroot"

// backend is a daemon in the middle of its day. It remembers the changes that it was asked for.
type backend struct {
	mu     sync.Mutex
	bans   []api.BanRequest
	unbans []api.UnbanRequest
	allows []api.AllowRequest
	since  time.Time
	asked  netip.Addr

	err        error // of every call
	status     func(*api.Status)
	empty      bool
	review     string // at the end of the history
	restricted []ban.Restriction
	many       int // bans, besides the usual ones
	ban        api.BanResult
	unban      api.UnbanResult
	allow      api.AllowResult
	explain    engine.Explanation
	echo       bool // explain is about the address that was asked for
	places     map[netip.Addr]ban.Place
	page       api.PageResult
}

func (b *backend) Status(context.Context) (api.Status, error) {
	st := api.Status{
		Version: "v0.1.0", PID: 812, Time: now, Started: ago(76 * time.Hour), Uptime: 76 * 3600, Mode: "enforce",
		Config: api.ConfigStatus{Path: "/etc/ringwall/ringwall.yaml", Loaded: ago(76 * time.Hour)},
		PBXs: []api.PBXStatus{{
			Name: "pbx1", Address: "127.0.0.1:5038", Up: true, Since: ago(2 * time.Hour), Version: "Asterisk 22.10.1",
			Events: 12345, Lag: 0.0013, LastEvent: at(ago(time.Second)), Learned: 4,
		}},
		Sensors: []api.Sensor{
			{Name: "tap", Alive: true, Heard: 4567, Lost: 12, LastHeard: at(ago(3 * time.Second)), Lag: 0.0004},
			{Name: "hep", Off: true},
		},
		Engine: engine.Stats{Sources: 345, Trusted: 45, Bans: 12},
		Kernel: api.KernelStatus{Table: "inet ringwall", OK: true, Desired: 12, Present: 12, PresentTime: at(now),
			Dropped: []api.Count{{Name: "ban4", Count: 998}}},
		Ports: api.PortsStatus{
			Auto: true, UDP: []uint16{5060, 5061, 4569, 5080, 5090}, TCP: []uint16{5060, 5061, 5038},
			Found: []api.FoundPort{
				{Protocol: "udp", Port: 5080, PBX: "pbx1"}, {Protocol: "udp", Port: 5090, PBX: "pbx1", Behind: 5060},
			},
		},
		ObserveOnly: []api.Observed{},
		Warnings:    []api.Warning{},
	}
	if b.status != nil {
		b.status(&st)
	}
	return st, b.err
}

func (b *backend) Bans(_ context.Context, _ api.BanFilter, each func([]ban.Ban) error) error {
	if b.empty || b.err != nil {
		return b.err
	}
	list := []ban.Ban{
		{
			Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonWrongPassword,
			Since: ago(2 * time.Minute), Until: now.Add(58 * time.Minute), Duration: 3600,
			Left: 3480, Score: 12, Proven: true, Number: 1, PBX: "pbx1", Accounts: []string{"201", "202", "203"},
			Attempts: 6,
		},
		{
			Prefix: netip.MustParsePrefix("2001:db8:bad::/64"), Reason: ban.ReasonUnknownAccount,
			Since: ago(26 * time.Hour), Until: now.Add(142 * time.Hour), Duration: 604800,
			Left: 142 * 3600, Score: 40, Observed: true, Number: 4, PBX: "pbx1", Accounts: []string{hostile, "1000"},
			Attempts: 4711,
		},
		{
			Prefix: netip.MustParsePrefix("198.51.100.0/24"), Reason: ban.ReasonManual, Since: ago(time.Minute),
			Until: now.Add(7 * 24 * time.Hour), Duration: 604800,
			Left: 604800, Manual: true, Number: 1, Comment: "called at night", Accounts: []string{},
			Leak: &ban.Leak{Last: ago(time.Second), Events: 40, Port: 5080, Transport: "UDP"},
		},
	}
	for i := range list {
		list[i].Place = b.places[list[i].Prefix.Addr()]
	}
	for i := range b.many {
		v := list[0]
		v.Prefix, v.Since = netip.MustParsePrefix(fmt.Sprintf("32.0.%d.%d/32", i>>8, i&255)), ago(27*time.Hour)
		list = append(list, v)
	}
	return each(list)
}

func (b *backend) Restricted(_ context.Context, within netip.Prefix, each func([]ban.Restriction) error) error {
	return each(slices.DeleteFunc(slices.Clone(b.restricted), func(r ban.Restriction) bool {
		return within.IsValid() && !within.Overlaps(r.Prefix)
	}))
}

// restricted is what is cut and slow of an office.
func restricted() []ban.Restriction {
	office := netip.MustParsePrefix("192.0.2.10/32")
	flow := func(udp bool, port uint16) ban.Flow {
		return ban.Flow{UDP: udp, Source: netip.AddrPortFrom(office.Addr(), port)}
	}
	until := now.Add(9 * time.Minute)
	return []ban.Restriction{
		{Kind: ban.RestrictionTrickle, Scope: ban.ScopeSource, Prefix: office, Packets: 4, Every: 60, Until: until, Left: 540},
		{Kind: ban.RestrictionCut, Scope: ban.ScopeFlow, Prefix: office, Flow: flow(false, 4711), Until: until, Left: 540},
		{Kind: ban.RestrictionSlow, Scope: ban.ScopeFlow, Prefix: office, Flow: flow(true, 5060), Packets: 1, Every: 1,
			Until: until, Left: 540},
	}
}

func (b *backend) Trusted(_ context.Context, each func([]ban.Trust) error) error {
	if b.empty || b.err != nil {
		return b.err
	}
	list := []ban.Trust{
		{Prefix: netip.MustParsePrefix("192.0.2.10/32"), Since: ago(time.Hour), Until: now.Add(23 * time.Hour),
			Left: 23 * 3600, Accounts: []string{"201"}, Score: 1.5},
		{Prefix: netip.MustParsePrefix("192.0.2.20/32"), Since: ago(time.Minute), Until: now.Add(24 * time.Hour),
			Left: 86340, Accounts: []string{"1", "2", "3", "4", "5", "6", "7"}},
	}
	for i := range list {
		list[i].Place = b.places[list[i].Prefix.Addr()]
	}
	return each(list)
}

func (b *backend) Allowed(context.Context) ([]ban.Exemption, error) {
	if b.empty {
		return nil, b.err
	}
	return []ban.Exemption{
		{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Origin: "host"},
		{Prefix: netip.MustParsePrefix("192.0.2.77/32"), Origin: "office.example.net", Note: "resolved a minute ago"},
	}, b.err
}

func (b *backend) Account(_ context.Context, name string) (api.AccountResult, error) {
	if b.empty || name == "nobody" {
		return api.AccountResult{Account: name}, b.err
	}
	return api.AccountResult{Account: name, All: 3, Sources: []engine.AccountSource{
		{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Address: netip.MustParseAddr("203.0.113.5"),
			Verdict: "banned", Tries: 6, Last: ago(2 * time.Minute)},
		{Prefix: netip.MustParsePrefix("2001:db8:bad::/64"), Address: netip.MustParseAddr("2001:db8:bad::"),
			Verdict: "suspicious", Tries: 1, Last: ago(26 * time.Hour)},
		{Prefix: netip.MustParsePrefix("192.0.2.10/32"), Address: netip.MustParseAddr("192.0.2.10"), Verdict: "trusted",
			Trusted: true},
	}}, b.err
}

func (b *backend) Page(context.Context, api.Peer) (api.PageResult, error) {
	return b.page, b.err
}

func (b *backend) Place(addr netip.Addr) ban.Place { return b.places[addr] }

func (b *backend) Protected(context.Context) ([]ban.Exemption, error) {
	if b.empty {
		return nil, b.err
	}
	return []ban.Exemption{{Prefix: netip.MustParsePrefix("192.0.2.50/32"), Origin: "learned",
		Note: "trunk provider of pbx1"}}, b.err
}

func (b *backend) Ban(_ context.Context, req api.BanRequest) (api.BanResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bans = append(b.bans, req)
	return b.ban, b.err
}

func (b *backend) Unban(_ context.Context, req api.UnbanRequest) (api.UnbanResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unbans = append(b.unbans, req)
	return b.unban, b.err
}

func (b *backend) Allow(_ context.Context, req api.AllowRequest) (api.AllowResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allows = append(b.allows, req)
	return b.allow, b.err
}

func (b *backend) Why(_ context.Context, addr netip.Addr) (engine.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = addr
	if b.echo {
		b.explain.Address = addr
	}
	return b.explain, b.err
}

func (b *backend) History(_ context.Context, since time.Time, addr netip.Addr, each func([]ban.Decision) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since, b.asked = since, addr
	if b.empty || b.err != nil {
		return b.err
	}
	all := decisions()
	if b.review != "" {
		all = append(all, ban.Decision{Time: ago(time.Minute), Action: ban.ActionReview, Reason: ban.ReasonObserved, Detail: b.review})
	}
	return each(all)
}

func decisions() []ban.Decision {
	bad, good := netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("192.0.2.10")
	return []ban.Decision{
		{
			Time: ago(25 * time.Hour), Action: ban.ActionTrust, Source: good, Prefix: netip.PrefixFrom(good, 32),
			Reason:  ban.ReasonLogin,
			Account: "201", Service: event.PJSIP, Transport: event.UDP, Proven: true, Duration: 24 * time.Hour,
			PBX: "pbx1",
		},
		{
			Time: ago(2 * time.Minute), Action: ban.ActionBan, Source: bad, Prefix: netip.PrefixFrom(bad, 32),
			Reason: ban.ReasonWrongPassword, Points: 2,
			Score: 12, Account: hostile, Service: event.PJSIP, Transport: event.TCP, Proven: true,
			Duration: time.Hour, PBX: "pbx1",
		},
		{
			Time: ago(90 * time.Second), Action: ban.ActionCut, Source: good, Prefix: netip.PrefixFrom(good, 32),
			Reason: ban.ReasonWrongPassword, Score: 102, Account: "203", Service: event.PJSIP, Transport: event.TLS,
			Proven: true, Scope: ban.ScopeFlow, Flow: ban.Flow{Source: netip.AddrPortFrom(good, 4711)},
			Duration: 10 * time.Minute, PBX: "pbx1", Detail: "this connection ends",
		},
		{
			Time: ago(80 * time.Second), Action: ban.ActionBan, Source: bad, Prefix: netip.PrefixFrom(bad, 32),
			Reason: ban.ReasonUnknownAccount, Score: 12, Account: "900", Service: event.PJSIP, Transport: event.UDP,
			Scope: ban.ScopeSource, Closes: ban.ClosesUDP, Duration: 4 * time.Hour, PBX: "pbx1", Detail: "ban number 2",
		},
		{Time: ago(time.Minute), Action: ban.ActionTargeted, Reason: ban.ReasonDistributed, Account: "202", PBX: "pbx1",
			Detail: "9 sources within an hour"},
	}
}

// world is a daemon, and a command line to it.
type world struct {
	backend  *backend
	feed     *api.Feed
	app      *commands.App
	socket   string
	out, err *lockedBuffer
}

// lockedBuffer may be read while a command writes.
type lockedBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	wrote chan struct{} // a token for each write, where somebody waits
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	n, err := l.b.Write(p)
	l.mu.Unlock()
	if l.wrote != nil {
		l.wrote <- struct{}{}
	}
	return n, err
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l, err := api.Listen(filepath.Join(t.TempDir(), "r.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{backend: &backend{}, feed: api.NewFeed(10), socket: l.Path(), out: &lockedBuffer{},
		err: &lockedBuffer{}}
	server := &api.Server{Listener: l, Backend: w.backend, Feed: w.feed, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.app = &commands.App{
		Env: config.Environment{}, Out: w.out, Err: w.err, Now: func() time.Time { return now }, Zone: time.UTC,
		Build: commands.Build{Version: "v0.1.0", Revision: "0123456789abcdef", Go: "go1.26", Platform: "linux/amd64"},
		Run:   func(context.Context, commands.RunOptions) error { return nil },
		Demo:  func(context.Context, commands.DemoOptions) error { return nil },
	}
	return w
}

// do runs one command against the world's socket.
func (w *world) do(t *testing.T, args ...string) int {
	t.Helper()
	return w.app.Execute(t.Context(), append([]string{"--socket", w.socket}, args...))
}

func (b *backend) RefreshList(_ context.Context, req api.ListRefreshRequest) (api.ListStatus, error) {
	return api.ListStatus{Name: req.Name, Entries: 98123}, b.err
}

func (b *backend) ForgetNode(_ context.Context, req api.ForgetRequest) (api.ForgetResult, error) {
	return api.ForgetResult{Node: req.Node, Prefixes: 3, InForce: 2}, b.err
}
