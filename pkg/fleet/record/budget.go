package record

import "time"

// Budget is how much may be said at a time: Most at once, and after that Rate a minute.
type Budget struct {
	Most, Rate float64
	used       float64 // of Most, at a time
	at         time.Time
}

// Left is how much may be said now.
func (b *Budget) Left(now time.Time) float64 {
	if elapsed := now.Sub(b.at); elapsed > 0 {
		b.used, b.at = max(0, b.used-b.Rate*elapsed.Minutes()), now
	}
	return b.Most - b.used
}

// Take takes one from what is left.
func (b *Budget) Take() { b.used++ }
