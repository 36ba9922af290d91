package engine

import "math"

const powersPerHalf = 32

// powers are 2^(-i/32), for half.
type powers [powersPerHalf]float64

func newPowers() (p powers) {
	for i := range p {
		p[i] = math.Exp2(-float64(i) / powersPerHalf)
	}
	return p
}

// half is 2^-x for x ≥ 0. Before it is rounded to 32 bits it is wrong by less than 10⁻¹⁵ of it, so that it is what math.Exp2
// gives in all but one of ten million cases, and there the next number, at a quarter of the time. It is the same on every
// machine: the conversions keep products from being fused with sums.
func (p *powers) half(x float64) float32 {
	if !(x < 150) { // from there on it is 0 in 32 bits
		return 0
	}
	n := uint64(x * powersPerHalf)
	y := (float64(n)/powersPerHalf - x) * math.Ln2 // the difference is exact, and y between -ln(2)/32 and 0
	y2 := y * y
	high := 1./24 + float64(y*(1./120)) + float64(y2*(1./720)) // of the series of eʸ
	series := 1 + y + float64(y2*(0.5+float64(y*(1./6))+float64(y2*high)))
	return float32(series * p[n%powersPerHalf] * math.Float64frombits((1023-n/powersPerHalf)<<52))
}
