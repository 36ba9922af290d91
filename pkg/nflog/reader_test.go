package nflog

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func TestMain(m *testing.M) {
	var rate, n int
	if _, err := fmt.Sscan(os.Getenv(senderVariable), &rate, &n); err == nil {
		if err := sendAll(rate, n); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long something may take on a slow machine.
const patience = 2 * time.Minute

const group = 77

// newSpace is a namespace in which what goes to port 5060 is copied.
func newSpace(t testing.TB) *netns.Space {
	t.Helper()
	s := netnstest.New(t)
	netnstest.NFT(t, s, fmt.Sprintf(`table inet test {
		chain requests { type filter hook prerouting priority -300; policy accept;
			udp dport 5060 meta mark set 7 log prefix "ringwall request" group %d snaplen 1000;
		}
		chain answers { type filter hook postrouting priority 200; policy accept;
			udp sport 5060 log prefix "ringwall answer" group %[1]d snaplen 40;
		}
	}`, group))
	return s
}

func open(t testing.TB, c Config) *Reader {
	t.Helper()
	c.Group = group
	r, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// run runs a reader until the test ends.
func run(t testing.TB, r *Reader, handle func(*Packet)) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(handle) }()
	t.Cleanup(func() {
		_ = r.Close()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// flow opens both ends of one over loopback.
func flow(t testing.TB, s *netns.Space, network string) (client, server *net.UDPConn) {
	t.Helper()
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5060}
	if network == "udp6" {
		to.IP = net.IPv6loopback
	}
	err := s.Do(func() (err error) {
		if server, err = net.ListenUDP(network, to); err != nil {
			return err
		}
		client, err = net.DialUDP(network, nil, to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func send(t testing.TB, c *net.UDPConn, payload []byte) {
	t.Helper()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s never", what)
		}
	}
}

// kernelTime is the time by the clock that the kernel writes into packets, which a test of another time has not changed.
func kernelTime(t *testing.T) time.Time {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatal(err)
	}
	return time.Unix(now.Unix())
}

func TestPacketsAreRead(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			s := newSpace(t)
			client, server := flow(t, s, network)
			got := make(chan Packet, 10)
			before := kernelTime(t)
			run(t, open(t, Config{NetNS: s.FD()}), func(p *Packet) {
				c := *p
				c.Prefix, c.Payload = bytes.Clone(p.Prefix), bytes.Clone(p.Payload)
				got <- c
			})
			request := []byte("OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nCall-ID: a\xff\r\n")
			send(t, client, request)
			answer := bytes.Repeat([]byte("a"), 600)
			if _, err := server.WriteToUDP(answer, client.LocalAddr().(*net.UDPAddr)); err != nil {
				t.Fatal(err)
			}
			p := <-got
			if p.Hook != unix.NF_INET_PRE_ROUTING || string(p.Prefix) != "ringwall request" || p.Mark != 7 ||
				p.InDevice == 0 || p.OutDevice != 0 || !bytes.HasSuffix(p.Payload, request) {
				t.Errorf("request: %+v, payload %q", p, p.Payload)
			}
			if p.Time.Before(before.Add(-time.Second)) || p.Time.After(kernelTime(t).Add(time.Second)) {
				t.Errorf("at %v, sent after %v", p.Time, before)
			}
			if p = <-got; p.Hook != unix.NF_INET_POST_ROUTING || string(p.Prefix) != "ringwall answer" ||
				p.InDevice != 0 || p.OutDevice == 0 || len(p.Payload) != 40 {
				t.Errorf("answer: %+v", p)
			}
		})
	}
}

// Whoever has a group keeps it, and the other is told whose it is.
func TestAGroupOfAnotherIsLeftAlone(t *testing.T) {
	s := newSpace(t)
	client, _ := flow(t, s, "udp4")
	first := open(t, Config{NetNS: s.FD()})
	var err error
	if err := s.Do(func() error { _, err = Open(Config{Group: group}); return nil }); err != nil {
		t.Fatal(err)
	}
	name, _ := os.ReadFile("/proc/self/comm")
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "77") || hint.Of(err) == "" ||
		!strings.Contains(err.Error(), strings.TrimSpace(string(name))) {
		t.Errorf("%v, try %q; want that it is busy, and who has it: %q", err, hint.Of(err), name)
	}
	if _, err := Open(Config{Group: group, NetNS: s.FD()}); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	send(t, client, []byte("still"))
	heard := make(chan string, 1)
	run(t, first, func(p *Packet) { heard <- string(p.Payload[28:]) })
	if got := <-heard; got != "still" {
		t.Errorf("heard %q", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Config{NetNS: s.FD()}) // given back
}

func TestWithoutTheCapability(t *testing.T) {
	s := newSpace(t)
	var err error
	if err := s.Do(func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 { // of this thread
			return errno
		}
		_, err = Open(Config{Group: group})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrPermission) || !strings.Contains(hint.Of(err), "CAP_NET_ADMIN") {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
}

func TestAKernelWithoutIt(t *testing.T) {
	err := explain(Config{Group: group}, unix.EINVAL) // nfnetlink_rcv_msg in net/netfilter/nfnetlink.c
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(hint.Of(err), "modprobe nfnetlink_log") {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
}

// Packets come faster than they are handled: some are lost, all are counted, and those that come later are read.
func TestWhatIsLostIsCounted(t *testing.T) {
	s := newSpace(t)
	client, _ := flow(t, s, "udp4")
	r := open(t, Config{NetNS: s.FD(), ReceiveBuffer: 64 << 10})
	const flood = 3000
	for range flood {
		send(t, client, make([]byte, 500))
	}
	last := make(chan struct{})
	run(t, r, func(p *Packet) {
		if bytes.HasSuffix(p.Payload, []byte("last")) {
			close(last)
		}
	})
	eventually(t, "the full buffer was told", func() bool { return r.Stats().Overruns > 0 })
	eventually(t, "the buffer was read", func() bool { return r.Stats().Packets > 0 })
	send(t, client, []byte("last"))
	<-last
	eventually(t, "all was counted", func() bool { s := r.Stats(); return s.Packets+s.Lost == flood+1 })
	if s := r.Stats(); s.Lost == 0 || s.Malformed != 0 || s.LastHeard.IsZero() {
		t.Errorf("%+v", s)
	}
}

// In a flood the kernel gathers packets, and afterwards each comes at once.
func TestTheKernelGathersWhileMuchComes(t *testing.T) {
	s := newSpace(t)
	client, _ := flow(t, s, "udp4")
	r := open(t, Config{NetNS: s.FD()})
	run(t, r, func(*Packet) {})
	settings := func() []string { // group, port, waiting, mode, range, timeout, references
		return strings.Fields(netnstest.Run(t, s, "", "cat", "/proc/thread-self/net/netfilter/nfnetlink_log"))
	}
	if got := settings(); got[3] != "2" || got[5] != "1" {
		t.Errorf("settings %q", got)
	}
	eventually(t, "it gathered", func() bool {
		for range 1000 {
			send(t, client, make([]byte, 500))
		}
		return r.Stats().Threshold > 1
	})
	eventually(t, "it stopped to", func() bool { return r.Stats().Threshold == 1 })
	if s := r.Stats(); s.Malformed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCloseEndsRun(t *testing.T) {
	s := newSpace(t)
	client, _ := flow(t, s, "udp4")
	t.Run("while it waits", func(t *testing.T) {
		r := open(t, Config{NetNS: s.FD()})
		ended := make(chan error)
		go func() { ended <- r.Run(func(*Packet) {}) }()
		time.Sleep(time.Millisecond)
		if err := errors.Join(r.Close(), r.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	t.Run("from the handler", func(t *testing.T) {
		r := open(t, Config{NetNS: s.FD()})
		send(t, client, []byte("one"))
		if err := r.Run(func(*Packet) { _ = r.Close() }); err != nil {
			t.Error(err)
		}
	})
	t.Run("before", func(t *testing.T) {
		r := open(t, Config{NetNS: s.FD()})
		if err := errors.Join(r.Close(), r.Run(func(*Packet) { t.Error("heard something") })); err != nil {
			t.Error(err)
		}
	})
}

// What the kernel sent, byte by byte.
func record(t testing.TB, n int) []byte {
	t.Helper()
	s := newSpace(t)
	client, _ := flow(t, s, "udp4")
	r := open(t, Config{NetNS: s.FD()})
	var all []byte
	for range n {
		send(t, client, []byte("REGISTER sip:192.0.2.1 SIP/2.0\r\n"))
		if err := r.receive(); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.buffer[:r.got]...)
	}
	return all
}

func TestNothingIsAllocatedForAPacket(t *testing.T) {
	messages := record(t, 16)
	r := &Reader{buffer: messages, got: len(messages), batcher: batcher{threshold: 1}}
	handled := 0
	handle := func(*Packet) { handled++ }
	n := testing.AllocsPerRun(100, func() {
		r.batcher.note(r.handleAll(time.Time{}, handle), time.Time{})
	})
	if n != 0 || handled != 101*16 || r.Stats().Malformed != 0 {
		t.Errorf("%v allocations for 16 packets, %d handled, %+v", n, handled, r.Stats())
	}
}

func TestSequenceNumbers(t *testing.T) {
	var r Reader
	for _, step := range []struct {
		sequence uint32
		lost     uint64
	}{{1000, 0}, {1001, 0}, {1004, 2}, {1004, 2}, {0xffff_fff0, 2}, {0xffff_ffff, 16}, {0, 16}, {2, 17}} {
		if r.countLost(step.sequence); r.Stats().Lost != step.lost {
			t.Errorf("%d: lost %d, want %d", step.sequence, r.Stats().Lost, step.lost)
		}
	}
}

func TestHowManyPacketsAreGathered(t *testing.T) {
	now := time.Unix(0, 0)
	b := batcher{threshold: 1, began: now}
	var got []int
	second := func(rate int) { // packets come evenly
		for range rate {
			now = now.Add(time.Second / time.Duration(rate))
			if b.note(1, now) {
				got = append(got, b.threshold)
			}
		}
	}
	for _, rate := range []int{10, 500, 1000, 2500, 20_000, 1_000_000, 20_000, 900, 10} {
		second(rate)
	}
	if want := []int{2, 4, 32, 64, 32, 1}; !slices.Equal(got, want) {
		t.Errorf("thresholds %v, want %v", got, want)
	}
	second(20_000)
	if b.note(0, now.Add(windowTime*calmWindows)); b.threshold != 1 {
		t.Errorf("nothing came for a while, and %d are gathered", b.threshold)
	}
	if !b.overrun() || b.threshold != maxThreshold || b.overrun() {
		t.Errorf("the buffer is full, and %d are gathered", b.threshold)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(record(f, 1))
	f.Add(record(f, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Reader{buffer: b[:len(b):len(b)], got: len(b)}
		within := func(view []byte) bool {
			return len(view) == 0 || bytes.Contains(b, view) && len(view) <= len(b)-unix.NLMSG_HDRLEN-generalHeader
		}
		handled := r.handleAll(time.Unix(1, 0), func(p *Packet) {
			if !within(p.Payload) || !within(p.Prefix) || p.Time.IsZero() {
				t.Errorf("%+v", p)
			}
		})
		if s := r.Stats(); s.Packets != uint64(handled) || handled > len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d handled, %+v", handled, s)
		}
	})
}
