package sip

import "bytes"

// A headerName is one of those that are read here, or at whose end pjproject looks for another header.
type headerName uint8

const (
	otherHeader headerName = iota
	viaHeader
	fromHeader
	toHeader
	callIDHeader
	cseqHeader
	contactHeader
	contentLengthHeader
	numberHeader  // the value of which is a number alone
	secondsHeader // a number with parameters
	eventHeader   // a token with parameters
	contentTypeHeader
	routeHeader
	authorizationHeader
	proxyAuthorizationHeader
	wwwAuthenticateHeader
	proxyAuthenticateHeader
	structuredHeader // of no interest but for its end
	userAgentHeader
	serverHeader
)

// endsAtAmpersand says whether pjproject reads the value in parts and then takes & for a line end (parse_hdr_end in
// sip_parser.c), as in the header part of a URI. The value of others goes to the end of the line.
func (n headerName) endsAtAmpersand() bool {
	return n != otherHeader && n != callIDHeader && n < userAgentHeader
}

// saysSIP is true for the headers of each SIP message.
func (n headerName) saysSIP() bool { return n != otherHeader && n <= cseqHeader }

// isAddress is true for those of which the value is an address, with a display name or without.
func (n headerName) isAddress() bool { return n == fromHeader || n == toHeader || n == contactHeader }

// headerNamed knows long and compact forms (RFC 3261 7.3.3), in any letter case.
func headerNamed(name []byte) headerName {
	var is headerName
	var long string
	switch len(name) {
	case 1:
		switch lower(name[0]) {
		case 'v':
			return viaHeader
		case 'f':
			return fromHeader
		case 't':
			return toHeader
		case 'i':
			return callIDHeader
		case 'm':
			return contactHeader
		case 'l':
			return contentLengthHeader
		case 'c':
			return contentTypeHeader
		case 'o': // RFC 6665
			return eventHeader
		case 'x': // RFC 4028
			return secondsHeader
		case 'r': // Refer-To (RFC 3515)
			return structuredHeader
		}
		return otherHeader // k and s: Supported, Subject; u: Allow-Events
	case 2:
		is, long = toHeader, "to"
	case 3:
		is, long = viaHeader, "via"
	case 4:
		switch lower(name[0]) {
		case 'f':
			is, long = fromHeader, "from"
		case 'c':
			is, long = cseqHeader, "cseq"
		}
	case 5:
		switch lower(name[0]) {
		case 'e':
			is, long = eventHeader, "event"
		case 'r':
			is, long = routeHeader, "route"
		}
	case 6:
		switch lower(name[0]) {
		case 's':
			is, long = serverHeader, "server"
		case 'm':
			is, long = secondsHeader, "min-se"
		}
	case 7:
		switch lower(name[1]) {
		case 'a':
			is, long = callIDHeader, "call-id"
		case 'o':
			is, long = contactHeader, "contact"
		case 'x':
			is, long = numberHeader, "expires"
		}
	case 8:
		switch lower(name[2]) {
		case 'p':
			is, long = structuredHeader, "replaces"
		case 'f':
			is, long = structuredHeader, "refer-to"
		}
	case 10:
		is, long = userAgentHeader, "user-agent"
	case 11:
		switch lower(name[0]) {
		case 'm':
			is, long = numberHeader, "min-expires"
		case 'r':
			is, long = structuredHeader, "retry-after"
		}
	case 12:
		switch lower(name[0]) {
		case 'c':
			is, long = contentTypeHeader, "content-type"
		case 'm':
			is, long = numberHeader, "max-forwards"
		case 'r':
			is, long = routeHeader, "record-route"
		}
	case 13:
		is, long = authorizationHeader, "authorization"
	case 14:
		is, long = contentLengthHeader, "content-length"
	case 15:
		is, long = secondsHeader, "session-expires"
	case 16:
		is, long = wwwAuthenticateHeader, "www-authenticate"
	case 18:
		switch lower(name[0]) {
		case 'p':
			is, long = proxyAuthenticateHeader, "proxy-authenticate"
		case 's':
			is, long = eventHeader, "subscription-state"
		}
	case 19:
		is, long = proxyAuthorizationHeader, "proxy-authorization"
	}
	if !equalFold(name, long) {
		return otherHeader
	}
	return is
}

// cutJoined finds another header in the value: behind an &, outside of quotes and brackets, a name and a colon. Behind
// an & at the end of a line pjproject takes the line end for the empty line. In a URI without brackets, & before @ is a
// byte of the user.
func cutJoined(value []byte, name headerName) (before, rest []byte) {
	from := 0
	if name.isAddress() {
		if at := upTo(value, endsUserSearch); at < len(value) && value[at] == '@' && bytes.IndexByte(value[:at],
			'<') < 0 {
			from = at
		}
	}
	w := newWalker(name)
	for i := from; i < len(value); i++ {
		if value[i] == '&' && w.open == 0 && !w.inBrackets {
			next := skipLWS(value[i+1:])
			n := run(next, isToken)
			if colon := skipLWS(next[n:]); len(next) == 0 || n > 0 && len(colon) > 0 && colon[0] == ':' {
				return value[:i], next
			}
		}
		w.step(value[i])
	}
	return value, nil
}
