package pipeline

import (
	"net/netip"
	"testing"
)

func TestWhatWasLiftedIsNotBroughtBack(t *testing.T) {
	var r releasedPrefixes
	r.add(netip.MustParsePrefix("32.0.0.1/32"))
	r.within = append(r.within, netip.MustParsePrefix("32.0.2.0/24"))
	for p, want := range map[string]bool{
		"32.0.0.1/32": true, "32.0.0.2/32": false, "32.0.2.9/32": true, "32.0.0.0/16": true, "32.0.3.0/24": false,
	} {
		if r.has(netip.MustParsePrefix(p)) != want {
			t.Errorf("%s: %v", p, !want)
		}
	}
	for i := range maxReleased + 1 {
		r.add(netip.PrefixFrom(netip.AddrFrom4([4]byte{33, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	if !r.has(netip.MustParsePrefix("192.0.2.1/32")) || len(r.prefixes) > maxReleased {
		t.Errorf("too many to remember: %d", len(r.prefixes))
	}
}
