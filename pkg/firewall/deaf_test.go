package firewall

import (
	"context"
	"testing"
	"time"
)

// While many elements are written nobody listens, and what others do meanwhile is known afterwards all the same.
func TestWhatHappensWhileNobodyListensIsKnownAfterwards(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 1000)
	ended := make(chan error, 1)
	go func() { ended <- fw.WatchRulesets(ctx, func() { heard <- struct{}{} }) }()
	foreign := func() {
		s.command(t, "nft add table inet other")
		s.command(t, "nft delete table inet other")
	}
	hears := func() {
		t.Helper()
		select {
		case <-heard:
		case <-time.After(patience):
			t.Fatal("not heard")
		}
	}
	quiet := func(when string) {
		t.Helper()
		select {
		case <-heard:
			t.Error("heard " + when)
		case <-time.After(50 * time.Millisecond):
		}
	}
	drain := func() {
		for {
			select {
			case <-heard:
				continue
			case <-time.After(200 * time.Millisecond):
			}
			return
		}
	}
	for len(heard) == 0 { // until WatchRulesets is there
		foreign()
	}
	drain()

	apply(t, fw, many(3*pauseNoticesFrom, time.Hour)...)
	apply(t, fw, many(3*pauseNoticesFrom, 2*time.Hour)...)
	quiet("changes of its own")

	fw.writeMu.Lock()
	listen := fw.pauseNotices(fw.writeConn)
	foreign()
	quiet("what happens while it is deaf")
	listen()
	fw.writeMu.Unlock()
	hears()
	drain()

	foreign()
	hears()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	fw.writeMu.Lock()
	fw.pauseNotices(fw.writeConn)() // nobody listens any more
	fw.writeMu.Unlock()
}
