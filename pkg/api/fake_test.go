package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// fake is a backend that remembers what it was asked.
type fake struct {
	mu         sync.Mutex
	bans       []BanRequest
	unbans     []UnbanRequest
	allows     []AllowRequest
	filter     BanFilter
	asked      netip.Addr
	since      time.Time
	list       []ban.Ban
	err        error
	restricted []ban.Restriction
	broken     error         // at the end of a list
	waiting    chan struct{} // told when a call begins, if not nil
	hold       chan struct{} // calls wait for it, if not nil
}

func (f *fake) call(ctx context.Context) error {
	if f.waiting != nil {
		f.waiting <- struct{}{}
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	return Status{Version: "test", Mode: "enforce", Started: noon, PBXs: []PBXStatus{{Name: "pbx1", Up: true}}},
		f.call(ctx)
}

func (f *fake) Account(ctx context.Context, name string) (AccountResult, error) {
	return AccountResult{Account: name}, f.call(ctx)
}

func (f *fake) Bans(ctx context.Context, filter BanFilter, each func([]ban.Ban) error) error {
	f.mu.Lock()
	f.filter = filter
	f.mu.Unlock()
	if err := f.call(ctx); err != nil {
		return err
	}
	for piece := range slices.Chunk(f.list, 1000) {
		if err := each(piece); err != nil {
			return err
		}
	}
	return f.broken
}

func (f *fake) Restricted(_ context.Context, within netip.Prefix, each func([]ban.Restriction) error) error {
	for _, r := range f.restricted {
		if !within.IsValid() || within.Overlaps(r.Prefix) {
			if err := each([]ban.Restriction{r}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fake) Trusted(ctx context.Context, each func([]ban.Trust) error) error {
	if err := f.call(ctx); err != nil {
		return err
	}
	return each([]ban.Trust{{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Accounts: []string{"201"}}})
}

func (f *fake) Allowed(ctx context.Context) ([]ban.Exemption, error) {
	return []ban.Exemption{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Origin: "host"}}, f.call(ctx)
}

func (f *fake) Protected(ctx context.Context) ([]ban.Exemption, error) {
	return []ban.Exemption{{Prefix: netip.MustParsePrefix("192.0.2.50/32"), Origin: "learned"}}, f.call(ctx)
}

func (f *fake) Page(ctx context.Context, by Peer) (PageResult, error) {
	return PageResult{Address: "http://127.0.0.1:9646/enter?ticket=x", Writable: true, Note: by.User}, f.call(ctx)
}

func (f *fake) Place(addr netip.Addr) ban.Place {
	if addr == netip.MustParseAddr("203.0.113.1") {
		return ban.Place{Country: "NL", ASN: 64496, ASName: "Example \"B.V.\" \x1b[2J"}
	}
	return ban.Place{}
}

func (f *fake) Ban(ctx context.Context, req BanRequest) (BanResult, error) {
	err := f.call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bans = append(f.bans, req)
	return BanResult{Prefix: req.Prefix, Duration: req.For.Seconds(), Since: noon, Until: noon.Add(req.For),
		Enforced: true}, err
}

func (f *fake) Unban(ctx context.Context, req UnbanRequest) (UnbanResult, error) {
	err := f.call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unbans = append(f.unbans, req)
	return UnbanResult{Removed: []netip.Prefix{req.Prefix}, Count: 1}, err
}

func (f *fake) Allow(ctx context.Context, req AllowRequest) (AllowResult, error) {
	err := f.call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allows = append(f.allows, req)
	return AllowResult{Entry: req.Host, Added: !req.Remove, Removed: req.Remove}, err
}

func (f *fake) Why(ctx context.Context, addr netip.Addr) (engine.Explanation, error) {
	f.mu.Lock()
	f.asked = addr
	f.mu.Unlock()
	return engine.Explanation{Address: addr, Verdict: "unknown"}, f.call(ctx)
}

func (f *fake) History(ctx context.Context, since time.Time, addr netip.Addr, each func([]ban.Decision) error) error {
	f.mu.Lock()
	f.since, f.asked = since, addr
	f.mu.Unlock()
	if err := f.call(ctx); err != nil {
		return err
	}
	return each([]ban.Decision{decision(1)})
}

func decision(n int) ban.Decision {
	addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
	return ban.Decision{
		Time: noon.Add(time.Duration(n) * time.Second), Action: ban.ActionBan, Source: addr,
		Prefix: netip.PrefixFrom(addr, 32),
		Reason: ban.ReasonWrongPassword, Points: 2, Score: 10, Account: "201", Duration: time.Hour, PBX: "pbx1",
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type running struct {
	server *Server
	client *Client
	log    *syncBuffer
	stop   func() error // ends Run and returns its error
}

// start runs a server on a socket of the test's own.
func start(t *testing.T, backend Backend, change func(*Server)) running {
	t.Helper()
	l, err := Listen(filepath.Join(t.TempDir(), "r.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	s := &Server{Listener: l, Backend: backend, Feed: NewFeed(10), Log: slog.New(slog.NewTextHandler(log, nil)),
		limits: defaultLimits()}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return running{s, &Client{Socket: l.Path()}, log, stop}
}

func (f *fake) RefreshList(context.Context, ListRefreshRequest) (ListStatus, error) {
	return ListStatus{}, nil
}

func (f *fake) ForgetNode(ctx context.Context, req ForgetRequest) (ForgetResult, error) {
	return ForgetResult{Node: req.Node, Prefixes: 3}, f.call(ctx)
}
