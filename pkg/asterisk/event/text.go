package event

import "unicode/utf8"

// inspectText returns "" for text that Asterisk can have meant, else the reason why not: a LF, which many readers take
// for the end of a line, or invalid UTF-8. Since Asterisk 12 the events pass through jansson, whose strings are valid
// UTF-8 (main/json.c): Asterisk drops an event rather than send other bytes. control says whether the text has a
// control character: C0, DEL, or C1 as UTF-8. Asterisk takes such a one from a peer and sends it on as it is.
func inspectText(s string) (reason string, control bool) {
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c >= ' ' && c < 0x7f:
			i++
			continue
		case c == '\n':
			return ReasonControl, true
		case c < utf8.RuneSelf:
			control = true
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
