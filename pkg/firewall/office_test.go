package firewall

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func metered(c *Config) {
	c.Meter = Meter{Enabled: true, Rate: DefaultMeterRate, Burst: DefaultMeterBurst}
	c.TCPPorts = append(c.TCPPorts, 5061)
}

// Of a burst of guesses Asterisk sees what the meter lets through before a ban can be made.
func TestOfABurstOfGuessesFewPass(t *testing.T) {
	for _, ports := range []int{1, 500} {
		t.Run(fmt.Sprintf("%d ports", ports), func(t *testing.T) {
			w := newWire(t, metered)
			guess := bytes.Repeat([]byte("REGISTER sip:pbx SIP/2.0\r\n"), 20)
			server := w.listenUDP(t, 5060)
			var clients []*net.UDPConn
			for range ports {
				clients = append(clients, w.dialUDP(t, "10.99.0.66:0", 5060))
			}
			begun := time.Now()
			for i := range 5000 {
				if _, err := clients[i%ports].Write(guess); err != nil {
					t.Fatal(err)
				}
			}
			took := time.Since(begun)
			passed := 0
			for buf := make([]byte, 2048); ; passed++ {
				_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := server.Read(buf); err != nil {
					break
				}
			}
			t.Logf("%d of 5000 guesses passed, sent in %s", passed, took)
			most := DefaultMeterBurst + int(took.Seconds()*DefaultMeterRate) + 1
			if passed < DefaultMeterBurst || passed > most || took < 100*time.Millisecond && passed > 150 {
				t.Errorf("%d passed, want %d to %d", passed, DefaultMeterBurst, most)
			}
		})
	}
}

// A connection carries many guesses in what the meter sees as one packet (generic receive offload), so bytes count.
func TestOfABurstOfGuessesInOneConnectionFewPass(t *testing.T) {
	w := newWire(t, metered)
	client, server, _ := w.dialFrom(t, "10.99.0.66:7001", 5060)
	defer func() { _ = client.Close(); _ = server.Close() }()
	guess := []byte("REGISTER sip:pbx SIP/2.0\r\n" + strings.Repeat("x", 322) + "\r\n") // short: 350 bytes
	begun := time.Now()
	go func() { _, _ = client.Write(bytes.Repeat(guess, 5000)) }()
	_ = server.SetReadDeadline(begun.Add(100 * time.Millisecond))
	n, _ := io.Copy(io.Discard, server)
	took := time.Since(begun)
	t.Logf("%d of 5000 guesses passed in %s", n/350, took)
	if most := int64(meterBytes * DefaultMeterBurst * (1 + took.Seconds())); n > most || n == 0 {
		t.Errorf("%d bytes passed, want %d at most", n, most)
	}
}

func (w *wire) listenUDP(t *testing.T, port uint16) (server *net.UDPConn) {
	t.Helper()
	err := w.server.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(serverAddr("10.99.0.66"), port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadBuffer(8 << 20)
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func (w *wire) dialUDP(t *testing.T, source string, port uint16) (client *net.UDPConn) {
	t.Helper()
	err := w.client.Do(func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(source)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(serverAddr("10.99.0.66"), port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// registrar answers as Asterisk does, with a challenge and then with a login.
func registrar(request string) (answer string, login bool) {
	if strings.Contains(request, "Authorization") {
		return "200 OK", true
	}
	return "401 Unauthorized", false
}

// Forty phones of an office that nobody knows start at once, behind one address, and all are registered soon: also
// where no login is worth any trust.
func TestAnUnknownOfficeIsRegisteredSoon(t *testing.T) {
	const phones, soon = 40, 20 * time.Second
	for _, transport := range []string{"udp", "tcp", "tls"} {
		for _, trust := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, trust %v", transport, trust), func(t *testing.T) {
				w := newWire(t, metered)
				var first sync.Once
				login := func() {
					if trust { // what the engine does
						first.Do(func() {
							err := w.fw.Apply([]Change{{Kind: Trust, Prefix: pfx("10.99.0.66"), Timeout: time.Hour}})
							if err != nil {
								t.Error(err)
							}
						})
					}
				}
				register := w.office(t, transport, login)
				var all sync.WaitGroup
				var failed atomic.Int32
				begun := time.Now()
				for range phones {
					all.Go(func() {
						if err := register(); err != nil {
							failed.Add(1)
							t.Log(err)
						}
					})
				}
				all.Wait()
				took := time.Since(begun)
				t.Logf("%d phones registered in %s, %d packets dropped", phones-int(failed.Load()), took, w.dropped(t))
				if failed.Load() > 0 || took > soon {
					t.Errorf("%d failed, the last was registered after %s", failed.Load(), took)
				}
			})
		}
	}
}

// office starts a registrar, and returns what one phone does at its start.
func (w *wire) office(t *testing.T, transport string, login func()) (register func() error) {
	var served sync.WaitGroup
	t.Cleanup(served.Wait) // after the connections are closed, which comes later in this function
	if transport == "udp" {
		server := w.listenUDP(t, 5060)
		served.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := server.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				answer, ok := registrar(string(buf[:n]))
				if ok {
					login()
				}
				_, _ = server.WriteToUDPAddrPort([]byte(answer), from)
			}
		})
		return func() error {
			client := w.dialUDP(t, "10.99.0.66:0", 5060)
			for _, request := range []string{"REGISTER", "REGISTER\r\nAuthorization: Digest"} {
				want, _ := registrar(request)
				if err := ask(client, request, want); err != nil {
					return err
				}
			}
			return nil
		}
	}
	port := uint16(5060)
	if transport == "tls" {
		port = 5061
	}
	l, err := w.server.Listen(t.Context(), "tcp", netip.AddrPortFrom(serverAddr("10.99.0.66"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if transport == "tls" {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	}
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer func() { _ = c.Close() }()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					answer, ok := registrar(lines.Text())
					if ok {
						login()
					}
					_, _ = io.WriteString(c, answer+"\n")
				}
			})
		}
	})
	return func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 99, 0, 66)}, Timeout: patience}
		c, err := w.client.Dial(t.Context(), d, "tcp", l.Addr().String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		if transport == "tls" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		answers := bufio.NewScanner(c)
		for _, request := range []string{"REGISTER", "REGISTER Authorization: Digest"} {
			want, _ := registrar(request)
			if _, err := io.WriteString(c, request+"\n"); err != nil {
				return err
			}
			if !answers.Scan() || answers.Text() != want {
				return fmt.Errorf("%q: %q, %w", request, answers.Text(), answers.Err())
			}
		}
		return nil
	}
}

// A forger has used up what knocks for an address, and goes on; its phone gets in all the same, since each port has a
// share of its own. deploy/docs/security.md says how long it takes beside forgers who send more.
func TestAPhoneGetsInBesideAForger(t *testing.T) {
	t.Parallel()
	w := ladderWire(t, nil)
	register := w.office(t, "udp", func() {})
	apply(t, w.fw, closing("10.99.0.66", CloseUDPKnock))
	forge := func() {
		c := w.dialUDP(t, "10.99.0.66:0", 5060)
		if _, err := c.Write([]byte("forged")); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		forge()
	}
	in := make(chan error, 1)
	begun := time.Now()
	go func() { in <- register() }()
	for {
		select {
		case err := <-in:
			t.Logf("registered after %s, %d packets dropped", time.Since(begun), w.dropped(t))
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(10 * time.Second):
			forge()
		}
	}
}

// ask sends a request again and again until it is answered (RFC 3261 section 17.1.2.2: T1 is 0.5 s, T2 is 4 s).
func ask(c *net.UDPConn, request, want string) error {
	buf := make([]byte, 2048)
	begun := time.Now()
	for wait := 500 * time.Millisecond; time.Since(begun) < 32*time.Second; wait = min(2*wait, 4*time.Second) {
		if _, err := c.Write([]byte(request)); err != nil {
			return err
		}
		for end := time.Now().Add(wait); ; {
			_ = c.SetReadDeadline(end)
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if string(buf[:n]) == want { // another one is a late answer to what was sent twice
				return nil
			}
		}
	}
	return fmt.Errorf("no answer to %q", request)
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, who, who, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
