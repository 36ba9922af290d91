package pipeline

import "time"

// Clock is the wall's time at the start, moved on by the monotonic clock: the time of the engine does not jump when
// somebody sets the wall clock.
type Clock struct {
	wall  time.Time // at the start
	start time.Time // the same moment, with the monotonic clock
}

// NewClock returns the clock of a program that started at a time, as time.Now gave it.
func NewClock(start time.Time) Clock { return Clock{wall: start.Round(0), start: start} }

// Behind returns a clock that is behind this one by d.
func (c Clock) Behind(d time.Duration) Clock { return Clock{wall: c.wall.Add(-d), start: c.start} }

// Now is the clock's time.
func (c Clock) Now() time.Time { return c.At(time.Now()) }

// At is the clock's time when time.Now was t.
func (c Clock) At(t time.Time) time.Time { return c.wall.Add(t.Sub(c.start)) }

// Offset is how far the wall clock has been set since the start.
func (c Clock) Offset() time.Duration { return time.Now().Round(0).Sub(c.Now()) }
