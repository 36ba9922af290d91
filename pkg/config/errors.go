package config

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is one mistake in the file. No secret is ever in it.
type Error struct {
	File    string
	Line    int    // 1 is the first; 0 when the whole file is meant
	Column  int    // 1 is the first; 0 when unknown
	Key     string // the whole path, as in policy.points.unknown_account or asterisk[0].address
	What    string // what is wrong
	Value   string // what the file says, quoted and cut; empty when it does not help or may be a secret
	Allowed string // what may stand there
	Try     string // what to try

	cause   error
	outside bool // about another file, or a variable: this one is right
}

// Error returns one line: FILE:LINE: KEY: what: VALUE; allowed: …; try: …
func (e *Error) Error() string {
	return formatProblem(e.File, e.Line, e.Key, e.What, e.Value, e.Allowed, e.Try)
}

// Hint says what to try.
func (e *Error) Hint() string { return e.Try }

// Unwrap returns what the operating system said, such as [fs.ErrNotExist], if it was asked.
func (e *Error) Unwrap() error { return e.cause }

// Errors are all the mistakes of a file that were found at once, in the order of their lines. It is never empty.
type Errors []*Error

// Error returns one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets [errors.Is] and [errors.As] look at each mistake.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// Warning is something in the file that is allowed, but is probably not what was meant or not safe. The fields are
// those of [Error].
type Warning struct {
	File   string
	Line   int
	Column int
	Key    string
	What   string
	Value  string
	Try    string
}

// String returns one line, built like that of an [Error].
func (w Warning) String() string {
	return formatProblem(w.File, w.Line, w.Key, w.What, w.Value, "", w.Try)
}

func formatProblem(file string, line int, key, what, value, allowed, hint string) string {
	var b strings.Builder
	b.WriteString(plainText(file))
	if line > 0 {
		b.WriteString(":" + strconv.Itoa(line))
	}
	if key != "" {
		b.WriteString(": " + key)
	}
	b.WriteString(": " + what)
	if value != "" {
		b.WriteString(": " + value)
	}
	if allowed != "" {
		b.WriteString("; allowed: " + allowed)
	}
	if hint != "" {
		b.WriteString("; try: " + hint)
	}
	return b.String()
}

// maxShown is how many bytes of a value an error repeats.
const maxShown = 80

// quote makes a value fit for a terminal and a log: quoted, cut, without control or direction characters.
func quote(text string) string {
	if len(text) <= maxShown {
		return strconv.Quote(text)
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strconv.Quote(text[:cut]) + "…"
}

// plainText is a file name as it is, or quoted if it could do harm on a terminal.
func plainText(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}

func sortErrors(errs Errors) {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

func sortWarnings(warnings []Warning) {
	slices.SortStableFunc(warnings, func(a, b Warning) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
