package humanize

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

const day = 24 * time.Hour

// Duration writes a duration in at most two units: "45s", "58m", "3h 5m", "6d 23h". It rounds to the smaller one.
func Duration(d time.Duration) string {
	type unit struct {
		name string
		size time.Duration
	}
	units := []unit{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	for i, u := range units {
		next := time.Second
		if i+1 < len(units) {
			next = units[i+1].size
		}
		// 59m 59.9s is an hour, and belongs to the unit before.
		r := d.Round(next)
		if r < u.size {
			continue
		}
		text := fmt.Sprintf("%d%s", r/u.size, u.name)
		if rest := r % u.size; rest > 0 {
			text += fmt.Sprintf(" %d%s", rest/next, units[i+1].name)
		}
		return text
	}
	return "0s"
}

// ExactDuration writes a duration without the zeros at its end: "1h" rather than "1h0m0s", "1h30m", "20s", "1.5s".
func ExactDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// DurationToSecond is [ExactDuration] of a duration that is rounded to seconds, if it is not shorter than one.
func DurationToSecond(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return ExactDuration(d)
}

// FromSeconds is a number of seconds as a duration.
func FromSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Number writes a number without needless zeros.
func Number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// Score writes a score, which decays all the time, with one decimal place where there is one.
func Score(f float64) string { return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") }

// Plural writes a count with the noun that goes with it.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Thousands writes a whole number with a comma before each three digits.
func Thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Ordinal writes the number of a place in a row: 1st, 2nd, 3rd, 11th, 1,002nd.
func Ordinal(n int) string {
	ending := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			ending = "st"
		case 2:
			ending = "nd"
		case 3:
			ending = "rd"
		}
	}
	return Thousands(n) + ending
}

// Names escapes names from the wire and joins the first few.
func Names(list []string, most int) string { return List(list, most, printable.String) }

// List joins the first few of some names, each as show writes it, and says how many more there are.
func List(list []string, most int, show func(string) string) string {
	var b strings.Builder
	for i, name := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(show(name))
	}
	return b.String()
}

// Words makes a reason such as wrong_password readable.
func Words[S ~string](s S) string { return strings.ReplaceAll(printable.String(string(s)), "_", " ") }

// Prefix leaves the length of a single address's prefix away; a prefix that is not valid is nothing.
func Prefix(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
