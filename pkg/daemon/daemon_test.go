package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hosts"
)

const attacker = "IPV4/UDP/203.0.113.66/5060"

func TestAttackerIsBannedInTheKernel(t *testing.T) {
	r := newRig(t)
	r.login("IPV4/UDP/198.51.100.10/5060", "201")
	r.await(ban.ActionTrust, "198.51.100.10/32")
	r.attack(attacker)
	d := r.await(ban.ActionBan, "203.0.113.66/32")
	if d.Reason != ban.ReasonUnknownAccount || d.Duration != time.Hour || d.PBX != "pbx1" {
		t.Errorf("%+v", d)
	}
	el, ok := r.inKernel(firewall.Ban, "203.0.113.66/32")
	if !ok || el.Remaining <= 50*time.Minute || el.Timeout > time.Hour {
		t.Errorf("kernel: %+v, %v; want an hour and no more", el, ok)
	}
	r.attack("IPV6/TCP/2001:db8::66/5060")
	r.await(ban.ActionBan, "2001:db8::/64")
	if _, ok := r.inKernel(firewall.Ban, "2001:db8::/64"); !ok {
		t.Error("the IPv6 network is not in the kernel")
	}
	if _, ok := r.inKernel(firewall.Ban, "198.51.100.10/32"); ok {
		t.Error("the customer is in the kernel")
	}
}

func TestBansOutliveTheDaemon(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	before, ok := r.inKernel(firewall.Ban, "203.0.113.66/32")
	if !ok {
		t.Fatal("the ban ended with the daemon")
	}
	r.start()
	bans, err := r.client.Bans(t.Context(), api.BanFilter{})
	if err != nil || len(bans) != 1 || bans[0].Prefix.String() != "203.0.113.66/32" ||
		bans[0].Reason != ban.ReasonUnknownAccount {
		t.Fatalf("%+v, %v; want the ban as it was", bans, err)
	}
	after, ok := r.inKernel(firewall.Ban, "203.0.113.66/32")
	if !ok || after.Remaining > before.Remaining {
		t.Errorf("%v left before the restart, %v after it", before.Remaining, after.Remaining)
	}
}

func TestAnAllowedAddressIsNotAdopted(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	r.cfg.Policy.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("203.0.113.66/32")}}
	r.start()
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("the ban of an address that is allowed by now is still in the kernel")
	}
}

func TestUnbanAndAllowAreInTheKernelWhenTheyReturn(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.attack(attacker)
		r.await(ban.ActionBan, "203.0.113.66/32")
		res, err := r.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32")})
		if err != nil || res.Count != 1 {
			t.Fatal(res, err)
		}
		if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
			t.Fatal("unban returned and the kernel still has the ban")
		}
	}
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.0/24"),
		For: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if el, ok := r.inKernel(firewall.Ban, "203.0.113.0/24"); !ok || el.Remaining <= 0 || el.Timeout > time.Minute {
		t.Fatalf("%+v %v", el, ok)
	}
	if _, err := r.client.Allow(t.Context(),
		api.AllowRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32")}); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); !ok {
		t.Fatal("allow returned and the kernel does not have it")
	}
	r.attack(attacker)
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionBan, "203.0.113.67/32")
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("an allowed address was banned")
	}
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32"),
		For: time.Hour}); err == nil {
		t.Error("an allowed address was banned by hand")
	}
	res, err := r.client.Allow(t.Context(), api.AllowRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32"),
		Remove: true})
	if err != nil || !res.Removed {
		t.Fatal(res, err)
	}
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); ok {
		t.Error("allow del returned and the kernel still has it")
	}
}

// What is allowed for a time is judged again after it, also by the kernel and after a restart; the longer promise
// counts.
func TestWhatIsAllowedForATime(t *testing.T) {
	r := newRig(t)
	allow := func(address string, d time.Duration) api.AllowResult {
		t.Helper()
		res, err := r.client.Allow(t.Context(),
			api.AllowRequest{Prefix: netip.MustParsePrefix(address + "/32"), For: d})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := allow("203.0.113.66", time.Second); res.Until == nil || !res.Added || !res.Lasting {
		t.Errorf("%+v", res)
	}
	day := allow("203.0.113.67", 24*time.Hour)
	if again := allow("203.0.113.67", time.Hour); again.Until == nil || !again.Until.Equal(*day.Until) ||
		!strings.Contains(again.Note, "longer") {
		t.Errorf("%+v, want the end %v", again, day.Until)
	}
	allow("203.0.113.68", 0)
	if again := allow("203.0.113.68", time.Hour); again.Until != nil || !strings.Contains(again.Note, "longer") {
		t.Errorf("%+v, want no end", again)
	}
	r.until("the kernel drops the one whose time is over", func() bool {
		_, ok := r.inKernel(firewall.Allow, "203.0.113.66/32")
		return !ok
	})
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	r.start()
	ends := map[string]*time.Time{}
	allowed, err := r.client.Allowed(t.Context())
	for _, v := range allowed {
		if v.Origin == engine.OriginManual {
			ends[v.Prefix.String()] = v.Until
		}
	}
	if err != nil || len(ends) != 2 || ends["203.0.113.67/32"] == nil || !ends["203.0.113.67/32"].Equal(*day.Until) ||
		ends["203.0.113.68/32"] != nil {
		t.Errorf("after a restart: %v, %v", ends, err)
	}
	if _, err := r.client.Allow(t.Context(), api.AllowRequest{Host: "localhost", For: time.Hour}); err == nil ||
		!strings.Contains(err.Error(), "host name") {
		t.Errorf("%v", err)
	}
}

// Bans of before stay in observe mode, over a restart too, and enforce finds them; nobody more is banned.
func TestObserveModeMakesNoBansAndEndsNone(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	r.cfg.Policy.Mode = config.Observe
	r.start()
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); !ok {
		t.Error("a start in observe mode ended a ban")
	}
	if bans, err := r.client.Bans(t.Context(), api.BanFilter{}); err != nil || len(bans) != 1 ||
		bans[0].Reason != ban.ReasonUnknownAccount {
		t.Errorf("%+v, %v; want the ban as it was", bans, err)
	}
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionObserve, "203.0.113.67/32")
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.67/32"); ok {
		t.Error("observe mode banned")
	}
}

func TestAsteriskRestartsUnderTheDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	address := r.address
	r.stopServer()
	r.until("the loss is noticed", func() bool { return !r.d.pbxs[0].pbxStatus().Up })
	r.serve(address)
	r.until("the session is up again", func() bool { return r.d.pbxs[0].pbxStatus().Up })
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); !ok {
		t.Error("the ban ended with Asterisk")
	}
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionBan, "203.0.113.67/32")
	s, err := r.client.Status(t.Context())
	if err != nil || s.PBXs[0].Reconnects != 1 || s.PBXs[0].Blind <= 0 {
		t.Errorf("%+v, %v; want one reconnect and the time without a session", s.PBXs, err)
	}
}

// A frame with injected lines names 8.8.8.8; nobody is judged by it.
func TestTamperingBansNobody(t *testing.T) {
	r := newRig(t)
	for range 9 {
		r.event("InvalidAccountID", "\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5", "x", attacker, "")
	}
	r.until("the tampering is decided", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.decisions) > 0
	})
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionBan, "203.0.113.67/32")
	for _, p := range []string{"8.8.8.8/32", "203.0.113.66/32"} {
		if _, ok := r.inKernel(firewall.Ban, p); ok {
			t.Errorf("%s was banned by a forged frame", p)
		}
	}
	if n := r.d.pbxs[0].tampered.Load(); n != 9 {
		t.Errorf("%d tampered frames counted, want 9", n)
	}
}

func TestMetricsAreLintedAndCount(t *testing.T) {
	r := newRig(t)
	r.login("IPV4/UDP/198.51.100.10/5060", "201")
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	problems, err := testutil.GatherAndLint(r.d.metrics.Registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := get(t, r.site()+"/metrics")
	for _, line := range []string{
		`ringwall_ami_up{pbx="pbx1"} 1`,
		`ringwall_ami_events_total{event="InvalidAccountID",pbx="pbx1",service="PJSIP"} 3`,
		`ringwall_ami_tampered_total{pbx="pbx1"} 0`, `ringwall_ami_reconnects_total{pbx="pbx1"} 0`,
		`ringwall_bans_active{family="ipv4",scope="source"} 1`, `ringwall_bans_active{family="ipv6",scope="source"} 0`,
		`ringwall_bans_total{reason="unknown_account"} 1`,
		`ringwall_trusted_sources 1`, `ringwall_kernel_bans_desired 1`, `ringwall_kernel_bans_present 1`,
		`ringwall_kernel_rebuilds_total{cause="create"} 1`, `ringwall_config_reload_success 1`,
		`ringwall_decision_seconds_count 1`, `ringwall_dropped_packets_total{set="ban4"} 0`,
		`ringwall_build_info{version="test"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, address := range []string{"203.0.113.66", "198.51.100.10", "201"} {
		if strings.Contains(text, `"`+address) {
			t.Errorf("%s is in a label", address)
		}
	}
}

func TestStatusSaysWhatIsSo(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	s, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !s.Healthy() || s.Engine.Bans != 1 || s.Kernel.Desired != 1 || len(s.PBXs) != 1 || !s.PBXs[0].Up ||
		s.PBXs[0].Events < 6 {
		t.Errorf("%+v", s)
	}
	if len(s.ObserveOnly) != 1 || s.ObserveOnly[0].Service != "SIP" {
		t.Errorf("observed: %+v", s.ObserveOnly)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b strings.Builder
	if _, err := io.Copy(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheMachineItselfIsAllowed(t *testing.T) {
	r := newRig(t)
	r.until("the machine's addresses are on the list", func() bool {
		list, err := r.client.Allowed(t.Context())
		return err == nil && slices.ContainsFunc(list, func(v ban.Exemption) bool {
			return v.Prefix.String() == "127.0.0.0/8" && v.Origin == engine.OriginHost
		})
	})
	r.until("loopback is in the kernel's allow set", func() bool {
		_, ok := r.inKernel(firewall.Allow, "127.0.0.0/8")
		return ok
	})
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("127.0.0.1/32"),
		For: time.Hour}); err == nil {
		t.Error("loopback was banned by hand")
	}
}

func TestAHostNameIsAllowedAndRemoved(t *testing.T) {
	r := newRig(t)
	res, err := r.client.Allow(t.Context(), api.AllowRequest{Host: "localhost"})
	if err != nil || !res.Added || !slices.Contains(res.Addresses, netip.MustParseAddr("127.0.0.1")) {
		t.Fatal(res, err)
	}
	named := func() bool {
		list, err := r.client.Allowed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(v ban.Exemption) bool { return v.Origin == "localhost" })
	}
	if !named() {
		t.Error("the name is not on the list")
	}
	if res, err = r.client.Allow(t.Context(), api.AllowRequest{Host: "localhost", Remove: true}); err != nil ||
		!res.Removed {
		t.Fatal(res, err)
	}
	if named() {
		t.Error("the name is still on the list")
	}
}

func TestAllBansEndWithAGrace(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	res, err := r.client.Unban(t.Context(), api.UnbanRequest{All: true, Grace: time.Hour})
	if err != nil || res.Count != 1 || res.Grace == nil {
		t.Fatal(res, err)
	}
	r.attack(attacker)
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionBan, "203.0.113.67/32")
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("banned again within the grace")
	}
}

// An attacker's first packet may bear the address of this machine, or of the gateway behind which all customers are.
func TestOwnAddressesAreSparedBeforeTheFirstEvent(t *testing.T) {
	r := newRig(t)
	r.stop()
	d, err := New(Options{Config: r.cfg, NetNS: r.space.FD(), Log: slog.New(slog.DiscardHandler)}) // and nothing runs
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	own, err := hosts.OwnPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	d.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) {
		for p, why := range own {
			if !slices.Contains(e.ExemptPrefixes(), p) {
				t.Errorf("%v (%s) may be banned", p, why)
			}
		}
	})
}

// What is wrong and what to do about it are said once each.
func TestStatusNamesTheFaultAndItsCureOnce(t *testing.T) {
	r := newRig(t)
	r.stop()
	r.cfg.Asterisk[0].Secret = config.NewSecret("wrong")
	d, err := New(Options{Config: r.cfg, NetNS: r.space.FD(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var p api.PBXStatus
	r.until("the login is refused", func() bool { p = d.pbxs[0].pbxStatus(); return p.LastError != "" })
	if p.Up || strings.Contains(p.LastError, "Try") || !strings.Contains(p.Try, "secret") ||
		strings.Contains(p.Try+p.LastError, "wrong\n") {
		t.Errorf("%+v", p)
	}
}

// However long a list is, the engine is asked for a few of it at a time, and everybody who is banned is in it once. So
// it is with letting everybody in.
func TestManyBansAreListedAndLiftedInPieces(t *testing.T) {
	r := newRig(t)
	const many = 3000
	for i := range many {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{32, 0, byte(i >> 8), byte(i)}), 32)
		r.d.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) []ban.Decision {
			out, err := e.Ban(now, p, time.Hour, "")
			if err != nil {
				t.Fatal(err)
			}
			return out
		})
	}
	seen := make(map[string]int)
	err := r.d.Backend().Bans(t.Context(), api.BanFilter{}, func(some []ban.Ban) error {
		if len(some) > banPiece {
			t.Errorf("a piece of %d", len(some))
		}
		for _, v := range some {
			seen[v.Prefix.String()]++
		}
		return nil
	})
	if err != nil || len(seen) != many {
		t.Fatalf("%d of %d, %v", len(seen), many, err)
	}
	for p, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", p, n)
		}
	}
	var some api.UnbanResult
	if some, err = r.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("32.0.1.0/24"),
		Grace: time.Hour}); err != nil ||
		some.Count != 256 || len(some.Removed) != api.MaxNamed {
		t.Errorf("a network: %+v, %v", some, err)
	}
	all, err := r.client.Unban(t.Context(), api.UnbanRequest{All: true, Grace: time.Hour})
	if err != nil || all.Count != many-256 || all.Grace == nil {
		t.Errorf("all: %d, %v", all.Count, err)
	}
	if left, err := r.d.fw.Elements(firewall.Ban); err != nil || len(left) != 0 {
		t.Errorf("%d are left in the kernel, %v", len(left), err)
	}
	// The graces outlive a restart.
	r.stop()
	r.start()
	var graces int
	r.d.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { graces = len(e.Graces()) })
	if graces != many+1 {
		t.Errorf("%d graces of %d", graces, many+1)
	}
}

// Nobody bans himself by a slip of the finger; who means it says so.
func TestABanOfOnesOwnSessionIsRefused(t *testing.T) {
	r := newRig(t)
	req := api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.0/24"), For: time.Hour,
		Session: netip.MustParseAddr("::ffff:203.0.113.9")}
	if _, err := r.client.Ban(t.Context(), req); err == nil ||
		!strings.Contains(err.Error(), "from where you are logged in") {
		t.Errorf("%v", err)
	}
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.0/24"); ok {
		t.Error("it is in the kernel all the same")
	}
	req.Force = true
	if _, err := r.client.Ban(t.Context(), req); err != nil {
		t.Error(err)
	}
	req = api.BanRequest{Prefix: netip.MustParsePrefix("198.51.100.0/24"), For: time.Hour,
		Session: netip.MustParseAddr("203.0.113.9")}
	if _, err := r.client.Ban(t.Context(), req); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}
