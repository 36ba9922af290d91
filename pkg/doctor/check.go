package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// A Result is what became of a check.
type Result string

// The results. Only Fail makes the whole fail.
const (
	OK   Result = "ok"
	Warn Result = "warn" // works, and a person should look at it
	Fail Result = "fail" // attackers are not kept out, or customers are in danger
	Skip Result = "skip" // could not be looked at, or does not apply; Detail says why
)

// A Check is one link of the chain. Its texts are fit for a terminal and hold no secret.
type Check struct {
	Name   string `json:"name"`            // of the link, the same in every version: "login"
	About  string `json:"about,omitempty"` // which one of several: the name of an Asterisk
	Result Result `json:"result"`
	Detail string `json:"detail"`        // one line
	Fix    string `json:"fix,omitempty"` // what to do, possibly several lines
}

// Passed reports whether nothing failed.
func Passed(list []Check) bool {
	for _, c := range list {
		if c.Result == Fail {
			return false
		}
	}
	return true
}

// subject is what checks are about: one Asterisk by its name, or the machine and its daemon, which have none. Its
// methods record what became of a check.
type subject struct {
	*exam
	about string
}

func (s subject) ok(name, format string, args ...any) { s.addCheck(name, OK, "", format, args...) }

func (s subject) warn(name, fix, format string, args ...any) {
	s.addCheck(name, Warn, fix, format, args...)
}

func (s subject) fail(name, fix, format string, args ...any) {
	s.addCheck(name, Fail, fix, format, args...)
}

func (s subject) skip(name, fix, format string, args ...any) {
	s.addCheck(name, Skip, fix, format, args...)
}

// addCheck records a check and reports it. Whoever formats values of the wire has escaped them; what is escaped here
// is what was forgotten there.
func (s subject) addCheck(name string, r Result, fix, format string, args ...any) {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(fix), "\n") {
		lines = append(lines, printable.Line(line))
	}
	c := Check{
		Name: name, About: printable.String(s.about), Result: r,
		Detail: printable.Line(strings.TrimSpace(fmt.Sprintf(format, args...))), Fix: strings.Join(lines, "\n"),
	}
	s.checks = append(s.checks, c)
	if s.Report != nil {
		s.Report(c)
	}
}

// skipAll records that checks could not be made, all for the same reason.
func (s subject) skipAll(why string, names ...string) {
	for _, name := range names {
		s.skip(name, "", "%s", why)
	}
}

// errorLine is the text of an error in one line, escaped.
func errorLine(err error) string {
	return printable.Line(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// roughDuration writes a duration for a person, in whole days from two days on, to the second from a second on: "3
// days", "2h5m0s", "1.2ms".
func roughDuration(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return d.Round(100 * time.Microsecond).String()
}
