package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// patience is how long something may take that happens at once where the machine has time.
const patience = time.Minute

var attacker = netip.MustParsePrefix("198.51.100.7/32")

// startServer runs a NATS server with JetStream in a folder. Port -1 is any that is free.
func startServer(t testing.TB, dir string, port int, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true}
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

var allKinds = []record.Kind{record.Ban, record.Unban, record.Grace, record.Trust, record.Allow}

// configOf is that of a node which shares and accepts everything.
func configOf(url, node string) fleet.Config {
	return fleet.Config{Servers: []string{url}, Name: "acme", Node: node, Share: allKinds, Accept: allKinds,
		Limits: record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 600, Records: 5000, Nodes: 100},
		Log:    slog.New(slog.DiscardHandler)}
}

// run runs a node until the test or stop ends it.
func run(t testing.TB, cfg fleet.Config) (f *fleet.Fleet, stop func()) {
	t.Helper()
	f = fleet.New(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node ends with: %v", err)
		}
	}
	t.Cleanup(stop)
	return f, stop
}

// await waits until something holds, which is looked at whenever the fleet says that something changed, and often.
func await(t testing.TB, f *fleet.Fleet, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-f.HasChange():
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within %v; %+v", what, patience, f.Status())
		}
	}
}

func banOf(p netip.Prefix) record.Record {
	return record.Record{Key: record.Key{Kind: record.Ban, Prefix: p}, Until: time.Now().Add(time.Hour),
		Reason: ban.ReasonScanner, Proven: true}
}

func address(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

func bans(f *fleet.Fleet, p netip.Prefix) (banned bool) {
	f.Read(func(b *record.Book, now time.Time) { _, banned = b.Ban(now, p) })
	return banned
}

// banned lists all whom a node knows to be banned.
func banned(f *fleet.Fleet) (list []netip.Prefix) {
	f.Read(func(b *record.Book, now time.Time) {
		for _, p := range b.Prefixes() {
			if _, ok := b.Ban(now, p); ok {
				list = append(list, p)
			}
		}
	})
	return list
}

func TestWhatOneNodeLearnsAllKnow(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	a.Say(banOf(attacker))
	await(t, b, "b knows", func() bool { return bans(b, attacker) })
	if p := b.TakeChanged(10); len(p) > 1 || len(p) == 1 && p[0] != attacker {
		t.Errorf("changed is %v", p)
	}
	b.Unban(attacker, time.Time{})
	await(t, a, "a has heard of the unban", func() bool { return !bans(a, attacker) })
	a.Say(banOf(attacker))
	await(t, b, "who attacks again is banned again", func() bool { return bans(b, attacker) })
	b.Unban(attacker, time.Now().Add(time.Hour))
	await(t, a, "a has heard of the grace", func() bool { return !bans(a, attacker) })
	a.Say(banOf(attacker))
	await(t, a, "all is confirmed", func() bool { return a.Status().Waiting == 0 })
	if bans(a, attacker) {
		t.Error("banned within the grace")
	}
}

// What arrives in its order is complete: thousands of nodes that then ask the server whether it is would keep it busy.
func TestWhatArrivesInOrderAsksTheServerNothing(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	observer, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer observer.Close()
	requests, err := observer.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := observer.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fleet.Fleet{a, b} {
		await(t, f, "it knows what there is", func() bool { return f.Status().CaughtUp })
	}
	before, _, err := requests.Pending()
	if err != nil {
		t.Fatal(err)
	}
	const many = 50
	for i := range many {
		a.Say(banOf(address(i)))
		await(t, b, "b knows", func() bool { return bans(b, address(i)) })
	}
	await(t, a, "all is confirmed", func() bool { return a.Status().Waiting == 0 })
	if err := observer.Flush(); err != nil {
		t.Fatal(err)
	}
	after, _, err := requests.Pending()
	if err != nil {
		t.Fatal(err)
	}
	// A subscription may still be on its way when the first record is repeated.
	if n := after - before; n > many/5 {
		t.Errorf("%d requests for %d records", n, many)
	}
}

func TestANodeThatComesLateKnowsAll(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	const count = 1700 // several batches
	for i := range count {
		a.Say(banOf(address(i)))
	}
	await(t, a, "all is confirmed", func() bool { return a.Status().Waiting == 0 && a.Status().CaughtUp })
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	await(t, b, "b has caught up", func() bool { return b.Status().CaughtUp })
	if got := banned(b); len(got) != count || !slices.Equal(got, banned(a)) {
		t.Errorf("b knows of %d, want %d", len(got), count)
	}
}

// freePort returns a port on which nobody listens.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestTheHubIsDownAtTheStartAndWhileEverybodyGoesOn(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	a, _ := run(t, configOf(url, "a"))
	b, _ := run(t, configOf(url, "b"))
	a.Say(banOf(address(1)), banOf(address(2)))
	if !bans(a, address(1)) {
		t.Fatal("a does not know its own word")
	}
	s := startServer(t, dir, port, nil)
	await(t, b, "b hears what was said before there was a hub", func() bool { return bans(b, address(2)) })
	await(t, a, "a is rid of it", func() bool { return a.Status().Waiting == 0 })

	stopServer(s)
	await(t, a, "a sees it go", func() bool { return !a.Status().Connected })
	await(t, b, "b sees it go", func() bool { return !b.Status().Connected })
	a.Say(banOf(address(3)))
	a.Unban(address(1), time.Time{})
	b.Say(banOf(address(4)))
	b.Unban(address(2), time.Time{})
	startServer(t, dir, port, nil)
	want := []netip.Prefix{address(3), address(4)}
	for _, f := range []*fleet.Fleet{a, b} {
		await(t, f, "both know the same", func() bool { return slices.Equal(banned(f), want) })
	}
}

func TestTheStreamIsDeleted(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	for i := range 100 {
		a.Say(banOf(address(i)))
		b.Say(banOf(address(1000 + i)))
	}
	for _, f := range []*fleet.Fleet{a, b} {
		await(t, f, "all know all", func() bool { return len(banned(f)) == 200 && f.Status().Waiting == 0 })
	}
	nc, js := client(t, s.ClientURL())
	defer nc.Close()
	if err := js.DeleteStream(t.Context(), fleet.StreamName("acme")); err != nil {
		t.Fatal(err)
	}
	a.Say(banOf(attacker))
	await(t, b, "b hears what was said after it", func() bool { return bans(b, attacker) })
	await(t, b, "what b said is told again", func() bool {
		info, err := js.Stream(t.Context(), fleet.StreamName("acme"))
		return err == nil && info.CachedInfo().State.Msgs == 201
	})
	c, _ := run(t, configOf(s.ClientURL(), "c"))
	await(t, c, "who comes later knows all", func() bool { return len(banned(c)) == 201 })
}

func client(t testing.TB, url string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// withUsers gives the nodes a and b what a node needs, and no more. The stream is made by "operator".
func withUsers(o *server.Options) {
	for _, node := range []string{"a", "b"} {
		o.Users = append(o.Users, &server.User{Username: node, Password: "secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"ringwall.acme." + node + ".>", "ringwall-alive.acme." + node,
				"$JS.API.STREAM.INFO.RINGWALL_acme", "$JS.API.DIRECT.GET.RINGWALL_acme"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"ringwall-live.acme.>", "ringwall-alive.acme.*", "_INBOX.>"}},
		}})
	}
	o.Users = append(o.Users, &server.User{Username: "operator", Password: "secret"})
}

func urlOf(s *server.Server, user string) string {
	return strings.Replace(s.ClientURL(), "nats://", "nats://"+user+":secret@", 1)
}

func TestAHostileNodeWithWhatANodeMay(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, withUsers)
	operator, js := client(t, urlOf(s, "operator"))
	defer operator.Close()
	if _, err := js.CreateStream(t.Context(), fleet.StreamConfig("acme")); err != nil {
		t.Fatal(err)
	}
	b, _ := run(t, configOf(urlOf(s, "b"), "b"))
	b.Say(banOf(address(1)))
	await(t, b, "b is rid of its word", func() bool { return b.Status().Waiting == 0 && b.Status().CaughtUp })

	hostile, _ := client(t, urlOf(s, "a"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	defer hostile.Close()
	good := func(node string, p netip.Prefix) (string, []byte) {
		r := banOf(p)
		r.Node, r.Made = node, time.Now()
		data, err := record.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		return r.Subject("acme"), data
	}
	publish := func(subject string, headers nats.Header, data []byte) {
		t.Helper()
		if err := hostile.PublishMsg(&nats.Msg{Subject: subject, Header: headers, Data: data}); err != nil {
			t.Logf("%s: %v", subject, err)
		}
	}
	subject, data := good("b", attacker) // another's name: the server does not take it
	publish(subject, nil, data)
	publish(record.ForgetSubject("acme", "b"), nil, []byte("{}")) // the operator's
	publish("ringwall-live.acme.@operator.forget.b", nats.Header{"Nats-Sequence": {"2"}}, []byte("{}"))
	publish("ringwall-live.acme.b.ban.198-51-100-7/32", nats.Header{"Nats-Sequence": {"2"}}, data)
	for i, forged := range []nats.Header{
		{"Nats-Subject": {subject}}, {"Nats-Sequence": {"1"}}, {"Nats-Sequence": {"18446744073709551615"}},
		{"Nats-Num-Pending": {"0"}, "Status": {"204"}}, {"Status": {"404"}}, {"Nats-Sequence": {"x"}},
	} {
		subject, data := good("a", address(100+i))
		publish(subject, forged, data)
	}
	publish(strings.Replace(subject, ".b.ban.", ".a.unban.", 1), nats.Header{"Status": {"204"}}, nil)
	publish("ringwall.acme.a.ban.0-0-0-0/0", nil, data)
	publish("ringwall.acme.a.ban.20-0-0-0/8", nil, data)
	publish("ringwall.acme.a.ban.192-168-0-1/32", nil, data)
	publish("ringwall.acme.a.nonsense", nil, data)
	publish("ringwall.acme.a.ban.198-51-100-8/32", nil, []byte(`{"format":1}`))
	publish("ringwall.acme.a.ban.198-51-100-9/32", nil, make([]byte, 900))
	publish("ringwall.acme.a.ban.198-51-100-10/32", nil, make([]byte, 1<<20-1<<10))
	publish("ringwall.acme.a.ban.198-51-100-11/32", nil, make([]byte, 10<<20))
	subject, data = good("a", address(200)) // the last one: when it is there, all others were
	publish(subject, nil, data)

	c, _ := run(t, configOf(urlOf(s, "b"), "b")) // who fetches all of it, as b after a restart
	want := []netip.Prefix{address(1)}
	for i := range 6 {
		want = append(want, address(100+i)) // well-formed, whatever headers it has
	}
	want = append(want, address(200))
	for name, f := range map[string]*fleet.Fleet{"who hears it": b, "who fetches it": c} {
		await(t, f, name, func() bool { return bans(f, address(200)) && f.Status().CaughtUp })
		if got := banned(f); !slices.Equal(got, want) {
			t.Errorf("%s: banned are %v, want %v", name, got, want)
		}
		refused := map[string]uint64{}
		for _, n := range f.Status().Nodes {
			if n.Name == "a" {
				refused = n.Refused
			} else if n.Name != "b" {
				t.Errorf("%s: there is a node %q", name, n.Name)
			}
		}
		for _, err := range []error{record.ErrMalformed, record.ErrWide, record.ErrLocal, record.ErrSize} {
			if refused[err.Error()] == 0 {
				t.Errorf("%s: nothing is counted as %q: %v", name, err, refused)
			}
		}
	}
}

// A node whose credentials are revoked keeps what it knows, says why it hears nothing, and is let in again.
func TestWhoIsRevokedGoesOnAlone(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	s := startServer(t, dir, port, withUsers)
	operator, js := client(t, urlOf(s, "operator"))
	if _, err := js.CreateStream(t.Context(), fleet.StreamConfig("acme")); err != nil {
		t.Fatal(err)
	}
	operator.Close()
	a, _ := run(t, configOf(urlOf(s, "a"), "a"))
	b, _ := run(t, configOf(urlOf(s, "b"), "b"))
	a.Say(banOf(address(1)))
	await(t, b, "b knows", func() bool { return bans(b, address(1)) })
	stopServer(s)
	s = startServer(t, dir, port, func(o *server.Options) {
		withUsers(o)
		o.Users = o.Users[1:] // a is revoked
	})
	await(t, b, "b is back", func() bool { return b.Status().CaughtUp })
	await(t, a, "a says why", func() bool { return strings.Contains(a.Status().Error, "authorization") })
	b.Say(banOf(address(2)))
	a.Say(banOf(address(3)))
	if !bans(a, address(1)) || !bans(a, address(3)) {
		t.Error("what a knew is gone")
	}
	stopServer(s)
	startServer(t, dir, port, withUsers)
	want := []netip.Prefix{address(1), address(2), address(3)}
	for _, f := range []*fleet.Fleet{a, b} {
		await(t, f, "a is let in again", func() bool { return slices.Equal(banned(f), want) })
	}
}

func TestWhatIsNotSharedOrAccepted(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	silent := configOf(s.ClientURL(), "a")
	silent.Share = []record.Kind{record.Trust}
	deaf := configOf(s.ClientURL(), "b")
	deaf.Accept = nil
	a, _ := run(t, silent)
	b, _ := run(t, deaf)
	c, _ := run(t, configOf(s.ClientURL(), "c"))
	trust := record.Record{Key: record.Key{Kind: record.Trust, Prefix: address(9)}, Until: time.Now().Add(time.Hour)}
	a.Say(banOf(address(1)), trust)
	a.Say(record.Record{Key: record.Key{Kind: record.Trust, Prefix: netip.MustParsePrefix("192.168.1.2/32")},
		Until: trust.Until}) // somebody else's at each site
	isTrusted := func(f *fleet.Fleet) (ok bool) {
		f.Read(func(b *record.Book, now time.Time) { _, ok = b.Others(now, record.Trust, trust.Prefix) })
		return ok
	}
	await(t, c, "c hears of trust", func() bool { return isTrusted(c) })
	b.Say(banOf(address(2)))
	await(t, c, "c hears of b's ban", func() bool { return bans(c, address(2)) })
	if c.Status().Records != 2 {
		t.Errorf("c knows of %d records, want 2", c.Status().Records)
	}
	if isTrusted(b) {
		t.Error("b takes what it does not accept")
	}
	a.Unban(address(2), time.Time{}) // shared with nobody
	if bans(a, address(2)) {
		t.Error("a person's unban does not count at his own node")
	}
	a.Say(trust)
	await(t, a, "a is rid of its word", func() bool { return a.Status().Waiting == 0 })
	if !bans(c, address(2)) {
		t.Error("an unban that is not shared is known elsewhere")
	}
}

// Of a node that says the same things again and again, no more waits than there are things.
func TestTheOutboxIsBounded(t *testing.T) {
	cfg := configOf(fmt.Sprintf("nats://127.0.0.1:%d", freePort(t)), "a")
	cfg.Limits.Records = 100
	a, _ := run(t, cfg)
	for i := range 1000 {
		a.Say(banOf(address(i)))
		a.Say(banOf(address(i % 10)))
	}
	if s := a.Status(); s.Waiting != 100 || s.Unsaid != 900 || s.Records != 100 {
		t.Errorf("%d wait, %d are unsaid, %d are known; want 100, 900, 100", s.Waiting, s.Unsaid, s.Records)
	}
}

// The time from one node's word to another one's knowledge.
func BenchmarkBan(b *testing.B) {
	s := startServer(b, b.TempDir(), -1, nil)
	cfg := configOf(s.ClientURL(), "a")
	cfg.Limits.Records = 1 << 20
	from, _ := run(b, cfg)
	cfg.Node = "b"
	to, _ := run(b, cfg)
	await(b, to, "connected", func() bool { return to.Status().CaughtUp && from.Status().CaughtUp })
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		begun := time.Now()
		from.Say(banOf(address(i)))
		for !bans(to, address(i)) {
			<-to.HasChange()
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// A person's word for one node alone: that node lets in whom others saw, over restarts, and they do not hear of it.
func TestAnUnbanForOneNodeAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1, nil)
	cfg := configOf(s.ClientURL(), "a")
	cfg.KeptFile = filepath.Join(t.TempDir(), "fleet.json")
	a, stop := run(t, cfg)
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	b.Say(banOf(address(1)), banOf(address(2)))
	await(t, a, "a knows", func() bool { return len(banned(a)) == 2 })
	a.UnbanHere(address(1))
	if bans(a, address(1)) {
		t.Error("it is not let in")
	}
	stop()
	a, _ = run(t, cfg)
	await(t, a, "a is back", func() bool { return a.Status().CaughtUp })
	if got := banned(a); !slices.Equal(got, []netip.Prefix{address(2)}) {
		t.Errorf("after a restart a bans %v", got)
	}
	b.Say(banOf(address(1)))
	await(t, a, "who is seen again is banned again", func() bool { return bans(a, address(1)) })
	a.Say(banOf(address(3)))
	await(t, b, "b hears a", func() bool { return bans(b, address(3)) })
	if !bans(b, address(1)) {
		t.Error("b hears what is for a alone")
	}
}

// A node that has more to say than the others take of one says what lets somebody in first, and the rest as they take it.
func TestANodeSpeaksAsOthersListen(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1, nil)
	cfg := configOf(s.ClientURL(), "a")
	cfg.Limits.Records, cfg.Limits.Rate = 250, 1200 // 20 a second
	a := fleet.New(cfg)
	for i := range 250 {
		a.Say(banOf(address(i)))
	}
	for i := range 250 {
		a.Unban(address(i), time.Time{})
		a.Say(banOf(address(i)))
	}
	if s := a.Status(); s.Waiting != 500 || s.Unsaid != 0 {
		t.Errorf("%d wait, %d are unsaid: bans leave no room for unbans", s.Waiting, s.Unsaid)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	other := cfg
	other.Node = "b"
	b, _ := run(t, other)
	await(t, b, "b is there", func() bool { return b.Status().CaughtUp })
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	await(t, a, "all is said", func() bool { return a.Status().CaughtUp && a.Status().Waiting == 0 })
	await(t, b, "all is heard", func() bool { return b.Status().Records == a.Status().Records })
	for _, n := range b.Status().Nodes {
		if n.RefusedCount() > 0 {
			t.Errorf("refused of %s: %v", n.Name, n.Refused)
		}
	}
	if got := banned(b); !slices.Equal(got, banned(a)) {
		t.Errorf("b bans %d, a %d", len(got), len(banned(a)))
	}
}

// What persons said while no server was there is not lost with a restart.
func TestWhatPersonsSaidWaitsOverARestart(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	cfg := configOf(fmt.Sprintf("nats://127.0.0.1:%d", port), "a")
	cfg.KeptFile = filepath.Join(t.TempDir(), "fleet.json")
	s := startServer(t, dir, port, nil)
	a, stop := run(t, cfg)
	b, _ := run(t, configOf(s.ClientURL(), "b"))
	b.Say(banOf(address(1)), banOf(address(2)))
	await(t, a, "a knows", func() bool { return len(banned(a)) == 2 })
	stopServer(s)
	await(t, a, "a is alone", func() bool { return !a.Status().Connected })
	a.Unban(address(1), time.Now().Add(time.Hour))
	a.Say(record.Record{Key: record.Key{Kind: record.Allow, Prefix: address(3)}})
	stop()
	a, stop = run(t, cfg)
	await(t, a, "a knows what it has to say", func() bool { return a.Status().Waiting == 3 })
	startServer(t, dir, port, nil)
	await(t, b, "b hears it", func() (ok bool) {
		b.Read(func(k *record.Book, now time.Time) { _, ok = k.Others(now, record.Allow, address(3)) })
		return ok && !bans(b, address(1)) && bans(b, address(2))
	})
	if bans(a, address(1)) || !bans(a, address(2)) {
		t.Errorf("a bans %v", banned(a))
	}
	await(t, a, "all is said", func() bool { return a.Status().Waiting == 0 })
	stop()
	a, _ = run(t, cfg)
	await(t, a, "a is back", func() bool { return a.Status().CaughtUp })
	if got := banned(a); !slices.Equal(got, []netip.Prefix{address(2)}) {
		t.Errorf("after a restart a bans %v", got)
	}
}

// Ten minutes of clock make no word of a node count more or less than another one's: what was said last counts, whoever
// said it.
func TestAClockThatIsWrong(t *testing.T) {
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			s := startServer(t, t.TempDir(), -1, nil)
			cfg := configOf(s.ClientURL(), "wrong")
			cfg.Now = func() time.Time { return time.Now().Add(by) }
			wrong, _ := run(t, cfg)
			a, _ := run(t, configOf(s.ClientURL(), "a"))
			b, _ := run(t, configOf(s.ClientURL(), "b"))
			all := []*fleet.Fleet{wrong, a, b}
			agree := func(what string, want bool) {
				t.Helper()
				for _, f := range all {
					await(t, f, f.Node()+": "+what, func() bool { return bans(f, attacker) == want })
				}
			}
			for _, banning := range all {
				for _, unbanning := range all {
					banning.Say(banOf(attacker))
					agree("banned by "+banning.Node(), true)
					unbanning.Unban(attacker, time.Time{})
					agree("unbanned by "+unbanning.Node(), false)
				}
			}
		})
	}
}

// A clock that is further ahead could beat everything that others say: it is refused. It hears the others.
func TestAClockThatIsTooFarAhead(t *testing.T) {
	s := startServer(t, t.TempDir(), -1, nil)
	cfg := configOf(s.ClientURL(), "far")
	cfg.Now = func() time.Time { return time.Now().Add(record.MaxAhead + time.Minute) }
	far, _ := run(t, cfg)
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	far.Say(banOf(attacker))
	await(t, a, "it is refused", func() bool {
		for _, n := range a.Status().Nodes {
			if n.Name == "far" {
				return n.Refused[record.ErrClock.Error()] > 0
			}
		}
		return false
	})
	if bans(a, attacker) {
		t.Error("it is believed")
	}
	a.Say(banOf(address(1)))
	await(t, far, "it hears the others", func() bool { return bans(far, address(1)) })
}
