package flows

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Why the kernel's table of flows cannot be read; the log says what to try.
var (
	ErrMissing    = errors.New("flows: this kernel has no nf_conntrack_netlink")
	ErrPermission = errors.New("flows: the kernel does not permit it")
)

// The kernel's own filter of a dump: which parts of a tuple must be equal.
const (
	ctaFilterOrig  = 1
	ctaFilterReply = 2
	filterSource   = 1 << 0 // CTA_FILTER_F_CTA_IP_SRC, net/netfilter/nf_internals.h
)

const (
	// chunk bounds the flows that are remembered while the table is read: a
	// table may hold millions, and a ban must not cost their memory.
	chunk     = 8192
	maxRounds = 128
	// answerTimeout is for one message of the kernel, which answers at once.
	answerTimeout = 5 // seconds
)

// table is a netlink socket to the kernel's table of flows.
type table struct {
	socket *nl.SocketHandle
}

func openTable(fd int) (*table, error) {
	ns := netns.None()
	if fd != 0 {
		ns = netns.NsHandle(fd)
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, explain("open a netlink socket to netfilter", err)
	}
	_ = s.SetReceiveTimeout(&unix.Timeval{Sec: answerTimeout})
	_ = s.SetSendTimeout(&unix.Timeval{Sec: answerTimeout})
	return &table{socket: &nl.SocketHandle{Socket: s}}, nil
}

func (t *table) close() { t.socket.Close() }

// request starts a message of ctnetlink.
func (t *table) request(op, flags int, body []byte) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|op, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: t.socket}
	req.AddRawData(body)
	return req
}

// end deletes what the selection takes. Reading comes before deleting, since
// one socket cannot do both at once.
func (t *table) end(ctx context.Context, s *selection) (int, error) {
	return rounds(ctx,
		func() ([][]byte, error) { return t.find(ctx, s) },
		func(names [][]byte) (int, error) { return t.delete(ctx, names) })
}

// rounds finds and deletes until all is deleted that was to be found. It goes
// on only while that makes progress, and not for ever where flows come back:
// the ban may be missing, and a look must not keep the next one waiting.
func rounds(ctx context.Context, find func() ([][]byte, error), del func([][]byte) (int, error)) (total int, err error) {
	again := true
	for range maxRounds {
		names, err := find()
		interrupted := errors.Is(err, nl.ErrDumpInterrupted)
		if err != nil && !interrupted {
			return total, explain("read the table of flows", err)
		}
		n, err := del(names)
		total += n
		switch {
		case err != nil:
			return total, explain("delete a flow", err)
		case ctx.Err() != nil:
			return total, ctx.Err()
		case len(names) >= chunk && n > 0:
		case interrupted && again:
			again = false // some may have been missed
		default:
			return total, nil
		}
	}
	return total, nil
}

// find returns the names of up to chunk flows.
func (t *table) find(ctx context.Context, s *selection) (names [][]byte, err error) {
	for _, q := range queries(s) {
		e := t.dump(q, func(f *flow) bool {
			if ctx.Err() != nil || len(names) == chunk {
				return false
			}
			if s.takes(f) {
				names = append(names, f.appendName(nil))
			}
			return true
		})
		if e != nil && !errors.Is(e, nl.ErrDumpInterrupted) {
			return nil, e
		}
		if e != nil {
			err = e
		}
		if len(names) == chunk {
			break
		}
	}
	return names, err
}

// dump reads the table; f says whether it wants to see more.
func (t *table) dump(query []byte, f func(*flow) bool) error {
	var fl flow
	return t.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, query).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		return !parse(msg, &fl) || f(&fl)
	})
}

// delete counts what it has deleted. A flow that is gone already is no error.
func (t *table) delete(ctx context.Context, names [][]byte) (n int, first error) {
	for _, name := range names {
		if ctx.Err() != nil {
			return n, first
		}
		_, err := t.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, name).Execute(unix.NETLINK_NETFILTER, 0)
		switch {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT) && first == nil:
			first = err
		}
	}
	return n, first
}

// queries returns the bodies of the dumps that show every flow of the
// selection.
func queries(s *selection) [][]byte {
	family := byte(unix.AF_UNSPEC)
	switch {
	case len(s.bits6) == 0:
		family = unix.AF_INET
	case len(s.bits4) == 0:
		family = unix.AF_INET6
	}
	// One address, the usual case, the kernel finds for itself: it then walks
	// the table twice without copying it, in a quarter of the time. Not so for
	// IPv6, see only.
	if len(s.prefixes) == 1 {
		if p := s.prefixes[0]; p.IsSingleIP() && p.Addr().Is4() {
			return [][]byte{only(p.Addr(), ctaTupleOrig, ctaFilterOrig), only(p.Addr(), ctaTupleReply, ctaFilterReply)}
		}
	}
	return [][]byte{header(family)}
}

func header(family byte) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }

// only asks for the flows with this source in one direction. Kernels before
// 5.8 do not know the filter and show all, which is why each flow is looked
// at in any case. Of an IPv6 source all are asked for: there the kernel's
// filter leaves out what it should show (ctnetlink_filter_match_tuple in
// net/netfilter/nf_conntrack_netlink.c takes equal addresses for different
// ones).
func only(a netip.Addr, tuple, flags uint16) []byte {
	if a.Is6() {
		return header(unix.AF_INET6)
	}
	b := nest(header(unix.AF_INET), tuple, nest(nil, ctaTupleIP, appendAttr(nil, ctaIPv4Source, a.AsSlice())))
	return nest(b, ctaFilter, appendAttr(nil, flags, binary.NativeEndian.AppendUint32(nil, filterSource)))
}

func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %s: %w", ErrPermission, what, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		// nfnetlink answers EINVAL for a subsystem that is not loaded
		// (net/netfilter/nfnetlink.c, nfnetlink_rcv_msg).
		return fmt.Errorf("%w: %s: %w", ErrMissing, what, err)
	}
	return fmt.Errorf("flows: %s: %w", what, err)
}
