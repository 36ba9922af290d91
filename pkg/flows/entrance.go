package flows

import (
	"context"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Entrance returns the port to which a remote address sends what a server gets at its port local: another one where a NAT
// before the server, such as a port that Docker publishes, has changed it. That is the port that a chain at prerouting
// priority -300 sees. It is local where the kernel knows no such flow. netns is the descriptor of the network namespace that
// the flow comes through, 0 for that of the calling thread.
func Entrance(ctx context.Context, netns int, udp bool, local uint16, remote netip.AddrPort) (uint16, error) {
	t, err := openTable(netns)
	if err != nil {
		return local, err
	}
	defer t.close()
	proto, port := uint8(unix.IPPROTO_TCP), local
	if udp {
		proto = unix.IPPROTO_UDP
	}
	from := remote.Addr().Unmap().WithZone("")
	err = t.dump(only(from, ctaTupleOrig, ctaFilterOrig), func(f *flow) bool {
		o, r := &f.orig, &f.reply
		if o.proto == proto && o.src == from && o.sport == remote.Port() && r.sport == local {
			port = o.dport
			return false
		}
		return ctx.Err() == nil
	})
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return local, explain("read the table of flows", err)
	}
	return port, ctx.Err()
}
