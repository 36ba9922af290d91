package lists

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// reserved are addresses that no stranger on the Internet has (RFC 6890, RFC 5735, RFC 4291): private, loopback,
// link-local, multicast and the like. FireHOL's lists hold them.
var reserved = mustSet("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3", "::/8", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8")

func mustSet(prefixes ...string) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(netip.MustParsePrefix(p))
	}
	set, err := b.IPSet()
	if err != nil {
		panic(err)
	}
	return set
}

// Why is why an entry is left out.
type Why string

// Why entries are left out.
const (
	Reserved Why = "private"  // or another address that no stranger has
	TooWide  Why = "too wide" // a network wider than max_prefix
	Exempt   Why = "exempt"   // allowed, trusted, a trunk's, or this machine's own
)

// LeftOut counts entries of a list that are not used, and names some.
type LeftOut struct {
	Count  map[Why]int
	Sample []Omission // the first few of each reason
}

// Omission is one entry that is left out.
type Omission struct {
	Prefix netip.Prefix `json:"prefix"`
	Why    Why          `json:"why"`
	Of     string       `json:"of,omitempty"` // whose address it is
}

const maxSample = 8 // of each reason

func (l *LeftOut) add(e Entry, why Why, of string) {
	if l.Count == nil {
		l.Count = make(map[Why]int)
	}
	if l.Count[why]++; l.Count[why] <= maxSample {
		l.Sample = append(l.Sample, Omission{e.Prefix(), why, of})
	}
}

// Total is how many are left out.
func (l *LeftOut) Total() (n int) {
	for _, c := range l.Count {
		n += c
	}
	return n
}

// Clean takes out of a list's entries, in place, what no list may name, whoever wrote it. Networks of IPv4 have
// maxPrefix bits at least, those of IPv6 twice as many.
func Clean(entries []Entry, maxPrefix int) ([]Entry, LeftOut) {
	var left LeftOut
	kept := entries[:0]
	for _, e := range entries {
		least := maxPrefix
		if e.v6 {
			least = min(128, 2*maxPrefix)
		}
		switch {
		case int(e.bits) < least && !reserved.ContainsPrefix(e.Prefix()):
			left.add(e, TooWide, "")
		case isReserved(e):
			left.add(e, Reserved, "")
		default:
			kept = append(kept, e)
		}
	}
	return kept, left
}

// isReserved reports whether anything of an entry is reserved.
func isReserved(e Entry) bool {
	if !e.v6 && e.low>>24 != 0 && e.low>>24 < 224 { // most are none
		switch e.low >> 24 {
		case 10, 100, 127, 169, 172, 192:
		default:
			return false
		}
	}
	return reserved.OverlapsPrefix(e.Prefix())
}

// ErrHeld is a list that changed by more than a list does.
type ErrHeld struct {
	Before, After int
}

func (e *ErrHeld) Error() string {
	switch {
	case e.After == 0:
		return fmt.Sprintf("the list is empty and had %d entries, so it is held back", e.Before)
	case e.After < e.Before:
		return fmt.Sprintf("the list shrank from %d entries to %d, so it is held back", e.Before, e.After)
	}
	return fmt.Sprintf("the list grew from %d entries to %d, so it is held back", e.Before, e.After)
}

// Hint says what to try.
func (e *ErrHeld) Hint() string {
	return "the one before stays in force; where the new one is right: ringwall lists refresh NAME --accept"
}

// maxFactor is by how much a list may grow or shrink from one time to the next; fewSize is what is too few to tell.
const (
	maxFactor = 2
	fewSize   = 20
)

// Accept compares the number of entries with that of the last good list, 0 for none.
func Accept(before, after int) error {
	if before == 0 || after > 0 && max(before, after) < fewSize {
		return nil
	}
	if after*maxFactor <= before || after >= before*maxFactor {
		return &ErrHeld{before, after}
	}
	return nil
}

// Exemption is a prefix that a list must not touch, and whose it is.
type Exemption struct {
	Prefix netip.Prefix
	Of     string
}

// exemptions finds those that overlap an entry.
type exemptions struct {
	ranges []exemptRange // by address, the wider first
}

type exemptRange struct {
	from, to netip.Addr
	latest   netip.Addr // the last address of this and all before it, of the same family
	of       string
}

func newExemptions(list []Exemption) *exemptions {
	x := &exemptions{}
	for _, e := range list {
		if p := e.Prefix.Masked(); p.IsValid() {
			x.ranges = append(x.ranges, exemptRange{from: p.Addr(), to: netipx.PrefixLastIP(p), of: e.Of})
		}
	}
	slices.SortFunc(x.ranges, func(a, b exemptRange) int { return cmp.Or(a.from.Compare(b.from), b.to.Compare(a.to)) })
	for i := range x.ranges {
		r := &x.ranges[i]
		r.latest = r.to
		if i > 0 && x.ranges[i-1].latest.BitLen() == r.to.BitLen() && r.to.Less(x.ranges[i-1].latest) {
			r.latest = x.ranges[i-1].latest
		}
	}
	return x
}

// overlapping returns whose exemption overlaps a prefix.
func (x *exemptions) overlapping(p netip.Prefix) (of string, ok bool) {
	from, to := p.Addr(), netipx.PrefixLastIP(p)
	// Those that begin behind the prefix do not count; of those before it the last that reaches into it.
	n, _ := slices.BinarySearchFunc(x.ranges, to, func(r exemptRange, a netip.Addr) int {
		if r.from.Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	for i := n - 1; i >= 0; i-- {
		r := x.ranges[i]
		if r.from.BitLen() != from.BitLen() || r.latest.Less(from) {
			return "", false
		}
		if !r.to.Less(from) {
			return r.of, true
		}
	}
	return "", false
}

// With is what two parts of a list had to leave out.
func (l *LeftOut) With(o LeftOut) LeftOut {
	sum := LeftOut{Count: make(map[Why]int), Sample: slices.Clone(l.Sample)}
	for why, n := range l.Count {
		sum.Count[why] += n
	}
	for why, n := range o.Count {
		sum.Count[why] += n
	}
	for _, s := range o.Sample {
		if len(sum.Sample) < maxSample && !slices.Contains(sum.Sample, s) {
			sum.Sample = append(sum.Sample, s)
		}
	}
	return sum
}
