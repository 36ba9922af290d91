package api

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestWhatPeopleAskAbout(t *testing.T) {
	five := Subject{Addr: netip.MustParseAddr("203.0.113.5")}
	one := Subject{Addr: netip.MustParseAddr("2001:db8::1")}
	for s, want := range map[string]Subject{
		"203.0.113.5": five, " 203.0.113.5 ": five, "203.0.113.5:5060": five, "203.0.113.5/32": five,
		"::ffff:203.0.113.5":        five,
		"[::ffff:203.0.113.5]:5060": five, "2001:db8::1": one, "[2001:db8::1]": one, "[2001:db8::1]:5061": one,
		"2001:db8::1/128": one,
		"201":             {Account: "201"}, "alice": {Account: "alice"}, "sip:201@203.0.113.5": {Account: "201"},
		"PJSIP/201":           {Account: "201"},
		"201@pbx.example.net": {Account: "201"}, "+15550100": {Account: "+15550100"}, "zoë": {Account: "zoë"},
		"sip.example.net": {Host: "sip.example.net"}, "SIP.Example.net.": {Host: "sip.example.net"},
		"sip.example.net:5060":              {Host: "sip.example.net"},
		"sip:sip.example.net;transport=tls": {Host: "sip.example.net"},
	} {
		if got, err := ParseSubject(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "  ", "203.0.113.300", "1.2.3", "203.0.113.0/24", "203.0.113.5:99999",
		"fe80::1%eth0", "0.0.0.0", "a\x1bb", "x!", "<b>", "two words",
		"\xff", strings.Repeat("x", MaxAccount+1), "2001:db8::x", "224.0.0.1:5060", "[fe80::1%eth0]:5060"} {
		if got, err := ParseSubject(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v", s, got, err)
		} else if strings.Contains(err.Error(), "\x1b") || strings.Contains(err.Error(), "\xff") {
			t.Errorf("%q is not escaped", err)
		}
	}
}
