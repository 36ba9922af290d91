package event

import (
	"net/netip"
	"slices"
	"strings"
)

// Decode decodes one AMI frame: the text between two CRLFCRLF, without the closing one. It overwrites *ev. After an
// error *ev is the zero Event. It allocates nothing but a TamperError.
//
// The error is ErrNotSecurity, or a *TamperError for a frame that has anything of a security event and is not exactly
// what Asterisk writes (__manager_event_sessions_va in main/manager.c, then the order of main/security_events.c): lines
// end with CRLF, each header stands once and at its place, and no value has a LF. Other control characters, a CR
// without LF too, cannot change the lines: such an event is decoded, and Event.Hostile says so where no person typed
// it.
//
// Nothing in the stream is escaped, so that whoever can put a few hundred bytes with line breaks into one value can
// write a whole event. SIP gives 36 bytes, which is too little; AMI over HTTP (webenabled=yes in manager.conf) gives
// more, and no reader of the stream can tell.
func Decode(frame string, ev *Event) error {
	*ev = Event{}
	l := frameLines{rest: frame, hasNext: true}
	l.nextLine()
	name, ok := strings.CutPrefix(l.line, "Event: ")
	if !ok {
		return judgeForeignFrame(frame)
	}
	if name == userEventName {
		return decodeUserEvent(frame, &l, ev)
	}
	t := typeOf(name)
	if t == UnknownType {
		return judgeForeignFrame(frame)
	}
	ev.Type = t
	reason := decodePreamble(&l, "security,all", fieldHeaders[fEventTV])
	if reason == "" {
		reason = decodeHeaders(&l, headersOf[t], ev)
	}
	if reason != "" {
		*ev = Event{}
		return &TamperError{Reason: reason, Line: l.number, Sources: sourcesOf(frame)}
	}
	return requireSource(ev)
}

// frameLines walks the lines of a frame.
type frameLines struct {
	line    string // the present one, empty after the last
	number  int    // of it, from 1
	rest    string // of the frame, after it
	hasNext bool   // a line follows
	pastEnd bool   // next was called after the last line
}

func (l *frameLines) nextLine() {
	if !l.hasNext {
		l.line, l.pastEnd = "", true
		return
	}
	l.number++
	from := 0
	for {
		i := strings.IndexByte(l.rest[from:], '\n')
		if i < 0 {
			l.line, l.rest, l.hasNext = l.rest, "", false
			return
		}
		if i += from; i > 0 && l.rest[i-1] == '\r' {
			l.line, l.rest = l.rest[:i-1], l.rest[i+1:]
			return
		}
		from = i + 1 // a LF alone ends no line, and is refused where it stands
	}
}

// decodePreamble reads from Privilege, which is that of a class, to SystemName, and stops at the line after, which
// mostly is the next. It returns a Reason, or "".
func decodePreamble(l *frameLines, class, next string) string {
	l.nextLine()
	if privilege, ok := strings.CutPrefix(l.line, "Privilege: "); !ok || privilege != class {
		return ReasonOrder
	}
	l.nextLine()
	if strings.HasPrefix(l.line, next) {
		return ""
	}
	if v, ok := strings.CutPrefix(l.line, "Timestamp: "); ok { // timestampevents=yes
		sec, usec, ok := strings.Cut(v, ".")
		if _, ok1 := parseDigits(sec); !ok || !ok1 || len(usec) != 6 {
			return ReasonTime
		}
		if _, ok := parseDigits(usec); !ok {
			return ReasonTime
		}
		l.nextLine()
	}
	if v, ok := strings.CutPrefix(l.line, "SequenceNumber: "); ok { // manager debug
		if _, ok := parseDigits(strings.TrimPrefix(v, "-")); !ok {
			return ReasonValue
		}
		for _, header := range [...]string{"File: ", "Line: ", "Func: "} {
			l.nextLine()
			v, ok := strings.CutPrefix(l.line, header)
			if !ok {
				return ReasonOrder
			}
			if strings.Contains(v, "\n") {
				return ReasonControl
			}
		}
		l.nextLine()
	}
	if v, ok := strings.CutPrefix(l.line, "SystemName: "); ok { // systemname in asterisk.conf
		if strings.Contains(v, "\n") {
			return ReasonControl
		}
		l.nextLine()
	}
	return ""
}

// decodeHeaders reads headers into ev, from the present line to the frame's end. It returns a Reason, or "".
func decodeHeaders(l *frameLines, headers []headerRule, ev *Event) string {
	for _, s := range headers {
		v, ok := strings.CutPrefix(l.line, fieldHeaders[s.field])
		if !ok {
			if s.presence == optional {
				continue
			}
			return ReasonOrder
		}
		if reason := ev.setField(s.field, v); reason != "" {
			return reason
		}
		l.nextLine()
	}
	if !l.pastEnd {
		return ReasonOrder
	}
	return ""
}

// setField validates the value of a field and keeps it if Event has one for it. It returns a Reason, or "".
func (ev *Event) setField(f field, v string) string {
	switch f {
	case fEventTV:
		t, ok := parseTime(v)
		if !ok {
			return ReasonTime
		}
		ev.Time = t
		return ""
	case fSessionTV:
		if _, ok := parseTime(v); !ok {
			return ReasonTime
		}
		return ""
	case fSeverity:
		if v != "Informational" && v != "Error" {
			return ReasonValue
		}
		return ""
	case fEventVersion:
		if _, ok := parseDigits(v); !ok {
			return ReasonValue
		}
		return ""
	case fUsingPassword:
		if v != "0" && v != "1" {
			return ReasonValue
		}
		ev.UsingPassword = v == "1"
		return ""
	case fService:
		switch v {
		case "PJSIP":
			ev.Service = PJSIP
			return ""
		case "SIP":
			ev.Service = SIP
			return ""
		case "AMI":
			ev.Service = AMI
			return ""
		case "IAX2":
			ev.Service = IAX2
			return ""
		case "":
			return ReasonValue
		}
		reason, _ := inspectText(v)
		return reason
	case fLocalAddress, fRemoteAddress, fExpectedAddress:
		a, ok := parseAddress(v)
		if !ok {
			return ReasonAddress
		}
		switch f {
		case fLocalAddress:
			ev.Local = a
		case fRemoteAddress:
			ev.Remote = a
		default:
			ev.Detail = v
		}
		return ""
	}
	reason, control := inspectText(v)
	if reason != "" {
		return reason
	}
	if control {
		switch f {
		case fSessionID, fChallenge, fResponse, fReceivedChallenge, fReceivedHash:
			ev.Hostile = true
		default:
			ev.Hostile = ev.Hostile || strings.Contains(v, "\r") // no keyboard puts it into a name
		}
	}
	switch f {
	case fAccountID:
		ev.Account = v
	case fSessionID:
		ev.Session = v
	case fACLName:
		ev.ACLName = v
	case fRequestType, fAuthMethod, fAttemptedTransport:
		ev.Detail = v
	case fChallenge:
		if ev.Type != InvalidPassword { // ReceivedChallenge is what the peer answered to
			ev.Challenge = v
		}
	case fReceivedChallenge:
		ev.Challenge = v
	case fResponse, fReceivedHash:
		ev.Response = v
	case fExpectedResponse, fRequestParams, fModule:
		// Read and forgotten. ExpectedResponse is the right answer to the challenge: who has it can log in.
	}
	return ""
}

// requireSource refuses an event of which Asterisk did not know the source.
func requireSource(ev *Event) error {
	if !ev.Remote.AddrPort.IsValid() {
		*ev = Event{}
		return ErrNotSecurity
	}
	return nil
}

// judgeForeignFrame judges a frame that is none of the fifteen events, and no UserEvent. It is tampering if it has
// headers that only security events have, or a report's: then it is a piece of one that an injected CRLFCRLF cut,
// perhaps under a head of the attacker's choice. A UserEvent is not judged so, since a dialplan may give it headers
// of any name; the other piece of a cut event lacks headers and is found by that.
func judgeForeignFrame(frame string) error {
	for n, rest, more := 1, frame, true; more; n++ {
		var line string
		line, rest, more = strings.Cut(rest, "\r\n")
		key, _, ok := strings.Cut(line, ": ")
		if ok && fieldOf(key).onlyInSecurityEvents() || line == reportUserEvent {
			return &TamperError{Reason: ReasonStray, Line: n, Sources: sourcesOf(frame)}
		}
	}
	return ErrNotSecurity
}

// sourcesOf returns the different addresses that a frame names as its source, maxTamperSources at most. An injected
// line may name anybody, and stand before or after Asterisk's own.
func sourcesOf(frame string) (found []netip.Addr) {
	for line := range strings.SplitSeq(frame, "\n") {
		line = strings.TrimSuffix(line, "\r")
		var a netip.AddrPort
		if v, ok := strings.CutPrefix(line, fieldHeaders[fRemoteAddress]); ok {
			address, _ := parseAddress(v)
			a = address.AddrPort
		} else if v, ok := strings.CutPrefix(line, reportAddress); ok {
			a, _ = parseHostPort(v)
		}
		if addr := a.Addr(); addr.IsValid() && !slices.Contains(found, addr) {
			if found = append(found, addr); len(found) == maxTamperSources {
				break
			}
		}
	}
	return found
}
