package geo

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/ringwall/ringwall/pkg/printable"
)

// Error is why a file is not used, for a person. Its text is safe for a terminal.
type Error struct {
	Path string
	What string
	Try  string // what to try; may be empty

	cause error
}

// Error says what is wrong with which file.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.What
	}
	return printable.Limit(e.Path, 200) + ": " + e.What
}

// Hint says what to try.
func (e *Error) Hint() string { return e.Try }

func (e *Error) Unwrap() error { return e.cause }

// damagedError is about data that is no file in MaxMind's format.
func damagedError(err error) *Error {
	return &Error{What: "is damaged, or no file in MaxMind's format: " + printable.Limit(err.Error(), 200),
		Try: "geoipupdate, or download it again and unpack it (.mmdb)", cause: err}
}

func readError(err error) *Error {
	e := &Error{What: "cannot be read: " + printable.Limit(err.Error(), 200), cause: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.What = "cannot be read: " + pe.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.What, e.Try = "does not exist", "geoipupdate, or the file's whole path in geo.files"
	case errors.Is(err, fs.ErrPermission):
		e.Try = "chmod a+r on the file, and a+x on its folders: the daemon need not run as root"
	case errors.Is(err, syscall.ELOOP):
		e.Try = "the path of the file itself"
	}
	return e
}
