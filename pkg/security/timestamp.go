package security

import (
	"strings"
	"time"
)

// parseTime reads AST_ISO8601_FORMAT of Asterisk's include/asterisk/localtime.h, as in
// 2026-11-22T21:50:35.258+0000: milliseconds, and the zone's offset without a colon.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len("2026-11-22T21:50:35.258+0000") || s[4] != '-' || s[7] != '-' || s[10] != 'T' ||
		s[13] != ':' || s[16] != ':' || s[19] != '.' || s[23] != '+' && s[23] != '-' {
		return time.Time{}, false
	}
	century, year, month, day := two(s[0:]), two(s[2:]), two(s[5:]), two(s[8:])
	hour, minute, second := two(s[11:]), two(s[14:]), two(s[17:])
	tenths, thousandths := uint(s[20]-'0'), two(s[21:])
	offHour, offMinute := two(s[24:]), two(s[26:])
	// A part that is no number is at least 100, so that these bounds refuse it, too. A second may be a leap second.
	if century > 99 || year > 99 || month < 1 || month > 12 || day < 1 || day > daysIn(100*century+year, month) ||
		hour > 23 || minute > 59 || second > 60 || tenths > 9 || thousandths > 99 || offHour > 23 || offMinute > 59 {
		return time.Time{}, false
	}
	sec := unixDays(int64(100*century+year), int64(month), int64(day))*86400 + int64(hour*3600+minute*60+second)
	off := int64(offHour*3600 + offMinute*60)
	if s[23] == '+' {
		off = -off
	}
	if sec += off; sec < 0 || sec > lastSecond {
		return time.Time{}, false
	}
	return time.Unix(sec, int64(tenths*100+thousandths)*int64(time.Millisecond)).UTC(), true
}

// lastSecond is the end of the year 2199. Asterisk counts from 1970, and what is far from it does not fit into
// nanoseconds.
const lastSecond = 7258118399

// parseOldTime reads the EventTV of Asterisk 1.8 and 11, "%u-%u" of seconds and microseconds.
func parseOldTime(s string) (time.Time, bool) {
	sec, usec, ok := strings.Cut(s, "-")
	if !ok || len(sec) > 10 || len(usec) > 6 {
		return time.Time{}, false
	}
	n, ok1 := parseDigits(sec)
	u, ok2 := parseDigits(usec)
	if !ok1 || !ok2 || n > lastSecond {
		return time.Time{}, false
	}
	return time.Unix(n, u*int64(time.Microsecond)).UTC(), true
}

// two reads two decimal digits; the result is at least 100 if they are none.
func two(s string) uint {
	a, b := s[0]-'0', s[1]-'0'
	if a > 9 || b > 9 {
		return 100
	}
	return uint(a)*10 + uint(b)
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

func daysIn(year, month uint) uint {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// unixDays returns the days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in
// March, so that the leap day is a year's last.
func unixDays(year, month, day int64) int64 {
	if month < 3 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 719469
}
