package lab

import (
	"bytes"
	"crypto/md5" // RFC 2617 digests
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Request is one SIP request (RFC 3261). What is zero gets a value that a phone would send. All strings go to the wire
// as they are, whatever bytes they hold: that is the purpose.
type Request struct {
	Method string // REGISTER unless set
	User   string // of From, and of To and Contact unless others are set
	To     string // user of To and, except for REGISTER, of the request URI
	// Display is the display name of From, To and Contact, with what stands around it: `"Alice" `.
	Display string
	CallID  string
	CSeq    int // 1 unless set
	Branch  string
	Tag     string
	ToTag   string
	// Credentials is the value of an Authorization header; see [Challenge.Answer].
	Credentials string
	// Header holds more lines, without their line ends.
	Header []string
	Body   string
	// Expires in seconds, of a REGISTER: 3600 unless set, -1 for 0, which unregisters.
	Expires int
}

// fillDefaults may be called more than once.
func (r *Request) fillDefaults() {
	if r.Method == "" {
		r.Method = "REGISTER"
	}
	if r.To == "" {
		r.To = r.User
	}
	if r.CallID == "" {
		r.CallID = randomToken() + "@lab"
	}
	if r.CSeq == 0 {
		r.CSeq = 1
	}
	if r.Branch == "" {
		r.Branch = "z9hG4bK" + randomToken()
	}
	if r.Tag == "" {
		r.Tag = randomToken()
	}
}

// URI returns the request URI for a server.
func (r Request) URI(server netip.AddrPort) string {
	if r.Method == "" || r.Method == "REGISTER" {
		return "sip:" + server.String()
	}
	to := r.To
	if to == "" {
		to = r.User
	}
	return "sip:" + to + "@" + server.String()
}

// Bytes returns the request as from and to would see it. transport is udp, tcp or tls.
func (r Request) Bytes(transport string, from, to netip.AddrPort) []byte {
	r.fillDefaults()
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("%s %s SIP/2.0", r.Method, r.URI(to))
	line("Via: SIP/2.0/%s %s;branch=%s;rport", strings.ToUpper(transport), from, r.Branch)
	line("Max-Forwards: 70")
	line("From: %s<sip:%s@%s>;tag=%s", r.Display, r.User, to, r.Tag)
	if r.ToTag == "" {
		line("To: %s<sip:%s@%s>", r.Display, r.To, to)
	} else {
		line("To: %s<sip:%s@%s>;tag=%s", r.Display, r.To, to, r.ToTag)
	}
	line("Call-ID: %s", r.CallID)
	line("CSeq: %d %s", r.CSeq, r.Method)
	line("Contact: %s<sip:%s@%s;transport=%s>", r.Display, r.User, from, transport)
	if r.Method == "REGISTER" {
		expires := r.Expires
		switch expires {
		case 0:
			expires = 3600
		case -1:
			expires = 0
		}
		line("Expires: %d", expires)
	}
	if r.Credentials != "" {
		line("Authorization: %s", r.Credentials)
	}
	for _, h := range r.Header {
		line("%s", h)
	}
	line("Content-Length: %d", len(r.Body))
	b.WriteString("\r\n" + r.Body)
	return b.Bytes()
}

// Response is a SIP response.
type Response struct {
	Code int
	Raw  []byte
}

// Get returns the first value of a header, or "".
func (r *Response) Get(name string) string {
	for line := range strings.SplitSeq(string(r.Raw), "\r\n") {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
		if line == "" {
			break
		}
	}
	return ""
}

func (r *Response) toTag() string {
	_, tag, _ := strings.Cut(r.Get("To"), ";tag=")
	tag, _, _ = strings.Cut(tag, ";")
	return tag
}

// parseResponse returns nil for what is none, such as a request from Asterisk.
func parseResponse(b []byte) *Response {
	rest, ok := bytes.CutPrefix(b, []byte("SIP/2.0 "))
	if !ok || len(rest) < 3 {
		return nil
	}
	code, err := strconv.Atoi(string(rest[:3]))
	if err != nil {
		return nil
	}
	return &Response{Code: code, Raw: b}
}

// Challenge is what a 401 asks for (RFC 2617, the MD5 of RFC 3261 section 22.4).
type Challenge struct {
	Realm, Nonce, Opaque string
	QOP                  bool

	count int
}

// Challenge returns the response's MD5 challenge, or nil.
func (r *Response) Challenge() *Challenge {
	for line := range strings.SplitSeq(string(r.Raw), "\r\n") {
		value, ok := strings.CutPrefix(line, "WWW-Authenticate: Digest ")
		if !ok {
			continue
		}
		c := &Challenge{
			Realm: parameterValue(value, "realm"), Nonce: parameterValue(value, "nonce"),
			Opaque: parameterValue(value, "opaque"),
			QOP:    strings.Contains(parameterValue(value, "qop"), "auth"),
		}
		if a := parameterValue(value, "algorithm"); a == "" || strings.EqualFold(a, "MD5") {
			return c
		}
	}
	return nil
}

func parameterValue(s, name string) string {
	for part := range strings.SplitSeq(s, ",") {
		if k, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok && strings.EqualFold(k, name) {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// Answer returns the value of an Authorization header for a request to uri.
func (c *Challenge) Answer(user, password, method, uri string) string {
	ha1, ha2 := md5Hex(user, c.Realm, password), md5Hex(method, uri)
	s := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s", algorithm=MD5`, user, c.Realm, c.Nonce,
		uri)
	if c.QOP {
		c.count++
		nc, cnonce := fmt.Sprintf("%08x", c.count), randomToken()
		s += fmt.Sprintf(`, qop=auth, nc=%s, cnonce="%s", response="%s"`, nc, cnonce,
			md5Hex(ha1, c.Nonce, nc, cnonce, "auth", ha2))
	} else {
		s += fmt.Sprintf(`, response="%s"`, md5Hex(ha1, c.Nonce, ha2))
	}
	if c.Opaque != "" {
		s += fmt.Sprintf(`, opaque="%s"`, c.Opaque)
	}
	return s
}

func md5Hex(parts ...string) string {
	sum := md5.Sum([]byte(strings.Join(parts, ":")))
	return hex.EncodeToString(sum[:])
}

func randomToken() string { return rand.Text()[:16] }
