package doctor

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// beside is an examination of the kernel of a namespace.
func beside(ns *netns.Space) *exam {
	cfg := config.Default()
	return &exam{Options: Options{NetNS: ns.FD(), Wait: time.Minute}, cfg: &cfg, configLoaded: true,
		procFolder: "/proc"}
}

// ruleset lists all, without what changes by itself.
func ruleset(t *testing.T, ns *netns.Space) string {
	return regexp.MustCompile(` expires \S+`).ReplaceAllString(netnstest.NFT(t, ns, "list ruleset"), "")
}

// leftover is a table as a daemon that ended left it, with a ban.
func leftover(t *testing.T, e *exam, owner firewall.Owner) {
	t.Helper()
	cfg := e.tableConfig()
	cfg.Owner = owner
	fw, err := firewall.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer released(t, e)
	defer func() { _ = fw.Close() }()
	if _, err := fw.EnsureTable(); err != nil {
		t.Fatal(err)
	}
	ban := firewall.Change{Kind: firewall.Ban, Prefix: netip.MustParsePrefix("192.0.2.254/32"), Timeout: time.Hour}
	if err := fw.Apply([]firewall.Change{ban}); err != nil {
		t.Fatal(err)
	}
}

// released waits until the table belongs to nobody: programs that other tests start just now hold our descriptors
// too, until they have replaced this one.
func released(t *testing.T, e *exam) {
	t.Helper()
	k, err := openNetlink(e.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		have, err := k.lib.ListTableOfFamily(e.cfg.Firewall.Table, nftables.TableFamilyINet)
		if err == nil && have.Flags&nftables.TableFlagOwner == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table is still owned: %+v, %v", have, err)
		}
	}
}

func TestTheKernelIsLeftAsItWas(t *testing.T) {
	for name, row := range map[string]struct {
		before func(*testing.T, *exam, *netns.Space)
		want   Result
		says   string
	}{
		"no table": {func(*testing.T, *exam, *netns.Space) {}, OK, "was removed"},
		"left behind": {func(t *testing.T, e *exam, _ *netns.Space) { leftover(t, e, firewall.Auto) }, OK,
			"rules drop"},
		"no rules": {func(t *testing.T, e *exam, ns *netns.Space) {
			leftover(t, e, firewall.Auto)
			netnstest.NFT(t, ns, "flush chain inet ringwall prerouting")
		}, Warn, "no rule drops what is in the set ban4"},
		"dormant": {func(t *testing.T, e *exam, ns *netns.Space) {
			leftover(t, e, firewall.Off) // flags of a table cannot be changed while it has persist
			netnstest.NFT(t, ns, "table inet ringwall { flags dormant; }")
		}, Warn, "dormant"},
		"a daemon without its rules": {func(t *testing.T, e *exam, ns *netns.Space) {
			leftover(t, e, firewall.Auto)
			netnstest.NFT(t, ns, "flush chain inet ringwall prerouting")
			e.daemon = &api.Status{Mode: "enforce", Kernel: api.KernelStatus{OK: true}}
		}, Fail, "bans are not enforced"},
		"a daemon without its table": {func(_ *testing.T, e *exam, _ *netns.Space) {
			e.daemon = &api.Status{Mode: "enforce"}
		}, Fail, "another network namespace"},
		"a full set": {func(t *testing.T, e *exam, ns *netns.Space) {
			leftover(t, e, firewall.Auto)
			netnstest.NFT(t, ns, "delete table inet ringwall")
			netnstest.NFT(t, ns, `table inet ringwall {
				set ban4 { type ipv4_addr; size 1; flags timeout; elements = { 192.0.2.254 timeout 1h } }
				set ban6_64 { type ipv6_addr; flags timeout; }
				chain prerouting {
					type filter hook prerouting priority -300
					ip saddr @ban4 counter drop
					ip6 saddr & ffff:ffff:ffff:ffff:: == @ban6_64 counter drop
				}
			}`)
		}, Fail, "ban4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			e := beside(ns)
			row.before(t, e, ns)
			before := ruleset(t, ns)
			e.examineKernel(t.Context())
			is(t, one(t, e.checks, checkElement), row.want, row.says)
			is(t, one(t, e.checks, checkNFTables), OK)
			if after := ruleset(t, ns); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// A customer is still locked out by the bans of a daemon that was stopped: they are counted.
func TestTheBansOfADaemonThatIsGone(t *testing.T) {
	for name, row := range map[string]struct {
		before func(*testing.T, *exam)
		says   string
	}{
		"one ban": {func(t *testing.T, e *exam) { leftover(t, e, firewall.Auto) },
			"1 ban of an earlier run still drop"},
		"never used": {func(*testing.T, *exam) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := beside(netnstest.New(t))
			row.before(t, e)
			e.examineKernel(t.Context())
			if row.says == "" {
				if list := of(e.checks, "bans"); len(list) > 0 {
					t.Errorf("%+v", list)
				}
				return
			}
			is(t, one(t, e.checks, "bans"), Warn, row.says, "nft delete table inet ringwall")
		})
	}
}

// What the daemon calls banned is looked for in the kernel.
func TestABanThatIsNotInTheKernel(t *testing.T) {
	for name, row := range map[string]struct {
		banned []string
		want   bool
	}{
		"there":     {[]string{"192.0.2.254/32", "203.0.113.0/25"}, true},
		"not there": {[]string{"192.0.2.254/32", "203.0.113.9/32"}, false},
		"more than are compared": {append([]string{"203.0.113.9/32"},
			slices.Repeat([]string{"192.0.2.254/32"}, maxCompared)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			e := beside(ns)
			leftover(t, e, firewall.Auto)
			var bans []ban.Ban
			for _, p := range row.banned {
				bans = append(bans, ban.Ban{Prefix: netip.MustParsePrefix(p)})
			}
			asked := asking(t, told{status: api.Status{
				Mode: "enforce", Kernel: api.KernelStatus{OK: true, Desired: len(bans), Present: len(bans)},
			}, bans: bans})
			e.cfg.Control.Socket = asked.cfg.Control.Socket
			e.examineDaemon(t.Context())
			e.examineKernel(t.Context())
			list := of(e.checks, "bans")
			if row.want != Passed(list) {
				t.Fatalf("%+v", list)
			}
			if !row.want {
				is(t, list[len(list)-1], Fail, "1 ban is in force for the daemon and not in the kernel: 203.0.113.9/32")
			}
		})
	}
}

// People copy documentation networks from examples, doctor's own among them.
func TestTheTestAddressIsNotAllowed(t *testing.T) {
	allow := func(list ...string) []config.AllowEntry {
		var entries []config.AllowEntry
		for _, p := range list {
			entries = append(entries, config.AllowEntry{Prefix: netip.MustParsePrefix(p)})
		}
		return entries
	}
	e := run(t, netnstest.New(t), func(c *config.Config) {
		c.Policy.Allow = allow("192.0.2.0/24",
			"2001:db8:d0c7::/48")
	})
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), OK)

	ns := netnstest.New(t)
	e = beside(ns)
	leftover(t, e, firewall.Off)
	e.cfg.Policy.Allow = allow("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), OK, "rules drop")

	e = beside(ns)
	e.cfg.Policy.Allow = allow("0.0.0.0/1", "128.0.0.0/1")
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), Fail, "is allowed")
}

func TestATableThatSomebodyElseOwns(t *testing.T) {
	ns := netnstest.New(t)
	k, err := openNetlink(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	k.lib.AddTable(&nftables.Table{Name: "ringwall", Family: nftables.TableFamilyINet, Flags: nftables.TableFlagOwner})
	if err := k.lib.Flush(); err != nil {
		t.Fatal(err)
	}
	e := beside(ns)
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), Fail, "belongs to a running process", "no daemon answers")
}

// run starts a real daemon whose table is in the namespace, and returns an examination that has asked it.
func run(t *testing.T, ns *netns.Space, change func(*config.Config)) *exam {
	t.Helper()
	cfg := config.Default()
	a := config.DefaultAsterisk()
	a.Name, a.Username, a.Secret = "pbx1", "ringwall", config.NewSecret(secret)
	a.Address = serve(t, amiserver.User{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity})
	dir := t.TempDir()
	cfg.Asterisk, cfg.Metrics.Listen = []config.Asterisk{a}, ""
	cfg.Control.Socket, cfg.State.Path = filepath.Join(dir, "r.sock"), filepath.Join(dir, "state.db")
	change(&cfg)
	ready := make(chan struct{})
	d, err := daemon.New(daemon.Options{Config: &cfg, NetNS: ns.FD(), Log: slog.New(slog.DiscardHandler),
		Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready
	e := &exam{Options: Options{NetNS: ns.FD(), Wait: time.Minute}, cfg: &cfg, configLoaded: true, procFolder: "/proc"}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		e.checks, e.daemon = nil, nil
		e.examineDaemon(t.Context())
		if p := e.pbxStatus("pbx1"); p != nil && p.Up && p.Events > 0 && len(p.Denied) > 0 {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon hears nothing: %+v", e.checks)
		}
	}
}

func TestBesideARunningDaemon(t *testing.T) {
	ns := netnstest.New(t)
	e := run(t, ns, func(*config.Config) {})
	is(t, one(t, e.checks, "heard"), OK, "event")
	is(t, one(t, e.checks, "bans"), OK, "0 in force")
	kept := netip.MustParsePrefix("192.0.2.254/32")
	if _, err := e.client.Ban(t.Context(), api.BanRequest{Prefix: kept, For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	before := ruleset(t, ns)
	e.listOwnPrefixes(t.Context())
	e.examineAsterisks(t.Context())
	e.examineKernel(t.Context())
	e.examineFolders(t.Context())
	e.examineLockout(t.Context())
	if !Passed(e.checks) {
		t.Errorf("%+v", e.checks)
	}
	is(t, one(t, e.checks, checkElement), OK, map[bool]string{true: "the daemon owns the table",
		false: "test address"}[e.daemon.Kernel.Owner])
	is(t, one(t, e.checks, checkLearning), Skip, "DBGetTree", "reporting")
	is(t, one(t, e.checks, "own"), OK, "the daemon never bans")
	is(t, one(t, e.checks, "socket"), OK, "answers")
	if after := ruleset(t, ns); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if h, err := e.client.History(t.Context(), time.Time{}, netip.Addr{}); err != nil ||
		slices.ContainsFunc(h, func(d ban.Decision) bool {
			return d.Action == ban.ActionBan && d.Prefix != kept || d.Action == ban.ActionUnban
		}) {
		t.Errorf("the doctor's test is in the history: %+v, %v", h, err)
	}
	bans, err := e.client.Bans(t.Context(), api.BanFilter{})
	if err != nil || len(bans) != 1 || bans[0].Prefix.String() != kept.String() {
		t.Errorf("%+v, %v", bans, err)
	}
}

// With firewall.owner: off everybody with the capability may change the table, and the daemon need not be asked to.
func TestBesideADaemonThatDoesNotOwnItsTable(t *testing.T) {
	ns := netnstest.New(t)
	e := run(t, ns, func(c *config.Config) { c.Firewall.Owner = config.OwnerOff })
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), OK, "rules drop")
	is(t, one(t, e.checks, checkOwner), OK, "owner: off")
	if h, err := e.client.History(t.Context(), time.Time{}, netip.Addr{}); err != nil || len(h) != 0 {
		t.Errorf("the test is in the history: %+v, %v", h, err)
	}
}

func TestAnObservingDaemonIsNotAskedToBan(t *testing.T) {
	ns := netnstest.New(t)
	e := run(t, ns, func(c *config.Config) { c.Policy.Mode = config.Observe })
	if !e.daemon.Kernel.Owner {
		e.examineKernel(t.Context()) // before kernel 6.9 the table may be changed by hand
		is(t, one(t, e.checks, checkElement), OK)
		return
	}
	e.examineKernel(t.Context())
	is(t, one(t, e.checks, checkElement), Skip, "bans nobody")
}

func TestWhoComesBeforeRingwall(t *testing.T) {
	for name, row := range map[string]struct {
		script string
		want   Result
		says   []string
	}{
		"nobody": {"", OK, []string{"nobody"}},
		"accept before": {"table inet a { chain p { type filter hook prerouting priority -400; udp dport 5060 " +
			"accept; }; }", OK, []string{"inet a p (priority -400)", "without dropping"}},
		"drop before": {"table ip a { chain p { type filter hook prerouting priority -400; udp dport 5060 drop; }; }",
			Warn, []string{"ip a p (priority -400)", "firewall.priority"}},
		"drop by a jump": {"table ip a { chain q { drop; }; chain p { type filter hook prerouting priority -301; " +
			"jump q; }; }", Warn, []string{"ip a p"}},
		"policy drop": {"table ip6 a { chain p { type filter hook prerouting priority raw; policy drop; }; }", Warn,
			[]string{"ip6 a p (priority -300)"}},
		"drop later": {"table inet a { chain p { type filter hook prerouting priority 0; drop; }; chain i { type " +
			"filter hook input priority -400; policy drop; }; }", OK, []string{"nobody"}},
		"ingress": {"table netdev a { chain p { type filter hook ingress device lo priority 0; udp dport 5060 " +
			"drop; }; }", Warn, []string{"netdev a p"}},
		"ingress of inet": {"table inet a { chain p { type filter hook ingress device lo priority 0; drop; }; }", Warn,
			[]string{"inet a p"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			if row.script != "" {
				netnstest.NFT(t, ns, row.script)
			}
			e := beside(ns)
			e.procFolder = t.TempDir() // iptables-legacy of the machine does not matter here
			e.examineKernel(t.Context())
			is(t, one(t, e.checks, checkOthers), row.want, row.says...)
		})
	}
}

// Not every kernel has queues and transparent proxies.
func TestWhatKeepsAPacketFromRingwall(t *testing.T) {
	for name, row := range map[string]struct {
		rule expr.Any
		want bool
	}{
		"queue": {&expr.Queue{Num: 1}, true}, "reject": {&expr.Reject{}, true}, "tproxy": {&expr.TProxy{}, true},
		"drop":    {&expr.Verdict{Kind: expr.VerdictDrop}, true},
		"accept":  {&expr.Verdict{Kind: expr.VerdictAccept}, false},
		"counter": {&expr.Counter{}, false},
	} {
		if ruleMayDrop(&nftables.Rule{Exprs: []expr.Any{&expr.Counter{}, row.rule}},
			func(string) bool { return false }) != row.want {
			t.Errorf("%s: %t", name, !row.want)
		}
	}
}

func TestOldKernelsAreNamed(t *testing.T) {
	for release, want := range map[string]struct {
		result Result
		says   string
	}{
		"3.10.0-1160.119.1.el7.x86_64": {Warn, "FreePBX 17, whose Debian 12"},
		"2.6.32-754.el6.x86_64":        {Warn, "too old"},
		"4.0.9":                        {Warn, "too old"},
		"4.18.0-553.el8_10.x86_64":     {Warn, "a kernel from 5.10 on"},
		"5.4.0-200-generic":            {Warn, "a kernel from 5.10 on"},
		"5.10.0-34-amd64":              {OK, "5.10.0-34-amd64"},
		"6.1.0-41-amd64":               {OK, "6.1.0-41-amd64"},
		"6.12.57+deb13-amd64":          {OK, "6.12.57+deb13-amd64"},
		"7.2.0":                        {OK, "7.2.0"},
	} {
		e := &exam{}
		e.subjectNamed("").reportKernelRelease(release)
		is(t, one(t, e.checks, checkKernel), want.result, want.says)
	}
}
