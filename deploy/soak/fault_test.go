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
		{name: "it accepts and says nothing", fault: staySilent, says: "connected, but no greeting came in time",
			try: true},
		{name: "it greets with one byte a second", fault: passSlowly, says: "connected, but no greeting came in time",
			try: true},
		{name: "it falls silent after the login", fault: silentAfterLogin, says: "Ping was not answered in time",
			try: true},
		{name: "it sends one byte a second after the login", fault: slowAfterLogin,
			says: "Ping was not answered in time",
			try:  true, long: true},
		{name: "it sends half a frame and resets", fault: sendHalfFrame, says: "connection reset by Asterisk",
			try: true},
		{name: "it sends a line of 10 MB", fault: sendHugeLine, says: "skipped a frame of"},
		{name: "it sends 10 MB without a line's end and resets", fault: sendEndlessly,
			says: "connection reset by Asterisk",
			try:  true},
		{name: "it is another program", fault: answerAsStranger, says: "not an Asterisk Manager Interface", try: true},
	} {
		if f.long && !isFullLength() {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "policy: {honeypots: [trap]}\n")
			p := newProxy(t, h)
			h.writeConfiguration(p.address, "policy: {honeypots: [trap]}\n")
			h.startAndAwait()
			h.banAttackers(1)
			p.breakConns(f.fault)
			h.waitUntil("the log says "+f.says, func() bool { return strings.Contains(h.daemon.Output(), f.says) })
			if f.try {
				h.waitUntil("status says what to try", func() bool {
					s := h.daemonStatus().PBXs[0]
					return !s.Up && strings.Contains(s.LastError, f.says) && s.Try != ""
				})
			}
			if !h.inKernel(singlePrefix(nthAddress(1))) {
				t.Error("a ban ended")
			}
			p.endFault()
			h.waitUntil("all is well again", h.isUp)
			h.server.Broadcast([]byte("\r\n\r\n")) // whatever was begun on a line that is still up ends
			h.banAttackers(2)
			if peak := h.memoryBytes("VmHWM"); peak > 100<<20 {
				t.Errorf("%d MiB resident", peak>>20)
			}
			h.stopDaemon()
		})
	}
	t.Run("its certificate has expired", func(t *testing.T) { t.Parallel(); testExpiredCertificate(t) })
	t.Run("its clock is wrong", func(t *testing.T) { t.Parallel(); testWrongClock(t) })
	t.Run("the configuration has a mistake", func(t *testing.T) { t.Parallel(); testConfigurationMistake(t) })
}

// banAttackers sends an attack and waits for the ban.
func (h *host) banAttackers(n int) {
	h.t.Helper()
	s := newScript()
	s.addTrapped("TCP", nthAddress(n))
	h.waitUntil("a subscriber is there", func() bool { return h.server.Broadcast(s.b) > 0 })
	h.waitUntil("an attacker is banned", func() bool { return h.inKernel(singlePrefix(nthAddress(n))) })
}

// fault is what becomes of a connection; it has ended both when it returns.
type fault func(ctx context.Context, daemon, server net.Conn)

func staySilent(ctx context.Context, _, _ net.Conn) { <-ctx.Done() }

// passSlowly passes on one byte a second.
func passSlowly(ctx context.Context, daemon, server net.Conn) {
	for b := make([]byte, 1); pauseFor(ctx, time.Second); {
		if _, err := server.Read(b); err != nil {
			return
		}
		if _, err := daemon.Write(b); err != nil {
			return
		}
	}
}

// passLoginThen passes on the login, and then does something else.
func passLoginThen(ctx context.Context, daemon, server net.Conn, then func()) {
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

func silentAfterLogin(ctx context.Context, daemon, server net.Conn) {
	passLoginThen(ctx, daemon, server, func() { <-ctx.Done() })
}

func slowAfterLogin(ctx context.Context, daemon, server net.Conn) {
	passLoginThen(ctx, daemon, server, func() {
		for pauseFor(ctx, time.Second) { // bytes of an event that never ends
			if _, err := daemon.Write([]byte("x")); err != nil {
				return
			}
		}
	})
}

func sendHalfFrame(ctx context.Context, daemon, server net.Conn) {
	passLoginThen(ctx, daemon, server, func() {
		s := newScript()
		s.addTrapped("TCP", nthAddress(9))
		_, _ = daemon.Write(s.b[:len(s.b)/2])
		_ = daemon.(*net.TCPConn).SetLinger(0) // RST
	})
}

func sendHugeLine(ctx context.Context, daemon, server net.Conn) {
	passLoginThen(ctx, daemon, server, func() {
		_, _ = fmt.Fprintf(daemon, "Event: InvalidAccountID\r\nPrivilege: security,all\r\nAccountID: %s\r\n\r\n",
			bytes.Repeat([]byte("A"), 10<<20))
		_, _ = io.Copy(daemon, server)
	})
}

func sendEndlessly(ctx context.Context, daemon, server net.Conn) {
	passLoginThen(ctx, daemon, server, func() {
		_, _ = daemon.Write(bytes.Repeat([]byte("A"), 10<<20))
		_ = daemon.(*net.TCPConn).SetLinger(0)
	})
}

func answerAsStranger(_ context.Context, daemon, _ net.Conn) {
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
			p.trackConn(c, true)
			p.trackConn(server, true)
			work.Go(func() { p.passBytes(ctx, c, server) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		p.endConns()
		work.Wait()
	})
	return p
}

func (p *proxy) trackConn(c net.Conn, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !there {
		delete(p.conns, c)
		return
	}
	p.conns[c] = true
}

// endConns ends every connection.
func (p *proxy) endConns() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// breakConns ends the connections, and lets the fault befall those that come.
func (p *proxy) breakConns(f fault) {
	p.fault.Store(&f)
	p.endConns()
}

// endFault lets new connections be; those with a fault keep it.
func (p *proxy) endFault() { p.fault.Store(nil) }

func (p *proxy) passBytes(ctx context.Context, daemon, server net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, c := range []net.Conn{daemon, server} {
			_ = c.Close()
			p.trackConn(c, false)
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

// testExpiredCertificate is an AMI server over TLS whose certificate has expired, and is renewed.
func testExpiredCertificate(t *testing.T) {
	h := newHost(t, "")
	authority := newAuthority(t)
	now := time.Now()
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(authority.issueCertificate(t, now.Add(-48*time.Hour), now.Add(-time.Hour)))
	l, err := h.space.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return cert.Load(),
			nil
	}}
	h.server = serveAMI(t, l, amiserver.Config{TLS: conf})
	h.writeConfiguration(l.Addr().String(), fmt.Sprintf(", tls: {enabled: true, ca_file: %q}", authority.file))
	h.spawnDaemon()
	const says = "certificate has expired or is not valid yet"
	h.waitUntil("the log says it", func() bool { return strings.Contains(h.daemon.Output(), says) })
	h.waitUntil("status says what to try", func() bool {
		s, err := h.client.Status(t.Context())
		return err == nil && !s.PBXs[0].Up && strings.Contains(s.PBXs[0].LastError, says) && s.PBXs[0].Try != ""
	})
	cert.Store(authority.issueCertificate(t, now.Add(-time.Hour), now.Add(time.Hour)))
	h.waitUntil("the renewed certificate is accepted", h.isUp)
	s := newScript()
	for range 3 {
		s.addScan("TCP", nthAddress(1))
	}
	h.server.Broadcast(s.b)
	h.waitUntil("an attacker is banned", func() bool { return h.inKernel(singlePrefix(nthAddress(1))) })
	h.stopDaemon()
}

// testWrongClock is an Asterisk whose clock is stepped back an hour, and forward a day: only the lag depends on it.
func testWrongClock(t *testing.T) {
	h := newHost(t, "policy: {honeypots: [trap]}\n")
	h.startAndAwait()
	phone := netip.MustParseAddr("100.64.0.1")
	for i, step := range []time.Duration{0, -time.Hour, 24 * time.Hour} {
		s := newScript()
		s.at = eventTime(time.Now().Add(step))
		s.addLogin("UDP", phone, "201")
		for range 4 {
			s.addGuess("UDP", phone, "201")
		}
		s.addTrapped("TCP", nthAddress(i))
		h.server.Broadcast(s.b)
		h.waitUntil("an attacker is banned", func() bool { return h.inKernel(singlePrefix(nthAddress(i))) })
		if e := h.kernelBans()[singlePrefix(nthAddress(i))]; e.Timeout > time.Hour || e.Remaining < 50*time.Minute {
			t.Errorf("Asterisk's clock off by %v: banned for %v, %v left", step, e.Timeout, e.Remaining)
		}
		x, err := h.client.Why(t.Context(), phone)
		if err != nil || x.Trust == nil || x.Ban != nil || x.Trust.Left > 24*60*60 {
			t.Errorf("Asterisk's clock off by %v: the phone: %+v, %v", step, x, err)
		}
	}
	if lag := h.daemonStatus().PBXs[0].Lag; lag < 0 {
		t.Errorf("a lag of %v s", lag)
	}
	h.stopDaemon()
}

// testConfigurationMistake is a configuration that cannot work: the program says where, and ends.
func testConfigurationMistake(t *testing.T) {
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

func (a *authority) issueCertificate(t *testing.T, from, to time.Time) *tls.Certificate {
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
