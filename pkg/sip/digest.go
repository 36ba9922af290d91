package sip

import (
	"bytes"
	"fmt"
)

// Credentials are what an Authorization or Proxy-Authorization holds (RFC 7616 3.4). They are for comparing: no verb of
// fmt shows them, nor does a log or JSON.
type Credentials struct {
	Proxy                                                                             bool
	Scheme, Username, Realm, Nonce, URI, Response, Algorithm, CNonce, Opaque, QOP, NC []byte
}

const hiddenCredentials = "credentials (hidden)"

// String hides them.
func (Credentials) String() string { return hiddenCredentials }

// Format hides them from every verb.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenCredentials)) }

// MarshalText hides them from JSON and from logs.
func (Credentials) MarshalText() ([]byte, error) { return []byte(hiddenCredentials), nil }

// A Challenge is what a WWW-Authenticate or Proxy-Authenticate holds (RFC 7616 3.3).
type Challenge struct {
	Proxy                                        bool
	Scheme, Realm, Nonce, Opaque, Algorithm, QOP []byte
	Stale                                        bool
}

// parseCredentials is not ok where pjproject refuses them. That it refuses other schemes, too, is no fault of who is
// set up for another server.
func parseCredentials(v []byte, c *Credentials) (ok bool) {
	c.Scheme, v = scheme(v)
	ok = len(c.Scheme) > 0 && len(v) > 0
	for len(v) > 0 {
		var name, value []byte
		var isRead bool
		name, value, v, isRead = digestParameter(v)
		ok = ok && isRead
		switch {
		case equalFold(name, "username"):
			c.Username = value
		case equalFold(name, "realm"):
			c.Realm = value
		case equalFold(name, "nonce"):
			c.Nonce = value
		case equalFold(name, "uri"):
			c.URI = value
		case equalFold(name, "response"):
			c.Response = value
		case equalFold(name, "algorithm"):
			c.Algorithm = value
		case equalFold(name, "cnonce"):
			c.CNonce = value
		case equalFold(name, "opaque"):
			c.Opaque = value
		case equalFold(name, "qop"):
			c.QOP = value
		case equalFold(name, "nc"):
			c.NC = value
		}
	}
	if equalFold(c.Scheme, "Digest") {
		return ok
	}
	return equalFold(c.Scheme, "Basic") || equalFold(c.Scheme, "Bearer") || equalFold(c.Scheme, "NTLM")
}

func parseChallenge(v []byte, c *Challenge) {
	c.Scheme, v = scheme(v)
	for len(v) > 0 {
		var name, value []byte
		name, value, v, _ = digestParameter(v)
		switch {
		case equalFold(name, "realm"):
			c.Realm = value
		case equalFold(name, "nonce"):
			c.Nonce = value
		case equalFold(name, "opaque"):
			c.Opaque = value
		case equalFold(name, "algorithm"):
			c.Algorithm = value
		case equalFold(name, "qop"):
			c.QOP = value
		case equalFold(name, "stale"):
			c.Stale = equalFold(value, "true")
		}
	}
}

// scheme cuts off the scheme, which pjproject takes in quotes as well (sip_auth_parser.c).
func scheme(v []byte) (name, rest []byte) {
	if len(v) > 0 && v[0] == '"' {
		name, rest, _ = quoted(v)
		return name, skipLWS(rest)
	}
	n := run(v, isToken)
	return v[:n], skipLWS(v[n:])
}

// digestParameter cuts off one parameter and the comma behind it. It always takes something, and is not ok where
// pjproject reads otherwise.
func digestParameter(v []byte) (name, value, rest []byte, ok bool) {
	n := run(v, isToken)
	name, rest = v[:n], skipLWS(v[n:])
	ok = n > 0
	if len(rest) > 0 && rest[0] == '=' {
		rest = skipLWS(rest[1:])
		if len(rest) > 0 && rest[0] == '"' {
			var isClosed bool
			value, rest, isClosed = quoted(rest)
			ok = ok && isClosed
		} else {
			n = upTo(rest, endsDigestValue)
			value, rest = rest[:n], rest[n:]
			ok = ok && run(value, isToken) == n
		}
	}
	rest = skipLWS(rest)
	comma := bytes.IndexByte(rest, ',')
	if comma < 0 {
		return name, value, nil, ok && len(rest) == 0
	}
	ok = ok && comma == 0
	rest = skipLWS(rest[comma+1:])
	return name, value, rest, ok && len(rest) > 0
}
