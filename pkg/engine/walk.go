package engine

import (
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// BanWalk is how far somebody has come who goes through all bans a few at a time, the newest first, while the engine
// goes on between. Its zero value begins. What is banned later is left out; of the others, whoever is banned all the
// while is met exactly once.
//
// It keeps the ban that comes next. Where that has ended meanwhile, what it knew as the older one still leads on: none
// that is in force was ever put between them.
type BanWalk struct {
	next  *activeBan
	begun bool
}

// walkLooks bounds the bans that one step passes over.
const walkLooks = 4

// step moves on and calls each with bans in force until it has accepted n of them or a few times as many were passed
// over. It says whether there is more.
func (w *BanWalk) step(e *Engine, n int, each func(*activeBan) bool) (more bool) {
	if !w.begun {
		w.next, w.begun = e.newestBan, true
	}
	for looks := walkLooks * n; w.next != nil && n > 0 && looks > 0; looks-- {
		b := w.next
		w.next = b.older // each may end it
		if e.bans[b.prefix] == b && b.until > e.now && each(b) {
			n--
		}
	}
	return w.next != nil
}

// WalkBans appends up to n of the bans that overlap a prefix, or of all where it is not valid, to out, and says whether
// there is more to walk through. However many bans there are, it takes a time that depends on n alone.
func (e *Engine) WalkBans(
	now time.Time, w *BanWalk, n int, within netip.Prefix, evidence bool, out []ban.Ban,
) ([]ban.Ban, bool) {
	e.advanceTime(now)
	if within.IsValid() && within.IsSingleIP() { // without a look at the others
		for _, b := range e.overlappingBans(canonicalPrefix(within)) {
			out = append(out, e.viewBan(b, evidence))
		}
		return out, false
	}
	more := w.step(e, n, func(b *activeBan) bool {
		if within.IsValid() && !within.Overlaps(b.prefix) {
			return false
		}
		out = append(out, e.viewBan(b, evidence))
		return true
	})
	return out, more
}

// ActiveBan returns the active ban of exactly a prefix.
func (e *Engine) ActiveBan(now time.Time, p netip.Prefix) (ban.Ban, bool) {
	e.advanceTime(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.until <= e.now {
		return ban.Ban{}, false
	}
	return e.viewBan(b, false), true
}

// BanRemaining returns for how long exactly a prefix is banned, if it is and the ban is enforced.
func (e *Engine) BanRemaining(now time.Time, p netip.Prefix) (time.Duration, bool) {
	e.advanceTime(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.observed || b.until <= e.now {
		return 0, false
	}
	return time.Duration(b.until - e.now), true
}

// mapWalk is how far somebody has come who goes through all of a map a few at a time, in no order. Of what is in it all
// the while each is met once.
type mapWalk[K comparable, V any] struct {
	next func() (K, V, bool)
	stop func()
}

// step calls each with up to n of what is in the map, and says whether there is more. It takes a time that depends on n
// alone.
func (w *mapWalk[K, V]) step(m map[K]V, n int, each func(K, V)) (more bool) {
	if w.next == nil { // a map may change while it is walked through (Go's specification, For statements)
		w.next, w.stop = iter.Pull2(maps.All(m))
	}
	for range n {
		k, v, ok := w.next()
		if !ok {
			return false
		}
		each(k, v)
	}
	return true
}

// Close ends the walk. Like its steps it must be called by whoever has the engine.
func (w *mapWalk[K, V]) Close() {
	if w.stop != nil {
		w.stop()
	}
}

// TrustWalk is how far somebody has come who goes through all customers. Close it.
type TrustWalk struct{ mapWalk[sourceKey, *trust] }

// WalkTrust appends what is shown of those among the next n customers who are trusted, and says whether there are more.
func (e *Engine) WalkTrust(now time.Time, w *TrustWalk, n int, out []ban.Trust) ([]ban.Trust, bool) {
	e.advanceTime(now)
	more := w.step(e.trusts, n, func(_ sourceKey, t *trust) {
		if t.until > e.now {
			out = append(out, e.viewTrust(t))
		}
	})
	return out, more
}

// ExportSomeTrusts appends what should survive a restart of the next n customers, and says whether there are more.
func (e *Engine) ExportSomeTrusts(now time.Time, w *TrustWalk, n int, out []ban.Trust) ([]ban.Trust, bool) {
	e.advanceTime(now)
	more := w.step(e.trusts, n, func(_ sourceKey, t *trust) { out = append(out, e.describeTrust(t)) })
	return out, more
}
