package httphead

import (
	"bytes"
	"errors"
)

// Head is what the head of a request or of an answer says. Its slices are views of the bytes that were parsed.
type Head struct {
	// Method is a request's, as it was sent; nil in an answer.
	Method []byte
	// Status is an answer's, 100 to 599; 0 in a request.
	Status int
	// Path is where a request goes to.
	Path Path
	// Scheme is that of a request's credentials, or of an answer's challenge.
	Scheme Scheme
	// Stale says of an answer that the nonce was too old, and not that the password was wrong (RFC 7616, section 3.3).
	Stale bool
	// Login says that a request is the manager's action login, with its credentials beside it: in the query, or in the
	// body as far as that follows the head.
	Login bool
	// WebSocket says that a request asks for a WebSocket, or that an answer grants one. What follows is frames, see
	// [ParseFrame].
	WebSocket bool
	// Size is how many bytes the head has, with the empty line; 0 where its end is not among the bytes that were
	// parsed.
	Size int

	username [longestUsername]byte
	length   int
}

// longestUsername is how much of a name is kept: as much as struct ast_manager_user of main/manager.c has.
const longestUsername = 80

// Username is the name that credentials are for, cut to 80 bytes: those of Basic and Digest, of the parameter
// api_key, and of the action login. It holds what a peer chose, and is valid until the next Parse.
func (h *Head) Username() []byte { return h.username[:h.length] }

// HasCredentials says whether a request brings any.
func (h *Head) HasCredentials() bool { return h.Status == 0 && (h.Scheme != NoScheme || h.Login) }

// Path is a place of Asterisk's HTTP server. http.conf may put all of them behind a prefix.
type Path uint8

// The places.
const (
	OtherPath Path = iota
	ARI
	Manager  // HTML; with the action login, as the next two
	MXML     // XML
	Rawman   // as over TCP
	AManager // the same three, with Digest
	AMXML
	ARawman
	HTTPStatus
	Static
	WS // SIP over WebSocket
	numPaths
)

var pathNames = [numPaths]string{
	"other", "ari", "manager", "mxml", "rawman", "amanager", "amxml", "arawman", "httpstatus", "static", "ws",
}

// String returns the place's name, or "other".
func (p Path) String() string {
	if p >= numPaths {
		return pathNames[OtherPath]
	}
	return pathNames[p]
}

// WritesSecurityEvents says whether Asterisk reports logins there by itself.
func (p Path) WritesSecurityEvents() bool { return p == Manager || p == MXML || p == Rawman }

// Scheme is a way of HTTP authentication.
type Scheme uint8

// The schemes that Asterisk has. APIKey is ARI's parameter api_key, whose value is NAME:PASSWORD.
const (
	NoScheme Scheme = iota
	OtherScheme
	Basic
	Digest
	APIKey
)

// ErrNotHTTP says that the bytes do not begin with a request or an answer: they may be the middle of one.
var ErrNotHTTP = errors.New("httphead: neither a request nor an answer")

// longestHead bounds the work for one head. Asterisk reads 100 lines of 4096 bytes (MAX_HTTP_REQUEST_HEADERS,
// MAX_HTTP_LINE_LENGTH of main/http.c); a packet has less.
const longestHead = 64 << 10

// Parse reads bytes that begin with a request or an answer. It overwrites *h, and allocates nothing. What the head says
// behind the end of the bytes is not known; Size is 0 then.
func Parse(b []byte, h *Head) error {
	*h = Head{}
	b = b[:min(len(b), longestHead)]
	line, rest, whole := cutLine(b)
	if !h.parseStatusLine(line) && !h.parseRequestLine(line, whole) {
		*h = Head{}
		return ErrNotHTTP
	}
	for whole {
		if line, rest, whole = cutLine(rest); !whole {
			break // half a line: its value may go on
		}
		if len(line) == 0 {
			h.Size = len(b) - len(rest)
			h.parseBody(rest)
			break
		}
		h.parseHeader(line)
	}
	return nil
}

// cutLine returns the first line without its end, which is a LF and blanks before it (http_request_headers_get). whole
// says that it has one.
func cutLine(b []byte) (line, rest []byte, whole bool) {
	line, rest, whole = bytes.Cut(b, []byte("\n"))
	return bytes.TrimRight(line, " \t\r"), rest, whole
}

// parseStatusLine reads HTTP/1.1 401 Unauthorized.
func (h *Head) parseStatusLine(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < len("1 200") || rest[0] != '0' && rest[0] != '1' || rest[1] != ' ' {
		return false
	}
	for _, c := range rest[2:5] {
		if c < '0' || c > '9' {
			return false
		}
		h.Status = 10*h.Status + int(c-'0')
	}
	return h.Status >= 100 && h.Status < 600 && (len(rest) == 5 || rest[5] == ' ')
}

// methods are those that Asterisk knows (ast_get_http_method).
var methods = [...]string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"}

// parseRequestLine reads GET /ari/channels?api_key=name:password HTTP/1.1. Asterisk does not want the last word, and
// takes a method that it does not know for one that leads nowhere.
func (h *Head) parseRequestLine(line []byte, whole bool) bool {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || !isMethod(method) {
		return false
	}
	target := bytes.TrimLeft(rest, " \t")
	target, version, _ := bytes.Cut(target, []byte(" "))
	if len(target) == 0 || target[0] != '/' {
		return false
	}
	if known := isKnownMethod(method); !known && (!whole || !bytes.HasPrefix(version, []byte("HTTP/1."))) {
		return false
	}
	h.Method = method
	path, query, _ := bytes.Cut(target, []byte("?"))
	h.Path = pathOf(path)
	h.parseParameters(query)
	return true
}

func isKnownMethod(b []byte) bool {
	for _, m := range methods {
		if string(b) == m {
			return true
		}
	}
	return false
}

// isMethod says whether b can be a method's name.
func isMethod(b []byte) bool {
	for _, c := range b {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 32
}

// pathOf returns the place that a path leads to: the first segment that is one's name, since there may be a prefix.
// Asterisk compares the bytes as they were sent, in either case (handle_uri).
func pathOf(path []byte) Path {
	for more := true; more; {
		var segment []byte
		segment, path, more = bytes.Cut(path, []byte("/"))
		for p := OtherPath + 1; p < numPaths; p++ {
			if equalFold(segment, pathNames[p]) {
				return p
			}
		}
	}
	return OtherPath
}

// equalFold is [bytes.EqualFold] for ASCII, as strcasecmp is.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// parseHeader reads one line. No line goes on in the next, and of several that bring credentials the first one that
// Asterisk understands counts (ast_get_http_auth).
func (h *Head) parseHeader(line []byte) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	name, value = bytes.TrimRight(name, " \t"), bytes.TrimLeft(value, " \t")
	switch {
	case equalFold(name, "upgrade"):
		// Of a request Asterisk wants the word to be in it (ast_websocket_uri_cb).
		h.WebSocket = h.WebSocket || containsFold(value, "websocket") && (h.Status == 0 || h.Status == 101)
	case h.Status == 0 && equalFold(name, "authorization"):
		if h.Scheme == Basic || h.Scheme == Digest {
			return
		}
		scheme, credentials := cutScheme(value)
		if scheme == OtherScheme && h.Scheme == APIKey {
			return
		}
		h.Scheme, h.length = scheme, 0
		switch scheme {
		case Basic:
			h.setBasicUsername(credentials)
		case Digest:
			h.setUsername(parameter(credentials, "username"), false)
		}
	case h.Status != 0 && equalFold(name, "www-authenticate"):
		scheme, challenge := cutScheme(value)
		h.Scheme = scheme
		h.Stale = scheme == Digest && equalFold(parameter(challenge, "stale"), "true")
	}
}

func containsFold(b []byte, lower string) bool {
	for ; len(b) >= len(lower); b = b[1:] {
		if equalFold(b[:len(lower)], lower) {
			return true
		}
	}
	return false
}

// cutScheme returns a scheme and what follows it.
func cutScheme(value []byte) (Scheme, []byte) {
	name, rest, _ := bytes.Cut(value, []byte(" "))
	switch {
	case equalFold(name, "basic"):
		return Basic, bytes.TrimLeft(rest, " \t")
	case equalFold(name, "digest"):
		return Digest, rest
	}
	return OtherScheme, nil
}

// parameter returns the value of name in a list such as username="100", stale=true, without quotation marks. A \ in a
// quoted value stays.
func parameter(list []byte, name string) []byte {
	for len(list) > 0 {
		list = bytes.TrimLeft(list, " \t,")
		i := bytes.IndexAny(list, "=,")
		if i < 0 {
			return nil
		}
		if list[i] == ',' {
			list = list[i:]
			continue
		}
		key := bytes.TrimRight(list[:i], " \t")
		var value []byte
		if value, list = cutValue(bytes.TrimLeft(list[i+1:], " \t")); equalFold(key, name) {
			return value
		}
	}
	return nil
}

// cutValue returns the value that a list begins with, and what follows it.
func cutValue(list []byte) (value, rest []byte) {
	if len(list) == 0 || list[0] != '"' {
		end := bytes.IndexAny(list, ", \t")
		if end < 0 {
			end = len(list)
		}
		return list[:end], list[end:]
	}
	list = list[1:]
	for end := 0; end < len(list); end++ {
		switch list[end] {
		case '\\':
			end++
		case '"':
			return list[:end], list[end+1:]
		}
	}
	return list, nil
}

// parseParameters reads a query, or the body of a form: what names somebody.
func (h *Head) parseParameters(list []byte) {
	manager := h.Path.WritesSecurityEvents()
	var action, username []byte
	for more := len(list) > 0; more; {
		var pair []byte
		pair, list, more = bytes.Cut(list, []byte("&"))
		key, value, _ := bytes.Cut(pair, []byte("="))
		switch {
		case h.Path == ARI && h.Scheme == NoScheme && equalFold(key, "api_key"):
			h.Scheme = APIKey
			h.setUsername(value, true)
		case manager && action == nil && equalFold(key, "action"):
			action = value
		case manager && username == nil && equalFold(key, "username"):
			username = value
		}
	}
	if !h.Login && equalFold(action, "login") {
		h.Login = true
		h.setUsername(username, true)
	}
}

// parseBody reads as much of a body as there is.
func (h *Head) parseBody(body []byte) {
	if string(h.Method) == "POST" && h.Path.WritesSecurityEvents() {
		h.parseParameters(body)
	}
}

// setUsername keeps a name: up to the colon, behind which a password stands; escaped says that %3a is one, too, and + a
// space (ast_uri_decode with ast_uri_http_legacy).
func (h *Head) setUsername(b []byte, escaped bool) {
	h.length = 0
	for len(b) > 0 && h.length < longestUsername {
		c := b[0]
		b = b[1:]
		if escaped && c == '%' && len(b) >= 2 {
			if high, low := hexDigit(b[0]), hexDigit(b[1]); high < 16 && low < 16 {
				c, b = high<<4|low, b[2:]
			}
		} else if escaped && c == '+' {
			c = ' '
		}
		if c == ':' && escaped {
			return
		}
		h.username[h.length] = c
		h.length++
	}
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}

// setBasicUsername decodes base64 up to the colon, so that the password stays what it is.
func (h *Head) setBasicUsername(b []byte) {
	h.length = 0
	bits, n := 0, 0
	for _, c := range b {
		value := base64Digit(c)
		if value > 63 {
			return
		}
		bits, n = bits<<6|int(value), n+6
		if n < 8 {
			continue
		}
		n -= 8
		c = byte(bits >> n)
		bits &= 1<<n - 1
		if c == ':' || h.length == longestUsername {
			return
		}
		h.username[h.length] = c
		h.length++
	}
}

func base64Digit(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c - 'A'
	case 'a' <= c && c <= 'z':
		return c - 'a' + 26
	case '0' <= c && c <= '9':
		return c - '0' + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	}
	return 0xff
}
