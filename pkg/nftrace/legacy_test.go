package nftrace

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/nftables"
)

// legacyRecord is a table as the kernel returned it.
type legacyRecord struct {
	Name    string
	Hooks   map[uint32][2]int // where its rules begin, and its policy
	Entries []byte
}

// recordedLegacy are the tables of the rules of testdata/legacy.sh.
func recordedLegacy(t *testing.T) map[string][]legacyRecord {
	t.Helper()
	text, err := os.ReadFile("testdata/legacy.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]legacyRecord
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// dropsOfLegacy is FindDrops with recorded tables alone, and a list of xt_recent.
func dropsOfLegacy(all map[string][]legacyRecord, q Question) []Drop {
	r := &ruleset{rules: make(map[chainKey][]*nftables.Rule), sets: make(map[chainKey]*nftables.Set), hz: 250, now: 1 << 33,
		recentLists: map[string]recentList{"BAD": {netip.MustParseAddr("192.0.2.8"): {1}}}}
	var chains []*nftables.Chain
	for _, layout := range legacyLayouts {
		for _, x := range all[familyName(layout.family)] {
			hooks := make(map[uint32]legacyHook)
			for hook, at := range x.Hooks {
				hooks[hook] = legacyHook{at[0], at[1]}
			}
			chains = append(chains, r.addLegacyTable(layout, legacyTable{x.Name, hooks, x.Entries})...)
		}
	}
	return r.findDrops(q, chains)
}

// Tests of deploy/boot ask the kernel.
func TestRulesOfIptablesLegacyAreFollowed(t *testing.T) {
	all := recordedLegacy(t)
	const input, input6 = "iptables-legacy filter INPUT", "ip6tables-legacy filter INPUT"
	for name, row := range map[string]struct {
		source, chain, rules, list string
		forward                    bool
	}{
		"a drop":                      {"192.0.2.1/32", input, input, "", false},
		"one port is open":            {source: "192.0.2.2/32"},
		"a chain":                     {"192.0.2.3/32", input, "iptables-legacy filter bad", "", false},
		"goto, and the policy":        {"192.0.2.4/32", input, input, "", false},
		"a return":                    {source: "192.0.2.5/32"},
		"a limit":                     {source: "192.0.2.6/32"},
		"interfaces of a name":        {source: "192.0.2.7/32"},
		"a list":                      {"192.0.2.8/32", input, input, "BAD", false},
		"a destination":               {"192.0.2.9/32", input, input, "", false},
		"fragments":                   {source: "192.0.2.10/32"},
		"another protocol":            {"192.0.2.11/32", input, input, "", false},
		"a queue":                     {source: "192.0.2.12/32"},
		"no target":                   {source: "192.0.2.13/32"},
		"a log before":                {"192.0.2.14/32", input, input, "", false},
		"a network":                   {"192.0.2.128/26", input, input, "", false},
		"a part of a network":         {source: "192.0.2.96/27"},
		"others":                      {"198.51.100.7/32", input, input, "", false},
		"before all":                  {"203.0.113.7/32", "iptables-legacy raw PREROUTING", "iptables-legacy raw PREROUTING", "", false},
		"to another machine":          {source: "192.0.2.1/32", forward: true},
		"to another one, before all":  {"203.0.113.7/32", "iptables-legacy raw PREROUTING", "iptables-legacy raw PREROUTING", "", true},
		"IPv6":                        {"2001:db8:1:7::/64", input6, input6, "", false},
		"IPv6, from lo":               {source: "2001:db8:2::1/128"},
		"IPv6, both protocols":        {"2001:db8:3::1/128", input6, input6, "", false},
		"IPv6, to many":               {source: "2001:db8:4::1/128"},
		"IPv6, of which nobody spoke": {source: "2001:db8:5::1/128"},
	} {
		t.Run(name, func(t *testing.T) {
			q := Question{Sources: prefixes(row.source), Ports: sip, Forward: row.forward}
			var want []Drop
			if row.chain != "" {
				want = []Drop{{q.Sources[0], row.chain, row.rules, row.list}}
			}
			if got := dropsOfLegacy(all, q); !slices.Equal(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// A kernel that has other structs one day says nothing that can be read, and ends nobody.
func TestATableOfIptablesLegacyThatIsDamaged(t *testing.T) {
	all := recordedLegacy(t)
	q := Question{Sources: prefixes("192.0.2.3/32", "2001:db8:3::1/128"), Ports: sip}
	filter := &all["iptables-legacy"][slices.IndexFunc(all["iptables-legacy"], func(x legacyRecord) bool {
		return x.Name == "filter"
	})]
	whole := filter.Entries
	for n := range len(whole) {
		filter.Entries = whole[:n]
		dropsOfLegacy(all, q)
	}
	filter.Entries = whole[:len(whole)-1]
	if got := dropsOfLegacy(all, q); len(got) != 1 || got[0].Source != q.Sources[1] {
		t.Errorf("of a table without its last byte: %+v", got)
	}
	chance := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		filter.Entries = slices.Clone(whole)
		for range 1 + chance.IntN(4) {
			filter.Entries[chance.IntN(len(whole))] = byte(chance.Uint32())
		}
		dropsOfLegacy(all, q)
	}
}
