package sip

import "bytes"

// maxMessage is how much pjproject takes for one message on what is no datagram (PJSIP_MAX_PKT_LEN in Asterisk's
// config_site.h). Behind more than that it begins anew.
const maxMessage = 65535

type cutterState uint8

const (
	betweenMessages cutterState = iota // line ends may come, also as keepalives (RFC 5626 3.5.1)
	inHead
	inBody
	searching // for a start line
	inLongLine
)

// A cutter finds heads in the bytes of a connection in their order, where pjproject finds them (pjsip_find_msg). It
// keeps what it needs of a head that goes on in the next segment, and else nothing.
//
// Where pjproject would throw away what it happens to have read, nobody outside can say where the next message begins.
// No phone brings it to that. The cutter is unsure from then on: it passes over nothing, and takes each line that
// begins a message for the beginning of one.
type cutter struct {
	state  cutterState
	unsure bool
	skip   int // of the body
	kept   []byte
}

// feed takes the next bytes. A head is told as soon as its end is there; it is valid until tell returns. How the bytes
// are cut makes no difference.
func (c *cutter) feed(b []byte, tell func(head []byte)) {
	for len(b) > 0 {
		switch c.state {
		case betweenMessages:
			b = b[run(b, endsLine):]
			if len(b) == 0 {
				return
			}
			c.state = inHead
			if classes[b[0]]&(isToken|isSpace) == 0 {
				c.state, c.unsure = searching, true // TLS, for one; there is nothing to collect
			}
		case inHead:
			b = c.feedHead(b, tell)
		case inBody:
			n := min(c.skip, len(b))
			b = b[n:]
			if c.skip -= n; c.skip == 0 {
				c.state = betweenMessages
			}
		case searching, inLongLine:
			b = c.search(b)
		}
	}
}

func (c *cutter) feedHead(b []byte, tell func(head []byte)) (rest []byte) {
	before := len(c.kept)
	window := b[:min(len(b), maxMessage-before)]
	head, end := window, headEnd(window)
	if before > 0 {
		c.keep(window)
		from := max(0, before-2)
		head = c.kept
		if end = headEnd(head[from:]); end > 0 {
			end += from
		}
	}
	switch {
	case end > 0:
		c.kept = nil
		c.headDone(head[:end], tell)
		return b[end-before:]
	case len(head) == maxMessage:
		c.kept = nil
		c.unsure, c.state = true, betweenMessages
		c.tellAll(WholeLines(head), tell)
		return b[len(window):]
	case before == 0:
		c.keep(b)
	}
	return nil
}

func (c *cutter) keep(b []byte) {
	if c.kept == nil {
		c.kept = make([]byte, 0, max(1024, 2*len(b)))
	}
	c.kept = append(c.kept, b...)
}

func (c *cutter) headDone(head []byte, tell func(head []byte)) {
	length, ok := bodyLength(head)
	if !ok || len(head)+length > maxMessage {
		c.unsure = true
	}
	switch {
	case c.unsure:
		c.state = searching
		c.tellAll(head, tell)
		return
	case length > 0:
		c.state, c.skip = inBody, length
	default:
		c.state = betweenMessages
	}
	tell(head)
}

// tellAll tells a head within which others may begin.
func (c *cutter) tellAll(head []byte, tell func(head []byte)) {
	start := 0
	for pos := 0; pos < len(head); {
		line := head[pos : pos+upTo(head[pos:], endsLine)]
		if begin := startInLine(line); begin >= 0 {
			if pos > start {
				tell(head[start:pos])
			}
			start = pos + begin
		}
		pos += len(line)
		pos += run(head[pos:], endsLine)
	}
	if start < len(head) {
		tell(head[start:])
	}
}

// lost says that n bytes are missing here.
func (c *cutter) lost(n int, tell func(head []byte)) {
	if c.state == inBody && n <= c.skip {
		if c.skip -= n; c.skip == 0 {
			c.state = betweenMessages
		}
		return
	}
	c.giveUp(tell)
}

// giveUp is unsure of what follows. A head that has begun is told as far as it came.
func (c *cutter) giveUp(tell func(head []byte)) {
	kept, state := c.kept, c.state
	*c = cutter{state: searching, unsure: true}
	if state == inHead {
		c.tellAll(WholeLines(kept), tell)
	}
}

// search passes over lines up to one that begins a message.
func (c *cutter) search(b []byte) (rest []byte) {
	end := upTo(b, endsLine)
	whole := end < len(b)
	switch {
	case c.state == inLongLine:
		if whole {
			c.state = searching
		}
		return b[end:]
	case len(c.kept)+end > maxMessage:
		c.kept, c.state = nil, inLongLine
		return b[end:]
	case !whole:
		c.keep(b)
		return nil
	case end == 0 && len(c.kept) == 0:
		return b[run(b, endsLine):]
	}
	line := b[:end]
	if len(c.kept) > 0 {
		c.keep(line)
		line = c.kept
	}
	start := startInLine(line)
	switch {
	case start < 0:
		c.kept = nil
		return b[end:]
	case len(c.kept) > 0:
		c.kept = c.kept[start:]
		c.state = inHead
		return b[end:]
	}
	c.state = inHead
	return b[start:]
}

// WholeLines leaves out what stands behind the last line end: of a message that was cut, that may be half a value.
func WholeLines(b []byte) []byte { return b[:bytes.LastIndexByte(b, '\n')+1] }

// headEnd is behind the empty line, or 0. On what is no datagram pjproject looks for LF CR LF, and for nothing else.
func headEnd(b []byte) int {
	if i := bytes.Index(b, []byte("\n\r\n")); i >= 0 {
		return i + 3
	}
	return 0
}

// bodyLength is ok where a head has one Content-Length that nobody can read in two ways (RFC 3261 20.14).
func bodyLength(head []byte) (length int, ok bool) {
	for {
		lf := bytes.IndexByte(head, '\n')
		if lf < 0 {
			return length, ok
		}
		head = head[lf+1:]
		n := run(head, isToken)
		if headerNamed(head[:n]) != contentLengthHeader {
			continue
		}
		if ok {
			return 0, false
		}
		value := head[n:]
		value = value[:upTo(value, endsLine)]
		colon := skipLWS(value)
		if len(colon) == 0 || colon[0] != ':' {
			return 0, false
		}
		value = trimLWS(colon[1:])
		number, digits, isNumber := number(value, maxMessage)
		if !isNumber || digits < len(value) || digits > len("65535") {
			return 0, false
		}
		length, ok = int(number), true
	}
}

// startInLine is where in a line a message begins, or -1. Before it may stand what was no message and had no line end.
func startInLine(line []byte) int {
	if rest, ok := cutVersion(skipLWS(line)); ok && len(rest) > 0 && classes[rest[0]]&isSpace != 0 {
		return 0
	}
	before, ok := cutVersionAtEnd(line)
	if !ok {
		return -1
	}
	// The method is before the first word that begins as a URI does.
	for i := 1; i < len(before); i++ {
		if classes[before[i-1]]&isSpace == 0 || classes[before[i]]&isToken == 0 {
			continue
		}
		if n := i + run(before[i:], isToken); n == len(before) || before[n] != ':' {
			continue
		}
		start := len(trimEnd(before[:i]))
		for start > 0 && classes[before[start-1]]&isToken != 0 {
			start--
		}
		return start
	}
	if len(trimEnd(before)) > 0 {
		return -1
	}
	return 0 // method and URI are in the line before: this one is folded
}
