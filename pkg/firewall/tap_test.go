package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/nflog"
	"github.com/ringwall/ringwall/pkg/packet"
)

const tapGroup = 77

// copied is a packet of the tap's, in words.
type copied struct {
	prefix, from, to string
	protocol         packet.Protocol
	payload          string
}

// tap is a wire with a reader of the copies.
type tap struct {
	*wire
	copies chan copied
	seq    int
}

func newTap(t *testing.T, change func(*Config)) *tap {
	t.Helper()
	w := newWire(t, func(c *Config) {
		c.Tap.Group = tapGroup
		c.TCPPorts, c.ManagerPorts = append(c.TCPPorts, 8088, 5061), []uint16{5038}
		c.Tap.ExceptTCPPorts = []uint16{5061}
		if change != nil {
			change(c)
		}
	})
	a := &tap{wire: w, copies: make(chan copied, 1000)}
	a.read(t, tapGroup)
	return a
}

// read reads a group until the test ends.
func (a *tap) read(t *testing.T, group uint16) {
	t.Helper()
	r, err := nflog.Open(nflog.Config{Group: group, NetNS: a.server.FD()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- r.Run(func(n *nflog.Packet) {
			var p packet.Packet
			if err := packet.Parse(n.Payload, &p); err != nil {
				a.copies <- copied{prefix: err.Error()}
				return
			}
			a.copies <- copied{string(n.Prefix), p.Source.Addr().String(), p.Destination.Addr().String(), p.Protocol,
				string(p.Payload)}
		})
	}()
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
}

// seen is what was copied up to now. That all of it has come is known by a packet that surely is copied.
func (a *tap) seen(t *testing.T) (list []copied) {
	t.Helper()
	a.seq++
	mark := fmt.Sprintf("mark %d", a.seq)
	client, server := a.udp(t, "10.99.0.99", 5061)
	if _, err := client.Write([]byte(mark)); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	_ = server.Close()
	for {
		select {
		case c := <-a.copies:
			if c.payload == mark {
				return list
			}
			list = append(list, c)
		case <-time.After(patience):
			t.Fatalf("nothing more is copied; before %+v", list)
		}
	}
}

// asks has a client ask over UDP, and the server answer.
func (a *tap) asks(t *testing.T, src string, port uint16) {
	t.Helper()
	client, server := a.udp(t, src, port)
	a.talk(t, client, server)
	_ = errors.Join(client.Close(), server.Close())
}

func (a *tap) talk(t *testing.T, client, server *net.UDPConn) {
	t.Helper()
	buf := make([]byte, 100)
	if _, err := client.Write([]byte("REGISTER")); err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(patience))
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "REGISTER" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := server.WriteToUDPAddrPort([]byte("401"), from); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if n, err = client.Read(buf); err != nil || string(buf[:n]) != "401" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

// connects is asks over TCP. The answers come in two parts.
func (a *tap) connects(t *testing.T, src string, port uint16) (source netip.AddrPort) {
	t.Helper()
	l, err := a.server.Listen(t.Context(), "tcp", netip.AddrPortFrom(serverAddr(src), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}, Timeout: patience}
	client, err := a.client.Dial(t.Context(), d, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	_ = errors.Join(client.SetDeadline(time.Now().Add(patience)), server.SetDeadline(time.Now().Add(patience)))
	for _, part := range []struct {
		from, to net.Conn
		text     string
	}{{client, server, "REGISTER"}, {server, client, "4"}, {client, server, "x"}, {server, client, "01"}} {
		if _, err := part.from.Write([]byte(part.text)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, err := part.to.Read(buf); err != nil || string(buf[:n]) != part.text {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	return client.LocalAddr().(*net.TCPAddr).AddrPort()
}

func TestTheTapCopiesRequestsAndAnswers(t *testing.T) {
	for _, scope := range []Scope{VoIP, All} {
		for _, metered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, meter %v", scope, metered), func(t *testing.T) {
				a := newTap(t, func(c *Config) {
					c.Scope, c.Meter = scope, Meter{Enabled: metered, Rate: 1000, Burst: 1000}
				})
				for _, src := range []string{"10.99.0.66", "fd99::66"} {
					here := serverAddr(src).String()
					a.asks(t, src, 5060)
					want := []copied{{TapRequest, src, here, packet.UDP, "REGISTER"},
						{TapAnswer, here, src, packet.UDP, "401"}}
					if got := a.seen(t); !slices.Equal(got, want) {
						t.Errorf("UDP of %s: %+v", src, got)
					}
					a.connects(t, src, 8088)
					want = []copied{{TapRequest, src, here, packet.TCP, "REGISTER"}, {TapAnswer, here, src, packet.TCP, "4"},
						{TapRequest, src, here, packet.TCP, "x"}, {TapAnswer, here, src, packet.TCP, "01"}}
					var got []copied
					for _, c := range a.seen(t) { // the ends aside, and what a slow machine sends again
						if c.payload != "" && !slices.Contains(got, c) {
							got = append(got, c)
						}
					}
					if !slices.Equal(got, want) {
						t.Errorf("TCP of %s: %+v", src, got)
					}
					a.asks(t, src, 53)
					a.connects(t, src, 5038) // of the manager
					a.connects(t, src, 5061) // of TLS
					a.connects(t, src, 80)
					if got := a.seen(t); len(got) != 0 {
						t.Errorf("to other ports of %s: %+v", src, got)
					}
				}
			})
		}
	}
}

// Segments without a payload would be as many again as those with one. The answer to an opening has the number by which
// a connection is told from forged segments.
func TestTheTapCopiesNoEmptySegments(t *testing.T) {
	a := newTap(t, nil)
	for _, src := range []string{"10.99.0.66", "fd99::66"} {
		for _, timestamps := range []int{1, 0} {
			for _, s := range []space{a.server, a.client} {
				s.command(t, fmt.Sprintf("echo %d >/proc/sys/net/ipv4/tcp_timestamps", timestamps))
				s.command(t, "echo 0 >/proc/sys/net/ipv4/tcp_sack") // it is for who loses packets, as a slow machine does
			}
			a.connects(t, src, 8088)
			got := a.seen(t)
			if opening := (copied{TapAnswer, serverAddr(src).String(), src, packet.TCP, ""}); got[0] != opening {
				t.Errorf("%s, timestamps %d: first came %+v, want the answer to an opening", src, timestamps, got[0])
			}
			for _, c := range got[1:] {
				if c.payload == "" {
					t.Errorf("%s, timestamps %d: copied %+v", src, timestamps, c)
				}
			}
		}
	}
}

func TestTheTapCopiesTheHead(t *testing.T) {
	a := newTap(t, nil)
	client, server := a.udp(t, "10.99.0.66", 5060)
	a.server.command(t, "nft add table inet other; nft add chain inet other c '{ type filter hook input priority 0; }'; "+
		"nft add rule inet other c ct state invalid counter") // conntrack puts fragments together
	if !a.arrives(t, client, server, 20_000) {
		t.Fatal("dropped")
	}
	got := a.seen(t)
	if len(got) != 1 || len(got[0].payload) != tapUDPBytes-28 {
		t.Errorf("%d copies", len(got))
	}
}

// What the tap must not see: what is dropped never reached Asterisk; the others cost nothing.
func TestTheTapDoesNotCopy(t *testing.T) {
	a := newTap(t, func(c *Config) { c.Meter = Meter{Enabled: true, Rate: 1, Burst: 5} })
	apply(t, a.fw, Change{Kind: Trust, Prefix: pfx("10.99.0.99"), Timeout: time.Hour}) // for seen
	good := func(client *net.UDPConn) Change {
		return Change{Kind: Good, Flow: Flow{UDP, client.LocalAddr().(*net.UDPAddr).AddrPort()}, Timeout: time.Hour}
	}
	for _, src := range []string{"10.99.0.66", "fd99::66"} {
		other := map[string]string{"10.99.0.66": "10.99.7.6", "fd99::66": "fd99:0:0:7::6"}[src]
		phone := map[string]string{"10.99.0.66": "10.99.7.5", "fd99::66": "fd99:0:0:7::5"}[src]
		here := serverAddr(src).String()
		t.Run("the banned, "+src, func(t *testing.T) {
			apply(t, a.fw, ban(src, time.Hour))
			if a.reaches(t, src, 5060) {
				t.Fatal("not banned")
			}
			if got := a.seen(t); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			apply(t, a.fw, unban(src))
		})
		t.Run("the allowed, "+src, func(t *testing.T) {
			apply(t, a.fw, Change{Kind: Allow, Prefix: pfx(other)})
			a.asks(t, other, 5060)
			a.connects(t, other, 8088)
			if got := a.seen(t); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			apply(t, a.fw, Change{Kind: Allow, Prefix: pfx(other), Remove: true})
		})
		t.Run("good flows, "+src, func(t *testing.T) {
			client, server := a.udp(t, phone, 5060)
			apply(t, a.fw, good(client))
			a.talk(t, client, server)
			if got := a.seen(t); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			_ = errors.Join(client.Close(), server.Close())
			a.asks(t, phone, 5060) // from another port
			want := []copied{{TapRequest, phone, here, packet.UDP, "REGISTER"}, {TapAnswer, here, phone, packet.UDP, "401"}}
			if got := a.seen(t); !slices.Equal(got, want) {
				t.Errorf("another flow: %+v", got)
			}
		})
		t.Run("what the meter drops, "+src, func(t *testing.T) {
			client, server := a.udp(t, other, 5060)
			came := 0
			for range 30 {
				if a.arrives(t, client, server, 20) {
					came++
				}
			}
			if got := a.seen(t); came == 30 || len(got) != came {
				t.Errorf("%d of 30 packets came, %d were copied", came, len(got))
			}
		})
		t.Run("not even of the trusted", func(t *testing.T) { // but those are copied
			apply(t, a.fw, Change{Kind: Trust, Prefix: pfx(phone), Timeout: time.Hour})
			client, server := a.udp(t, phone, 5060)
			for range 30 {
				if !a.arrives(t, client, server, 20) {
					t.Fatal("the meter hits the trusted")
				}
			}
			if got := a.seen(t); len(got) != 30 {
				t.Errorf("%d of 30 packets were copied", len(got))
			}
		})
	}
	t.Run("the machine itself", func(t *testing.T) {
		if err := a.server.Do(func() error {
			c, err := net.Dial("udp", "10.99.0.1:5060")
			if err == nil {
				_, err = c.Write([]byte("REGISTER"))
				err = errors.Join(err, c.Close())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got := a.seen(t); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("what is forwarded", func(t *testing.T) { // a phone behind this machine, and its provider
		a.server.command(t, "ip addr add 198.51.100.1/24 dev eth0; echo 1 >/proc/sys/net/ipv4/ip_forward; "+
			"ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev eth0")
		a.client.command(t, "ip route add 198.51.100.0/24 via 10.99.0.1; ip addr add 10.99.9.9/16 dev eth0")
		for _, local := range []int{5060, 0} {
			if err := a.client.Do(func() error {
				c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 99, 9, 9), Port: local},
					&net.UDPAddr{IP: net.IPv4(198, 51, 100, 9), Port: 5060})
				if err == nil {
					_, err = c.Write([]byte("REGISTER"))
					err = errors.Join(err, c.Close())
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.seen(t); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Whoever knocks gets through, so he is seen, and what does not get through the door is not.
func TestTheTapCopiesKnocks(t *testing.T) {
	a := newTap(t, func(c *Config) { c.Knock = Knock{Port: 4, Source: 15} })
	apply(t, a.fw, Change{Kind: Ban, Prefix: pfx("10.99.0.66"), Closes: CloseUDPKnock, Timeout: time.Hour})
	client, server := a.udp(t, "10.99.0.66", 5060)
	came := 0
	for range 20 {
		if a.arrives(t, client, server, 20) {
			came++
		}
	}
	if got := a.seen(t); came == 0 || came == 20 || len(got) != came {
		t.Errorf("%d of 20 packets came, %d were copied", came, len(got))
	}
}

// tableText is the table as nft shows it, without what was counted and what is in its sets.
func tableText(t *testing.T, s space) string {
	t.Helper()
	return s.command(t, "nft list table inet ringwall | sed -E 's/packets [0-9]+ bytes [0-9]+//; /elements|[0-9]s expires/d'")
}

// The tap goes on and off in a table that is in use, and off leaves nothing of it behind.
func TestTheTapIsReconfigured(t *testing.T) {
	w := newWire(t, func(c *Config) { c.Meter = Meter{Enabled: true, Rate: 1000, Burst: 1000} })
	a := &tap{wire: w, copies: make(chan copied, 1000)}
	off := tableText(t, a.server)
	if strings.Contains(off, "log") || strings.Contains(off, "chain answers") {
		t.Fatalf("without a tap there is\n%s", off)
	}
	apply(t, a.fw, ban("10.99.0.66", time.Hour))
	banned := tableText(t, a.server)
	set := func(change func(*Config)) {
		t.Helper()
		cfg := a.fw.currentConfig()
		change(&cfg)
		if err := errors.Join(a.fw.SetTap(cfg.Tap), a.fw.Reconfigure(cfg)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.fw.VerifyTable(), a.fw.TapError()); err != nil {
			t.Error(err)
		}
		holds(t, a.fw, Ban, "10.99.0.66/32", time.Hour)
	}
	set(func(c *Config) { c.Tap.Group = tapGroup })
	a.read(t, tapGroup)
	a.asks(t, "10.99.7.5", 5060)
	if got := a.seen(t); len(got) != 2 {
		t.Errorf("on: %+v", got)
	}
	set(func(c *Config) { c.UDPPorts = []uint16{5061, 5080} })
	a.asks(t, "10.99.7.5", 5060)
	a.asks(t, "10.99.7.5", 5080)
	if got := a.seen(t); len(got) != 2 {
		t.Errorf("other ports: %+v", got)
	}
	set(func(c *Config) { c.Tap.Group = 78 })
	a.asks(t, "10.99.7.5", 5080)
	a.read(t, 78)
	if got := a.seen(t); len(got) != 0 {
		t.Errorf("another group: %+v", got)
	}
	a.asks(t, "10.99.7.5", 5080)
	if got := a.seen(t); len(got) != 2 {
		t.Errorf("another group: %+v", got)
	}
	other := a.fw.currentConfig() // of somebody who knows no tap
	other.Tap, other.Meter.Rate = Tap{}, 999
	if err := a.fw.Reconfigure(other); err != nil {
		t.Fatal(err)
	}
	a.asks(t, "10.99.7.5", 5080)
	if got := a.seen(t); len(got) != 2 {
		t.Errorf("reconfigured otherwise: %+v", got)
	}
	set(func(c *Config) { c.Tap, c.UDPPorts, c.Meter.Rate = Tap{}, []uint16{5060, 5061}, 1000 })
	if got := tableText(t, a.server); got != banned {
		t.Errorf("off again:\n%s\nbefore:\n%s", got, banned)
	}
}

// Another process finds the table as it should be; whether it wants a tap or not, and whatever was done to it.
func TestTheTapOfAnEarlierProcess(t *testing.T) {
	a := newTap(t, nil)
	with := a.fw.currentConfig()
	without := with
	without.Tap = Tap{}
	apply(t, a.fw, ban("10.99.0.66", time.Hour))
	for _, step := range []struct {
		name, before string
		cfg          Config
		want         Outcome
		copies       int
	}{
		{"the same", "", with, Adopted, 2},
		{"none", "", without, Adopted, 0},
		{"again", "", with, Adopted, 2},
		{"its rules were flushed", "nft flush chain inet ringwall answers", with, Adopted, 2},
		{"its chain was removed", "nft delete chain inet ringwall answers", with, Adopted, 2},
		{"its chain is at another hook", "nft 'delete chain inet ringwall answers; " +
			"add chain inet ringwall answers { type filter hook output priority 0; }'", with, Migrated, 2},
	} {
		if step.before != "" {
			a.server.command(t, step.before)
			if err := a.fw.VerifyTable(); !errors.Is(err, ErrGone) {
				t.Errorf("%s: Verify: %v", step.name, err)
			}
		}
		_ = a.fw.Close()
		a.fw = openTable(t, step.cfg)
		ensure(t, a.fw, step.want)
		holds(t, a.fw, Ban, "10.99.0.66/32", time.Hour)
		a.asks(t, "10.99.7.5", 5060)
		if step.cfg.Tap.Group == 0 {
			if text := tableText(t, a.server); strings.Contains(text, "log") {
				t.Errorf("%s:\n%s", step.name, text)
			}
			continue
		}
		if got := a.seen(t); len(got) != step.copies {
			t.Errorf("%s: %+v", step.name, got)
		}
	}
	a.server.command(t, "nft flush ruleset") // by somebody else, while it is in use
	if err := a.fw.VerifyTable(); !errors.Is(err, ErrGone) {
		t.Errorf("Verify after a flush: %v", err)
	}
	ensure(t, a.fw, Created)
	a.asks(t, "10.99.7.5", 5060)
	if got := a.seen(t); len(got) != 2 {
		t.Errorf("after a flush: %+v", got)
	}
}

// A container with a published port, as Docker makes it: asked at the machine's address, and answered from there.
func TestTheTapCopiesWhatAContainerIsAsked(t *testing.T) {
	a := newTap(t, nil)
	box := newSpace(t)
	if err := a.server.Do(func() error {
		if err := netns.AddPair("docker0", "eth0", box.Space); err != nil {
			return err
		}
		return netns.BringUp("docker0", "172.17.0.1/16")
	}); err != nil {
		t.Fatal(err)
	}
	box.command(t, "ip addr add 172.17.0.2/16 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1")
	a.server.command(t, `echo 1 >/proc/sys/net/ipv4/ip_forward; nft 'table ip docker {
		chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; udp dport 5060 dnat to 172.17.0.2:6060;
		}
	}'`)
	var server, client *net.UDPConn
	err := box.Do(func() (err error) {
		server, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(172, 17, 0, 2), Port: 6060})
		return err
	})
	err2 := a.client.Do(func() (err error) {
		client, err = net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 99, 0, 66)}, &net.UDPAddr{IP: net.IPv4(10, 99, 0, 1),
			Port: 5060})
		return err
	})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(client.Close(), server.Close()) }()
	a.talk(t, client, server)
	want := []copied{{TapRequest, "10.99.0.66", "10.99.0.1", packet.UDP, "REGISTER"},
		{TapAnswer, "10.99.0.1", "10.99.0.66", packet.UDP, "401"}}
	if got := a.seen(t); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestAKernelThatCannotCopy(t *testing.T) {
	fw := ensured(t, testConfig(newSpace(t)))
	fw.cfg.Tap.Group, fw.cfg.noTap, fw.whyNoTap = tapGroup, true, unix.ENOENT
	if err := fw.TapError(); !errors.Is(err, ErrUnsupported) || !strings.Contains(hint.Of(err), "modprobe") {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
	if list := fw.cfg.wantedChains(fw.tableRef()); len(list) != 1 {
		t.Errorf("%d chains", len(list))
	}
	ensure(t, fw, Adopted) // a module was loaded
	if err := fw.TapError(); err != nil {
		t.Error(err)
	}
}
