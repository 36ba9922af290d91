package demo

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// tally counts what each participant sent and what arrived, and keeps what Ringwall decided. It is safe for
// concurrent use.
type tally struct {
	mu         sync.Mutex
	start      time.Time
	dry        bool
	rows       []*participantRow
	byAddress  map[netip.Addr]*participantRow
	unexpected []string // decisions that nobody should have made
	tampered   int
	recent     []ban.Decision // the latest, at most recentMax
	unreported []ban.Decision // not told yet, at most freshMax
	changed    chan struct{}  // closed and replaced with each decision
}

const (
	maxRecent     = 5
	maxUnreported = 10000 // far more than there can be
	maxUnexpected = 20
)

// participantRow is one line of the table.
type participantRow struct {
	participant
	seq               uint32 // of the packet sent last
	sent              int
	arrived           int
	arrivedAfterBan   int // packets sent after the kernel had the ban that arrived all the same
	first, last       time.Time
	ban               *ban.Decision
	seqAtBan          uint32        // seq when the kernel had the ban
	reaction          time.Duration // from the arrival of the packet that was one too many to the ban in the kernel
	inKernel          bool          // looked up at the end
	trusted           bool
	misconfigured     bool // reported as misconfigured
	tamperingReported bool // its bytes were reported as tampering
	answered          bool // each of its phones had an answer after the attack
}

// leaked is how many packets arrived after the ban that it should have stopped. One that rests on UDP, where a
// customer's address could have been forged, lets a few through until they, too, were heard attacking.
func (r *participantRow) leaked() int {
	if r.ban == nil || r.ban.Closes != ban.ClosesUDP {
		return r.arrivedAfterBan
	}
	return max(0, r.arrivedAfterBan-firewall.KnockBurst)
}

// stopped is the number of packets that did not arrive.
func (r *participantRow) stopped() int { return r.sent - r.arrived }

// lastArrivalAfter is the time from the first packet to the last that arrived.
func (r *participantRow) lastArrivalAfter() time.Duration {
	if r.arrived == 0 {
		return 0
	}
	return r.last.Sub(r.first)
}

func newTally(start time.Time, dry bool, participants []participant) *tally {
	t := &tally{start: start, dry: dry, byAddress: make(map[netip.Addr]*participantRow), changed: make(chan struct{})}
	for _, p := range participants {
		r := &participantRow{participant: p}
		t.rows = append(t.rows, r)
		for _, a := range p.sources {
			t.byAddress[a] = r
		}
	}
	return t
}

// countSent counts one more packet of a participant, and returns its number.
func (t *tally) countSent(r *participantRow) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.sent++
	r.seq++
	return r.seq
}

// countArrived counts a packet that arrived.
func (t *tally) countArrived(src netip.Addr, seq uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.byAddress[src]
	if r == nil {
		return
	}
	r.arrived++
	r.last = time.Now()
	if r.ban != nil && seq > r.seqAtBan && !t.dry {
		r.arrivedAfterBan++
	}
}

// recordDecision takes a decision, once the kernel has it.
func (t *tally) recordDecision(d ban.Decision) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recent = append(t.recent, d)
	if len(t.recent) > maxRecent {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	if len(t.unreported) < maxUnreported {
		t.unreported = append(t.unreported, d)
	}
	close(t.changed)
	t.changed = make(chan struct{})
	if d.Action == ban.ActionTampering {
		t.tampered++
		for _, r := range t.rows {
			r.tamperingReported = r.tamperingReported || r.role == forger
		}
		return
	}
	known := false
	for _, r := range t.rows {
		if !r.coveredBy(d.Prefix) {
			continue
		}
		known = true
		switch d.Action {
		case ban.ActionBan, ban.ActionExtend:
			if r.role != attacker {
				t.addUnexpectedLocked(r.name + " was banned")
			}
			if r.ban == nil {
				r.ban, r.seqAtBan, r.reaction = &d, r.seq, time.Since(r.last)
			}
		case ban.ActionUnban:
			if r.role == attacker {
				t.addUnexpectedLocked("the ban of " + r.name + " ended")
			}
		case ban.ActionTrust:
			if r.role != customer {
				t.addUnexpectedLocked(r.name + " was trusted")
			}
			r.trusted = true
		case ban.ActionUntrust:
			if r.role == customer {
				t.addUnexpectedLocked(r.name + " is no longer trusted")
			}
		case ban.ActionMisconfigured:
			r.misconfigured = true
		case ban.ActionLeak:
			t.addUnexpectedLocked("the ban of " + r.name + " did not keep it out")
		case ban.ActionBreach, ban.ActionTargeted, ban.ActionGuessing, ban.ActionNewPlace, ban.ActionCut,
			ban.ActionBlind,
			ban.ActionProxy,
			ban.ActionObserve, ban.ActionReview:
		}
	}
	if !known && (d.Action == ban.ActionBan || d.Action == ban.ActionTrust) {
		t.addUnexpectedLocked(string(d.Action) + " of " + d.Prefix.String() + ", which sent nothing")
	}
}

// addUnexpectedLocked notes, once, that something happened that should not have.
func (t *tally) addUnexpectedLocked(what string) {
	if len(t.unexpected) < maxUnexpected && !slices.Contains(t.unexpected, what) {
		t.unexpected = append(t.unexpected, what)
	}
}

// waitUntil waits until a condition holds, which is asked again after each decision, and says whether it does.
func (t *tally) waitUntil(done <-chan struct{}, condition func() bool) bool {
	for {
		t.mu.Lock()
		ok, changed := condition(), t.changed
		t.mu.Unlock()
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
	start      time.Time
	elapsed    time.Duration
	dry        bool
	rows       []participantRow
	recent     []ban.Decision
	unexpected []string
	tampered   int
}

func (t *tally) takeSnapshot(now time.Time) snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := snapshot{
		start: t.start, elapsed: now.Sub(t.start), dry: t.dry, recent: slices.Clone(t.recent),
		unexpected: slices.Clone(t.unexpected),
		tampered:   t.tampered,
	}
	for _, r := range t.rows {
		s.rows = append(s.rows, *r)
	}
	return s
}

// newDecisions returns the decisions since the last call.
func (t *tally) newDecisions() []ban.Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := t.unreported
	t.unreported = nil
	return fresh
}

// updateRow calls f, which changes a row, with the lock held.
func (t *tally) updateRow(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}
