package notify

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book is a log and the counters of a Notifier.
type book struct {
	mu     sync.Mutex
	text   bytes.Buffer
	counts map[string]int
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *book) count(target, result string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts == nil {
		b.counts = make(map[string]int)
	}
	b.counts[target+" "+result] += n
}

func (b *book) total(of string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[of]
}

func (b *book) options() Options {
	return Options{Log: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), Count: b.count}
}

// scripted is a sender that answers from a script, and then always with success.
type scripted struct {
	mu     sync.Mutex
	script []error
	takes  time.Duration
	got    []message.Message
	at     []time.Time
	ended  bool
}

func (s *scripted) sendMessage(ctx context.Context, m message.Message) error {
	if s.takes > 0 {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return networkFailure(ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
	if len(s.script) > 0 {
		err := s.script[0]
		s.script = s.script[1:]
		if err != nil {
			return err
		}
	}
	s.got = append(s.got, m)
	return nil
}

func (s *scripted) close() { s.ended = true }

func (s *scripted) messages() []message.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]message.Message(nil), s.got...)
}

func team(change ...func(*config.Notify)) config.Notify {
	cfg := config.DefaultNotify()
	cfg.Name, cfg.Method, cfg.URL = "team", "POST", config.NewSecret("https://127.0.0.1/")
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// play runs a Notifier with one target and its scripted sender. stop ends it and waits.
func play(t *testing.T, s *scripted, change ...func(*config.Notify)) (n *Notifier, b *book, stop func()) {
	t.Helper()
	b = new(book)
	n, err := New([]config.Notify{team(change...)}, b.options())
	if err != nil {
		t.Fatal(err)
	}
	n.targets[0].sender = s
	return n, b, run(t, n)
}

func run(t *testing.T, n *Notifier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// banDecision is the i-th ban.
func banDecision(i int) ban.Decision {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return ban.Decision{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Action: ban.ActionBan, Source: addr,
		Prefix: netip.PrefixFrom(addr, 32),
		Reason: ban.ReasonUnknownAccount, Points: 4, Score: 12, Account: "100", Service: event.PJSIP,
		Transport: event.UDP,
		Duration:  time.Hour, PBX: "pbx1",
	}
}

func breach() ban.Decision {
	d := banDecision(0xffffff)
	d.Action, d.Reason, d.Duration, d.Account = ban.ActionBreach, ban.ReasonGuessed, 0, "201"
	return d
}
