package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
	// longest is far from the end of time.Duration, so that a time plus a configured duration cannot overflow.
	longestDuration = 3650 * day
)

const durationsAllowed = "a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m"

var (
	errNotDuration = errors.New("not a duration")
	errNoUnit      = errors.New("a duration without a unit")
	errNegative    = errors.New("a negative duration")
	errTooLong     = errors.New("longer than ten years")
)

// parseDuration reads what [time.ParseDuration] reads, and d for 24 hours and w for 7 days.
func parseDuration(text string) (time.Duration, error) {
	if text == "" || len(text) > 64 {
		return 0, errNotDuration
	}
	if text[0] == '-' {
		return 0, errNegative
	}
	var sum time.Duration
	for rest := text; rest != ""; {
		number := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789."))]
		rest = rest[len(number):]
		unit := rest
		if i := strings.IndexAny(rest, "0123456789."); i >= 0 {
			unit = rest[:i]
		}
		rest = rest[len(unit):]
		switch {
		case number == "":
			return 0, errNotDuration
		case unit == "":
			return 0, errNoUnit
		}
		times := time.Duration(1)
		switch unit {
		case "d":
			unit, times = "h", day/time.Hour
		case "w":
			unit, times = "h", week/time.Hour
		}
		part, err := time.ParseDuration(number + unit)
		if err != nil {
			if strings.Trim(number, "0123456789") == "" && len(number) > 6 {
				return 0, errTooLong
			}
			return 0, errNotDuration
		}
		if part > longestDuration/times {
			return 0, errTooLong
		}
		if sum += part * times; sum > longestDuration {
			return 0, errTooLong
		}
	}
	return sum, nil
}

// formatBound writes a limit in whole days where it is some.
func formatBound(d time.Duration) string {
	if d >= 7*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return humanize.ExactDuration(d)
}

// durationFromWords returns what "10 minutes", "1 Day", "1d 12h", "2 months" or "60*60" is in the units that are
// read, or "".
func durationFromWords(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(text), ""))
	if _, err := parseDuration(text); err == nil {
		return text
	}
	if strings.Contains(text, "*") { // seconds, as fail2ban multiplies them
		product := int64(1)
		for factor := range strings.SplitSeq(text, "*") {
			n, err := strconv.ParseInt(factor, 10, 32)
			if err != nil || n <= 0 || product > int64(longestDuration/time.Second)/n {
				return ""
			}
			product *= n
		}
		return strconv.FormatInt(product, 10) + "s"
	}
	unit := strings.TrimLeft(text, "0123456789")
	number := text[:len(text)-len(unit)]
	if !isDecimal(number, false) || unit == "" {
		return ""
	}
	for _, name := range []string{"seconds", "minutes", "hours", "days", "weeks"} {
		if strings.HasPrefix(name, unit) {
			return number + name[:1]
		}
	}
	for name, days := range map[string]int{"months": 30, "years": 365} {
		n, err := strconv.Atoi(number)
		if strings.HasPrefix(name, unit) && err == nil && n*days <= int(longestDuration/day) {
			return strconv.Itoa(n*days) + "d"
		}
	}
	if unit == "min" || unit == "mins" || unit == "hrs" || unit == "hr" || unit == "sec" || unit == "secs" {
		return number + unit[:1]
	}
	return ""
}
