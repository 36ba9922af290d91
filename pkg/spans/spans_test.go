package spans_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/pkg/internal/property"
	"github.com/ringwall/ringwall/pkg/spans"
)

type entry struct {
	prefix netip.Prefix
	rank   int
}

func disjoint(entries []entry) (texts []string) {
	spans.Disjoint(entries, func(e entry) netip.Prefix { return e.prefix },
		func(inner, outer entry) bool { return inner.rank > outer.rank },
		func(from, to netip.Addr, of entry) { texts = append(texts, fmt.Sprintf("%v-%v %d", from, to, of.rank)) })
	return texts
}

func TestDisjoint(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		name    string
		entries []entry
		want    []string
	}{
		{"nothing", nil, nil},
		{"one", []entry{{p("192.0.2.0/24"), 1}}, []string{"192.0.2.0-192.0.2.255 1"}},
		{"one that outranks what it is in", []entry{{p("192.0.2.0/24"), 1}, {p("192.0.2.64/26"), 2}},
			[]string{"192.0.2.0-192.0.2.63 1", "192.0.2.64-192.0.2.127 2", "192.0.2.128-192.0.2.255 1"}},
		{"one that does not", []entry{{p("192.0.2.0/24"), 2}, {p("192.0.2.64/26"), 1}},
			[]string{"192.0.2.0-192.0.2.255 2"}},
		{"at both ends of all", []entry{{p("0.0.0.0/0"), 1}, {p("0.0.0.0/32"), 2}, {p("255.255.255.255/32"), 2}},
			[]string{"0.0.0.0-0.0.0.0 2", "0.0.0.1-255.255.255.254 1", "255.255.255.255-255.255.255.255 2"}},
	} {
		if got := disjoint(c.entries); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Each address has the entry that one finds who goes from the widest to the narrowest one that holds it.
func TestEachAddressHasItsEntry(t *testing.T) {
	property.Check(t, func(t *property.T) {
		var entries []entry
		for range property.Count(t, 0, 12) {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(property.Int(t, 0, 255))})
			p, _ := a.Prefix(property.Int(t, 24, 32))
			entries = append(entries, entry{p, property.Int(t, 0, 3)})
		}
		slices.SortFunc(entries, func(a, b entry) int { return a.prefix.Compare(b.prefix) })
		entries = slices.CompactFunc(entries, func(a, b entry) bool { return a.prefix == b.prefix })
		var want, got [256]int
		for i := range want {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			want[i] = -1
			for _, e := range entries {
				if e.prefix.Contains(a) && e.rank > want[i] {
					want[i] = e.rank
				}
			}
			got[i] = -1
		}
		next := 0
		spans.Disjoint(entries, func(e entry) netip.Prefix { return e.prefix },
			func(inner, outer entry) bool { return inner.rank > outer.rank },
			func(from, to netip.Addr, of entry) {
				first, last := int(from.As4()[3]), int(to.As4()[3])
				if first < next {
					t.Fatalf("%v overlaps what came before", from)
				}
				for next = first; next <= last; next++ {
					got[next] = of.rank
				}
			})
		if got != want {
			t.Fatalf("%v: %v, want %v", entries, got, want)
		}
	})
}
