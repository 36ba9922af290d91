package nftrace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// registerValue is what is known of the content of a register: all its bits, or of an address in a network those that
// low and high have in common. The zero value is not known.
type registerValue struct {
	low, high []byte // the unknown bits are all 0 in low and all 1 in high
	outside   bool   // it is an interface that is not lo, whatever else it is
	// firstBelow says of the address of one machine, or of its first bits, that its first byte is less than this, and
	// therefore no other is what many machines get. 0 says nothing.
	firstBelow byte
}

func knownValue(b []byte) registerValue { return registerValue{low: b, high: b} }

// isCertain says whether every bit is known.
func (v registerValue) isCertain() bool { return v.low != nil && bytes.Equal(v.low, v.high) }

func (v registerValue) maskedBy(x *expr.Bitwise) registerValue {
	if v.firstBelow != 0 && bytes.Count(x.Xor, []byte{0}) == len(x.Xor) {
		return v
	}
	turns := slices.ContainsFunc(x.Xor, func(b byte) bool { return b != 0 })
	if v.low == nil || len(v.low) != len(x.Mask) || len(v.low) != len(x.Xor) || turns && !v.isCertain() {
		return registerValue{}
	}
	out := registerValue{low: make([]byte, len(v.low)), high: make([]byte, len(v.low))}
	for i := range v.low {
		out.low[i] = v.low[i]&x.Mask[i] ^ x.Xor[i]
		out.high[i] = v.high[i]&x.Mask[i] ^ x.Xor[i]
	}
	return out
}

func bothOf(a, b answer) answer {
	switch {
	case a == no || b == no:
		return no
	case a == yes && b == yes:
		return yes
	}
	return perhaps
}

func answerOf(ok bool) answer {
	if ok {
		return yes
	}
	return no
}

func negationOf(a answer) answer {
	switch a {
	case yes:
		return no
	case no:
		return yes
	}
	return perhaps
}

// answerForBounds is yes where both ends of the value satisfy a condition that is so for all between them, too, and
// no where neither does.
func answerForBounds(low, high bool) answer {
	if low != high {
		return perhaps
	}
	return answerOf(low)
}

func (v registerValue) compareWith(op expr.CmpOp, data []byte) answer {
	if v.outside {
		loopback := bytes.Equal(bytes.TrimRight(data, "\x00"), []byte("lo")) ||
			bytes.Equal(data, binary.NativeEndian.AppendUint32(nil, 1))
		switch {
		case loopback && op == expr.CmpOpEq:
			return no
		case loopback && op == expr.CmpOpNeq:
			return yes
		}
		return perhaps
	}
	if v.firstBelow != 0 && len(data) > 0 && data[0] >= v.firstBelow {
		switch op {
		case expr.CmpOpEq:
			return no
		case expr.CmpOpNeq:
			return yes
		}
	}
	if v.low == nil || len(v.low) != len(data) {
		return perhaps
	}
	low, high := bytes.Compare(v.low, data), bytes.Compare(v.high, data)
	switch op {
	case expr.CmpOpEq:
		return v.equalTo(data)
	case expr.CmpOpNeq:
		return negationOf(v.equalTo(data))
	case expr.CmpOpLt:
		return answerForBounds(low < 0, high < 0)
	case expr.CmpOpLte:
		return answerForBounds(low <= 0, high <= 0)
	case expr.CmpOpGt:
		return answerForBounds(low > 0, high > 0)
	case expr.CmpOpGte:
		return answerForBounds(low >= 0, high >= 0)
	}
	return perhaps
}

// equalTo compares the bits that are known.
func (v registerValue) equalTo(data []byte) answer {
	for i := range data {
		if (v.low[i]^data[i])&^(v.low[i]^v.high[i]) != 0 {
			return no
		}
	}
	if v.isCertain() {
		return yes
	}
	return perhaps
}

func (v registerValue) inRange(x *expr.Range) answer {
	if v.low == nil || len(v.low) != len(x.FromData) || len(v.low) != len(x.ToData) {
		return perhaps
	}
	inside := perhaps
	switch {
	case bytes.Compare(v.low, x.FromData) >= 0 && bytes.Compare(v.high, x.ToData) <= 0:
		inside = yes
	case bytes.Compare(v.high, x.FromData) < 0 || bytes.Compare(v.low, x.ToData) > 0:
		inside = no
	}
	if x.Op == expr.CmpOpEq {
		return inside
	}
	return negationOf(inside)
}

// setContains asks the kernel for one element: a set may have a hundred thousand.
func (r *ruleset) setContains(set *nftables.Set, key []byte) (bool, error) {
	found, err := r.lib.FindSetElements(set, []nftables.SetElement{{Key: key}})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return len(found) > 0, err
}
