package ami

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/hint"
)

const secret = "s3cret-that-appears-nowhere"

// listen opens a loopback listener.
func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// asterisk starts an amiserver and returns it with its address.
func asterisk(t *testing.T, cfg amiserver.Config) (*amiserver.Server, string) {
	t.Helper()
	if cfg.Users == nil {
		cfg.Users = []amiserver.User{{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity}}
	}
	cfg.AuthDelay = -1
	srv, ln := amiserver.New(cfg), listen(t)
	serve(t, srv, ln)
	return srv, ln.Addr().String()
}

func serve(t *testing.T, srv *amiserver.Server, ln net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// scripted starts a server that runs script on every connection.
func scripted(t *testing.T, script func(net.Conn)) string {
	t.Helper()
	ln := listen(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				script(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, nc := range conns {
			_ = nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// readAction reads one action off a scripted connection.
func readAction(r *bufio.Reader) (action, id string, ok bool) {
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			return "", "", false
		}
		switch name, value, _ := strings.Cut(strings.TrimSpace(text), ": "); {
		case name == "Action":
			action = value
		case name == "ActionID":
			id = value
		case name == "":
			return action, id, true
		}
	}
}

// greet plays a successful login, and after its reply sends extra in the same write.
func greet(nc net.Conn, extra string) (*bufio.Reader, bool) {
	_, _ = nc.Write([]byte("Asterisk Call Manager/11.0.0\r\n"))
	r := bufio.NewReader(nc)
	for {
		action, id, ok := readAction(r)
		switch {
		case !ok:
			return r, false
		case action == "Challenge":
			_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nChallenge: 123456789\r\n\r\n", id)
		case action == "Login":
			_, err := fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nMessage: Authentication accepted\r\n\r\n%s",
				id, extra)
			return r, err == nil
		}
	}
}

// pong answers Pings until the connection ends.
func pong(nc net.Conn, r *bufio.Reader) {
	for {
		action, id, ok := readAction(r)
		if !ok {
			return
		}
		if action == "Ping" {
			_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nPing: Pong\r\n\r\n", id)
		}
	}
}

// watched is a running session and what it has told.
type watched struct {
	*Session
	t      *testing.T
	stop   func() error
	mu     sync.Mutex
	frames []Frame
	states []State
	change chan struct{}
	order  []string // frames and states, as they came
}

// run starts a session with short times; change may be nil.
func run(t *testing.T, address string, change func(*Config)) *watched {
	t.Helper()
	w := &watched{t: t, change: make(chan struct{}, 1)}
	cfg := Config{
		Name: "pbx1", Address: address, Username: "ringwall", Secret: secret,
		BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		OnFrames: func(frames []Frame) {
			w.note(func() {
				for _, f := range frames {
					f.Text = strings.Clone(f.Text)
					w.frames = append(w.frames, f)
					w.order = append(w.order, f.Text)
				}
			})
		},
		OnState: func(st State) {
			w.note(func() { w.states = append(w.states, st); w.order = append(w.order, st.Kind.String()) })
		},
	}
	if change != nil {
		change(&cfg)
	}
	w.Session = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func (w *watched) note(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	select {
	case w.change <- struct{}{}:
	default:
	}
}

// until waits until cond, called with the lock held, holds.
func (w *watched) until(what string, cond func() bool) {
	w.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		w.mu.Lock()
		ok := cond()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-w.change:
		case <-limit:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("no %s; frames %q, states %+v", what, w.frames, w.states)
		}
	}
}

// state waits for the n-th state of a kind.
func (w *watched) state(kind StateKind, n int) (found State) {
	w.t.Helper()
	w.until(fmt.Sprintf("state %s number %d", kind, n), func() bool {
		left := n
		for _, st := range w.states {
			if st.Kind == kind {
				if left--; left == 0 {
					found = st
					return true
				}
			}
		}
		return false
	})
	return found
}

// frame waits for a frame that contains text.
func (w *watched) frame(text string) (found Frame) {
	w.t.Helper()
	w.until(fmt.Sprintf("frame with %q", text), func() bool {
		for _, f := range w.frames {
			if strings.Contains(f.Text, text) {
				found = f
				return true
			}
		}
		return false
	})
	return found
}

func TestSessionLogsInAndReceives(t *testing.T) {
	certs := newAuthority(t)
	for _, tt := range []struct {
		name string
		auth Auth
		tls  bool
	}{{"md5", MD5, false}, {"plain", Plain, false}, {"md5 over TLS", MD5, true}, {"plain over TLS", Plain, true}} {
		t.Run(tt.name, func(t *testing.T) {
			var conf amiserver.Config
			if tt.tls {
				conf.TLS = certs.server(t, "127.0.0.1", time.Now().Add(time.Hour))
			}
			srv, address := asterisk(t, conf)
			before := time.Now()
			w := run(t, address, func(c *Config) {
				c.Auth = tt.auth
				if tt.tls {
					c.TLS = &tls.Config{RootCAs: certs.pool}
				}
			})
			up := w.state(Connected, 1)
			if !up.First || up.Blind < 0 || up.Banner != "Asterisk Call Manager/11.0.0" || up.Err != nil ||
				!up.Local.IsValid() {
				t.Errorf("state %+v", up)
			}
			own := w.frame("Event: SuccessfulAuth\r\n")
			if !strings.Contains(own.Text, fmt.Sprintf("/127.0.0.1/%d\r\n", up.Local.Port())) {
				t.Errorf("the session's own event names another address than %v: %q", up.Local, own.Text)
			}
			w.state(Granted, 1)
			for i := range 2000 {
				if n := srv.Broadcast(fmt.Appendf(nil,
					"Event: InvalidAccountID\r\nPrivilege: security,all\r\nN: %d\r\n\r\n", i)); n != 1 {
					t.Fatalf("%d subscribers", n)
				}
			}
			w.frame("N: 1999")
			for i, f := range w.frames[1:] {
				if want := fmt.Sprintf("Event: InvalidAccountID\r\nPrivilege: security,all\r\nN: %d",
					i); f.Text != want || f.Received.Before(before) {
					t.Fatalf("frame %d is %q of %v", i, f.Text, f.Received)
				}
			}
			st := w.Status()
			if !st.Up || st.Security != SecurityGranted || st.Local != up.Local || st.Reconnects != 0 ||
				st.Received != 2001 || st.LastError != "" || st.Banner == "" {
				t.Errorf("status %+v", st)
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
			if st := w.Status(); st.Up || st.Local != (netip.AddrPort{}) {
				t.Errorf("status after the end %+v", st)
			}
		})
	}
}

func TestPingMeasuresTheLine(t *testing.T) {
	_, address := asterisk(t, amiserver.Config{})
	w := run(t, address, func(c *Config) { c.PingInterval = time.Millisecond })
	w.state(Granted, 1)
	for deadline := time.Now().Add(2 * time.Minute); w.Status().RTT == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no round trip")
		}
		if _, err := w.Action(t.Context(), "Ping"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSessionReconnectsAndTellsTheGap(t *testing.T) {
	srv, address := asterisk(t, amiserver.Config{})
	w := run(t, address, nil)
	w.state(Granted, 1)
	srv.Disconnect()
	down := w.state(Disconnected, 1)
	if !errors.Is(down.Err, ErrClosed) || down.Retry <= 0 ||
		!strings.Contains(hint.Of(down.Err), "writetimeout = 5000") {
		t.Errorf("state %+v, hint %q", down, hint.Of(down.Err))
	}
	up := w.state(Connected, 2)
	if up.First || up.Blind <= 0 || !errors.Is(up.Err, ErrClosed) {
		t.Errorf("state %+v", up)
	}
	w.state(Granted, 2)
	if st := w.Status(); !st.Up || st.Reconnects != 1 || st.LastError == "" {
		t.Errorf("status %+v", st)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// Each connection's frames lie between its own states.
	var kinds []string
	for _, o := range w.order {
		if word := strings.Fields(o)[0]; word != "granted" {
			kinds = append(kinds, word)
		}
	}
	if got, want := strings.Join(kinds, " "), "connected Event: disconnected connected Event:"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestServerThatComesLaterIsFound(t *testing.T) {
	// An address of its own, so that nobody takes the port meanwhile.
	ln, err := net.Listen("tcp", "127.83.12.7:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	_ = ln.Close()
	w := run(t, address, nil)
	failed := w.state(Failed, 2)
	if !errors.Is(failed.Err, ErrRefused) {
		t.Errorf("%v", failed.Err)
	}
	if ln, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	serve(t, amiserver.New(amiserver.Config{Users: []amiserver.User{{Name: "ringwall", Secret: secret,
		Read: amiserver.ClassAll}}}), ln)
	if up := w.state(Connected, 1); !up.First {
		t.Errorf("state %+v", up)
	}
}

func TestMissingPrivilegeIsReportedAndRechecked(t *testing.T) {
	_, address := asterisk(t, amiserver.Config{Users: []amiserver.User{{Name: "ringwall", Secret: secret,
		Read: amiserver.ClassSystem | amiserver.ClassCall}}})
	w := run(t, address, func(c *Config) {
		c.EventMask = "security,system"
		c.ProofTimeout, c.RecheckInterval = time.Millisecond, 50*time.Millisecond
	})
	st := w.state(Unproven, 1)
	if !errors.Is(st.Err, ErrNoPrivilege) || !strings.Contains(hint.Of(st.Err), "[ringwall]\nread = security\n") {
		t.Errorf("%v, hint %q", st.Err, hint.Of(st.Err))
	}
	w.frame("Event: FullyBooted")
	w.state(Connected, 2) // a new login is the only way to see a mended manager.conf
	if err := w.state(Disconnected, 1).Err; !errors.Is(err, ErrNoPrivilege) {
		t.Errorf("%v", err)
	}
}

// Whoever has mended manager.conf need not wait for the next look.
func TestRetryLogsInAgainWhereNoEventsCome(t *testing.T) {
	_, address := asterisk(t, amiserver.Config{Users: []amiserver.User{{Name: "ringwall", Secret: secret,
		Read: amiserver.ClassSystem}}})
	w := run(t, address, func(c *Config) { c.ProofTimeout, c.RecheckInterval = time.Millisecond, time.Hour })
	w.state(Unproven, 1)
	w.Retry()
	w.state(Connected, 2)
	if err := w.state(Disconnected, 1).Err; !errors.Is(err, ErrRelogin) {
		t.Errorf("%v", err)
	}
}

func TestRetryLeavesAGoodSessionAlone(t *testing.T) {
	srv, address := asterisk(t, amiserver.Config{})
	w := run(t, address, nil)
	w.state(Granted, 1)
	w.Retry()
	if _, err := w.Action(t.Context(), "Ping"); err != nil {
		t.Error(err)
	}
	srv.Broadcast([]byte("Event: InvalidAccountID\r\nPrivilege: security,all\r\n\r\n"))
	w.frame("InvalidAccountID")
	if n := w.Status().Reconnects; n != 0 {
		t.Errorf("%d new logins", n)
	}
}

func TestLateProofIsAccepted(t *testing.T) {
	sendEvent := make(chan struct{})
	address := scripted(t, func(nc net.Conn) {
		r, ok := greet(nc, "")
		if !ok {
			return
		}
		go func() {
			<-sendEvent
			_, _ = nc.Write([]byte("Event: ChallengeSent\r\nPrivilege: security,all\r\n\r\n"))
		}()
		pong(nc, r)
	})
	w := run(t, address, func(c *Config) { c.ProofTimeout = time.Millisecond })
	w.state(Unproven, 1)
	if got := w.Status().Security; got != SecurityMissing {
		t.Errorf("security %v", got)
	}
	close(sendEvent)
	w.state(Granted, 1)
	if got := w.Status().Security; got != SecurityGranted {
		t.Errorf("security %v", got)
	}
}

func TestLoginReplyTogetherWithTheFirstEvents(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		if r, ok := greet(nc, "Event: SuccessfulAuth\r\nPrivilege: security,all\r\nN: 1\r\n\r\nEvent: Chal"); ok {
			_, _ = nc.Write([]byte("lengeSent\r\nPrivilege: security,all\r\nN: 2\r\n\r"))
			_, _ = nc.Write([]byte("\n"))
			pong(nc, r)
		}
	})
	w := run(t, address, nil)
	w.frame("Event: SuccessfulAuth\r\nPrivilege: security,all\r\nN: 1")
	w.frame("Event: ChallengeSent\r\nPrivilege: security,all\r\nN: 2")
}

// byteByByte sends every byte in a segment of its own.
type byteByByte struct{ net.Conn }

func (c byteByByte) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestLoginSplitIntoSingleBytes(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		_ = nc.(*net.TCPConn).SetNoDelay(true)
		slow := byteByByte{nc}
		if r, ok := greet(slow, "Event: SuccessfulAuth\r\nPrivilege: security,all\r\n\r\n"); ok {
			pong(slow, r)
		}
	})
	w := run(t, address, nil)
	w.state(Granted, 1)
	if _, err := w.Action(t.Context(), "Ping"); err != nil {
		t.Error(err)
	}
}

func TestOversizeFrameIsSkippedNotFatal(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		r, ok := greet(nc, "Event: SuccessfulAuth\r\nPrivilege: security,all\r\n\r\nEvent: "+
			"ChallengeSent\r\nAccountID: ")
		if !ok {
			return
		}
		junk := []byte(strings.Repeat("x", 1<<20))
		for range 10 {
			if _, err := nc.Write(junk); err != nil {
				return
			}
		}
		_, _ = nc.Write([]byte("\r\n\r\nEvent: InvalidAccountID\r\nN: after\r\n\r\n"))
		pong(nc, r)
	})
	w := run(t, address, nil)
	w.frame("N: after")
	if st := w.Status(); st.Oversize != 1 || st.Reconnects != 0 || st.Received != 2 {
		t.Errorf("status %+v", st)
	}
}

func TestHalfAFrameThenReset(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		if _, ok := greet(nc, "Event: SuccessfulAuth\r\nPrivilege: security,all\r\n\r\nEvent: Chall"); ok {
			_ = nc.(*net.TCPConn).SetLinger(0)
		}
	})
	w := run(t, address, nil)
	err := w.state(Disconnected, 1).Err
	if !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	w.state(Connected, 3)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if !strings.HasPrefix(f.Text, "Event: SuccessfulAuth") {
			t.Errorf("half a frame came through: %q", f.Text)
		}
	}
}

func TestSlowHandlerDoesNotStopTheReader(t *testing.T) {
	srv, address := asterisk(t, amiserver.Config{WriteTimeout: 20 * time.Second})
	release := make(chan struct{})
	var once sync.Once
	w := run(t, address, func(c *Config) {
		c.QueueBytes = 256 << 10
		inner := c.OnFrames
		c.OnFrames = func(f []Frame) {
			inner(f)
			<-release
		}
	})
	defer once.Do(func() { close(release) })
	w.frame("SuccessfulAuth")
	const n = 100_000
	ev := []byte("Event: ChallengeSent\r\nPrivilege: security,all\r\n" + strings.Repeat("x", 200) + "\r\n\r\n")
	for range n {
		srv.Broadcast(ev)
	}
	srv.Broadcast([]byte("Event: SuccessfulAuth\r\nPrivilege: security,all\r\nN: last\r\n\r\n"))
	// An action's reply comes after all events: the reader has taken them.
	if _, err := w.Action(t.Context(), "Ping"); err != nil {
		t.Fatal(err)
	}
	st := w.Status()
	if st.Received != n+2 || st.Dropped["ChallengeSent"] == 0 || len(st.Dropped) != 1 || st.QueuePeak > 256<<10 {
		t.Errorf("status %+v", st)
	}
	once.Do(func() { close(release) })
	w.frame("N: last")
}

func BenchmarkSession(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := amiserver.New(amiserver.Config{QueueBytes: math.MaxInt,
		Users: []amiserver.User{{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity}}})
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = srv.Serve(ctx, ln) })
	got, want := 0, make(chan int, 1)
	done := make(chan struct{})
	s := New(Config{Address: ln.Addr().String(), Username: "ringwall", Secret: secret, QueueBytes: 1 << 30,
		OnFrames: func(f []Frame) {
			got += len(f)
			select {
			case n := <-want:
				if got < n {
					want <- n
					return
				}
				close(done)
			default:
			}
		}})
	wg.Go(func() { _ = s.Run(ctx) })
	if err := srv.WaitSubscribers(ctx, 1); err != nil {
		b.Fatal(err)
	}
	ev := []byte(event)
	b.SetBytes(int64(len(ev)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i == b.N-1 {
			want <- b.N // the login's own event makes one more
		}
		srv.Broadcast(ev)
	}
	<-done
}

func TestSecondRunIsRefused(t *testing.T) {
	_, address := asterisk(t, amiserver.Config{})
	w := run(t, address, nil)
	w.state(Connected, 1)
	if err := w.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("%v", err)
	}
}

func TestSecretAppearsNowhere(t *testing.T) {
	var log strings.Builder
	cfg := Config{Address: "127.0.0.1:5038", Username: "ringwall", Secret: secret}
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", cfg)
	text := log.String() + fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg)
	for _, kind := range kindsOfError() {
		e := New(cfg).newError(StageLogin, kind, errors.New("x"), "y")
		text += e.Error() + e.Hint()
	}
	if strings.Contains(text, secret) {
		t.Error(text)
	}
}

// authority signs certificates for one test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key, cert, pool}
}

// server returns a configuration with a certificate for an address or a name.
func (a *authority) server(t *testing.T, host string, notAfter time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: notAfter}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
