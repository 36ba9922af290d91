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

func parseCredentials(v []byte, c *Credentials) {
	c.Scheme, v = scheme(v)
	for len(v) > 0 {
		var name, value []byte
		name, value, v = digestParameter(v)
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
}

func parseChallenge(v []byte, c *Challenge) {
	c.Scheme, v = scheme(v)
	for len(v) > 0 {
		var name, value []byte
		name, value, v = digestParameter(v)
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
		name, rest = quoted(v)
		return name, skipLWS(rest)
	}
	n := run(v, isToken)
	return v[:n], skipLWS(v[n:])
}

// digestParameter cuts off one parameter and the comma behind it. It always takes something.
func digestParameter(v []byte) (name, value, rest []byte) {
	n := run(v, isToken)
	name, rest = v[:n], skipLWS(v[n:])
	if len(rest) > 0 && rest[0] == '=' {
		rest = skipLWS(rest[1:])
		if len(rest) > 0 && rest[0] == '"' {
			value, rest = quoted(rest)
		} else {
			n = upTo(rest, endsDigestValue)
			value, rest = rest[:n], rest[n:]
		}
	}
	comma := bytes.IndexByte(rest, ',')
	if comma < 0 {
		return name, value, nil
	}
	return name, value, skipLWS(rest[comma+1:])
}
