package event

import (
	"strings"
	"time"
)

// parseTime reads AST_ISO8601_FORMAT of Asterisk's include/asterisk/localtime.h, as in 2026-11-22T21:50:35.258+0000:
// milliseconds, and the zone's offset without a colon.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len("2026-11-22T21:50:35.258+0000") || s[4] != '-' || s[7] != '-' || s[10] != 'T' ||
		s[13] != ':' || s[16] != ':' || s[19] != '.' || s[23] != '+' && s[23] != '-' {
		return time.Time{}, false
	}
	century, year, month, day := twoDigits(s[0:]), twoDigits(s[2:]), twoDigits(s[5:]), twoDigits(s[8:])
	hour, minute, second := twoDigits(s[11:]), twoDigits(s[14:]), twoDigits(s[17:])
	tenth, thousandths := int(s[20])-'0', twoDigits(s[21:])
	offsetHours, offsetMinutes := twoDigits(s[24:]), twoDigits(s[26:])
	// What is no number is at least 100, so that these bounds refuse it, too. A second may be a leap second.
	if century > 99 || year > 99 || month < 1 || month > 12 || day < 1 || day > 31 ||
		hour > 23 || minute > 59 || second > 60 || tenth < 0 || tenth > 9 || thousandths > 99 ||
		offsetHours > 23 || offsetMinutes > 59 {
		return time.Time{}, false
	}
	date := time.Date(100*century+year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Day() != day { // the month has fewer days
		return time.Time{}, false
	}
	offset := offsetHours*3600 + offsetMinutes*60
	if s[23] == '-' {
		offset = -offset
	}
	unix := date.Unix() + int64(hour*3600+minute*60+second-offset)
	if unix < 0 || unix > latestUnixTime {
		return time.Time{}, false
	}
	return time.Unix(unix, int64(100*tenth+thousandths)*int64(time.Millisecond)).UTC(), true
}

// latestUnixTime is the end of the year 2199. Asterisk counts from 1970, and nanoseconds from there fit into 64 bits
// until 2262.
const latestUnixTime = 7258118399

// parseOldTime reads the EventTV of Asterisk 1.8 and 11, "%u-%u" of seconds and microseconds.
func parseOldTime(s string) (time.Time, bool) {
	sec, usec, ok := strings.Cut(s, "-")
	if !ok || len(sec) > 10 || len(usec) > 6 {
		return time.Time{}, false
	}
	n, ok1 := parseDigits(sec)
	u, ok2 := parseDigits(usec)
	if !ok1 || !ok2 || n > latestUnixTime {
		return time.Time{}, false
	}
	return time.Unix(n, u*int64(time.Microsecond)).UTC(), true
}

// twoDigits reads two decimal digits; the result is at least 100 if they are none.
func twoDigits(s string) int {
	a, b := s[0]-'0', s[1]-'0'
	if a > 9 || b > 9 {
		return 100
	}
	return int(a)*10 + int(b)
}

// parseDigits reads up to 18 decimal digits.
func parseDigits(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}
