package replay

import (
	"encoding/binary"
	"io"
	"math"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// journalEntries reads the Journal Export Format (systemd.io/JOURNAL_EXPORT_FORMATS): entries are parted by empty
// lines, a field is a line NAME=VALUE, or where VALUE is no text or has line breaks, a line NAME, the value's size in
// 8 bytes, and the value.
type journalEntries struct {
	logLines
}

func (e *journalEntries) next(ev *event.Event) (int64, error) {
	*ev = event.Event{}
	msg, at, found := "", int64(0), false
	for any := false; ; any = true {
		line, whole, err := e.readLine()
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
				return o.repeats, o.err
			}
			number := e.lastLine
			e.lastLine = at
			err := e.judgeLine(o, whole || text == "", false)
			e.lastLine = number
			return 0, err
		}
		name, value, isText := strings.Cut(text, "=")
		if isText {
			if name == "MESSAGE" {
				msg, at, found = value, e.lastLine, true
			}
			continue
		}
		if !consistsOf(name, isFieldNameByte) {
			return 0, e.damagedError(text)
		}
		begun := e.lastLine
		value, ok, err := e.readBinaryValue(name == "MESSAGE")
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return 0, errTruncated
		case err != nil:
			return 0, err
		case !ok:
			return 0, e.damagedError(text)
		case name == "MESSAGE":
			msg, at, found = value, begun, true
		}
	}
}

func (e *journalEntries) damagedError(text string) error {
	return &unclearError{Unclear{Line: e.lastLine, Why: whyBinary, Try: tryExport,
		Excerpt: shortenName(text, excerptBytes)}}
}

// readBinaryValue reads a value with its size before it, and the line's end after it. Where keep is false, it skips the
// value and returns "".
func (e *journalEntries) readBinaryValue(keep bool) (value string, ok bool, err error) {
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
		e.lastLine += int64(strings.Count(value, "\n"))
	} else if _, err := io.CopyN(io.Discard, e.r, int64(n)); err != nil {
		return "", false, err
	}
	end, err := e.r.ReadByte()
	e.lastLine++
	return value, err == nil && end == '\n', err
}

// isFieldNameByte says whether a byte is of a journal field's name.
func isFieldNameByte(c byte) bool { return isDigit(c) || c >= 'A' && c <= 'Z' || c == '_' }
