package engine

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/security"
)

// State is what should survive a restart: decisions and the memory behind them, not scores, which decay within an hour.
type State struct {
	Bans      []BanState
	Offenders []OffenderState
	Trusts    []TrustState
	Graces    []GraceState
}

// BanState is an enforced ban.
type BanState struct {
	Prefix   netip.Prefix
	Source   netip.Addr // not valid where no single address was banned
	Since    time.Time
	Until    time.Time
	Reason   ban.Reason
	Score    float64
	Proven   bool
	Manual   bool
	Number   int
	Comment  string
	PBX      string
	Attempts int
	Evidence []Evidence // oldest first
}

// OffenderState is a source that was banned within ban.memory.
type OffenderState struct {
	Source netip.Prefix
	Bans   int
	Last   time.Time // end of the last ban
}

// TrustState is a source whose users logged in. Until is not after Last of a source that lost its trust.
type TrustState struct {
	Source   netip.Prefix
	Since    time.Time
	Until    time.Time
	Last     time.Time // login or registration
	Accounts []string
}

// GraceState is a prefix that a person unbanned for a time.
type GraceState struct {
	Prefix netip.Prefix
	Until  time.Time
}

// Export returns everything that should survive a restart.
func (e *Engine) Export(now time.Time) State {
	e.advance(now)
	var s State
	for _, b := range e.sortedBans() {
		if !b.observed {
			s.Bans = append(s.Bans, e.exportBan(b))
		}
		if o, ok := e.Offender(b.prefix); ok {
			s.Offenders = append(s.Offenders, o)
		}
	}
	for _, c := range e.offenders() {
		if o, ok := e.Offender(c); ok && e.bans[c] == nil {
			s.Offenders = append(s.Offenders, o)
		}
	}
	s.Trusts = e.ExportTrusts(now)
	s.Graces = e.Graces()
	return s
}

// Graces returns the prefixes that a person unbanned for a time.
func (e *Engine) Graces() []GraceState {
	var out []GraceState
	for _, p := range e.grace.sorted() {
		if until := e.grace.at(p); until > e.now {
			out = append(out, GraceState{Prefix: p, Until: stamp(until)})
		}
	}
	return out
}

// offenders returns the sources that were banned before and are still remembered.
func (e *Engine) offenders() []netip.Prefix {
	found := make(map[netip.Prefix]bool)
	for s := range e.sources.all {
		if s.bans > 0 && e.now-s.details().banEnd < int64(e.cfg.Ban.Memory) {
			found[e.prefixOf(s.key)] = true
		}
	}
	return sortedKeys(found)
}

// BanOf returns the enforced ban of exactly this prefix.
func (e *Engine) BanOf(p netip.Prefix) (BanState, bool) {
	var s BanState
	ok := e.CopyBan(p, &s)
	return s, ok
}

// CopyBan is BanOf into a BanState whose room for evidence is used again.
func (e *Engine) CopyBan(p netip.Prefix, s *BanState) bool {
	b := e.copied
	if b != nil {
		b = b.newer // bans are asked for in the order in which they were made
	}
	if b == nil || b.prefix != p {
		b = e.bans[p]
	}
	if b == nil || b.observed || b.until <= e.now {
		return false
	}
	e.copied = b
	e.copyBan(b, s)
	return true
}

func (e *Engine) exportBan(b *activeBan) (s BanState) {
	e.copyBan(b, &s)
	return s
}

func (e *Engine) copyBan(b *activeBan, s *BanState) {
	*s = BanState{
		Evidence: s.Evidence[:0], Prefix: b.prefix, Source: b.source, Since: stamp(b.since), Until: stamp(b.until), Reason: b.reason,
		Score: float64(b.score), Proven: b.proven, Manual: b.manual, Number: b.number, Comment: b.comment,
		Attempts: b.attempts,
	}
	if !b.manual && b.reason != ban.ReasonAdopted {
		s.PBX = e.pbxName(b.pbx)
	}
	s.Evidence = slices.Grow(s.Evidence, len(b.evidence))[:len(b.evidence)]
	for i := range b.evidence {
		e.fillEvidence(&b.evidence[i], &s.Evidence[i])
	}
}

// Offender returns how often the source that a prefix is was banned.
func (e *Engine) Offender(p netip.Prefix) (OffenderState, bool) {
	k, ok := e.keyOfPrefix(p)
	s := e.sources.get(k)
	if !ok || s == nil || s.bans == 0 || e.now-s.details().banEnd >= int64(e.cfg.Ban.Memory) {
		return OffenderState{}, false
	}
	return OffenderState{Source: p, Bans: int(s.bans), Last: stamp(s.details().banEnd)}, true
}

// ExportTrusts returns all that is known of customers.
func (e *Engine) ExportTrusts(now time.Time) []TrustState {
	e.advance(now)
	byPrefix := make(map[netip.Prefix]*trust, len(e.trusts))
	for k, t := range e.trusts {
		byPrefix[e.prefixOf(k)] = t
	}
	out := make([]TrustState, 0, len(byPrefix))
	for _, p := range sortedKeys(byPrefix) {
		out = append(out, e.exportTrust(byPrefix[p]))
	}
	return out
}

// TrustOf returns what is known of a customer.
func (e *Engine) TrustOf(p netip.Prefix) (TrustState, bool) {
	k, ok := e.keyOfPrefix(p)
	t := e.trusts[k]
	if !ok || t == nil {
		return TrustState{}, false
	}
	return e.exportTrust(t), true
}

func (e *Engine) exportTrust(t *trust) TrustState {
	until := t.until
	if t.revoked {
		until = min(until, t.last)
	}
	return TrustState{Source: e.prefixOf(t.key), Since: stamp(t.since), Until: stamp(until), Last: stamp(t.last), Accounts: t.accountNames()}
}

// Restore takes over what Export returned, before the first event. pbxs are the names of the Asterisks of now. What is
// over, allowed or protected by now is left out; of a ban that is there already the longer one stays, and of an offender
// who is there already, or twice, the larger number of bans and the later end.
func (e *Engine) Restore(now time.Time, s State, pbxs []string) {
	e.advance(now)
	for _, name := range pbxs {
		e.pbxIndex(name)
	}
	// Before the offenders, so that none who is banned makes room for another.
	order := make([]int32, len(s.Bans)) // the oldest first, for NewestBans
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return s.Bans[a].Since.Compare(s.Bans[b].Since) })
	for _, i := range order {
		e.restoreBan(s.Bans[i])
	}
	for _, o := range s.Offenders {
		k, ok := e.keyOfPrefix(o.Source)
		if !ok || e.now-o.Last.UnixNano() >= int64(e.cfg.Ban.Memory) {
			continue
		}
		if src := e.touchSource(k, e.sources.get(k)); src != nil {
			src.bans = max(src.bans, uint8(min(max(o.Bans, 0), math.MaxUint8)))
			more := src.details()
			more.banEnd = max(more.banEnd, o.Last.UnixNano())
			e.classify(src)
		}
	}
	for _, t := range s.Trusts {
		e.restoreTrust(t, pbxs)
	}
	for _, g := range s.Graces {
		if until := g.Until.UnixNano(); until > e.now {
			e.grace.set(g.Prefix, until)
			e.timers.set(until, g.Prefix, endOfGrace)
		}
	}
}

func (e *Engine) restoreTrust(t TrustState, pbxs []string) {
	k, ok := e.keyOfPrefix(t.Source)
	memory := t.Last.Add(e.cfg.Storm.Memory).UnixNano()
	until := min(t.Until.UnixNano(), e.now+int64(e.cfg.Trust.TTL)) // a shorter ttl than before counts
	if !ok || e.trusts[k] != nil || max(memory, until) <= e.now || len(e.trusts) >= e.cfg.MaxSources {
		return
	}
	n := &trust{key: k, since: t.Since.UnixNano(), until: until, last: min(t.Last.UnixNano(), e.now), accounts: make(map[uint64]string)}
	n.endReported = until <= e.now
	n.revoked = until <= n.last
	for _, name := range t.Accounts {
		for _, pbx := range pbxs {
			if len(n.accounts) < maxGood {
				n.accounts[e.accountID(e.text(name), security.PJSIP, e.pbxIndex(pbx))] = name
			}
		}
	}
	e.keepTrust(n)
	if n.endReported {
		e.setTimer(n, memory)
	} else {
		e.setTimer(n, until)
	}
	if s := e.sources.get(k); s != nil {
		s.known = true
		e.classify(s)
	}
}

func (e *Engine) restoreBan(b BanState) {
	p, until := canonicalPrefix(b.Prefix), b.Until.UnixNano()
	if have := e.bans[p]; until <= e.now || e.isFullyExempt(p) || have != nil && have.until > until+int64(time.Second) {
		return
	} else if have != nil { // the kernel's own element says how long
		until = min(until, have.until)
	}
	n := &activeBan{
		prefix: p, source: b.Source, since: b.Since.UnixNano(), until: until, reason: b.Reason, score: float32(b.Score),
		proven: b.Proven, manual: b.Manual, number: b.Number, comment: b.Comment, attempts: b.Attempts,
	}
	if b.PBX != "" {
		n.pbx = e.pbxIndex(b.PBX)
	}
	for _, ev := range b.Evidence[:min(len(b.Evidence), perBan, banBudget-e.kept)] {
		n.evidence = append(n.evidence, e.recordOf(ev))
	}
	e.putBan(n)
	e.kept += len(n.evidence)
}

// recordOf is the inverse of view, for evidence that was stored.
func (e *Engine) recordOf(v Evidence) record {
	r := record{
		at: v.Time.UnixNano(), points: float32(v.Points), score: float32(v.Score), reason: reasonIndex(v.Reason),
		pbx: e.pbxIndex(v.PBX), proven: v.Proven, length: uint8(min(len(v.Account), nameBytes+1)),
		typ: byName[security.Type](v.Event), service: byName[security.Service](v.Service),
		transport: byName[security.Transport](v.Transport), scaled: scaledOf(&v),
	}
	copy(r.account[:], v.Account)
	for i, text := range noteTexts {
		if text == v.Note {
			r.note = note(i)
		}
	}
	return r
}

// byName returns the value whose String is a name, or the zero value.
func byName[T interface {
	~uint8
	String() string
}](name string) T {
	for v := range T(32) {
		if v.String() == name {
			return v
		}
	}
	return 0
}
