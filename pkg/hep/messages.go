package hep

import (
	"bytes"
	"iter"
)

// Messages are the SIP messages that the packet is about, each from its first line on.
//
// Over UDP that is the payload, and so it is of all that Asterisk sent. But of a message that it received over
// another transport, the payload is what had been read from the connection: several messages may be in it, the same
// payload comes again for each of them, and the Call-ID alone says which is meant (res_hep_pjsip.c sends
// pkt_info.packet, which pjproject's sip_transport.c leaves at the first message). Where several have that Call-ID,
// all of them are given, with each packet again. None is where no message has it: uuid_type in hep.conf is not
// call-id, or somebody hides.
//
// Messages end as in pjsip_find_msg of pjproject's sip_parser.c, which tells where the next one begins: a LF and an
// empty line of CR LF end the header, and the first Content-Length counts. A message without one, as over WebSocket,
// is the last.
func (p *Packet) Messages() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if p.Protocol == UDP {
			yield(p.Payload)
			return
		}
		for rest := p.Payload; ; {
			rest = bytes.TrimLeft(rest, "\r\n") // keepalives between messages
			if len(rest) == 0 {
				return
			}
			head, body := rest, 0
			if end := bytes.Index(rest, []byte("\n\r\n")); end >= 0 {
				head = rest[:end+len("\n\r\n")]
				body = contentLength(head)
			}
			length := len(rest)
			if body >= 0 && body < len(rest)-len(head) {
				length = len(head) + body
			}
			if hasCallID(head, p.CorrelationID) && !yield(rest[:length]) {
				return
			}
			rest = rest[length:]
		}
	}
}

// contentLength returns the value of the first Content-Length, as pjsip_find_msg reads it; -1 where there is none.
func contentLength(head []byte) int {
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 {
			return -1
		}
		head = head[i+1:]
		rest, ok := cutName(head, "Content-Length", "l")
		if !ok {
			continue
		}
		n, digits := 0, 0
		for digits < len(rest) && rest[digits]-'0' <= 9 {
			if n = 10*n + int(rest[digits]-'0'); n > 1<<16 { // longer than any packet
				return n
			}
			digits++
		}
		if digits > 0 {
			return n
		}
	}
}

// hasCallID says whether a header has that Call-ID. A CR alone ends a line, too, as in pj_scan_get_newline of
// pjlib-util's scanner.c. Asterisk hands the value on as a C string, which ends at the first NUL.
func hasCallID(head, id []byte) bool {
	if len(id) == 0 {
		return false
	}
	for {
		i := bytes.IndexAny(head, "\r\n")
		if i < 0 {
			return false
		}
		head = head[i+1:]
		value, ok := cutName(head, "Call-ID", "i")
		if !ok {
			continue
		}
		if end := bytes.IndexAny(value, "\r\n\x00"); end >= 0 {
			value = value[:end]
		}
		if bytes.Equal(bytes.TrimRight(value, " \t"), bytes.TrimRight(id, " \t")) {
			return true
		}
	}
}

// cutName returns what follows the name of a header, its colon and the blanks around that.
func cutName(line []byte, name, short string) (value []byte, ok bool) {
	switch {
	case len(line) >= len(name) && bytes.EqualFold(line[:len(name)], []byte(name)):
		line = line[len(name):]
	case len(line) >= len(short) && bytes.EqualFold(line[:len(short)], []byte(short)):
		line = line[len(short):]
	default:
		return nil, false
	}
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || line[0] != ':' {
		return nil, false
	}
	return bytes.TrimLeft(line[1:], " \t"), true
}
