package printable

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Columns is the width that String shortens to. Asterisk cuts PJSIP's AccountID to 36 bytes, so the names that people
// give to phones are never shortened.
const Columns = 64

// String escapes s and shortens it to [Columns] columns. See [Limit].
func String(s string) string { return Limit(s, Columns) }

// Limit escapes s and shortens the result to at most columns columns of a terminal, and at least the mark that says so.
//
// Visible characters stay as they are. Control characters, terminal escapes, bytes that are not UTF-8, characters that
// show nothing or that change the order of their neighbours (bidi controls, letters written from right to left: Unicode
// Standard Annex 9), combining marks, and the backslash itself become Go escapes such as \x1b, \u202e or \\, so two
// different names never look alike for want of escaping. What is cut off is counted in bytes: "aaaa…(+996)".
func Limit(s string, columns int) string {
	if isPlain(s) && len(s) <= columns {
		return s
	}
	var b strings.Builder
	b.Grow(min(len(s), columns) + 16)
	width, cutAt, cutFrom := 0, 0, 0
	reserve := len("…(+)") - len("…") + 1 + len(strconv.Itoa(len(s)))
	for i := 0; i < len(s); {
		piece, size, w := nextPiece(s[i:])
		if width+w <= columns-reserve {
			cutAt, cutFrom = b.Len()+len(piece), i+size
		}
		if width+w > columns {
			return b.String()[:cutAt] + "…(+" + strconv.Itoa(len(s)-cutFrom) + ")"
		}
		b.WriteString(piece)
		width += w
		i += size
	}
	return b.String()
}

// Quote escapes s and shortens it as [String] does, and puts it in quotation marks, as values stand in a sentence.
func Quote(s string) string { return `"` + String(s) + `"` }

// Line escapes s as [Limit] does, but leaves backslashes alone and shortens nothing. It is the second net, for a
// sentence in which the values from the wire are escaped already.
func Line(s string) string {
	if isPlain(strings.ReplaceAll(s, `\`, "")) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		piece, size, _ := nextPiece(s[i:])
		if s[i] == '\\' {
			piece = `\`
		}
		b.WriteString(piece)
		i += size
	}
	return b.String()
}

// Width is the number of columns that s takes on a terminal, once it went through [String] or [Limit].
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += columnsOf(r)
	}
	return n
}

// Wrap breaks escaped text between words. used is what the first line has lost already, or, below 0, has more; a word
// longer than a line stays whole.
func Wrap(s string, columns, used int) []string {
	if columns <= 0 {
		return []string{s}
	}
	var lines []string
	line, width := "", used
	for _, word := range strings.Split(s, " ") {
		w := Width(word)
		if line != "" && width+1+w > columns {
			lines = append(lines, line)
			line, width = "", 0
		}
		if line != "" {
			line += " "
			width++
		}
		line += word
		width += w
	}
	return append(lines, line)
}

// JSON escapes, in a JSON text, the characters that [String] would escape and that encoding/json leaves as they are:
// C1 controls such as the one-byte escape U+009B, DEL, bidi controls. The result means the same to any JSON parser; it
// is text itself where nothing had to change.
func JSON(text []byte) []byte {
	first := bytes.IndexFunc(text, hiddenInJSON)
	if first < 0 {
		return text
	}
	out := append(make([]byte, 0, len(text)+64), text[:first]...)
	for i := first; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case hiddenInJSON(r) && r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		case hiddenInJSON(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, text[i:i+size]...)
		}
		i += size
	}
	return out
}

// hiddenInJSON leaves ASCII below DEL alone: outside of strings it is the syntax, inside encoding/json escaped it.
func hiddenInJSON(r rune) bool {
	return r >= 0x7f && !isVisible(r)
}

func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// nextPiece returns the form of the first character of s, the bytes of s that it takes, and its width.
func nextPiece(s string) (piece string, size, width int) {
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && size <= 1:
		piece = fmt.Sprintf(`\x%02x`, s[0])
	case r == '\\':
		piece = `\\`
	case isVisible(r):
		return s[:size], size, columnsOf(r)
	case r < utf8.RuneSelf:
		piece = fmt.Sprintf(`\x%02x`, r)
	case r <= 0xffff:
		piece = fmt.Sprintf(`\u%04x`, r)
	default:
		piece = fmt.Sprintf(`\U%08x`, r)
	}
	return piece, size, len(piece)
}

func isVisible(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r <= '~'
	}
	return r != utf8.RuneError && strconv.IsPrint(r) && !unicode.IsMark(r) && !isRightToLeft(r) && !isBlank(r)
}

// isRightToLeft covers the blocks whose default class is R or AL in Unicode's DerivedBidiClass.txt: one such letter
// in a table moves the digits of the columns beside it.
func isRightToLeft(r rune) bool {
	return r >= 0x0590 && r <= 0x08ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff ||
		r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff
}

// isBlank is what counts as a letter or symbol and yet shows nothing: the Hangul fillers and the empty Braille pattern.
func isBlank(r rune) bool {
	switch r {
	case 0x115f, 0x1160, 0x3164, 0xffa0, 0x2800:
		return true
	}
	return false
}

// columnsOf follows the ranges W and F of Unicode's EastAsianWidth.txt, rounded to blocks.
func columnsOf(r rune) int {
	if r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0x303e || r >= 0x3041 && r <= 0xa4cf ||
		r >= 0xa960 && r <= 0xa97f || r >= 0xac00 && r <= 0xd7a3 || r >= 0xf900 && r <= 0xfaff ||
		r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 ||
		r >= 0x1f300 && r <= 0x1f64f || r >= 0x1f680 && r <= 0x1f6ff || r >= 0x1f900 && r <= 0x1faff ||
		r >= 0x20000 && r <= 0x3fffd {
		return 2
	}
	return 1
}
