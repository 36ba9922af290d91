package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Socket buffers. A batch must fit the send buffer whole; both are limits, not memory that is taken.
const (
	sendBuffer    = 4 << 20
	receiveBuffer = 2 << 20
)

// maxDescriptor is where the library's pselect ends (FD_SETSIZE).
const maxDescriptor = 1024

// Conn is one lasting netlink connection, used through the library and, for elements, directly. Not lasting ones
// cost 16 ms for each deletion, because close waits for an RCU grace period.
type Conn struct {
	Nftables *nftables.Conn // for everything but elements
	Netlink  *netlink.Conn  // below it
	fd       int            // of the socket
	Commits  uint32         // transactions that the kernel took
}

// Dial opens a connection in the network namespace of a file descriptor, 0 for the process's own.
func Dial(netns int) (*Conn, error) {
	s := &Conn{}
	// The option is the library's only way to its connection. With it, the buffers are ours to set.
	keep := func(c *netlink.Conn) error {
		s.Netlink = c
		// Neither is fatal: without the capability the kernel cuts them to net.core.wmem_max and rmem_max, and
		// batches of elements fit these.
		_ = c.SetWriteBuffer(sendBuffer)
		_ = c.SetReadBuffer(receiveBuffer)
		return nil
	}
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns), nftables.WithSockOptions(keep))
	if err != nil {
		return nil, err
	}
	s.Nftables = lib
	if err := s.withDescriptor(func(fd int) { s.fd = fd }); err != nil {
		_ = lib.CloseLasting()
		return nil, err
	}
	if s.fd >= maxDescriptor {
		_ = lib.CloseLasting()
		return nil, fmt.Errorf("%d files are open in this process, the netlink socket must be among the first %d", s.fd,
			maxDescriptor)
	}
	return s, nil
}

// DumpSize is the largest message that the kernel packs a list into (netlink_dump in net/netlink/af_netlink.c), and
// some more.
const DumpSize = 64 << 10

// PrimeLargeDumps receives one message with a large buffer. The kernel remembers the largest that a socket came
// with and fills as much of it with a list, eight times what it does otherwise. For every message it walks a set
// from its beginning: so a list of 100,000 takes a fraction of the time.
func (c *Conn) PrimeLargeDumps() {
	question := netlink.Message{
		Header: netlink.Header{Type: Subsystem | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	}
	if _, err := c.Netlink.Send(question); err != nil {
		return
	}
	if ready, err := c.isReadable(); err != nil || !ready { // the kernel answers within Send
		return
	}
	room := make([]byte, DumpSize)
	_, _, _ = unix.Recvfrom(c.fd, room, unix.MSG_DONTWAIT)
}

// Close ends the connection.
func (c *Conn) Close() error { return c.Nftables.CloseLasting() }

// NetlinkPort is our netlink port, by which the kernel names the sender of a change.
func (c *Conn) NetlinkPort() uint32 { return c.Netlink.PID() }

func (c *Conn) withDescriptor(f func(fd int)) error {
	raw, err := c.Netlink.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// GrowSendBuffer makes the send buffer large enough for a batch.
func (c *Conn) GrowSendBuffer(size int) {
	if size > sendBuffer/2 {
		_ = c.Netlink.SetWriteBuffer(2*size + 4096)
	}
}

// Commit sends one transaction. The kernel answers while it is in send: no answer means that everything was
// committed, one error that nothing was.
func (c *Conn) Commit(transaction []byte) error {
	c.GrowSendBuffer(len(transaction))
	if err := c.sendUncopied(transaction); err != nil {
		return err
	}
	var first error
	for {
		ready, err := c.isReadable()
		if err != nil {
			return err
		}
		if !ready {
			if first == nil {
				c.Commits++
			}
			return first
		}
		if _, err := c.Netlink.Receive(); err != nil && first == nil {
			first = err
			if errors.Is(err, unix.EBADF) {
				return first
			}
		}
	}
}

// sendUncopied writes to the kernel past the library, which would copy it all once more. The socket is ours until
// close, and Table sends and closes under one lock.
func (c *Conn) sendUncopied(b []byte) error {
	for {
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("sendmsg", err)
		case n != len(b):
			return fmt.Errorf("the kernel took %d bytes of %d: %w", n, len(b), io.ErrShortWrite)
		}
		return nil
	}
}

func (c *Conn) isReadable() (bool, error) {
	p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// NewGeneration is the type of the last notice of each transaction (nf_tables_gen_notify in
// net/netfilter/nf_tables_api.c).
const NewGeneration = Subsystem | unix.NFT_MSG_NEWGEN

// Generation asks for the number of the ruleset's latest transaction.
func (c *Conn) Generation() (uint32, error) {
	replies, err := c.Netlink.Execute(netlink.Message{
		Header: netlink.Header{Type: Subsystem | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	for _, m := range replies {
		if m.Header.Type != NewGeneration || len(m.Data) < 4 {
			continue
		}
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Type == unix.NFTA_GEN_ID && len(a.Data) == 4 {
				return binary.BigEndian.Uint32(a.Data), nil
			}
		}
	}
	return 0, fmt.Errorf("%d replies, none of them the ruleset's generation", len(replies))
}
