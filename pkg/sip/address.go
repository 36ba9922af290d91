package sip

import "bytes"

// parseAddress reads name-addr or addr-spec with parameters (RFC 3261 20.10, 25.1). It is not ok where pjproject would
// refuse it for a byte in user or host, or could not find its parts.
func parseAddress(v []byte, a *Address) (ok bool) {
	a.Raw = v[:0]
	ok = true
	rest := v
	if len(v) > 0 && v[0] == '"' {
		a.Display, rest = quoted(v)
		rest = skipLWS(rest)
		if n := bytes.IndexByte(rest, '<'); n > 0 { // so Asterisk answers to quotes that were in a name without them
			rest, ok = rest[n:], false
		} else {
			ok = n == 0 || len(a.Display) == 0
		}
	} else if i := upTo(v, endsDisplay); i < len(v) && v[i] == '<' {
		a.Display, rest = trimLWS(v[:i]), v[i:]
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
	if !parseURI(uri, &a.URI) {
		ok = false
	}
	for {
		rest = skipLWS(rest)
		if len(rest) == 0 || rest[0] != ';' {
			return ok
		}
		var name, value []byte
		name, value, rest = headerParameter(rest[1:])
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

// headerParameter cuts name and value off, behind the semicolon.
func headerParameter(v []byte) (name, value, rest []byte) {
	v = skipLWS(v)
	end := upTo(v, endsParameterName)
	name, rest = v[:end], skipLWS(v[end:])
	if len(rest) == 0 || rest[0] != '=' {
		return name, nil, rest
	}
	rest = skipLWS(rest[1:])
	if len(rest) > 0 && rest[0] == '"' {
		value, rest = quoted(rest)
		return name, value, rest
	}
	end = upTo(rest, endsParameter)
	return name, rest[:end], rest[end:]
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
		if password := bytes.IndexByte(u.User, ':'); password >= 0 {
			u.User = u.User[:password]
		}
		ok = run(u.User, isUser) == len(u.User) && len(u.User) > 0
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
		port, _, isPort := number(rest[1:], 65535)
		u.Port = uint16(port)
		ok = ok && isPort
	}
	return ok
}
