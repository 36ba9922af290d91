package firewall

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func flow(tr Transport, source string) Flow { return Flow{tr, netip.MustParseAddrPort(source)} }

func flowChange(k Kind, tr Transport, source string) Change {
	return Change{Kind: k, Flow: flow(tr, source), Timeout: time.Hour}
}

func closing(prefix string, c Closes) Change {
	return Change{Kind: Ban, Prefix: pfx(prefix), Closes: c, Timeout: time.Hour}
}

// ladderWire has all that a table can have: a meter that is generous, a door, and ports of the manager.
func ladderWire(t *testing.T, change func(*Config)) *wire {
	return newWire(t, func(c *Config) {
		c.ManagerPorts = []uint16{5038}
		c.Knock = Knock{Port: 4, Source: 15}
		if change != nil {
			change(c)
		}
	})
}

// udpFrom opens both ends of a flow with a source port of its own.
func (w *wire) udpFrom(t *testing.T, source string, port uint16) (client, server *net.UDPConn) {
	t.Helper()
	from := netip.MustParseAddrPort(source)
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(serverAddr(from.Addr().String()), port))
	err := w.server.Do(func() (err error) {
		server, err = net.ListenUDP("udp", to)
		return err
	})
	err2 := w.client.Do(func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), to)
		return err
	})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// passed sends packets over UDP and says how many arrive.
func (w *wire) passed(t *testing.T, source string, port uint16, n int) (came int) {
	t.Helper()
	client, server := w.udpFrom(t, source, port)
	defer func() { _ = client.Close(); _ = server.Close() }()
	for range n {
		if w.arrives(t, client, server, 20) {
			came++
		}
	}
	return came
}

// connects says whether a TCP connection is made and carries something, before its SYN is sent for the second time.
func (w *wire) connects(t *testing.T, source string, port uint16) bool {
	t.Helper()
	client, server, ok := w.dialFrom(t, source, port)
	if !ok {
		return false
	}
	echo(t, client, server)
	_ = client.Close()
	_ = server.Close()
	return true
}

// dialFrom opens a connection from an address and port; ok is false where the SYN was dropped.
func (w *wire) dialFrom(t *testing.T, source string, port uint16) (client, server net.Conn, ok bool) {
	t.Helper()
	from := netip.MustParseAddrPort(source)
	l, err := w.server.Listen(t.Context(), "tcp", netip.AddrPortFrom(serverAddr(from.Addr().String()), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	before, dialled := w.dropped(t), make(chan error, 1)
	go func() {
		var err error
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: patience,
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { // the port may come again
					_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
				})
			}}
		client, err = w.client.Dial(t.Context(), d, "tcp", l.Addr().String())
		dialled <- err
	}()
	for {
		select {
		case err := <-dialled:
			if err != nil {
				t.Fatal(err)
			}
			if server, err = l.Accept(); err != nil {
				t.Fatal(err)
			}
			_ = client.(*net.TCPConn).SetLinger(0)
			return client, server, true
		case <-time.After(5 * time.Millisecond):
		}
		if w.dropped(t) > before {
			_ = l.Close() // answers the next SYN with a reset
			go func() { <-dialled }()
			return nil, nil, false
		}
	}
}

func TestWhatEachFlowAndEachScopeCloses(t *testing.T) {
	manual := closing("10.99.0.66", CloseAll)
	manual.Manual = true
	const (
		sip     = 1 << iota // over UDP, from port 5060
		other               // over UDP, from port 5062
		tcp                 // SIP over TCP
		manager             // TCP
		all     = sip | other | tcp | manager
	)
	good := []Change{flowChange(Good, UDP, "10.99.0.66:5060")}
	for _, r := range []struct {
		name    string
		changes []Change
		passes  int
	}{
		{"nothing", nil, all},
		{"a good flow and a ban", append(good, closing("10.99.0.66", CloseAll)), sip},
		{"a good flow and a ban of its /24", append(good, closing("10.99.0.0/24", CloseAll)), sip},
		{"a good flow and a ban of its /20", append(good, closing("10.99.0.0/20", CloseAll)), sip},
		{"a good flow and a ban of UDP", append(good, closing("10.99.0.66", CloseUDP)), sip | tcp | manager},
		{"a good flow over TCP is none over UDP",
			[]Change{flowChange(Good, TCP, "10.99.0.66:5060"), closing("10.99.0.66", CloseAll)}, 0},
		{"a good flow of a neighbour", []Change{flowChange(Good, UDP, "10.99.0.67:5060"),
			closing("10.99.0.66", CloseAll)}, 0},
		{"a good flow and a person's ban", append(good, manual), 0},
		{"a person's ban that is the engine's now", append(good, manual, closing("10.99.0.66", CloseAll)), sip},
		{"a good flow that is cut", append(good, flowChange(Cut, UDP, "10.99.0.66:5060")), other | tcp | manager},
		{"UDP", []Change{closing("10.99.0.66", CloseUDP)}, tcp | manager},
		{"SIP over TCP", []Change{closing("10.99.0.66", CloseSIPOverTCP)}, sip | other | manager},
		{"the manager", []Change{closing("10.99.0.66", CloseManager)}, sip | other | tcp},
		{"allowed", []Change{{Kind: Allow, Prefix: pfx("10.99.0.66")}, manual, closing("10.99.0.66", CloseUDP),
			closing("10.99.0.66", CloseSIPOverTCP), closing("10.99.0.66", CloseManager),
			flowChange(Cut, UDP, "10.99.0.66:5060")}, all},
		{"the manager and UDP", []Change{closing("10.99.0.66", CloseManager), closing("10.99.0.66", CloseUDP)}, tcp},
	} {
		for _, scope := range []Scope{VoIP, All} {
			t.Run(fmt.Sprintf("%s, scope %s", r.name, scope), func(t *testing.T) {
				t.Parallel()
				w := ladderWire(t, func(c *Config) { c.Scope = scope })
				apply(t, w.fw, r.changes...)
				got := 0
				if w.passed(t, "10.99.0.66:5060", 5060, 1) == 1 {
					got |= sip
				}
				if w.passed(t, "10.99.0.66:5062", 5060, 1) == 1 {
					got |= other
				}
				if w.connects(t, "10.99.0.66:7001", 5060) {
					got |= tcp
				}
				if w.connects(t, "10.99.0.66:7002", 5038) {
					got |= manager
				}
				if got != r.passes {
					t.Errorf("passes %04b, want %04b (manager, TCP, another port, UDP)\n%s", got, r.passes,
						w.server.command(t, "nft list ruleset"))
				}
			})
		}
	}
}

func TestTheSameInIPv6(t *testing.T) {
	w := ladderWire(t, nil)
	apply(t, w.fw, flowChange(Good, UDP, "[fd99:0:0:7::5]:5060"), closing("fd99:0:0:7::/64", CloseUDP),
		closing("fd99:0:0:7::/64", CloseManager), flowChange(Cut, UDP, "[fd99::66]:5060"))
	for _, r := range []struct {
		source string
		came   int
	}{
		{"[fd99:0:0:7::5]:5060", 1}, {"[fd99:0:0:7::5]:5062", 0}, {"[fd99:0:0:7::6]:5060", 0},
		{"[fd99::66]:5060", 0}, {"[fd99::66]:5062", 1},
	} {
		if came := w.passed(t, r.source, 5060, 1); came != r.came {
			t.Errorf("%s: %d arrived, want %d", r.source, came, r.came)
		}
	}
	if !w.connects(t, "[fd99:0:0:7::5]:7001", 5060) || w.connects(t, "[fd99:0:0:7::5]:7002", 5038) {
		t.Error("TCP: SIP must pass and the manager must not")
	}
	apply(t, w.fw, Change{Kind: Ban, Prefix: pfx("fd99:0:0:7::/64"), Timeout: time.Hour, Manual: true})
	if w.passed(t, "[fd99:0:0:7::5]:5060", 5060, 1) != 0 {
		t.Error("a good flow passes a person's ban")
	}
}

// Of 200 packets of the phone that logged in all arrive, of the port beside it as many as knock.
func TestAGoodFlowLosesNothingAndItsNeighbourKnocks(t *testing.T) {
	t.Parallel()
	w := ladderWire(t, nil)
	apply(t, w.fw, flowChange(Good, UDP, "10.99.0.66:5060"), closing("10.99.0.66", CloseUDPKnock))
	if came := w.passed(t, "10.99.0.66:5060", 5060, 200); came != 200 {
		t.Errorf("%d of 200 packets of the good flow", came)
	}
	begun := time.Now()
	came := w.passed(t, "10.99.0.66:5062", 5060, 200)
	if most := 4 + int(time.Since(begun).Seconds())/4 + 1; came < 4 || came > most {
		t.Errorf("%d of 200 packets of the neighbour, want 4 to %d", came, most)
	}
	if !w.connects(t, "10.99.0.66:7001", 5060) || !w.connects(t, "10.99.0.66:7001", 5038) {
		t.Error("TCP is closed, too")
	}
}

// A source that takes all of its ports gets no more than it does from four.
func TestManyPortsKnockAsOneSource(t *testing.T) {
	for _, r := range []struct{ ban, source, closed string }{
		{"10.99.0.66", "10.99.0.66", "10.99.0.66"}, {"10.99.0.0/20", "10.99.0.66", "10.99.0.66"},
		{"10.99.0.0/24", "10.99.0.66", "10.99.0.66"}, {"fd99::/64", "[fd99::66]", "fd99::/64"},
		{"fd99::/48", "[fd99::66]", "fd99::/64"},
	} {
		t.Run(r.ban, func(t *testing.T) {
			t.Parallel()
			w := ladderWire(t, nil)
			apply(t, w.fw, closing(r.ban, CloseUDPKnock))
			came, begun := 0, time.Now()
			for port := range 100 {
				came += w.passed(t, fmt.Sprintf("%s:%d", r.source, 20_000+port), 5060, 1)
			}
			if most := 4 + int(time.Since(begun).Seconds())/4 + 1; came < 4 || came > most {
				t.Errorf("%d of 100 packets from as many ports, want 4 to %d", came, most)
			}
			apply(t, w.fw, closing(r.closed, CloseUDP)) // no door any more
			if came := w.passed(t, r.source+":30000", 5060, 1); came != 0 {
				t.Error("the door is not closed")
			}
		})
	}
}

// Sources of one banned network knock as four: whoever has a network has many addresses.
func TestManySourcesKnockAsOneNetwork(t *testing.T) {
	for _, r := range []struct{ ban, server, source string }{
		{"10.99.0.0/20", "10.99.0.1/16", "10.99.7.%d"}, {"fd99::/47", "fd99::1/40", "fd99:0:0:%d::5"},
	} {
		w := &wire{server: newSpace(t), client: newSpace(t)}
		var clients, sources []string
		for i := range 12 {
			sources = append(sources, fmt.Sprintf(r.source, 100+i))
			clients = append(clients, sources[i]+r.server[strings.Index(r.server, "/"):])
		}
		netnstest.Connect(t, w.server.Space, w.client.Space, []string{r.server}, clients)
		cfg := testConfig(w.server)
		cfg.Knock = Knock{Port: 4, Source: 15}
		w.fw = ensured(t, cfg)
		apply(t, w.fw, closing(r.ban, CloseUDPKnock))
		came, begun := 0, time.Now()
		for _, s := range sources {
			came += w.passed(t, netip.AddrPortFrom(netip.MustParseAddr(s), 5060).String(), 5060, 5)
		}
		if most := doorNet*KnockBurst + int(time.Since(begun).Seconds()) + 1; came < doorNet*KnockBurst || came > most {
			t.Errorf("%s: %d of 60 packets from 12 sources, want %d to %d", r.ban, came, doorNet*KnockBurst, most)
		}
	}
}

func TestWithoutADoorNothingKnocks(t *testing.T) {
	w := ladderWire(t, func(c *Config) { c.Knock = Knock{} })
	apply(t, w.fw, closing("10.99.0.66", CloseUDPKnock))
	if came := w.passed(t, "10.99.0.66:5060", 5060, 10); came != 0 {
		t.Errorf("%d packets came", came)
	}
	if !w.connects(t, "10.99.0.66:7001", 5060) {
		t.Error("TCP is closed")
	}
}

func TestThePacesOfTheSlow(t *testing.T) {
	t.Parallel()
	w := ladderWire(t, nil)
	slow := func(source string, p Pace) Change {
		return Change{Kind: Slow, Flow: flow(UDP, source), Pace: p, Timeout: time.Hour}
	}
	apply(t, w.fw, slow("10.99.0.66:5060", PaceSecond), slow("10.99.0.66:5062", PaceMinute),
		slow("10.99.0.66:5064", PaceTenMinutes), flowChange(Good, UDP, "10.99.0.66:5060"),
		Change{Kind: Slow, Prefix: pfx("10.99.7.5"), Pace: PaceMinute, Timeout: time.Hour},
		flowChange(Good, UDP, "10.99.7.5:5060"),
		Change{Kind: Slow, Prefix: pfx("fd99:0:0:7::5"), Pace: PaceMinute, Timeout: time.Hour})
	for _, r := range []struct {
		source string
		every  time.Duration // 0: not slow
	}{
		{"10.99.0.66:5060", time.Second}, {"10.99.0.66:5062", 15 * time.Second},
		{"10.99.0.66:5064", 150 * time.Second}, {"10.99.0.66:5066", 0},
		{"10.99.7.5:5060", 0}, {"10.99.7.5:5062", 15 * time.Second}, {"10.99.7.6:5060", 0},
		{"[fd99:0:0:7::6]:5060", 15 * time.Second}, {"[fd99::66]:5060", 0},
	} {
		begun := time.Now()
		came := w.passed(t, r.source, 5060, 50)
		least, most := 50, 50
		if r.every > 0 {
			least, most = paceBurst, paceBurst+1+int(time.Since(begun)/r.every)
		}
		if came < least || came > most {
			t.Errorf("%s: %d of 50, want %d to %d", r.source, came, least, most)
		}
	}
	// Of a source's TCP it is connections that count.
	apply(t, w.fw, Change{Kind: Slow, Prefix: pfx("10.99.7.6"), Pace: PaceTenMinutes, Timeout: time.Hour})
	made, begun := 0, time.Now()
	for port := range 12 {
		if w.connects(t, fmt.Sprintf("10.99.7.6:%d", 7001+port), 5060) {
			made++
		}
	}
	if most := paceBurst + 1 + int(time.Since(begun)/(150*time.Second)); made < paceBurst || made > most {
		t.Errorf("%d connections at once from a source in the slow lane, want %d to %d", made, paceBurst, most)
	}
	list := w.server.command(t, "nft list set inet ringwall slowflow4")
	for _, what := range []string{ // udp is 17 where there is no /etc/protocols
		" . 5060 limit rate over 1/second burst 4 packets", " . 5064 limit rate over 24/hour burst 4 packets",
	} {
		if !strings.Contains(list, what) {
			t.Errorf("nft does not list %q:\n%s", what, list)
		}
	}
	apply(t, w.fw, Change{Kind: Slow, Flow: flow(UDP, "10.99.0.66:5062"), Remove: true})
	if came := w.passed(t, "10.99.0.66:5062", 5060, 50); came != 50 {
		t.Errorf("%d of 50 after the end of the slow lane", came)
	}
}

// A connection that is cut is reset at its sender, and Asterisk's end closes as soon as it writes to it.
func TestACutConnectionEndsOnBothSides(t *testing.T) {
	for _, source := range []string{"10.99.0.66:7001", "[fd99::66]:7001"} {
		w := ladderWire(t, nil)
		client, server, _ := w.dialFrom(t, source, 5060)
		other, otherServer, _ := w.dialFrom(t, strings.Replace(source, "7001", "7002", 1), 5060)
		echo(t, client, server)
		apply(t, w.fw, flowChange(Good, TCP, source), flowChange(Cut, TCP, source))
		if _, err := client.Write([]byte("REGISTER")); err != nil {
			t.Fatal(err)
		}
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the sender: %v, want a reset", err)
		}
		_ = server.SetReadDeadline(time.Now())
		if n, err := server.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes of the cut connection came (%v)", n, err)
		}
		_, err := server.Write([]byte("OPTIONS"))
		_ = server.SetReadDeadline(time.Now().Add(patience))
		if _, err2 := server.Read(make([]byte, 1)); !errors.Is(errors.Join(err, err2), syscall.ECONNRESET) {
			t.Errorf("Asterisk's end: %v, %v; want a reset", err, err2)
		}
		echo(t, other, otherServer)
		for _, c := range []io.Closer{client, server, other, otherServer} {
			_ = c.Close()
		}
	}
}

func TestAKernelWithoutLimitsOfElementsSlowsNobody(t *testing.T) {
	w := ladderWire(t, nil)
	w.fw.cfg.noPaces = true
	ensure(t, w.fw, Adopted)
	apply(t, w.fw, Change{Kind: Slow, Prefix: pfx("10.99.0.66"), Timeout: time.Hour},
		Change{Kind: Slow, Flow: flow(UDP, "10.99.0.66:5060"), Timeout: time.Hour}, ban("10.99.7.5", time.Hour))
	if came := w.passed(t, "10.99.0.66:5060", 5060, 20); came != 20 {
		t.Errorf("%d of 20", came)
	}
	if came := w.passed(t, "10.99.7.5:5060", 5060, 1); came != 0 {
		t.Error("the ban of the same change is not in force")
	}
}

func TestAKernelThatCannotResetDropsInstead(t *testing.T) {
	w := ladderWire(t, nil)
	w.fw.cfg.noReject = true
	ensure(t, w.fw, Adopted)
	client, server, _ := w.dialFrom(t, "10.99.0.66:7001", 5060)
	defer func() { _ = client.Close(); _ = server.Close() }()
	apply(t, w.fw, flowChange(Cut, TCP, "10.99.0.66:7001"), flowChange(Cut, UDP, "10.99.0.66:5060"))
	before := w.dropped(t)
	if _, err := client.Write([]byte("REGISTER")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); w.dropped(t) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not dropped")
		}
	}
	if w.passed(t, "10.99.0.66:5060", 5060, 1) != 0 {
		t.Error("UDP passes")
	}
}
