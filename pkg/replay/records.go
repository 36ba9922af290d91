package replay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// maxLine is the longest line of a log that is read, in bytes. Asterisk's own are a few kilobytes; a journal's JSON has
// a dozen fields more.
const maxLine = 1 << 20

var (
	errSkipped   = errors.New("longer than any event")
	errTruncated = errors.New("cut off")
)

// A records is one open recording. Next decodes the next record, a frame or a line, into ev, and says how often it
// stands there for. Its error is nil for an event, event.ErrNotSecurity, a *security.TamperError for what nobody
// but an attacker makes, an *unclearError for what else is no event and has parts of one, errSkipped, errTruncated,
// or final.
type records interface {
	next(ev *event.Event) (times int64, err error)
	// place is the number of the line where the last record begins, counted from 1, or 0 where it is not known.
	place() int64
}

func newRecords(r *bufio.Reader, f Format) records {
	switch f {
	case AMI:
		t := &tail{r: r}
		return &frames{splitter: ami.NewSplitter(t, ami.Limits{}), tail: t}
	case AMILF:
		t := &tail{r: &mender{r: r}}
		return &frames{splitter: ami.NewSplitter(t, ami.Limits{}), tail: t, edited: true}
	case Journal:
		return &export{lines: lines{r: r}}
	}
	return &lines{r: r, json: f == JSON}
}

// frames reads an AMI recording, of one connection or of several after one another.
type frames struct {
	splitter *ami.Splitter
	tail     *tail
	begun    bool
	half     bool // the recording may have begun inside of a frame
	edited   bool // by a program that changes ends of lines: then anything may be missing
	mended   bool // blanks at ends of lines had to be put back
	held     *held
	at       int64 // line where the last frame begins; 0 once it is not known
	line     int64 // that was read last; negative once it is not known
}

func (f *frames) place() int64 { return f.at }

// held is a frame that was read to see whether there is another.
type held struct {
	frame string
	err   error
}

func (f *frames) read() (string, error) {
	if h := f.held; h != nil {
		f.held = nil
		return h.frame, h.err
	}
	return f.splitter.Next()
}

func (f *frames) next(ev *event.Event) (int64, error) {
	frame, err := f.read()
	switch {
	case err == nil:
	case err == io.ErrUnexpectedEOF: // the splitter's own; a reader's comes as a *readError
		return 0, errTruncated
	case errors.Is(err, ami.ErrOversize):
		f.line = -1
		return 0, errSkipped
	default:
		return 0, err
	}
	if !f.begun {
		f.begun, f.half = true, f.splitter.Banner() == ""
		if !f.half && f.line >= 0 {
			f.line++
		}
	}
	f.at = 0
	if f.line >= 0 {
		f.at = f.line + 1
		f.line += int64(strings.Count(frame, "\n")) + 2
	}
	half := f.half
	f.half = false
	if _, rest, ok := ami.CutBanner(frame); ok {
		frame = rest
	}
	err = event.Decode(frame, ev)
	if err == nil {
		return 1, nil
	}
	var bad *event.TamperError
	if !errors.As(err, &bad) {
		if strings.HasPrefix(frame, "Event: ") && !strings.Contains(frame, "\n") && f.last() {
			return 0, errTruncated
		}
		return 0, err
	}
	if !f.edited {
		if whole := mend(frame); whole != frame && event.Decode(whole, ev) == nil {
			f.mended = true
			return 1, nil
		}
	}
	switch {
	case half && bad.Reason == event.ReasonStray, endsInLogin(frame), f.last():
		return 0, errTruncated
	case !f.edited && !f.mended && injected(frame, bad):
		return 0, err
	}
	u := unclear(f.at, frame, err)
	if u.Try != tryValues {
		u.Try = tryAMI
	}
	return 0, u
}

// last says whether the frame that was read last is the last, and the recording ended within it.
func (f *frames) last() bool {
	if !f.tail.added {
		return false
	}
	frame, err := f.read()
	f.held = &held{frame, err}
	return err == io.EOF
}

// injected says whether nobody but an attacker can have made a frame that is no event of Asterisk's, in a recording
// that is as it came: with a CR within a line, with a header that stands twice, without a beginning, or broken right
// after what a peer chose.
func injected(frame string, bad *event.TamperError) bool {
	if bad.Reason == event.ReasonControl || bad.Reason == event.ReasonStray {
		return true
	}
	lines := strings.Split(frame, "\r\n")
	var keys []string
	for _, line := range lines[:min(len(lines), 100)] {
		key, _, ok := strings.Cut(line, ": ")
		if !ok && line != "" || slices.Contains(keys, key) {
			return true
		}
		keys = append(keys, key)
	}
	n := bad.Line
	if bad.Reason != event.ReasonOrder || n < 2 || n > len(keys) {
		return false
	}
	return chosen(keys[n-2]) || n == len(keys) && chosen(keys[n-1])
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

// lines reads a log. A line ends at LF and nowhere else.
type lines struct {
	r       *bufio.Reader
	buf     []byte
	json    bool // lines that begin with { or [ are JSON
	begun   bool
	number  int64 // of the line that was read last
	event   bool  // the last line was one
	longest int   // event that was whole, in characters
	half    *half // an event that may go on in the next line
	late    error // to be said before anything else is read
	queue   []value
	again   [][]byte // lines that were read ahead
}

func (l *lines) place() int64 { return l.number }

func (l *lines) next(ev *event.Event) (int64, error) {
	for {
		if err := l.late; err != nil {
			l.late = nil
			*ev = event.Event{}
			return 0, err
		}
		if len(l.queue) > 0 {
			o := l.pop(ev)
			if o.err == nil || o.err == event.ErrNotSecurity {
				return o.times, o.err
			}
			return 0, l.judge(o, true, false)
		}
		line, whole, err := l.read()
		if err != nil {
			if l.half != nil {
				err, l.half, l.late = l.half.err, nil, err
			}
			return 0, err
		}
		first := !l.begun
		l.begun = true
		o := l.decode(line, ev)
		if o.err == event.ErrNotSecurity && l.event && isFolded(o.line) {
			o.err = errFolded
		}
		err, l.event = o.err, o.err == nil
		if err == nil && len(line) > l.longest {
			l.longest = max(l.longest, utf8.RuneCount(line))
		}
		if err != nil && err != event.ErrNotSecurity {
			err = l.judge(o, whole, first)
		} else if l.half == nil {
			return o.times, err
		}
		said := l.pair(o, len(line), err)
		if said == nil && err != nil {
			continue
		}
		return o.times, said
	}
}

func (l *lines) decode(line []byte, ev *event.Event) outcome {
	if l.json && len(line) > 0 {
		if o, ok := l.decodePretty(line, ev); ok {
			return o
		}
		object := trimJSON(line)
		if n := len(object); n > 0 && (object[0] == '{' || object[0] == '[' && object[n-1] == ']') {
			return l.decodeJSON(object, ev)
		}
	}
	return decodeText(string(line), ev)
}

// trimJSON trims what stands around an object on a line of its own: blanks and the comma of a list over several lines,
// the marks of journalctl -o json-seq (RFC 7464) and -o json-sse, and the file's name of grep.
func trimJSON(line []byte) []byte {
	if line[0] == '{' && line[len(line)-1] == '}' {
		return line
	}
	line = bytes.TrimRight(line, " \t\r\n,")
	line = bytes.TrimLeft(line, " \t\x1e")
	line = bytes.TrimPrefix(line, []byte("data: "))
	if i := bytes.IndexByte(line, '{'); i > 0 && i <= 1024 && line[0] != '[' && line[0] != '"' {
		if rest, ok := cutFile(string(line[:i+1])); ok && rest == "{" {
			line = line[i:]
		}
	}
	return line
}

// read returns the next line, and whether it had an end. The line is valid until the next call.
func (l *lines) read() (line []byte, whole bool, err error) {
	l.number++
	if len(l.again) > 0 {
		line, l.again = l.again[0], l.again[1:]
		return line, true, nil
	}
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
