package signature

import (
	"slices"
	"time"
)

// UnusedAfter is how long a line has met nobody before it is said to be of no use.
const UnusedAfter = 30 * 24 * time.Hour

type count struct {
	hits, customerHits uint64
	since, last        time.Time
}

// A Count is how often a line was met.
type Count struct {
	Line         string    `json:"line"` // as Match returns it
	File         string    `json:"file"` // or BuiltinName
	Number       int       `json:"number"`
	Hits         uint64    `json:"hits"`
	CustomerHits uint64    `json:"customer_hits,omitempty"` // of Hits, by a source that is trusted or known good
	Since        time.Time `json:"since"`                   // when it was loaded first
	Last         time.Time `json:"last,omitzero"`           // when it was met last
}

// Hit counts that a request fitted a line that Match has returned. A customer is a source that is trusted or known
// good: the line is then a wrong one. A line that is not in the list any more counts nothing.
func (l *List) Hit(line string, customer bool, now time.Time) {
	i, ok := l.byName[line]
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.counts[i]
	c.hits++
	if customer {
		c.customerHits++
	}
	if now.After(c.last) {
		c.last = now
	}
}

// Counts are those of all lines, in the order of the lists.
func (l *List) Counts() []Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make([]Count, len(l.marks))
	for i, m := range l.marks {
		c := l.counts[i]
		counts[i] = Count{m.name, m.file, m.line, c.hits, c.customerHits, c.since, c.last}
	}
	return counts
}

// Restore takes over what Counts said of the same lines, before a restart or a reload.
func (l *List) Restore(counts []Count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, before := range counts {
		i, ok := l.byName[before.Line]
		if !ok {
			continue
		}
		c := &l.counts[i]
		c.hits += before.Hits
		c.customerHits += before.CustomerHits
		if !before.Since.IsZero() && before.Since.Before(c.since) {
			c.since = before.Since
		}
		if before.Last.After(c.last) {
			c.last = before.Last
		}
	}
}

// Unused says whether a line is there for long and has met nobody in that time.
func (c Count) Unused(now time.Time) bool {
	from := c.Since
	if c.Last.After(from) {
		from = c.Last
	}
	return now.Sub(from) >= UnusedAfter
}

// Unused are the lines that have met nobody for UnusedAfter.
func (l *List) Unused(now time.Time) []Count {
	return slices.DeleteFunc(l.Counts(), func(c Count) bool { return !c.Unused(now) })
}

// CustomerLines are the lines that have met a customer, the worst ones first.
func (l *List) CustomerLines() []Count {
	lines := slices.DeleteFunc(l.Counts(), func(c Count) bool { return c.CustomerHits == 0 })
	slices.SortStableFunc(lines, func(a, b Count) int {
		switch {
		case a.CustomerHits > b.CustomerHits:
			return -1
		case a.CustomerHits < b.CustomerHits:
			return 1
		}
		return 0
	})
	return lines
}
