package soak

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// trap is an account that no phone has: whoever asks for it is banned at once, so that one event is one ban.
const trap = "trap"

// host is a machine of its own: a namespace with an AMI server, which this process plays, and the program.
type host struct {
	t      *testing.T
	space  *netns.Space
	server *amiserver.Server
	line   *byteCounter
	ami    string // address of the server
	config string
	client *api.Client
	table  *firewall.Table // to look into the kernel; nothing is changed with it
	daemon *netns.Process
}

// newHost makes the machine; start starts the program. settings are further lines of the configuration.
func newHost(t *testing.T, settings string) *host {
	t.Helper()
	h := &host{t: t, space: netnstest.New(t), line: newLine()}
	l, err := h.space.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.ami = l.Addr().String()
	h.server = serveAMI(t, meteredListener{l, h.line}, amiserver.Config{})
	h.writeConfiguration(h.ami, settings)
	if h.table, err = firewall.Open(firewall.Config{NetNS: h.space.FD()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.table.Close() })
	return h
}

// writeConfiguration writes the configuration.
func (h *host) writeConfiguration(ami, settings string) {
	h.t.Helper()
	dir := h.t.TempDir()
	socket := filepath.Join(dir, "ringwall.sock")
	h.config = filepath.Join(dir, "ringwall.yaml")
	h.client = &api.Client{Socket: socket, Timeout: trial.Patience}
	text := fmt.Sprintf("asterisk:\n  - {name: pbx, address: %q, username: ringwall, secret: s3cret%s}\n"+
		"control: {socket: %q}\nstate: {path: %q}\n", ami, asteriskSettings(settings), socket,
		filepath.Join(dir, "state.db"))
	if !strings.HasPrefix(settings, ",") {
		text += settings
	}
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// asteriskSettings is settings that belong to the asterisk entry: those that begin with a comma.
func asteriskSettings(settings string) string {
	if strings.HasPrefix(settings, ",") {
		return settings
	}
	return ""
}

// serveAMI plays AMI until the test ends.
func serveAMI(t testing.TB, l net.Listener, cfg amiserver.Config) *amiserver.Server {
	cfg.AuthDelay, cfg.QueueBytes, cfg.WriteTimeout = -1, 1<<30, time.Hour
	cfg.Users = []amiserver.User{{Name: "ringwall", Secret: "s3cret", Read: amiserver.ClassSecurity}}
	server := amiserver.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return server
}

// startAndAwait starts the program and waits until it hears the server.
func (h *host) startAndAwait() {
	h.t.Helper()
	h.spawnDaemon()
	h.waitUntil("the daemon hears Asterisk", h.isUp)
}

func (h *host) spawnDaemon() {
	h.t.Helper()
	h.daemon = netnstest.Spawn(h.t, h.space, program, "run", "--config", h.config)
}

// stopDaemon ends the program as systemd does.
func (h *host) stopDaemon() {
	h.t.Helper()
	h.daemon.Stop(trial.Patience)
	if err := h.daemon.Wait(); err != nil {
		h.t.Fatalf("after SIGTERM: %v", err)
	}
}

// isUp says whether the program hears the server and keeps the table.
func (h *host) isUp() bool {
	select {
	case <-h.daemon.Exited():
		h.t.Fatalf("the daemon ended: %v", h.daemon.Wait())
	default:
	}
	s, err := h.client.Status(h.t.Context())
	return err == nil && s.Healthy() && s.PBXs[0].Events > 0
}

func (h *host) daemonStatus() api.Status {
	h.t.Helper()
	s, err := h.client.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) waitUntil(what string, ok func() bool) {
	h.t.Helper()
	trial.WaitUntil(h.t, what, ok)
}

// inKernel says whether the kernel holds a ban.
func (h *host) inKernel(p netip.Prefix) bool {
	h.t.Helper()
	_, ok, err := h.table.LookUpPrefix(firewall.Ban, p)
	if err != nil {
		h.t.Fatal(err)
	}
	return ok
}

// kernelBans lists the bans in the kernel.
func (h *host) kernelBans() map[netip.Prefix]firewall.Element {
	h.t.Helper()
	list, err := h.table.Elements(firewall.Ban)
	if err != nil {
		h.t.Fatal(err)
	}
	m := make(map[netip.Prefix]firewall.Element, len(list))
	for _, e := range list {
		m[e.Prefix] = e
	}
	return m
}

// memoryBytes reads a value of the program's /proc/PID/status, in bytes.
func (h *host) memoryBytes(key string) int {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.Cmd.Process.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == key+":" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				h.t.Fatal(err)
			}
			return kb << 10
		}
	}
	h.t.Fatalf("no %s", key)
	return 0
}

// cpuTime is the processor time that the program took so far (proc(5), /proc/PID/stat, in ticks of 10 ms).
func (h *host) cpuTime() time.Duration {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.daemon.Cmd.Process.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		h.t.Fatalf("%q", b)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// byteCounter counts what goes through a listener's connections, so that whoever feeds them need not run far ahead.
type byteCounter struct {
	mu      sync.Mutex
	moved   *sync.Cond
	written int
	broken  bool
}

func newLine() *byteCounter {
	l := &byteCounter{}
	l.moved = sync.NewCond(&l.mu)
	return l
}

// awaitBytes waits until n bytes have gone through, or a connection has ended.
func (l *byteCounter) awaitBytes(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.written < n && !l.broken {
		l.moved.Wait()
	}
}

func (l *byteCounter) byteCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

type meteredListener struct {
	net.Listener
	line *byteCounter
}

// Accept implements net.Listener.
func (m meteredListener) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return meteredConn{c, m.line}, nil
}

type meteredConn struct {
	net.Conn
	line *byteCounter
}

// Write implements net.Conn.
func (c meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.line.mu.Lock()
	c.line.written += n
	c.line.broken = c.line.broken || err != nil
	c.line.mu.Unlock()
	c.line.moved.Broadcast()
	return n, err
}
