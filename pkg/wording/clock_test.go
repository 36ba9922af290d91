package wording

import (
	"testing"
	"time"
)

func TestLocalTimes(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	clock := func(t time.Time) string { return t.In(berlin).Format("15:04:05") }
	for line, want := range map[string]string{
		"banned from 2026-11-23 03:09:17 UTC until 2026-11-23 04:09:17 UTC (1h)": "banned from 04:09:17 until " +
			"05:09:17 (1h)",
		"nothing to say":                       "nothing to say",
		"2026-13-23 03:09:17 UTC is none":      "2026-13-23 03:09:17 UTC is none",
		"account \"12026-11-23 03:09:17 UTC\"": "account \"12026-11-23 03:09:17 UTC\"",
	} {
		if got := LocalTimes(line, clock); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
