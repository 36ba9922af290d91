package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	msgGetElem = subsystem | unix.NFT_MSG_GETSETELEM
	plainType  = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// Walk calls each with what the kernel holds of a kind, some hundred at a
// time, as the kernel hands them out. The kernel takes time with the square
// of their number (437,000 in 10 to 25 s), but other changes go on meanwhile,
// and no more than a piece of them is held in memory. whole is false where a
// ruleset was changed during the walk, whichever it was: then some may have
// been missed, and some given twice. So it may be while the kernel, in the
// background, resizes a hash table after thousands have come or gone, which
// nothing tells. An error of each ends the walk.
func (t *Table) Walk(ctx context.Context, k Kind, each func([]Element) error) (whole bool, err error) {
	if t.isClosed() {
		return false, ErrClosed
	}
	// A connection of its own, so that Verify and Has need not wait.
	cfg := t.config()
	s, err := dial(cfg.NetNS)
	if err != nil {
		return false, err
	}
	defer func() { _ = s.close() }()
	s.widen()
	before, err := s.generation()
	if err != nil {
		return false, explain("list "+k.String()+"s", err)
	}
	for i, d := range t.defs {
		if d.kind != k || !cfg.used(setID(i)) {
			continue
		}
		if err := t.walk(ctx, s, setID(i), each); err != nil {
			return false, explain("list set "+d.name, err)
		}
	}
	// The kernel marks no list of elements as interrupted.
	after, err := s.generation()
	if err != nil {
		return false, explain("list "+k.String()+"s", err)
	}
	return after == before, nil
}

// walk is Walk for one set.
func (t *Table) walk(ctx context.Context, s *socket, id setID, each func([]Element) error) error {
	d := t.defs[id]
	if d.shape == interval {
		spans, err := t.listSpans(s, id)
		if err != nil {
			return err
		}
		list := elementsOf(d.kind, spans, time.Now())
		if len(list) == 0 {
			return nil
		}
		return each(list)
	}
	return s.walk(ctx, t.cfg.Table, d.name, func(list []listed) error {
		elements := make([]Element, 0, len(list))
		for _, e := range list {
			if d.bits > e.key.BitLen() {
				return fmt.Errorf("firewall: set %s has a key of %d bits", d.name, e.key.BitLen())
			}
			elements = append(elements, Element{Kind: d.kind, Prefix: netip.PrefixFrom(e.key, d.bits), Timeout: e.timeout, Remaining: e.left})
		}
		return each(elements)
	})
}

// listed is an element of a hash set as the kernel lists it.
type listed struct {
	key           netip.Addr
	timeout, left time.Duration // 0: for ever
}

// walk asks for a list of a hash set and reads it message by message. The
// library's reader takes 300 bytes an element and holds them all.
func (s *socket) walk(ctx context.Context, table, set string, each func([]listed) error) error {
	b := batch{table: table}
	at := b.message(msgGetElem, netlink.Request|netlink.Dump)
	b.buf = append(b.buf, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	b.done(at)
	if err := s.send(b.buf); err != nil {
		return err
	}
	room := make([]byte, dumpSize)
	var list []listed
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.receive(room)
		if err != nil {
			return err
		}
		list = list[:0]
		for msgs := room[:n]; len(msgs) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(msgs))
			if size < unix.NLMSG_HDRLEN || size > len(msgs) {
				return errListing
			}
			body := msgs[unix.NLMSG_HDRLEN:size]
			switch binary.NativeEndian.Uint16(msgs[4:]) {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
						return os.NewSyscallError("netlink receive", syscall.Errno(-code))
					}
				}
				if len(list) > 0 {
					return each(list)
				}
				return nil
			case msgAddElem:
				if list, err = appendListed(list, body); err != nil {
					return err
				}
			}
			msgs = msgs[min(len(msgs), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
		if len(list) > 0 {
			if err := each(list); err != nil {
				return err
			}
		}
	}
}

// receive reads one message, and waits for it.
func (s *socket) receive(room []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, room, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
			switch n, err := unix.Poll(p, int(answerTime/time.Millisecond)); {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return 0, os.NewSyscallError("poll", err)
			case n == 0: // it makes a list within send and receive
				return 0, os.NewSyscallError("poll", unix.ETIMEDOUT)
			}
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		default:
			return n, nil
		}
	}
}

// answerTime is for the kernel to have something to receive.
const answerTime = time.Minute

var errListing = errors.New("firewall: the kernel's list makes no sense")

// appendListed reads one message of a list (nf_tables_dump_set and
// nf_tables_fill_setelem in net/netfilter/nf_tables_api.c).
func appendListed(list []listed, body []byte) ([]listed, error) {
	if len(body) < 4 { // struct nfgenmsg
		return list, errListing
	}
	for kind, elements := range attributes(body[4:]) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range attributes(elements) {
			var e listed
			for kind, value := range attributes(element) {
				switch {
				case kind == unix.NFTA_SET_ELEM_KEY:
					for kind, data := range attributes(value) {
						if kind == unix.NFTA_DATA_VALUE {
							e.key, _ = netip.AddrFromSlice(data)
						}
					}
				case kind == unix.NFTA_SET_ELEM_TIMEOUT && len(value) == 8:
					e.timeout = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
				case kind == unix.NFTA_SET_ELEM_EXPIRATION && len(value) == 8:
					e.left = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
				}
			}
			if !e.key.IsValid() {
				return list, errListing
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// attributes yields netlink attributes and what is in them, up to one that does not fit.
func attributes(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&plainType
			if size < attrHeader || size > len(b) || !yield(kind, b[attrHeader:size]) {
				return
			}
			b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}
