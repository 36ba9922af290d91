package witness

import (
	"strings"
	"unicode/utf8"
)

// How much of what a stranger wrote an event holds, bytes.
const (
	maxSession = 1024
	maxAccount = 64
	maxDetail  = 80
)

// text makes a string of bytes from the wire: as Asterisk would tell it where it can, else with what is not UTF-8, or
// is a control character, as \xff.
func text(b []byte, most int) string {
	if isTellable(b) && !hasControl(b) {
		if len(b) <= most {
			return string(b)
		}
		for most > 0 && !utf8.RuneStart(b[most]) {
			most--
		}
		return string(b[:most])
	}
	const digits = "0123456789abcdef"
	var s strings.Builder
	for len(b) > 0 && s.Len() < most {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size <= 1 || r < ' ' || r == 0x7f {
			s.Write([]byte{'\\', 'x', digits[b[0]>>4], digits[b[0]&15]})
			b = b[1:]
			continue
		}
		s.Write(b[:size])
		b = b[size:]
	}
	return s.String()
}

// isTellable says whether an event of Asterisk's can hold these bytes. It is a JSON text before (main/json.c), and that
// is UTF-8.
func isTellable(b []byte) bool { return utf8.Valid(b) }

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}
