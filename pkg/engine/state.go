package engine

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// State is what should survive a restart: decisions and the memory behind them, not scores, which decay within an hour.
type State struct {
	Bans      []ban.Ban
	Offenders []ban.Offender
	Trusts    []ban.Trust
	Graces    []ban.Grace
}

// Export returns everything that should survive a restart.
func (e *Engine) Export(now time.Time) State {
	e.advanceTime(now)
	var s State
	for _, b := range e.sortedBans() {
		if !b.observed {
			s.Bans = append(s.Bans, e.describeBan(b, true))
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
func (e *Engine) Graces() []ban.Grace {
	var out []ban.Grace
	for _, p := range e.grace.Sorted() {
		if until := e.grace.At(p); until > e.now {
			out = append(out, ban.Grace{Prefix: p, Since: utcTime(e.now), Until: utcTime(until)})
		}
	}
	return out
}

// offenders returns the sources that were banned before and are still remembered.
func (e *Engine) offenders() []netip.Prefix {
	found := make(map[netip.Prefix]bool)
	for s := range e.sources.all {
		if s.bans > 0 && e.now-e.sources.detailsOf(s).lastBanEnd < int64(e.policy.Ban.Memory) {
			found[e.prefixOf(s.key)] = true
		}
	}
	return sortedKeys(found)
}

// BanOf returns the enforced ban of exactly this prefix, with its evidence.
func (e *Engine) BanOf(p netip.Prefix) (ban.Ban, bool) {
	b := e.bans[p]
	if b == nil || b.observed || b.until <= e.now {
		return ban.Ban{}, false
	}
	return e.describeBan(b, true), true
}

// describeBan is what others are told of a ban.
func (e *Engine) describeBan(b *activeBan, evidence bool) ban.Ban {
	d := ban.Ban{
		Prefix: b.prefix, Source: b.source, Reason: b.reason, Since: utcTime(b.since), Until: utcTime(b.until),
		Duration: time.Duration(b.until - b.since).Seconds(), Left: ban.Round(time.Duration(b.until - e.now).Seconds()),
		Score: ban.Round(float64(b.score)), Proven: b.proven, Observed: b.observed, Manual: b.manual, Number: b.number,
		Comment: b.comment, Attempts: b.attempts, Leak: b.leak.describe(), Scope: e.scopeOf(b), Closes: b.closes,
		DoorShut: e.doorShut(b), Origin: b.origin,
	}
	if !b.manual && b.reason != ban.ReasonAdopted && b.origin == "" {
		d.PBX = e.pbxName(b.pbx)
	}
	if evidence && len(b.evidence) > 0 {
		d.Evidence = make([]ban.Evidence, len(b.evidence))
		for i := range b.evidence {
			e.fillEvidence(&b.evidence[i], &d.Evidence[i])
		}
	}
	return d
}

// Offender returns how often the source that a prefix is was banned.
func (e *Engine) Offender(p netip.Prefix) (ban.Offender, bool) {
	k, ok := e.keyOfPrefix(p)
	s := e.sources.get(k)
	if !ok || s == nil || s.bans == 0 || e.now-e.sources.detailsOf(s).lastBanEnd >= int64(e.policy.Ban.Memory) {
		return ban.Offender{}, false
	}
	return ban.Offender{Prefix: p, Bans: int(s.bans), Last: utcTime(e.sources.detailsOf(s).lastBanEnd)}, true
}

// ExportTrusts returns all that is known of customers.
func (e *Engine) ExportTrusts(now time.Time) []ban.Trust {
	e.advanceTime(now)
	byPrefix := make(map[netip.Prefix]*trust, len(e.trusts))
	for k, t := range e.trusts {
		byPrefix[e.prefixOf(k)] = t
	}
	out := make([]ban.Trust, 0, len(byPrefix))
	for _, p := range sortedKeys(byPrefix) {
		out = append(out, e.describeTrust(byPrefix[p]))
	}
	return out
}

// TrustOf returns what is known of a customer.
func (e *Engine) TrustOf(p netip.Prefix) (ban.Trust, bool) {
	k, ok := e.keyOfPrefix(p)
	t := e.trusts[k]
	if !ok || t == nil {
		return ban.Trust{}, false
	}
	return e.describeTrust(t), true
}

func (e *Engine) describeTrust(t *trust) ban.Trust {
	until := t.until
	if t.revoked {
		until = min(until, t.lastLogin)
	}
	return ban.Trust{Prefix: e.prefixOf(t.key), Since: utcTime(t.since), Until: utcTime(until),
		Last: utcTime(t.lastLogin), Origin: t.origin, Accounts: t.accountNames()}
}

// Restore takes over what Export returned, before the first event. pbxs are the names of the Asterisks of now. What is
// over, allowed or protected by now is left out; of a ban that is there already the longer one stays, and of an
// offender who is there already, or twice, the larger number of bans and the later end.
func (e *Engine) Restore(now time.Time, s State, pbxs []string) {
	e.advanceTime(now)
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
		k, ok := e.keyOfPrefix(o.Prefix)
		if !ok || e.now-o.Last.UnixNano() >= int64(e.policy.Ban.Memory) {
			continue
		}
		if src := e.touchSource(k, e.sources.get(k)); src != nil {
			src.bans = max(src.bans, uint8(min(max(o.Bans, 0), math.MaxUint8)))
			details := e.sources.detailsOf(src)
			details.lastBanEnd = max(details.lastBanEnd, o.Last.UnixNano())
			e.classifySource(src)
		}
	}
	for _, t := range s.Trusts {
		e.restoreTrust(t, pbxs)
	}
	for _, g := range s.Graces {
		if until := g.Until.UnixNano(); until > e.now {
			e.grace.Set(g.Prefix, until)
			e.setTimer(until, g.Prefix, endOfGrace)
		}
	}
}

func (e *Engine) restoreTrust(t ban.Trust, pbxs []string) {
	k, ok := e.keyOfPrefix(t.Prefix)
	memory := t.Last.Add(e.policy.Storm.Memory).UnixNano()
	until := min(t.Until.UnixNano(), e.now+int64(e.policy.Trust.TTL)) // a shorter ttl than before counts
	if !ok || e.trusts[k] != nil || max(memory, until) <= e.now || len(e.trusts) >= e.policy.MaxSources {
		return
	}
	n := &trust{key: k, since: t.Since.UnixNano(), until: until, lastLogin: min(t.Last.UnixNano(), e.now),
		origin: t.Origin, accounts: make(map[uint64]string)}
	n.endReported = until <= e.now
	n.revoked = until <= n.lastLogin
	for _, name := range t.Accounts {
		for _, pbx := range pbxs {
			for _, service := range []event.Service{event.PJSIP, event.SIP} {
				if len(n.accounts) < accountsPerTrust && (service == event.PJSIP || e.enforces[service]) {
					id := e.hashAccount(e.hashText(name), service, e.pbxIndex(pbx))
					n.accounts[id] = name
					e.restorePlace(id, n)
				}
			}
		}
	}
	if limit := e.policy.Proxies.Accounts; limit > 0 && len(t.Accounts) >= manyFlows*limit {
		n.proxyUntil = n.lastLogin + int64(e.policy.Storm.Memory)
	}
	e.addTrust(n)
	if n.endReported {
		e.setTrustTimer(n, memory)
	} else {
		e.setTrustTimer(n, until)
	}
	if s := e.sources.get(k); s != nil {
		s.hasTrust = true
		e.classifySource(s)
	}
}

// restorePlace notes that an account was where a source is whose trust was stored.
func (e *Engine) restorePlace(id uint64, t *trust) {
	if a := e.accountOf(id); a != nil {
		here := e.placeFor(e.prefixOf(t.key).Addr())
		here.first, here.last = seconds(t.since), seconds(t.lastLogin)
		a.addPlace(here)
	}
}

func (e *Engine) restoreBan(b ban.Ban) {
	p, until := canonicalPrefix(b.Prefix), b.Until.UnixNano()
	if have := e.bans[p]; until <= e.now || e.isFullyExempt(p) || have != nil && have.until > until+int64(time.Second) {
		return
	} else if have != nil { // the kernel's own element says how long
		until = min(until, have.until)
	}
	n := &activeBan{
		prefix: p, source: b.Source, since: b.Since.UnixNano(), until: until, reason: b.Reason, score: float32(b.Score),
		proven: b.Proven, manual: b.Manual, number: b.Number, comment: b.Comment, attempts: b.Attempts,
		closes: b.Closes, origin: b.Origin,
	}
	if b.DoorShut {
		n.knocks = knocksAnswered
	}
	if b.PBX != "" {
		n.pbx = e.pbxIndex(b.PBX)
	}
	for _, ev := range b.Evidence[:min(len(b.Evidence), recordsPerBan, recordsOfAllBans-e.banRecords)] {
		n.evidence = append(n.evidence, e.recordOf(ev))
	}
	e.addBan(n)
	e.banRecords += len(n.evidence)
}

// recordOf is the inverse of fillEvidence, for evidence that was stored.
func (e *Engine) recordOf(v ban.Evidence) record {
	r := record{
		at: v.Time.UnixNano(), points: float32(v.Points), score: float32(v.Score), reason: reasonIndex(v.Reason),
		pbx: e.pbxIndex(v.PBX), proven: v.Proven, length: uint8(min(len(v.Account), nameBytes+1)),
		typ: event.TypeNamed(v.Event), service: event.ServiceNamed(v.Service),
		seenBy:    event.SensorNamed(v.SeenBy),
		transport: event.TransportNamed(v.Transport), multiplier: multiplierOf(&v),
	}
	copy(r.account[:], v.Account)
	for i, text := range noteTexts {
		if text == v.Note {
			r.note = note(i)
		}
	}
	return r
}
