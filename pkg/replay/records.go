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

// recordReader reads the records of one recording, frames or lines. next decodes the next record into ev, and says
// how many equal ones it stands for. Its error is nil for an event; event.ErrNotSecurity for what is none; a
// *event.TamperError for what nobody but an attacker makes; an *unclearError for what is no event and yet has parts
// of one; errSkipped; errTruncated; and any other is final.
type recordReader interface {
	next(ev *event.Event) (times int64, err error)
	// lineNumber is the number of the line where the last record begins, counted from 1, or 0 where it is not known.
	lineNumber() int64
}

func newRecordReader(r *bufio.Reader, f Format) recordReader {
	switch f {
	case AMI:
		t := &endingReader{r: r}
		return &amiFrames{splitter: ami.NewSplitter(t, ami.Limits{}), tail: t}
	case AMILF:
		t := &endingReader{r: &lineMender{r: r}}
		return &amiFrames{splitter: ami.NewSplitter(t, ami.Limits{}), tail: t, edited: true}
	case Journal:
		return &journalEntries{logLines: logLines{r: r}}
	}
	return &logLines{r: r, json: f == JSON}
}

// amiFrames reads an AMI recording, of one connection or of several after one another.
type amiFrames struct {
	splitter     *ami.Splitter
	tail         *endingReader
	begun        bool // the first frame was read
	startsInside bool // the recording may have begun inside of a frame
	edited       bool // by a program that changes ends of lines: then anything may be missing
	blanksMended bool // blanks at ends of lines had to be put back
	peeked       *peekedFrame
	frameLine    int64 // number of the line where the last frame begins; 0 once it is not known
	lastLine     int64 // number of the line that was read last; negative once it is not known
}

func (f *amiFrames) lineNumber() int64 { return f.frameLine }

// peekedFrame is a frame that was read to see whether there is another.
type peekedFrame struct {
	frame string
	err   error
}

func (f *amiFrames) readFrame() (string, error) {
	if h := f.peeked; h != nil {
		f.peeked = nil
		return h.frame, h.err
	}
	return f.splitter.Next()
}

func (f *amiFrames) next(ev *event.Event) (int64, error) {
	frame, err := f.readFrame()
	switch {
	case err == nil:
	case err == io.ErrUnexpectedEOF: // the splitter's own; a reader's comes as a *readError
		return 0, errTruncated
	case errors.Is(err, ami.ErrOversize):
		f.lastLine = -1
		return 0, errSkipped
	default:
		return 0, err
	}
	if !f.begun {
		f.begun, f.startsInside = true, f.splitter.Banner() == ""
		if !f.startsInside && f.lastLine >= 0 {
			f.lastLine++
		}
	}
	f.frameLine = 0
	if f.lastLine >= 0 {
		f.frameLine = f.lastLine + 1
		f.lastLine += int64(strings.Count(frame, "\n")) + 2
	}
	half := f.startsInside
	f.startsInside = false
	if _, rest, ok := ami.CutBanner(frame); ok {
		frame = rest
	}
	err = event.Decode(frame, ev)
	if err == nil {
		return 1, nil
	}
	var bad *event.TamperError
	if !errors.As(err, &bad) {
		if strings.HasPrefix(frame, "Event: ") && !strings.Contains(frame, "\n") && f.isCutOff() {
			return 0, errTruncated
		}
		return 0, err
	}
	if !f.edited {
		if whole := mendFrame(frame); whole != frame && event.Decode(whole, ev) == nil {
			f.blanksMended = true
			return 1, nil
		}
	}
	switch {
	case half && bad.Reason == event.ReasonStray, endsInLogin(frame), f.isCutOff():
		return 0, errTruncated
	case !f.edited && !f.blanksMended && isInjected(frame, bad):
		return 0, err
	}
	u := newUnclearError(f.frameLine, frame, err)
	if u.Try != tryValues {
		u.Try = tryAMI
	}
	return 0, u
}

// isCutOff says whether the frame that was read last is the last, and the recording ended within it.
func (f *amiFrames) isCutOff() bool {
	if !f.tail.added {
		return false
	}
	frame, err := f.readFrame()
	f.peeked = &peekedFrame{frame, err}
	return err == io.EOF
}

// isInjected says whether nobody but an attacker can have made a frame that is no event of Asterisk's, in a recording
// that is as it came: with a CR within a line, with a header that stands twice, without a beginning, or broken right
// after what a peer chose.
func isInjected(frame string, bad *event.TamperError) bool {
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
	return isPeerChosen(keys[n-2]) || n == len(keys) && isPeerChosen(keys[n-1])
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

// logLines reads a log. A line ends at LF and nowhere else.
type logLines struct {
	r            *bufio.Reader
	buf          []byte // of a line that is longer than r's buffer
	json         bool   // lines that begin with { or [ are JSON
	begun        bool   // the first line was read
	lastLine     int64  // number of the line that was read last
	lastWasEvent bool
	longestEvent int           // of those in one line, in characters
	firstHalf    *halfEvent    // an event that may go on in the next line
	nextErr      error         // to be returned before anything else is read
	pending      []pendingJSON // parts of the line that was read last; the next one is the last
	readAhead    [][]byte      // lines to be read again
}

func (l *logLines) lineNumber() int64 { return l.lastLine }

func (l *logLines) next(ev *event.Event) (int64, error) {
	for {
		if err := l.nextErr; err != nil {
			l.nextErr = nil
			*ev = event.Event{}
			return 0, err
		}
		if len(l.pending) > 0 {
			o := l.decodePending(ev)
			if o.err == nil || o.err == event.ErrNotSecurity {
				return o.repeats, o.err
			}
			return 0, l.judgeLine(o, true, false)
		}
		line, whole, err := l.readLine()
		if err != nil {
			if l.firstHalf != nil {
				err, l.firstHalf, l.nextErr = l.firstHalf.err, nil, err
			}
			return 0, err
		}
		first := !l.begun
		l.begun = true
		o := l.decodeLine(line, ev)
		if o.err == event.ErrNotSecurity && l.lastWasEvent && isFolded(o.line) {
			o.err = errFolded
		}
		err, l.lastWasEvent = o.err, o.err == nil
		if err == nil && len(line) > l.longestEvent {
			l.longestEvent = max(l.longestEvent, utf8.RuneCount(line))
		}
		if err != nil && err != event.ErrNotSecurity {
			err = l.judgeLine(o, whole, first)
		} else if l.firstHalf == nil {
			return o.repeats, err
		}
		said := l.pairHalves(o, len(line), err)
		if said == nil && err != nil {
			continue
		}
		return o.repeats, said
	}
}

func (l *logLines) decodeLine(line []byte, ev *event.Event) lineOutcome {
	if l.json && len(line) > 0 {
		if o, ok := l.decodePrettyJSON(line, ev); ok {
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

// readLine returns the next line, and whether it had an end. The line is valid until the next call.
func (l *logLines) readLine() (line []byte, whole bool, err error) {
	l.lastLine++
	if len(l.readAhead) > 0 {
		line, l.readAhead = l.readAhead[0], l.readAhead[1:]
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
