package daemon

import (
	"errors"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
)

func numbered(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{32, 0, byte(i >> 8), byte(i)}), 32)
}

// hurried is a daemon that had many bans, which begins anew without any patience: they come back while it works. The
// kernel has more bans than it knows.
func hurried(t *testing.T, many int, unknown ...string) *rig {
	t.Helper()
	r := newRig(t)
	for i := range many {
		r.d.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) []ban.Decision {
			out, err := e.Ban(now, numbered(i), time.Hour, "")
			if err != nil {
				t.Fatal(err)
			}
			return out
		})
	}
	r.until("all are in the kernel", func() bool { return r.d.writer.Pending() == 0 })
	r.stop()
	r.behind(func(table *firewall.Table) error {
		var more []firewall.Change
		for _, p := range unknown {
			more = append(more, firewall.Change{Kind: firewall.Ban, Prefix: netip.MustParsePrefix(p),
				Timeout: 2 * time.Hour})
		}
		return table.Apply(more)
	})
	r.patience = time.Nanosecond
	return r
}

// behind changes the table while the daemon is stopped.
func (r *rig) behind(change func(*firewall.Table) error) {
	r.t.Helper()
	table, err := firewall.Open(TableConfig(r.cfg, r.space.FD()))
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = table.EnsureTable()
	if err == nil {
		err = change(table)
	}
	if err = errors.Join(err, table.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// kernelBans lists the bans in the kernel, again and again until two lists are the same: one that is made while the
// kernel resizes its hash tables lacks some.
func (r *rig) kernelBans() map[netip.Prefix]firewall.Element {
	r.t.Helper()
	var m, before map[netip.Prefix]firewall.Element
	r.until("the kernel's list is the same twice", func() bool {
		list, err := r.d.fw.Elements(firewall.Ban)
		if err != nil {
			r.t.Fatal(err)
		}
		m, before = make(map[netip.Prefix]firewall.Element), m
		for _, e := range list {
			m[e.Prefix] = e
		}
		return before != nil && maps.EqualFunc(m, before,
			func(a, b firewall.Element) bool { return a.Prefix == b.Prefix })
	})
	return m
}

func (r *rig) restored() {
	r.t.Helper()
	r.until("the bans of before are compared", func() bool {
		select {
		case <-r.d.restorer.Done():
			return true
		default:
			return false
		}
	})
}

// With too many bans for a quick start, none is lost, none becomes permanent or longer, and what only the kernel knows
// is taken over; who attacks meanwhile is banned.
func TestBansOfBeforeComeBackWhileAttackersAreJudged(t *testing.T) {
	const many = 3000
	unknown := []string{"203.0.113.1/32", "198.51.100.0/24", "198.18.0.0/15", "2001:db8:bad::/64"}
	r := hurried(t, many, unknown...)
	r.start()
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.until("the new attacker is in the kernel", func() bool {
		_, ok, err := r.d.fw.LookUpPrefix(firewall.Ban, netip.MustParsePrefix("203.0.113.66/32"))
		return ok && err == nil
	})
	r.restored()
	r.until("all is in force", func() bool { return r.d.kernelError() == nil })
	bans, err := r.client.Bans(t.Context(), api.BanFilter{})
	if err != nil || len(bans) != many+len(unknown)+1 {
		t.Errorf("%d bans are known of %d, %v", len(bans), many+len(unknown)+1, err)
	}
	kernel := r.kernelBans()
	if len(kernel) != len(bans) {
		t.Errorf("%d bans are in the kernel of %d", len(kernel), len(bans))
	}
	for i := range many {
		if e := kernel[numbered(i)]; e.Remaining <= 0 || e.Remaining > time.Hour {
			t.Fatalf("%v: %+v", numbered(i), e)
		}
	}
	for _, p := range unknown {
		if e := kernel[netip.MustParsePrefix(p)]; e.Remaining <= time.Hour || e.Remaining > 2*time.Hour {
			t.Errorf("%v: %+v", p, e)
		}
	}
	// What only the kernel knew is in the file now.
	r.stop()
	r.behind(func(table *firewall.Table) error {
		bans, err := table.Elements(firewall.Ban)
		if err != nil {
			return err
		}
		var gone []firewall.Change
		for _, b := range bans {
			gone = append(gone, firewall.Change{Kind: firewall.Ban, Prefix: b.Prefix, Remove: true})
		}
		return table.Apply(gone)
	})
	r.start()
	r.restored()
	r.until("all is in force", func() bool { return r.d.kernelError() == nil })
	if kernel := r.kernelBans(); len(kernel) != len(bans) {
		t.Errorf("after a reboot %d bans are in the kernel of %d", len(kernel), len(bans))
	}
}

// Whom a person lets in while the bans of before come back stays in, also where only the kernel knew the ban.
func TestWhoIsLetInDuringTheStartStaysIn(t *testing.T) {
	t.Parallel()
	const many = 2000
	for name, req := range map[string]api.UnbanRequest{
		"one":                  {Prefix: numbered(700)},
		"one with a grace":     {Prefix: numbered(700), Grace: time.Hour},
		"a network":            {Prefix: netip.MustParsePrefix("32.0.2.0/24")},
		"one that is not ours": {Prefix: netip.MustParsePrefix("203.0.113.1/32")},
		"an IPv6 address":      {Prefix: netip.MustParsePrefix("2001:db8:bad::7/128")},
		"a network of unknown": {Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		"all":                  {All: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := hurried(t, many, "203.0.113.1/32", "203.0.113.2/32", "2001:db8:bad::/64")
			r.start()
			if _, err := r.client.Unban(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			r.restored()
			r.until("the kernel has all", func() bool { return r.d.writer.Pending() == 0 })
			kernel := r.kernelBans()
			for p := range kernel {
				if req.All || req.Prefix.Overlaps(p) {
					t.Errorf("%v is in the kernel", p)
				}
			}
			r.d.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
				for _, c := range e.EnforcedBans(now) {
					if _, ok := kernel[c.Prefix]; !ok || req.All || req.Prefix.Overlaps(c.Prefix) {
						t.Errorf("%v is banned, in the kernel: %v", c.Prefix, ok)
					}
				}
				if n := e.Stats(now).Bans; n != len(kernel) || !req.All && n < many-256 {
					t.Errorf("%d bans, %d in the kernel", n, len(kernel))
				}
			})
		})
	}
}

// In observe mode bans of before stay until they end, however many there are.
func TestObserveModeKeepsAllOfBefore(t *testing.T) {
	r := hurried(t, 2000, "203.0.113.1/32", "198.18.0.0/15")
	r.cfg.Policy.Mode = config.Observe
	r.start()
	r.restored()
	kernel := r.kernelBans()
	if bans, err := r.client.Bans(t.Context(), api.BanFilter{}); err != nil || len(bans) < 2000 ||
		len(bans) != len(kernel) {
		t.Errorf("%d bans, %d in the kernel, %v", len(bans), len(kernel), err)
	}
}
