package hep

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// chunk is one chunk of a packet.
type chunk struct {
	vendor, kind uint16
	data         []byte
}

// encode returns a packet of chunks, as Asterisk's res_hep.c puts it together.
func encode(chunks ...chunk) []byte {
	b := append([]byte(magic), 0, 0)
	for _, c := range chunks {
		b = binary.BigEndian.AppendUint16(b, c.vendor)
		b = binary.BigEndian.AppendUint16(b, c.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(chunkHead+len(c.data)))
		b = append(b, c.data...)
	}
	binary.BigEndian.PutUint16(b[len(magic):], uint16(len(b)))
	return b
}

func with(kind uint16, data ...byte) chunk { return chunk{0, kind, data} }

func text(kind uint16, s string) chunk { return chunk{0, kind, []byte(s)} }

const request = "OPTIONS sip:100@10.99.0.1 SIP/2.0\r\nCall-ID: a\xff@b\r\n\r\n"

// ordinary are the chunks of one packet, in Asterisk's order.
func ordinary() []chunk {
	return []chunk{
		with(chunkFamily, 2), with(chunkProtocol, 17), with(chunkSourcePort, 0x13, 0xc4),
		with(chunkTargetPort, 0x13, 0xc5), with(chunkSeconds, 0x69, 0x2a, 0, 0), with(chunkMicroseconds, 0, 0, 0x03, 0xe8),
		with(chunkContent, 1), with(chunkCaptureID, 0, 0, 0x04, 0xd2),
		with(chunkIPv4Source, 10, 99, 0, 66), with(chunkIPv4Target, 10, 99, 0, 1),
		text(chunkPassword, "secret"), text(chunkCorrelationID, "a\xff@b"), text(0x13, "asterisk"),
		text(chunkPayload, request),
	}
}

// without returns the ordinary packet but for the chunks of some types, with others behind it.
func without(kinds []uint16, more ...chunk) []byte {
	chunks := slices.DeleteFunc(ordinary(), func(c chunk) bool { return slices.Contains(kinds, c.kind) })
	return encode(append(chunks, more...)...)
}

func TestDecode(t *testing.T) {
	var p Packet
	if err := Decode(encode(ordinary()...), &p); err != nil {
		t.Fatal(err)
	}
	source, destination := netip.MustParseAddrPort("10.99.0.66:5060"), netip.MustParseAddrPort("10.99.0.1:5061")
	if p.Source != source || p.Destination != destination ||
		p.Protocol != UDP || p.Content != SIP || p.CaptureID != 1234 || !p.Time.Equal(time.Unix(0x692a0000, 1e6)) ||
		string(p.Password) != "secret" || string(p.CorrelationID) != "a\xff@b" || string(p.Payload) != request {
		t.Errorf("%+v", p)
	}
}

func TestDecodeIPv6(t *testing.T) {
	v4 := []uint16{chunkFamily, chunkIPv4Source, chunkIPv4Target}
	a, mapped := netip.MustParseAddr("fd99::66").As16(), netip.MustParseAddr("::ffff:10.99.0.1").As16()
	var p Packet
	err := Decode(without(v4, with(chunkFamily, 10), with(chunkIPv6Source, a[:]...),
		with(chunkIPv6Target, mapped[:]...)), &p)
	if err != nil || p.Source != netip.MustParseAddrPort("[fd99::66]:5060") ||
		p.Destination != netip.MustParseAddrPort("10.99.0.1:5061") {
		t.Errorf("%v to %v, %v", p.Source, p.Destination, err)
	}
}

func TestDecodePassesOver(t *testing.T) {
	for name, c := range map[string]chunk{
		"another vendor's payload":      {0x10, chunkPayload, []byte("x")},
		"another vendor's address":      {0xffff, chunkIPv4Source, []byte{8, 8, 8, 8}},
		"a chunk that nobody knows":     with(0x0d, 1, 2, 3),
		"one of a number not yet given": with(0x1234),
	} {
		var p Packet
		err := Decode(encode(append([]chunk{c}, ordinary()...)...), &p)
		if err != nil || string(p.Payload) != request || p.Source != netip.MustParseAddrPort("10.99.0.66:5060") {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := encode(ordinary()...)
	longer := append(slices.Clone(whole), 0)
	lengthAt := func(at int, length uint16) []byte {
		b := slices.Clone(whole)
		binary.BigEndian.PutUint16(b[at:], length)
		return b
	}
	a := netip.MustParseAddr("fd99::66").As16()
	mixed := without([]uint16{chunkIPv4Source, chunkIPv4Target}, with(chunkIPv6Source, a[:]...),
		with(chunkIPv6Target, a[:]...))
	for name, c := range map[string]struct {
		packet []byte
		want   error
	}{
		"nothing":                     {nil, ErrNotHEP},
		"HEP version 2":               {append([]byte{2, 16, 2, 17}, whole[4:]...), ErrNotHEP},
		"a head alone":                {[]byte("HEP3\x00"), ErrNotHEP},
		"no chunk":                    {encode(), ErrAddress},
		"a byte more":                 {longer, ErrLength},
		"a byte less":                 {whole[:len(whole)-1], ErrLength},
		"a total of 0":                {lengthAt(4, 0), ErrLength},
		"a chunk of no length":        {lengthAt(10, 0), ErrLength},
		"a chunk shorter than itself": {lengthAt(10, 5), ErrLength},
		"a chunk beyond the end":      {lengthAt(10, 0xffff), ErrLength},
		"half a chunk's head":         {encode(append(ordinary(), chunk{})...)[:len(whole)+3], ErrLength},
		"a port of one byte":          {without([]uint16{chunkSourcePort}, with(chunkSourcePort, 1)), ErrLength},
		"an IPv4 address of 16 bytes": {without([]uint16{chunkIPv4Source}, with(chunkIPv4Source, a[:]...)), ErrLength},
		"no family":                   {without([]uint16{chunkFamily}), ErrAddress},
		"IPv6 with IPv4's addresses":  {without([]uint16{chunkFamily}, with(chunkFamily, 10)), ErrAddress},
		"IPv4 with IPv6's addresses":  {mixed, ErrAddress},
		"addresses of both":           {without(nil, with(chunkIPv6Source, a[:]...)), ErrAddress},
		"no source":                   {without([]uint16{chunkIPv4Source}), ErrAddress},
		"no port":                     {without([]uint16{chunkTargetPort}), ErrAddress},
		"SCTP":                        {without([]uint16{chunkProtocol}, with(chunkProtocol, 132)), ErrProtocol},
		"no payload":                  {without([]uint16{chunkPayload}), ErrNoPayload},
		"a payload of nothing":        {without([]uint16{chunkPayload}, with(chunkPayload)), ErrNoPayload},
		"two payloads":                {without(nil, text(chunkPayload, "x")), ErrRepeated},
		"two sources":                 {without(nil, with(chunkIPv4Source, 8, 8, 8, 8)), ErrRepeated},
		"two passwords":               {without(nil, text(chunkPassword, "other")), ErrRepeated},
	} {
		if name == "half a chunk's head" {
			binary.BigEndian.PutUint16(c.packet[4:], uint16(len(c.packet)))
		}
		var p Packet
		if err := Decode(c.packet, &p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	b, stream := encode(ordinary()...), []byte(request+request)
	var p Packet
	n := 0
	if allocs := testing.AllocsPerRun(100, func() {
		if err := Decode(b, &p); err != nil {
			t.Fatal(err)
		}
		p.Protocol, p.Payload = TCP, stream
		for m := range p.Messages() {
			n += len(m)
		}
	}); allocs != 0 || n == 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// message returns a request with a body, and Content-Length where length is not negative.
func message(name, id, body string, length bool) string {
	s := "MESSAGE sip:" + name + "@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nCall-ID: " + id + "\r\n"
	if length {
		s += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return s + "\r\n" + body
}

func TestMessages(t *testing.T) {
	one, two := message("one", "a", "", true), message("two", "b", "", true)
	long := func(length string) string {
		return "OPTIONS sip:h SIP/2.0\r\nCall-ID: z\r\nContent-Length: " + length + "\r\n\r\n" + request
	}
	for name, c := range map[string]struct {
		protocol Protocol
		id       string
		payload  string
		want     []string // each begins so
	}{
		"UDP names its message":     {UDP, "other", request, []string{"OPTIONS sip:100@"}},
		"TCP, one message":          {TCP, "a\xff@b", request, []string{"OPTIONS sip:100@"}},
		"the second of two":         {TCP, "b", one + two, []string{"MESSAGE sip:two@"}},
		"behind a body":             {TCP, "b", message("one", "a", "hello", true) + two, []string{"MESSAGE sip:two@"}},
		"both have that Call-ID":    {TCP, "a", message("x", "a", "x", true) + one, []string{"MESSAGE sip:x", "MESSAGE sip:one"}},
		"a keepalive between":       {TCP, "b", one + "\r\n\r\n" + two, []string{"MESSAGE sip:two@"}},
		"the rest comes later":      {TCP, "b", one + two[:90], []string{"MESSAGE sip:two@"}},
		"a message within a body":   {TCP, "b", message("outer", "a", two, true), nil},
		"WebSocket, without length": {TCP, "a", message("one", "a", "hello", false), []string{"MESSAGE sip:one@"}},
		"a compact form":            {TCP, "z", "OPTIONS sip:h SIP/2.0\r\nI \t: z \r\nL: 0\r\n\r\n", []string{"OPTIONS"}},
		"a CR ends a line":          {TCP, "z", "OPTIONS sip:h SIP/2.0\rcall-id:z\r\n\r\n", []string{"OPTIONS"}},
		"NUL ends the Call-ID":      {TCP, "z", "OPTIONS sip:h SIP/2.0\r\nCall-ID: z\x00y\r\n\r\n", []string{"OPTIONS"}},
		"a header of like name":     {TCP, "z", "OPTIONS sip:h SIP/2.0\r\nCall-ID-X: z\r\nInfo: z\r\n\r\n", nil},
		"a Call-ID of nobody":       {TCP, "z", request, nil},
		"none is named":             {TCP, "", request, nil},
		"an endless length":         {TCP, "z", long("99999999999999999999"), []string{"OPTIONS"}},
		"a length that is none":     {TCP, "z", long("-1"), []string{"OPTIONS"}},
		"line breaks alone":         {TCP, "z", "\r\n\r\n", nil},
	} {
		p := Packet{Protocol: c.protocol, CorrelationID: []byte(c.id), Payload: []byte(c.payload)}
		got := slices.Collect(p.Messages())
		begins := func(m []byte, start string) bool { return bytes.HasPrefix(m, []byte(start)) }
		if !slices.EqualFunc(got, c.want, begins) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// recordings are packets of Asterisk 22 (deploy/e2e records them).
func recordings(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/*.hep")
	if err != nil || len(names) < 13 {
		t.Fatalf("%d recordings, %v", len(names), err)
	}
	packets := make(map[string][]byte)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		packets[strings.TrimSuffix(filepath.Base(name), ".hep")] = b
	}
	return packets
}

func TestRecordedPackets(t *testing.T) {
	attacker := map[bool]netip.Addr{false: netip.MustParseAddr("10.99.0.66"), true: netip.MustParseAddr("fd99::66")}
	for name, b := range recordings(t) {
		var p Packet
		if err := Decode(b, &p); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		transport, what, _ := strings.Cut(name, "-")
		far := p.Source
		if what == "answer" {
			far = p.Destination
		}
		messages := slices.Collect(p.Messages())
		if far.Addr() != attacker[transport == "tcp6"] || (p.Protocol == UDP) != (transport == "udp") ||
			p.Content != SIP || p.CaptureID != 1 || string(p.Password) != "a-long-random-password" || p.Time.IsZero() ||
			len(p.CorrelationID) == 0 || len(messages) == 0 || !bytes.Contains(messages[0], p.CorrelationID) {
			t.Errorf("%s: %+v", name, p)
		}
		if what == "pipelined" && len(messages) != 2 { // of three in the payload
			t.Errorf("%s: %d messages", name, len(messages))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(ordinary()...))
	f.Add(encode())
	for _, b := range recordings(f) {
		f.Add(b)
	}
	f.Add(without([]uint16{chunkProtocol, chunkPayload}, with(chunkProtocol, 6),
		text(chunkPayload, message("one", "a\xff@b", "hello", true)+request)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		var p Packet
		err := Decode(b, &p)
		if !bytes.Equal(before, b) {
			t.Fatal("the packet was changed")
		}
		if err != nil {
			return
		}
		if !p.Source.IsValid() || !p.Destination.IsValid() || p.Source.Addr().Is4In6() || len(p.Payload) == 0 {
			t.Fatalf("half a packet: %+v", p)
		}
		if more := append(slices.Clone(b), 0, 0, 0, chunkPayload, 0, 7, 'x'); len(more) < 1<<16 {
			binary.BigEndian.PutUint16(more[len(magic):], uint16(len(more)))
			if err := Decode(more, &Packet{}); err != ErrRepeated {
				t.Fatalf("with a second payload: %v", err)
			}
		}
		total := 0
		for m := range p.Messages() {
			total += len(m)
			if p.Protocol != UDP && !hasCallID(m, p.CorrelationID) {
				t.Fatalf("%q is not of %q", m, p.CorrelationID)
			}
		}
		if total > len(p.Payload) {
			t.Fatalf("%d bytes of messages in %d", total, len(p.Payload))
		}
	})
}
