package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

const day = 24 * time.Hour

// durationFlag reads 90s, 10m, 1h, 7d, 1w and sums such as 1d12h, from least up to most.
type durationFlag struct {
	value       time.Duration
	least, most time.Duration
}

func (f *durationFlag) Type() string { return "DURATION" }

func (f *durationFlag) String() string {
	if f.value == 0 {
		return ""
	}
	return humanize.Duration(f.value)
}

func (f *durationFlag) Set(s string) error {
	d, err := parseDuration(s)
	if err != nil {
		return err
	}
	if d < f.least || d > f.most {
		return fmt.Errorf("it goes from %s to %s", humanize.Duration(f.least), humanize.Duration(f.most))
	}
	f.value = d
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	const numbers = "0123456789."
	var sum time.Duration
	for rest := s; ; {
		number := rest[:len(rest)-len(strings.TrimLeft(rest, numbers))]
		rest = rest[len(number):]
		unit := rest
		if i := strings.IndexAny(rest, numbers); i >= 0 {
			unit = rest[:i]
		}
		rest = rest[len(unit):]
		times := time.Duration(1)
		switch unit {
		case "d":
			unit, times = "h", day/time.Hour
		case "w":
			unit, times = "h", 7*day/time.Hour
		}
		part, err := time.ParseDuration(number + unit)
		if number == "" || unit == "" || err != nil || part > 10*365*day/times {
			return 0, fmt.Errorf("%q is not a duration such as 90s, 10m, 1h, 7d or 1w", printable.String(s))
		}
		if sum += part * times; sum > 10*365*day {
			return 0, fmt.Errorf("%q is longer than ten years", printable.String(s))
		}
		if rest == "" {
			return sum, nil
		}
	}
}
