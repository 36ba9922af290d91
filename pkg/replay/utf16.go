package replay

import (
	"bufio"
	"bytes"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// utf16Order says whether b begins as UTF-16, with a byte order mark or without, as PowerShell's > writes text, and
// whether it is big endian.
func utf16Order(b []byte) (is, big bool) {
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		return true, false
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return true, true
	case len(b) < 8:
		return false, false
	}
	little, large := true, true
	for i := 0; i < 8; i += 2 {
		little = little && b[i] != 0 && b[i+1] == 0
		large = large && b[i] == 0 && b[i+1] != 0
	}
	return little || large, large
}

// utf16Reader reads UTF-16 as UTF-8.
type utf16Reader struct {
	r   *bufio.Reader
	big bool
	out []byte
	buf [utf8.UTFMax]byte
}

func (n *utf16Reader) Read(p []byte) (int, error) {
	done := copy(p, n.out)
	n.out = n.out[done:]
	for done < len(p) {
		if done > 0 && n.r.Buffered() < 4 {
			return done, nil
		}
		c, err := n.readRune()
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		if c == 0xfeff { // the byte order mark
			continue
		}
		n.out = utf8.AppendRune(n.buf[:0], c)
		k := copy(p[done:], n.out)
		n.out = n.out[k:]
		done += k
	}
	return done, nil
}

// readRune reads one character; half of one is U+FFFD.
func (n *utf16Reader) readRune() (rune, error) {
	c, err := n.readUnit()
	if err != nil || !utf16.IsSurrogate(c) {
		return c, err
	}
	b, err := n.r.Peek(2)
	if len(b) < 2 {
		if err == io.EOF {
			err = nil
		}
		return utf8.RuneError, err
	}
	if pair := utf16.DecodeRune(c, n.unitOf(b)); pair != utf8.RuneError {
		_, err = n.r.Discard(2)
		return pair, err
	}
	return utf8.RuneError, nil
}

func (n *utf16Reader) readUnit() (rune, error) {
	var b [2]byte
	if _, err := io.ReadFull(n.r, b[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return 0, err
	}
	return n.unitOf(b[:]), nil
}

func (n *utf16Reader) unitOf(b []byte) rune {
	if n.big {
		return rune(b[0])<<8 | rune(b[1])
	}
	return rune(b[1])<<8 | rune(b[0])
}
