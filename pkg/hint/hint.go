// Package hint is for errors that say what to try: what is wrong is the error's text, what would mend it stands
// beside it, and whoever shows the error to a person decides where that goes: behind it, on a line of its own, or in
// a field of JSON. Of a mistyped word, [Nearest] says which was probably meant.
package hint

import (
	"errors"
	"fmt"
	"log/slog"
)

// Error is an error with what to try. Packages whose errors hold more have a type of their own with a method Hint.
type Error struct {
	Err error  // what is wrong
	Try string // what to try: a sentence without a full stop, or several lines
}

// Error says what is wrong, and not what to try.
func (e *Error) Error() string { return e.Err.Error() }

// Hint says what to try.
func (e *Error) Hint() string { return e.Try }

// Unwrap returns the error without the hint.
func (e *Error) Unwrap() error { return e.Err }

// Errorf is [fmt.Errorf] with what to try.
func Errorf(try, format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Try: try}
}

// Line is an error's text with what to try behind it.
func Line(err error) string {
	if try := Of(err); try != "" {
		return err.Error() + "; try: " + try
	}
	return err.Error()
}

// Attr is an error in a log: under "err" what is wrong, and under "try" what to try, if there is something.
func Attr(err error) slog.Attr {
	attrs := []any{slog.Any("err", err)}
	if try := Of(err); try != "" {
		attrs = append(attrs, slog.String("try", try))
	}
	return slog.Group("", attrs...) // a group without a name is written as its attributes
}

// Of returns what the outermost error with a hint in err's tree says to try, "" where there is none.
func Of(err error) string {
	var hinted interface {
		error
		Hint() string
	}
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}
