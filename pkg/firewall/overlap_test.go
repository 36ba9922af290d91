package firewall

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go4.org/netipx"

	"github.com/ringwall/ringwall/pkg/internal/property"
)

// drawNet draws a network of few addresses around 10.0.0.0, so that many nest.
func drawNet(t *property.T) netip.Prefix {
	bits := property.OneOf(t, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31)
	a := netip.AddrFrom4([4]byte{10, 0, byte(property.Int(t, 0, 7)), byte(property.Int(t, 0, 255))})
	return netip.PrefixFrom(a, bits).Masked()
}

// longest is the definition: an address is banned for as long as the longest of the networks around it.
func longest(asked map[netip.Prefix]time.Time, a netip.Addr, now time.Time) (until time.Time, banned bool) {
	for p, t := range asked {
		if p.Contains(a) && !isOver(t, now) && (!banned || lastsLonger(t, until)) {
			until, banned = t, true
		}
	}
	return until, banned
}

// edges returns the addresses at and next to every border.
func edges(asked map[netip.Prefix]time.Time) []netip.Addr {
	var list []netip.Addr
	for p := range asked {
		first, last := p.Addr(), netipx.PrefixLastIP(p)
		list = append(list, first, last, first.Prev(), last.Next())
	}
	return list
}

func drawEdits(t *property.T, now time.Time, asked map[netip.Prefix]time.Time) []edit {
	var edits []edit
	for range property.Count(t, 1, 4) {
		p := drawNet(t)
		if property.Bool(t) && len(asked) > 0 {
			var known []netip.Prefix
			for q := range asked {
				known = append(known, q)
			}
			sortPrefixes(known)
			p = property.OneOf(t, known...)
		}
		e := edit{prefix: p}
		if property.Int(t, 0, 3) == 0 {
			e.remove = true
			delete(asked, p)
		} else {
			e.until = now.Add(time.Duration(property.Int(t, 1, 12)) * time.Hour)
			asked[p] = e.until
		}
		edits = append(edits, e)
	}
	return edits
}

func sortPrefixes(ps []netip.Prefix) {
	for i := range ps {
		for j := i; j > 0 && compareEntries(entry{prefix: ps[j]}, entry{prefix: ps[j-1]}) < 0; j-- {
			ps[j], ps[j-1] = ps[j-1], ps[j]
		}
	}
}

// TestOverlapsMeanTheLongestBan runs the bookkeeping against a kernel of plain spans that refuses what the real one
// refuses, while time goes by.
func TestOverlapsMeanTheLongestBan(t *testing.T) {
	property.Check(t, func(t *property.T) {
		now := time.Unix(1_700_000_000, 0)
		asked := make(map[netip.Prefix]time.Time)
		kernel := make(map[netip.Addr]span)
		var r ranges
		for range property.Count(t, 1, 12) {
			now = now.Add(time.Duration(property.Int(t, 0, 5)) * time.Hour)
			for from, s := range kernel {
				if isOver(s.until, now) {
					delete(kernel, from)
				}
			}
			next, del, add := r.afterEdits(drawEdits(t, now, asked), now)
			for _, s := range del {
				if kernel[s.from] != s {
					t.Fatalf("ENOENT: %v is to be deleted, %v is there", s, kernel[s.from])
				}
				delete(kernel, s.from)
			}
			for _, s := range add {
				for _, k := range kernel {
					if k.from.Compare(s.to) <= 0 && s.from.Compare(k.to) <= 0 {
						t.Fatalf("EEXIST: %v meets %v", s, k)
					}
				}
				kernel[s.from] = s
			}
			r = next
			for _, later := range []time.Duration{0, 90 * time.Minute, 5*time.Hour + time.Minute} {
				for _, a := range edges(asked) {
					until, banned := longest(asked, a, now.Add(later))
					var got *span
					for _, s := range kernel {
						if s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0 && !isOver(s.until, now.Add(later)) {
							got = &s
						}
					}
					if banned != (got != nil) || banned && !got.until.Equal(until) {
						t.Fatalf("%s after %s: banned %v until %v, the kernel has %v", a, later, banned, until, got)
					}
				}
			}
		}
	})
}

// TestOverlapsInTheKernel does the same with the real one.
func TestOverlapsInTheKernel(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	property.Check(t, func(t *property.T) {
		if err := fw.DeleteTable(); err != nil {
			t.Fatal(err)
		}
		if _, err := fw.EnsureTable(); err != nil {
			t.Fatal(err)
		}
		asked := make(map[netip.Prefix]time.Time)
		for range property.Count(t, 1, 6) {
			now := time.Now()
			var changes []Change
			for _, e := range drawEdits(t, now, asked) {
				c := Change{Kind: Ban, Prefix: e.prefix, Remove: e.remove}
				if !e.remove {
					c.Timeout = e.until.Sub(now)
				}
				changes = append(changes, c)
			}
			if err := fw.Apply(changes); err != nil {
				t.Fatal(err)
			}
			if property.Int(t, 0, 4) == 0 {
				adoptKnown(t, fw, asked)
			}
			spans, err := fw.listSpans(fw.writeConn, net4)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range edges(asked) {
				until, banned := longest(asked, a, now)
				found := false
				for _, s := range spans {
					if s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0 {
						found = true
						if d := s.until.Sub(until).Abs(); banned && d > 10*time.Minute {
							t.Fatalf("%s ends %s off", a, d)
						}
					}
				}
				if found != banned {
					t.Fatalf("%s: banned %v, in the kernel %v: %v", a, banned, found, spans)
				}
			}
		}
	})
}

// adoptKnown lets EnsureTable load the set from the kernel, as a new process does, and says again what was asked for,
// as the Writer does.
func adoptKnown(t *property.T, fw *Table, asked map[netip.Prefix]time.Time) {
	if _, err := fw.EnsureTable(); err != nil {
		t.Fatal(err)
	}
	var again []Change
	for p, until := range asked {
		again = append(again, Change{Kind: Ban, Prefix: p, Timeout: time.Until(until)})
	}
	if err := fw.Apply(again); err != nil {
		t.Fatal(err)
	}
}

func TestSpansReachTheEndsOfTheAddressSpace(t *testing.T) {
	far := time.Now().Add(time.Hour)
	for _, r := range []struct {
		nets []string
		want string
	}{
		{[]string{"0.0.0.0/1", "128.0.0.0/1"}, "[0.0.0.0-127.255.255.255 128.0.0.0-255.255.255.255]"},
		{[]string{"255.255.255.0/25", "255.255.255.128/25"},
			"[255.255.255.0-255.255.255.127 255.255.255.128-255.255.255.255]"},
		{[]string{"ff00::/8"}, "[ff00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
	} {
		var edits []edit
		for _, n := range r.nets {
			edits = append(edits, edit{prefix: pfx(n), until: far})
		}
		_, _, add := ranges{}.afterEdits(edits, time.Now())
		var got []string
		for _, s := range add {
			got = append(got, fmt.Sprintf("%s-%s", s.from, s.to))
		}
		if fmt.Sprint(got) != r.want {
			t.Errorf("%v: %v, want %s", r.nets, got, r.want)
		}
	}
	// A longer ban at the very end of a wider one.
	_, _, add := ranges{}.afterEdits([]edit{{prefix: pfx("255.0.0.0/8"), until: far},
		{prefix: pfx("255.255.0.0/16"), until: far.Add(time.Hour)}}, time.Now())
	if len(add) != 2 || add[0].to.String() != "255.254.255.255" || add[1].to.String() != "255.255.255.255" {
		t.Errorf("%v", add)
	}
}

func TestRangesOfOthersBecomeTheFewestNetworks(t *testing.T) {
	for _, r := range []struct{ from, to, want string }{
		{"10.0.0.0", "10.0.0.255", "[10.0.0.0/24]"},
		{"10.0.0.1", "10.0.0.6", "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32]"},
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"255.255.255.254", "255.255.255.255", "[255.255.255.254/31]"},
	} {
		if got := fmt.Sprint(fewestPrefixes(netip.MustParseAddr(r.from), netip.MustParseAddr(r.to))); got != r.want {
			t.Errorf("%s-%s: %s, want %s", r.from, r.to, got, r.want)
		}
	}
}
