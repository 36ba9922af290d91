package engine

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
)

// check recounts the books and says what does not agree.
func (e *Engine) check() error {
	enforced, forgeable, kept := 0, 0, 0
	kinds := make(map[banKind]int)
	networks := make(map[netip.Prefix]networkBans)
	for p, b := range e.bans {
		if p != b.prefix || p != p.Masked() {
			return fmt.Errorf("ban of %v is filed under %v", b.prefix, p)
		}
		kept += len(b.evidence)
		if !b.observed {
			enforced++
			kinds[e.kindOf(b)]++
			if !b.proven {
				forgeable++
			}
			if net, ok := e.networkOf(p); ok {
				n := networks[net]
				n.bans++
				if !b.proven {
					n.forgeable++
				}
				networks[net] = n
			}
		}
		if k, ok := e.keyOfPrefix(p); ok {
			if s := e.sources.get(k); s != nil && (!s.banned || s.class < classBanned) {
				return fmt.Errorf("source of %v: banned %v, class %d", p, s.banned, s.class)
			}
		}
	}
	owners := make(map[sourceKey]int)
	for k, t := range e.trusts {
		if k != t.key {
			return fmt.Errorf("trust of %v is filed under %v", e.prefixOf(t.key), e.prefixOf(k))
		}
		owners[ownerNetwork(k)]++
	}
	if !maps.Equal(owners, e.trustsByOwner) {
		return fmt.Errorf("owners %v, counted %v", e.trustsByOwner, owners)
	}
	maps.DeleteFunc(e.bansOfKind, func(_ banKind, n int) bool { return n == 0 })
	if !maps.Equal(kinds, e.bansOfKind) {
		return fmt.Errorf("bans %v, counted %v", e.bansOfKind, kinds)
	}
	if err := e.checkLanes(); err != nil {
		return err
	}
	if enforced != e.enforcedBans || forgeable != e.forgeableBans || kept != e.banRecords {
		return fmt.Errorf("enforced %d, forgeable %d, kept %d; counted %d, %d, %d",
			e.enforcedBans, e.forgeableBans, e.banRecords, enforced, forgeable, kept)
	}
	if len(networks) != len(e.networkBans) {
		return fmt.Errorf("%d networks, counted %d", len(e.networkBans), len(networks))
	}
	for p, n := range networks {
		if e.networkBans[p] != n {
			return fmt.Errorf("network %v: %+v, counted %+v", p, e.networkBans[p], n)
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
		if s.hasTrust != known || s.banned != banned {
			return fmt.Errorf("source %v: known %v, banned %v; want %v, %v", e.prefixOf(k), s.hasTrust, s.banned, known,
				banned)
		}
		for _, f := range []float32{s.score, s.provenScore, s.observedScore, e.sources.detailsOf(s).overflowPoints,
			e.sources.detailsOf(s).pace.tokens} {
			if !(f >= 0) || math.IsInf(float64(f), 0) {
				return fmt.Errorf("source %v: %+v", e.prefixOf(k), s)
			}
		}
		if s.provenScore > s.score+pointsTolerance || s.score > s.observedScore+pointsTolerance {
			return fmt.Errorf("source %v: proven %v of %v of %v", e.prefixOf(k), s.provenScore, s.score,
				s.observedScore)
		}
	}
	return nil
}

// checkLanes recounts what is cut and slow, as of now.
func (e *Engine) checkLanes() error {
	var all laneCounts
	for k, l := range e.lanes {
		if l.timerAt == 0 {
			return fmt.Errorf("the lane of %v is never looked at again: %+v", e.prefixOf(k), l)
		}
		for _, el := range e.laneElements(k, l) {
			switch el.Kind {
			case CutFlow:
				all.cuts++
				if el.Flow.Source.Addr().Is6() {
					all.cuts6++
				}
			case SlowFlow:
				all.slowFlows++
			case SlowSource:
				all.slowSources++
			default:
				all.trickles++
			}
		}
	}
	if all != e.laneCounts {
		return fmt.Errorf("lanes %+v, counted %+v", e.laneCounts, all)
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
			if c != classOffender && s.queuedAt > seconds(s.lastSeen) {
				return fmt.Errorf("number %d in class %d has its place of %d, and was seen at %d", number, c,
					s.queuedAt, seconds(s.lastSeen))
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
