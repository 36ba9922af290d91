package daemon

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/pipeline"
)

// A sense that is gone is told of once, when it has been for long enough, and again when it comes and goes.
func TestALostSenseIsTold(t *testing.T) {
	t.Parallel()
	var fault error
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := &blindness{
		daemon: &Daemon{pipeline: pipeline.New(pipeline.Config{Clock: pipeline.NewClock(start), Log: slog.New(slog.DiscardHandler)})},
		begun:  make(map[int]time.Time), told: make(map[int]bool),
		senses: []sense{
			{ban.ReasonAsterisk, "pbx1", time.Minute, func() (time.Time, error) { return time.Time{}, fault }},
			{ban.ReasonKernel, "", time.Second, func() (time.Time, error) { return time.Time{}, nil }},
		},
	}
	at := func(seconds int) []ban.Decision {
		t.Helper()
		return b.look(start.Add(time.Duration(seconds) * time.Second))
	}
	quiet := func(seconds ...int) {
		t.Helper()
		for _, s := range seconds {
			if got := at(s); len(got) != 0 {
				t.Errorf("after %d s: %+v", s, got)
			}
		}
	}
	quiet(0, 5)
	fault = errors.New("connection refused\x1b[2J")
	quiet(10, 15, 69)
	got := at(70)
	if len(got) != 1 || got[0].Action != ban.ActionBlind || got[0].Reason != ban.ReasonAsterisk || got[0].PBX != "pbx1" ||
		got[0].Detail != `for 1m0s: connection refused\x1b[2J` {
		t.Fatalf("%+v", got)
	}
	quiet(75, 200)
	fault = nil
	quiet(205)
	fault = errors.New("again")
	quiet(210)
	if got := at(271); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// The daemon itself tells when its Asterisk is gone.
func TestALostAsteriskIsTold(t *testing.T) {
	r := newRig(t)
	for _, s := range newBlindness(r.d).senses {
		if since, err := s.fault(); err != nil {
			t.Errorf("%s: %v since %v", s.reason, err, since)
		}
	}
	r.stopServer()
	r.until("the session is gone", func() bool {
		_, err := newBlindness(r.d).senses[0].fault()
		return err != nil
	})
}
