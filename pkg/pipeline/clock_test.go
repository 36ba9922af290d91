package pipeline

import (
	"testing"
	"time"
)

func TestTheClockDoesNotFollowTheWall(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, 24 * time.Hour} {
		c := NewClock(time.Now())
		before := c.Now()
		c, before = c.Behind(by), before.Add(-by) // the wall clock is ahead by that much now
		if d := c.Now().Sub(before); d < 0 || d > time.Minute {
			t.Errorf("the wall clock was set by %v, the daemon's moved by %v", by, d)
		}
		if off := c.Offset().Round(time.Minute); off != by {
			t.Errorf("off by %v, want %v", off, by)
		}
	}
}
