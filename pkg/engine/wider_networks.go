package engine

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// Whoever has a /48 has 65,536 networks of 64 bits, each a source of its own. So what they do is counted for the /56 and
// the /48 that they are in, too: those are what providers give to one customer (RIPE-690).
const (
	largeNetworkBits = 48
	smallNetworkBits = 56
)

const (
	// upwardPerMinute is how many points a minute a network may make that has a phone or two with old passwords.
	networkPerMinute = 12
	// warmSources is how many sources of a /56 are enough once its /48 is full.
	sourcesOfFullLarge = 2
	// fewSources of a /48 that guess loudFactor times the threshold beyond upwardPerMinute are told of: they are too few for a
	// ban, and each may keep to a phone's pace.
	fewSources = 2
	loudFactor = 4
	// wideParts is how many different /56 make an attack one of the whole /48.
	smallNetworksForLarge = 3
)

// widerNetwork is what several sources of one network do.
type widerNetwork struct {
	points        table.LeakyBucket // spared ones too
	sources       [8]uint32         // that made them
	smallNetworks [3]uint32         // networks of 56 bits that they are in, as marks
	forgeable     bool              // some of the evidence could be
	sparedUntil   int64             // it holds somebody who must not be banned: not looked at again before, ns
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

// chargeWiderNetworks counts evidence of w points against the networks of an IPv6 source without trust, and bans the one that attacks: a
// /56 with several such sources, or the /48 of several such /56. Of evidence that could be forged it takes twice as many
// sources, and no network is banned that holds a customer, or anybody who is allowed.
func (j *judgement) chargeWiderNetworks(points float64) {
	if !j.addr.Is6() || points <= 0 || !j.isEnforced() {
		return
	}
	networks := j.engine.networksOf(j.engine.prefixOf(j.key))
	if len(networks) == 0 {
		return
	}
	small, large := networks[0], networks[1]
	x, _ := j.engine.widerNetworks.Put(j.now, j.engine.hash(forWiderNetwork, sourceKey(large.Addr().As16()), largeNetworkBits))
	full := j.countAttack(x, points, j.policy.Networks.IPv6Sources)
	if parts := table.AddMark(x.smallNetworks[:], j.engine.hash(forWiderNetwork, sourceKey(small.Addr().As16()), 0)); full && parts >= smallNetworksForLarge {
		if j.banWiderNetwork(large, x) {
			return
		}
	}
	if !full && x.sources[fewSources-1] != 0 && x.points.Level() > loudFactor*j.policy.Threshold {
		j.reportGuessingNetwork(large, large, "a few sources of this /48 guess, together faster than phones: none of them is banned for it")
	}
	need := j.policy.Networks.IPv6Sources
	if full {
		need = sourcesOfFullLarge
	}
	y, _ := j.engine.widerNetworks.Put(j.now, j.engine.hash(forWiderNetwork, sourceKey(small.Addr().As16()), smallNetworkBits))
	enough := j.countAttack(y, points, need)
	if warm := full && table.AddMark(y.sources[:], j.hash(forWiderNetwork, 0)) >= need; enough || warm {
		j.banWiderNetwork(small, y)
	}
}

// countAttack counts evidence of the event's source against a network, and says whether there is enough for a ban.
func (j *judgement) countAttack(x *widerNetwork, points float64, need int) bool {
	level := x.points.Add(j.now, points, networkPerMinute)
	x.forgeable = x.forgeable || !j.proven
	if !x.forgeable {
		need = (need + 1) / 2
	}
	return table.AddMark(x.sources[:], j.hash(forWiderNetwork, 0)) >= min(need, len(x.sources)) && level > j.policy.Threshold
}

// reportGuessingNetwork reports, once an hour for each /48, that a network in it guesses.
func (j *judgement) reportGuessingNetwork(large, net netip.Prefix, detail string) {
	if j.engine.firstReport(forGuessing, sourceKey(large.Addr().As16()), j.engine.hashText(string(ban.ReasonNetwork))) {
		j.decide(ban.ActionGuessing, ban.ReasonNetwork, net, 0, j.proven, detail)
	}
}

// banWiderNetwork bans a network in which several sources attack, and says whether it is banned.
func (j *judgement) banWiderNetwork(net netip.Prefix, x *widerNetwork) bool {
	if have := j.engine.bans[net]; have != nil && have.until > j.now && !have.observed {
		return true
	}
	if x.sparedUntil > j.now {
		return false
	}
	if j.mustSpareNetwork(net) {
		x.sparedUntil = j.now + minute
		large, _ := net.Addr().Prefix(largeNetworkBits)
		j.reportGuessingNetwork(large, net, fmt.Sprintf("several sources of this /%d attack; it is not banned as a whole, since it holds a customer, "+
			"or somebody who is allowed", net.Bits()))
		return false
	}
	if !j.banNetwork(net, !x.forgeable, 0, fmt.Sprintf("several sources of this /%d attack", net.Bits())) {
		return false
	}
	*x = widerNetwork{}
	return true
}
