package learn

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// The widest matches that are learned. An identify section may match whole providers; a wider one is a way of saying
// "everybody", and everybody must not be immune.
const (
	minBits4 = 16
	minBits6 = 32

	maxMatches = 10_000 // of one identify section
)

// parseMatches reads the Match of an IdentifyDetail: addresses with a netmask ("10.99.0.50/255.255.255.255") or a
// length ("/32"), separated by commas. "!" marks what the section does not match (res_pjsip_endpoint_identifier_ip.c,
// by way of ast_ha_join()); such an entry adds nothing, and takes nothing away from the others. refused has a sentence
// for each entry that is not learned.
func parseMatches(list string) (prefixes []netip.Prefix, refused []string) {
	n := 0
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" || entry[0] == '!' {
			continue
		}
		if n++; n > maxMatches {
			refused = append(refused, fmt.Sprintf("more than %d matches", maxMatches))
			break
		}
		p, err := parseMatch(entry)
		if err != nil {
			refused = append(refused, err.Error())
			continue
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, refused
}

func parseMatch(entry string) (netip.Prefix, error) {
	if len(entry) > 128 || !isVisibleASCII(entry) {
		return netip.Prefix{}, fmt.Errorf("match %.40q is not an address", entry)
	}
	host, mask, masked := strings.Cut(entry, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("match %q is not an address", entry)
	}
	length := addr.BitLen()
	if masked {
		if length, err = maskLength(mask, addr.BitLen()); err != nil {
			return netip.Prefix{}, fmt.Errorf("match %q: %w", entry, err)
		}
	}
	if addr.Is4In6() {
		if length < 96 {
			return netip.Prefix{}, fmt.Errorf("match %q is wider than all of IPv4", entry)
		}
		addr, length = addr.Unmap(), length-96
	}
	p := netip.PrefixFrom(addr, length).Masked()
	if least := minPrefixBits(addr); length < least {
		return netip.Prefix{}, fmt.Errorf("match %v is wider than /%d", p, least)
	}
	if !isUsable(p.Addr()) {
		return netip.Prefix{}, fmt.Errorf("match %v is no address of a trunk", p)
	}
	return p, nil
}

func minPrefixBits(a netip.Addr) int {
	if a.Is4() {
		return minBits4
	}
	return minBits6
}

// maskLength reads "24", "255.255.255.0" or "ffff:ffff::".
func maskLength(s string, size int) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && len(s) <= 3 {
		if int(n) > size {
			return 0, fmt.Errorf("length %d of at most %d", n, size)
		}
		return int(n), nil
	}
	mask, err := netip.ParseAddr(s)
	if err != nil || mask.Zone() != "" || mask.BitLen() != size {
		return 0, fmt.Errorf("%.40q is not a netmask", s)
	}
	length, ended := 0, false
	for _, b := range mask.AsSlice() {
		ones := bits.LeadingZeros8(^b)
		if ended && b != 0 || b<<ones != 0 {
			return 0, fmt.Errorf("netmask %v has holes", mask)
		}
		length += ones
		ended = ones < 8
	}
	return length, nil
}

// parseIdentifies reads the output of "pjsip show identifies", one slice element a line.
func parseIdentifies(lines []string, found func(section, endpoint, match string)) {
	var section, endpoint string
	for _, l := range lines {
		key, value, ok := strings.Cut(strings.TrimSpace(l), ":")
		if value = strings.TrimSpace(value); !ok || value == "" || value[0] == '<' {
			continue
		}
		switch key {
		case "Identify":
			section, endpoint, _ = strings.Cut(value, "/")
		case "Match":
			// A section may also match a header or a request URI, which is no address.
			if addr, _, _ := strings.Cut(strings.TrimPrefix(value, "!"), "/"); section != "" &&
				strings.ContainsAny(addr, ".:") && !strings.Contains(value, " ") {
				found(section, endpoint, value)
			}
		}
	}
}
