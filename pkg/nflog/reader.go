package nflog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Errors that callers tell apart.
var (
	// ErrBusy is a group that another program reads. It stays his.
	ErrBusy = errors.New("nflog: another program reads this group")
	// ErrPermission is no CAP_NET_ADMIN.
	ErrPermission = errors.New("nflog: not permitted")
	// ErrUnsupported is a kernel without nfnetlink_log.
	ErrUnsupported = errors.New("nflog: the kernel does not support this")
)

// defaultReceiveBuffer is how many bytes of packets wait for a reader that is busy, with what the kernel counts in
// addition: thousands. It is a limit, not memory that is taken.
const defaultReceiveBuffer = 8 << 20

// longestMessage is more than the kernel sends in one: a batch is no longer than bufferFor, a packet no longer than
// 64 kB with some 200 bytes about it (nfulnl_log_packet in net/netfilter/nfnetlink_log.c).
const longestMessage = 128 << 10

// Config says what to read.
type Config struct {
	// Group is the number that the rules say, `log group 7`.
	Group uint16
	// NetNS is a file descriptor of the network namespace to work in, 0 for that of the calling thread.
	NetNS int
	// ReceiveBuffer is in bytes; 0 is 8 MB.
	ReceiveBuffer int
}

// Reader reads one group.
type Reader struct {
	group uint16
	conn  *netlink.Conn
	raw   syscall.RawConn

	buffer  []byte
	packet  Packet
	batcher batcher
	// read is readOnce, which leaves its result in got and failed: a closure would be one allocation for each call.
	read   func(fd uintptr) bool
	got    int
	failed error
	// next is the sequence number that the next packet has; counting is whether one came.
	next     uint32
	counting bool

	closed                             atomic.Bool
	packets, lost, overruns, incorrect atomic.Uint64
	threshold                          atomic.Int64
	lastHeard                          atomic.Int64 // nanoseconds since 1970; 0: never
}

// Stats are counts since the reader was opened.
type Stats struct {
	// Packets were handed on.
	Packets uint64
	// Lost are packets that the kernel copied and had no room for, by their sequence numbers. It is known with the next
	// packet that comes.
	Lost uint64
	// Overruns is how often the receive buffer was full.
	Overruns uint64
	// Malformed are messages of the kernel's that were not understood.
	Malformed uint64
	// Threshold is how many packets the kernel gathers at present.
	Threshold int
	// LastHeard is when the last packet came; zero: none.
	LastHeard time.Time
}

// Open binds the group. What is copied before [Reader.Run] waits in the kernel.
func Open(c Config) (*Reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: c.NetNS})
	if err != nil {
		return nil, fmt.Errorf("nflog: open a netlink socket: %w", err)
	}
	r := &Reader{group: c.Group, conn: conn, buffer: make([]byte, longestMessage), batcher: batcher{threshold: 1}}
	r.read = r.readOnce
	r.threshold.Store(1)
	if c.ReceiveBuffer == 0 {
		c.ReceiveBuffer = defaultReceiveBuffer
	}
	if err := r.bind(c.ReceiveBuffer); err != nil {
		_ = conn.Close()
		return nil, explain(c, err)
	}
	return r, nil
}

// bind makes the group ours, or says why it cannot be.
func (r *Reader) bind(receiveBuffer int) (err error) {
	if r.raw, err = r.conn.SyscallConn(); err != nil {
		return err
	}
	// A connected socket hears only whom it is connected to: the kernel (netlink_getsockbyportid in
	// net/netlink/af_netlink.c). So a plain read does, which tells no sender.
	err = r.raw.Control(func(fd uintptr) {
		r.failed = unix.Connect(int(fd), &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err = errors.Join(err, r.failed); err != nil {
		return os.NewSyscallError("connect", err)
	}
	_ = r.conn.SetReadBuffer(receiveBuffer) // without the capability it is net.core.rmem_max, and binding fails anyway
	err = r.ask(configure(r.group, netlink.Acknowledge, func(e *netlink.AttributeEncoder) {
		e.Uint8(configCommand, commandBind)
		// All that the rules say is copied (their snaplen): the range has 32 bits, and 0 stands for the largest.
		e.Bytes(configMode, []byte{0, 0, 0, 0, copyPacket, 0})
		e.Uint32(configTimeout, 1)
		e.Uint32(configThreshold, 1)
		e.Uint32(configBufferSize, bufferFor(1))
		e.Uint16(configFlags, flagSequence)
	}))
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	// The kernel says the same to whoever may not do it at all. He is not told that there is no such subsystem.
	const nobody = 0xff << 8
	none := netlink.Message{Header: netlink.Header{Type: nobody, Flags: netlink.Request | netlink.Acknowledge},
		Data: make([]byte, generalHeader)}
	if other := r.ask(none); other == nil || errors.Is(other, unix.EPERM) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return fmt.Errorf("%w: %w", ErrBusy, err)
}

// ask sends a message and waits for what the kernel says to it. Packets that come before are none of ours yet.
func (r *Reader) ask(m netlink.Message) error {
	sent, err := r.conn.Send(m)
	if err != nil {
		return err
	}
	for {
		if err := r.receive(); err != nil {
			return err
		}
		for rest := r.buffer[:r.got]; ; {
			kind, sequence, body, after, ok := nextMessage(rest)
			if !ok {
				break
			}
			if kind == unix.NLMSG_ERROR && sequence == sent.Header.Sequence {
				return errorOf(body)
			}
			rest = after
		}
	}
}

// receive waits for a message of the kernel's.
func (r *Reader) receive() error {
	if err := r.raw.Read(r.read); err != nil {
		return err
	}
	return r.failed
}

// readOnce is what the poller calls: false waits until there is something to read.
func (r *Reader) readOnce(fd uintptr) bool {
	for {
		r.got, r.failed = unix.Read(int(fd), r.buffer)
		switch {
		case errors.Is(r.failed, unix.EINTR):
			continue
		case errors.Is(r.failed, unix.EAGAIN):
			return false
		}
		return true
	}
}

// Run hands each packet to handle, on the calling goroutine, until [Reader.Close], which it answers with nil. The
// packet and what it shows are valid until handle returns. While handle works packets wait in the kernel, and are lost
// and counted when there is no room.
func (r *Reader) Run(handle func(*Packet)) error {
	r.batcher.began = time.Now()
	for {
		err := r.receive()
		now := time.Now()
		changed := false
		switch {
		case r.closed.Load():
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			changed = r.batcher.note(0, now)
		case errors.Is(err, unix.ENOBUFS):
			r.overruns.Add(1)
			changed = r.batcher.overrun()
		case err != nil:
			return fmt.Errorf("nflog: %w", err)
		default:
			changed = r.batcher.note(r.handleAll(now, handle), now)
		}
		if changed {
			if err := r.setThreshold(); err != nil && !r.closed.Load() {
				return fmt.Errorf("nflog: gather %d packets: %w", r.batcher.threshold, err)
			}
		}
		if r.batcher.threshold > 1 && now.Equal(r.batcher.began) || changed {
			r.waitNoLonger(now)
		}
	}
}

// waitNoLonger has receive come back while packets are gathered, so that this ends when no more come.
func (r *Reader) waitNoLonger(now time.Time) {
	var until time.Time
	if r.batcher.threshold > 1 {
		until = now.Add(windowTime * calmWindows)
	}
	_ = r.conn.SetReadDeadline(until)
}

// setThreshold tells the kernel how many packets to gather. It says nothing to that unless it does not want to.
func (r *Reader) setThreshold() error {
	r.threshold.Store(int64(r.batcher.threshold))
	_, err := r.conn.Send(configure(r.group, 0, func(e *netlink.AttributeEncoder) {
		e.Uint32(configThreshold, uint32(r.batcher.threshold))
		e.Uint32(configBufferSize, bufferFor(r.batcher.threshold))
	}))
	return err
}

// handleAll hands on the packets that were read, and says how many there were.
func (r *Reader) handleAll(now time.Time, handle func(*Packet)) (packets int) {
	for rest := r.buffer[:r.got]; len(rest) > 0; {
		kind, _, body, after, ok := nextMessage(rest)
		if !ok {
			r.incorrect.Add(1)
			break
		}
		rest = after
		switch kind {
		case packetMessage:
			packets++
			r.packet = Packet{Time: now}
			sequence, told, err := parsePacket(body, &r.packet)
			if err != nil {
				r.incorrect.Add(1)
				continue
			}
			if told {
				r.countLost(sequence)
			}
			handle(&r.packet)
		case unix.NLMSG_ERROR: // the kernel did not want what setThreshold said
			if errorOf(body) != nil {
				r.incorrect.Add(1)
			}
		}
	}
	if packets > 0 {
		r.packets.Add(uint64(packets))
		r.lastHeard.Store(now.UnixNano())
	}
	return packets
}

// countLost counts the packets between the last one and this.
func (r *Reader) countLost(sequence uint32) {
	if gap := sequence - r.next; r.counting && int32(gap) > 0 {
		r.lost.Add(uint64(gap))
	}
	r.next, r.counting = sequence+1, true
}

// Stats may be asked for at any time, from any goroutine.
func (r *Reader) Stats() Stats {
	s := Stats{Packets: r.packets.Load(), Lost: r.lost.Load(), Overruns: r.overruns.Load(),
		Malformed: r.incorrect.Load(), Threshold: int(r.threshold.Load())}
	if at := r.lastHeard.Load(); at != 0 {
		s.LastHeard = time.Unix(0, at)
	}
	return s
}

// Close gives the group back and ends Run.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.conn.Close()
}

// explain says what to try.
func explain(c Config, err error) error {
	switch {
	case errors.Is(err, ErrBusy):
		whose := ""
		if c.NetNS == 0 {
			whose = holder(c.Group)
		}
		return hint.Errorf("choose a number that no other rule and no program uses: /proc/net/netfilter/nfnetlink_log "+
			"lists the groups that are read", "%w: %d%s", ErrBusy, c.Group, whose)
	case errors.Is(err, ErrPermission):
		return hint.Errorf("run as root or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
			"%w: read group %d (%w)", ErrPermission, c.Group, unix.EPERM)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return hint.Errorf("modprobe nfnetlink_log, on the host where this is a container",
			"%w: read group %d (%w)", ErrUnsupported, c.Group, err)
	}
	return fmt.Errorf("nflog: read group %d: %w", c.Group, err)
}

// holder says who reads a group, as far as it is to be known: the kernel tells a netlink port, which is the number of
// the process for its first socket.
func holder(group uint16) string {
	// nfnl_log's seq_show in net/netfilter/nfnetlink_log.c: group, port, packets, mode, range, timeout, references.
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != strconv.Itoa(int(group)) {
			continue
		}
		name, err := os.ReadFile("/proc/" + fields[1] + "/comm")
		if err != nil {
			return ", of netlink port " + fields[1]
		}
		return fmt.Sprintf(", of %s (process %s)", strings.TrimSpace(string(name)), fields[1])
	}
	return ""
}
