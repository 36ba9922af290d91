package sip

import "bytes"

// Parse reads the head of the message that b begins with; line ends before it are passed over. What it cannot read it
// passes over as well, and names it in Malformed. The error is ErrEmpty or ErrNotSIP.
func Parse(b []byte, m *Message) error {
	m.reset()
	b = b[:min(len(b), MaxHead)]
	lines := lineReader{b: b, pos: run(b, isSpace), first: run(b, isSpace)}
	if isKeepalive(b, lines.pos) {
		return ErrEmpty
	}
	if !parseStartLine(lines.next(), m) {
		m.Malformed |= BadStartLine
	}
	known, ended := false, false
	for n := 0; ; n++ {
		if ended || lines.atEmptyLine() {
			m.Truncated = false
			break
		}
		if lines.pos >= len(b) {
			break
		}
		if n == MaxHeaders {
			m.Malformed |= TooManyHeaders
			break
		}
		for line := lines.next(); line != nil; {
			var one bool
			line, one = parseHeader(line, m)
			if known = known || one; line != nil && len(line) == 0 {
				ended = b[lines.pos-1] == '\n'
				break
			}
		}
	}
	m.HeadBytes = lines.pos
	if m.Malformed&BadStartLine != 0 && !known {
		*m = Message{ContentLength: -1}
		return ErrNotSIP
	}
	if lines.loneCR {
		m.Malformed |= LoneCR
	}
	if bytes.IndexByte(b[:lines.pos], 0) >= 0 {
		m.Malformed |= ZeroByte
	}
	m.missing()
	return nil
}

// isKeepalive is for a datagram: blank is how much of its beginning is spaces and line ends. STUN begins with two zero
// bits and has its magic cookie at 4 (RFC 5389 6); phones send zero bytes, too.
func isKeepalive(b []byte, blank int) bool {
	if blank == len(b) {
		return true
	}
	if len(b) >= 20 && b[0] < 2 && b[4] == 0x21 && b[5] == 0x12 && b[6] == 0xa4 && b[7] == 0x42 {
		return true
	}
	if b[0] != 0 {
		return false
	}
	for _, c := range b {
		if c != 0 && classes[c]&isSpace == 0 {
			return false
		}
	}
	return true
}

// missing names the headers that pjproject wants and that are not there. In a truncated head they may come yet.
func (m *Message) missing() {
	if m.MethodIs("ACK") || m.Status != 0 || len(m.Method) == 0 {
		// CSeq of an ACK and of an answer is that of another request.
	} else if m.CSeqMethod != nil && !bytes.EqualFold(m.CSeqMethod, m.Method) {
		m.Malformed |= CSeqMismatch
	}
	if m.Truncated {
		return
	}
	if m.ViaCount == 0 {
		m.Malformed |= NoVia
	}
	if m.From.Raw == nil {
		m.Malformed |= NoFrom
	}
	if m.To.Raw == nil {
		m.Malformed |= NoTo
	}
	if len(m.CallID) == 0 {
		m.Malformed |= NoCallID
	}
	if m.CSeqMethod == nil {
		m.Malformed |= NoCSeq
	}
}

// A lineReader cuts lines. CR, LF and both of them end one, as for pjproject's scanner, and a line that begins with a
// space goes on with the one before (RFC 3261 7.3.1).
type lineReader struct {
	b      []byte
	pos    int
	lf     int // the first LF not before pos, once it was looked for
	first  int // where the first line begins
	loneCR bool
}

func (r *lineReader) atEmptyLine() bool {
	if r.pos >= len(r.b) || r.b[r.pos] != '\r' && r.b[r.pos] != '\n' {
		return false
	}
	r.pos, _ = r.afterLineEnd(r.pos) // CR alone is odd within the head only: what follows is no part of it
	return true
}

// maxOpen bounds how often a line goes on because something in it is open.
const maxOpen = 8

// next returns a line with all that is folded, without its end. It is nil at the end of the bytes alone.
func (r *lineReader) next() []byte {
	start, open := r.pos, 0
	if start >= len(r.b) {
		return nil
	}
	for from := start; ; {
		end := r.lineEnd(from)
		if end == len(r.b) {
			r.pos = end
			return r.b[start:end]
		}
		after, loneCR := r.afterLineEnd(end)
		r.loneCR = r.loneCR || loneCR
		if after < len(r.b) && (r.b[after] == ' ' || r.b[after] == '\t') {
			from = after
			continue
		}
		if open < maxOpen {
			if closing := r.closing(start, end, loneCR); closing > 0 {
				from = closing
				open++
				continue
			}
		}
		r.pos = after
		return r.b[start:end]
	}
}

// closing is behind the byte that closes what is open at the end of a line, or 0: pjproject's quoted strings end at LF
// but not at CR, a comment of Via and an address in brackets at no line end.
func (r *lineReader) closing(start, end int, loneCR bool) int {
	line := r.b[start:end]
	if !loneCR && bytes.IndexByte(line, '(') < 0 && bytes.IndexByte(line, '[') < 0 {
		return 0
	}
	open, until := openAtEnd(line, start == r.first), len(r.b)
	switch open {
	case 0:
		return 0
	case '"':
		until = r.lf
	}
	if i := bytes.IndexByte(r.b[end:until], open); i >= 0 {
		return end + i + 1
	}
	return 0
}

func (r *lineReader) lineEnd(from int) int {
	if r.lf < from || r.lf == 0 {
		r.lf = len(r.b)
		if i := bytes.IndexByte(r.b[from:], '\n'); i >= 0 {
			r.lf = from + i
		}
	}
	if i := bytes.IndexByte(r.b[from:r.lf], '\r'); i >= 0 {
		return from + i
	}
	return r.lf
}

func (r *lineReader) afterLineEnd(pos int) (after int, loneCR bool) {
	if r.b[pos] == '\n' {
		return pos + 1, false
	}
	if pos++; pos < len(r.b) && r.b[pos] == '\n' {
		return pos + 1, false
	}
	return pos, pos < len(r.b)
}

// openAtEnd is the byte that would close what is open at the end of a line, or 0. Nothing is open in what pjproject
// takes as a whole, nor in a display name that is not quoted itself.
func openAtEnd(line []byte, isFirst bool) byte {
	value, name := line, otherHeader
	if !isFirst {
		n := run(line, isToken)
		value = skipLWS(line[n:])
		name = headerNamed(line[:n])
		if len(value) == 0 || value[0] != ':' || !name.endsAtAmpersand() {
			return 0
		}
		value = skipLWS(value[1:])
		if name.isAddress() {
			n := upTo(value, endsDisplay)
			if len(value) > 0 && value[0] != '"' && n < len(value) && value[n] == '<' {
				value = value[n:]
			}
		}
	}
	w := newWalker(name)
	for _, c := range value {
		w.step(c)
	}
	return w.open
}

// A walker knows at each byte of a value what is open. A quoted string begins a value or one of its elements, or is the
// value of a parameter.
type walker struct {
	open       byte // what closes it: a quote, a comment's parenthesis, an address' square bracket; 0: nothing
	inBrackets bool // of a name-addr
	escaped    bool
	isVia      bool
	atHost     bool // no parameter has begun
	before     byte // the last byte that is no space
}

func newWalker(name headerName) walker {
	return walker{before: ',', isVia: name == viaHeader, atHost: true}
}

func (w *walker) step(c byte) {
	switch {
	case w.escaped:
		w.escaped = false
		return
	case w.open != 0:
		w.escaped = c == '\\' && w.open == '"'
		if c == w.open {
			w.open = 0
			w.before = c
		}
		return
	case c == '"' && (w.before == '=' || w.before == ','):
		w.open = '"'
	case c == '(' && w.isVia:
		w.open = ')'
	case c == '[' && w.atHost && (w.isVia || w.before == '@' || w.before == ':'):
		w.open = ']'
	case c == '<':
		w.inBrackets, w.atHost = true, true
	case c == '>':
		w.inBrackets = false
	case c == '@' || c == ',' && !w.inBrackets:
		w.atHost = true
	case c == ';' || c == '?':
		w.atHost = false
	}
	if classes[c]&isSpace == 0 {
		w.before = c
	}
}

// parseStartLine reads a Request-Line or a Status-Line (RFC 3261 7.1, 7.2). pjproject takes spaces around the slash of
// the version, and either case.
func parseStartLine(line []byte, m *Message) bool {
	if rest, ok := cutVersion(line); ok {
		rest = skipLWS(rest)
		status, digits, ok := number(rest, 699)
		if !ok || status < 100 || digits < len(rest) && classes[rest[digits]]&isSpace == 0 {
			return false
		}
		m.Status = int(status)
		return true
	}
	method, uri, ok := cutRequestLine(line)
	if !ok {
		return false
	}
	m.Method = method
	if !parseURI(uri, &m.RequestURI) {
		m.Malformed |= BadAddress
	}
	return true
}

// cutVersion cuts SIP/2.0 off the beginning.
func cutVersion(b []byte) (rest []byte, ok bool) {
	if len(b) < 7 || !equalFold(b[:3], "SIP") {
		return nil, false
	}
	b = skipLWS(b[3:])
	if len(b) == 0 || b[0] != '/' {
		return nil, false
	}
	return bytes.CutPrefix(skipLWS(b[1:]), []byte("2.0"))
}

// cutRequestLine finds what stands before SIP/2.0 at the end. The URI may hold spaces: an injection does.
func cutRequestLine(line []byte) (method, uri []byte, ok bool) {
	head, ok := cutVersionAtEnd(line)
	if !ok {
		return nil, nil, false
	}
	n := run(head, isToken)
	uri = trimLWS(head[n:])
	if n == 0 || len(uri) == 0 || classes[head[n]]&isSpace == 0 {
		return nil, nil, false
	}
	return head[:n], uri, true
}

func cutVersionAtEnd(line []byte) (before []byte, ok bool) {
	line = trimEnd(line)
	if line, ok = bytes.CutSuffix(line, []byte("2.0")); !ok {
		return nil, false
	}
	if line, ok = bytes.CutSuffix(trimEnd(line), []byte("/")); !ok {
		return nil, false
	}
	line = trimEnd(line)
	if len(line) < 3 || !equalFold(line[len(line)-3:], "SIP") {
		return nil, false
	}
	return line[:len(line)-3], true
}

func trimEnd(b []byte) []byte {
	for len(b) > 0 && classes[b[len(b)-1]]&isSpace != 0 {
		b = b[:len(b)-1]
	}
	return b
}

// parseHeader reads one header. What is left of the line is another one that pjproject reads there, or nil; where it is
// empty, the head ends here for pjproject. It is known where its name says that this is SIP.
func parseHeader(line []byte, m *Message) (rest []byte, known bool) {
	n := run(line, isToken)
	value := skipLWS(line[n:])
	if n == 0 || len(value) == 0 || value[0] != ':' {
		m.Malformed |= BadHeader
		return nil, false
	}
	name := headerNamed(line[:n])
	if name == otherHeader {
		return nil, false
	}
	value = skipLWS(value[1:])
	if name.endsAtAmpersand() && bytes.IndexByte(value, '&') >= 0 {
		if value, rest = cutJoined(value, name); rest != nil {
			m.Malformed |= JoinedHeaders
		}
	}
	switch name {
	case viaHeader:
		parseVia(value, m)
	case fromHeader:
		m.address(value, &m.From)
	case toHeader:
		m.address(value, &m.To)
	case contactHeader:
		m.contacts(value)
	case routeHeader:
		m.routes(value)
	case numberHeader:
		if !isNumber(value) {
			m.Malformed |= BadHeader
		}
	case secondsHeader:
		m.withParameters(value, run(value, isDigit))
	case eventHeader:
		m.withParameters(value, run(value, isToken))
	case contentTypeHeader:
		m.contentType(value)
	case callIDHeader:
		m.callID(value)
	case cseqHeader:
		m.cseq(value)
	case userAgentHeader:
		if m.UserAgent == nil {
			m.UserAgent = trimLWS(value)
		}
	case serverHeader:
		if m.UserAgent == nil && m.Status != 0 {
			m.UserAgent = trimLWS(value)
		}
	case contentLengthHeader:
		if length, _, ok := number(value, 1<<31-1); ok {
			m.ContentLength = int(length)
		}
		if !isNumber(value) {
			m.Malformed |= BadHeader
		}
	case authorizationHeader, proxyAuthorizationHeader:
		if m.credentialCount == MaxCredentials {
			m.Malformed |= TooManyCredentials
			break
		}
		c := &m.credentials[m.credentialCount]
		m.credentialCount++
		c.Proxy = name == proxyAuthorizationHeader
		if !parseCredentials(value, c) {
			m.Malformed |= BadHeader
		}
	case wwwAuthenticateHeader, proxyAuthenticateHeader:
		if m.challengeCount == MaxChallenges {
			m.Malformed |= TooManyCredentials
			break
		}
		c := &m.challenges[m.challengeCount]
		m.challengeCount++
		c.Proxy = name == proxyAuthenticateHeader
		parseChallenge(value, c)
	}
	return rest, name.saysSIP()
}

func (m *Message) callID(value []byte) {
	if m.CallID != nil {
		m.Malformed |= RepeatedHeader
	}
	end := 0
	for end < len(value) && classes[value[end]]&endsLine == 0 && value[end] != 0 {
		end++
	}
	if len(skipLWS(value[end:])) > 0 {
		m.Malformed |= BadHeader // pjproject takes no second line, and no zero byte
	}
	m.CallID = value[:end]
	if m.First.CallID == nil {
		m.First.CallID = m.CallID
	}
	for _, c := range trimEnd(m.CallID) {
		switch {
		case c < ' ' || c >= 0x7f:
			m.Malformed |= CallIDControl
		case classes[c]&isWord == 0:
			m.Malformed |= CallIDNotWord
		}
	}
}

func (m *Message) cseq(value []byte) {
	if m.CSeqMethod != nil {
		m.Malformed |= RepeatedHeader
	}
	n, digits, ok := number(value, 1<<32-1) // RFC 3261 8.1.1.5 wants less than 2**31
	method := skipLWS(value[digits:])
	end := run(method, isToken)
	if !ok || end == 0 {
		m.Malformed |= NoCSeq
		return
	}
	if len(skipLWS(method[end:])) > 0 {
		m.Malformed |= BadHeader
	}
	method = method[:end]
	m.CSeq, m.CSeqMethod = uint32(n), method
	if m.First.CSeqMethod == nil {
		m.First.CSeq, m.First.CSeqMethod = m.CSeq, m.CSeqMethod
	}
}

func (m *Message) address(value []byte, a *Address) {
	if a.Raw != nil {
		m.Malformed |= RepeatedHeader
		*a = Address{}
	}
	rest, faults := parseAddress(value, a)
	if m.Malformed |= faults; len(rest) > 0 {
		m.Malformed |= BadHeader
	}
}

// contacts keeps the first of them.
func (m *Message) contacts(value []byte) {
	for {
		var a Address
		if len(value) > 0 && value[0] == '*' { // RFC 3261 10.2.2
			a.Raw, value = value[:1], skipLWS(value[1:])
		} else {
			var faults Malformed
			value, faults = parseAddress(value, &a)
			m.Malformed |= faults
		}
		if m.Contact.Raw == nil {
			m.Contact = a
		}
		if !m.another(&value) {
			return
		}
	}
}

func (m *Message) routes(value []byte) {
	for {
		rest, faults := parseAddress(value, new(Address))
		m.Malformed |= faults
		if value = rest; !m.another(&value) {
			return
		}
	}
}

// withParameters checks what stands behind the first n bytes.
func (m *Message) withParameters(value []byte, n int) {
	rest, ok := skipLWS(value[n:]), n > 0
	for len(rest) > 0 && rest[0] == ';' {
		var isRead bool
		_, _, rest, isRead = headerParameter(rest[1:], isToken)
		rest, ok = skipLWS(rest), ok && isRead
	}
	if !ok || len(rest) > 0 {
		m.Malformed |= BadHeader
	}
}

// contentType is two tokens and a byte between, which is a slash for everybody else.
func (m *Message) contentType(value []byte) {
	n := run(value, isToken)
	rest := skipLWS(value[n:])
	if n == 0 || len(rest) == 0 {
		m.Malformed |= BadHeader
		return
	}
	rest = skipLWS(rest[1:])
	m.withParameters(rest, run(rest, isToken))
}

// another cuts the comma off that stands before another value.
func (m *Message) another(rest *[]byte) bool {
	if len(*rest) == 0 {
		return false
	}
	if (*rest)[0] != ',' {
		m.Malformed |= BadHeader
		return false
	}
	*rest = skipLWS((*rest)[1:])
	return true
}

// parseVia reads Via: SIP/2.0/UDP host:port;branch=value (RFC 3261 20.42). Of more than the topmost only their number
// is kept.
func parseVia(value []byte, m *Message) {
	if m.ViaCount == 0 {
		m.Branch, m.ViaSentBy = nil, nil
	}
	for {
		m.ViaCount++
		value = m.via(value, m.ViaCount == 1)
		if !m.another(&value) {
			return
		}
	}
}

// via reads one, and returns what stands behind.
func (m *Message) via(value []byte, isFirst bool) (rest []byte) {
	rest, ok := cutVersion(value)
	if rest = skipLWS(rest); !ok || len(rest) == 0 || rest[0] != '/' {
		m.Malformed |= BadHeader
		return nil
	}
	rest = skipLWS(rest[1:])
	transport := run(rest, isToken)
	rest = skipLWS(rest[transport:])
	sentBy, rest, ok := cutSentBy(rest)
	if transport == 0 || !ok {
		m.Malformed |= BadHeader
	}
	if isFirst {
		m.ViaSentBy = sentBy
	}
	for rest = skipLWS(rest); len(rest) > 0 && rest[0] == ';'; rest = skipLWS(rest) {
		var name, parameter []byte
		name, parameter, rest, ok = headerParameter(rest[1:], isViaValue)
		switch {
		case len(parameter) == 0:
		case equalFold(name, "rport"):
			_, _, isPort := number(parameter, 65535)
			ok = ok && isPort
		case equalFold(name, "ttl"):
			_, _, isTTL := number(parameter, 255)
			ok = ok && isTTL
		}
		if !ok {
			m.Malformed |= BadHeader
		}
		if isFirst && len(parameter) > 0 && equalFold(name, "branch") {
			m.Branch = parameter
		}
	}
	if len(rest) > 0 && rest[0] == '(' {
		end := bytes.IndexByte(rest, ')')
		if end < 0 {
			m.Malformed |= BadHeader
			return nil
		}
		rest = skipLWS(rest[end+1:])
	}
	return rest
}

// cutSentBy cuts host and port off, between which spaces may stand (RFC 3261 25.1). It is not ok where pjproject finds
// something else.
func cutSentBy(v []byte) (sentBy, rest []byte, ok bool) {
	rest = v[run(v, isHost):]
	if len(v) > 0 && v[0] == '[' {
		rest = v[bytes.IndexByte(v, ']')+1:]
	}
	ok = len(rest) < len(v)
	sentBy = v[:len(v)-len(rest)]
	if rest = skipLWS(rest); len(rest) > 0 && rest[0] == ':' {
		port := skipLWS(rest[1:])
		_, digits, isPort := number(port, 65535)
		rest = port[digits:]
		ok = ok && isPort
		sentBy = v[:len(v)-len(rest)]
	}
	if rest = skipLWS(rest); len(rest) > 0 && classes[rest[0]]&endsParameter == 0 {
		ok = false
		sentBy = v[:upTo(v, endsParameter)]
		rest = v[len(sentBy):]
	}
	return sentBy, rest, ok
}
