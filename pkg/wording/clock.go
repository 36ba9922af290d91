package wording

import (
	"regexp"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
)

var utc = regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\b`)

// LocalTimes writes the times of a line of an [engine.Explanation] as clock writes them: a reader who has to do sums
// between two zones makes mistakes.
func LocalTimes(line string, clock func(time.Time) string) string {
	return utc.ReplaceAllStringFunc(line, func(text string) string {
		t, err := time.Parse(engine.ClockFormat, text)
		if err != nil {
			return text
		}
		return clock(t)
	})
}
