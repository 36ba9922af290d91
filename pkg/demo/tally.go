package demo

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// tally counts what each participant sent and what arrived, and keeps what Ringwall decided. It is safe for
// concurrent use.
type tally struct {
	mu         sync.Mutex
	start      time.Time
	dry        bool
	rows       []*row
	byAddress  map[netip.Addr]*row
	unexpected []string // decisions that nobody should have made
	tampered   int
	recent     []ban.Decision // the latest, at most recentMax
	unreported []ban.Decision // not told yet, at most freshMax
	changed    chan struct{}  // closed and replaced with each decision
}

const (
	recentMax = 5
	freshMax  = 10000 // far more than there can be
	wrongMax  = 20
)

// row is one line of the table.
type row struct {
	participant
	seq         uint32 // of the packet sent last
	sent        int
	arrived     int
	leaked      int // packets sent after the kernel had the ban that arrived all the same
	first, last time.Time
	ban         *ban.Decision
	banned      uint32        // seq when the kernel had the ban
	reaction    time.Duration // from the arrival of the packet that was one too many to the ban in the kernel
	inKernel    bool          // looked up at the end
	trusted     bool
	spared      bool // reported as misconfigured
	reported    bool // its bytes were reported as tampering
	answered    bool // each of its phones had an answer after the attack
}

// stopped is the number of packets that did not arrive.
func (r *row) stopped() int { return r.sent - r.arrived }

// lastArrivalAfter is the time from the first packet to the last that arrived.
func (r *row) lastArrivalAfter() time.Duration {
	if r.arrived == 0 {
		return 0
	}
	return r.last.Sub(r.first)
}

func newTally(start time.Time, dry bool, cast []participant) *tally {
	l := &tally{start: start, dry: dry, byAddress: make(map[netip.Addr]*row), changed: make(chan struct{})}
	for _, p := range cast {
		r := &row{participant: p}
		l.rows = append(l.rows, r)
		for _, a := range p.sources {
			l.byAddress[a] = r
		}
	}
	return l
}

// countSent counts one more packet of a part, and returns its number.
func (l *tally) countSent(r *row) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.sent++
	r.seq++
	return r.seq
}

// countArrived counts a packet that arrived.
func (l *tally) countArrived(src netip.Addr, seq uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.byAddress[src]
	if r == nil {
		return
	}
	r.arrived++
	r.last = time.Now()
	if r.ban != nil && seq > r.banned && !l.dry {
		r.leaked++
	}
}

// recordDecision takes a decision, once the kernel has it.
func (l *tally) recordDecision(d ban.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent = append(l.recent, d)
	if len(l.recent) > recentMax {
		l.recent = slices.Delete(l.recent, 0, 1)
	}
	if len(l.unreported) < freshMax {
		l.unreported = append(l.unreported, d)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	if d.Action == ban.ActionTampering {
		l.tampered++
		for _, r := range l.rows {
			r.reported = r.reported || r.role == forger
		}
		return
	}
	known := false
	for _, r := range l.rows {
		if !r.coveredBy(d.Prefix) {
			continue
		}
		known = true
		switch d.Action {
		case ban.ActionBan, ban.ActionExtend:
			if r.role != attacker {
				l.addUnexpected(r.name + " was banned")
			}
			if r.ban == nil {
				r.ban, r.banned, r.reaction = &d, r.seq, time.Since(r.last)
			}
		case ban.ActionUnban:
			if r.role == attacker {
				l.addUnexpected("the ban of " + r.name + " ended")
			}
		case ban.ActionTrust:
			if r.role != customer {
				l.addUnexpected(r.name + " was trusted")
			}
			r.trusted = true
		case ban.ActionUntrust:
			if r.role == customer {
				l.addUnexpected(r.name + " is no longer trusted")
			}
		case ban.ActionMisconfigured:
			r.spared = true
		case ban.ActionLeak:
			l.addUnexpected("the ban of " + r.name + " did not keep it out")
		case ban.ActionBreach, ban.ActionTargeted, ban.ActionGuessing, ban.ActionNewPlace, ban.ActionObserve:
		}
	}
	if !known && (d.Action == ban.ActionBan || d.Action == ban.ActionTrust) {
		l.addUnexpected(string(d.Action) + " of " + d.Prefix.String() + ", which sent nothing")
	}
}

// addUnexpected wants l.mu.
func (l *tally) addUnexpected(what string) {
	if len(l.unexpected) < wrongMax && !slices.Contains(l.unexpected, what) {
		l.unexpected = append(l.unexpected, what)
	}
}

// waitUntil waits waitUntil a condition holds, which is asked again after each decision, and says whether it does.
func (l *tally) waitUntil(done <-chan struct{}, condition func() bool) bool {
	for {
		l.mu.Lock()
		ok, changed := condition(), l.changed
		l.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

// snapshot is a copy of the tally for the table and the summary.
type snapshot struct {
	start    time.Time
	elapsed  time.Duration
	dry      bool
	rows     []row
	recent   []ban.Decision
	wrong    []string
	tampered int
}

func (l *tally) snapshot(now time.Time) snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := snapshot{
		start: l.start, elapsed: now.Sub(l.start), dry: l.dry, recent: slices.Clone(l.recent),
		wrong:    slices.Clone(l.unexpected),
		tampered: l.tampered,
	}
	for _, r := range l.rows {
		s.rows = append(s.rows, *r)
	}
	return s
}

// newDecisions returns the decisions since the last call.
func (l *tally) newDecisions() []ban.Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.unreported
	l.unreported = nil
	return fresh
}

// update changes a row at the end.
func (l *tally) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}
