// Package retryafter reads when an HTTP server wants to be asked again.
package retryafter

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Parse reads Retry-After: seconds, or a date (RFC 9110 section 10.2.3). What makes no sense, and what is over, is 0;
// no server can ask for more than most.
func Parse(value string, now time.Time, most time.Duration) time.Duration {
	value = strings.TrimSpace(value)
	if x, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case x > most.Seconds():
			return most
		case x > 0:
			return time.Duration(x * float64(time.Second))
		}
		return 0
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, min(at.Sub(now), most))
	}
	return 0
}
