package conntrack

import (
	"net"
	"net/netip"
	"testing"
)

// What comes to a published port has another one behind the NAT; the firewall sees the published one.
func TestEntranceIsThePortBeforeANAT(t *testing.T) {
	w := newWire(t)
	w.server.nft(t, `table inet docker {
		chain dstnat {
			type nat hook prerouting priority dstnat;
			udp dport 5080 redirect to :5060
			tcp dport 5081 redirect to :5061
		}
	}`)
	for _, tt := range []struct {
		name      string
		network   string
		src, to   string
		local     uint16
		published uint16
	}{
		{"a published port", "udp", client4, server4, 5060, 5080},
		{"a published port, over IPv6", "udp", client6, server6, 5060, 5080},
		{"the port itself", "udp", other4, server4, 5060, 5060},
		{"a published port, over TCP", "tcp", client4, server4, 5061, 5081},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := netip.AddrPortFrom(netip.MustParseAddr(tt.to), tt.published).String()
			remote := w.send(t, tt.network, tt.src, to, tt.local)
			got, known, err := Entrance(w.server.FD(), tt.network == "udp", tt.local, remote)
			if err != nil || got != tt.published || !known {
				t.Errorf("%d, %v, %v; want %d", got, known, err, tt.published)
			}
			stranger := netip.AddrPortFrom(remote.Addr(), remote.Port()^1)
			got, known, err = Entrance(w.server.FD(), tt.network == "udp", tt.local, stranger)
			if err != nil || got != tt.local || known {
				t.Errorf("of a flow that there is not: %d, %v, %v", got, known, err)
			}
		})
	}
}

// send makes a server at the local port hear something, and returns from where.
func (w *wire) send(t *testing.T, network, src, to string, local uint16) netip.AddrPort {
	t.Helper()
	var remote netip.AddrPort
	heard := make(chan netip.AddrPort, 1)
	err := w.server.Do(func() error {
		if network == "udp" {
			s, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(local)})
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = s.Close() })
			go func() {
				_, from, _ := s.ReadFromUDPAddrPort(make([]byte, 100))
				heard <- from
			}()
			return nil
		}
		s, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(local)})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = s.Close() })
		go func() {
			c, err := s.Accept()
			if err != nil {
				heard <- netip.AddrPort{}
				return
			}
			heard <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
			_, _ = c.Read(make([]byte, 100)) // until the client is gone
			_ = c.Close()
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = w.client.Do(func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(src)}, Timeout: patience}
		if network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(src)}
		}
		c, err := d.DialContext(t.Context(), network, to)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write([]byte("OPTIONS"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	remote = <-heard
	return netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
}
