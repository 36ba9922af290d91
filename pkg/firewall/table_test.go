package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

func pfx(s string) netip.Prefix {
	if !strings.Contains(s, "/") {
		a := netip.MustParseAddr(s)
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(s)
}

func ban(s string, d time.Duration) Change {
	return Change{Kind: Ban, Prefix: pfx(s), Timeout: d}
}

func unban(s string) Change { return Change{Kind: Ban, Prefix: pfx(s), Remove: true} }

func apply(t *testing.T, fw Firewall, c ...Change) {
	t.Helper()
	if err := fw.Apply(c); err != nil {
		t.Fatal(err)
	}
}

// holds checks that the kernel has a prefix for about so long; 0 is for ever.
func holds(t *testing.T, fw Firewall, k Kind, s string, want time.Duration) {
	t.Helper()
	e, ok, err := fw.LookUpPrefix(k, pfx(s))
	if err != nil || !ok {
		t.Fatalf("%s of %s: there: %v, error %v", k, s, ok, err)
	}
	if want == 0 && e.Timeout != 0 || e.Remaining > want || e.Remaining < want-5*time.Minute {
		t.Fatalf("%s of %s: %s of %s left, want %s", k, s, e.Remaining, e.Timeout, want)
	}
}

func lacks(t *testing.T, fw Firewall, k Kind, s string) {
	t.Helper()
	if e, ok, err := fw.LookUpPrefix(k, pfx(s)); err != nil || ok {
		t.Fatalf("%s of %s: there: %v (%+v), error %v", k, s, ok, e, err)
	}
}

func TestEachPrefixGoesToItsSet(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	cfg.Meter = Meter{Enabled: true, Rate: 100, Burst: 200}
	fw := ensured(t, cfg)
	rows := []struct {
		kind          Kind
		prefix        string
		set, inKernel string
	}{
		{Ban, "192.0.2.1", "ban4", "192.0.2.1"},
		{Ban, "192.0.2.9/24", "ban4_24", "192.0.2.0"},
		{Ban, "198.18.0.0/15", "net4", "198.18.0.0/15"},
		{Ban, "203.0.113.8/30", "net4", "203.0.113.8/30"},
		{Ban, "2001:db8::1", "ban6", "2001:db8::1"},
		{Ban, "2001:db8:1::7/64", "ban6_64", "2001:db8:1::"},
		{Ban, "2001:db8:2::/48", "net6", "2001:db8:2::/48"},
		{Ban, "::ffff:192.0.2.77", "ban4", "192.0.2.77"},
		{Ban, "::ffff:198.51.100.0/120", "ban4_24", "198.51.100.0"},
		{Ban, "255.255.0.0/16", "net4", "255.255.0.0/16"},
		{Ban, "ff00::/8", "net6", "ff00::/8"},
		{Allow, "10.0.0.0/8", "allow4", "10.0.0.0/8"},
		{Allow, "10.1.2.3", "allow4", "10.1.2.3"},
		{Allow, "fd00::/8", "allow6", "fd00::/8"},
		{Trust, "192.0.2.200", "trust4", "192.0.2.200"},
		{Trust, "2001:db8:9:9::1", "trust6", "2001:db8:9:9::"},
	}
	for _, r := range rows {
		t.Run(r.kind.String()+" "+r.prefix, func(t *testing.T) {
			apply(t, fw, Change{Kind: r.kind, Prefix: pfx(r.prefix), Timeout: time.Hour})
			if out := s.command(t, "nft list set inet ringwall "+r.set); !strings.Contains(out,
				r.inKernel+" timeout 1h") {
				t.Errorf("set %s has no %s:\n%s", r.set, r.inKernel, out)
			}
			holds(t, fw, r.kind, r.prefix, time.Hour)
			apply(t, fw, Change{Kind: r.kind, Prefix: pfx(r.prefix), Remove: true})
			lacks(t, fw, r.kind, r.prefix)
			if out := s.command(t, "nft list set inet ringwall "+r.set); strings.Contains(out, "elements") {
				t.Errorf("set %s is not empty after the removal:\n%s", r.set, out)
			}
		})
	}
}

func TestEnsureIsIdempotentAndKeepsElements(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	apply(t, fw, ban("192.0.2.1", time.Hour), ban("10.0.0.0/12", 2*time.Hour), ban("10.1.0.0/16", 3*time.Hour),
		ban("2001:db8::/64", time.Hour), Change{Kind: Allow, Prefix: pfx("172.16.0.0/12")})
	before := s.command(t, "nft list chain inet ringwall prerouting")
	ensure(t, fw, Adopted)
	other := openTable(t, testConfig(s))
	ensure(t, other, Adopted)
	if after := s.command(t, "nft list chain inet ringwall prerouting"); after != before {
		t.Errorf("the chain changed:\n%s\n%s", before, after)
	}
	holds(t, other, Ban, "192.0.2.1", time.Hour)
	holds(t, other, Ban, "10.1.0.0/16", 3*time.Hour)
	holds(t, other, Ban, "10.0.0.0/12", 2*time.Hour)
	holds(t, other, Ban, "2001:db8::/64", time.Hour)
	holds(t, other, Allow, "172.16.0.0/12", 0)
	got, err := other.Elements(Ban)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range got {
		names = append(names, e.Prefix.String())
	}
	slices.Sort(names)
	if want := "[10.0.0.0/12 10.1.0.0/16 192.0.2.1/32 2001:db8::/64]"; fmt.Sprint(names) != want {
		t.Errorf("elements %v, want %s", names, want)
	}
}

func TestOtherTablesAreLeftAlone(t *testing.T) {
	s := newSpace(t)
	s.command(t, "nft 'add table inet filter; add set inet filter ban4 { type ipv4_addr; }; add element inet filter ban4 { 192.0.2.1 }'")
	before := s.command(t, "nft list table inet filter")
	fw := ensured(t, testConfig(s))
	apply(t, fw, ban("192.0.2.1", time.Hour))
	ensure(t, fw, Adopted)
	if err := fw.DeleteTable(); err != nil {
		t.Fatal(err)
	}
	if out := s.command(t, "nft list ruleset"); out != before {
		t.Errorf("another table was changed:\n%s", out)
	}
	if err := fw.DeleteTable(); err != nil {
		t.Errorf("deleting a table that is gone: %v", err)
	}
}

func TestRefreshExtendsShortensAndNeverBecomesPermanent(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	for _, p := range []string{"192.0.2.1", "192.0.2.0/24", "192.0.0.0/16", "2001:db8::/64", "2001:db8::/40"} {
		for _, d := range []time.Duration{time.Hour, 5 * time.Hour, 5 * time.Hour, 10 * time.Minute} {
			apply(t, fw, ban(p, d))
			holds(t, fw, Ban, p, d)
		}
		apply(t, fw, unban(p), ban(p, time.Hour), ban(p, 2*time.Hour))
		holds(t, fw, Ban, p, 2*time.Hour)
		apply(t, fw, ban(p, time.Hour), unban(p))
		lacks(t, fw, Ban, p)
		for _, d := range []time.Duration{0, -time.Second, time.Microsecond, MinTimeout - 1} {
			if err := fw.Apply([]Change{ban("198.51.100.7", time.Hour), ban(p, d)}); !errors.Is(err, ErrTimeout) {
				t.Errorf("a ban for %s: %v", d, err)
			}
		}
		lacks(t, fw, Ban, p)
		lacks(t, fw, Ban, "198.51.100.7")
	}
}

// What the kernel holds need not be what this process believes: elements that it never heard of, and others that an
// administrator took out.
func TestBeliefsAboutTheKernelMayBeWrong(t *testing.T) {
	s := newSpace(t)
	first := ensured(t, testConfig(s))
	fw := openTable(t, testConfig(s))
	ensure(t, fw, Adopted)
	apply(t, fw, ban("203.0.113.1", time.Hour)) // from here on it believes that it knows
	var changes []Change
	for i := range 50 {
		changes = append(changes, ban(fmt.Sprintf("192.0.2.%d", i), time.Hour),
			ban(fmt.Sprintf("2001:db8:%d::/64", i), time.Hour))
	}
	apply(t, first, changes[:60]...)
	for i := range changes {
		changes[i].Timeout = 5 * time.Hour
	}
	apply(t, fw, append(changes, changes[3], unban("198.51.100.1"))...)
	for _, c := range changes {
		holds(t, fw, Ban, c.Prefix.String(), 5*time.Hour)
	}
	s.command(t, "nft 'flush set inet ringwall ban4; flush set inet ringwall ban6_64'")
	apply(t, fw, append([]Change{unban("192.0.2.0"), unban("192.0.2.1")}, changes[4:]...)...)
	lacks(t, fw, Ban, "192.0.2.1")
	for _, c := range changes[4:] {
		holds(t, fw, Ban, c.Prefix.String(), 5*time.Hour)
	}
	// The same for networks.
	apply(t, first, ban("10.0.0.0/8", time.Hour))
	apply(t, fw, ban("10.2.0.0/16", 2*time.Hour))
	holds(t, fw, Ban, "10.2.0.0/16", 2*time.Hour)
	holds(t, fw, Ban, "10.3.0.0/16", time.Hour)
	s.command(t, "nft flush set inet ringwall net4")
	apply(t, fw, ban("10.0.0.0/8", 3*time.Hour))
	holds(t, fw, Ban, "10.0.0.0/8", 3*time.Hour)
}

func TestOfTwoChangesOfOnePrefixTheLaterCounts(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	for _, p := range []string{"192.0.2.1", "2001:db8::/64", "10.0.0.0/8"} {
		apply(t, fw, ban(p, 2*time.Hour), ban(p, 3*time.Hour), ban(p, time.Hour))
		holds(t, fw, Ban, p, time.Hour)
		apply(t, fw, ban(p, 4*time.Hour), ban(p, 5*time.Hour))
		holds(t, fw, Ban, p, 5*time.Hour)
	}
}

func TestWithoutTheCapability(t *testing.T) {
	s := newSpace(t)
	var openErr error
	err := s.Do(func() error { // on a thread of its own, which has its own capabilities
		if err := dropNetAdmin(); err != nil {
			return err
		}
		cfg := testConfig(s)
		cfg.NetNS = 0
		fw, e := Open(cfg)
		if openErr = e; e == nil {
			_, openErr = fw.EnsureTable()
			_ = fw.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(openErr, ErrPermission) || !strings.Contains(hint.Of(openErr), "CAP_NET_ADMIN") {
		t.Errorf("%v, try %q", openErr, hint.Of(openErr))
	}
}

// dropNetAdmin takes the capability from this thread.
func dropNetAdmin() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return err
	}
	caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&head, &caps[0])
}

func TestImpossibleChangesAreRefused(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	for _, c := range []Change{
		{Kind: Ban, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("0.0.0.0/0"), Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("::/0"), Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("::ffff:0.0.0.0/96"), Timeout: time.Hour},
		{Kind: Trust, Prefix: pfx("192.0.2.0/24"), Timeout: time.Hour},
		{Kind: 77, Prefix: pfx("192.0.2.0/24"), Timeout: time.Hour},
	} {
		if err := fw.Apply([]Change{c}); !errors.Is(err, ErrChange) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestRemovingWhatIsMissingHarmsNothing(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	apply(t, fw, ban("192.0.2.3", time.Hour))
	apply(t, fw, unban("192.0.2.1"), ban("192.0.2.2", time.Hour), unban("192.0.2.3"), unban("10.0.0.0/8"),
		unban("2001:db8::/64"))
	holds(t, fw, Ban, "192.0.2.2", time.Hour)
	lacks(t, fw, Ban, "192.0.2.3")
	lacks(t, fw, Ban, "192.0.2.1")
}

func TestBansEndByThemselves(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	list := []string{"192.0.2.1", "192.0.2.0/24", "192.0.0.0/16", "2001:db8::/64"}
	for _, p := range list {
		apply(t, fw, ban(p, time.Second))
	}
	deadline := time.Now().Add(patience)
	for _, p := range list {
		for {
			_, ok, err := fw.LookUpPrefix(Ban, pfx(p))
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is still there", p)
			}
			time.Sleep(20 * time.Millisecond)
		}
		// And again, where the old one may not be swept out yet.
		apply(t, fw, ban(p, time.Hour))
		holds(t, fw, Ban, p, time.Hour)
	}
}

func TestFullSetRefusesOnlyWhatHasNoRoom(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	cfg.MaxElements = 100
	fw := ensured(t, cfg)
	var changes []Change
	for i := range 130 {
		changes = append(changes, ban(fmt.Sprintf("192.0.2.%d", i), time.Hour))
	}
	changes = append(changes, ban("2001:db8::/64", time.Hour), ban("10.0.0.0/8", time.Hour))
	err := fw.Apply(changes)
	var full *FullError
	if !errors.As(err, &full) || !errors.Is(err, ErrFull) || full.Set != "ban4" || len(full.Refused) != 30 {
		t.Fatalf("%v (%+v)", err, full)
	}
	holds(t, fw, Ban, "2001:db8::/64", time.Hour)
	holds(t, fw, Ban, "10.0.0.0/8", time.Hour)
	refused := make(map[netip.Prefix]bool)
	for _, p := range full.Refused {
		refused[p] = true
	}
	var in string
	for i := range 130 {
		p := fmt.Sprintf("192.0.2.%d", i)
		if refused[pfx(p)] {
			lacks(t, fw, Ban, p)
		} else {
			holds(t, fw, Ban, p, time.Hour)
			in = p
		}
	}
	// In a full set what is there can be extended and taken out, and taking out what is not there is no error.
	apply(t, fw, ban(in, 3*time.Hour))
	holds(t, fw, Ban, in, 3*time.Hour)
	apply(t, fw, unban("203.0.113.1"), unban(in))
	lacks(t, fw, Ban, in)
	apply(t, fw, ban("203.0.113.1", time.Hour))
	holds(t, fw, Ban, "203.0.113.1", time.Hour)
}

func TestHundredThousandBans(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	cfg.MaxElements = 1 << 18
	fw := ensured(t, cfg)
	changes := many(100_000, time.Hour)
	apply(t, fw, changes...)
	apply(t, fw, changes...) // all of them refreshed
	for i := 0; i < len(changes); i += 997 {
		holds(t, fw, Ban, changes[i].Prefix.String(), time.Hour)
	}
	for i := range changes {
		changes[i].Remove = true
	}
	apply(t, fw, changes[:99_990]...)
	got, err := fw.Elements(Ban)
	if err != nil || len(got) != 10 {
		t.Errorf("%d elements are left, want 10: %v", len(got), err)
	}
}

// many returns n bans, one in three of an IPv6 /64.
func many(n int, d time.Duration) []Change {
	c := make([]Change, n)
	for i := range c {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if i%3 == 0 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8),
				byte(i)}), 64)
		}
		c[i] = Change{Kind: Ban, Prefix: p, Timeout: d}
	}
	return c
}

func TestOlderTableIsMigratedWithItsElements(t *testing.T) {
	s := newSpace(t)
	s.command(t, `nft 'add table inet ringwall
add set inet ringwall allow4 { type ipv4_addr; flags interval; }
add set inet ringwall ban4 { type ipv4_addr; size 77; flags timeout; }
add set inet ringwall ban6_64 { type ipv6_addr; flags timeout; }
add set inet ringwall net4 { type ipv4_addr; flags interval,timeout; }
add element inet ringwall allow4 { 10.0.0.0/8, 192.168.0.0/16 }
add element inet ringwall ban4 { 192.0.2.1 timeout 1h }
add element inet ringwall ban6_64 { 2001:db8:: timeout 2h }
add element inet ringwall net4 { 198.18.0.0/15 timeout 3h }'`)
	fw := openTable(t, testConfig(s))
	ensure(t, fw, Migrated)
	holds(t, fw, Allow, "10.0.0.0/8", 0)
	holds(t, fw, Allow, "192.168.0.0/16", 0)
	holds(t, fw, Ban, "192.0.2.1", time.Hour)
	holds(t, fw, Ban, "2001:db8::/64", 2*time.Hour)
	holds(t, fw, Ban, "198.18.0.0/15", 3*time.Hour)
	cfg := testConfig(s)
	cfg.Priority = -150
	fw = openTable(t, cfg)
	ensure(t, fw, Migrated)
	holds(t, fw, Ban, "192.0.2.1", time.Hour)
}

func TestMeterSetsComeAndGoWithTheMeter(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	fw := ensured(t, cfg)
	apply(t, fw, Change{Kind: Trust, Prefix: pfx("192.0.2.1"), Timeout: time.Hour}) // nothing to do
	lacks(t, fw, Trust, "192.0.2.1")
	cfg.Meter = Meter{Enabled: true, Rate: 50, Burst: 100}
	fw = openTable(t, cfg)
	ensure(t, fw, Adopted)
	apply(t, fw, Change{Kind: Trust, Prefix: pfx("192.0.2.1"), Timeout: time.Hour})
	holds(t, fw, Trust, "192.0.2.1", time.Hour)
	fw = openTable(t, testConfig(s))
	ensure(t, fw, Adopted)
	if out := s.command(t, "nft list table inet ringwall"); strings.Contains(out, "meter") ||
		strings.Contains(out, "trust") {
		t.Error(out)
	}
}

func TestVerifySeesEachKindOfDamage(t *testing.T) {
	for _, damage := range []string{
		"flush ruleset", "flush table inet ringwall", "delete table inet ringwall",
		"flush chain inet ringwall prerouting",
		"insert rule inet ringwall prerouting accept", "delete chain inet ringwall prerouting",
		"flush ruleset; add table inet ringwall", "add table inet ringwall { flags dormant; }",
	} {
		t.Run(damage, func(t *testing.T) {
			s := newSpace(t)
			fw := ensured(t, testConfig(s))
			s.command(t, "nft '"+damage+"'")
			if err := fw.VerifyTable(); !errors.Is(err, ErrGone) {
				t.Fatalf("Verify: %v", err)
			}
			if _, err := fw.EnsureTable(); err != nil {
				t.Fatal(err)
			}
			if err := fw.VerifyTable(); err != nil {
				t.Fatal(err)
			}
			apply(t, fw, ban("192.0.2.1", time.Hour))
		})
	}
}

func TestApplyWithoutATableSaysSo(t *testing.T) {
	s := newSpace(t)
	fw := openTable(t, testConfig(s))
	if err := fw.Apply([]Change{ban("192.0.2.1", time.Hour)}); !errors.Is(err, ErrGone) {
		t.Errorf("before Ensure: %v", err)
	}
	if err := fw.VerifyTable(); !errors.Is(err, ErrGone) {
		t.Errorf("Verify before Ensure: %v", err)
	}
	ensure(t, fw, Created)
	s.command(t, "nft flush ruleset")
	for _, p := range []string{"192.0.2.1", "192.0.0.0/16"} {
		if err := fw.Apply([]Change{ban(p, time.Hour)}); !errors.Is(err, ErrGone) ||
			!strings.Contains(hint.Of(err), "built again") {
			t.Errorf("after a flush: %v", err)
		}
		if _, err := fw.EnsureTable(); err != nil {
			t.Fatal(err)
		}
		apply(t, fw, ban(p, time.Hour))
		s.command(t, "nft flush ruleset")
	}
	_ = fw.Close()
	if err := fw.Apply([]Change{ban("192.0.2.1", time.Hour)}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := fw.EnsureTable(); !errors.Is(err, ErrClosed) {
		t.Errorf("Ensure after Close: %v", err)
	}
}

func TestErrorsSayWhatToTry(t *testing.T) {
	for _, r := range []struct {
		errno syscall.Errno
		is    error
		says  string
	}{
		{syscall.EPERM, ErrPermission, "CAP_NET_ADMIN"},
		{syscall.ENOENT, ErrGone, "flush ruleset"},
		{syscall.ENFILE, ErrFull, "policy.limits.bans"},
		{syscall.EOPNOTSUPP, ErrUnsupported, "6.9"},
		{syscall.EPROTONOSUPPORT, ErrUnsupported, "modprobe nf_tables"},
		{syscall.ENOMEM, syscall.ENOMEM, "MemoryMax"},
		{syscall.EIO, syscall.EIO, "test"},
	} {
		err := explainErrno("test", fmt.Errorf("wrapped: %w", r.errno))
		if !errors.Is(err, r.is) || !errors.Is(err, r.errno) || !strings.Contains(hint.Line(err), r.says) {
			t.Errorf("%v: %v, try %q", r.errno, err, hint.Of(err))
		}
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for _, r := range []struct {
		cfg  Config
		says string
	}{
		{Config{Table: "ring wall"}, `"ring wall"`},
		{Config{Table: "9a"}, "a letter"},
		{Config{Table: "a\n"}, `"a\n"`},
		{Config{Table: strings.Repeat("a", 256)}, "255"},
		{Config{Priority: -401}, "-401"},
		{Config{Meter: Meter{Enabled: true}}, "rate of 0"},
		{Config{IPv6Prefix: 8}, "from 16"},
	} {
		if _, err := Open(r.cfg); err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%+v: %v", r.cfg, err)
		}
	}
}
