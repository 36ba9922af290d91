package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/metrics"
)

func TestADecisionThatTheKernelHasNotSaysSo(t *testing.T) {
	var log strings.Builder
	feed := api.NewFeed(10)
	a := NewAnnouncer(slog.New(slog.NewTextHandler(&log, nil)), nil)
	p := New(Config{Announcer: a, History: feed, Metrics: metrics.New("test", nil)})
	d := ban.Decision{Time: time.Now(), Action: ban.ActionBan, Prefix: netip.MustParsePrefix("203.0.113.66/32")}
	p.tellSinks(errors.New("set ban4 is full"), outcome{decisions: []ban.Decision{d}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	history := feed.Recent(time.Time{}, netip.Addr{})
	if len(history) != 1 || !strings.Contains(history[0].Detail, "set ban4 is full") {
		t.Errorf("history: %+v", history)
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "set ban4 is full") {
		t.Errorf("log: %s", log.String())
	}
}

// An account's bytes reach the log escaped, and a flood of bans is counted instead of written line by line.
func TestTheLogIsSafeAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		told := 0
		a := NewAnnouncer(slog.New(slog.NewJSONHandler(&log, nil)), func(ban.Decision) { told++ })
		for range 20000 {
			a.Push(nil, []ban.Decision{{Action: ban.ActionBan, Prefix: netip.MustParsePrefix("203.0.113.66/32"),
				Account: "\x1b[2J\u202egnp\n"}})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if told != 20000 {
			t.Errorf("the hook heard of %d", told)
		}
		if n := strings.Count(log.String(), "\n"); n < lineBurst || n > 2*lineBurst {
			t.Errorf("%d lines of 20000 bans", n)
		}
		if strings.ContainsAny(log.String(), "\x1b\u202e") {
			t.Error("an attacker's bytes are in the log")
		}
		if !strings.Contains(log.String(), "decisions") {
			t.Error("the rest is not counted")
		}
	})
}

// What finds no place in the queue is counted, and nobody waits for the log.
func TestWhatTheAnnouncerLosesIsCounted(t *testing.T) {
	var log strings.Builder
	told := 0
	a := NewAnnouncer(slog.New(slog.NewTextHandler(&log, nil)), func(ban.Decision) { told++ })
	const lost = 7
	for range maxAnnouncements + lost {
		a.Push(nil, []ban.Decision{{Action: ban.ActionTrust, Reason: ban.ReasonLogin}}) // not logged at this level
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if told != maxAnnouncements || !strings.Contains(log.String(), "decisions=7") {
		t.Errorf("%d told of %d; log: %s", told, maxAnnouncements+lost, log.String())
	}
}
