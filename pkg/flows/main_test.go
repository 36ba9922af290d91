package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netspace"
	"github.com/ringwall/ringwall/pkg/netspace/netspacetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long the kernel may take on a slow machine.
const patience = 2 * time.Minute

// space is a network namespace of a test's own.
type space struct{ *netspace.Space }

func newSpace(t testing.TB) space { return space{netspacetest.New(t)} }

// nft runs a script in the namespace and returns what it printed.
func (s space) nft(t testing.TB, script string) string {
	t.Helper()
	return netspacetest.NFT(t, s.Space, script)
}

// timeout sets one of conntrack's timeouts, in seconds.
func (s space) timeout(t testing.TB, name string, seconds int) {
	t.Helper()
	err := s.Do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_"+name, []byte(strconv.Itoa(seconds)), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wire is a server whose connections are tracked, and a client, with a cable
// between them.
type wire struct {
	server, client space
}

// The client's addresses; the server is 10.99.0.1 and fd99::1.
const (
	server4, server6 = "10.99.0.1", "fd99::1"
	client4, client6 = "10.99.0.66", "fd99::66"
	other4           = "10.99.7.5"
)

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{server: newSpace(t), client: newSpace(t)}
	netspacetest.Cable(t, w.server.Space, w.client.Space,
		[]string{server4 + "/16", server6 + "/48"}, []string{client4 + "/16", other4 + "/16", client6 + "/48"})
	// A rule that asks for the state is what turns tracking on.
	w.server.nft(t, `table inet tracking {
		chain in { type filter hook prerouting priority -150; ct state established counter; }
	}`)
	return w
}

// flows lists the table of the server with the library's own parser.
func (w *wire) flows(t testing.TB) []*netlink.ConntrackFlow {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(w.server.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var all []*netlink.ConntrackFlow
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		list, err := h.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// names lists the flows as "protocol source>port", from the side that began.
func (w *wire) names(t testing.TB) map[string]bool {
	t.Helper()
	m := make(map[string]bool)
	for _, f := range w.flows(t) {
		m[fmt.Sprintf("%d %s>%d", f.Forward.Protocol, f.Forward.SrcIP, f.Forward.DstPort)] = true
	}
	return m
}

func (w *wire) wantNames(t testing.TB, want ...string) {
	t.Helper()
	got := w.names(t)
	ok := len(got) == len(want)
	for _, n := range want {
		ok = ok && got[n]
	}
	if !ok {
		t.Errorf("flows %v, want %v", got, want)
	}
}

// echoUDP answers each datagram until the test ends.
func (s space) echoUDP(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c := s.listenUDP(t, addr)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c
}

func (s space) listenUDP(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := s.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a datagram and waits for what it is answered with.
func ask(t testing.TB, c *net.UDPConn, to string) {
	t.Helper()
	if !answered(t, c, to, patience) {
		t.Fatalf("no answer from %s", to)
	}
}

func answered(t testing.TB, c *net.UDPConn, to string, wait time.Duration) bool {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte("OPTIONS"), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, _, err := c.ReadFromUDPAddrPort(make([]byte, 64))
	return err == nil
}

// session is a TCP connection of which both ends are held.
type session struct{ client, server net.Conn }

func (w *wire) connect(t testing.TB, from, to string) session {
	t.Helper()
	var s session
	l, err := w.server.Listen(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), Timeout: patience}
	if s.client, err = w.client.Dial(t.Context(), d, "tcp", to); err == nil {
		s.server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Close(); _ = s.server.Close() })
	s.exchange(t)
	return s
}

func (s session) exchange(t testing.TB) {
	t.Helper()
	for _, way := range [][2]net.Conn{{s.client, s.server}, {s.server, s.client}} {
		_ = way[1].SetReadDeadline(time.Now().Add(patience))
		if _, err := way[0].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := way[1].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// forge sends UDP datagrams with any source to the server.
type forge struct {
	fd int
	to unix.SockaddrInet4
	b  []byte
}

func (w *wire) forge(t testing.TB) *forge {
	t.Helper()
	f := &forge{to: unix.SockaddrInet4{Addr: netip.MustParseAddr(server4).As4()}, b: make([]byte, 32)}
	err := w.client.Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(f.fd) })
	f.b[0], f.b[8], f.b[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(f.b[16:], f.to.Addr[:])
	return f
}

// send sends one datagram without a checksum, which IPv4 permits (RFC 768).
func (f *forge) send(t testing.TB, from netip.Addr, sport, dport uint16) {
	t.Helper()
	a := from.As4()
	copy(f.b[12:], a[:])
	binary.BigEndian.PutUint16(f.b[20:], sport)
	binary.BigEndian.PutUint16(f.b[22:], dport)
	binary.BigEndian.PutUint16(f.b[24:], uint16(len(f.b)-20))
	for {
		switch err := unix.Sendto(f.fd, f.b, 0, &f.to); err {
		case nil:
			return
		case unix.EINTR, unix.ENOBUFS:
		default:
			t.Fatal(err)
		}
	}
}

// fill makes n flows from other sources, and returns when they are tracked.
func (w *wire) fill(t testing.TB, n int, source func(i int) (netip.Addr, uint16), dport uint16) {
	t.Helper()
	// Somebody must listen, or each packet is answered with an error.
	defer w.server.listenUDP(t, fmt.Sprintf("%s:%d", server4, dport)).Close()
	f := w.forge(t)
	// The first one waits for ARP, where only a few packets find room.
	f.send(t, netip.MustParseAddr(client4), 9, 9)
	if err := eventually(func() bool { return w.count(t) > 0 }); err != nil {
		t.Fatal(err)
	}
	before := w.count(t)
	for end := time.Now().Add(patience); w.count(t) < before+n; {
		// A busy machine may lose some: they are sent until all are tracked.
		for i := range n {
			a, port := source(i)
			f.send(t, a, port, dport)
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d flows are tracked", w.count(t)-before, n)
		}
	}
}

// count asks the kernel how many flows it tracks.
func (w *wire) count(t testing.TB) (n int) {
	t.Helper()
	var out []byte
	err := w.server.Do(func() (err error) {
		out, err = os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if _, err := fmt.Sscanf(lines[len(lines)-1], "%x", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(ok func() bool) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("it did not come about")
		}
	}
}
