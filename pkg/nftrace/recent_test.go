package nftrace

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// recentMatch is what iptables -m recent makes.
func recentMatch(flags byte, invert bool, seconds, hits uint32, name string) *expr.Match {
	b := make(xt.Unknown, 232)
	binary.NativeEndian.PutUint32(b, seconds)
	binary.NativeEndian.PutUint32(b[4:], hits)
	b[8] = flags
	if invert {
		b[9] = 1
	}
	copy(b[10:210], name)
	for i := range 16 {
		b[212+i] = 0xff
	}
	return &expr.Match{Name: "recent", Rev: 1, Info: &b}
}

// The kernel of these tests has 250 ticks a second, and saw .7 now, 10 s and 100 s ago, and .8 an hour ago.
func TestListsOfIptablesAreReadAsTheKernelReadsThem(t *testing.T) {
	const now = 1<<32 + 1_000_000
	lists := map[string]recentList{"BAD": parseRecent([]byte(
		"src=192.0.2.7 ttl: 64 last_seen: 4295967296 oldest_pkt: 3 4295942296, 4295964796, 4295967296\n" +
			"src=192.0.2.8 ttl: 0 last_seen: 4295067296 oldest_pkt: 1 4295067296\n" +
			"src=2001:db8::7 ttl: 0 last_seen: 4295067296 oldest_pkt: 1 4295067296\nnonsense\nsrc=x y\n")),
		"EMPTY": {}, "SECRET": nil}
	source := recentMatch(recentCheck, false, 0, 0, "BAD")
	(*source.Info.(*xt.Unknown))[210] = 1 // by destination
	half := recentMatch(recentCheck, false, 0, 0, "BAD")
	(*half.Info.(*xt.Unknown))[215] = 0 // --mask 255.255.255.0
	short := xt.Unknown("short")
	for name, row := range map[string]struct {
		source string
		match  *expr.Match
		want   answer
	}{
		"listed":                 {"192.0.2.7/32", recentMatch(recentCheck, false, 0, 0, "BAD"), yes},
		"listed, IPv6":           {"2001:db8::7/128", recentMatch(recentCheck, false, 0, 0, "BAD"), yes},
		"updated":                {"192.0.2.7/32", recentMatch(recentUpdate, false, 0, 0, "BAD"), yes},
		"not listed":             {"192.0.2.9/32", recentMatch(recentCheck, false, 0, 0, "BAD"), no},
		"! listed":               {"192.0.2.7/32", recentMatch(recentCheck, true, 0, 0, "BAD"), no},
		"! listed, is not":       {"192.0.2.9/32", recentMatch(recentCheck, true, 0, 0, "BAD"), yes},
		"within a minute":        {"192.0.2.7/32", recentMatch(recentCheck, false, 60, 0, "BAD"), yes},
		"twice in a minute":      {"192.0.2.7/32", recentMatch(recentCheck, false, 60, 2, "BAD"), yes},
		"thrice in a minute":     {"192.0.2.7/32", recentMatch(recentCheck, false, 60, 3, "BAD"), no},
		"thrice in two":          {"192.0.2.7/32", recentMatch(recentCheck, false, 120, 3, "BAD"), yes},
		"an hour ago":            {"192.0.2.8/32", recentMatch(recentCheck, false, 3601, 1, "BAD"), yes},
		"within less":            {"192.0.2.8/32", recentMatch(recentCheck, false, 3599, 1, "BAD"), no},
		"longer than it is up":   {"192.0.2.8/32", recentMatch(recentCheck, false, 1<<32-1, 1, "BAD"), yes},
		"put there":              {"192.0.2.9/32", recentMatch(recentSet, false, 0, 0, "BAD"), yes},
		"taken off":              {"192.0.2.7/32", recentMatch(recentRemove, false, 0, 0, "BAD"), yes},
		"taken off, is not":      {"192.0.2.9/32", recentMatch(recentRemove, false, 0, 0, "BAD"), no},
		"another list":           {"192.0.2.7/32", recentMatch(recentCheck, false, 0, 0, "EMPTY"), no},
		"a list nobody reads":    {"192.0.2.7/32", recentMatch(recentCheck, false, 0, 0, "SECRET"), perhaps},
		"another file":           {"192.0.2.7/32", recentMatch(recentCheck, false, 0, 0, "../BAD"), perhaps},
		"a time to live":         {"192.0.2.7/32", recentMatch(recentCheck|1<<4, false, 0, 0, "BAD"), perhaps},
		"by destination":         {"192.0.2.7/32", source, perhaps},
		"by network":             {"192.0.2.7/32", half, perhaps},
		"a network that asks":    {"192.0.2.0/24", recentMatch(recentCheck, false, 0, 0, "BAD"), perhaps},
		"another struct":         {"192.0.2.7/32", &expr.Match{Name: "recent", Rev: 2, Info: &short}, perhaps},
		"a struct that is short": {"192.0.2.7/32", &expr.Match{Name: "recent", Rev: 1, Info: &short}, perhaps},
	} {
		p := packet{ruleset: &ruleset{recentLists: lists, hz: 250, now: now}, source: netip.MustParsePrefix(row.source),
			to: sip[0]}
		if got := p.matchExtension(row.match); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

// What a rule before it does to a list counts, as it does in the kernel.
func TestARuleSeesWhatTheOneBeforeItPutIntoAList(t *testing.T) {
	p := packet{ruleset: &ruleset{recentLists: map[string]recentList{"L": {}}, hz: 250, now: 1 << 33},
		source: netip.MustParsePrefix("192.0.2.7/32"), to: sip[0]}
	for i, want := range []answer{no, yes} {
		if got := p.matchExtension(recentMatch(recentCheck, false, 60, 1, "L")); got != want {
			t.Errorf("look %d: %v, want %v", i, got, want)
		}
		p.matchExtension(recentMatch(recentSet, false, 0, 0, "L"))
	}
}

// A namespace of one's own has lists of its own, or none where the kernel has no xt_recent.
func TestListsAreThoseOfTheNamespace(t *testing.T) {
	ns := netnstest.New(t)
	r := ruleset{netns: ns.FD()}
	if list := r.recentListNamed("NONE"); list != nil {
		t.Errorf("a list that is not there is %v", list)
	}
	if hz := r.ticksPerSecond(); !slices.Contains([]uint64{100, 128, 250, 256, 300, 1000, 1024, 1200}, hz) {
		t.Errorf("%d ticks a second", hz)
	}
}
