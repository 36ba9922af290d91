package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// challenged is an event that says at which local address Asterisk received something.
func (r *rig) challenged(local, remote string) {
	r.t.Helper()
	r.calls++
	text := fmt.Sprintf("Event: ChallengeSent\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: "+
		"Informational\r\nService: PJSIP\r\n"+
		"EventVersion: 1\r\nAccountID: 201\r\nSessionID: call-%d\r\nLocalAddress: %s\r\nRemoteAddress: "+
		"%s\r\nChallenge: \r\n\r\n",
		time.Now().UTC().Format("2006-01-02T15:04:05.000+0000"), r.calls, local, remote)
	if r.server.Broadcast([]byte(text)) == 0 {
		r.t.Fatal("nobody heard the event")
	}
}

// closed are the ports that the kernel closes to the banned.
func (r *rig) closed() (udp, tcp []uint16) {
	r.t.Helper()
	table, err := firewall.Open(TableConfig(r.cfg, r.space.FD()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	if udp, tcp, err = table.ClosedPorts(); err != nil {
		r.t.Fatal(err)
	}
	return udp, tcp
}

func (r *rig) untilClosed(udp, tcp uint16) {
	r.t.Helper()
	r.until(fmt.Sprintf("UDP %d and TCP %d are closed", udp, tcp), func() bool {
		u, t := r.closed()
		return slices.Contains(u, udp) && slices.Contains(t, tcp)
	})
}

func (r *rig) status() api.Status {
	r.t.Helper()
	s, err := r.client.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func warned(s api.Status, text string) (api.Warning, bool) {
	i := slices.IndexFunc(s.Warnings, func(w api.Warning) bool { return strings.Contains(w.Text, text) })
	if i < 0 {
		return api.Warning{}, false
	}
	return s.Warnings[i], true
}

// SIP on port 5080: the first event that came in there closes it to the banned, for good.
func TestPortsOfAsteriskAreTakenOver(t *testing.T) {
	r := newRig(t)
	if udp, _ := r.closed(); slices.Contains(udp, 5080) {
		t.Fatalf("closed at the start: %v", udp)
	}
	r.challenged("IPV4/UDP/192.0.2.1/5080", "IPV4/UDP/198.51.100.1/5060")
	r.challenged("IPV6/TLS/2001:db8::1/5071", "IPV6/TLS/2001:db8::2/40000")
	r.untilClosed(5080, 5071)
	udp, _ := r.closed()
	for _, usual := range []uint16{5060, 5061, 4569} {
		if !slices.Contains(udp, usual) {
			t.Errorf("UDP %d is open now: %v", usual, udp)
		}
	}
	r.until("status says so", func() bool {
		s := r.status().Ports
		return s.Auto && slices.Contains(s.UDP, 5080) && slices.Contains(s.TCP, 5071) &&
			slices.Contains(s.Found, api.FoundPort{Protocol: "udp", Port: 5080, PBX: "pbx1"})
	})
	if s := r.status(); len(s.Ports.OpenPorts()) > 0 || len(s.Warnings) > 0 {
		t.Errorf("%+v", s)
	}

	// After a restart, and even after a reboot, it is closed before the first event.
	r.until("they are kept", func() bool {
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(r.cfg.State.Path), "ports"))
		return strings.Count(string(text), "\n") == 2
	})
	r.stop()
	netnstest.NFT(t, r.space, "delete table inet ringwall\n")
	r.start()
	var tcp []uint16
	r.until("the table is there", func() bool { // which nobody waits for who hears Asterisk
		udp, tcp = r.closed()
		return len(udp) > 0
	})
	if !slices.Contains(udp, 5080) || !slices.Contains(tcp, 5071) {
		t.Errorf("after the start: %v, %v", udp, tcp)
	}
}

// Who writes a list decides for himself, and is told where it leaves Asterisk open.
func TestPortsThatAListLeavesOpenAreTold(t *testing.T) {
	r := newRig(t, func(c *config.Config) {
		c.Firewall.Ports = config.Ports{UDP: []uint16{5060}, TCP: []uint16{5060}}
	})
	r.challenged("IPV4/UDP/192.0.2.1/5060", "IPV4/UDP/198.51.100.1/5060")
	r.challenged("IPV4/UDP/192.0.2.1/5080", "IPV4/UDP/198.51.100.1/5060")
	var w api.Warning
	r.until("status says so", func() (ok bool) {
		w, ok = warned(r.status(), "bans stop nothing at UDP 5080")
		return ok
	})
	if !strings.Contains(w.Try, "firewall: {ports: {udp: [5060, 5080], tcp: [5060]}}") ||
		!strings.Contains(w.Try, "ports: auto") {
		t.Errorf("%+v", w)
	}
	if p := r.status().Ports; p.Auto || !slices.Equal(p.OpenPorts(), []api.FoundPort{{Protocol: "udp", Port: 5080,
		PBX: "pbx1", Open: true}}) {
		t.Errorf("%+v", p)
	}
	if udp, tcp := r.closed(); !slices.Equal(udp, []uint16{5060}) || !slices.Equal(tcp, []uint16{5060}) {
		t.Errorf("closed: %v, %v", udp, tcp)
	}
}

// Before a NAT, as Docker makes it, packets come to another port than Asterisk says.
func TestPublishedPortsAreTakenOver(t *testing.T) {
	r := newRig(t)
	client := netnstest.New(t)
	netnstest.Connect(t, r.space, client, []string{"10.99.0.1/16"}, []string{"10.99.0.66/16"})
	netnstest.NFT(t, r.space, `table ip docker {
		chain dstnat {
			type nat hook prerouting priority dstnat;
			udp dport 5090 redirect to :5060
		}
	}
	`)
	var server *net.UDPConn
	err := r.space.Do(func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5060})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	var phone net.Conn
	err = client.Do(func() (err error) {
		phone, err = net.Dial("udp4", "10.99.0.1:5090")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = phone.Close() }()
	send := func() (came bool) {
		t.Helper()
		if _, err := phone.Write([]byte("REGISTER")); err != nil {
			t.Fatal(err)
		}
		_ = server.SetReadDeadline(time.Now().Add(patience))
		_, _, err := server.ReadFromUDP(make([]byte, 100))
		return err == nil
	}
	if !send() {
		t.Fatal("the packet did not come through the NAT")
	}
	remote := phone.LocalAddr().(*net.UDPAddr)
	r.challenged("IPV4/UDP/172.17.0.2/5060", fmt.Sprintf("IPV4/UDP/%s/%d", remote.IP, remote.Port))
	r.untilClosed(5090, 5060)
	want := api.FoundPort{Protocol: "udp", Port: 5090, PBX: "pbx1", Behind: 5060}
	r.until("status says so", func() bool { return slices.Contains(r.status().Ports.Found, want) })

	// And a ban closes it: real packets.
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("10.99.0.66/32"),
		For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	before := dropped(r.status())
	if _, err := phone.Write([]byte("REGISTER")); err != nil {
		t.Fatal(err)
	}
	r.until("the packet is dropped", func() bool { return dropped(r.status()) > before })
	_ = server.SetReadDeadline(time.Now())
	if n, err := server.Read(make([]byte, 100)); err == nil {
		t.Errorf("a banned source got through the NAT: %d bytes", n)
	}
}

func dropped(s api.Status) (n uint64) {
	for _, c := range s.Kernel.Dropped {
		n += c.Count
	}
	return n
}

// An event of a banned source says that its ban stops nothing, whatever the cause.
func TestALeakIsToldEverywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *config.Config) {
		c.Firewall.Ports = config.Ports{UDP: []uint16{5060}, TCP: []uint16{5060}}
	})
	const bad = "IPV4/UDP/203.0.113.9/5060"
	r.attack(bad)
	r.await(ban.ActionBan, "203.0.113.9/32")
	if s := r.status(); !s.Healthy() || s.Leaking() {
		t.Fatalf("before: Asterisk %+v, the kernel %+v, configuration %+v, engine %+v", s.PBXs, s.Kernel, s.Config, s.Engine)
	}
	r.until("the leak is noticed", func() bool {
		r.challenged("IPV4/UDP/192.0.2.1/5080", bad)
		time.Sleep(50 * time.Millisecond)
		return r.status().Engine.Leaking == 1
	})
	if d := r.await(ban.ActionLeak, "203.0.113.9/32"); !strings.Contains(d.Detail, "UDP 192.0.2.1:5080") {
		t.Errorf("%+v", d)
	}
	s := r.status()
	if s.Healthy() || !s.Leaking() || s.Engine.Leaks == 0 {
		t.Errorf("status: %+v", s)
	}
	if _, ok := warned(s, "one banned source got through"); !ok {
		t.Errorf("warnings: %+v", s.Warnings)
	}
	p := r.d.Present()
	if p.Leaks == 0 || p.Leaking != 1 {
		t.Errorf("metrics: %+v", p)
	}
}

// A port of a connection that Asterisk has made itself is none at which it listens, and what a flood of odd addresses
// brings is bounded.
func TestWhatIsNoPortOfAsterisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.challenged("IPV4/TCP/192.0.2.1/45678", "IPV4/TCP/198.51.100.1/5060") // to a provider
	// somebody forges events, to lock out who is banned
	r.challenged("IPV4/TCP/192.0.2.1/22", "IPV4/TCP/198.51.100.1/5060")
	r.challenged("IPV4/UDP/127.0.0.1/5099", "IPV4/UDP/198.51.100.1/5060")
	r.challenged("IPV4/UDP/192.0.2.1/5098", "IPV4/UDP/127.0.0.1/5060")
	for i := range 3 * maxPorts {
		r.challenged(fmt.Sprintf("IPV4/UDP/192.0.2.1/%d", 6000+i), "IPV4/UDP/198.51.100.1/5060")
	}
	r.until("all ports that there is room for are found", func() bool {
		r.challenged("IPV4/UDP/192.0.2.1/7000", "IPV4/UDP/198.51.100.1/5060")
		r.challenged("IPV4/UDP/192.0.2.1/7001", "IPV4/UDP/198.51.100.1/5060")
		return len(r.status().Ports.Found) > maxPorts/2
	})
	s := r.status().Ports
	if len(s.Found) > maxPorts {
		t.Errorf("%d ports", len(s.Found))
	}
	for _, odd := range []uint16{45678, 22, 5099, 5098} {
		if slices.Contains(s.TCP, odd) || slices.Contains(s.UDP, odd) {
			t.Errorf("%d is closed: %+v", odd, s)
		}
	}
}
