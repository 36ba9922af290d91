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
	widerBits = 48
	wideBits  = 56
)

const (
	// upwardPerMinute is how many points a minute a network may make that has a phone or two with old passwords.
	upwardPerMinute = 12
	// warmSources is how many sources of a /56 are enough once its /48 is full.
	warmSources = 2
	// fewSources of a /48 that guess loudFactor times the threshold beyond upwardPerMinute are told of: they are too few for a
	// ban, and each may keep to a phone's pace.
	fewSources = 2
	loudFactor = 4
	// wideParts is how many different /56 make an attack one of the whole /48.
	wideParts = 3
)

// wide is what several sources of one network do.
type wide struct {
	points  table.LeakyBucket // spared ones too
	sources [8]uint32         // that made them
	parts   [3]uint32         // networks of 56 bits that they are in, as marks
	forged  bool              // some of the evidence could be
	spared  int64             // it holds somebody who must not be banned: not looked at again before, ns
}

// networksOf returns the networks that may be banned for what several sources in them do, and that hold this one.
func (e *Engine) networksOf(p netip.Prefix) []netip.Prefix {
	if p.Addr().Is4() {
		if net, ok := e.networkOf(p); ok {
			return []netip.Prefix{net}
		}
		return nil
	}
	if e.cfg.Networks.IPv6Sources <= 0 || p.Bits() <= wideBits {
		return nil
	}
	var out []netip.Prefix
	for _, bits := range [...]int{wideBits, widerBits} {
		if net, err := p.Addr().Prefix(bits); err == nil {
			out = append(out, net)
		}
	}
	return out
}

// chargeWiderNetwork counts evidence of w points against the networks of an IPv6 source without trust, and bans the one that attacks: a
// /56 with several such sources, or the /48 of several such /56. Of evidence that could be forged it takes twice as many
// sources, and no network is banned that holds a customer, or anybody who is allowed.
func (j *judgement) chargeWiderNetwork(w float64) {
	if !j.addr.Is6() || w <= 0 || !j.enforced() {
		return
	}
	networks := j.engine.networksOf(j.engine.prefixOf(j.key))
	if len(networks) == 0 {
		return
	}
	small, large := networks[0], networks[1]
	x, _ := j.engine.wide.Put(j.now, j.engine.id(forWide, key(large.Addr().As16()), widerBits))
	full := j.attacks(x, w, j.policy.Networks.IPv6Sources)
	if parts := table.AddMark(x.parts[:], j.engine.id(forWide, key(small.Addr().As16()), 0)); full && parts >= wideParts {
		if j.condemnWide(large, x) {
			return
		}
	}
	if !full && x.sources[fewSources-1] != 0 && x.points.Level() > loudFactor*j.policy.Threshold {
		j.alarmNetwork(large, large, "a few sources of this /48 guess, together faster than phones: none of them is banned for it")
	}
	need := j.policy.Networks.IPv6Sources
	if full {
		need = warmSources
	}
	y, _ := j.engine.wide.Put(j.now, j.engine.id(forWide, key(small.Addr().As16()), wideBits))
	enough := j.attacks(y, w, need)
	if warm := full && table.AddMark(y.sources[:], j.hash(forWide, 0)) >= need; enough || warm {
		j.condemnWide(small, y)
	}
}

// attacks counts evidence of the event's source against a network, and says whether there is enough for a ban.
func (j *judgement) attacks(x *wide, w float64, need int) bool {
	points := x.points.Add(j.now, w, upwardPerMinute)
	x.forged = x.forged || !j.proven
	if !x.forged {
		need = (need + 1) / 2
	}
	return table.AddMark(x.sources[:], j.hash(forWide, 0)) >= min(need, len(x.sources)) && points > j.policy.Threshold
}

// alarmNetwork reports, once an hour for each /48, that a network in it guesses.
func (j *judgement) alarmNetwork(large, net netip.Prefix, detail string) {
	if j.engine.firstReport(forGuessing, key(large.Addr().As16()), j.engine.text(string(ban.ReasonNetwork))) {
		j.decide(ban.ActionGuessing, ban.ReasonNetwork, net, 0, j.proven, detail)
	}
}

// condemnWide bans a network in which several sources attack, and says whether it is banned.
func (j *judgement) condemnWide(net netip.Prefix, x *wide) bool {
	if have := j.engine.bans[net]; have != nil && have.until > j.now && !have.observed {
		return true
	}
	if x.spared > j.now {
		return false
	}
	if j.sparesNetwork(net) {
		x.spared = j.now + minute
		large, _ := net.Addr().Prefix(widerBits)
		j.alarmNetwork(large, net, fmt.Sprintf("several sources of this /%d attack; it is not banned as a whole, since it holds a customer, "+
			"or somebody who is allowed", net.Bits()))
		return false
	}
	if !j.banNetwork(net, !x.forged, 0, fmt.Sprintf("several sources of this /%d attack", net.Bits())) {
		return false
	}
	*x = wide{}
	return true
}
