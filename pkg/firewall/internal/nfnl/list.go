package nfnl

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	getElements = Subsystem | unix.NFT_MSG_GETSETELEM
	plainType   = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// Listed is an element of a hash set as the kernel lists it.
type Listed struct {
	Key           Key
	Timeout, Left time.Duration // 0: for ever
	Limit         Limit
}

// List asks for a list of a hash set and reads it message by message. The library's reader takes 300 bytes an
// element and holds them all.
func (c *Conn) List(ctx context.Context, table, set string, each func([]Listed) error) error {
	b := Transaction{table: table}
	at := b.beginMessage(getElements, netlink.Request|netlink.Dump)
	b.buf = append(b.buf, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	b.appendText(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.appendText(unix.NFTA_SET_ELEM_LIST_SET, set)
	b.endMessage(at)
	if err := c.sendUncopied(b.buf); err != nil {
		return err
	}
	room := make([]byte, DumpSize)
	var list []Listed
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.receive(room)
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
			case AddElements:
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
func (c *Conn) receive(room []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, room, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
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

var errListing = errors.New("the kernel's list makes no sense")

// appendListed reads one message of a list (nf_tables_dump_set and nf_tables_fill_setelem in
// net/netfilter/nf_tables_api.c).
func appendListed(list []Listed, body []byte) ([]Listed, error) {
	if len(body) < 4 { // struct nfgenmsg
		return list, errListing
	}
	for kind, elements := range eachAttribute(body[4:]) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range eachAttribute(elements) {
			var e Listed
			for kind, value := range eachAttribute(element) {
				switch {
				case kind == unix.NFTA_SET_ELEM_KEY:
					for kind, data := range eachAttribute(value) {
						if kind == unix.NFTA_DATA_VALUE {
							e.Key = parseKey(data)
						}
					}
				case kind == unix.NFTA_SET_ELEM_TIMEOUT && len(value) == 8:
					e.Timeout = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
				case kind == unix.NFTA_SET_ELEM_EXPIRATION && len(value) == 8:
					e.Left = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
				case kind == unix.NFTA_SET_ELEM_EXPR:
					e.Limit = parseLimit(value)
				}
			}
			if !e.Key.Addr.IsValid() {
				return list, errListing
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// parseLimit reads an element's limit, none where it is another expression.
func parseLimit(expr []byte) (l Limit) {
	for kind, data := range eachAttribute(expr) {
		if kind != unix.NFTA_EXPR_DATA {
			continue
		}
		for kind, value := range eachAttribute(data) {
			switch {
			case kind == unix.NFTA_LIMIT_RATE && len(value) == 8:
				l.Rate = binary.BigEndian.Uint64(value)
			case kind == unix.NFTA_LIMIT_UNIT && len(value) == 8:
				l.Unit = binary.BigEndian.Uint64(value)
			case kind == unix.NFTA_LIMIT_BURST && len(value) == 4:
				l.Burst = binary.BigEndian.Uint32(value)
			}
		}
	}
	return l
}

// eachAttribute yields netlink attributes and what is in them, up to one that does not fit.
func eachAttribute(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&plainType
			if size < unix.NLA_HDRLEN || size > len(b) || !yield(kind, b[unix.NLA_HDRLEN:size]) {
				return
			}
			b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}
