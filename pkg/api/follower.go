package api

import (
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Follower collects new decisions of a [Feed], up to 1024 of them between two calls of Take. Its methods may be called
// from many goroutines.
type Follower struct {
	feed *Feed
	fo   *follower
}

// Follow starts to collect new decisions, after those since a time that are returned at once, unless it is zero. End it
// with Close.
func (f *Feed) Follow(since time.Time) ([]ban.Decision, *Follower) {
	past, fo := f.addFollower(since)
	return past, &Follower{feed: f, fo: fo}
}

// More receives when there is something to take.
func (f *Follower) More() <-chan struct{} { return f.fo.more }

// Take returns the decisions since the last call, oldest first, in pieces that others read too: nobody may change them.
// Lost is how many did not fit, all older than those returned.
func (f *Follower) Take() (pieces [][]ban.Decision, lost int) { return f.feed.takeNew(f.fo) }

// Close ends the collection.
func (f *Follower) Close() { f.feed.removeFollower(f.fo) }
