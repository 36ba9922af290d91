package web

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/humanize"
)

var pathNumber = regexp.MustCompile(`[MHV ](-?[0-9.]+)`)

// Whatever happened, the drawing stays within its frame, and says when the most happened.
func TestTheChartStaysInItsFrame(t *testing.T) {
	for name, row := range map[string]struct {
		minutes  map[int]engine.Minute
		since    time.Duration
		top, sum string
	}{
		"nothing": {nil, 48 * time.Hour, "0", "No attack in the last 24 hours."},
		"one": {map[int]engine.Minute{1439: {Attempts: 1, Bans: 1}}, 48 * time.Hour, "1",
			"1 attempt and 1 ban in the last 24 hours."},
		"the first minute": {map[int]engine.Minute{0: {Attempts: 7}}, 48 * time.Hour, "8",
			"7 attempts and 0 bans in the last 24 hours. The busiest minute was 12:01, with 7 attempts."},
		"millions": {map[int]engine.Minute{700: {Attempts: 12_345_678, Bans: 600_000}, 701: {Attempts: 3}},
			48 * time.Hour, "20M", "12,345,681 attempts"},
		"a fresh start": {map[int]engine.Minute{1439: {Attempts: 30}}, time.Hour, "40", "in the time since "},
		"only bans":     {map[int]engine.Minute{5: {Bans: 3}}, 48 * time.Hour, "0", "0 attempts and 3 bans"},
	} {
		now := time.Date(2026, 1, 31, 12, 0, 30, 0, time.UTC)
		f := newFake()
		f.activity.Begin, f.activity.Since = now.Add(-24*time.Hour+time.Minute).Truncate(time.Minute),
			now.Add(-row.since)
		for i, m := range row.minutes {
			f.activity.Minutes[i] = m
		}
		v := made(t, f, "127.0.0.1:9646").viewCharts(&snapshot{at: now, status: f.status, activity: f.activity})
		if !strings.Contains(v.Summary, strings.Replace(row.sum, "12:01", "30 Jan 12:01", 1)) &&
			!strings.Contains(v.Summary, row.sum) {
			t.Errorf("%s: %q", name, v.Summary)
		}
		for _, c := range v.Drawn {
			for _, m := range pathNumber.FindAllStringSubmatch(c.Attempts+c.Bans, -1) {
				if n, err := strconv.ParseFloat(m[1], 64); err != nil || n < 0 || n > float64(c.Width) {
					t.Errorf("%s: %s: %v in the path", name, c.Name, m[1])
				}
			}
			if (c.Attempts == "") != (row.top == "0") || c.Lines[0].Text != row.top {
				t.Errorf("%s: %s: the axis begins at %q, path %q", name, c.Name, c.Lines[0].Text, c.Attempts)
			}
			if len(c.Hours) < 3 || len(c.Hours) > 8 {
				t.Errorf("%s: %s: hours %v", name, c.Name, c.Hours)
			}
			for i, h := range c.Hours {
				if h.X < c.Left || h.X > c.Right || !strings.HasSuffix(h.Text, ":00") || i > 0 &&
					h.X-c.Hours[i-1].X < 40 {
					t.Errorf("%s: %s: %+v", name, c.Name, h)
				}
			}
			if c.Unknown > c.Right-c.Left || (c.Unknown > 0) != (name == "a fresh start") {
				t.Errorf("%s: %s: %d units were not counted", name, c.Name, c.Unknown)
			}
		}
	}
}

func TestNumbersAreWrittenShort(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1k", 1500: "1.5k", 12_345: "12k", 1_000_000: "1M",
		2_500_000: "2.5M", 12_000_000: "12M"} {
		if got := shortNumber(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 4, 5: 6, 9: 10, 11: 20, 399: 400, 401: 600,
		1_000_001: 2_000_000} {
		if got := scaleTop(n); got != want {
			t.Errorf("%d: the axis ends at %d, want %d", n, got, want)
		}
	}
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th",
		21: "21st", 111: "111th", 1002: "1,002nd"} {
		if got := humanize.Ordinal(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := fmt.Sprintln(humanize.Thousands(7), humanize.Thousands(1234), humanize.Thousands(1234567),
		humanize.Thousands(-1234)); got != "7 1,234 1,234,567 -1,234\n" {
		t.Error(got)
	}
}
