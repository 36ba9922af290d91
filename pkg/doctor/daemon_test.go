package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// told is a daemon that says what it is told to.
type told struct {
	api.Backend
	status  api.Status
	banned  bool
	allowed []ban.Exemption
	why     map[netip.Addr]engine.Explanation
	bans    []ban.Ban
}

func (b told) Status(context.Context) (api.Status, error) { return b.status, nil }

func (b told) Allowed(context.Context) ([]ban.Exemption, error) { return b.allowed, nil }

func (b told) Protected(context.Context) ([]ban.Exemption, error) { return nil, nil }

func (b told) Bans(_ context.Context, _ api.BanFilter, each func([]ban.Ban) error) error {
	return each(b.bans)
}

func (b told) Why(_ context.Context, a netip.Addr) (engine.Explanation, error) {
	if x, ok := b.why[a]; ok {
		return x, nil
	}
	x := engine.Explanation{Address: a}
	if b.banned {
		x.Ban = &ban.Ban{Prefix: netip.MustParsePrefix(a.String() + "/32")}
	}
	return x, nil
}

// asking is an examination beside such a daemon.
func asking(t *testing.T, b api.Backend) *exam {
	t.Helper()
	cfg := config.Default()
	cfg.Control.Socket = filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(cfg.Control.Socket, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &api.Server{Listener: l, Backend: b, Feed: api.NewFeed(1), Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &exam{Options: Options{ConfigPath: "/etc/ringwall/ringwall.yaml"}, cfg: &cfg, configLoaded: true,
		procFolder: t.TempDir()}
}

func TestWhatTheDaemonSays(t *testing.T) {
	well := func() api.Status {
		return api.Status{
			Version: "v1", PID: 1, Uptime: 3 * 86400, Mode: "enforce",
			Config: api.ConfigStatus{Path: "/etc/ringwall/ringwall.yaml"},
			PBXs:   []api.PBXStatus{{Name: "pbx1", Up: true, Events: 12}},
			Kernel: api.KernelStatus{OK: true, Desired: 3, Present: 3},
		}
	}
	for name, row := range map[string]struct {
		change func(*api.Status)
		link   string
		want   Result
		says   []string
	}{
		"well":     {func(*api.Status) {}, "daemon", OK, []string{"3 days"}},
		"hears":    {func(*api.Status) {}, "heard", OK, []string{"12 events"}},
		"enforces": {func(*api.Status) {}, "bans", OK, []string{"3 in force"}},
		"hears nothing": {func(s *api.Status) {
			s.PBXs[0].Up = false
			s.PBXs[0].LastError = "gone \x1b[31m"
			s.PBXs[0].Try = "start it"
		}, "heard", Fail, []string{`gone \x1b`, "start it"}},
		"nothing yet": {func(s *api.Status) { s.PBXs[0].Events = 0 }, "heard", Warn, []string{"no event yet"}},
		"table broken": {func(s *api.Status) { s.Kernel.OK = false; s.Kernel.LastError = "changed" }, "bans", Fail,
			[]string{"changed"}},
		"dry run": {func(s *api.Status) {
			s.Kernel = api.KernelStatus{DryRun: true,
				DryRunReason: "asked for"}
		}, "bans", Warn, []string{"asked for"}},
		"drift": {func(s *api.Status) { s.Kernel.Present = 1 }, "bans", Warn, []string{"only 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := well()
			row.change(&st)
			e := asking(t, told{status: st})
			e.examineDaemon(t.Context())
			is(t, one(t, e.checks, row.link), row.want, row.says...)
		})
	}
	for name, row := range map[string]struct {
		change func(*api.Status)
		want   Result
		says   string
	}{
		"an older configuration": {func(s *api.Status) { s.Config.Error = "line 4: unknown key" }, Fail, "line 4"},
		"another file": {func(s *api.Status) { s.Config.Path = "/etc/other.yaml" }, Warn,
			"--config /etc/other.yaml"},
		"a warning": {func(s *api.Status) {
			s.Warnings = []api.Warning{{Text: "look here",
				Try: "that"}}
		}, Warn, "look here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := well()
			row.change(&st)
			e := asking(t, told{status: st})
			e.examineDaemon(t.Context())
			list := of(e.checks, "daemon")
			if len(list) != 2 {
				t.Fatalf("%+v", e.checks)
			}
			is(t, list[1], row.want, row.says)
		})
	}
}

// young is a daemon that was started a moment ago: it has logged in when it is asked for the third time.
type young struct {
	told
	asked atomic.Int32
}

func (y *young) Status(context.Context) (api.Status, error) {
	st := y.status
	if y.asked.Add(1) < 3 {
		st.PBXs = []api.PBXStatus{{Name: "pbx1"}}
	}
	return st, nil
}

func TestADaemonThatWasJustStarted(t *testing.T) {
	y := &young{told: told{status: api.Status{
		Uptime: 0.1, PBXs: []api.PBXStatus{{Name: "pbx1", Up: true, Events: 1}},
		Kernel: api.KernelStatus{OK: true},
	}}}
	e := asking(t, y)
	e.examineDaemon(t.Context())
	is(t, one(t, e.checks, "heard"), OK, "1 event")
}

func TestADaemonThatProtectsNotEveryOwnAddress(t *testing.T) {
	b := told{allowed: []ban.Exemption{{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}, banned: true,
		status: api.Status{Kernel: api.KernelStatus{OK: true}}}
	e := asking(t, b)
	e.examineDaemon(t.Context())
	e.ownPrefixes = map[netip.Prefix]string{netip.MustParsePrefix("192.0.2.7/32"): "own address"}
	e.examineOwnPrefixes(t.Context(), e.subjectNamed(""))
	e.ownPrefixes[netip.MustParsePrefix("203.0.113.1/32")] = "default gateway"
	e.examineOwnPrefixes(t.Context(), e.subjectNamed(""))
	list := of(e.checks, "own")
	is(t, list[0], OK, "1 own address")
	is(t, list[1], Fail, "203.0.113.1/32", "ringwall allow add")

	e.Env.Lookup = func(string) (string, bool) { return "198.51.100.9 5000 192.0.2.7 22", true }
	e.examineSSHPeer(t.Context(), e.subjectNamed(""))
	is(t, one(t, e.checks, "ssh"), Warn, "ringwall unban 198.51.100.9 --grace 1h")
}

func TestADaemonThatCannotBeAsked(t *testing.T) {
	cfg := config.Default()
	cfg.Control.Socket = filepath.Join(t.TempDir(), "s")
	e := &exam{cfg: &cfg}
	e.examineDaemon(t.Context())
	is(t, one(t, e.checks, "daemon"), Fail, "does not run", "systemctl enable --now ringwall", "journalctl -u ringwall")

	l, err := net.Listen("unix", cfg.Control.Socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_ = c.Close()
			}
		}
	}()
	defer func() { _ = l.Close(); <-done }()
	e = &exam{cfg: &cfg}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	e.examineDaemon(ctx)
	is(t, one(t, e.checks, "daemon"), Fail, "cannot be asked")
}

// Whoever comes through a proxy on this machine is judged by nobody: doctor says so, and of nobody else.
func TestWhoComesThroughAProxyIsToldOf(t *testing.T) {
	allow := &ban.Exemption{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Origin: engine.OriginHost}
	guess := ban.Evidence{Service: "PJSIP", Transport: "WS", Account: "201", Reason: ban.ReasonWrongPassword}
	for name, row := range map[string]struct {
		x    engine.Explanation
		says []string
	}{
		"phones": {engine.Explanation{Allow: allow,
			Trust: &ban.Trust{Accounts: []string{"201", "202", "203"}}},
			[]string{"127.0.0.1", "3 accounts log in", "judged", "limit_req"}},
		"guessers": {engine.Explanation{Allow: allow, Evidence: []ban.Evidence{guess, guess}},
			[]string{"2 requests lately failed (WS)", "8089"}},
		"a phone here":      {engine.Explanation{Allow: allow, Trust: &ban.Trust{Accounts: []string{"201"}}}, nil},
		"a manager's login": {engine.Explanation{Allow: allow, Evidence: []ban.Evidence{{Service: "AMI"}}}, nil},
		"nobody":            {engine.Explanation{Allow: allow}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := asking(t, told{why: map[netip.Addr]engine.Explanation{netip.MustParseAddr("127.0.0.1"): row.x}})
			e.client = &api.Client{Socket: e.cfg.Control.Socket}
			e.daemon = &api.Status{}
			e.examineProxy(t.Context(), e.subjectNamed(""))
			list := of(e.checks, "proxy")
			if row.says == nil {
				if len(list) != 0 {
					t.Errorf("%+v", list)
				}
				return
			}
			is(t, one(t, list, "proxy"), Warn, row.says...)
		})
	}
}

func (b told) RefreshList(context.Context, api.ListRefreshRequest) (api.ListStatus, error) {
	return api.ListStatus{}, nil
}

func (b told) ForgetNode(context.Context, api.ForgetRequest) (api.ForgetResult, error) {
	return api.ForgetResult{}, nil
}
