package replay

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/security"
)

// maxLine is the longest line of a log that is read, in bytes. Asterisk's own are a few kilobytes; a journal's JSON has
// a dozen fields more.
const maxLine = 1 << 20

var (
	errSkipped   = errors.New("longer than any event")
	errTruncated = errors.New("cut off")
)

// A records is one open recording. Next decodes the next record, a frame or a line, into ev. Its error is nil for an
// event, security.ErrNotSecurity, a *security.TamperError, errSkipped, errTruncated, or final.
type records interface {
	next(ev *security.Event) error
}

func newRecords(r *bufio.Reader, f Format) records {
	switch f {
	case AMI:
		return &frames{splitter: ami.NewSplitter(r, ami.Limits{})}
	case AMILF:
		return &frames{splitter: ami.NewSplitter(&crlf{r: r}, ami.Limits{})}
	}
	return &lines{r: r, json: f == JSON}
}

// frames reads an AMI recording, of one connection or of several after one another.
type frames struct {
	splitter *ami.Splitter
	begun    bool
	half     bool // the recording may have begun inside of a frame
}

func (f *frames) next(ev *security.Event) error {
	frame, err := f.splitter.Next()
	switch {
	case err == nil:
	case err == io.ErrUnexpectedEOF: // the splitter's own; a reader's comes as a *readError
		return errTruncated
	case errors.Is(err, ami.ErrOversize):
		return errSkipped
	default:
		return err
	}
	if !f.begun {
		f.begun, f.half = true, f.splitter.Banner() == ""
	}
	half := f.half
	f.half = false
	if _, rest, ok := ami.CutBanner(frame); ok {
		frame = rest
	}
	err = security.Decode(frame, ev)
	var bad *security.TamperError
	if err != nil && errors.As(err, &bad) && (half && bad.Reason == security.ReasonStray || endsInLogin(frame)) {
		return errTruncated
	}
	return err
}

// endsInLogin says whether a frame is the piece that a lost connection left, and then the beginning of the next
// connection. Nothing is decoded from either: the second is the reply to a login, since no event comes before it.
func endsInLogin(frame string) bool {
	i := strings.LastIndex(frame, bannerPrefix)
	if i < 0 {
		return false
	}
	_, rest, ok := strings.Cut(frame[i:], "\r\n")
	return ok && strings.HasPrefix(rest, "Response: ")
}

// crlf gives an AMI recording back the line ends that an editor took.
type crlf struct {
	r       *bufio.Reader
	pending bool // an LF whose CR was delivered
	last    byte
}

func (c *crlf) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if c.pending {
			p[n], c.pending, c.last = '\n', false, '\n'
			n++
			continue
		}
		if n > 0 && c.r.Buffered() == 0 {
			return n, nil
		}
		b, err := c.r.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if b == '\n' && c.last != '\r' {
			p[n], c.pending = '\r', true
			n++
			continue
		}
		p[n], c.last = b, b
		n++
	}
	return n, nil
}

// lines reads a log. A line ends at LF and nowhere else.
type lines struct {
	r     *bufio.Reader
	buf   []byte
	json  bool // lines that begin with { are JSON objects
	begun bool
}

func (l *lines) next(ev *security.Event) error {
	line, whole, err := l.read()
	if err != nil {
		return err
	}
	first := !l.begun
	l.begun = true
	if l.json && len(line) > 0 && line[0] == '{' {
		err = decodeJSON(line, ev, 0)
	} else {
		err = security.DecodeLine(string(line), ev)
	}
	if err == nil || err == security.ErrNotSecurity {
		return err
	}
	var bad *security.TamperError
	if errors.As(err, &bad) && (!whole || first && bad.Reason == security.ReasonStray) {
		return errTruncated // a log that is being written, or whose beginning was cut
	}
	return err
}

// read returns the next line, and whether it had an end. The line is valid until the next call.
func (l *lines) read() (line []byte, whole bool, err error) {
	line, err = l.r.ReadSlice('\n')
	if err == nil {
		return line, true, nil
	}
	l.buf = append(l.buf[:0], line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.r.ReadSlice('\n')
		if len(l.buf) <= maxLine {
			l.buf = append(l.buf, line...)
		}
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, false, err
	case len(l.buf) > maxLine:
		return nil, false, errSkipped
	case len(l.buf) == 0:
		return nil, false, io.EOF
	}
	return l.buf, err == nil, nil
}

// decodeJSON decodes a line of a JSON log: the message of the journal (journalctl -o json: MESSAGE, a string or a list
// of bytes), of a container's log (docker's json-file: log), of Asterisk's own JSON log (main/logger.c: logmsg.message),
// or of any other object with message. An object may stand in the message of another, twice at most.
func decodeJSON(line []byte, ev *security.Event, depth int) error {
	*ev = security.Event{}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return security.DecodeLine(string(line), ev)
	}
	level, named := text(object["level"])
	msg, ok := "", false
	if inner := object["logmsg"]; inner != nil {
		var logmsg map[string]json.RawMessage
		if json.Unmarshal(inner, &logmsg) == nil {
			level, named = text(logmsg["level"])
			msg, ok = text(logmsg["message"])
		}
	}
	for _, key := range [...]string{"MESSAGE", "message", "log"} {
		if ok {
			break
		}
		msg, ok = text(object[key])
	}
	switch {
	case !ok:
		return security.ErrNotSecurity
	case depth < 2 && strings.HasPrefix(msg, "{"):
		return decodeJSON([]byte(msg), ev, depth+1)
	}
	msg = strings.TrimSuffix(strings.TrimSuffix(msg, "\n"), "\r")
	// A message of another level may begin with anything, such as what a dialplan logs.
	if strings.HasPrefix(msg, `SecurityEvent="`) && (!named || level == "SECURITY") {
		return security.DecodeMessage(msg, ev)
	}
	return security.DecodeLine(msg, ev)
}

// text reads a JSON string, or the list of bytes as which journalctl writes a message that is not UTF-8.
func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s, true
		}
	case '[':
		var b []byte
		if json.Unmarshal(raw, &b) == nil {
			return string(b), true
		}
	}
	return "", false
}
