package ami

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/hint"
)

func kindsOfError() []error {
	return []error{ErrRefused, ErrUnreachable, ErrTimeout, ErrClosed, ErrNotAMI, ErrLogin, ErrInUse, ErrShuttingDown,
		ErrNoPrivilege,
		ErrPing, ErrUnknownCA, ErrWrongName, ErrExpired, ErrNoTLS, ErrTLS}
}

// silent accepts and says nothing until the other side goes.
func silent(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }

func TestEachFailureHasItsOwnError(t *testing.T) {
	certs := newAuthority(t)
	good := func(t *testing.T, users ...amiserver.User) string {
		_, address := asterisk(t, amiserver.Config{Users: users})
		return address
	}
	secure := func(t *testing.T, host string, notAfter time.Time) string {
		_, address := asterisk(t, amiserver.Config{TLS: certs.server(t, host, notAfter)})
		return address
	}
	say := func(text string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return scripted(t, func(nc net.Conn) {
				_, _ = nc.Write([]byte(text))
				silent(nc)
			})
		}
	}
	useTLS := func(c *Config) { c.TLS = &tls.Config{RootCAs: certs.pool} }
	tests := []struct {
		name   string
		server func(t *testing.T) string
		change func(*Config)
		kind   error
		stage  string
		text   string // in the message
		hint   string // in the hint
	}{
		{name: "wrong secret", server: func(t *testing.T) string { return good(t) },
			change: func(c *Config) { c.Secret = "wrong" },
			kind:   ErrLogin, stage: StageLogin, text: `login of user "ringwall" refused`,
			hint: "[ringwall]\nsecret = "},
		{name: "wrong secret, plain", server: func(t *testing.T) string { return good(t) },
			change: func(c *Config) { c.Secret, c.Auth = "wrong", Plain },
			kind:   ErrLogin, stage: StageLogin, text: `login of user "ringwall" refused`, hint: "read = security\n"},
		{name: "unknown user", server: func(t *testing.T) string { return good(t) },
			change: func(c *Config) { c.Username = "nobody" },
			kind:   ErrLogin, stage: StageLogin, text: `login of user "nobody" refused`, hint: "[nobody]\n"},
		{name: "access list of the user", server: func(t *testing.T) string {
			return good(t, amiserver.User{Name: "ringwall", Secret: secret,
				Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
		}, kind: ErrLogin, stage: StageLogin, text: "deny and permit", hint: "permit = "},
		{name: "only one login", server: func(t *testing.T) string {
			address := good(t, amiserver.User{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity,
				Single: true})
			run(t, address, nil).state(Connected, 1)
			return address
		}, kind: ErrInUse, stage: StageLogin, text: "only once", hint: "allowmultiplelogin = yes"},
		{name: "nothing listens", server: func(t *testing.T) string {
			// An address of its own, so that nobody takes the port meanwhile.
			ln, err := net.Listen("tcp", "127.83.12.8:0")
			if err != nil {
				t.Fatal(err)
			}
			_ = ln.Close()
			return ln.Addr().String()
		}, kind: ErrRefused, stage: StageDial, text: "connection refused",
			hint: "[general]\nenabled = yes\nbindaddr = 127.83.12.8\nport = "},
		{name: "no such host", server: func(*testing.T) string { return "127.0.0.1:99999" },
			kind: ErrUnreachable, stage: StageDial, text: "cannot connect", hint: "[general]"},
		{name: "another service", server: say("SSH-2.0-OpenSSH_10.0\r\n"), kind: ErrNotAMI, stage: StageGreet,
			text: `"SSH-2.0-OpenSSH_10.0\r\n"`, hint: "port = "},
		{name: "another service, hostile", server: say("\x1b[31m\xff\r\nResponse: "), kind: ErrNotAMI,
			stage: StageGreet, text: `"\x1b[31m\xff\r\nResponse: "`},
		{name: "greets like AMI only", server: say("Asterisk Call Manager/1.1\r\nResponse: Error\r\nMessage: " +
			"what\r\n\r\n"), kind: ErrNotAMI, stage: StageLogin, text: "what"},
		{name: "shutting down", server: say("Asterisk Call Manager/1.1\r\nResponse: Error\r\nMessage: Asterisk is " +
			"shutting down\r\n\r\n"), kind: ErrShuttingDown, stage: StageLogin, text: "shutting down"},
		{name: "floods before the login", server: say("Asterisk Call Manager/1.1\r\n" +
			strings.Repeat("A: b\r\n\r\n", 100)), kind: ErrNotAMI, stage: StageLogin, text: "A: b"},
		{name: "closed before the greeting",
			server: func(t *testing.T) string { return scripted(t, func(net.Conn) {}) },
			kind:   ErrClosed, stage: StageGreet, text: "before the greeting", hint: "authlimit"},
		{name: "reset before the greeting", server: func(t *testing.T) string {
			return scripted(t, func(nc net.Conn) { _ = nc.(*net.TCPConn).SetLinger(0) })
		}, kind: ErrClosed, text: "before the greeting", stage: StageGreet},
		{name: "closed before the reply", server: func(t *testing.T) string {
			return scripted(t, func(nc net.Conn) {
				_, _ = nc.Write([]byte("Asterisk Call Manager/11.0.0\r\n"))
				_, _ = nc.Read(make([]byte, 4096))
			})
		}, kind: ErrClosed, stage: StageLogin, text: "before the login was answered", hint: "permit = "},
		{name: "unknown authority", server: func(t *testing.T) string {
			return secure(t, "127.0.0.1",
				time.Now().Add(time.Hour))
		},
			change: func(c *Config) { c.TLS = &tls.Config{} }, kind: ErrUnknownCA, stage: StageTLS, text: "authority",
			hint: "tls.ca_file"},
		{name: "certificate of another name",
			server: func(t *testing.T) string { return secure(t, "pbx.example", time.Now().Add(time.Hour)) },
			change: useTLS, kind: ErrWrongName, stage: StageTLS, text: "another name", hint: "tls.server_name"},
		{name: "expired certificate", server: func(t *testing.T) string {
			return secure(t, "127.0.0.1",
				time.Now().Add(-time.Hour))
		},
			change: useTLS, kind: ErrExpired, stage: StageTLS, text: "expired", hint: "tlscertfile"},
		{name: "plain server on a TLS port", server: func(t *testing.T) string { return good(t) }, change: useTLS,
			kind: ErrNoTLS, stage: StageTLS, text: "does not speak TLS", hint: "turn tls off"},
		{name: "closed during the handshake", server: func(t *testing.T) string {
			return scripted(t, func(nc net.Conn) { _, _ = nc.Read(make([]byte, 4096)) })
		}, change: useTLS, kind: ErrClosed, stage: StageTLS, text: "during the TLS handshake"},
		{name: "no common version", server: func(t *testing.T) string {
			conf := certs.server(t, "127.0.0.1", time.Now().Add(time.Hour))
			conf.MaxVersion = tls.VersionTLS12
			_, address := asterisk(t, amiserver.Config{TLS: conf})
			return address
		}, change: func(c *Config) { useTLS(c); c.TLS.MinVersion = tls.VersionTLS13 }, kind: ErrTLS, stage: StageTLS,
			text: "handshake failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := run(t, tt.server(t), func(c *Config) {
				c.BackoffMin, c.BackoffMax = time.Hour, time.Hour // the status is that of the first attempt
				if tt.change != nil {
					tt.change(c)
				}
			})
			st := w.state(Failed, 1)
			explained(t, st.Err, tt.kind, tt.stage, tt.text, tt.hint)
			if got := w.Status(); got.Up || got.LastError != st.Err.Error() || hint.Of(got.Err) != hint.Of(st.Err) ||
				got.LastErrorAt.IsZero() {
				t.Errorf("status %+v", got)
			}
		})
	}
}

func explained(t *testing.T, err, kind error, stage, text, try string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, kind) || e.Kind != kind || e.Stage != stage {
		t.Fatalf("got %T %v", err, err)
	}
	if !strings.Contains(e.Error(), text) ||
		strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' || r == utf8.RuneError }) ||
		!strings.Contains(hint.Of(err), try) {
		t.Errorf("message %q\nhint %q", e.Error(), hint.Of(err))
	}
}

func TestEachSilenceHasItsOwnError(t *testing.T) {
	useTLS := func(c *Config) { c.TLS = &tls.Config{RootCAs: x509.NewCertPool()} }
	for name, row := range map[string]struct {
		says, stage, text, try string
		change                 func(*Config)
	}{
		"accepts":  {"", StageGreet, "no greeting", "turn tls on", nil},
		"greets":   {"Asterisk Call Manager/1.1\r\n", StageLogin, "not answered in time", "", nil},
		"TLS port": {"", StageTLS, "TLS handshake", "", useTLS},
	} {
		t.Run(name, func(t *testing.T) {
			states, _ := piped(t, time.Minute, row.change, func(_ int, nc net.Conn) {
				_, _ = nc.Write([]byte(row.says))
				silent(nc)
			})
			failed := only(states, Failed)
			if len(failed) == 0 {
				t.Fatalf("states %+v", states)
			}
			explained(t, failed[0].Err, ErrTimeout, row.stage, row.text, row.try)
		})
	}
}

func TestBadConfigurationEndsRun(t *testing.T) {
	good := Config{Address: "127.0.0.1:5038", Username: "u", Secret: "s"}
	for name, tt := range map[string]struct {
		change func(*Config)
		text   string
	}{
		"address":   {func(c *Config) { c.Address = "pbx" }, "host:port"},
		"no user":   {func(c *Config) { c.Username = "" }, "no username"},
		"no secret": {func(c *Config) { c.Secret = "" }, "no secret"},
		"CRLF in the user": {func(c *Config) { c.Username = "u\r\nAction: Command" },
			"username holds a line break"},
		"CR in the secret": {func(c *Config) { c.Secret = "topsecret\r" }, "secret holds a line break"},
		"LF in the secret": {func(c *Config) { c.Secret = "topsecret\nx" }, "secret holds a line break"},
		"NUL in the secret": {func(c *Config) { c.Secret = "topsecret\x00" },
			"secret holds a line break or another control"},
		"LF in the mask":       {func(c *Config) { c.EventMask = "security\n" }, "event mask holds"},
		"too long a secret":    {func(c *Config) { c.Secret = strings.Repeat("topsecret", 200) }, "at most 900"},
		"space around secrets": {func(c *Config) { c.Secret = " topsecret" }, "space"},
		"auth":                 {func(c *Config) { c.Auth = 7 }, "md5 nor plain"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			err := New(cfg).Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("%v", err)
			}
		})
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
