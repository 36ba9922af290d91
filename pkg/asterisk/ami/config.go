package ami

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// Auth is how a session proves that it knows the secret.
type Auth int

const (
	MD5   Auth = iota // Challenge, then a digest; the secret does not cross the wire
	Plain             // the secret itself: only over TLS or loopback
)

// String returns the word for a configuration file.
func (a Auth) String() string {
	if a == Plain {
		return "plain"
	}
	return "md5"
}

// Config describes one session. Name, Address, Username and Secret are needed; the zero value of everything else means
// the default.
type Config struct {
	Name     string // of the PBX, for logs and metrics; default: Address
	Address  string // host:port, manager.conf bindaddr and port (5038; TLS 5039)
	Username string
	Secret   string
	Auth     Auth
	TLS      *tls.Config // nil: TCP. An empty ServerName means the host of Address

	// Refresh, where there is one, is asked before each connection for the secret and for TLS as they are by then, such
	// as those from files that somebody replaced, or that cannot be read yet. Secret may be empty then.
	Refresh func() (secret string, conf *tls.Config, err error)

	// EventMask is the list of classes to receive, as in the Events header of the Login action: "security" by default.
	// Asterisk sends what is both in it and in the user's read= line (main/manager.c, set_eventmask()).
	EventMask string

	DialTimeout  time.Duration // TCP and TLS handshakes: 10 s
	LoginTimeout time.Duration // banner to login reply: 10 s. Asterisk delays a refusal by 1 s
	WriteTimeout time.Duration // one action: 5 s

	PingInterval time.Duration // from an answer to the next question: 4 s, so that silence is told of within 15 s
	// PingTimeout is how long a Ping may stay unanswered on a silent line: 10 s. While bytes arrive, it is four times
	// that.
	PingTimeout time.Duration
	// ProofTimeout is how long after a login a security event has to come before read=security is taken to be missing:
	// 5 s.
	ProofTimeout time.Duration
	// RecheckInterval is the life of a session without that proof: 5 minutes. Asterisk copies a user's privileges at
	// login and not again on "manager reload" (authenticate()), so only a new login sees a mended manager.conf.
	RecheckInterval time.Duration

	BackoffMin  time.Duration // first pause before a reconnect: 1 s; doubles
	BackoffMax  time.Duration // longest pause, and the one after a refused login: 30 s
	StableAfter time.Duration // life of a session that resets the pause: 30 s

	QueueBytes    int    // bound of the event queue: 64 MiB
	MaxReplyBytes int    // bound of the reply to one action: 32 MiB
	Limits        Limits // bounds of a line and a frame

	Log *slog.Logger // nil: none

	// OnFrames gets every frame that is queued at that moment (up to 1,024 in one call), in order, from one goroutine.
	// Whoever keeps a part of a text keeps the whole frame in memory, unless he clones it. Frames that answer
	// Session.Action do not come here. It must return when it is called after the end of Run's context: what is queued
	// then is still delivered.
	OnFrames func([]Frame)
	// OnState gets every change of state from the same goroutine, at its place between the frames. Session.Status knows
	// sooner.
	OnState func(State)
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.DialTimeout, 10*time.Second)
	set(&c.LoginTimeout, 10*time.Second)
	set(&c.WriteTimeout, 5*time.Second)
	set(&c.PingInterval, 4*time.Second)
	set(&c.PingTimeout, 10*time.Second)
	set(&c.ProofTimeout, 5*time.Second)
	set(&c.RecheckInterval, 5*time.Minute)
	set(&c.BackoffMin, time.Second)
	set(&c.BackoffMax, 30*time.Second)
	set(&c.StableAfter, 30*time.Second)
	c.BackoffMax = max(c.BackoffMax, c.BackoffMin)
	if c.Name == "" {
		c.Name = c.Address
	}
	if c.EventMask == "" {
		c.EventMask = "security"
	}
	if c.QueueBytes <= 0 {
		c.QueueBytes = 64 << 20
	}
	if c.MaxReplyBytes <= 0 {
		c.MaxReplyBytes = 32 << 20
	}
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// maxHeaderBytes bounds what is written in one header: Asterisk reads lines of at most 1,024 bytes (main/manager.c,
// inbuf).
const maxHeaderBytes = 900

// Validate reports what makes a session impossible from the start. No message holds the secret.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("ami: address %q is not host:port (try 127.0.0.1:5038): %w", c.Address, err)
	}
	if c.Username == "" {
		return errors.New("ami: no username (the name in brackets in manager.conf)")
	}
	if c.Secret == "" && c.Refresh == nil {
		return errors.New("ami: no secret (the secret= line of that user in manager.conf)")
	}
	for _, v := range []struct{ key, value string }{
		{"username", c.Username}, {"secret", c.Secret}, {"event mask", c.EventMask},
	} {
		switch {
		case strings.ContainsFunc(v.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("ami: %s holds a line break or another control character, which AMI cannot carry", v.key)
		case len(v.value) > maxHeaderBytes:
			return fmt.Errorf("ami: %s has %d bytes, Asterisk reads at most %d", v.key, len(v.value), maxHeaderBytes)
		case v.value != strings.TrimSpace(v.value):
			return fmt.Errorf("ami: %s begins or ends with a space, which manager.conf cannot hold", v.key)
		}
	}
	if c.Auth != MD5 && c.Auth != Plain {
		return fmt.Errorf("ami: auth %d is neither md5 nor plain", int(c.Auth))
	}
	return nil
}

// String describes the session without its secret.
func (c Config) String() string {
	scheme := "tcp"
	if c.TLS != nil {
		scheme = "tls"
	}
	return fmt.Sprintf("%s (%s://%q as %q, %s)", c.Name, scheme, c.Address, c.Username, c.Auth)
}

// GoString keeps the secret out of %#v.
func (c Config) GoString() string { return c.String() }

// LogValue keeps the secret out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
