package hep

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarder sends packets on and never waits: what the kernel does not take at once is lost, and counted.
type forwarder struct {
	conn *net.UDPConn
	raw  syscall.RawConn

	// packet and err are the argument and the result of trySend, which is made once so that no packet needs memory.
	packet  []byte
	err     error
	trySend func(fd uintptr) bool

	sent, lost atomic.Uint64
}

func newForwarder(to netip.AddrPort) (*forwarder, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, fmt.Errorf("hep: cannot forward to %s: %w", to, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	f := &forwarder{conn: conn, raw: raw}
	f.trySend = func(fd uintptr) bool {
		_, f.err = unix.SendmsgN(int(fd), f.packet, nil, nil, unix.MSG_DONTWAIT)
		return true // not even when it would have to wait
	}
	return f, nil
}

// send is for one goroutine.
func (f *forwarder) send(b []byte) {
	// A connected socket reports with the next packet that nobody listened to the last one (udp(7)), and sends nothing.
	for range 2 {
		f.packet = b
		if err := f.raw.Write(f.trySend); err != nil {
			f.err = err
		}
		f.packet = nil
		if f.err != unix.ECONNREFUSED {
			break
		}
	}
	if f.err != nil {
		f.lost.Add(1)
		return
	}
	f.sent.Add(1)
}

func (f *forwarder) close() error { return f.conn.Close() }
