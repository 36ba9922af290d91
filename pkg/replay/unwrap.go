package replay

import (
	"encoding/csv"
	"encoding/json"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

const (
	// maxWraps is how many wrappers are taken off one line: grep over a container's log of syslog has four.
	maxWraps = 8
	// maxRepeats is how often one line is played at most, whatever syslog says. It sends what it has counted after
	// minutes at the latest.
	maxRepeats = 10_000
	// maxColumns is how many columns a table with a log in it may have. Asterisk's own CSV of calls, where callers
	// choose whole columns, has sixteen at least.
	maxColumns = 8
)

const eventKey = "SecurityEvent"

// lineOutcome is what the decoding of a line came to.
type lineOutcome struct {
	repeats int64  // how many equal events it stands for
	line    string // as it is
	text    string // without the wrappers that were found
	posed   bool   // it poses as an event, in a message that says that it is another
	err     error
}

// decodeText decodes a line of a log, also behind and within what other programs put around it.
//
// A wrapper is recognised at the beginning or the end of the line and by its whole form, and what is left goes
// through the same strict decoder, however many there were. So a wrapper within a peer's text changes nothing that
// the peer could not have written at once, and a second address in a line is refused as ever.
func decodeText(line string, ev *event.Event) lineOutcome {
	o := lineOutcome{repeats: 1, line: line, text: line, err: event.DecodeLine(line, ev)}
	if o.err == nil || o.err == event.ErrNotSecurity && !strings.Contains(line, eventKey) {
		if o.err != nil && isBlob(line) {
			o.err = errBlob
		}
		return o
	}
	var used seenWrappers
	for range maxWraps {
		text, ok := used.unwrapOne(o.text, &o.repeats)
		if !ok {
			break
		}
		o.text = text
		if err := event.DecodeLine(text, ev); err == nil || err != event.ErrNotSecurity {
			o.err = err
		}
		if o.err == nil {
			break
		}
	}
	if o.err == event.ErrNotSecurity && strings.Contains(o.text, eventKey+"=") {
		o.err = errUnknown
	}
	if o.err != nil && isBlob(o.text) {
		o.err = errBlob
	}
	return o
}

// seenWrappers are the wrappers that were taken off a line, of those that stand around it once at most.
type seenWrappers struct{ file, json, colour, repeated bool }

// unwrapOne takes one wrapper off a line, the outermost first.
func (w *seenWrappers) unwrapOne(s string, times *int64) (string, bool) {
	if t := trimEnds(s); t != s {
		return t, true
	}
	if t, ok := cutLinePrefix(s); ok {
		return t, true
	}
	if t, ok := cutSyslog(s); ok {
		return t, true
	}
	if !w.repeated {
		if t, n, ok := cutRepeated(s); ok {
			w.repeated = true
			*times = n
			return t, true
		}
	}
	if !w.json {
		if t, ok := cutJSONKey(s); ok {
			w.json = true
			return t, true
		}
	}
	if t, ok := cutTable(s); ok {
		return t, true
	}
	if t, ok := restoreQuotes(s); ok {
		return t, true
	}
	if !w.file {
		if t, ok := cutFile(s); ok {
			w.file = true
			return t, true
		}
	}
	if !w.colour {
		w.colour = true
		if t := event.StripColours(s); t != s {
			return t, true
		}
	}
	return s, false
}

// trimEnds removes what editors, terminals and cat -A leave at a line's ends: blanks, a byte order mark, CRs, $.
func trimEnds(s string) string {
	s = strings.TrimPrefix(trimIndent(s), "\ufeff")
	s = strings.TrimRight(s, " \t\r\n")
	if t, ok := strings.CutSuffix(s, "$"); ok {
		t = strings.TrimSuffix(t, "^M")
		if strings.HasSuffix(t, `"`) || strings.HasSuffix(t, `"]`) {
			return t
		}
	}
	if t, ok := strings.CutSuffix(s, "^M"); ok && strings.HasSuffix(t, `"`) {
		return t
	}
	return s
}

// trimIndent removes a few blanks or tabs at a line's beginning. Where there are more, journalctl goes on with a
// message of several lines, which somebody may have put there.
func trimIndent(s string) string {
	const most = 8
	if t := strings.TrimLeft(s, " \t"); len(s)-len(t) <= most {
		return t
	}
	return s
}

// cutLinePrefix cuts what programs put before each line that they pass on: kubectl logs --prefix, docker compose,
// journalctl
// -o verbose and -o short-monotonic, the labels of logcli.
func cutLinePrefix(s string) (string, bool) {
	const message = "MESSAGE=" // of the journal's fields
	if t, ok := strings.CutPrefix(s, message); ok {
		return t, true
	}
	if t, ok := strings.CutPrefix(s, "["); ok {
		mark, t, ok := strings.Cut(t, "] ")
		if !ok || len(mark) > 256 {
			return s, false
		}
		switch {
		case strings.Contains(mark, "/") && consistsOf(mark, isNameByte): // [pod/asterisk-0/asterisk]
			return t, true
		case strings.Contains(mark, ".") && consistsOf(strings.TrimLeft(mark, " "), isDecimal): // [   12.345678]
			return t, true
		}
		return s, false
	}
	name, t, ok := strings.Cut(s, "|") // asterisk-1   |
	if name = strings.TrimRight(name, " "); ok && name != "" && len(name) <= 256 && consistsOf(name, isNameByte) {
		return strings.TrimLeft(t, " "), true
	}
	stamp, t, ok := strings.Cut(s, " {") // 2025-05-21T14:53:30Z {job="asterisk"}
	if ok && stamp != "" && len(stamp) <= 64 && consistsOf(stamp, isNameByte) {
		if t, ok := cutPairs(t, '}'); ok && strings.HasPrefix(t, " ") {
			return strings.TrimLeft(t, " "), true
		}
	}
	return s, false
}

// cutSyslog makes a message of RFC 5424 one without structured data and byte order mark, which the decoder knows, and
// cuts the count of bytes that RFC 6587 puts before one.
func cutSyslog(s string) (string, bool) {
	if n := leadingDigits(s); n > 0 && n <= 6 && strings.HasPrefix(s[n:], " <") {
		return s[n+1:], true
	}
	if !strings.HasPrefix(s, "<") {
		return s, false
	}
	end := 0
	for range 6 { // <PRI>1 TIME HOST APP PROCID MSGID
		i := strings.IndexByte(s[end:], ' ')
		if i <= 0 || end+i > 400 {
			return s, false
		}
		end += i + 1
	}
	head := s[:end]
	if _, after, ok := strings.Cut(head, ">"); !ok || !strings.HasPrefix(after, "1 ") ||
		strings.ContainsAny(head, `"[`) {
		return s, false
	}
	rest := s[end:]
	if t, ok := strings.CutPrefix(rest, "- \ufeff"); ok {
		return head + "- " + t, true
	}
	found := false
	for strings.HasPrefix(rest, "[") {
		id := 1
		for id < len(rest) && isNameByte(rest[id]) {
			id++
		}
		t, ok := cutPairs(strings.TrimPrefix(rest[id:], " "), ']')
		if !ok || id == 1 {
			return s, false
		}
		rest, found = t, true
	}
	if !found || !strings.HasPrefix(rest, " ") {
		return s, false
	}
	return head + "- " + strings.TrimPrefix(rest[1:], "\ufeff"), true
}

// cutPairs cuts KEY="VALUE" pairs, parted by blanks or commas, and the end after them. A backslash keeps the character
// behind it from ending a value (RFC 5424 6.3.3; Go's quotes are the same in this).
func cutPairs(s string, end byte) (rest string, ok bool) {
	for {
		if s != "" && s[0] == end {
			return s[1:], true
		}
		i := 0
		for i < len(s) && isNameByte(s[i]) {
			i++
		}
		if i == 0 || !strings.HasPrefix(s[i:], `="`) {
			return s, false
		}
		i += 2
		for i < len(s) && s[i] != '"' {
			if s[i] == '\\' {
				i++
			}
			i++
		}
		if i >= len(s) {
			return s, false
		}
		s = strings.TrimLeft(s[i+1:], ", ")
	}
}

// cutRepeated undoes what rsyslog makes of equal messages: "message repeated 3 times: [ THE MESSAGE]".
func cutRepeated(s string) (line string, times int64, ok bool) {
	const before = "message repeated "
	head, rest, found := strings.Cut(s, before)
	if !found || len(head) > 256 || head != "" && !strings.HasSuffix(head, ": ") {
		return s, 0, false
	}
	n := leadingDigits(rest)
	if n == 0 || n > 9 {
		return s, 0, false
	}
	for _, c := range rest[:n] {
		times = times*10 + int64(c-'0')
	}
	msg, found := strings.CutPrefix(rest[n:], " times: [")
	msg, closed := strings.CutSuffix(msg, "]")
	if !found || !closed || times == 0 {
		return s, 0, false
	}
	return head + strings.TrimPrefix(msg, " "), times, true
}

// cutJSONKey takes the text out of a line of JSON that was printed over many lines (journalctl -o json-pretty):
// "KEY": "TEXT",
func cutJSONKey(s string) (string, bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, false
	}
	key, rest, ok := strings.Cut(s[1:], `"`)
	if !ok || !isTextKey(key) {
		return s, false
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), ":")
	if !ok {
		return s, false
	}
	var t string
	rest = strings.TrimSuffix(strings.TrimLeft(rest, " \t"), ",")
	if !strings.HasPrefix(rest, `"`) || json.Unmarshal([]byte(rest), &t) != nil {
		return s, false
	}
	return trimEnds(t), true
}

// cutTable takes a log's line out of a line of CSV, where quotation marks are doubled: out of the one field that has
// an event. The others must be what a table of a log has, times, names and labels: a comma in another message of
// Asterisk's, and what a peer has after it, are no table.
func cutTable(s string) (string, bool) {
	if !strings.Contains(s, eventKey+`=""`) {
		return s, false
	}
	for _, comma := range [...]rune{',', ';', '\t'} {
		r := csv.NewReader(strings.NewReader(s))
		r.Comma = comma
		row, err := r.Read()
		if err != nil || len(row) > maxColumns {
			continue
		}
		found, n := "", 0
		for _, field := range row {
			switch {
			case strings.Contains(field, eventKey+`="`):
				found = field
				n++
			case !isColumn(field):
				n = maxColumns
			}
		}
		if n == 1 && found != s {
			return found, true
		}
	}
	return s, false
}

// isColumn says whether a field of a table can be one of a log's: words without a colon after them, or an object of
// JSON.
func isColumn(s string) bool {
	if strings.HasPrefix(s, "{") {
		return json.Valid([]byte(s))
	}
	return len(s) <= 64 && !strings.Contains(s, ": ") &&
		consistsOf(s, func(c byte) bool { return c == ' ' || isNameByte(c) })
}

// restoreQuotes gives a line back the quotation marks that it lost to HTML, to a word processor or to a string of JSON.
// Each is undone only where the line has no quotation mark else, which Asterisk itself writes twenty of.
func restoreQuotes(s string) (string, bool) {
	if strings.Contains(s, eventKey+`=\"`) {
		var t string
		inner, ok := strings.CutPrefix(s, `"`)
		if ok {
			inner, ok = strings.CutSuffix(inner, `"`)
		}
		if !ok {
			inner = s
		}
		if json.Unmarshal([]byte(`"`+inner+`"`), &t) == nil {
			return t, true
		}
		return s, false
	}
	if strings.ContainsRune(s, '"') {
		return s, false
	}
	for _, mark := range [...]string{"&quot;", "&#34;", "&#034;", "&#x22;"} {
		if strings.Contains(s, eventKey+"="+mark) {
			return strings.NewReplacer(mark, `"`, "&lt;", "<", "&gt;", ">", "&#39;", "'", "&#039;", "'", "&#x27;", "'",
				"&apos;", "'", "&amp;", "&").Replace(s), true
		}
	}
	if i := strings.Index(s, eventKey+"="); i < 0 || !beginsWithSmartQuote(s[i+len(eventKey)+1:]) {
		return s, false
	}
	t := strings.NewReplacer("“", `"`, "”", `"`, "„", `"`, "‟", `"`).Replace(s)
	if strings.Count(t, `"`) != 2*strings.Count(t, `="`) {
		return s, false // one of them stands in a name
	}
	return t, true
}

func beginsWithSmartQuote(s string) bool {
	for _, mark := range [...]string{"“", "”", "„", "‟"} {
		if strings.HasPrefix(s, mark) {
			return true
		}
	}
	return false
}

// cutFile cuts what grep puts before a line: FILE: with -H, and numbers with -n and -b.
func cutFile(s string) (string, bool) {
	t := s
	if n := leadingDigits(t); n == 0 || n == len(t) || t[n] != ':' {
		drive := 0
		if len(t) > 2 && t[1] == ':' && t[2] == '\\' { // C:\
			drive = 2
		}
		i := strings.IndexByte(t[drive:], ':') + drive
		if i <= drive || i > 1024 || strings.ContainsAny(t[:i], "\"'[]=<>|") ||
			strings.Contains(t[:i], " ") && t[:i] != "(standard input)" {
			return s, false
		}
		t = t[i+1:]
	}
	for range 3 {
		n := leadingDigits(t)
		if n == 0 || n == len(t) || t[n] != ':' {
			break
		}
		t = t[n+1:]
	}
	// Logs in files begin with a date, in brackets or without, or with a name and then one.
	if t == s || t == "" || t[0] == ' ' || strings.HasPrefix(t, "SECURITY") {
		return s, false
	}
	return t, true
}

// isBlob says whether journalctl left out what a program with Asterisk's name logged: "asterisk[8]: [347B blob
// data]", or one whose name stands elsewhere (-o cat and -o verbose).
func isBlob(s string) bool {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	if !strings.HasSuffix(s, " blob data]") || len(s) > 512 {
		return false
	}
	return strings.Contains(s, "asterisk") || strings.Contains(s, "freepbx") ||
		strings.HasPrefix(strings.TrimPrefix(strings.TrimLeft(s, " "), "MESSAGE="), "[")
}

// isFolded says whether a line stands for more of the one before it, whose text is not in it: "last message repeated 3
// times", as syslogd writes it, and rsyslog without $RepeatedMsgContainsOriginalMsg.
func isFolded(s string) bool {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	s, ok := strings.CutSuffix(s, " times")
	if !ok || len(s) > 256 {
		return false
	}
	i := strings.LastIndexByte(s, ' ')
	return i >= 0 && i+1 < len(s) && leadingDigits(s[i+1:]) == len(s)-i-1 &&
		strings.HasSuffix(s[:i], "last message repeated")
}

// leadingDigits counts the digits with which s begins.
func leadingDigits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func isDecimal(c byte) bool { return c == '.' || isDigit(c) }

func isDigit(c byte) bool { return c-'0' <= 9 }

// isNameByte says whether a byte is of a name, a path or a time as programs write them without quotes.
func isNameByte(c byte) bool {
	return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("-_./@:+~#", c) >= 0
}

func consistsOf(s string, in func(byte) bool) bool {
	for i := range len(s) {
		if !in(s[i]) {
			return false
		}
	}
	return true
}
