package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
)

// probe sends packets over a veth pair and sees which arrive. Sender and receiver are sockets of two namespaces in one
// thread: the kernel delivers a packet before sendto returns, or a little later where its backlog is another's turn.
type probe struct {
	out, in int
	to      unix.SockaddrInet4
	serial  uint64
}

// packetTimeout is how long a packet that has not arrived is waited for.
const packetTimeout = 3 * time.Millisecond

// newProbe makes a probe from an address of one namespace to port 5060 of another.
func newProbe(from, to *netns.Space, source, target netip.Addr) (*probe, error) {
	p := &probe{out: -1, in: -1, to: unix.SockaddrInet4{Port: 5060, Addr: target.As4()}}
	err := to.Do(func() (err error) {
		p.in, err = udpSocket(target, 5060)
		return err
	})
	if err == nil {
		err = from.Do(func() (err error) {
			p.out, err = udpSocket(source, 0)
			return err
		})
	}
	if err != nil {
		p.close()
	}
	return p, err
}

func udpSocket(a netip.Addr, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: a.As4()}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (p *probe) close() {
	for _, fd := range []int{p.out, p.in} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// sendPacket sends one packet, returns when it was sent and whether it arrived.
func (p *probe) sendPacket() (sent time.Time, ok bool, err error) {
	p.serial++
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], p.serial)
	sent = time.Now()
	if err := unix.Sendto(p.out, b[:], 0, &p.to); err != nil {
		return sent, false, err
	}
	for {
		n, _, err := unix.Recvfrom(p.in, b[:], 0)
		switch {
		case err == nil && n == len(b) && binary.NativeEndian.Uint64(b[:]) == p.serial:
			return sent, true, nil
		case err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return sent, false, err
		case time.Since(sent) > packetTimeout:
			return sent, false, nil
		}
	}
}

// awaitDrop sends packets until one and the five after it are dropped, and returns when that one was sent.
func (p *probe) awaitDrop(limit time.Duration, pause time.Duration) (time.Time, error) {
	var first time.Time
	missing := 0
	for began := time.Now(); time.Since(began) < limit; {
		sent, ok, err := p.sendPacket()
		switch {
		case err != nil:
			return first, err
		case ok:
			missing = 0
			sleepBriefly(pause)
			continue
		case missing == 0:
			first = sent
		}
		if missing++; missing == 6 {
			return first, nil
		}
	}
	return first, fmt.Errorf("after %v packets still pass", limit)
}

// sleepBriefly sleeps for some microseconds; time.Sleep takes up to a millisecond where nothing else runs. First it
// gives way: a timer so short is often over before the CPU has changed hands, and the program that is measured may
// wait for this very CPU, which on an idle machine it would have for itself.
func sleepBriefly(d time.Duration) {
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil)
}

// warmUp sends packets until some pass, so that the path is warm.
func (p *probe) warmUp() error {
	for n, tries := 0, 0; n < 20; tries++ {
		_, ok, err := p.sendPacket()
		if err != nil {
			return err
		}
		if ok {
			n++
		}
		if tries > 1000 {
			return errors.New("packets do not pass before the ban")
		}
	}
	return nil
}

// attackerAddress is the n-th address behind the cable.
func attackerAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 99, byte(2 + n/250), byte(1 + n%250)})
}

func addAttackers(s *netns.Space, n int) error {
	return s.Do(func() error {
		var all []string
		for i := range n {
			all = append(all, attackerAddress(i).String()+"/16")
		}
		return netns.BringUp("eth0", all...)
	})
}

// connectSpaces lays a cable from the target to whoever attacks it.
func connectSpaces(inside, outside *netns.Space) error {
	return netns.Connect(inside, outside, []string{target.String() + "/16"}, []string{"10.99.0.2/16"})
}

var target = netip.AddrFrom4([4]byte{10, 99, 0, 1})

// newAttackerSpace makes a namespace from which the attackers of all trials come.
func newAttackerSpace(inside *netns.Space, o *options) (*netns.Space, error) {
	outside, err := netns.New()
	if err != nil {
		return nil, err
	}
	err = connectSpaces(inside, outside)
	if err == nil {
		err = addAttackers(outside, o.trials)
	}
	if err != nil {
		return nil, errors.Join(err, outside.Close())
	}
	return outside, nil
}

// measureReaction measures how long an attacker's packets pass after the event that bans him is on the socket. It
// does so, in the same run, with the least that any program could do; and both once more while the CPUs are kept
// awake.
func measureReaction(ctx context.Context, o *options) error {
	if err := measureReactions(ctx, o, ""); err != nil {
		return err
	}
	sleep, err := keepCPUsAwake()
	if err != nil {
		fmt.Printf("  the CPUs cannot be kept awake here: %v\n", err)
		return nil
	}
	return errors.Join(measureReactions(ctx, o, ", CPUs kept awake"), sleep())
}

// measureReactions measures those of the program, and those of the reflex.
func measureReactions(ctx context.Context, o *options, note string) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	outside, err := newAttackerSpace(h.space, o)
	if err != nil {
		return err
	}
	defer func() { _ = outside.Close() }()
	if err := h.startDaemon(ctx, o); err != nil {
		return err
	}
	took, err := runTrials(ctx, o, h.space, outside, func() net.Conn { return *h.listener.latest.Load() })
	if err != nil {
		return err
	}
	h.killDaemon()
	least, err := measureReflex(ctx, o)
	if err != nil {
		return err
	}
	printQuantiles("event on the socket to the first dropped packet"+note, took)
	printQuantiles("the same by read(2) and one prepared transaction"+note, least)
	return nil
}

// runTrials has one attacker after the other banned.
func runTrials(ctx context.Context, o *options, inside, outside *netns.Space, line func() net.Conn) ([]time.Duration,
	error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range o.trials {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p, err := newProbe(outside, inside, attackerAddress(i), target)
		if err != nil {
			return nil, err
		}
		at, began, err := p.runTrial(line(), i)
		p.close()
		if err != nil {
			return nil, err
		}
		took = append(took, at.Sub(began))
		time.Sleep(5 * time.Millisecond)
	}
	return took, nil
}

// runTrial writes the event that bans the n-th attacker, and returns when his first dropped packet was sent and when
// the event was.
func (p *probe) runTrial(line net.Conn, n int) (at, began time.Time, err error) {
	if err := p.warmUp(); err != nil {
		return at, began, err
	}
	event := appendEvent(nil, time.Now(), honeypotAccount, n, "TCP", attackerAddress(n))
	began = time.Now()
	if _, err := line.Write(event); err != nil {
		return at, began, err
	}
	at, err = p.awaitDrop(patience, 5*time.Microsecond)
	return at, began, err
}
