package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// dns is a DNS that knows one address, or is not there.
type dns struct{ addr atomic.Pointer[netip.Addr] }

func (d *dns) lookup(context.Context, string) ([]netip.Addr, error) {
	if a := d.addr.Load(); a != nil {
		return []netip.Addr{*a}, nil
	}
	return nil, &net.DNSError{Err: "network is unreachable", Name: "sip.example.net"}
}

func (d *dns) set(addr string) {
	a := netip.MustParseAddr(addr)
	d.addr.Store(&a)
}

// provider starts a daemon anew whose allow list is one host name.
func provider(t *testing.T, d *dns) *rig {
	r := newRig(t)
	r.stop()
	r.lookup = d.lookup
	r.cfg.Policy.Allow = []config.AllowEntry{{Host: "sip.example.net"}}
	return r
}

// entry is the note of the allow list's entry of a host name, and its prefix.
func (r *rig) entry(name string) (prefix, note string) {
	r.t.Helper()
	list, err := r.client.Allowed(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(v ban.Exemption) bool { return v.Origin == name })
	if i < 0 {
		r.t.Fatalf("%s is not on the list: %+v", name, list)
	}
	return humanize.Prefix(list[i].Prefix), list[i].Note
}

// After a reboot Ringwall starts before the network: the provider's name still stands for the address that it had.
func TestAnAllowedNameIsKnownAfterAReboot(t *testing.T) {
	t.Parallel()
	var d dns
	d.set("203.0.113.66")
	r := provider(t, &d)
	r.start()
	r.until("the name is resolved", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); return ok })
	r.stop()
	r.space = netnstest.New(t)
	d.addr.Store(nil)
	r.start()
	r.attack(attacker)
	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(ban.ActionBan, "203.0.113.67/32") // nobody waits for a name whose address is known
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Fatal("the allowed provider was banned after the reboot")
	}
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); !ok {
		t.Error("the provider is not in the kernel's allow set")
	}
	if prefix, note := r.entry("sip.example.net"); prefix != "203.0.113.66" || !strings.HasPrefix(note, "as of 20") {
		t.Errorf("list allow: %q, %q; want it said that the address is an old one", prefix, note)
	}
	r.until("status says so", func() bool { return r.warned("sip.example.net cannot be resolved; its addresses of 20") })
	d.set("203.0.113.99") // the provider has moved, and the network is there
	r.until("the new address is allowed", func() bool {
		_, ok := r.inKernel(firewall.Allow,
			"203.0.113.99/32")
		return ok
	})
	r.until("the old one is not", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); return !ok })
	if r.warned("sip.example.net") {
		t.Error("status still complains")
	}
}

// A name that has left the allow list since leaves the list of addresses, too.
func TestANameThatIsNotAllowedAnyMoreIsNotRemembered(t *testing.T) {
	var d dns
	d.set("203.0.113.66")
	r := provider(t, &d)
	r.start()
	r.until("the name is resolved", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); return ok })
	r.stop()
	r.cfg.Policy.Allow = nil
	r.start()
	r.protects()
}

// The very first start, before the network: until the provider is known, nobody is banned who may be it.
func TestNobodyIsBannedForgeablyWhileANameIsUnknown(t *testing.T) {
	var d dns
	r := provider(t, &d)
	r.start()
	r.attack(attacker)
	if got := r.await(ban.ActionObserve, "203.0.113.66/32"); got.Reason != ban.ReasonAllowed {
		t.Errorf("%+v", got)
	}
	r.attack("IPV4/TLS/203.0.113.70/5060") // TLS proves the source
	r.await(ban.ActionBan, "203.0.113.70/32")
	if prefix, note := r.entry("sip.example.net"); prefix != "" || !strings.Contains(note, "protects nobody") {
		t.Errorf("list allow: %q, %q", prefix, note)
	}
	if !r.warned("sip.example.net has no address, so it protects nobody; for ") {
		t.Error("status does not say it")
	}
	d.set("203.0.113.66")
	r.until("the name is resolved", func() bool { _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); return ok })
	r.until("bans are made again", func() bool { return !r.warned("sip.example.net") })
	r.attack("IPV4/UDP/203.0.113.71/5060")
	r.await(ban.ActionBan, "203.0.113.71/32")
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("the provider was banned")
	}
	r.until("its address is kept for the next start", func() bool {
		text, _ := os.ReadFile(besideState(r.cfg.State.Path, "addresses"))
		return strings.Contains(string(text), "sip.example.net ") && strings.Contains(string(text), " 203.0.113.66\n")
	})
}

// What is in the file, whoever wrote it there, does no harm.
func TestForeignTextAmongTheAddresses(t *testing.T) {
	var d dns
	r := provider(t, &d)
	text := "sip.example.net 2999-01-01T00:00:00Z x/y 203.0.113.300\n\x1b[31m\nsip.example.net\n-bad- " +
		"2026-01-01T00:00:00Z 203.0.113.5\n# end\n"
	if err := os.WriteFile(besideState(r.cfg.State.Path, "addresses"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if prefix, _ := r.entry("sip.example.net"); prefix != "" {
		t.Errorf("%q is allowed", prefix)
	}
	if err := errors.Join(r.d.allowSources.keptAddresses.err); err != nil {
		t.Error(err)
	}
}
