package control

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
)

// maxAccount bounds what one remembered decision can hold of a name that came by wire, in bytes.
const maxAccount = 256

// followBuffer is how many decisions a follower may lag behind before the oldest are lost to it.
const followBuffer = 1024

// Feed remembers the last decisions, for history, and hands new ones to those who follow. Publish never waits for a
// reader. Its methods may be called from many goroutines.
type Feed struct {
	mu        sync.Mutex
	ring      []engine.Decision // grows to keep, then wraps
	next      int               // where the next one goes, once the ring is full
	keep      int
	followers map[*follower]struct{}
}

// NewFeed makes a feed that remembers the last keep decisions, at least one.
func NewFeed(keep int) *Feed {
	return &Feed{keep: max(keep, 1), followers: make(map[*follower]struct{})}
}

// Publish remembers decisions and hands them on. It keeps their strings, which must not alias a frame. Names of accounts
// longer than 256 bytes are cut.
func (f *Feed) Publish(decisions ...engine.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range decisions {
		d := bounded(&decisions[i])
		if len(f.ring) < f.keep {
			f.ring = append(f.ring, *d)
			continue
		}
		f.ring[f.next] = *d
		if f.next++; f.next == f.keep {
			f.next = 0
		}
	}
	for fo := range f.followers {
		fo.push(decisions)
	}
}

// bounded is a decision whose account is no longer than what is kept of one.
func bounded(d *engine.Decision) *engine.Decision {
	if len(d.Account) <= maxAccount {
		return d
	}
	short := *d
	short.Account = strings.Clone(d.Account[:maxAccount])
	return &short
}

// Recent returns remembered decisions since a time, oldest first, of one source or, where addr is not valid, of all. A
// decision about a network that holds addr is one of its own too.
func (f *Feed) Recent(since time.Time, addr netip.Addr) []engine.Decision {
	all := f.room()
	f.mu.Lock()
	all = f.copyTo(all)
	f.mu.Unlock()
	return slices.DeleteFunc(all, func(d engine.Decision) bool {
		return d.Time.Before(since) || addr.IsValid() && d.Source != addr && !(d.Prefix.IsValid() && d.Prefix.Contains(addr))
	})
}

// follow starts to collect new decisions, after those since a time, with none between them missing or doubled.
func (f *Feed) follow(since time.Time) ([]engine.Decision, *follower) {
	fo := &follower{more: make(chan struct{}, 1)}
	var all []engine.Decision
	if !since.IsZero() {
		all = f.room()
	}
	f.mu.Lock()
	f.followers[fo] = struct{}{}
	if !since.IsZero() {
		all = f.copyTo(all)
	}
	f.mu.Unlock()
	return slices.DeleteFunc(all, func(d engine.Decision) bool { return d.Time.Before(since) }), fo
}

// room is made, and what it gets is filtered, outside of the lock: publishers wait for the copying alone.
func (f *Feed) room() []engine.Decision {
	f.mu.Lock()
	n := len(f.ring)
	f.mu.Unlock()
	return make([]engine.Decision, 0, min(n+64, f.keep))
}

func (f *Feed) copyTo(all []engine.Decision) []engine.Decision {
	return append(append(all, f.ring[f.next:]...), f.ring[:f.next]...)
}

func (f *Feed) leave(fo *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.followers, fo)
}

// take empties a follower's buffer; lost is how many did not fit into it, all older than those returned.
func (f *Feed) take(fo *follower) (decisions []engine.Decision, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	decisions = append(append(decisions, fo.buffer[fo.first:]...), fo.buffer[:fo.first]...)
	lost = fo.lost
	clear(fo.buffer)
	fo.buffer, fo.first, fo.lost = fo.buffer[:0], 0, 0
	return decisions, lost
}

type follower struct {
	more   chan struct{} // holds a token when there is something to take
	buffer []engine.Decision
	first  int // the oldest, once the buffer is full
	lost   int
}

func (fo *follower) push(decisions []engine.Decision) {
	if len(decisions) == 0 {
		return
	}
	if over := len(decisions) - followBuffer; over > 0 { // these would be lost below
		fo.lost += over
		decisions = decisions[over:]
	}
	for i := range decisions {
		d := bounded(&decisions[i])
		if len(fo.buffer) < followBuffer {
			fo.buffer = append(fo.buffer, *d)
			continue
		}
		fo.buffer[fo.first] = *d
		if fo.first++; fo.first == followBuffer {
			fo.first = 0
		}
		fo.lost++
	}
	select {
	case fo.more <- struct{}{}:
	default:
	}
}
