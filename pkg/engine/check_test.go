package engine

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
)

// check recounts the books and says what does not agree.
func (e *Engine) check() error {
	enforced, enforced6, forgeable, kept := 0, 0, 0, 0
	networks := make(map[netip.Prefix]network)
	for p, b := range e.bans {
		if p != b.prefix || p != p.Masked() {
			return fmt.Errorf("ban of %v is filed under %v", b.prefix, p)
		}
		kept += len(b.evidence)
		if !b.observed {
			enforced++
			if p.Addr().Is6() {
				enforced6++
			}
			if !b.proven {
				forgeable++
			}
			if net, ok := e.networkOf(p); ok {
				n := networks[net]
				n.banned++
				if !b.proven {
					n.unproven++
				}
				networks[net] = n
			}
		}
		if k, ok := e.keyOfPrefix(p); ok {
			if s := e.sources.get(k); s != nil && (!s.banned || s.class < barred) {
				return fmt.Errorf("source of %v: banned %v, class %d", p, s.banned, s.class)
			}
		}
	}
	owners := make(map[key]int)
	for k, t := range e.trusts {
		if k != t.key {
			return fmt.Errorf("trust of %v is filed under %v", e.prefixOf(t.key), e.prefixOf(k))
		}
		owners[ownerOf(k)]++
	}
	if !maps.Equal(owners, e.owners) {
		return fmt.Errorf("owners %v, counted %v", e.owners, owners)
	}
	if enforced6 != e.enforced6 {
		return fmt.Errorf("%d enforced of IPv6, counted %d", e.enforced6, enforced6)
	}
	if enforced != e.enforced || forgeable != e.forgeable || kept != e.kept {
		return fmt.Errorf("enforced %d, forgeable %d, kept %d; counted %d, %d, %d",
			e.enforced, e.forgeable, e.kept, enforced, forgeable, kept)
	}
	if len(networks) != len(e.networks) {
		return fmt.Errorf("%d networks, counted %d", len(e.networks), len(networks))
	}
	for p, n := range networks {
		if e.networks[p] != n {
			return fmt.Errorf("network %v: %+v, counted %+v", p, e.networks[p], n)
		}
	}
	if e.sources.len() > e.sources.max {
		return fmt.Errorf("%d sources, max %d", e.sources.len(), e.sources.max)
	}
	if err := e.sources.check(); err != nil {
		return err
	}
	for s := range e.sources.all {
		k := s.key
		_, known := e.trusts[k]
		_, banned := e.bans[e.prefixOf(k)]
		if s.known != known || s.banned != banned {
			return fmt.Errorf("source %v: known %v, banned %v; want %v, %v", e.prefixOf(k), s.known, s.banned, known, banned)
		}
		for _, f := range []float32{s.score, s.proven, s.observed, e.sources.detailsOf(s).overflow, e.sources.detailsOf(s).pace.tokens} {
			if !(f >= 0) || math.IsInf(float64(f), 0) {
				return fmt.Errorf("source %v: %+v", e.prefixOf(k), s)
			}
		}
		if s.proven > s.score+slack || s.score > s.observed+slack {
			return fmt.Errorf("source %v: proven %v of %v of %v", e.prefixOf(k), s.proven, s.score, s.observed)
		}
	}
	return nil
}

// check walks the lists of the sources.
func (t *sources) check() error {
	seen := 0
	for c := range numClasses {
		for number := range t.ages.All(int(c)) {
			s := t.pool.At(number)
			if s.number != number || s.class != c || t.get(s.key) != s {
				return fmt.Errorf("number %d in class %d: %+v", number, c, s)
			}
			if c != offender && s.queuedAt > seconds(s.seen) {
				return fmt.Errorf("number %d in class %d has its place of %d, and was seen at %d", number, c, s.queuedAt, seconds(s.seen))
			}
			if seen++; seen > t.len() {
				return fmt.Errorf("the lists hold more than %d sources", t.len())
			}
		}
	}
	if seen != t.len() {
		return fmt.Errorf("the lists hold %d sources of %d", seen, t.len())
	}
	return nil
}
