package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// startHub runs a NATS server with JetStream on loopback.
func startHub(t *testing.T, dir string, port int) (s *server.Server) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true,
		NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the hub does not start")
	}
	t.Cleanup(func() { stopHub(s) })
	return s
}

func stopHub(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// inFleet is the configuration of a node.
func inFleet(url, node string) func(*config.Config) {
	return func(c *config.Config) { c.Fleet.Servers, c.Fleet.Node = []string{url}, node }
}

func (r *rig) inTouch() bool {
	s := r.status().Fleet
	return s != nil && s.CaughtUp && s.Waiting == 0
}

// isTold says whether a node has taken a record of another one.
func (r *rig) isTold(node string, kind record.Kind, prefix string) (told bool) {
	r.d.fleet.current.Load().Read(func(b *record.Book, _ time.Time) {
		_, told = b.Get(record.Key{Node: node, Kind: kind, Prefix: netip.MustParsePrefix(prefix)})
	})
	return told
}

func TestWhatOnePBXLearnsTheOtherKnows(t *testing.T) {
	hub := startHub(t, t.TempDir(), -1)
	a, b := newRig(t, inFleet(hub.ClientURL(), "a")), newRig(t, inFleet(hub.ClientURL(), "b"))
	a.until("a is in touch", a.inTouch)
	b.until("b is in touch", b.inTouch)

	a.attack("IPV4/TLS/198.51.100.7/5071")
	a.await(ban.ActionBan, "198.51.100.7/32")
	d := b.await(ban.ActionBan, "198.51.100.7/32")
	if d.Origin != "a" || d.Reason != ban.ReasonUnknownAccount || !d.Proven || d.Duration > time.Hour ||
		d.Duration < 50*time.Minute {
		t.Errorf("b decided: %+v", d)
	}
	if _, ok := b.inKernel(firewall.Ban, "198.51.100.7/32"); !ok {
		t.Error("b's kernel lets it pass")
	}
	why, err := b.client.Why(t.Context(), netip.MustParseAddr("198.51.100.7"))
	if err != nil || why.Ban == nil || why.Ban.Origin != "a" ||
		!strings.Contains(strings.Join(why.Lines, "\n"), "node a of the fleet saw it") {
		t.Errorf("why: %+v, %v", why, err)
	}

	b.wantMetrics("ringwall_fleet_bans 1", "ringwall_fleet_silent_nodes 0", "ringwall_fleet_bounded_nodes 0")

	// A person at b lets it in: everywhere.
	if _, err := b.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("198.51.100.7/32")}); err != nil {
		t.Fatal(err)
	}
	if d := a.await(ban.ActionUnban, "198.51.100.7/32"); d.Origin != "b" || d.Reason != ban.ReasonManual {
		t.Errorf("a decided: %+v", d)
	}
	if _, ok := a.inKernel(firewall.Ban, "198.51.100.7/32"); ok {
		t.Error("a's kernel keeps it out")
	}
	b.wantMetrics("ringwall_fleet_connected 1", "ringwall_fleet_nodes 2", "ringwall_fleet_waiting_records 0",
		"ringwall_fleet_refused_records_total 0")
	a.attack("IPV4/TLS/198.51.100.7/5072") // it goes on, and that is news
	if d := b.await(ban.ActionBan, "198.51.100.7/32"); d.Origin != "a" {
		t.Errorf("b decided: %+v", d)
	}
}

func TestACustomerOfOnePBXIsOneOfTheOther(t *testing.T) {
	hub := startHub(t, t.TempDir(), -1)
	a, b := newRig(t, inFleet(hub.ClientURL(), "a")), newRig(t, inFleet(hub.ClientURL(), "b"))
	a.until("a is in touch", a.inTouch)
	b.until("b is in touch", b.inTouch)
	b.attack("IPV4/UDP/203.0.113.5/5060") // forged, perhaps
	b.await(ban.ActionBan, "203.0.113.5/32")
	a.login("IPV4/UDP/203.0.113.5/5060", "201")
	if d := b.await(ban.ActionTrust, "203.0.113.5/32"); d.Origin != "a" {
		t.Errorf("b decided: %+v", d)
	}
	why, err := b.client.Why(t.Context(), netip.MustParseAddr("203.0.113.5"))
	if err != nil || why.Trust == nil || why.Trust.Origin != "a" ||
		!strings.Contains(strings.Join(why.Lines, "\n"), "with a password at node a of the fleet") {
		t.Errorf("why: %+v, %v", why, err)
	}
	b.await(ban.ActionUnban, "203.0.113.5/32")
	b.attack("IPV4/UDP/203.0.113.5/5060")
	b.attack("IPV4/TLS/198.51.100.8/5071") // whose ban comes after that was judged
	b.await(ban.ActionBan, "198.51.100.8/32")
	if _, ok := b.inKernel(firewall.Ban, "203.0.113.5/32"); ok {
		t.Error("a customer of a is banned at b")
	}
	a.await(ban.ActionBan, "198.51.100.8/32")
	// What is allowed at one is allowed at all of them, and its ban ends.
	if _, err := a.client.Allow(t.Context(), api.AllowRequest{Prefix: netip.MustParsePrefix("198.51.100.8/32")}); err != nil {
		t.Fatal(err)
	}
	b.await(ban.ActionUnban, "198.51.100.8/32")
	if _, ok := b.inKernel(firewall.Allow, "198.51.100.8/32"); !ok {
		t.Error("b's kernel does not let it pass")
	}
	allowed, err := b.client.Allowed(t.Context())
	if err != nil || !slices.ContainsFunc(allowed, func(e ban.Exemption) bool {
		return e.Origin == "fleet" && e.Note == "allowed at a"
	}) {
		t.Errorf("the list does not say who allows it: %+v, %v", allowed, err)
	}
	history, err := b.client.History(t.Context(), time.Time{}, netip.MustParseAddr("198.51.100.8"))
	if err != nil || len(history) != 2 || history[0].Action != ban.ActionBan || history[1].Detail != "allowed at a" {
		t.Errorf("the history does not say who let it in: %+v, %v", history, err)
	}
	if _, err := a.client.Allow(t.Context(),
		api.AllowRequest{Prefix: netip.MustParsePrefix("198.51.100.8/32"), Remove: true}); err != nil {
		t.Fatal(err)
	}
	b.until("it is allowed no more", func() bool {
		_, ok := b.inKernel(firewall.Allow, "198.51.100.8/32")
		return !ok
	})
}

// One forged packet at one site must not take a provider from all of them.
func TestAForgedFloodAtOnePBXBansNobodyElsewhere(t *testing.T) {
	hub := startHub(t, t.TempDir(), -1)
	a, b := newRig(t, inFleet(hub.ClientURL(), "a")), newRig(t, inFleet(hub.ClientURL(), "b"))
	a.until("a is in touch", a.inTouch)
	b.until("b is in touch", b.inTouch)
	a.attack("IPV4/UDP/198.51.100.9/5060")
	a.await(ban.ActionBan, "198.51.100.9/32")
	b.until("b is told", func() bool { return b.isTold("a", record.Ban, "198.51.100.9/32") })
	a.attack("IPV4/TLS/198.51.100.10/5071")
	b.await(ban.ActionBan, "198.51.100.10/32")
	if _, ok := b.inKernel(firewall.Ban, "198.51.100.9/32"); ok {
		t.Error("b bans whom a forger named at a")
	}
	// A second node that saw it is enough.
	c := fleet.New(fleet.Config{Servers: []string{hub.ClientURL()}, Name: "ringwall", Node: "c",
		Share: []record.Kind{record.Ban}, Log: slog.New(slog.DiscardHandler),
		Limits: record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 100, Records: 100, Nodes: 10}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	c.Say(record.Record{Key: record.Key{Kind: record.Ban, Prefix: netip.MustParsePrefix("198.51.100.9/32")},
		Until: time.Now().Add(time.Hour), Reason: ban.ReasonUnknownAccount, Closes: ban.ClosesUDP})
	if d := b.await(ban.ActionBan, "198.51.100.9/32"); d.Proven || d.Closes != ban.ClosesUDP || d.Origin == "" {
		t.Errorf("b decided: %+v", d)
	}
}

// Attackers are kept out while the hub is away, from the start on; afterwards all know all.
func TestAHubThatIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hub := startHub(t, dir, -1)
	url := hub.ClientURL()
	var port int
	if _, err := fmt.Sscanf(url[strings.LastIndex(url, ":")+1:], "%d", &port); err != nil {
		t.Fatal(err)
	}
	stopHub(hub)
	a, b := newRig(t, inFleet(url, "a")), newRig(t, inFleet(url, "b"))
	a.attack("IPV4/TLS/198.51.100.7/5071")
	a.await(ban.ActionBan, "198.51.100.7/32")
	b.attack("IPV4/TLS/198.51.100.8/5071")
	b.await(ban.ActionBan, "198.51.100.8/32")
	a.until("a says that the hub is away", func() bool {
		return slices.ContainsFunc(a.status().Warnings, func(w api.Warning) bool {
			return strings.HasPrefix(w.Text, "the fleet's servers cannot be reached: ")
		})
	})
	a.stop() // what it did not tell is told after a restart
	a.start()
	startHub(t, dir, port)
	b.await(ban.ActionBan, "198.51.100.7/32")
	a.await(ban.ActionBan, "198.51.100.8/32")
	b.stop()
	b.decisions = nil
	b.start() // what others said is in force from the first moment
	if _, ok := b.inKernel(firewall.Ban, "198.51.100.7/32"); !ok {
		t.Error("after a restart b has forgotten what a saw")
	}
	b.until("b is in touch", b.inTouch)
}

// A firewall before a Kamailio has no Asterisk: it keeps out whom others saw.
func TestANodeWithoutAsterisk(t *testing.T) {
	hub := startHub(t, t.TempDir(), -1)
	a := newRig(t, inFleet(hub.ClientURL(), "a"))
	cfg := config.Default()
	cfg.Control.Socket, cfg.State.Path = filepath.Join(t.TempDir(), "ringwall.sock"), filepath.Join(t.TempDir(), "state.db")
	cfg.Metrics.Listen = ""
	inFleet(hub.ClientURL(), "edge")(&cfg)
	edge := &rig{t: t, cfg: &cfg, space: netnstest.New(t), more: make(chan struct{}, 1),
		client: &api.Client{Socket: cfg.Control.Socket}}
	d, err := New(Options{Config: &cfg, NetNS: edge.space.FD(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ends with: %v", err)
		}
	})
	edge.until("the edge is in touch", func() bool {
		s, err := edge.client.Status(t.Context())
		return err == nil && s.Fleet != nil && s.Fleet.CaughtUp
	})
	a.attack("IPV4/TLS/198.51.100.7/5071")
	edge.until("the edge keeps out whom a saw", func() bool {
		_, ok := edge.inKernel(firewall.Ban, "198.51.100.7/32")
		return ok
	})
	if s := edge.status(); len(s.PBXs) != 0 || len(s.Warnings) > 0 || len(s.ObserveOnly) > 0 || !s.Sensors[0].Off {
		t.Errorf("status: %+v", s)
	}
}

// What a stolen node said dies with a word of the operator's at all nodes, one that was off included; what they saw
// themselves stays, and so does what others saw.
func TestWhatAStolenNodeSaidDies(t *testing.T) {
	dir := t.TempDir()
	hub := startHub(t, dir, -1)
	url := hub.ClientURL()
	a, b := newRig(t, inFleet(url, "a")), newRig(t, inFleet(url, "b"))
	a.until("a is in touch", a.inTouch)
	b.until("b is in touch", b.inTouch)
	cfg := fleet.Config{Servers: []string{url}, Name: "ringwall", Node: "stolen", Share: record.Kinds(),
		Log: slog.New(slog.DiscardHandler), Limits: record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 100,
			Records: 100, Nodes: 10}}
	stolen := fleet.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stolen.Run(ctx) }()
	stopStolen := sync.OnceFunc(func() { stop(); <-ended })
	t.Cleanup(stopStolen)
	say := func(kind record.Kind, prefix string, end time.Duration) {
		key := record.Key{Kind: kind, Prefix: netip.MustParsePrefix(prefix)}
		r := record.Record{Key: key, Until: time.Now().Add(end)}
		if kind == record.Ban {
			r.Reason, r.Proven = ban.ReasonScanner, true
		}
		stolen.Say(r)
	}
	b.attack("IPV4/TLS/198.51.100.7/5071") // whom b sees itself
	b.await(ban.ActionBan, "198.51.100.7/32")
	say(record.Ban, "198.51.100.7/32", 30*time.Minute)
	say(record.Ban, "203.0.113.1/32", 1000*time.Hour) // whom it alone names
	say(record.Trust, "203.0.113.2/32", 20*time.Hour)
	say(record.Allow, "203.0.113.3/32", 1000*time.Hour)
	for _, r := range []*rig{a, b} {
		r.await(ban.ActionBan, "203.0.113.1/32")
		r.await(ban.ActionTrust, "203.0.113.2/32")
		r.until("it is allowed", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.3/32"); return ok })
	}
	a.await(ban.ActionBan, "198.51.100.7/32")
	stopStolen()

	// At one node alone.
	res, err := a.client.ForgetNode(t.Context(), api.ForgetRequest{Node: "stolen"})
	if err != nil || res.Prefixes != 4 || res.InForce < 2 || res.Note != "" {
		t.Errorf("forgotten at a: %+v, %v", res, err)
	}
	if d := a.await(ban.ActionUnban, "203.0.113.1/32"); d.Origin != "stolen" {
		t.Errorf("a decided: %+v", d)
	}
	a.await(ban.ActionUntrust, "203.0.113.2/32")
	if _, ok := b.inKernel(firewall.Ban, "203.0.113.1/32"); !ok {
		t.Error("b forgets what a was told to forget")
	}
	for _, node := range []string{"a", "a b"} {
		if _, err := a.client.ForgetNode(t.Context(), api.ForgetRequest{Node: node}); err == nil {
			t.Errorf("a forgets %q", node)
		}
	}

	// Everywhere, while b is off: what it had stored dies when it comes back.
	b.stop()
	b.decisions = nil
	if err := fleet.ForgetEverywhere(t.Context(), cfg, "stolen"); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.await(ban.ActionUnban, "203.0.113.1/32")
	b.await(ban.ActionUntrust, "203.0.113.2/32")
	for _, r := range []*rig{a, b} {
		r.until("it is not allowed", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.3/32"); return !ok })
		if _, ok := r.inKernel(firewall.Ban, "198.51.100.7/32"); !ok {
			t.Error("whom b saw itself is let in")
		}
	}
}

// A person lets somebody in at one node alone, where that is asked for or configured; all are let in elsewhere only
// where it is asked for.
func TestAnUnbanAtOneNodeAlone(t *testing.T) {
	hub := startHub(t, t.TempDir(), -1)
	a := newRig(t, inFleet(hub.ClientURL(), "a"))
	b := newRig(t, inFleet(hub.ClientURL(), "b"), func(c *config.Config) { c.Fleet.Unban = config.UnbanHere })
	a.until("a is in touch", a.inTouch)
	b.until("b is in touch", b.inTouch)
	for _, who := range []string{"198.51.100.7", "198.51.100.8", "198.51.100.9", "198.51.100.10"} {
		a.attack("IPV4/TLS/" + who + "/5071")
		b.await(ban.ActionBan, who+"/32")
	}
	prefix := netip.MustParsePrefix
	isBanned := func(r *rig, who string) bool { _, ok := r.inKernel(firewall.Ban, who+"/32"); return ok }
	want := func(res api.UnbanResult, err error, reach api.Reach, origins ...string) {
		t.Helper()
		if err != nil || res.Count != 1 || res.Reach != reach || !slices.Equal(res.Origins, origins) ||
			res.FleetNote != "" {
			t.Errorf("unbanned: %+v, %v", res, err)
		}
	}
	res, err := b.client.Unban(t.Context(), api.UnbanRequest{Prefix: prefix("198.51.100.7/32")}) // as b is configured
	want(res, err, api.ReachHere, "a")
	res, err = a.client.Unban(t.Context(), api.UnbanRequest{Prefix: prefix("198.51.100.8/32"), Here: true})
	want(res, err, api.ReachHere)
	res, err = b.client.Unban(t.Context(), api.UnbanRequest{Prefix: prefix("198.51.100.9/32"), Fleet: true})
	want(res, err, api.ReachFleet, "a")
	a.await(ban.ActionUnban, "198.51.100.9/32") // what was said before that is known as well
	for who, banned := range map[string][2]bool{"198.51.100.7": {true, false}, "198.51.100.8": {false, true},
		"198.51.100.9": {false, false}, "198.51.100.10": {true, true}} {
		if got := [2]bool{isBanned(a, who), isBanned(b, who)}; got != banned {
			t.Errorf("%s is banned at a and b: %v, want %v", who, got, banned)
		}
	}
	b.stop() // what b was told for itself alone holds after a restart
	b.decisions = nil
	b.start()
	b.until("b is in touch", b.inTouch)
	a.attack("IPV4/TLS/198.51.100.11/5071")
	b.await(ban.ActionBan, "198.51.100.11/32")
	if isBanned(b, "198.51.100.7") {
		t.Error("after a restart b bans whom a person let in")
	}

	res, err = b.client.Unban(t.Context(), api.UnbanRequest{All: true})
	if err != nil || res.Count != 3 || res.Reach != api.ReachHere {
		t.Errorf("all: %+v, %v", res, err)
	}
	res, err = a.client.Unban(t.Context(), api.UnbanRequest{All: true, Fleet: true})
	if err != nil || res.Count != 3 || res.Reach != api.ReachFleet || res.FleetNote != "" {
		t.Errorf("all at all nodes: %+v, %v", res, err)
	}
}
