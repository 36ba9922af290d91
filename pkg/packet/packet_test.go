package packet

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// Packets in hex: the headers in the order of their fields, by which they can be read with the RFC beside them.
const (
	ip4UDP = "4500 0024 0001 0000 40 11 0000 cb007142 c0000201" + // 203.0.113.66 to 192.0.2.1
		"c001 13c4 0010 0000" + "4f5054494f4e5320" // 49153 to 5060, "OPTIONS "
	ip4TCP = "4500 0034 0001 0000 40 06 0000 cb007142 c0000201" +
		"c001 13c4 01020304 05060708 80 18 0200 0000 0000 0101080a00000001 00000002"
	ip6Addresses = "20010db8000000000000000000000066 20010db8000000000000000000000001"
	ip6UDP       = "60000000 0010 11 40" + ip6Addresses + "c001 13c4 0010 0000" + "4f5054494f4e5320"
	// Hop-by-hop options, destination options, then UDP.
	ip6Options = "60000000 0020 00 40" + ip6Addresses +
		"3c00010400000000 1100010400000000" + "c001 13c4 0010 0000" + "4f5054494f4e5320"
	ip6Fragment = "60000000 0018 2c 40" + ip6Addresses +
		"1100 0001 00000007" + "c001 13c4 0800 0000" + "4f5054494f4e5320"
)

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeadersAreRead(t *testing.T) {
	source4, destination4 := netip.MustParseAddrPort("203.0.113.66:49153"), netip.MustParseAddrPort("192.0.2.1:5060")
	source6, destination6 := netip.MustParseAddrPort("[2001:db8::66]:49153"),
		netip.MustParseAddrPort("[2001:db8::1]:5060")
	udp4 := Packet{Source: source4, Destination: destination4, Protocol: UDP, PayloadSize: 8}
	udp6 := Packet{Source: source6, Destination: destination6, Protocol: UDP, PayloadSize: 8}
	tcp4 := Packet{Source: source4, Destination: destination4, Protocol: TCP, Sequence: 0x01020304,
		Acknowledged: 0x05060708, Flags: Push | Acknowledge}
	first4, first6, longer, segment := udp4, udp6, udp4, tcp4
	first4.Fragment, first4.PayloadSize = true, 1472
	first6.Fragment, first6.PayloadSize = true, 2040
	longer.PayloadSize = 1000
	segment.PayloadSize = 8
	for _, r := range []struct {
		name, hex string
		want      Packet
		payload   string
		whole     bool
	}{
		{"UDP", ip4UDP, udp4, "OPTIONS ", true},
		{"UDP with padding of Ethernet", ip4UDP + "0000000000", udp4, "OPTIONS ", true},
		{"UDP behind options of IP", strings.Replace(strings.Replace(ip4UDP, "4500 0024", "4600 0028", 1), "c0000201",
			"c0000201 01010100", 1), udp4, "OPTIONS ", true},
		{"UDP of which the head was copied", strings.Replace(strings.Replace(ip4UDP, "4500 0024", "4500 0404", 1),
			"0010 0000", "03f0 0000", 1), longer, "OPTIONS ", false},
		{"first fragment", strings.Replace(strings.Replace(ip4UDP, "0001 0000 40", "0001 2000 40", 1), "0010 0000",
			"05c8 0000", 1), first4, "OPTIONS ", false},
		{"TCP without payload", ip4TCP, tcp4, "", true},
		{"TCP", strings.Replace(ip4TCP, "4500 0034", "4500 003c", 1) + "4f5054494f4e5320", segment, "OPTIONS ", true},
		{"joined segments of more than 64 kB", strings.Replace(ip4TCP, "4500 0034", "4500 0000", 1) + "4f5054494f4e5320",
			segment, "OPTIONS ", true},
		{"UDP over IPv6", ip6UDP, udp6, "OPTIONS ", true},
		{"behind extension headers", ip6Options, udp6, "OPTIONS ", true},
		{"first fragment of IPv6", ip6Fragment, first6, "OPTIONS ", false},
	} {
		t.Run(r.name, func(t *testing.T) {
			got := Packet{Fragment: true, Sequence: 7, Flags: Syn, PayloadSize: 77} // of the packet before
			if err := Parse(fromHex(t, r.hex), &got); err != nil {
				t.Fatal(err)
			}
			if got.Whole() != r.whole || string(got.Payload) != r.payload {
				t.Errorf("payload %q, whole %v", got.Payload, got.Whole())
			}
			got.Payload = nil
			if got.Source != r.want.Source || got.Destination != r.want.Destination || got.Protocol != r.want.Protocol ||
				got.PayloadSize != r.want.PayloadSize || got.Fragment != r.want.Fragment ||
				got.Sequence != r.want.Sequence || got.Acknowledged != r.want.Acknowledged || got.Flags != r.want.Flags {
				t.Errorf("got  %+v\nwant %+v", got, r.want)
			}
		})
	}
}

func TestWhatIsNoPacketIsRefused(t *testing.T) {
	replaced := func(text, old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in %q", old, text)
		}
		return strings.Replace(text, old, with, 1)
	}
	for name, r := range map[string]struct {
		hex  string
		want error
	}{
		"nothing":                     {"", ErrTruncated},
		"version 5":                   {replaced(ip4UDP, "4500", "5500"), ErrMalformed},
		"IPv4 header of 16 bytes":     {replaced(ip4UDP, "4500", "4400"), ErrMalformed},
		"shorter than its header":     {replaced(ip4UDP, "0024", "0010"), ErrMalformed},
		"no room for UDP":             {replaced(ip4UDP, "0024", "001a"), ErrMalformed},
		"UDP shorter than its header": {replaced(ip4UDP, "0010 0000", "0007 0000"), ErrMalformed},
		"UDP longer than IP":          {replaced(ip4UDP, "0010 0000", "0011 0000"), ErrMalformed},
		"TCP header of 16 bytes":      {replaced(ip4TCP, "80 18", "40 18"), ErrMalformed},
		"TCP header longer than IP":   {replaced(ip4TCP, "80 18", "f0 18"), ErrMalformed},
		"ICMP":                        {replaced(ip4UDP, "40 11", "40 01"), ErrProtocol},
		"no next header":              {replaced(ip6UDP, "11 40", "3b 40"), ErrProtocol},
		"second fragment":             {replaced(ip4UDP, "0001 0000 40", "0001 00b9 40"), ErrFragment},
		"second fragment of IPv6":     {replaced(ip6Fragment, "1100 0001", "1100 0009"), ErrFragment},
		"IPv4 written as IPv6": {replaced(ip6UDP, "20010db8000000000000000000000066",
			"00000000000000000000ffffcb007142"), ErrMalformed},
		"extension longer than IPv6": {replaced(ip6Options, "3c000104", "3c090104"), ErrMalformed},
		"a hundred extension headers": {"60000000 0320 3c 40" + ip6Addresses +
			strings.Repeat("3c00010400000000", 100), ErrMalformed},
		"authentication header cut off": {"60000000 0010 33 40" + ip6Addresses + "11", ErrTruncated},
	} {
		var p Packet
		if err := Parse(fromHex(t, r.hex), &p); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", name, err, r.want)
		}
	}
}

// Wherever a copy ends, it is told: no byte is read that is not there.
func TestACopyMayEndAnywhere(t *testing.T) {
	for _, text := range []string{ip4UDP, ip4TCP, ip6UDP, ip6Options, ip6Fragment} {
		whole := fromHex(t, text)
		for n := range whole {
			var p Packet
			err := Parse(whole[:n:n], &p)
			if err == nil && p.Whole() || err != nil && !errors.Is(err, ErrTruncated) {
				t.Errorf("%d of %d bytes of %s: %v, payload %q of %d", n, len(whole), text, err, p.Payload, p.PayloadSize)
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := fromHex(t, ip6Options)
	var p Packet
	if n := testing.AllocsPerRun(100, func() { _ = Parse(b, &p) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{ip4UDP, ip4TCP, ip6UDP, ip6Options, ip6Fragment} {
		f.Add(fromHex(f, text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if err := Parse(b[:len(b):len(b)], &p); err != nil {
			return
		}
		if len(p.Payload) > p.PayloadSize || len(p.Payload) > len(b)-ip4Header-udpHeader {
			t.Errorf("payload of %d bytes, it should be %d, the packet has %d", len(p.Payload), p.PayloadSize, len(b))
		}
		if p.Source.Addr().Is4() != (b[0]>>4 == 4) || p.Source.Addr().Is4() != p.Destination.Addr().Is4() {
			t.Errorf("from %v to %v", p.Source, p.Destination)
		}
		if p.Protocol != UDP && p.Protocol != TCP {
			t.Error(p.Protocol)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, r := range []struct{ name, hex string }{
		{"UDP", ip4UDP}, {"TCP", ip4TCP}, {"IPv6 with extensions", ip6Options},
	} {
		b.Run(r.name, func(b *testing.B) {
			packet := fromHex(b, r.hex)
			var p Packet
			for b.Loop() {
				if err := Parse(packet, &p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
