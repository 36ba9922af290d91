package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
)

// honeypotAccount is the account of the honeypot: one event for it is one ban.
const honeypotAccount = "trap"

// host is a machine of its own: a namespace with the AMI server, which this process plays, and the program.
type host struct {
	space    *netns.Space
	server   *amiserver.Server
	client   *api.Client
	table    *firewall.Table // to look into the kernel
	config   string
	daemon   *netns.Process // while it runs
	listener *latestConnListener
	stop     func()
}

// newHost makes the machine. The program is not started.
func newHost(ctx context.Context, o *options) (h *host, err error) {
	h = &host{stop: func() {}}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.space, err = netns.New(); err != nil {
		return h, err
	}
	dir, err := os.MkdirTemp(o.dir, "host-")
	if err != nil {
		return h, err
	}
	if err := h.serveAMI(ctx); err != nil {
		return h, err
	}
	socket := filepath.Join(dir, "ringwall.sock")
	h.client = &api.Client{Socket: socket, Timeout: patience}
	h.config = filepath.Join(dir, "ringwall.yaml")
	text := fmt.Sprintf("asterisk:\n  - {name: pbx, address: %q, username: ringwall, secret: s3cret}\n"+
		"policy: {honeypots: [%s]}\nmetrics: {listen: %q}\ncontrol: {socket: %q}\nstate: {path: %q}\n",
		address, honeypotAccount, "127.0.0.1:9646", socket, filepath.Join(dir, "state.db"))
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		return h, err
	}
	h.table, err = firewall.Open(firewall.Config{NetNS: h.space.FD()})
	return h, err
}

// address is where the AMI server listens, in the host's namespace.
const address = "127.0.0.1:5038"

// serveAMI plays AMI until stop.
func (h *host) serveAMI(ctx context.Context) error {
	l, err := h.space.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	h.listener = &latestConnListener{Listener: l}
	h.server = amiserver.New(amiserver.Config{AuthDelay: -1, QueueBytes: 1 << 30, WriteTimeout: time.Hour,
		Users: []amiserver.User{{Name: "ringwall", Secret: "s3cret", Read: amiserver.ClassSecurity}}})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = h.server.Serve(ctx, h.listener) }()
	h.stop = func() { cancel(); <-done }
	return nil
}

// latestConnListener keeps the latest connection of a listener, so that an event can be put on the socket without
// another goroutine.
type latestConnListener struct {
	net.Listener
	latest atomic.Pointer[net.Conn]
}

// Accept implements net.Listener.
func (t *latestConnListener) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err == nil {
		t.latest.Store(&c)
	}
	return c, err
}

func (h *host) close() {
	h.killDaemon()
	h.stop()
	if h.table != nil {
		_ = h.table.Close()
	}
	_ = h.space.Close()
}

// startDaemon starts the program and waits until it hears the server and keeps the table.
func (h *host) startDaemon(ctx context.Context, o *options) error {
	var err error
	if h.daemon, err = h.space.Start(exec.CommandContext(ctx, o.program, "run", "--config", h.config)); err != nil {
		return err
	}
	err = waitUntil(ctx, "the daemon hears Asterisk", func() bool {
		s, err := h.client.Status(ctx)
		return err == nil && s.Healthy() && s.PBXs[0].Events > 0
	})
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, h.daemon.Output())
	}
	return nil
}

// endDaemon ends the program as systemd does.
func (h *host) endDaemon() error {
	if err := h.daemon.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-h.daemon.Exited():
		h.daemon = nil
		return nil
	case <-time.After(patience):
		return errors.New("the daemon does not end")
	}
}

func (h *host) killDaemon() {
	if h.daemon != nil {
		h.daemon.Kill()
		h.daemon = nil
	}
}

// countHandled asks how many events the program has judged, and how many frames it gave up.
func (h *host) countHandled(ctx context.Context) (events, dropped uint64, err error) {
	s, err := h.client.Status(ctx)
	if err != nil {
		return 0, 0, err
	}
	return s.PBXs[0].Events, s.PBXs[0].DroppedFrames, nil
}

func (h *host) inKernel(a netip.Addr) bool {
	_, ok, err := h.table.LookUpPrefix(firewall.Ban, netip.PrefixFrom(a, a.BitLen()))
	return ok && err == nil
}

// cpuTimes is the processor time of the program (proc(5), /proc/PID/stat, in ticks of 10 ms).
func (h *host) cpuTimes() (user, system time.Duration, err error) {
	t, err := statTimes(h.daemon.Cmd.Process.Pid)
	return t[0], t[1], err
}

// cpuTimeWithChildren is the processor time of a program and of those that it started and waited for.
func cpuTimeWithChildren(pid int) (time.Duration, error) {
	t, err := statTimes(pid)
	return t[0] + t[1] + t[2] + t[3], err
}

// statTimes reads utime, stime, cutime and cstime of /proc/PID/stat.
func statTimes(pid int) (t [4]time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return t, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	for i := range t {
		n, err := strconv.Atoi(f[11+i])
		if err != nil {
			return t, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		t[i] = time.Duration(n) * 10 * time.Millisecond
	}
	return t, nil
}

// threadTime is the processor time of all threads of the program, in ns resolution (/proc/PID/task/TID/schedstat).
// Threads that ended are missing.
func (h *host) threadTime() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", h.daemon.Cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// memoryMB reads a value of /proc/PID/status, in MB.
func (h *host) memoryMB(key string) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.Cmd.Process.Pid))
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == key+":" {
			kb, _ := strconv.Atoi(f[1])
			return float64(kb) * 1024 / 1e6
		}
	}
	return 0
}
