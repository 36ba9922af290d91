package replay

import (
	"encoding/binary"
	"io"
	"math"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// export reads the Journal Export Format (systemd.io/JOURNAL_EXPORT_FORMATS): entries are parted by empty lines, a
// field is a line NAME=VALUE, or where VALUE is no text or has line breaks, a line NAME, the value's size in 8 bytes,
// and the value.
type export struct {
	lines
}

func (e *export) next(ev *event.Event) (int64, error) {
	*ev = event.Event{}
	msg, at, found := "", int64(0), false
	for any := false; ; any = true {
		line, whole, err := e.read()
		if err == errSkipped {
			continue // a field that is longer than any message
		}
		if err != nil && (err != io.EOF || !any) {
			return 0, err
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if err == io.EOF || text == "" {
			if !found {
				return 0, event.ErrNotSecurity
			}
			o := decodeText(msg, ev)
			if o.err == nil || o.err == event.ErrNotSecurity {
				return o.times, o.err
			}
			number := e.number
			e.number = at
			err := e.judge(o, whole || text == "", false)
			e.number = number
			return 0, err
		}
		name, value, isText := strings.Cut(text, "=")
		if isText {
			if name == "MESSAGE" {
				msg, at, found = value, e.number, true
			}
			continue
		}
		if !only(name, isField) {
			return 0, e.damaged(text)
		}
		begun := e.number
		value, ok, err := e.binary(name == "MESSAGE")
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return 0, errTruncated
		case err != nil:
			return 0, err
		case !ok:
			return 0, e.damaged(text)
		case name == "MESSAGE":
			msg, at, found = value, begun, true
		}
	}
}

func (e *export) damaged(text string) error {
	return &unclearError{Unclear{Line: e.number, Why: whyBinary, Try: tryExport, Excerpt: cutName(text, excerptBytes)}}
}

// binary reads a value with its size before it, and the line's end after it. The value is returned only if it is kept.
func (e *export) binary(keep bool) (value string, ok bool, err error) {
	var size [8]byte
	if _, err := io.ReadFull(e.r, size[:]); err != nil {
		return "", false, err
	}
	n := binary.LittleEndian.Uint64(size[:])
	if n > math.MaxInt32 {
		return "", false, nil
	}
	if keep && n <= maxLine {
		b := make([]byte, n)
		if _, err := io.ReadFull(e.r, b); err != nil {
			return "", false, err
		}
		value = string(b)
		e.number += int64(strings.Count(value, "\n"))
	} else if _, err := io.CopyN(io.Discard, e.r, int64(n)); err != nil {
		return "", false, err
	}
	end, err := e.r.ReadByte()
	e.number++
	return value, err == nil && end == '\n', err
}

// isField says whether a byte is of a journal field's name.
func isField(c byte) bool { return isDigit(c) || c >= 'A' && c <= 'Z' || c == '_' }
