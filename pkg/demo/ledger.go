package demo

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// ledger counts what each part of the cast sent and what arrived, and keeps what Ringwall decided. It is safe for
// concurrent use.
type ledger struct {
	mu       sync.Mutex
	start    time.Time
	dry      bool
	rows     []*row
	of       map[netip.Addr]*row
	wrong    []string // decisions that nobody should have made
	tampered int
	recent   []ban.Decision // the latest, at most recentMax
	fresh    []ban.Decision // not told yet, at most freshMax
	changed  chan struct{}  // closed and replaced with each decision
}

const (
	recentMax = 5
	freshMax  = 10000 // far more than the cast can cause
	wrongMax  = 20
)

// row is one line of the table.
type row struct {
	part
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

// after is the time from the first packet to the last that arrived.
func (r *row) after() time.Duration {
	if r.arrived == 0 {
		return 0
	}
	return r.last.Sub(r.first)
}

func newLedger(start time.Time, dry bool, cast []part) *ledger {
	l := &ledger{start: start, dry: dry, of: make(map[netip.Addr]*row), changed: make(chan struct{})}
	for _, p := range cast {
		r := &row{part: p}
		l.rows = append(l.rows, r)
		for _, a := range p.sources {
			l.of[a] = r
		}
	}
	return l
}

// send counts one more packet of a part, and returns its number.
func (l *ledger) send(r *row) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.sent++
	r.seq++
	return r.seq
}

// arrive counts a packet that arrived.
func (l *ledger) arrive(src netip.Addr, seq uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of[src]
	if r == nil {
		return
	}
	r.arrived++
	r.last = time.Now()
	if r.ban != nil && seq > r.banned && !l.dry {
		r.leaked++
	}
}

// decide takes a decision, once the kernel has it.
func (l *ledger) decide(d ban.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent = append(l.recent, d)
	if len(l.recent) > recentMax {
		l.recent = slices.Delete(l.recent, 0, 1)
	}
	if len(l.fresh) < freshMax {
		l.fresh = append(l.fresh, d)
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
		if !r.in(d.Prefix) {
			continue
		}
		known = true
		switch d.Action {
		case ban.ActionBan, ban.ActionExtend:
			if r.role != attacker {
				l.complain(r.name + " was banned")
			}
			if r.ban == nil {
				r.ban, r.banned, r.reaction = &d, r.seq, time.Since(r.last)
			}
		case ban.ActionUnban:
			if r.role == attacker {
				l.complain("the ban of " + r.name + " ended")
			}
		case ban.ActionTrust:
			if r.role != customer {
				l.complain(r.name + " was trusted")
			}
			r.trusted = true
		case ban.ActionUntrust:
			if r.role == customer {
				l.complain(r.name + " is no longer trusted")
			}
		case ban.ActionMisconfigured:
			r.spared = true
		case ban.ActionLeak:
			l.complain("the ban of " + r.name + " did not keep it out")
		case ban.ActionBreach, ban.ActionTargeted, ban.ActionGuessing, ban.ActionObserve:
		}
	}
	if !known && (d.Action == ban.ActionBan || d.Action == ban.ActionTrust) {
		l.complain(string(d.Action) + " of " + d.Prefix.String() + ", which sent nothing")
	}
}

// complain wants l.mu.
func (l *ledger) complain(what string) {
	if len(l.wrong) < wrongMax && !slices.Contains(l.wrong, what) {
		l.wrong = append(l.wrong, what)
	}
}

// until waits until a condition holds, which is asked again after each decision, and says whether it does.
func (l *ledger) until(done <-chan struct{}, condition func() bool) bool {
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

// scene is a copy of the ledger for the table and the summary.
type scene struct {
	start    time.Time
	elapsed  time.Duration
	dry      bool
	rows     []row
	recent   []ban.Decision
	wrong    []string
	tampered int
}

func (l *ledger) scene(now time.Time) scene {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := scene{
		start: l.start, elapsed: now.Sub(l.start), dry: l.dry, recent: slices.Clone(l.recent), wrong: slices.Clone(l.wrong),
		tampered: l.tampered,
	}
	for _, r := range l.rows {
		s.rows = append(s.rows, *r)
	}
	return s
}

// news returns the decisions since the last call.
func (l *ledger) news() []ban.Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.fresh
	l.fresh = nil
	return fresh
}

// note changes a row at the end.
func (l *ledger) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}
