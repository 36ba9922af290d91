package commands

import (
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
)

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1300 * time.Microsecond: "1ms", time.Second: "1s", 45 * time.Second: "45s", 90 * time.Second: "1m 30s",
		58 * time.Minute: "58m", 59*time.Minute + 59900*time.Millisecond: "1h", 3*time.Hour + 5*time.Minute: "3h 5m",
		23*time.Hour + 59*time.Minute + 40*time.Second: "1d", 167 * time.Hour: "6d 23h", 365 * day: "365d",
	} {
		if got := humanize.Duration(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestParseDurationReadsDaysAndWeeks(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "10m": 10 * time.Minute, "1h": time.Hour, "7d": 7 * day, "1w": 7 * day,
		"1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour,
	} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1", "h", "-1h", "1h-", "1 h", "1mo", "9999999w", "600w600w", "1..5h"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%q: %s", s, got)
		}
	}
}
