package firstday

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	moment   = regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d( UTC)?`)
	duration = regexp.MustCompile(`\b\d+(\.\d+)?(ms|µs|ns|[smhd])( \d+[smh])?( \d+[sm])?\b`)
	pid      = regexp.MustCompile(`\(pid \d+\)|pid \d+`)
	version  = regexp.MustCompile(`Ringwall (\(devel\)|v?\d[^ ,]*),`)
	flowPort = regexp.MustCompile(`\b((?:udp|tcp) \d+\.\d+\.\d+\.\d+):\d{5}\b`) // one of those that the kernel chooses
	amount   = regexp.MustCompile(`(^|[ (:])(\d+(?:\.\d+)?)([ ,;:.)]|$)`)
)

// lineAndNumbers is a line of output without what differs from one run to the next: times, and the numbers
// themselves, which are compared one by one.
func lineAndNumbers(line string) (string, []float64) {
	line = moment.ReplaceAllString(strings.Join(strings.Fields(line), " "), "TIME")
	line = flowPort.ReplaceAllString(duration.ReplaceAllString(line, "TIME"), "$1:PORT")
	line = version.ReplaceAllString(pid.ReplaceAllString(line, "PID"), "Ringwall VERSION,")
	var numbers []float64
	// Neighbours share the space between them, so each is replaced by itself.
	for m := amount.FindStringSubmatchIndex(line); m != nil; m = amount.FindStringSubmatchIndex(line) {
		n, _ := strconv.ParseFloat(line[m[4]:m[5]], 64)
		numbers = append(numbers, n)
		line = line[:m[4]] + "N" + line[m[5]:]
	}
	return line, numbers
}

// differenceOf says where what a page shows is not what a command writes: "" where it is. Scores decay while the test
// runs, on a slow machine longer than on another, so numbers with decimal places may differ by a quarter. A line "…"
// stands for any lines.
func differenceOf(shown, written string) string {
	want, have := strings.Split(strings.TrimSpace(shown), "\n"), strings.Split(strings.TrimSpace(written), "\n")
	if linesMatch(want, have) {
		return ""
	}
	for i, line := range want {
		if i >= len(have) || (line != "…" && !sameText(line, have[i])) {
			at := "(nothing)"
			if i < len(have) {
				at = have[i]
			}
			return fmt.Sprintf("line %d is\n\t%s\nand should be like\n\t%s", i+1, at, line)
		}
		if line == "…" {
			break
		}
	}
	return "after its … it goes on otherwise"
}

func linesMatch(want, have []string) bool {
	for i, line := range want {
		if line == "…" {
			for j := i; j <= len(have); j++ {
				if linesMatch(want[i+1:], have[j:]) {
					return true
				}
			}
			return false
		}
		if i >= len(have) || !sameText(line, have[i]) {
			return false
		}
	}
	return len(want) == len(have)
}

func sameText(a, b string) bool {
	x, m := lineAndNumbers(a)
	y, n := lineAndNumbers(b)
	if x != y || len(m) != len(n) {
		return false
	}
	for i := range m {
		near := 0.0
		if m[i] != math.Trunc(m[i]) || n[i] != math.Trunc(n[i]) {
			near = max(m[i], n[i]) / 4
		}
		if math.Abs(m[i]-n[i]) > near {
			return false
		}
	}
	return true
}

func TestComparingOutput(t *testing.T) {
	const table = "TIME      EVENT  SCORE\n12:00:00  ban    11.9\nfor another 59m 58s, 3 attempts\n"
	for name, row := range map[string]struct {
		shown, written string
		same           bool
	}{
		"the same": {table, table, true},
		"another time": {table, "TIME EVENT SCORE\n2026-01-02 13:14:15  ban   12\nfor another 1h, 3 attempts",
			true},
		"another count":                {table, strings.Replace(table, "3 att", "4 att", 1), false},
		"another score":                {table, strings.Replace(table, "11.9", "7.9", 1), false},
		"another word":                 {table, strings.Replace(table, "ban", "unban", 1), false},
		"a line less":                  {table, "TIME      EVENT  SCORE\n12:00:00  ban    11.9", false},
		"a line more":                  {table, table + "more", false},
		"lines left out":               {"TIME EVENT SCORE\n…\nfor another 1h, 3 attempts", table, true},
		"the end left out":             {"TIME EVENT SCORE\n…", table, true},
		"left out, and wrong":          {"…\nfor another 1h, 5 attempts", table, false},
		"another port of a phone":      {"passes: udp 198.51.100.7:43546.", "passes: udp 198.51.100.7:53329.", true},
		"another address of the phone": {"passes: udp 198.51.100.7:43546.", "passes: udp 198.51.100.8:53329.", false},
		"another address":              {"203.0.113.66 is banned", "203.0.113.67 is banned", false},
	} {
		if got := differenceOf(row.shown, row.written); (got == "") != row.same {
			t.Errorf("%s: %q", name, got)
		}
	}
}
