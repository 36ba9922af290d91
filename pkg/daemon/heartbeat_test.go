package daemon

import (
	"testing"
	"time"
)

func TestADaemonWithoutEventsTicksSlowly(t *testing.T) {
	now := time.Now()
	pace := tickPace{last: now}
	at := func(after time.Duration, events uint64, want time.Duration) {
		t.Helper()
		if got := pace.nextPause(now.Add(after), events); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	at(0, 0, briskTick)
	at(idleAfter-1, 0, briskTick)
	at(idleAfter, 0, slowTick)
	at(idleAfter+time.Second, 1, briskTick)
	at(2*idleAfter, 1, briskTick)
	at(2*idleAfter+time.Second, 1, slowTick)
}
