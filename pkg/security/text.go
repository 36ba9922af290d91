package security

import "unicode/utf8"

// checkText returns "" for text that Asterisk can have meant, else the reason why not: a control character (C0, DEL, or
// C1 as UTF-8, any of which can break lines or steer a terminal) or invalid UTF-8. Since Asterisk 12 the events pass
// through jansson, whose strings are valid UTF-8 (main/json.c): Asterisk drops an event rather than send other bytes.
func checkText(s string) string {
	const low, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		// The high bit of a byte ends up set if it was set, if the byte is under 0x20, or if it is 0x7f.
		if (x|(x-0x20*low)|(x+low))&high != 0 {
			return checkTextSlowly(s[i:])
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return checkTextSlowly(s[i:])
		}
	}
	return ""
}

func checkTextSlowly(s string) string {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				return ReasonControl
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return ReasonUTF8
		}
		if r < 0xa0 {
			return ReasonControl
		}
		i += n
	}
	return ""
}

// hasControl says whether s has a C0 control character or DEL. It is for what the operator, not a peer, chooses, such
// as SystemName, which may be in any encoding.
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return true
		}
	}
	return false
}
