package soak

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

// An Asterisk, or a line to it, that is out of its mind: the program says what is wrong and what to try, ends neither
// itself nor a ban, and goes on by itself when all is well again.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		name  string
		fault fault
		says  string // in the log
		try   bool   // status says what to try
		long  bool   // at full length only
	}{
		{name: "it accepts and says nothing", fault: silent, says: "connected, but no greeting came in time",
			try: true},
		{name: "it greets with one byte a second", fault: trickle, says: "connected, but no greeting came in time",
			try: true},
		{name: "it falls silent after the login", fault: silentLater, says: "Ping was not answered in time", try: true},
		{name: "it sends one byte a second after the login", fault: slowLater, says: "Ping was not answered in time",
			try: true, long: true},
		{name: "it sends half a frame and resets", fault: halfFrame, says: "connection reset by Asterisk", try: true},
		{name: "it sends a line of 10 MB", fault: hugeLine, says: "skipped a frame of"},
		{name: "it sends 10 MB without a line's end and resets", fault: endless, says: "connection reset by Asterisk",
			try: true},
		{name: "it is another program", fault: stranger, says: "not an Asterisk Manager Interface", try: true},
	} {
		if f.long && !full() {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "policy: {honeypots: [trap]}\n")
			p := newProxy(t, h)
			h.configure(p.address, "policy: {honeypots: [trap]}\n")
			h.start()
			h.trapped(1)
			p.cut(f.fault)
			h.until("the log says "+f.says, func() bool { return strings.Contains(h.daemon.Output(), f.says) })
			if f.try {
				h.until("status says what to try", func() bool {
					s := h.status().PBXs[0]
					return !s.Up && strings.Contains(s.LastError, f.says) && s.Try != ""
				})
			}
			if !h.inKernel(single(nth(1))) {
				t.Error("a ban ended")
			}
			p.heal()
			h.until("all is well again", h.up)
			h.server.Broadcast([]byte("\r\n\r\n")) // whatever was begun on a line that is still up ends
			h.trapped(2)
			if peak := h.memory("VmHWM"); peak > 100<<20 {
				t.Errorf("%d MiB resident", peak>>20)
			}
			h.stop()
		})
	}
	t.Run("its certificate has expired", func(t *testing.T) { t.Parallel(); expired(t) })
	t.Run("its clock is wrong", func(t *testing.T) { t.Parallel(); wrongClock(t) })
	t.Run("the configuration has a mistake", func(t *testing.T) { t.Parallel(); mistake(t) })
}

// trapped sends an attack and waits for the ban.
func (h *host) trapped(n int) {
	h.t.Helper()
	s := newScript()
	s.trapped("TCP", nth(n))
	h.until("a subscriber is there", func() bool { return h.server.Broadcast(s.b) > 0 })
	h.until("an attacker is banned", func() bool { return h.inKernel(single(nth(n))) })
}

// fault is what becomes of a connection; it has ended both when it returns.
type fault func(ctx context.Context, daemon, server net.Conn)

func silent(ctx context.Context, _, _ net.Conn) { <-ctx.Done() }

// trickle passes on one byte a second.
func trickle(ctx context.Context, daemon, server net.Conn) {
	for b := make([]byte, 1); pause(ctx, time.Second); {
		if _, err := server.Read(b); err != nil {
			return
		}
		if _, err := daemon.Write(b); err != nil {
			return
		}
	}
}

// later passes on the login, and then does something else.
func later(ctx context.Context, daemon, server net.Conn, then func()) {
	go func() { _, _ = io.Copy(server, daemon) }()
	for b, seen := make([]byte, 4096), []byte(nil); !bytes.Contains(seen, []byte("\r\nSessionTV: ")); {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		seen = append(seen, b[:n]...)
		if _, err := daemon.Write(b[:n]); err != nil {
			return
		}
	}
	then()
}

func silentLater(ctx context.Context, daemon, server net.Conn) {
	later(ctx, daemon, server, func() { <-ctx.Done() })
}

func slowLater(ctx context.Context, daemon, server net.Conn) {
	later(ctx, daemon, server, func() {
		for pause(ctx, time.Second) { // bytes of an event that never ends
			if _, err := daemon.Write([]byte("x")); err != nil {
				return
			}
		}
	})
}

func halfFrame(ctx context.Context, daemon, server net.Conn) {
	later(ctx, daemon, server, func() {
		s := newScript()
		s.trapped("TCP", nth(9))
		_, _ = daemon.Write(s.b[:len(s.b)/2])
		_ = daemon.(*net.TCPConn).SetLinger(0) // RST
	})
}

func hugeLine(ctx context.Context, daemon, server net.Conn) {
	later(ctx, daemon, server, func() {
		_, _ = fmt.Fprintf(daemon, "Event: InvalidAccountID\r\nPrivilege: security,all\r\nAccountID: %s\r\n\r\n",
			bytes.Repeat([]byte("A"), 10<<20))
		_, _ = io.Copy(daemon, server)
	})
}

func endless(ctx context.Context, daemon, server net.Conn) {
	later(ctx, daemon, server, func() {
		_, _ = daemon.Write(bytes.Repeat([]byte("A"), 10<<20))
		_ = daemon.(*net.TCPConn).SetLinger(0)
	})
}

func stranger(_ context.Context, daemon, _ net.Conn) {
	_, _ = daemon.Write([]byte("SSH-2.0-\x1b[31mOpenSSH_9.9\r\n"))
}

// proxy stands between the program and the AMI server.
type proxy struct {
	t       *testing.T
	address string
	fault   atomic.Pointer[fault]

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, h *host) *proxy {
	t.Helper()
	l, err := h.space.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, address: l.Addr().String(), conns: make(map[net.Conn]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := h.space.DialContext(ctx, "tcp", h.ami)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.note(c, true)
			p.note(server, true)
			work.Go(func() { p.pass(ctx, c, server) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		p.end()
		work.Wait()
	})
	return p
}

func (p *proxy) note(c net.Conn, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !there {
		delete(p.conns, c)
		return
	}
	p.conns[c] = true
}

// end ends every connection.
func (p *proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// cut ends the connections, and lets the fault befall those that come.
func (p *proxy) cut(f fault) {
	p.fault.Store(&f)
	p.end()
}

// heal lets new connections be; those with a fault keep it.
func (p *proxy) heal() { p.fault.Store(nil) }

func (p *proxy) pass(ctx context.Context, daemon, server net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, c := range []net.Conn{daemon, server} {
			_ = c.Close()
			p.note(c, false)
		}
	}()
	if f := p.fault.Load(); f != nil {
		(*f)(ctx, daemon, server)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(server, daemon); _ = server.Close() })
	both.Go(func() { _, _ = io.Copy(daemon, server); _ = daemon.Close() })
	both.Wait()
}

// expired is an AMI server over TLS whose certificate has expired, and is renewed.
func expired(t *testing.T) {
	h := newHost(t, "")
	authority := newAuthority(t)
	now := time.Now()
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(authority.issue(t, now.Add(-48*time.Hour), now.Add(-time.Hour)))
	l, err := h.space.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return cert.Load(),
			nil
	}}
	h.server = serve(t, l, amiserver.Config{TLS: conf})
	h.configure(l.Addr().String(), fmt.Sprintf(", tls: {enabled: true, ca_file: %q}", authority.file))
	h.spawn()
	const says = "certificate has expired or is not valid yet"
	h.until("the log says it", func() bool { return strings.Contains(h.daemon.Output(), says) })
	h.until("status says what to try", func() bool {
		s, err := h.client.Status(t.Context())
		return err == nil && !s.PBXs[0].Up && strings.Contains(s.PBXs[0].LastError, says) && s.PBXs[0].Try != ""
	})
	cert.Store(authority.issue(t, now.Add(-time.Hour), now.Add(time.Hour)))
	h.until("the renewed certificate is accepted", h.up)
	s := newScript()
	for range 3 {
		s.scan("TCP", nth(1))
	}
	h.server.Broadcast(s.b)
	h.until("an attacker is banned", func() bool { return h.inKernel(single(nth(1))) })
	h.stop()
}

// wrongClock is an Asterisk whose clock is stepped back an hour, and forward a day: only the lag depends on it.
func wrongClock(t *testing.T) {
	h := newHost(t, "policy: {honeypots: [trap]}\n")
	h.start()
	phone := netip.MustParseAddr("100.64.0.1")
	for i, step := range []time.Duration{0, -time.Hour, 24 * time.Hour} {
		s := newScript()
		s.at = eventTime(time.Now().Add(step))
		s.login("UDP", phone, "201")
		for range 4 {
			s.guess("UDP", phone, "201")
		}
		s.trapped("TCP", nth(i))
		h.server.Broadcast(s.b)
		h.until("an attacker is banned", func() bool { return h.inKernel(single(nth(i))) })
		if e := h.kernel()[single(nth(i))]; e.Timeout > time.Hour || e.Remaining < 50*time.Minute {
			t.Errorf("Asterisk's clock off by %v: banned for %v, %v left", step, e.Timeout, e.Remaining)
		}
		x, err := h.client.Why(t.Context(), phone)
		if err != nil || x.Trust == nil || x.Ban != nil || x.Trust.Left > 24*60*60 {
			t.Errorf("Asterisk's clock off by %v: the phone: %+v, %v", step, x, err)
		}
	}
	if lag := h.status().PBXs[0].Lag; lag < 0 {
		t.Errorf("a lag of %v s", lag)
	}
	h.stop()
}

// mistake is a configuration that cannot work: the program says where, and ends.
func mistake(t *testing.T) {
	h := newHost(t, "policy: {threshhold: 3}\n")
	out, err := h.space.Run(exec.Command(program, "run", "--config", h.config))
	if err == nil || !strings.Contains(out, h.config+":") || !strings.Contains(out, "threshhold") ||
		strings.Contains(out, "panic") {
		t.Errorf("%v: %s", err, out)
	}
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-96 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, from, to time.Time) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "pbx"}, NotBefore: from,
		NotAfter:    to,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}
