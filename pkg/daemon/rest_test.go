package daemon

import (
	"testing"
	"time"
)

func TestADaemonWithoutEventsTicksSlowly(t *testing.T) {
	now := time.Now()
	r := newRest(now)
	at := func(after time.Duration, events uint64, want time.Duration) {
		t.Helper()
		if got, _ := r.tick(now.Add(after), events); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	at(0, 0, briskTick)
	at(restAfter-1, 0, briskTick)
	at(restAfter, 0, slowTick)
	at(restAfter+time.Second, 1, briskTick)
	at(2*restAfter, 1, briskTick)
	at(2*restAfter+time.Second, 1, slowTick)
}

// Memory is given back between floods: neither in one, nor all the time.
func TestMemoryIsGivenBackInCalmSpans(t *testing.T) {
	now := time.Now()
	r := newRest(now)
	for i, c := range []struct {
		events uint64
		want   bool
	}{
		{0, true}, {calmEvents, true}, {10 * calmEvents, false}, {20 * calmEvents, false}, {20*calmEvents + 7, true},
	} {
		now = now.Add(restAfter)
		if _, calm := r.tick(now, c.events); calm != c.want {
			t.Errorf("span %d: calm %v", i, calm)
		}
	}
	r.relax(now)
	if _, calm := r.tick(now.Add(restAfter), 20*calmEvents+7); calm {
		t.Error("again after some seconds")
	}
	if _, calm := r.tick(now.Add(spareTime+restAfter), 20*calmEvents+7); !calm {
		t.Error("never again")
	}
}
