package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// NewestBans returns up to n of what Bans returns, the newest first, without a look at them all.
func (e *Engine) NewestBans(now time.Time, n int) []ban.Ban {
	e.advanceTime(now)
	out := make([]ban.Ban, 0, min(n, len(e.bans)))
	for b := e.newestBan; b != nil && len(out) < n; b = b.older {
		if b.until > e.now {
			out = append(out, e.viewBan(b, false))
		}
	}
	return out
}

// NewestTrusted returns up to n of what Trusted returns: those at which an account fails first, then the newest.
func (e *Engine) NewestTrusted(now time.Time, n int) []ban.Trust {
	e.advanceTime(now)
	order := func(a, b *trust) int {
		if fa, fb := len(a.failures) > 0, len(b.failures) > 0; fa != fb {
			if fa {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.since, a.since), slices.Compare(a.key[:], b.key[:]))
	}
	var best []*trust
	cut := func() {
		slices.SortFunc(best, order)
		best = best[:min(n, len(best))]
	}
	for _, t := range e.trusts {
		if t.until <= e.now {
			continue
		}
		if best = append(best, t); len(best) >= 4*n+64 {
			cut()
		}
	}
	cut()
	out := make([]ban.Trust, 0, len(best))
	for _, t := range best {
		out = append(out, e.viewTrust(t))
	}
	return out
}

// Bans returns the active bans in order of their prefixes.
func (e *Engine) Bans(now time.Time) []ban.Ban {
	e.advanceTime(now)
	bans := e.sortedBans()
	out := make([]ban.Ban, 0, len(bans))
	for _, b := range bans {
		out = append(out, e.viewBan(b, false))
	}
	return out
}

// viewBan is what is shown of a ban: the names that were tried, too.
func (e *Engine) viewBan(b *activeBan, evidence bool) ban.Ban {
	v := e.describeBan(b, evidence)
	v.Accounts = []string{}
	for i := range b.evidence {
		r := &b.evidence[i]
		if r.points <= 0 {
			continue
		}
		if name := r.accountName(); !slices.Contains(v.Accounts, name) {
			v.Accounts = append(v.Accounts, name)
		}
	}
	return v
}

// Trusted returns the trusted sources in order.
func (e *Engine) Trusted(now time.Time) []ban.Trust {
	e.advanceTime(now)
	out := []ban.Trust{}
	for _, c := range e.TrustedSources(now) {
		k, _ := e.keyOfPrefix(c.Prefix)
		out = append(out, e.viewTrust(e.trusts[k]))
	}
	return out
}

// viewTrust is what is shown of a trusted source: what is left of its trust, and its score, too.
func (e *Engine) viewTrust(t *trust) ban.Trust {
	v := e.describeTrust(t)
	v.Left = ban.Round(time.Duration(t.until - e.now).Seconds())
	if s := e.sources.get(t.key); s != nil {
		v.Score = ban.Round(float64(s.observedScore * e.decayFactor(e.now-s.lastSeen)))
	}
	return v
}

// Allowed returns the allow list in order.
func (e *Engine) Allowed() []ban.Exemption { return viewPrefixes(&e.allow) }

// Protected returns what Asterisk knows as trunks and contacts.
func (e *Engine) Protected() []ban.Exemption { return viewPrefixes(&e.protected) }

// viewPrefixes is what is shown of all prefixes, in order.
func viewPrefixes(p *table.Prefixes[[]origin]) []ban.Exemption {
	out := []ban.Exemption{}
	for _, prefix := range p.Sorted() {
		for _, o := range p.At(prefix) {
			out = append(out, viewOrigin(prefix, o))
		}
	}
	return out
}

// viewOrigin is what is shown of one origin of an exempt prefix.
func viewOrigin(p netip.Prefix, o origin) ban.Exemption {
	v := ban.Exemption{Prefix: p, Origin: o.name, Note: o.note}
	if o.until != 0 {
		at := utcTime(o.until)
		v.Until = &at
	}
	return v
}

// Stats counts at now.
func (e *Engine) Stats(now time.Time) Stats {
	e.advanceTime(now)
	s := Stats{
		Sources: e.sources.len(), Evicted: e.evictedSources,
		Bans: e.enforcedBans, FleetBans: e.fleetBans, Observed: len(e.bans) - e.enforcedBans,
		Limited: maps.Clone(e.hitLimits), Suspended: e.suspendedBans,
	}
	for kind, n := range e.bansOfKind {
		s.InForce = append(s.InForce, ScopeCount{V6: kind.v6, Scope: kind.scope, Count: n})
	}
	s.InForce = append(s.InForce,
		ScopeCount{Scope: ban.ScopeFlow, Count: e.laneCounts.cuts - e.laneCounts.cuts6},
		ScopeCount{V6: true, Scope: ban.ScopeFlow, Count: e.laneCounts.cuts6})
	s.GoodFlows, s.CutFlows = len(e.goodFlows), e.laneCounts.cuts
	s.SlowFlows, s.SlowSources, s.Trickles = e.laneCounts.slowFlows, e.laneCounts.slowSources, e.laneCounts.trickles
	if e.leftOut != 0 {
		at := utcTime(e.leftOut)
		s.LeftOut = &at
	}
	for k, t := range e.trusts {
		if t.until > e.now {
			s.Trusted++
		}
		if e.isUnnamedProxy(k, t) {
			s.Proxies++
		}
	}
	e.leakStats(&s)
	return s
}
