package security

import (
	"strings"
	"time"
)

// Decoder decodes frames that come one after the other as Decode does, a little faster: it remembers the second and the
// address of Asterisk's own that the last frame named, which the next one mostly names again. The zero Decoder is ready.
// It holds on to no frame. It is for one goroutine.
type Decoder struct{ last memory }

// Decode is the function Decode.
func (d *Decoder) Decode(frame string, ev *Event) error { return decode(frame, ev, &d.last) }

// memory is what was read of a line, by the line's very bytes. The nil memory knows nothing.
type memory struct {
	second [secondSize + zoneSize]byte // text of a time without its milliseconds
	began  time.Time                   // that second
	timed  bool

	line    [lineSize]byte // of a local address, with the end of the line
	size    int
	address Address
}

const (
	secondSize = len("2026-11-22T21:50:35")
	zoneSize   = len("+0000")

	lineSize = len("LocalAddress: IPV4/UDP/255.255.255.255/65535\r\n")
)

// time is parseTime.
func (m *memory) time(s string) (time.Time, bool) {
	if m == nil {
		return parseTime(s)
	}
	zone := s[len(s)-zoneSize:]
	if m.timed && s[:secondSize] == string(m.second[:secondSize]) && zone == string(m.second[secondSize:]) {
		tenths, thousandths := uint(s[secondSize+1]-'0'), two(s[secondSize+2:])
		if s[secondSize] != '.' || tenths > 9 || thousandths > 99 {
			return time.Time{}, false
		}
		return m.began.Add(time.Duration(tenths*100+thousandths) * time.Millisecond), true
	}
	t, ok := parseTime(s)
	if ok {
		copy(m.second[:], s[:secondSize])
		copy(m.second[secondSize:], zone)
		m.began, m.timed = t.Truncate(time.Second), true
	}
	return t, ok
}

// local cuts the line of a usual local address off s.
func (m *memory) local(s string) (a Address, rest string, ok bool) {
	if m != nil && m.size > 0 && len(s) >= m.size && s[:m.size] == string(m.line[:m.size]) {
		return m.address, s[m.size:], true
	}
	a, rest, ok = cutUsualAddress(s, "LocalAddress: IPV4/")
	if !ok || !strings.HasPrefix(rest, "\r\n") {
		return Address{}, "", false
	}
	rest = rest[2:]
	if n := len(s) - len(rest); m != nil && n <= lineSize {
		m.size, m.address = n, a
		copy(m.line[:], s[:n])
	}
	return a, rest, true
}
