package replay

import (
	"errors"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// Unclear is the first of a file's records that were not understood. They are of events, but mangled, or within
// something that is not known. They accuse nobody.
type Unclear struct {
	Line    int64  `json:"line,omitempty"` // counted from 1; 0 where it is not known
	Why     string `json:"why"`            // of a bounded set
	Try     string `json:"try"`            // likewise
	Excerpt string `json:"excerpt"`        // its beginning, raw: escape it before it reaches a terminal
}

// excerptBytes is how much of a record is shown. What stands around the event stands at the beginning.
const excerptBytes = 160

type unclearError struct{ Unclear }

func (e *unclearError) Error() string { return "not understood: " + e.Why }

var (
	errUnknown = errors.New("an event in a form that is not known")
	errBlob    = errors.New("left out by journalctl")
	errFolded  = errors.New("left out by syslog")
)

const (
	whyBlob    = "journalctl left the text out, since it has colours or other bytes that do not print"
	whyFolded  = "syslog left out events that were equal to the one before"
	whyShape   = "something stands around the event that is not known"
	whyCut     = "the event ends early"
	whyOrder   = "fields of the event are missing or stand in another order"
	whyValue   = "a value is not as Asterisk writes it"
	whyTime    = "the time is not as Asterisk writes it, or from before 1971"
	whyAddress = "an address is not as Asterisk writes it"
	whyBytes   = "it is not UTF-8, or has control characters"
	whyPiece   = "it is a piece of an event, or has its fields and is another"
	whyBinary  = "the journal's binary data are damaged"

	tryBlob   = "try journalctl -o json or -o export instead, or add --all"
	tryFolded = "try the file that Asterisk itself writes, or tell syslog to write each message"
	tryLog    = "try the file that Asterisk itself writes (security in logger.conf), or journalctl -o json"
	tryWhole  = "try the file itself instead of a copy from a terminal, a mail or a form, which cut and wrap lines"
	tryValues = "try the file itself, before anything in it was replaced"
	tryAMI    = "try the recording itself, as it came from the socket"
	tryExport = "try journalctl -o export again, and do not edit or copy its output as text"
)

// explainUnclear says why a record was not understood, and what to try.
func explainUnclear(text string, err error) (why, try string) {
	var bad *event.TamperError
	switch {
	case err == errBlob:
		return whyBlob, tryBlob
	case err == errFolded:
		return whyFolded, tryFolded
	case !errors.As(err, &bad):
		return whyShape, tryLog
	}
	switch bad.Reason {
	case event.ReasonStray:
		if !strings.Contains(text, eventKey) {
			return whyPiece, tryWhole
		}
	case event.ReasonTruncated:
		return whyCut, tryWhole
	case event.ReasonOrder:
		return whyOrder, tryWhole
	case event.ReasonValue:
		return whyValue, tryValues
	case event.ReasonTime:
		return whyTime, tryValues
	case event.ReasonAddress:
		return whyAddress, tryValues
	case event.ReasonUTF8, event.ReasonControl:
		return whyBytes, tryLog
	}
	return whyShape, tryLog
}

func newUnclearError(line int64, text string, err error) *unclearError {
	why, try := explainUnclear(text, err)
	return &unclearError{Unclear{Line: line, Why: why, Try: try,
		Excerpt: shortenName(strings.TrimSpace(text), excerptBytes)}}
}

// isForged says whether nobody but an attacker can have made a line of a log that is no event of Asterisk's: a field
// that stands twice in one event, a line break within a whole one, or text that poses as an event in another message.
func isForged(text string, bad *event.TamperError) bool {
	switch bad.Reason {
	case event.ReasonStray:
		return posesAsEvent(text)
	case event.ReasonControl:
		return true
	}
	return strings.Count(text, eventKey+`="`) == 1 && repeatsField(text)
}

// posesAsEvent says whether a line is another message of Asterisk's that has an event within.
func posesAsEvent(text string) bool {
	head, _, _ := strings.Cut(text, `"`)
	if !strings.HasSuffix(head, eventKey+"=") {
		return false
	}
	for _, level := range [...]string{"NOTICE[", "WARNING[", "ERROR[", "VERBOSE[", "DEBUG[", "DTMF["} {
		i := strings.Index(head, level)
		if i < 0 || i > 0 && head[i-1] != ' ' {
			continue
		}
		if j := strings.Index(head, "SECURITY["); j >= 0 && j < i {
			continue
		}
		rest := head[i+len(level):]
		if n := leadingDigits(rest); n > 0 && strings.HasPrefix(rest[n:], "]") {
			return true
		}
	}
	return false
}

// repeatsField says whether a line has one field of an event twice.
func repeatsField(text string) bool {
	var keys []string
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, `",`)
		if !ok || len(keys) > 64 {
			return false
		}
		rest = after
		key, _, ok := strings.Cut(rest, `="`)
		if !ok || len(key) > 32 || !consistsOf(key, isLetter) {
			continue
		}
		if slices.Contains(keys, key) {
			return true
		}
		keys = append(keys, key)
	}
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isPeerChosen says whether a peer chooses the value of a field.
func isPeerChosen(key string) bool {
	switch key {
	case "AccountID", "SessionID", "Challenge", "Response", "ReceivedChallenge", "ReceivedHash", "RequestType",
		"RequestParams":
		return true
	}
	return false
}

// endsInPeerValue says whether a line ends within a value that a peer chose, as what is left before an injected line
// break does.
func endsInPeerValue(text string) bool {
	i := strings.LastIndex(text, `="`)
	if i < 0 || strings.HasSuffix(text[i+2:], `"`) {
		return false
	}
	return isPeerChosen(text[strings.LastIndexByte(text[:i], ',')+1 : i])
}

// halfEvent is the first half of an event in whose value there is a line break. Whether a person put it there or an
// attacker shows only with what comes after.
type halfEvent struct {
	err    *unclearError
	length int   // bytes of the line
	line   int64 // its number
}

// maxBreaks is how many lines after its first half an event goes on at the latest.
const maxBreaks = 8

// judgeLine judges a line that is no event: err is errTruncated, a *event.TamperError or a *unclearError.
func (l *logLines) judgeLine(o lineOutcome, whole, first bool) error {
	var bad *event.TamperError
	tampered := errors.As(o.err, &bad)
	closed := strings.HasSuffix(strings.TrimRight(o.text, " \t\r\n"), `"`)
	switch {
	case tampered && !whole && (bad.Reason == event.ReasonTruncated || !closed),
		tampered && first && bad.Reason == event.ReasonStray && !strings.Contains(o.text, eventKey+"="):
		return errTruncated // a log that is being written, or whose beginning was cut
	case o.posed || tampered && isForged(o.text, bad):
		return o.err
	}
	return newUnclearError(l.lastLine, o.line, o.err)
}

// pairHalves looks for the two halves of an event in whose value there is a line break, and returns what is to be
// said of the line that was just read. That is nil, for nothing yet, after a first half.
//
// Who copies lines out of a terminal or a mail breaks them too, but all that are as long. So it is tampering where a
// longer line is whole.
func (l *logLines) pairHalves(o lineOutcome, length int, err error) error {
	var bad *event.TamperError
	tampered := errors.As(o.err, &bad)
	var un *unclearError
	var opened *halfEvent
	if tampered && bad.Reason == event.ReasonTruncated && errors.As(err, &un) && endsInPeerValue(o.text) {
		opened = &halfEvent{un, length, l.lastLine}
	}
	before := l.firstHalf
	if before == nil {
		if l.firstHalf = opened; opened != nil {
			return nil
		}
		return err
	}
	continues := tampered && bad.Reason == event.ReasonStray && !strings.Contains(o.text, eventKey+`="`)
	switch {
	case continues && before.length < l.longestEvent:
		l.firstHalf = nil
		return &event.TamperError{Reason: event.ReasonControl, Line: bad.Line}
	case err == event.ErrNotSecurity && l.lastLine-before.line < maxBreaks:
		return err
	}
	if l.firstHalf = opened; opened != nil {
		return before.err
	}
	l.nextErr = before.err
	return err
}
