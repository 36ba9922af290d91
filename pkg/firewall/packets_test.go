package firewall

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// patience is how long a packet may take on a slow machine.
const patience = 2 * time.Minute

// wire is two namespaces with a cable between them: packets on it are real.
type wire struct {
	server, client space
	fw             *Table
	seq            int
}

// The client's addresses; the server is 10.99.0.1 and fd99::1.
var clientAddrs = []string{"10.99.0.66/16", "10.99.7.5/16", "10.99.7.6/16", "10.99.0.99/16", "fd99::66/48",
	"fd99:0:0:7::5/48", "fd99:0:0:7::6/48"}

func newWire(t *testing.T, change func(*Config)) *wire {
	t.Helper()
	w := &wire{server: newSpace(t), client: newSpace(t)}
	netnstest.Connect(t, w.server.Space, w.client.Space, []string{"10.99.0.1/16", "fd99::1/48"}, clientAddrs)
	cfg := testConfig(w.server)
	if change != nil {
		change(&cfg)
	}
	w.fw = ensured(t, cfg)
	return w
}

func serverAddr(src string) netip.Addr {
	if netip.MustParseAddr(src).Is6() {
		return netip.MustParseAddr("fd99::1")
	}
	return netip.MustParseAddr("10.99.0.1")
}

// udp opens both ends of a flow.
func (w *wire) udp(t *testing.T, src string, port uint16) (client *net.UDPConn, server *net.UDPConn) {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(serverAddr(src), port))
	err := w.server.Do(func() (err error) {
		server, err = net.ListenUDP("udp", to)
		return err
	})
	err2 := w.client.Do(func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(src), 0)), to)
		return err
	})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func (w *wire) dropped(t *testing.T) uint64 {
	t.Helper()
	drops, err := w.fw.DroppedPackets()
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, d := range drops {
		n += d
	}
	return n
}

// arrives sends one datagram and waits until it has come or was dropped.
func (w *wire) arrives(t *testing.T, client, server *net.UDPConn, size int) bool {
	t.Helper()
	w.seq++
	msg := fmt.Appendf(nil, "%0*d", size, w.seq)
	before := w.dropped(t)
	if _, err := client.Write(msg); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_ = server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, err := server.Read(buf)
		if err == nil && string(buf[:n]) == string(msg) {
			return true
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if err != nil && w.dropped(t) > before {
			return false
		}
	}
	t.Fatal("the packet neither came nor was dropped")
	return false
}

// keepsOut fails if a packet of a banned source gets through while something is done to the table.
func (w *wire) keepsOut(t *testing.T, do func()) {
	t.Helper()
	apply(t, w.fw, ban("10.99.0.66", time.Hour))
	client, server := w.udp(t, "10.99.0.66", 5060)
	if sendsInVain(t, client, server, do) == 0 {
		t.Fatal("nothing was sent")
	}
}

// sendsInVain fails if a packet gets through while something is done to the table, and returns how many were sent.
func sendsInVain(t *testing.T, client, server *net.UDPConn, do func()) (sent int) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := client.Write([]byte("OPTIONS")); err == nil {
					sent++
				}
			}
		}
	}()
	do()
	close(stop)
	<-done
	_ = server.SetReadDeadline(time.Now())
	if n, err := server.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a banned source got through: %d bytes, %v", n, err)
	}
	return sent
}

func (w *wire) reaches(t *testing.T, src string, port uint16) bool {
	t.Helper()
	client, server := w.udp(t, src, port)
	defer func() { _ = client.Close(); _ = server.Close() }()
	return w.arrives(t, client, server, 20)
}

func TestPacketsOfBannedSources(t *testing.T) {
	w := newWire(t, nil)
	hour := time.Hour
	rows := []struct {
		name    string
		changes []Change
		src     string
		sip     bool // its packets to port 5060 arrive
	}{
		{"nobody is banned", nil, "10.99.0.66", true},
		{"an address", []Change{ban("10.99.0.66", hour)}, "10.99.0.66", false},
		{"another address", []Change{ban("10.99.0.66", hour)}, "10.99.7.5", true},
		{"its /24", []Change{ban("10.99.7.0/24", hour)}, "10.99.7.5", false},
		{"another /24", []Change{ban("10.99.7.0/24", hour)}, "10.99.0.66", true},
		{"its /21", []Change{ban("10.99.0.0/21", hour)}, "10.99.7.5", false},
		{"a range that ends before it", []Change{ban("10.99.7.0/30", hour)}, "10.99.7.5", true},
		{"the last addresses of all", []Change{ban("255.0.0.0/8", hour)}, "10.99.7.5", true},
		{"allowed inside a banned /24", []Change{ban("10.99.7.0/24", hour), {Kind: Allow, Prefix: pfx("10.99.7.5")}},
			"10.99.7.5", true},
		{"the neighbour of the allowed", []Change{ban("10.99.7.0/24", hour), {Kind: Allow, Prefix: pfx("10.99.7.5")}},
			"10.99.7.6", false},
		{"an IPv6 address", []Change{ban("fd99::66", hour)}, "fd99::66", false},
		{"its /64", []Change{ban("fd99:0:0:7::99/64", hour)}, "fd99:0:0:7::5", false},
		{"another /64", []Change{ban("fd99:0:0:7::99/64", hour)}, "fd99::66", true},
		{"its /47", []Change{ban("fd99::/47", hour)}, "fd99:0:0:7::5", false},
		{"allowed inside a banned /64", []Change{ban("fd99:0:0:7::/64", hour),
			{Kind: Allow, Prefix: pfx("fd99:0:0:7::5")}},
			"fd99:0:0:7::5", true},
		{"unbanned", []Change{ban("10.99.0.66", hour), unban("10.99.0.66")}, "10.99.0.66", true},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, c := range r.changes {
				apply(t, w.fw, c)
			}
			if got := w.reaches(t, r.src, 5060); got != r.sip {
				t.Errorf("to 5060: arrives %v", got)
			}
			if !w.reaches(t, r.src, 53) {
				t.Error("to 53: dropped, in scope voip")
			}
			for _, c := range r.changes {
				c.Remove = true
				apply(t, w.fw, c)
			}
			if !w.reaches(t, r.src, 5060) {
				t.Error("still dropped after the removal")
			}
		})
	}
}

func TestScopeAllAndEmptyPortLists(t *testing.T) {
	for _, r := range []struct {
		name     string
		change   func(*Config)
		sip, dns bool
	}{
		{"all", func(c *Config) { c.Scope = All }, false, false},
		{"all without ports", func(c *Config) { c.Scope, c.UDPPorts, c.TCPPorts = All, nil, nil }, false, false},
		{"voip without UDP ports", func(c *Config) { c.UDPPorts = nil }, true, true},
		{"voip without TCP ports", func(c *Config) { c.TCPPorts = nil }, false, true},
		{"voip without ports", func(c *Config) { c.UDPPorts, c.TCPPorts = nil, nil }, true, true},
		{"the same port twice", func(c *Config) { c.UDPPorts = []uint16{5060, 5060} }, false, true},
	} {
		t.Run(r.name, func(t *testing.T) {
			w := newWire(t, r.change)
			apply(t, w.fw, ban("10.99.0.66", time.Hour))
			if got := w.reaches(t, "10.99.0.66", 5060); got != r.sip {
				t.Errorf("to 5060: arrives %v", got)
			}
			if got := w.reaches(t, "10.99.0.66", 53); got != r.dns {
				t.Errorf("to 53: arrives %v", got)
			}
		})
	}
}

// What a ban means for a call that is up, as deploy/docs/security.md says it: the signalling ends, BYE too; audio
// only where the whole source is shut out.
func TestACallThatIsUpLosesItsSignalling(t *testing.T) {
	for scope, audio := range map[Scope]bool{VoIP: true, All: false} {
		w := newWire(t, func(c *Config) { c.Scope = scope })
		sip, sipServer := w.udp(t, "10.99.0.66", 5060)
		rtp, rtpServer := w.udp(t, "10.99.0.66", 10_000)
		if !w.arrives(t, sip, sipServer, 400) || !w.arrives(t, rtp, rtpServer, 172) {
			t.Fatal("there is no call")
		}
		apply(t, w.fw, ban("10.99.0.66", time.Hour))
		if w.arrives(t, sip, sipServer, 400) {
			t.Errorf("scope %v: a BYE arrives", scope)
		}
		if got := w.arrives(t, rtp, rtpServer, 172); got != audio {
			t.Errorf("scope %v: audio arrives: %v", scope, got)
		}
	}
}

func TestFragmentsToOtherServicesPass(t *testing.T) {
	w := newWire(t, nil)
	for _, src := range []string{"10.99.0.66", "fd99::66"} {
		apply(t, w.fw, ban(src, time.Hour))
		client, server := w.udp(t, src, 500)
		if !w.arrives(t, client, server, 6000) {
			t.Errorf("%s: a datagram in fragments to port 500 was dropped", src)
		}
		client, server = w.udp(t, src, 5060)
		if w.arrives(t, client, server, 6000) {
			t.Errorf("%s: a datagram in fragments to port 5060 arrived", src)
		}
	}
}

func TestEstablishedFlowsStop(t *testing.T) {
	w := newWire(t, nil)
	// UDP, in both directions first, so that conntrack would know it.
	client, server := w.udp(t, "10.99.0.66", 5060)
	if !w.arrives(t, client, server, 20) {
		t.Fatal("before the ban")
	}
	if _, err := server.WriteToUDP([]byte("ok"), client.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	sip, sipServer := w.tcp(t, 5038)
	ssh, sshServer := w.tcp(t, 22)
	apply(t, w.fw, ban("10.99.0.66", time.Hour))
	if w.arrives(t, client, server, 20) {
		t.Error("UDP goes on")
	}
	before := w.dropped(t)
	if _, err := sip.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); w.dropped(t) == before; {
		if time.Now().After(end) {
			t.Fatal("TCP goes on")
		}
		time.Sleep(time.Millisecond)
	}
	echo(t, ssh, sshServer)
	apply(t, w.fw, unban("10.99.0.66"))
	buf := make([]byte, 4) // TCP sends it again by itself
	_ = sipServer.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(sipServer, buf); err != nil || string(buf) != "late" {
		t.Errorf("after the unban: %q, %v", buf, err)
	}
}

// tcp opens a connection from the attacker.
func (w *wire) tcp(t *testing.T, port int) (client, server net.Conn) {
	t.Helper()
	l, err := w.server.Listen(t.Context(), "tcp", fmt.Sprintf("10.99.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 99, 0, 66)}, Timeout: patience}
	client, err = w.client.Dial(t.Context(), d, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func echo(t *testing.T, a, b net.Conn) {
	t.Helper()
	if _, err := a.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	_ = b.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(b, buf); err != nil {
		t.Errorf("the SSH session hangs: %v", err)
	}
}

func TestMeterSparesTheTrustedAndTheAllowed(t *testing.T) {
	t.Parallel()
	for _, scope := range []Scope{VoIP, All} {
		t.Run(scope.String(), func(t *testing.T) {
			w := newWire(t, func(c *Config) {
				c.Scope = scope
				c.Meter = Meter{Enabled: true, Rate: 1, Burst: 5}
			})
			apply(t, w.fw, Change{Kind: Trust, Prefix: pfx("10.99.7.5"), Timeout: time.Hour},
				Change{Kind: Trust, Prefix: pfx("fd99:0:0:7::1234"), Timeout: time.Hour},
				Change{Kind: Allow, Prefix: pfx("10.99.7.6")})
			for _, r := range []struct {
				src     string
				port    uint16
				limited bool
			}{
				{"10.99.0.66", 5060, true}, {"fd99::66", 5060, true}, {"10.99.0.66", 10000, false},
				{"10.99.7.5", 5060, false}, {"10.99.7.6", 5060, false}, {"fd99:0:0:7::5", 5060, false},
			} {
				client, server := w.udp(t, r.src, r.port)
				came := 0
				for range 30 {
					if w.arrives(t, client, server, 20) {
						came++
					}
				}
				_ = client.Close()
				_ = server.Close()
				if r.limited != (came < 30) || came == 0 {
					t.Errorf("%s to %d: %d of 30 packets came", r.src, r.port, came)
				}
			}
			drops, err := w.fw.DroppedPackets()
			if err != nil || drops["meter4"] == 0 || drops["meter6"] == 0 || drops["ban4"] != 0 {
				t.Errorf("drops %v, %v", drops, err)
			}
		})
	}
}

func TestDropCountersGoOnAfterAdoption(t *testing.T) {
	w := newWire(t, nil)
	apply(t, w.fw, ban("10.99.0.66", time.Hour))
	for range 3 {
		w.reaches(t, "10.99.0.66", 5060)
	}
	ensure(t, w.fw, Adopted)
	w.reaches(t, "10.99.0.66", 5060)
	if drops, err := w.fw.DroppedPackets(); err != nil || drops["ban4"] != 4 || drops["ban6"] != 0 {
		t.Errorf("%v, %v", drops, err)
	}
}

// TestNothingSlipsThrough floods from a banned source while its ban is renewed in every way there is but a
// migration.
func TestNothingSlipsThrough(t *testing.T) {
	w := newWire(t, nil)
	apply(t, w.fw, ban("10.99.0.66", time.Hour), ban("10.99.0.0/16", time.Minute))
	client, server := w.udp(t, "10.99.0.66", 5060)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = client.Write([]byte("late")) // an error is a full queue
			}
		}
	}()
	end := func() {
		select {
		case <-stop:
		default:
			close(stop)
		}
		<-ended
	}
	defer end()
	fw := w.fw
	for i := range 100 {
		d := time.Duration(i+1) * time.Hour
		if i%2 == 0 { // the net alone holds it, then the address alone
			apply(t, fw, ban("10.99.0.0/16", d), unban("10.99.0.66"))
			apply(t, fw, ban("10.99.0.64/27", d/2), ban("10.99.0.0/16", 2*d))
		} else {
			apply(t, fw, ban("10.99.0.66", d))
			apply(t, fw, unban("10.99.0.0/16"), ban("10.99.0.66", 2*d))
		}
		if i%10 == 0 {
			ensure(t, fw, Adopted)
		}
	}
	end()
	_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := server.Read(make([]byte, 10)); err == nil {
		t.Errorf("a packet of %d bytes slipped through", n)
	}
	if w.dropped(t) == 0 {
		t.Error("no packet was dropped, so nothing was tested")
	}
	apply(t, fw, unban("10.99.0.66"), unban("10.99.0.64/27"), unban("10.99.0.0/16"))
	if !w.arrives(t, client, server, 20) {
		t.Error("after the unban")
	}
}
