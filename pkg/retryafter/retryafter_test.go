package retryafter_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/retryafter"
)

func TestParse(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const most = time.Hour
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "1.5": 1500 * time.Millisecond, "0": 0, "-5": 0,
		"999999999999999999999999": most, "Inf": most, "NaN": 0, "soon": 0,
		"Thu, 01 Jan 1970 00:00:00 GMT": 0, "Thu, 01 Jan 2099 00:00:00 GMT": most,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
	} {
		if got := retryafter.Parse(value, now, most); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
