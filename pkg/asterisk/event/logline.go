package event

import "strings"

// DecodeLine decodes one line of Asterisk's security log, with or without its line end: what main/logger.c writes to
// files ("[date] SECURITY[pid][C-callid] res_security_log.c: "), in plain format, on a console or to syslog, also where
// syslog, the journal or a container's log put their own words before it. It overwrites *ev. After an error *ev is the
// zero Event. It allocates nothing but a TamperError.
//
// The error is ErrNotSecurity, or a *TamperError for a line that has anything of a security event and is not exactly
// what Asterisk writes, such as either half of an event that an injected LF cut in two.
//
// The log is weaker evidence than AMI. Values are neither quoted nor escaped, and term_strip of Asterisk's main/term.c
// deletes from an ESC to the next 'm', across values and without a trace, so that a peer with ESC in its Call-ID can
// cut what follows. The source is safe from that (see hasOneSource), the account and the session are not.
func DecodeLine(line string, ev *Event) error {
	*ev = Event{}
	line = strings.TrimSuffix(line, "\n")
	line = strings.TrimSuffix(line, "\r")
	msg, ok := cutLogHead(line)
	if !ok {
		return judgeForeignLine(line)
	}
	return DecodeMessage(msg, ev)
}

// DecodeMessage decodes the message alone of a line of the security log, as Asterisk's res/res_security_log.c composes
// it: SecurityEvent="X",EventTV="…",… It is for logs whose frame is another, such as Asterisk's JSON log. It is
// otherwise as DecodeLine.
func DecodeMessage(msg string, ev *Event) error {
	*ev = Event{}
	rest, ok := strings.CutPrefix(msg, `SecurityEvent="`)
	if !ok {
		return judgeForeignLine(msg)
	}
	n, reason := decodeFields(rest, ev)
	if reason == "" && !hasOneSource(rest) {
		reason = ReasonOrder
	}
	if reason != "" {
		*ev = Event{}
		return &TamperError{Reason: reason, Line: n}
	}
	return requireSource(ev)
}

// hasOneSource says whether a line can hold no other RemoteAddress than Asterisk's. What term_strip deletes before the
// true one ends at the latest with the 'm' in its name, so that at least `oteAddress="` is left of it. A peer that
// brings its own in an earlier value, and has the true name cut, leaves two of these.
func hasOneSource(fields string) bool {
	const left = `oteAddress="`
	i := strings.Index(fields, left)
	return i >= 0 && !strings.Contains(fields[i+len(left):], left)
}

// decodeFields reads the message after SecurityEvent=". Every `",KEY="` of a known key is taken for a separator, also
// within a value: Asterisk itself writes each once, so that a second one is out of order, and tampering.
func decodeFields(rest string, ev *Event) (n int, reason string) {
	n = 1
	name, key, rest, more := cutField(rest)
	if ev.Type = typeOf(name); ev.Type == UnknownType {
		return n, ReasonValue
	}
	var value string
	for _, s := range headersOf[ev.Type] {
		if !more || key != s.field {
			if s.presence != required {
				continue
			}
			if !more {
				return n, ReasonTruncated
			}
			return n + 1, ReasonOrder
		}
		n++
		f := key
		value, key, rest, more = cutField(rest)
		if !more {
			var closed bool
			if value, closed = strings.CutSuffix(value, `"`); !closed {
				return n, ReasonTruncated
			}
		}
		if f == fEventTV {
			if t, ok := parseOldTime(value); ok {
				ev.Time = t
				continue
			}
		}
		if f == fSessionTV {
			if _, ok := parseOldTime(value); ok {
				continue
			}
		}
		if reason := ev.setField(f, value); reason != "" {
			return n, reason
		}
		if strings.IndexByte(value, '\r') >= 0 { // some readers of logs end a line there
			return n, ReasonControl
		}
		// Asterisk's logger takes what follows an ESC out of the line (term_strip in main/term.c), so that a peer who
		// sends one chooses which fields are left.
		if strings.IndexByte(value, 0x1b) >= 0 {
			return n, ReasonEscape
		}
	}
	if more {
		return n + 1, ReasonOrder
	}
	return n, ""
}

// cutField cuts s at the next `",KEY="`: the value before it, the key, and what follows.
func cutField(s string) (value string, key field, rest string, more bool) {
	for i := 0; ; {
		j := strings.Index(s[i:], `",`)
		if j < 0 {
			return s, numFields, "", false
		}
		i += j + 2
		if key, after, ok := cutFieldName(s[i:]); ok {
			return s[:i-2], key, after, true
		}
	}
}

// cutFieldName reads KEY=" of a known key.
func cutFieldName(s string) (key field, rest string, ok bool) {
	const longest = len("AttemptedTransport")
	name, _, ok := strings.Cut(s[:min(len(s), longest+1)], "=")
	if !ok || len(s) < len(name)+2 || s[len(name)+1] != '"' {
		return numFields, "", false
	}
	key = fieldOf(name)
	return key, s[len(name)+2:], key != numFields
}

// judgeForeignLine judges a line that does not begin as one of the security log. It is tampering if it has a field of
// one: then it is the rest of an event that an injected line break cut, or text that means to be taken for one.
func judgeForeignLine(line string) error {
	if _, _, _, more := cutField(line); more || strings.Contains(line, `SecurityEvent="`) {
		return &TamperError{Reason: ReasonStray, Line: 1}
	}
	return ErrNotSecurity
}

// cutLogHead cuts what loggers write before the message. It is strict, since other messages of Asterisk, and of other
// programs in the same file, carry a peer's text: SECURITY must stand where the level does, with nothing before it but
// a date in brackets and what may precede that.
func cutLogHead(line string) (msg string, ok bool) {
	const level = "SECURITY"
	for at := 0; ; at += len(level) {
		i := strings.Index(line[at:], level)
		if i < 0 {
			return "", false
		}
		at += i
		if msg, ok := cutLogOrigin(line[at+len(level):]); ok && validLogHead(trimColours(line[:at])) {
			return msg, true
		}
	}
}

// cutLogOrigin cuts thread, call and source file, which stand between the level and the message.
func cutLogOrigin(line string) (msg string, ok bool) {
	s := originScanner{rest: line, ok: true}
	s.skipColours()
	s.skipLiteral("[")
	s.skipDigits()
	s.skipLiteral("]")
	if s.skipOptional("[C-") {
		s.skipWord()
		s.skipLiteral("]")
	}
	s.skipOptional(":")
	s.skipLiteral(" ")
	s.skipColours()
	s.skipLiteral("res_security_log.c")
	s.skipColours()
	s.skipLiteral(":")
	if !s.skipOptional(" ") { // console, syslog and plain formats: "res_security_log.c:114 [in ]security_stasis_cb: "
		s.skipColours()
		s.skipDigits()
		s.skipColours()
		s.skipLiteral(" ")
		s.skipOptional("in ")
		s.skipColours()
		s.skipWord()
		s.skipColours()
		s.skipLiteral(": ")
	}
	return s.rest, s.ok
}

// validLogHead checks what stands before the level: words of another logger, perhaps ending in "name:" or "name[pid]:",
// then perhaps Asterisk's "[date] ". No word of it may come from a peer, so there is no second date, and no text.
func validLogHead(s string) bool {
	if len(s) > 256 || strings.IndexByte(s, '"') >= 0 || hasControl(s) {
		return false
	}
	if head, ok := strings.CutSuffix(s, "] "); ok {
		i := strings.LastIndexByte(head, '[')
		if i < 0 {
			return false
		}
		s = head[:i]
	}
	if s == "" {
		return true
	}
	s, ok := strings.CutSuffix(s, " ")
	if !ok || strings.Count(s, " ") > 8 {
		return false
	}
	if name, ok := strings.CutSuffix(s, ":"); ok {
		s = name
		if name, ok := strings.CutSuffix(name, "]"); ok {
			i := strings.LastIndexByte(name, '[')
			if i < 0 {
				return false
			}
			if _, ok := parseDigits(name[i+1:]); !ok {
				return false
			}
			s = name[:i]
		}
	}
	return !strings.ContainsAny(s, "[]=<") && !strings.Contains(s, ": ") || validPriority(s)
}

// validPriority says whether s is the head of a syslog packet as kept raw: "<134>" or "<134>1 ", then words.
func validPriority(s string) bool {
	s, ok := strings.CutPrefix(s, "<")
	if !ok {
		return false
	}
	pri, s, ok := strings.Cut(s, ">")
	if _, digits := parseDigits(pri); !ok || !digits || len(pri) > 3 {
		return false
	}
	return !strings.ContainsAny(s, "[]=<") && !strings.Contains(s, ": ")
}

// colourEscapes are the forms in which the beginning of a colour's escape sequence is found in logs: as it is, as
// rsyslog ($EscapeControlCharactersOnReceive), cat -v, and programs that quote as C, JSON or the shell write it, as
// terminals and editors show it, and what is left where ESC itself was dropped.
var colourEscapes = [...]string{
	"\x1b[", "#033[", "^[[", `\x1b[`, `\x1B[`, `\033[`, `\u001b[`, `\u001B[`, `\e[`, "\u241b[", "\u2190[", "[",
}

// cutColour cuts one escape sequence of Asterisk's main/term.c, or of grep --color, off the beginning of s. lost says
// whether the sequence counts also where its ESC was dropped.
func cutColour(s string, lost bool) (rest string, ok bool) {
	n := 0
	if s != "" {
		switch s[0] {
		case '[':
			if lost && len(s) > 1 && s[1]-'0' <= 9 {
				n = 1
			}
		case 0x1b, '#', '^', '\\', 0xe2:
			n = escapeLength(s)
		}
	}
	if n == 0 {
		return s, false
	}
	for i := n; i < len(s) && i < n+maxColour; i++ {
		switch c := s[i]; {
		case c == ';' || c-'0' <= 9:
		case c == 'm', c == 'K' && n > 1:
			return s[i+1:], true
		default:
			return s, false
		}
	}
	return s, false
}

// escapeLength returns the length of the form of ESC [ with which s begins.
func escapeLength(s string) int {
	for _, esc := range colourEscapes {
		if strings.HasPrefix(s, esc) {
			return len(esc)
		}
	}
	return 0
}

// maxColour is how many digits and semicolons a colour has at most: 38;2;255;255;255.
const maxColour = 20

// StripColours removes all escape sequences of colours from a line, in any form in which logs have them. What is left
// may say anything, as a line itself may: decode it as strictly.
func StripColours(line string) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		if rest, ok := cutColour(line[i:], false); ok {
			i = len(line) - len(rest)
			continue
		}
		b.WriteByte(line[i])
		i++
	}
	return b.String()
}

// trimColours removes the colours that a console sets before the level.
func trimColours(s string) string {
	for range 4 {
		i := len(s) - 1
		if i < 0 || s[i] != 'm' && s[i] != 'K' {
			return s
		}
		for i > 0 && len(s)-i <= maxColour && (s[i-1] == ';' || s[i-1]-'0' <= 9) {
			i--
		}
		for _, esc := range colourEscapes {
			head, ok := strings.CutSuffix(s[:i], esc)
			if !ok {
				continue
			}
			if rest, ok := cutColour(s[len(head):], true); !ok || rest != "" {
				return s
			}
			s = head
			break
		}
		if len(s) > i {
			return s
		}
	}
	return s
}

// originScanner reads fixed forms. ok is false from the first that is not met.
type originScanner struct {
	rest string
	ok   bool
}

func (s *originScanner) skipOptional(lit string) (found bool) {
	s.rest, found = strings.CutPrefix(s.rest, lit)
	return found
}

func (s *originScanner) skipLiteral(lit string) { s.ok = s.skipOptional(lit) && s.ok }

func (s *originScanner) skipDigits() {
	s.skipAll(func(c byte) bool { return c-'0' <= 9 })
}

func (s *originScanner) skipWord() {
	s.skipAll(func(c byte) bool {
		return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
	})
}

func (s *originScanner) skipAll(in func(byte) bool) {
	i := 0
	for i < len(s.rest) && in(s.rest[i]) {
		i++
	}
	s.ok = s.ok && i > 0
	s.rest = s.rest[i:]
}

// skipColours skips escape sequences, if there are any.
func (s *originScanner) skipColours() {
	for range 4 {
		rest, ok := cutColour(s.rest, true)
		if !ok {
			return
		}
		s.rest = rest
	}
}
