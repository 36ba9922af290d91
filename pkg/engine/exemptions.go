package engine

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// The origins of allowed prefixes, besides the host names that they were resolved from.
const (
	originConfig = "config"
	OriginManual = "manual" // ringwall allow add
	OriginHost   = "host"   // this machine's own addresses, its gateways, loopback and link-local
)

// origin says by what a prefix is allowed or protected. One prefix may have several.
type origin struct {
	name  string // of what is allowed one of the above or a host name, of what is protected the Asterisk that knows it
	note  string // of a person, or what Asterisk knows it as
	until int64  // ns; 0: until it is taken off
}

// addOrigin adds an origin to a prefix, and reports whether the prefix is new.
func addOrigin(p *table.Prefixes[[]origin], prefix netip.Prefix, o origin) bool {
	have, old := p.Get(prefix)
	if i := slices.IndexFunc(have, func(h origin) bool { return h.name == o.name }); i >= 0 {
		have[i] = o
		return false
	}
	p.Set(prefix, append(have, o))
	return !old
}

// longestOrigin is the origin that exempts a prefix the longest; there must be one.
func longestOrigin(list []origin) origin {
	best := list[0]
	for _, o := range list[1:] {
		if best.until != 0 && (o.until == 0 || o.until > best.until) {
			best = o
		}
	}
	return best
}

// removeOrigin takes an origin off a prefix, or all of them where name is empty, and reports whether the prefix is
// gone.
func removeOrigin(p *table.Prefixes[[]origin], prefix netip.Prefix, name string) bool {
	have, ok := p.Get(prefix)
	if !ok {
		return false
	}
	left := slices.DeleteFunc(have, func(o origin) bool { return name == "" || o.name == name })
	if len(left) > 0 {
		p.Set(prefix, left)
		return false
	}
	p.Delete(prefix)
	return true
}

// bansWithinExemption returns the bans that an exemption of a prefix ends: those within it, and that of the IPv6 source
// which it is part of. A wider ban stays for the others: the kernel lets exempt addresses pass before it.
func (e *Engine) bansWithinExemption(p netip.Prefix) []*activeBan {
	return slices.DeleteFunc(e.overlappingBans(p), func(b *activeBan) bool { return !e.isFullyExempt(b.prefix) })
}

// Allow adds a prefix to the allow list and ends the bans within it. The origin is OriginManual, OriginHost or
// the host name that it was resolved from.
func (e *Engine) Allow(now time.Time, p netip.Prefix, originName, note string) []ban.Decision {
	e.advanceTime(now)
	p = canonicalPrefix(p)
	if !addOrigin(&e.allow, p, origin{name: originName, note: note}) {
		return nil
	}
	return e.endBans(e.bansWithinExemption(p), ban.ReasonAllowed, "")
}

// AllowUntil is Allow with an end, for what a person allows. Of what is allowed by hand already the later end stays,
// and the zero time is no end at all: who was promised something keeps it. It returns the end that counts.
func (e *Engine) AllowUntil(now time.Time, p netip.Prefix, until time.Time, note string) (time.Time, []ban.Decision) {
	e.advanceTime(now)
	p = canonicalPrefix(p)
	end := int64(0)
	if !until.IsZero() {
		if end = until.UnixNano(); end <= e.now {
			return until, nil
		}
	}
	have := e.allow.At(p)
	if i := slices.IndexFunc(have, func(o origin) bool { return o.name == OriginManual }); i >= 0 && end != 0 &&
		(have[i].until == 0 || have[i].until > end) {
		end = have[i].until
	}
	fresh := addOrigin(&e.allow, p, origin{name: OriginManual, note: note, until: end})
	if end != 0 {
		e.setTimer(end, p, endOfAllow)
	}
	if !fresh {
		return utcOrZero(end), nil
	}
	return utcOrZero(end), e.endBans(e.bansWithinExemption(p), ban.ReasonAllowed, "")
}

// endDueAllow takes what was allowed until now off the allow list. A timer may come before the end, which was put off.
func (e *Engine) endDueAllow(p netip.Prefix) {
	over := func(o origin) bool { return o.until != 0 && o.until <= e.now }
	have := e.allow.At(p)
	if !slices.ContainsFunc(have, over) {
		return // put off, which has set another timer, or taken off
	}
	e.lapsedAllows = append(e.lapsedAllows, p)
	if left := slices.DeleteFunc(slices.Clone(have), over); len(left) > 0 {
		e.allow.Set(p, left)
		return
	}
	e.allow.Delete(p)
}

// TakeLapsedAllows returns what was allowed by hand until a time that has come, once each.
func (e *Engine) TakeLapsedAllows() []netip.Prefix {
	list := e.lapsedAllows
	e.lapsedAllows = nil
	return list
}

// Disallow takes a prefix of one origin off the allow list. It reports whether nothing allows the prefix any more.
func (e *Engine) Disallow(p netip.Prefix, originName string) bool {
	return removeOrigin(&e.allow, canonicalPrefix(p), originName)
}

// DisallowDuplicate takes a prefix of one origin off the allow list where it has this note, and where somebody else
// allows or protects exactly this prefix, too. It reports whether it did.
func (e *Engine) DisallowDuplicate(p netip.Prefix, originName, note string) bool {
	p = canonicalPrefix(p)
	have := e.allow.At(p)
	i := slices.IndexFunc(have, func(o origin) bool { return o.name == originName && o.note == note })
	if i < 0 || len(have) == 1 && len(e.protected.At(p)) == 0 {
		return false
	}
	removeOrigin(&e.allow, p, originName)
	return true
}

// AllowedBy returns the origins by which exactly this prefix is allowed.
func (e *Engine) AllowedBy(p netip.Prefix) []string {
	var names []string
	for _, o := range e.allow.At(canonicalPrefix(p)) {
		names = append(names, o.name)
	}
	return names
}

// Protect replaces all that was learned from one Asterisk by a new list, and ends the bans of what is on it.
func (e *Engine) Protect(now time.Time, pbx string, learned map[netip.Prefix]string) []ban.Decision {
	e.advanceTime(now)
	list := make(map[netip.Prefix]string, len(learned))
	for _, p := range sortedKeys(learned) {
		list[canonicalPrefix(p)] = learned[p]
	}
	for _, p := range e.protected.Sorted() {
		if _, ok := list[p]; !ok {
			removeOrigin(&e.protected, p, pbx)
		}
	}
	var out []ban.Decision
	for _, p := range sortedKeys(list) {
		if addOrigin(&e.protected, p, origin{name: pbx, note: list[p]}) {
			out = append(out, e.endBans(e.bansWithinExemption(p), ban.ReasonProtected, list[p])...)
		}
	}
	return out
}

// isFullyExempt says whether nobody may be banned by a ban of exactly this prefix: it lies within an exempt one, or it
// is a source that holds one.
func (e *Engine) isFullyExempt(p netip.Prefix) bool {
	if _, ok := e.allow.Containing(p); ok {
		return true
	}
	if _, ok := e.protected.Containing(p); ok {
		return true
	}
	_, source := e.keyOfPrefix(p)
	return source && e.holdsExempt(p)
}

// IsExempt says whether an address is allowed or protected.
func (e *Engine) IsExempt(a netip.Addr) bool {
	if _, ok := e.allow.Covering(a); ok {
		return true
	}
	_, ok := e.protected.Covering(a)
	return ok
}

// holdsExempt says whether a prefix shares an address with anything allowed or protected.
func (e *Engine) holdsExempt(p netip.Prefix) bool {
	if _, ok := e.allow.Overlapping(p); ok {
		return true
	}
	_, ok := e.protected.Overlapping(p)
	return ok
}
