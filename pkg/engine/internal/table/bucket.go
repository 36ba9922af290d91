package table

import "time"

// LeakyBucket counts what leaks at a steady pace.
type LeakyBucket struct {
	at    int64 // when it leaked last, ns
	level float32
}

// Add puts n into a bucket that leaks so many a minute, and returns what is in it.
func (b *LeakyBucket) Add(now int64, n, perMinute float64) float64 {
	if b.at != 0 && now > b.at {
		b.level = float32(max(0, float64(b.level)-perMinute*float64(now-b.at)/float64(time.Minute)))
	}
	b.at = max(b.at, now)
	b.level += float32(n)
	return b.Level()
}

// Level is what was in the bucket after the last Add.
func (b *LeakyBucket) Level() float64 { return float64(b.level) }
