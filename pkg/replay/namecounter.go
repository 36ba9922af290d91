package replay

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// nameCounter counts names in bounded memory, after Misra and Gries ("Finding repeated elements", 1982): a name that
// came n times among N is counted between n-N/capacity and n times, and exactly while there are no more than capacity
// names.
type nameCounter struct {
	capacity int
	counts   map[string]int64
}

const (
	maxCountedNames = 1 << 13
	maxNameBytes    = 64
)

func (f *nameCounter) countName(name string) {
	if len(name) > maxNameBytes {
		name = shortenName(name, maxNameBytes-len("…"))
	}
	if _, ok := f.counts[name]; !ok {
		if len(f.counts) >= f.capacity {
			for other, n := range f.counts {
				if n == 1 {
					delete(f.counts, other)
				} else {
					f.counts[other] = n - 1
				}
			}
			return
		}
		name = strings.Clone(name)
	}
	f.counts[name]++
}

// mostFrequent returns the n most frequent, the most frequent first.
func (f *nameCounter) mostFrequent(n int) []AccountSummary {
	out := make([]AccountSummary, 0, len(f.counts))
	for name, n := range f.counts {
		out = append(out, AccountSummary{Account: name, Failures: n})
	}
	slices.SortFunc(out, func(a, b AccountSummary) int {
		return cmp.Or(cmp.Compare(b.Failures, a.Failures), cmp.Compare(a.Account, b.Account))
	})
	return out[:min(n, len(out))]
}

// shortenName shortens a name from the wire to n bytes and a mark, without cutting a character, and copies it.
func shortenName(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return strings.Clone(s)
}
