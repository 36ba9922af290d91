package humanize

import (
	"net/netip"
	"testing"
	"time"
)

func TestPrefix(t *testing.T) {
	for in, want := range map[string]string{"203.0.113.5/32": "203.0.113.5", "2001:db8::/64": "2001:db8::/64",
		"2001:db8::1/128": "2001:db8::1",
		"2001:db8::/32":   "2001:db8::/32"} {
		if got := Prefix(netip.MustParsePrefix(in)); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	if got := Prefix(netip.Prefix{}); got != "" {
		t.Errorf("no prefix: %s", got)
	}
}

func TestDurationToSecond(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Hour: "1h", 4 * time.Minute: "4m", 20 * time.Second: "20s",
		168 * time.Hour: "168h", 61 * time.Second: "1m1s"} {
		if got := DurationToSecond(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}

func TestExactDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Hour: "1h", 90 * time.Minute: "1h30m",
		1500 * time.Millisecond: "1.5s",
		10 * time.Second:        "10s", time.Hour + time.Second: "1h0m1s"} {
		if got := ExactDuration(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}

func TestOrdinal(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th",
		21: "21st", 101: "101st",
		111: "111th", 1002: "1,002nd", 1000000: "1,000,000th"} {
		if got := Ordinal(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100",
		1234567: "1,234,567"} {
		if got := Thousands(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}
