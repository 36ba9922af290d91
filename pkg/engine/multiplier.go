package engine

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/printable"
)

// multiplier is what points of one event were multiplied by, and the place that has the multiplier.
type multiplier struct {
	asn     uint32
	factor  uint16 // thousandths; 0: nothing was multiplied
	country [2]byte
}

// thousandths is a factor of 1.
const thousandths = 1000

// SetMultipliers has the points of events from now on multiplied by the place of their source; nothing that was judged
// is judged again. placeOf is asked in the middle of a judgement, so it must answer at once; without multipliers it is
// never asked.
func (e *Engine) SetMultipliers(m config.Multiply, placeOf func(netip.Addr) ban.Place) {
	if e.multipliers, e.placeOf = m, placeOf; m.IsZero() {
		e.placeOf = nil
	}
}

// applyMultiplier multiplies points of an event by the place of its source, but not where somebody has shown to be a
// customer, nor where a rule (noteTargeted) gives as many points as the threshold takes.
func (j *judgement) applyMultiplier(points float64, reason ban.Reason) float64 {
	if reason == ban.ReasonDistributed || j.isTrustedOrCustomer() {
		return points
	}
	p := j.engine.placeOf(j.addr)
	factor := uint16(math.Round(j.engine.multipliers.Factor(p.Country, p.ASN) * thousandths))
	if factor == thousandths {
		return points
	}
	j.multiplied = multiplier{factor: factor}
	if _, ok := j.engine.multipliers.Countries[p.Country]; ok {
		copy(j.multiplied.country[:], p.Country)
	}
	if _, ok := j.engine.multipliers.ASNs[config.ASN(p.ASN)]; ok {
		j.multiplied.asn = p.ASN
	}
	return points * float64(factor) / thousandths
}

// isTrustedOrCustomer says whether the source of the event is trusted, or was within storm.memory and did not lose its
// trust.
func (j *judgement) isTrustedOrCustomer() bool {
	t := j.rememberedTrust()
	return t != nil && !t.revoked && (t.until > j.now || j.engine.isOfCustomer(t))
}

// describe writes a multiplier into evidence.
func (s multiplier) describe(v *ban.Evidence) {
	v.Multiplier, v.ASN = float64(s.factor)/thousandths, s.asn
	if s.country != [2]byte{} {
		v.Country = string(s.country[:])
	}
}

// multiplierOf is the inverse of describe.
func multiplierOf(v *ban.Evidence) multiplier {
	if !(v.Multiplier > 0 && v.Multiplier <= config.MaxFactor) {
		return multiplier{}
	}
	s := multiplier{asn: v.ASN, factor: uint16(math.Round(v.Multiplier * thousandths))}
	copy(s.country[:], v.Country)
	return s
}

// PointsArithmetic says how the place of its source changed the points of an event, such as "4 × 2 (country NL)"; it is
// empty where it did not.
func PointsArithmetic(v *ban.Evidence) string {
	if v.Multiplier == 0 {
		return ""
	}
	return fmt.Sprintf("%g × %g (%s)", ban.Round(v.Points/v.Multiplier), v.Multiplier, multiplierSource(v))
}

// multiplierSource names what has the multiplier of an event.
func multiplierSource(v *ban.Evidence) string {
	var of []string
	if v.Country != "" {
		of = append(of, "country "+printable.String(v.Country))
	}
	if v.ASN != 0 {
		of = append(of, config.ASN(v.ASN).String())
	}
	return strings.Join(of, ", ")
}

// explainMultipliers says which of the points came of the place of their source.
func (w *explainer) explainMultipliers() {
	type sum struct{ points, base float64 }
	sums := make(map[string]*sum) // by the place's part of the arithmetic
	var order []string
	for i := range w.Evidence {
		ev := &w.Evidence[i]
		if ev.Multiplier == 0 || ev.Points == 0 {
			continue
		}
		place := fmt.Sprintf("× %g (%s)", ev.Multiplier, multiplierSource(ev))
		if sums[place] == nil {
			sums[place] = new(sum)
			order = append(order, place)
		}
		sums[place].points += ev.Points
		sums[place].base += ev.Points / ev.Multiplier
	}
	for _, place := range order {
		w.addSentence("%.1f points of these are %.1f points %s, by geo.multiply", sums[place].points, sums[place].base,
			place)
	}
}
