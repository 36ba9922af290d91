package sip

import "bytes"

// Classes of bytes, as pjproject has them in sip_parser.c.
const (
	isToken = 1 << iota // pjsip_TOKEN_SPEC: RFC 3261 25.1 token and some more
	isUser              // pjsip_USER_SPEC_LENIENT with what is escaped
	isHost              // pjsip_HOST_SPEC
	isWord              // RFC 3261 25.1 word, of which a Call-ID is made, and @
	isDigit
	isSpace       // what stands between words, line ends of folded lines among them
	isViaValue    // pjsip_VIA_PARAM_SPEC: token, and what an IPv6 address is made of
	isURIValue    // pjsip_PARAM_CHAR_SPEC: of a parameter of a URI
	isHeaderValue // pjsip_HDR_CHAR_SPEC: of a header within a URI
	isPassword    // pjsip_PASSWD_SPEC

	// What ends something.
	endsParameterName
	endsParameter // the value of one, or a sent-by
	endsDigestValue
	endsVia // or begins its parameters
	endsDisplay
	endsAddrSpec
	endsHost
	endsLine
	endsUserSearch // pjsip_PROBE_USER_HOST_SPEC
)

var classes = func() (table [256]uint32) {
	add := func(class uint32, bytes string) {
		for i := range len(bytes) {
			table[bytes[i]] |= class
		}
	}
	const digits = "0123456789"
	const alphanum = digits + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const token, unreserved = alphanum + "-.!%*_`'~+", alphanum + "-_.!~*'()%"
	add(isToken, token)
	add(isViaValue, token+"[:]")
	add(isUser, unreserved+"&=+$,;?/#")
	add(isPassword, unreserved+"&=+$,")
	add(isURIValue, unreserved+"[]/:&+$")
	add(isHeaderValue, unreserved+"[]/?:+$")
	add(isHost, alphanum+"_-.")
	add(isWord, alphanum+"-.!%*_+`'~()<>:\\\"/[]?{}@")
	add(isDigit, digits)
	const space = " \t\r\n"
	add(isSpace, space)
	add(endsParameterName, "=;,("+space)
	add(endsParameter, ";,("+space)
	add(endsDigestValue, ","+space)
	add(endsVia, ";,")
	add(endsDisplay, ":<")
	add(endsAddrSpec, ";,"+space)
	add(endsHost, ":;?>")
	add(endsLine, "\r\n")
	add(endsUserSearch, "@ \n>")
	return table
}()

// run is how many bytes of a class stand at the beginning.
func run(b []byte, class uint32) int {
	for i, c := range b {
		if classes[c]&class == 0 {
			return i
		}
	}
	return len(b)
}

// upTo is how many bytes stand before the first one of a class; all, where there is none.
func upTo(b []byte, class uint32) int {
	for i, c := range b {
		if classes[c]&class != 0 {
			return i
		}
	}
	return len(b)
}

func skipLWS(b []byte) []byte { return b[run(b, isSpace):] }

func trimLWS(b []byte) []byte {
	b = skipLWS(b)
	for len(b) > 0 && classes[b[len(b)-1]]&isSpace != 0 {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares with an ASCII text, letter case aside. A byte outside ASCII is equal to none.
func equalFold(b []byte, text string) bool {
	if len(b) != len(text) {
		return false
	}
	for i, c := range b {
		if lower(c) != lower(text[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// quoted cuts a quoted string off, which b begins with (RFC 3261 25.1). Without an end it is all of b. It is not closed
// for pjproject where an LF is in it.
func quoted(b []byte) (inner, rest []byte, isClosed bool) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[1:i], b[i+1:], bytes.IndexByte(b[:i], '\n') < 0
		}
	}
	return b[1:], nil, false
}

// isNumber says whether there are digits alone.
func isNumber(b []byte) bool {
	n := run(b, isDigit)
	return n > 0 && len(skipLWS(b[n:])) == 0
}

// number reads digits; it is not ok where there are none, or where they are more than most.
func number(b []byte, most uint64) (value uint64, digits int, ok bool) {
	digits = run(b, isDigit)
	for _, c := range b[:digits] {
		value = value*10 + uint64(c-'0')
		if value > most {
			return 0, digits, false
		}
	}
	return value, digits, digits > 0
}
