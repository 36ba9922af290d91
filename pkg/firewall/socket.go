package firewall

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Socket buffers. A batch must fit the send buffer whole; both are limits,
// not memory that is taken.
const (
	sendBuffer    = 4 << 20
	receiveBuffer = 2 << 20
)

// maxDescriptor is where the library's pselect ends (FD_SETSIZE).
const maxDescriptor = 1024

// socket is one lasting netlink connection, used through the library and,
// for elements, directly. Not lasting ones cost 16 ms for each deletion,
// because close waits for an RCU grace period.
type socket struct {
	lib *nftables.Conn
	nl  *netlink.Conn
	fd  int
	// commits counts the transactions that commit sent and the kernel took.
	commits uint32
}

func dial(netns int) (*socket, error) {
	s := &socket{}
	// The option is the library's only way to its connection. With it, the
	// buffers are ours to set.
	keep := func(c *netlink.Conn) error {
		s.nl = c
		// Neither is fatal: without the capability the kernel cuts them to
		// net.core.wmem_max and rmem_max, and batches of elements fit these.
		_ = c.SetWriteBuffer(sendBuffer)
		_ = c.SetReadBuffer(receiveBuffer)
		return nil
	}
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns), nftables.WithSockOptions(keep))
	if err != nil {
		return nil, explain("open a netlink socket", err)
	}
	s.lib = lib
	if err := s.control(func(fd int) { s.fd = fd }); err != nil {
		_ = lib.CloseLasting()
		return nil, err
	}
	if s.fd >= maxDescriptor {
		_ = lib.CloseLasting()
		return nil, fmt.Errorf("firewall: %d files are open in this process, the netlink socket must be among the first %d", s.fd, maxDescriptor)
	}
	return s, nil
}

// dumpSize is the largest message that the kernel packs a list into
// (netlink_dump in net/netlink/af_netlink.c), and some more.
const dumpSize = 64 << 10

// widen receives one message with a large buffer. The kernel remembers the
// largest that a socket came with and fills as much of it with a list, eight
// times what it does otherwise. For every message it walks a set from its
// beginning: so a list of 100,000 takes a fraction of the time.
func (s *socket) widen() {
	question := netlink.Message{
		Header: netlink.Header{Type: subsystem | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	}
	if _, err := s.nl.Send(question); err != nil {
		return
	}
	if ready, err := s.readable(); err != nil || !ready { // the kernel answers within Send
		return
	}
	room := make([]byte, dumpSize)
	_, _, _ = unix.Recvfrom(s.fd, room, unix.MSG_DONTWAIT)
}

func (s *socket) close() error { return s.lib.CloseLasting() }

func (s *socket) port() uint32 { return s.nl.PID() }

func (s *socket) control(f func(fd int)) error {
	raw, err := s.nl.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// room makes the send buffer large enough for a batch.
func (s *socket) room(size int) {
	if size > sendBuffer/2 {
		_ = s.nl.SetWriteBuffer(2*size + 4096)
	}
}

// commit sends one transaction. The kernel answers while it is in send: no
// answer means that everything was committed, one error that nothing was.
func (s *socket) commit(transaction []byte) error {
	s.room(len(transaction))
	if err := s.send(transaction); err != nil {
		return err
	}
	var first error
	for {
		ready, err := s.readable()
		if err != nil {
			return err
		}
		if !ready {
			if first == nil {
				s.commits++
			}
			return first
		}
		if _, err := s.nl.Receive(); err != nil && first == nil {
			first = err
			if errors.Is(err, unix.EBADF) {
				return first
			}
		}
	}
}

// send writes to the kernel past the library, which would copy it all once
// more. The socket is ours until close, and Table sends and closes under one lock.
func (s *socket) send(b []byte) error {
	for {
		n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("sendmsg", err)
		case n != len(b):
			return fmt.Errorf("firewall: the kernel took %d bytes of %d: %w", n, len(b), io.ErrShortWrite)
		}
		return nil
	}
}

func (s *socket) readable() (bool, error) {
	p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
