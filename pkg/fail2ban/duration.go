package fail2ban

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// Forever is fail2ban's ban without an end, a bantime below zero.
const Forever time.Duration = -1

// longestDuration stands for all that is longer: sums stay far below the largest time.Duration.
const longestDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a time in fail2ban's words (server/mytime.py, str2seconds): seconds, or 10m, 1w, 1d12h,
// "1 hour 30 min", 60*60, sums and differences. A result below zero is [Forever].
func ParseDuration(s string) (time.Duration, error) {
	const most = 200
	e := &durationParser{rest: strings.ToLower(strings.TrimSpace(s))}
	if len(s) > most || e.rest == "" {
		return 0, fmt.Errorf("%s is not a time", printable.Quote(s))
	}
	v, err := e.parseSum(0)
	if err == nil && e.skipSpace() != "" {
		err = fmt.Errorf("there is %s", printable.Quote(e.rest))
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is not a time: %w", printable.Quote(s), err)
	case math.IsNaN(v):
		return 0, fmt.Errorf("%s is not a time", printable.Quote(s))
	case v < 0:
		return Forever, nil
	case v > longestDuration.Seconds():
		return longestDuration, nil
	}
	return time.Duration(v * float64(time.Second)), nil
}

// parseNumber reads a number or a product of numbers, such as bantime.factor.
func parseNumber(s string) (float64, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }) {
		return 0, fmt.Errorf("%s is not a number", printable.Quote(s))
	}
	e := &durationParser{rest: strings.TrimSpace(s)}
	if len(s) > 200 {
		return 0, fmt.Errorf("%s is not a number", printable.Quote(s))
	}
	v, err := e.parseSum(0)
	if err != nil || e.skipSpace() != "" || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%s is not a number", printable.Quote(s))
	}
	return v, nil
}

type durationParser struct{ rest string }

func (p *durationParser) skipSpace() string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest
}

// parseSum adds terms; terms that follow each other without an operator are added too.
func (p *durationParser) parseSum(depth int) (float64, error) {
	v, err := p.parseProduct(depth)
	for err == nil {
		rest := p.skipSpace()
		if rest == "" || rest[0] == ')' {
			break
		}
		sign := 1.0
		switch c := rest[0]; {
		case c == '+' || c == '-':
			if c == '-' {
				sign = -1
			}
			p.rest = rest[1:]
		case c < '0' || c > '9':
			return 0, fmt.Errorf("there is %s", printable.Quote(rest))
		}
		var w float64
		w, err = p.parseProduct(depth)
		v += sign * w
	}
	return v, err
}

func (p *durationParser) parseProduct(depth int) (float64, error) {
	v, err := p.parseOperand(depth)
	for err == nil {
		rest := p.skipSpace()
		if rest == "" || rest[0] != '*' && rest[0] != '/' {
			break
		}
		p.rest = rest[1:]
		var w float64
		if w, err = p.parseOperand(depth); err != nil {
			break
		}
		if rest[0] == '*' {
			v *= w
		} else {
			v /= w
		}
	}
	return v, err
}

func (p *durationParser) parseOperand(depth int) (float64, error) {
	rest := p.skipSpace()
	switch {
	case depth > 20:
		return 0, fmt.Errorf("it is nested too deep")
	case rest == "":
		return 0, fmt.Errorf("a number is missing")
	case rest[0] == '-' || rest[0] == '+':
		p.rest = rest[1:]
		v, err := p.parseOperand(depth + 1)
		if rest[0] == '-' {
			v = -v
		}
		return v, err
	case rest[0] == '(':
		p.rest = rest[1:]
		v, err := p.parseSum(depth + 1)
		if err != nil {
			return 0, err
		}
		if !strings.HasPrefix(p.skipSpace(), ")") {
			return 0, fmt.Errorf("a ) is missing")
		}
		p.rest = p.rest[1:]
		return v, nil
	}
	number := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789."))]
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("there is %s", printable.Quote(rest))
	}
	p.rest = rest[len(number):]
	word := p.skipSpace()
	word = word[:len(word)-len(strings.TrimLeft(word, "abcdefghijklmnopqrstuvwxyz"))]
	if word == "" {
		return v, nil
	}
	size, ok := durationUnit(word)
	if !ok {
		return 0, fmt.Errorf("the unit %s is unknown", printable.Quote(word))
	}
	p.rest = p.rest[len(word):]
	return v * size.Seconds(), nil
}

// durationUnit follows str2seconds: a year has 365.25 days, and a month is its twelfth.
func durationUnit(word string) (time.Duration, bool) {
	const day = 24 * time.Hour
	switch word {
	case "s", "ss", "se", "sec", "second", "seconds":
		return time.Second, true
	case "m", "mm", "mi", "min", "minute", "minutes":
		return time.Minute, true
	case "h", "hh", "ho", "hou", "hour", "hours":
		return time.Hour, true
	case "d", "dd", "da", "day", "days":
		return day, true
	case "w", "ww", "we", "wee", "week", "weeks":
		return 7 * day, true
	case "mo", "mon", "month", "months":
		return 1461 * day / 48, true
	case "y", "yy", "ye", "yea", "year", "years":
		return 1461 * day / 4, true
	}
	return 0, false
}
