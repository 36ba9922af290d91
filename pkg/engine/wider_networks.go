package engine

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// Whoever has a /48 has 65,536 networks of 64 bits, each a source of its own. So what they do is counted for the /56
// and the /48 that they are in, too: those are what providers give to one customer (RIPE-690).
const (
	largeNetworkBits = 48
	smallNetworkBits = 56
)

const (
	// networkPerMinute is how many points a minute a network makes that has a phone or two with old passwords.
	networkPerMinute = 12
	// sourcesOfFullLarge is how many sources of a /56 are enough for its ban where those of its /48 are enough already.
	sourcesOfFullLarge = 2
	// smallNetworksForLarge is how many different /56 make an attack one of the whole /48.
	smallNetworksForLarge = 3
	// fewSources of a /48 that make loudFactor times the threshold beyond networkPerMinute are reported: they are too
	// few for a ban, and each may keep to a phone's pace.
	fewSources = 2
	loudFactor = 4
)

// widerNetwork is what the sources of one /56 or /48 do.
type widerNetwork struct {
	points        table.LeakyBucket             // of all its sources; those that were spared as a phone's, too
	sources       [8]uint32                     // marks of the sources that made them, see table.AddMark
	smallNetworks [smallNetworksForLarge]uint32 // of a /48: marks of the /56 that its sources are in
	forgeable     bool                          // some of the evidence could be forged
	sparedUntil   int64                         // until then it is known to hold somebody who must be spared, ns
}

// networksOf returns the networks that may be banned for what several sources in them do, and that hold this one.
func (e *Engine) networksOf(p netip.Prefix) []netip.Prefix {
	if p.Addr().Is4() {
		if net, ok := e.networkOf(p); ok {
			return []netip.Prefix{net}
		}
		return nil
	}
	if e.policy.Networks.IPv6Sources <= 0 || p.Bits() <= smallNetworkBits {
		return nil
	}
	var out []netip.Prefix
	for _, bits := range [...]int{smallNetworkBits, largeNetworkBits} {
		if net, err := p.Addr().Prefix(bits); err == nil {
			out = append(out, net)
		}
	}
	return out
}

// chargeWiderNetworks counts points against the networks of an IPv6 source without trust, and bans the one that
// attacks: a /56 with several such sources, or the /48 of several such /56. Of evidence that could be forged it takes
// twice as many sources, and no network is banned that holds a customer, or anybody who is allowed.
func (j *judgement) chargeWiderNetworks(points float64) {
	if !j.addr.Is6() || points <= 0 || !j.serviceIsEnforced() {
		return
	}
	networks := j.engine.networksOf(j.engine.prefixOf(j.key))
	if len(networks) == 0 {
		return
	}
	small, large := networks[0], networks[1]
	need := j.policy.Networks.IPv6Sources
	inLarge := j.widerNetwork(large)
	largeIsFull := j.countAttack(inLarge, points, need)
	smallHash := j.engine.hash(forWiderNetwork, sourceKey(small.Addr().As16()), 0)
	smallNetworks := table.AddMark(inLarge.smallNetworks[:], smallHash)
	if largeIsFull && smallNetworks >= smallNetworksForLarge && j.banWiderNetwork(large, inLarge) {
		return
	}
	if !largeIsFull && inLarge.sources[fewSources-1] != 0 && inLarge.points.Level() > loudFactor*j.policy.Threshold {
		j.reportGuessingNetwork(large, large,
			"a few sources of this /48 guess, together faster than phones: none of them is banned for it")
	}
	if largeIsFull {
		need = sourcesOfFullLarge
	}
	inSmall := j.widerNetwork(small)
	smallIsFull := j.countAttack(inSmall, points, need)
	if smallIsFull || largeIsFull && table.AddMark(inSmall.sources[:], j.hash(forWiderNetwork, 0)) >= need {
		j.banWiderNetwork(small, inSmall)
	}
}

// widerNetwork returns what the sources of a network do, to be read or changed until the next one is asked for.
func (j *judgement) widerNetwork(net netip.Prefix) *widerNetwork {
	e := j.engine
	w, _ := e.widerNetworks.Put(e.now, e.hash(forWiderNetwork, sourceKey(net.Addr().As16()), uint64(net.Bits())))
	return w
}

// countAttack counts points of the event's source against a network, and says whether there is enough for a ban.
func (j *judgement) countAttack(w *widerNetwork, points float64, need int) bool {
	level := w.points.Add(j.now, points, networkPerMinute)
	w.forgeable = w.forgeable || !j.proven
	if !w.forgeable {
		need = (need + 1) / 2
	}
	sources := table.AddMark(w.sources[:], j.hash(forWiderNetwork, 0))
	return sources >= min(need, len(w.sources)) && level > j.policy.Threshold
}

// reportGuessingNetwork reports, once an hour for each /48, that a network in it guesses.
func (j *judgement) reportGuessingNetwork(large, net netip.Prefix, detail string) {
	if j.engine.firstReport(forGuessing, sourceKey(large.Addr().As16()), j.engine.hashText(string(ban.ReasonNetwork))) {
		j.appendDecision(ban.ActionGuessing, ban.ReasonNetwork, net, 0, j.proven, detail)
	}
}

// banWiderNetwork bans a network in which several sources attack, and says whether it is banned.
func (j *judgement) banWiderNetwork(net netip.Prefix, w *widerNetwork) bool {
	if j.engine.hasEnforcedBan(net) {
		return true
	}
	if w.sparedUntil > j.now {
		return false
	}
	if j.mustSpareNetwork(net) {
		w.sparedUntil = j.now + minute
		large, _ := net.Addr().Prefix(largeNetworkBits)
		j.reportGuessingNetwork(large, net, fmt.Sprintf("several sources of this /%d attack; "+
			"it is not banned as a whole, since it holds a customer, or somebody who is allowed", net.Bits()))
		return false
	}
	if !j.banNetwork(net, !w.forgeable, 0, fmt.Sprintf("several sources of this /%d attack", net.Bits())) {
		return false
	}
	*w = widerNetwork{}
	return true
}
