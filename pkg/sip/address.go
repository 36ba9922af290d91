package sip

import "bytes"

// parseAddress reads name-addr or addr-spec with parameters (RFC 3261 20.10, 25.1), and returns what stands behind. The
// faults are those for which pjproject refuses it.
func parseAddress(v []byte, a *Address) (rest []byte, faults Malformed) {
	a.Raw = v[:0]
	ok := true
	rest = v
	if len(v) > 0 && v[0] == '"' {
		a.Display, rest, ok = quoted(v)
		rest = skipLWS(rest)
		if n := bytes.IndexByte(rest, '<'); n > 0 { // so Asterisk answers to quotes that were in a name without them
			rest, ok = rest[n:], false
		} else {
			ok = ok && (n == 0 || len(a.Display) == 0)
		}
	} else if i := upTo(v, endsDisplay); i < len(v) && v[i] == '<' {
		a.Display, rest = trimLWS(v[:i]), v[i:]
		ok = bytes.IndexByte(v[:i], 0) < 0
	}
	var uri []byte
	if len(rest) > 0 && rest[0] == '<' {
		end := closingBracket(rest)
		if end == len(rest) {
			uri, rest, ok = rest[1:], nil, false
		} else {
			uri, rest = trimLWS(rest[1:end]), rest[end+1:]
		}
	} else {
		end := endOfAddrSpec(rest)
		uri, rest = rest[:end], rest[end:]
	}
	if !parseURI(uri, &a.URI) || !ok {
		faults = BadAddress
	}
	for {
		rest = skipLWS(rest)
		if len(rest) == 0 || rest[0] != ';' {
			return rest, faults
		}
		var name, value []byte
		if name, value, rest, ok = headerParameter(rest[1:], isToken); !ok {
			faults |= BadHeader
		}
		if equalFold(name, "tag") {
			a.Tag = value
		}
	}
}

// closingBracket is where the bracket at the beginning is closed, or the end.
func closingBracket(v []byte) int {
	first := bytes.IndexByte(v, '>')
	if first < 0 {
		return len(v)
	}
	if bytes.IndexByte(v[:first], '"') < 0 && bytes.IndexByte(v[:first], '[') < 0 {
		return first
	}
	w := newWalker(otherHeader)
	for i, c := range v {
		if w.step(c); !w.inBrackets {
			return i
		}
	}
	return len(v)
}

// endOfAddrSpec is where parameters of the header begin, behind a URI without brackets: a semicolon in the user is a
// part of it.
func endOfAddrSpec(v []byte) int {
	from := 0
	if at := upTo(v, endsUserSearch); at < len(v) && v[at] == '@' {
		from = at
	}
	return from + upTo(v[from:], endsAddrSpec)
}

// headerParameter cuts name and value off, behind the semicolon. It is not ok where pjproject, which takes a class of
// bytes in the value, reads it otherwise.
func headerParameter(v []byte, class uint32) (name, value, rest []byte, ok bool) {
	v = skipLWS(v)
	end := upTo(v, endsParameterName)
	name, rest = v[:end], skipLWS(v[end:])
	ok = len(name) > 0 && run(name, class) == len(name)
	if len(rest) == 0 || rest[0] != '=' {
		return name, nil, rest, ok
	}
	rest = skipLWS(rest[1:])
	if len(rest) > 0 && rest[0] == '"' {
		var isClosed bool
		value, rest, isClosed = quoted(rest)
		return name, value, rest, ok && isClosed
	}
	end = upTo(rest, endsParameter)
	value = rest[:end]
	return name, value, rest[end:], ok && run(value, class) == len(value)
}

// parseURI reads a URI alone. Bytes that have no place in it become a part of user and host: there is where somebody
// injects.
func parseURI(raw []byte, u *URI) (ok bool) {
	u.Raw = raw
	n := run(raw, isToken)
	if n == 0 || n == len(raw) || raw[n] != ':' {
		return false
	}
	u.Scheme = raw[:n]
	rest := raw[n+1:]
	if equalFold(u.Scheme, "tel") {
		end := bytes.IndexByte(rest, ';')
		if end < 0 {
			end = len(rest)
		}
		u.User = rest[:end]
		return len(u.User) > 0
	}
	if !equalFold(u.Scheme, "sip") && !equalFold(u.Scheme, "sips") {
		return true // pjproject knows more schemes where a module has registered one
	}
	ok = true
	// Whether there is a user: pjproject looks for @ without looking for the end of the host (int_is_next_user).
	if at := bytes.IndexByte(rest, '@'); at >= 0 {
		u.User, rest = rest[:at], rest[at+1:]
		if colon := bytes.IndexByte(u.User, ':'); colon >= 0 {
			password := u.User[colon+1:]
			u.User = u.User[:colon]
			ok = run(password, isPassword) == len(password) && len(password) > 0
		}
		ok = ok && run(u.User, isUser) == len(u.User) && len(u.User) > 0
	}
	if len(rest) > 0 && rest[0] == '[' {
		end := bytes.IndexByte(rest, ']')
		if end < 0 {
			u.Host = rest[1:]
			return false
		}
		u.Host, rest = rest[1:end], rest[end+1:]
		ok = ok && len(u.Host) > 0
	} else {
		end := upTo(rest, endsHost)
		u.Host, rest = rest[:end], rest[end:]
		ok = ok && len(u.Host) > 0 && run(u.Host, isHost) == len(u.Host)
	}
	if len(rest) > 0 && rest[0] == ':' {
		port, digits, isPort := number(rest[1:], 65535)
		u.Port = uint16(port)
		ok = ok && isPort
		rest = rest[1+digits:]
	}
	return ok && isURITail(rest)
}

// isURITail says whether parameters and headers are all that stands behind the host of a URI (RFC 3261 19.1.1).
func isURITail(b []byte) bool {
	for len(b) > 0 && b[0] == ';' {
		n := run(b[1:], isURIValue)
		if b = b[1+n:]; n == 0 {
			return false
		}
		if len(b) == 0 || b[0] != '=' {
			continue
		}
		if b = b[1:]; len(b) > 0 && b[0] == '"' {
			var isClosed bool
			if _, b, isClosed = quoted(b); !isClosed {
				return false
			}
			continue
		}
		b = b[run(b, isURIValue):]
	}
	for before := byte('?'); len(b) > 0 && b[0] == before; before = '&' {
		n := run(b[1:], isHeaderValue)
		if b = b[1+n:]; n == 0 {
			return false
		}
		if len(b) > 0 && b[0] == '=' {
			b = b[1+run(b[1:], isHeaderValue):]
		}
	}
	return len(b) == 0
}
