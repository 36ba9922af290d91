package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
	"github.com/ringwall/ringwall/pkg/pipeline"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// rig is a daemon between an AMI server on loopback and the kernel in a namespace of its own.
type rig struct {
	t       *testing.T
	d       *Daemon
	server  *amiserver.Server
	address string
	space   *netns.Space
	client  *api.Client
	cfg     *config.Config
	calls   int
	lookup  hosts.Lookup // nil: DNS

	mu        sync.Mutex
	decisions []ban.Decision
	more      chan struct{}
	stop      func()

	stopServer func()
	patience   time.Duration // of the start
	clock      pipeline.Clock
}

func newRig(t *testing.T, change ...func(*config.Config)) *rig {
	t.Helper()
	r := &rig{t: t, space: netnstest.New(t), more: make(chan struct{}, 1)}
	r.serve("127.83.12.9:0") // where nobody takes the port while the server is away
	cfg := config.Default()
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "pbx1", r.address, "ringwall", config.NewSecret("s3cret")
	cfg.Asterisk = []config.Asterisk{a}
	cfg.Control.Socket = filepath.Join(t.TempDir(), "ringwall.sock")
	cfg.Metrics.Listen = "127.0.0.1:0"
	cfg.State.Path = filepath.Join(t.TempDir(), "state.db")
	for _, f := range change {
		f(&cfg)
	}
	r.cfg = &cfg
	r.client = &api.Client{Socket: cfg.Control.Socket}
	r.start()
	return r
}

// serve starts an AMI server and ends it with the test.
func (r *rig) serve(address string) {
	r.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.server = amiserver.New(amiserver.Config{AuthDelay: -1, Users: []amiserver.User{
		{Name: "ringwall", Secret: "s3cret", Read: amiserver.ClassSecurity},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	server := r.server
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	r.stopServer = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(r.stopServer)
}

// start runs the daemon until stop or the end of the test, and waits until it hears events.
func (r *rig) start() {
	r.t.Helper()
	d, err := New(Options{
		Config: r.cfg, NetNS: r.space.FD(), patience: r.patience, clock: r.clock,
		Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)), Version: "test",
		Lookup: r.lookup,
		OnDecision: func(d ban.Decision) {
			r.mu.Lock()
			r.decisions = append(r.decisions, d)
			r.mu.Unlock()
			select {
			case r.more <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.d = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("the daemon ended with: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	r.until("the session is up", func() bool { return d.pbxs[0].pbxStatus().Up && d.pbxs[0].sessionAddr.Load() != nil })
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("after %v still not: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// await waits for a decision of an action about a prefix.
func (r *rig) await(a ban.Action, prefix string) ban.Decision {
	r.t.Helper()
	want := netip.MustParsePrefix(prefix)
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		for i, d := range r.decisions {
			if d.Action == a && d.Prefix == want {
				r.decisions = append(r.decisions[:i], r.decisions[i+1:]...)
				r.mu.Unlock()
				return d
			}
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-deadline:
			r.t.Fatalf("no %s of %s", a, prefix)
		}
	}
}

// event sends one security event the way Asterisk writes it.
func (r *rig) event(name, account, session, remote, own string) {
	r.t.Helper()
	r.eventOf("PJSIP", name, account, session, remote, own)
}

func (r *rig) eventOf(service, name, account, session, remote, own string) {
	r.t.Helper()
	severity := "Error"
	if name == "ChallengeSent" || name == "SuccessfulAuth" {
		severity = "Informational"
	}
	text := fmt.Sprintf("Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: %s\r\nService: %s\r\n"+
		"EventVersion: 1\r\nAccountID: %s\r\nSessionID: %s\r\nLocalAddress: "+
		"IPV4/UDP/192.0.2.1/5060\r\nRemoteAddress: %s\r\n%s\r\n",
		name, time.Now().UTC().Format("2006-01-02T15:04:05.000+0000"), severity, service, account, session, remote, own)
	if r.server.Broadcast([]byte(text)) == 0 {
		r.t.Fatal("nobody heard the event")
	}
}

func (r *rig) scan(remote string) {
	r.calls++
	call := fmt.Sprintf("call-%d", r.calls)
	r.event("InvalidAccountID", fmt.Sprint(100+r.calls), call, remote, "")
	r.event("ChallengeSent", "<unknown>", call, remote, "Challenge: \r\n")
}

func (r *rig) attack(remote string) {
	for range 3 {
		r.scan(remote)
	}
}

func (r *rig) login(remote, account string) {
	r.calls++
	call := fmt.Sprintf("call-%d", r.calls)
	r.event("ChallengeSent", account, call, remote, "Challenge: \r\n")
	r.event("SuccessfulAuth", account, call, remote, "UsingPassword: 1\r\n")
}

// inKernel says what the kernel holds of a prefix, asked over a connection of its own.
func (r *rig) inKernel(k firewall.Kind, prefix string) (firewall.Element, bool) {
	r.t.Helper()
	table, err := firewall.Open(TableConfig(r.cfg, r.space.FD()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	elements, err := table.Elements(k)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, el := range elements {
		if el.Prefix == netip.MustParsePrefix(prefix) {
			return el, true
		}
	}
	return firewall.Element{}, false
}
