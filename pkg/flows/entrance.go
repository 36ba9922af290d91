package flows

import (
	"context"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Entrance returns the port to which a remote address sends what a server gets at its port local: another one where a
// NAT before the server, such as a port that Docker publishes, has changed it. That is the port that a chain at
// prerouting priority -300 sees. known is false, and the port is local, where the kernel knows no flow that the remote
// address began. netns is the descriptor of the network namespace that the flow comes through, 0 for that of the
// calling thread.
func Entrance(
	ctx context.Context, netns int, udp bool, local uint16, remote netip.AddrPort,
) (port uint16, known bool, err error) {
	t, err := openTable(netns)
	if err != nil {
		return local, false, err
	}
	defer t.close()
	port = local
	proto := uint8(unix.IPPROTO_TCP)
	if udp {
		proto = unix.IPPROTO_UDP
	}
	from := remote.Addr().Unmap().WithZone("")
	err = t.dump(only(from, ctaTupleOrig, ctaFilterOrig), func(f *flow) bool {
		o, r := &f.orig, &f.reply
		if o.proto == proto && o.src == from && o.sport == remote.Port() && r.sport == local {
			port, known = o.dport, true
			return false
		}
		return ctx.Err() == nil
	})
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return local, false, explain("read the table of flows", err)
	}
	return port, known, ctx.Err()
}
