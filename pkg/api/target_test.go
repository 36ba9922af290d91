package api

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePrefixReadsWhatPeopleType(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.5":              "203.0.113.5/32",
		"203.0.113.0/24":           "203.0.113.0/24",
		"2001:DB8::1":              "2001:db8::1/128",
		"2001:db8::/64":            "2001:db8::/64",
		"::ffff:203.0.113.5":       "203.0.113.5/32",
		"::ffff:203.0.113.0/120":   "203.0.113.0/24",
		"0.0.0.0/0":                "0.0.0.0/0", // the server refuses it where it would do harm
		"::ffff:0.0.0.0/96":        "0.0.0.0/0",
		"0:0:0:0:0:ffff:cb00:7105": "203.0.113.5/32",
	} {
		p, err := ParsePrefix(in)
		if err != nil || p != netip.MustParsePrefix(want) {
			t.Errorf("%s: %v, %v", in, p, err)
		}
	}
}

func TestParsePrefixExplainsItsErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "the address is empty",
		"203.0.113.5/24":            "203.0.113.0/24 for the network, or 203.0.113.5 for the one address",
		"2001:db8::1/64":            "2001:db8::/64 for the network, or 2001:db8::1 for the one address",
		"203.0.113.0/33":            `"33" is not the length of an IPv4 prefix; a number from 0 to 32`,
		"203.0.113.0/":              `"" is not the length`,
		"203.0.113.0/255":           "such as 203.0.113.0/24",
		"2001:db8::/129":            "a number from 0 to 128",
		"::ffff:0.0.0.0/95":         "wider than the whole of IPv4",
		"203.0.113.5:5060":          "give the address alone: 203.0.113.5",
		"[2001:db8::1]:5060":        "give the address alone: 2001:db8::1",
		"[2001:db8::1]":             "without brackets: 2001:db8::1",
		"fe80::1%eth0":              "has a zone",
		"sip.example.net":           "getent ahosts sip.example.net",
		"203.0.113":                 `"203.0.113" is not an address; give an address such as`,
		"203.0.113.005":             "is not an address",
		"203.0.113.*":               "is not an address",
		"0.0.0.0":                   "never the source of a packet",
		"::":                        "never the source of a packet",
		"224.0.0.1":                 "never the source of a packet",
		"255.255.255.255":           "never the source of a packet",
		"\x1b[31m1.2.3.4":           `"\x1b[31m1.2.3.4" is not an address`,
		"1.2.3.4\n5.6.7.8/24":       "is not a network",
		strings.Repeat("9", 100000): "99…(+",
	} {
		_, err := ParsePrefix(in)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) || !strings.Contains(e.Message+"; "+e.Try, want) ||
			len(e.Message) > 300 {
			t.Errorf("%.40q: %#v, want %q", in, err, want)
		}
	}
}

func TestParseTargetReadsHostNames(t *testing.T) {
	for in, want := range map[string]string{
		"Office.Example.net":  "office.example.net",
		"office.example.net.": "office.example.net",
		"pbx":                 "pbx",
		"xn--bcher-kva.de":    "xn--bcher-kva.de",
	} {
		if p, host, err := ParseTarget(in); err != nil || host != want || p.IsValid() {
			t.Errorf("%s: %v, %q, %v", in, p, host, err)
		}
	}
	if p, host, err := ParseTarget("198.51.100.0/24"); err != nil || host != "" ||
		p != netip.MustParsePrefix("198.51.100.0/24") {
		t.Errorf("a network: %v, %q, %v", p, host, err)
	}
	for _, in := range []string{"10.0.0", "10.0.0.256", "a..b", "-a.de", "a-.de", "a_b.de", "ü.de", "a b", "a/b",
		strings.Repeat("a.", 130) + "de"} {
		if p, host, err := ParseTarget(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %q, %v", in, p, host, err)
		}
	}
}
