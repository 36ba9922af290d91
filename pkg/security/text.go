package security

import "unicode/utf8"

// checkText returns "" for text that Asterisk can have meant, else the reason why not: a LF, which many readers take
// for the end of a line, or invalid UTF-8. Since Asterisk 12 the events pass through jansson, whose strings are valid UTF-8
// (main/json.c): Asterisk drops an event rather than send other bytes. control says whether the text has a control
// character: C0, DEL, or C1 as UTF-8. Asterisk takes such a one from a peer and sends it on as it is.
func checkText(s string) (reason string, control bool) {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if unprintable(eight(s, i)) != 0 {
			return checkTextSlowly(s[i:])
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return checkTextSlowly(s[i:])
		}
	}
	return "", false
}

// eight returns the eight bytes of s from i on, the first as the lowest.
func eight(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// unprintable is 0 if eight bytes are all printable ASCII. Else its lowest bit lies in the first byte that is not: the
// high bit of a byte ends up set if it was set, if the byte is under 0x20, or if it is 0x7f, and only a byte like that
// has a borrow or a carry for those above it.
func unprintable(x uint64) uint64 {
	const low, high = 0x0101010101010101, 0x8080808080808080
	return (x | (x - 0x20*low) | (x + low)) & high
}

func checkTextSlowly(s string) (reason string, control bool) {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c == '\n' {
				return ReasonControl, true
			}
			control = control || c < 0x20 || c == 0x7f
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return ReasonUTF8, control
		}
		control = control || r < 0xa0
		i += n
	}
	return "", control
}

// hasControl says whether s has a C0 control character or DEL.
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return true
		}
	}
	return false
}
