package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// failure is why an attempt did not work. Its text holds nothing of the target's address, token or body.
type failure struct {
	cause      string
	output     string        // what the server or the program said, escaped and cut
	permanent  bool          // another attempt would fail too
	retryAfter time.Duration // no attempt before that
}

func (f *failure) Error() string { return f.cause }

// networkFailure says what went wrong on the way to a server. The text of such errors is not used: *url.Error holds the
// whole address, and others may hold parts of it.
func networkFailure(err error) *failure {
	var (
		dns       *net.DNSError
		errno     syscall.Errno
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		timeout   interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{cause: "no answer in time"}
	case errors.Is(err, context.Canceled):
		return &failure{cause: "stopped"}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &failure{cause: "the host name does not exist"}
	case errors.As(err, &dns):
		return &failure{cause: "the host name cannot be resolved"}
	case errors.As(err, &authority):
		return &failure{cause: "the server's certificate is signed by nobody who is known here; ca_file can name who " +
			"signed it"}
	case errors.As(err, &name):
		return &failure{cause: "the server's certificate is for another name"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &failure{cause: "the server's certificate has expired, or is not valid yet"}
	case errors.As(err, &invalid), errors.As(err, &verify):
		return &failure{cause: "the server's certificate is not valid"}
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return &failure{cause: "the server does not speak TLS"}
	case errors.As(err, &alert):
		return &failure{cause: "the server ended the TLS handshake"}
	case errors.As(err, &errno):
		return &failure{cause: errno.Error()}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &failure{cause: "no answer in time"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{cause: "the server closed the connection"}
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return &failure{cause: fmt.Sprintf("the request failed (%T)", err)}
}
