package hep

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// sight is what a packet told, kept.
type sight struct {
	source  netip.AddrPort
	payload string
}

// listen runs a listener until the end of the test. What it hands on comes through the channel.
func listen(t *testing.T, c Config) (*Listener, <-chan sight) {
	t.Helper()
	if !c.Listen.IsValid() {
		c.Listen = loopback
	}
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	seen, ended := make(chan sight, 100), make(chan error)
	go func() { ended <- l.Run(func(p *Packet) { seen <- sight{p.Source, string(p.Payload)} }) }()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l, seen
}

func dial(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, packets ...[]byte) {
	t.Helper()
	for _, b := range packets {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenerHandsOnWhatAsteriskSends(t *testing.T) {
	before := time.Now()
	l, seen := listen(t, Config{Password: "secret"})
	if !l.Stats().LastHeard.IsZero() {
		t.Error("heard before anybody spoke")
	}
	conn := dial(t, l.Addr())
	send(t, conn, []byte("SIP/2.0 200 OK\r\n\r\n"), without([]uint16{chunkPassword}),
		without([]uint16{chunkPassword}, text(chunkPassword, "Secret")),
		without([]uint16{chunkPassword}, text(chunkPassword, "secret+")),
		without([]uint16{chunkContent}, with(chunkContent, byte(RTCP))), encode(ordinary()...))
	if got, want := <-seen, (sight{netip.MustParseAddrPort("10.99.0.66:5060"), request}); got != want {
		t.Errorf("%+v", got)
	}
	s := l.Stats()
	if s.Received != 1 || s.Other != 1 || s.Malformed != 1 || s.Rejected != 3 || s.Lost != 0 || s.Forwarded != 0 {
		t.Errorf("%+v", s)
	}
	if s.LastHeard.Before(before) || s.LastHeard.After(time.Now()) {
		t.Errorf("last heard %v", s.LastHeard)
	}
}

func TestListenerWithoutPasswordTakesAny(t *testing.T) {
	l, seen := listen(t, Config{})
	send(t, dial(t, l.Addr()), encode(ordinary()...))
	<-seen
}

func TestListenerOverIPv6(t *testing.T) {
	l, seen := listen(t, Config{Listen: netip.MustParseAddrPort("[::1]:0")})
	send(t, dial(t, l.Addr()), encode(ordinary()...))
	<-seen
}

func TestOpenRefuses(t *testing.T) {
	taken, _ := listen(t, Config{})
	everywhere, near, far := netip.MustParseAddrPort("0.0.0.0:9061"), netip.MustParseAddrPort("127.0.0.1:9061"),
		netip.MustParseAddrPort("192.0.2.1:9061") // of nobody: RFC 5737
	for name, c := range map[string]struct {
		config Config
		text   string
		try    string
	}{
		"no address":            {Config{}, "no address", ""},
		"all addresses":         {Config{Listen: everywhere}, "no password", "capture_password"},
		"all addresses of IPv6": {Config{Listen: netip.MustParseAddrPort("[::]:0")}, "no password", "capture_password"},
		"an address of the net": {Config{Listen: far}, "no password", "127.0.0.1"},
		"one that is not ours":  {Config{Listen: far, Password: "x"}, "cannot listen at 192.0.2.1:9061", ""},
		"one that another has":  {Config{Listen: taken.Addr()}, "another program listens", "ss -ulnp"},
		"itself":                {Config{Listen: near, Forward: near}, "come back", ""},
		"itself, by all":        {Config{Listen: everywhere, Password: "x", Forward: near}, "come back", ""},
	} {
		l, err := Open(c.config)
		if err == nil {
			_ = l.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !strings.Contains(err.Error(), c.text) || !strings.Contains(hint.Of(err), c.try) {
			t.Errorf("%s: %v, try %q", name, err, hint.Of(err))
		}
	}
}

func TestOpenAtAllAddressesWithAPassword(t *testing.T) {
	l, seen := listen(t, Config{Listen: netip.MustParseAddrPort("0.0.0.0:0"), Password: "secret"})
	send(t, dial(t, netip.AddrPortFrom(loopback.Addr(), l.Addr().Port())), encode(ordinary()...))
	<-seen
}

func TestListenerForwardsByteForByte(t *testing.T) {
	homer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer homer.Close()
	l, seen := listen(t, Config{Password: "secret", Forward: homer.LocalAddr().(*net.UDPAddr).AddrPort()})
	rtcp := without([]uint16{chunkContent}, with(chunkContent, byte(RTCP)))
	sip := without(nil, chunk{0x10, 1, []byte("\x00\xff")})
	send(t, dial(t, l.Addr()), []byte("noise"), without([]uint16{chunkPassword}), rtcp, sip)
	<-seen
	b := make([]byte, 1<<16)
	for _, want := range [][]byte{rtcp, sip} {
		n, err := homer.Read(b)
		if err != nil || !slices.Equal(b[:n], want) {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	if s := l.Stats(); s.Forwarded != 2 || s.ForwardLost != 0 {
		t.Errorf("%+v", s)
	}
}

// A Homer that is gone costs its own packets only. The kernel tells of every one by an ICMP error.
func TestListenerHearsWithoutHomer(t *testing.T) {
	gone, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	l, seen := listen(t, Config{Forward: gone.LocalAddr().(*net.UDPAddr).AddrPort()})
	conn := dial(t, l.Addr())
	for range 10 {
		send(t, conn, encode(ordinary()...))
		<-seen
	}
	if s := l.Stats(); s.Received != 10 || s.Forwarded+s.ForwardLost != 10 {
		t.Errorf("%+v", s)
	}
}

// What the kernel drops is counted as soon as another packet comes: all that was sent is received or lost.
func TestListenerCountsWhatIsLost(t *testing.T) {
	l, err := Open(Config{Listen: loopback})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	const sent = 200
	conn := dial(t, l.Addr())
	for range sent { // nobody reads yet, and the buffer holds a few
		send(t, conn, encode(ordinary()...))
	}
	seen, ended := make(chan bool, 2*sent), make(chan error)
	go func() { ended <- l.Run(func(*Packet) { seen <- true }) }()
	// Those that waited are there, and the next packet tells of the others.
	<-seen
	for l.Stats().Lost == 0 {
		send(t, conn, encode(ordinary()...))
		<-seen
	}
	_ = l.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Lost < sent/2 || s.Lost > sent {
		t.Errorf("%d sent without a reader: %+v", sent, s)
	}
}

func TestListenerOpensAnewAtTheSameAddress(t *testing.T) {
	first, err := Open(Config{Listen: loopback})
	if err != nil {
		t.Fatal(err)
	}
	at := first.Addr()
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := first.Run(func(*Packet) { t.Error("a packet") }); err != nil {
		t.Error(err)
	}
	l, seen := listen(t, Config{Listen: at})
	send(t, dial(t, l.Addr()), encode(ordinary()...))
	<-seen
}

func TestListenerAllocatesNothing(t *testing.T) {
	homer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer homer.Close()
	l, err := Open(Config{Listen: loopback, Password: "secret", Forward: homer.LocalAddr().(*net.UDPAddr).AddrPort()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := encode(ordinary()...)
	var p Packet
	if n := testing.AllocsPerRun(100, func() {
		if !l.accept(b, &p) {
			t.Fatal("not accepted")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
