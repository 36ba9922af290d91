package flows

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// crowd spreads flows over sources and ports.
func crowd(i int) (netip.Addr, uint16) {
	return netip.AddrFrom4([4]byte{10, 99, byte(100 + i/60000), byte(1 + i%250)}), uint16(1024 + i%60000)
}

type nothing struct{}

func (nothing) MatchConntrackFlow(*netlink.ConntrackFlow) bool { return false }

// BenchmarkTable is the cost of a look at a table that holds none of the
// source's flows: what each ban costs on a busy machine.
func BenchmarkTable(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"10k", 10_000}, {"200k", 200_000}} {
		b.Run(size.name, func(b *testing.B) {
			w := newWire(b)
			w.server.timeout(b, "udp_timeout", 3600)
			w.fill(b, size.n, crowd, 7000)
			tb, err := openTable(w.server.FD())
			if err != nil {
				b.Fatal(err)
			}
			defer tb.close()
			for _, ban := range []struct{ name, prefix string }{{"address", "192.0.2.1/32"}, {"network", "192.0.2.0/24"}} {
				b.Run(ban.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := tb.end(b.Context(), selectionOf(ban.prefix)); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			b.Run("library", func(b *testing.B) {
				h, err := netlink.NewHandleAt(netns.NsHandle(w.server.FD()), unix.NETLINK_NETFILTER)
				if err != nil {
					b.Fatal(err)
				}
				defer h.Close()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, nothing{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkEnd deletes 10,000 flows of one source.
func BenchmarkEnd(b *testing.B) {
	w := newWire(b)
	tb, err := openTable(w.server.FD())
	if err != nil {
		b.Fatal(err)
	}
	defer tb.close()
	source := netip.MustParseAddr(client4)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		w.fill(b, 10_000, func(i int) (netip.Addr, uint16) { return source, uint16(10_000 + i) }, 5060)
		b.StartTimer()
		if n, err := tb.end(b.Context(), selectionOf(client4+"/32")); err != nil || n != 10_000 {
			b.Fatal(n, err)
		}
	}
}

// selectionOf selects flows to SIP ports.
func selectionOf(prefixes ...string) *selection {
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	return newSelection(&Config{UDPPorts: []uint16{5060, 5061}, TCPPorts: []uint16{5060, 5038}}, list)
}
