package ami

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// What an [Error] can be about; test with errors.Is.
var (
	ErrRefused       = errors.New("connection refused")
	ErrUnreachable   = errors.New("cannot connect")
	ErrTimeout       = errors.New("no answer in time")
	ErrClosed        = errors.New("connection closed")
	ErrNotAMI        = errors.New("not an Asterisk Manager Interface")
	ErrLogin         = errors.New("login refused")
	ErrInUse         = errors.New("user is already logged in")
	ErrShuttingDown  = errors.New("the server is shutting down")
	ErrNoPrivilege   = errors.New("no security events")
	ErrRelogin       = errors.New("a new login was asked for")
	ErrPing          = errors.New("ping not answered")
	ErrUnknownCA     = errors.New("certificate of an unknown authority")
	ErrWrongName     = errors.New("certificate for another name")
	ErrExpired       = errors.New("certificate expired or not yet valid")
	ErrNoTLS         = errors.New("the port does not speak TLS")
	ErrTLS           = errors.New("TLS handshake failed")
	ErrNotConnected  = errors.New("ami: not connected")
	ErrBusy          = errors.New("ami: too many actions are waiting for a reply")
	ErrNoReply       = errors.New("ami: Asterisk passed the action over without a reply")
	ErrReplyTooLarge = errors.New("ami: reply exceeds its bound")
	ErrRunning       = errors.New("ami: the session runs already, or has ended")
)

// Stages of a session, as an [Error] names them.
const (
	StageDial  = "dial"
	StageTLS   = "tls"
	StageGreet = "banner"
	StageLogin = "login"
	StageRun   = "run"
)

// An Error says on one line why a session could not be set up, or why it ended; [Error.Hint] names the lines of
// manager.conf that mend it. Neither holds the secret, and bytes of the other side appear quoted.
type Error struct {
	Kind    error  // one of the Err… variables
	Stage   string // one of the Stage… constants
	Address string
	User    string
	Detail  string // what the other side said, raw
	TLS     bool   // the session uses TLS
	Err     error  // the cause, where there is one
}

// Unwrap makes errors.Is find Kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

func (e *Error) Error() string {
	what, _, _ := e.explainFailure()
	return fmt.Sprintf("AMI at %q: %s", e.Address, what)
}

// Hint says what to do, with the lines of manager.conf where it is they that are wrong. It has several lines, each
// ending with a line feed.
func (e *Error) Hint() string {
	_, advice, conf := e.explainFailure()
	if len(conf) == 0 {
		if advice == "" {
			return ""
		}
		return advice + "\n"
	}
	return advice + ":\n" + strings.Join(conf, "\n") + "\nand then run: asterisk -rx \"manager reload\"\n"
}

func (e *Error) userSection(lines ...string) []string {
	return append([]string{"[" + strings.Trim(fmt.Sprintf("%q", e.User), `"`) + "]"}, lines...)
}

func (e *Error) generalSection() []string {
	host, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		host, port = "127.0.0.1", "5038"
	}
	if net.ParseIP(host) == nil {
		host = "127.0.0.1"
	}
	if e.TLS {
		return []string{"[general]", "enabled = yes", "tlsenable = yes",
			"tlsbindaddr = " + net.JoinHostPort(host, port), "tlscertfile = /etc/asterisk/keys/asterisk.pem"}
	}
	return []string{"[general]", "enabled = yes", "bindaddr = " + host, "port = " + port}
}

// listConnections is a command that lists the connections to the port.
func (e *Error) listConnections() string {
	port := "5038"
	if _, p, err := net.SplitHostPort(e.Address); err == nil {
		port = p
	}
	return "ss -tn sport = :" + port
}

// explainFailure returns what happened, what to do, and lines for manager.conf.
func (e *Error) explainFailure() (what, advice string, conf []string) {
	const inConf = "put in manager.conf"
	switch e.Kind {
	case ErrRefused:
		return "connection refused: nothing listens there", "start Asterisk, and " + inConf, e.generalSection()
	case ErrUnreachable:
		return fmt.Sprintf("cannot connect: %v", e.Err),
			"check the address, the route and firewalls on the way; " + inConf, e.generalSection()
	case ErrTimeout:
		switch e.Stage {
		case StageDial:
			return "no answer to the connection in time",
				"check the address and firewalls on the way (AMI belongs on loopback or a private network); " + inConf,
				e.generalSection()
		case StageTLS:
			return "no answer to the TLS handshake in time", "check that this is the TLS port; " + inConf,
				e.generalSection()
		case StageGreet:
			if !e.TLS {
				return "connected, but no greeting came in time",
					"if this is the TLS port (tlsbindaddr, 5039), turn tls on; else see whether Asterisk hangs " +
						"(asterisk -rx \"core show uptime\"); " + inConf, e.generalSection()
			}
			return "connected, but no greeting came in time",
				"see whether Asterisk hangs: asterisk -rx \"core show uptime\"", nil
		case StageLogin:
			return "greeted, but the login was not answered in time",
				"see whether Asterisk hangs: asterisk -rx \"manager show connected\"", nil
		}
		return "no answer in time", "see whether Asterisk hangs: asterisk -rx \"manager show connected\"", nil
	case ErrClosed:
		cause := "closed"
		if errors.Is(e.Err, syscall.ECONNRESET) {
			cause = "reset"
		}
		switch e.Stage {
		case StageTLS:
			return "connection " + cause + " during the TLS handshake",
				"see Asterisk's log for the reason; check the certificate file; " + inConf, e.generalSection()
		case StageGreet:
			return "connection " + cause + " before the greeting: as many sessions as authlimit allows (50) wait for " +
					"a login, perhaps a stranger's, " +
					"or a proxy or firewall refuses this machine, or Asterisk is stopping",
				"see who is connected (" + e.listConnections() + "), shut strangers out, and " + inConf,
				append(e.generalSection(), "authlimit = 500")
		case StageLogin:
			return "connection " + cause + " before the login was answered: an access list, authtimeout, or Asterisk " +
					"is stopping",
				inConf, append([]string{"[general]", "authtimeout = 30"},
					e.userSection("permit = <address of this machine>/32")...)
		}
		return "connection " + cause + " by Asterisk: it was stopped, restarted, or an event could not be written " +
				"within writetimeout",
			"if Asterisk was not restarted, " + inConf, e.userSection("writetimeout = 5000")
	case ErrNotAMI:
		if e.Stage == StageLogin {
			return fmt.Sprintf("it greets as AMI, but answers the login with %q", e.Detail),
				"check the address and the port; " + inConf, e.generalSection()
		}
		return fmt.Sprintf("not an Asterisk Manager Interface, it greets with %q", e.Detail),
			"check the address and the port; " + inConf, e.generalSection()
	case ErrLogin:
		return fmt.Sprintf("login of user %q refused (%q): the secret is wrong, there is no such user, or its deny "+
				"and permit lines shut this machine out; Asterisk tells which only in its log", e.User, e.Detail),
			inConf, e.userSection("secret = <the secret of Ringwall's configuration>", "read = security", "write =",
				"deny = 0.0.0.0/0.0.0.0", "permit = <address of this machine>/32")
	case ErrInUse:
		return fmt.Sprintf("user %q is logged in already and may be so only once", e.User),
			"give Ringwall a user of its own, or " + inConf, e.userSection("allowmultiplelogin = yes")
	case ErrShuttingDown:
		return "Asterisk is shutting down", "", nil
	case ErrNoPrivilege:
		return fmt.Sprintf("user %q is logged in, but not even the event of its own login came: it lacks "+
				"read=security, or an eventfilter or disabledevents line hides SuccessfulAuth", e.User),
			inConf, e.userSection("read = security", "write =")
	case ErrRelogin:
		return "the session was ended for a new login, as Session.Retry asked", "", nil
	case ErrPing:
		return "Ping was not answered in time: Asterisk hangs or the line is dead",
			"see whether Asterisk answers: asterisk -rx \"manager show connected\"", nil
	case ErrUnknownCA:
		return "the certificate is signed by an authority that this machine does not know",
			"set tls.ca_file to the authority's certificate (for a self-signed certificate: tlscertfile of " +
				"manager.conf, without its key)", nil
	case ErrWrongName:
		return fmt.Sprintf("the certificate is for another name (%s)", quoteError(e.Err)),
			"set tls.server_name to a name in the certificate, or issue one for this address", nil
	case ErrExpired:
		return fmt.Sprintf("the certificate has expired or is not valid yet (%s)", quoteError(e.Err)),
			"renew the certificate, check both clocks; " + inConf,
			[]string{"[general]", "tlscertfile = <file of the new certificate and its key>"}
	case ErrNoTLS:
		return "the port does not speak TLS", "turn tls off for this port, use the TLS port (5039), or " + inConf,
			e.generalSection()
	case ErrTLS:
		return fmt.Sprintf("TLS handshake failed: %s", quoteError(e.Err)),
			"see Asterisk's log for the reason; " + inConf, e.generalSection()
	}
	return fmt.Sprintf("%v", e.Kind), "", nil
}

func quoteError(err error) string {
	if err == nil {
		return "no reason given"
	}
	return strings.Trim(fmt.Sprintf("%q", err.Error()), `"`)
}

// A DeniedError says that Asterisk has the action and does not let this user use it (write= in manager.conf). Asterisk
// also emits RequestNotAllowed about it, from the address in [Status.Local].
type DeniedError struct {
	Action string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("ami: Asterisk denies the action %q: the user lacks the privilege in write=", e.Action)
}

// An ActionError is any other error that Asterisk answers an action with.
type ActionError struct {
	Action  string
	Message string // of Asterisk, raw
}

func (e *ActionError) Error() string {
	return fmt.Sprintf("ami: action %q failed: %q", e.Action, e.Message)
}

// newError makes an Error of what went wrong at a stage.
func (s *Session) newError(stage string, kind, err error, detail string) *Error {
	return &Error{Kind: kind, Stage: stage, Address: s.cfg.Address, User: s.cfg.Username, Detail: detail,
		TLS: s.cfg.TLS != nil, Err: err}
}

// networkError sorts what the network said.
func (s *Session) networkError(stage string, err error) error {
	kind := ErrUnreachable
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		cert      x509.CertificateInvalidError
		record    tls.RecordHeaderError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &authority):
		kind = ErrUnknownCA
	case errors.As(err, &name):
		kind = ErrWrongName
	case errors.As(err, &cert) && cert.Reason == x509.Expired:
		kind = ErrExpired
	case errors.As(err, &record):
		kind = ErrNoTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		kind = ErrRefused
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) &&
		timeout.Timeout():
		kind = ErrTimeout
	case stage == StageDial && errors.Is(err, syscall.ECONNRESET):
		stage, kind = StageGreet, ErrClosed // connected, and thrown out before connect() returned
	case stage != StageDial && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)):
		kind = ErrClosed
	case stage == StageTLS:
		kind = ErrTLS
	case stage != StageDial:
		kind = ErrClosed
	}
	return s.newError(stage, kind, err, "")
}
