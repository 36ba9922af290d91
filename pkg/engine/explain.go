package engine

import (
	"fmt"
	"math"
	"net/netip"
	"time"
)

// maxEvidence is how many pieces of evidence an explanation holds.
const maxEvidence = 200

// Bans returns the active bans in order of their prefixes.
func (e *Engine) Bans(now time.Time) []BanView {
	e.advance(now)
	bans := e.sortedBans()
	out := make([]BanView, 0, len(bans))
	for _, b := range bans {
		out = append(out, e.viewBan(b, false))
	}
	return out
}

func (e *Engine) viewBan(b *ban, evidence bool) BanView {
	v := BanView{
		Prefix: b.prefix.String(), Reason: b.reason, Since: stamp(b.since), Until: stamp(b.until),
		Duration: time.Duration(b.until - b.since).Seconds(), Left: round(time.Duration(b.until - e.now).Seconds()),
		Score: round(float64(b.score)), Proven: b.proven, Observed: b.observed, Manual: b.manual, Number: b.number,
		Comment: b.comment, PBX: e.pbxName(b.pbx), Attempts: b.attempts, Accounts: []string{},
	}
	if b.manual || b.reason == Adopted {
		v.PBX = ""
	}
	seen := make(map[string]bool)
	for i := range b.evidence {
		r := &b.evidence[i]
		if name := r.name(); r.points > 0 && !seen[name] {
			seen[name] = true
			v.Accounts = append(v.Accounts, name)
		}
		if evidence {
			v.Evidence = append(v.Evidence, e.view(r))
		}
	}
	return v
}

// Trusted returns the trusted sources in order.
func (e *Engine) Trusted(now time.Time) []TrustView {
	e.advance(now)
	out := []TrustView{}
	for _, c := range e.TrustedSources(now) {
		k, _ := e.keyOfPrefix(c.Prefix)
		out = append(out, e.viewTrust(e.trusts[k]))
	}
	return out
}

func (e *Engine) viewTrust(t *trust) TrustView {
	v := TrustView{
		Prefix: e.prefixOf(t.key).String(), Since: stamp(t.since), Until: stamp(t.until),
		Left: round(time.Duration(t.until - e.now).Seconds()), Accounts: t.accounts(),
	}
	if s := e.sources.get(t.key); s != nil {
		s.decay(e.now, e)
		v.Score = round(float64(s.observed))
	}
	return v
}

// Allowed returns the allow list in order.
func (e *Engine) Allowed() []AllowView { return viewPrefixes(e.allow) }

// Protected returns what Asterisk knows as trunks and contacts.
func (e *Engine) Protected() []AllowView { return viewPrefixes(e.protected) }

func viewPrefixes(p *prefixes[[]origin]) []AllowView {
	out := []AllowView{}
	for _, prefix := range p.sorted() {
		for _, o := range p.entries[prefix] {
			out = append(out, AllowView{Prefix: prefix.String(), Origin: o.name, Note: o.note})
		}
	}
	return out
}

// Stats counts at now.
func (e *Engine) Stats(now time.Time) Stats {
	e.advance(now)
	s := Stats{Sources: e.sources.len(), Bans: e.enforced, Observed: len(e.bans) - e.enforced, Evicted: e.evicted,
		Limited: make(map[string]int, len(e.limited)), Suspended: e.suspended}
	for _, t := range e.trusts {
		if t.until > e.now {
			s.Trusted++
		}
	}
	for k, n := range e.limited {
		s.Limited[k] = n
	}
	return s
}

// Why explains what is known of an address, and what would change it.
func (e *Engine) Why(now time.Time, a netip.Addr) Explanation {
	e.advance(now)
	a = a.Unmap().WithZone("")
	k := e.keyOf(a)
	x := Explanation{
		Address: a.String(), Source: e.prefixOf(k).String(), Verdict: "unknown", Threshold: e.cfg.Threshold,
		HalfLife: e.cfg.HalfLife.Seconds(), Evidence: []Evidence{}, Lines: []string{},
	}
	say := func(format string, args ...any) { x.Lines = append(x.Lines, fmt.Sprintf(format, args...)) }
	s := e.sources.get(k)
	if s != nil {
		s.decay(e.now, e)
		x.Verdict = "suspicious"
		x.Score, x.Attempts, x.Bans = round(float64(s.observed)), int(s.attempts), int(s.bans)
		records, more := e.ring.chain(s, maxEvidence)
		for i := range records {
			x.Evidence = append(x.Evidence, e.view(&records[i]))
		}
		if more {
			x.Lost = max(1, x.Attempts-len(records))
		}
	}
	if t := e.trusted(k); t != nil {
		v := e.viewTrust(t)
		x.Trust, x.Verdict = &v, "trusted"
	}
	if b := e.covered(a); b != nil {
		v := e.viewBan(b, true)
		x.Ban, x.Verdict = &v, "banned"
		if b.observed {
			x.Verdict = "observed"
		}
		if len(x.Evidence) == 0 && v.Evidence != nil {
			x.Evidence = v.Evidence
		}
	}
	if p, ok := e.grace.containing(e.prefixOf(k)); ok && e.grace.entries[p] > e.now {
		at := stamp(e.grace.entries[p])
		x.Grace = &at
	}
	if p, ok := e.allow.covering(a); ok {
		o := e.allow.entries[p][0]
		x.Allow, x.Verdict = &AllowView{Prefix: p.String(), Origin: o.name, Note: o.note}, "allowed"
	}
	if p, ok := e.protected.covering(a); ok {
		o := e.protected.entries[p][0]
		x.Allow, x.Verdict = &AllowView{Prefix: p.String(), Origin: o.name, Note: o.note}, "protected"
	}
	e.arithmetic(&x, s, say)
	e.outlook(&x, a, s, say)
	return x
}

// arithmetic says how the score came about.
func (e *Engine) arithmetic(x *Explanation, s *source, say func(string, ...any)) {
	if s == nil || len(x.Evidence) == 0 {
		return
	}
	sum := 0.0
	for _, ev := range x.Evidence {
		sum += ev.Points
	}
	say("%d attempts; the evidence shown adds up to %.1f points, and %.1f are left now: every %v half of them decays",
		x.Attempts, sum, x.Score, e.cfg.HalfLife)
	if x.Lost > 0 {
		say("at least %d older pieces of evidence are no longer kept", x.Lost)
	}
}

// outlook says what would change the verdict.
func (e *Engine) outlook(x *Explanation, a netip.Addr, s *source, say func(string, ...any)) {
	switch x.Verdict {
	case "protected":
		say("never banned: Asterisk knows %s (%s)", x.Allow.Prefix, x.Allow.Note)
	case "allowed":
		say("never banned: %s is on the allow list (%s)", x.Allow.Prefix, x.Allow.Origin)
	case "banned", "observed":
		b := x.Ban
		if b.Observed {
			say("would be banned until %s, but this evidence is only observed: nothing is in the kernel", clock(b.Until))
		} else {
			say("the ban of %s ends by itself at %s; end it now with: ringwall unban %s", b.Prefix, clock(b.Until), b.Prefix)
		}
		if !b.Manual && b.Reason != Adopted && !b.Proven {
			say("the source could have been forged (UDP): such a ban lasts %v at most", e.cfg.Ban.ForgeableMax)
		}
		if !b.Manual && !b.Observed && b.Reason != Network && b.Reason != Adopted {
			say("a next ban would last %v", e.duration(b.Number, b.Proven))
		}
		if a.Is4() {
			say("to never ban it again: ringwall allow add %v", a)
		} else {
			say("to never ban it again: ringwall allow add %s", x.Source)
		}
	case "trusted":
		limit := e.cfg.Threshold * e.cfg.Trust.Tolerance
		say("trusted until %s: %d accounts logged in from there; failures are tolerated up to %g points or %d accounts",
			clock(x.Trust.Until), len(x.Trust.Accounts), limit, e.cfg.Trust.Accounts)
	case "suspicious":
		if left := e.cfg.Threshold - x.Score; left > 0 {
			say("not banned: %.1f points more within minutes would ban it for %v", left, e.duration(x.Bans, false))
		}
		if x.Score >= 0.1 {
			quiet := time.Duration(math.Log2(x.Score/0.1) * float64(e.cfg.HalfLife)).Round(time.Minute)
			say("forgiven after about %v without another attempt", quiet)
		}
		if s != nil && s.open > 0 {
			say("%d challenges wait up to %v for a login", s.open, e.cfg.Challenges.AnswerWithin)
		}
	case "unknown":
		say("nothing is known of %s: no event named it lately, and nothing bans it", x.Address)
	}
	if x.Grace != nil {
		say("a person unbanned it: not banned again before %s", clock(*x.Grace))
	}
	if e.stormy() {
		say("many known good sources fail at the moment: those are not banned")
	}
}

func clock(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }
