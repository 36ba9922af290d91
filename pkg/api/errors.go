package api

import (
	"errors"
	"fmt"
	"net/http"
)

// What went wrong, for errors.Is on an error of the client or of a Backend.
var (
	ErrInvalid    = errors.New("invalid request")         // 400
	ErrNotFound   = errors.New("not found")               // 404
	ErrRefused    = errors.New("refused")                 // 409: protected, allowed, or our own address
	ErrBusy       = errors.New("busy")                    // 503, or the connection was cut
	ErrTimeout    = errors.New("timed out")               // 504, or no answer
	ErrNotRunning = errors.New("the daemon is not there") // no socket, or nobody behind it
	ErrPermission = errors.New("permission denied")       // the socket is not for this user
	ErrInUse      = errors.New("another daemon runs")     // from Listen
)

// Error is a failure with advice, on both sides of the socket. Its JSON form is {"error", "hint"}.
type Error struct {
	Code    int    `json:"-"`              // HTTP status; 0 where there was no answer
	Message string `json:"error"`          // what and why
	Try     string `json:"hint,omitempty"` // what to try
	Err     error  `json:"-"`              // the cause, or nil
}

// Error returns the message without the hint.
func (e *Error) Error() string { return e.Message }

// Hint says what to try.
func (e *Error) Hint() string { return e.Try }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinel errors by HTTP status.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return target == ErrInvalid
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusConflict:
		return target == ErrRefused
	case http.StatusServiceUnavailable:
		return target == ErrBusy
	case http.StatusGatewayTimeout:
		return target == ErrTimeout
	}
	return false
}

// Invalid is a request that makes no sense: 400.
func Invalid(try, format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Message: fmt.Sprintf(format, args...), Try: try}
}

// NotFound is a request about something that is not there: 404.
func NotFound(try, format string, args ...any) *Error {
	return &Error{Code: http.StatusNotFound, Message: fmt.Sprintf(format, args...), Try: try}
}

// Refused is a request that would do harm: 409. It is for bans of what is allowed, protected or our own.
func Refused(try, format string, args ...any) *Error {
	return &Error{Code: http.StatusConflict, Message: fmt.Sprintf(format, args...), Try: try}
}
