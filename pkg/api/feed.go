package api

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// maxAccount bounds what one remembered decision can hold of a name that came by wire, in bytes.
const maxAccount = 256

// followBuffer is how many decisions a follower may lag behind before the oldest are lost to it.
const followBuffer = 1024

const (
	// fewDecisions are copied into a block, so that single ones do not cost a piece of memory each. More are kept as
	// they came.
	fewDecisions = 16
	blockSize    = 64
	// maxPiece bounds how much memory the last of a piece's decisions can hold.
	maxPiece = 1024
)

// Feed remembers the last decisions, for history, and hands new ones to those who follow. Publish never waits for a
// reader. Its methods may be called from many goroutines.
type Feed struct {
	mu          sync.Mutex
	pieces      [][]ban.Decision // the oldest first; what is in them never changes
	first       uint64           // number of the first decision in them
	next        uint64           // number of the one that is published next
	block       []ban.Decision   // room for few
	blockOpen   bool             // the last of pieces ends where block begins, so that a few more can be added to it
	historySize int              // how many decisions are remembered
	followers   map[*follower]struct{}
}

// NewFeed makes a feed that remembers the last keep decisions, at least one.
func NewFeed(keep int) *Feed {
	return &Feed{historySize: max(keep, 1), followers: make(map[*follower]struct{})}
}

// Publish remembers decisions and hands them on. It keeps the slice, which nobody may change from then on. Names of
// accounts longer than 256 bytes are cut.
func (f *Feed) Publish(decisions ...ban.Decision) {
	if len(decisions) == 0 {
		return
	}
	decisions = cutAccounts(decisions)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(decisions) < fewDecisions:
		f.addFew(decisions)
	case len(decisions) <= maxPiece:
		f.pieces, f.blockOpen = append(f.pieces, decisions), false
	default:
		for part := range slices.Chunk(decisions, maxPiece) {
			f.pieces, f.blockOpen = append(f.pieces, slices.Clone(part)), false
		}
	}
	f.next += uint64(len(decisions))
	for f.next-f.first-uint64(len(f.pieces[0])) >= uint64(max(f.historySize, followBuffer)) {
		f.first += uint64(len(f.pieces[0]))
		f.pieces[0] = nil
		f.pieces = f.pieces[1:]
	}
	for fo := range f.followers {
		mailbox.Signal(fo.more)
	}
}

// addFew copies a few decisions into the block, behind those that are there.
func (f *Feed) addFew(decisions []ban.Decision) {
	if len(f.block) < len(decisions) {
		f.block, f.blockOpen = make([]ban.Decision, blockSize), false
	}
	n := copy(f.block, decisions)
	if last := len(f.pieces) - 1; f.blockOpen {
		f.pieces[last] = f.pieces[last][:len(f.pieces[last])+n]
	} else {
		f.pieces = append(f.pieces, f.block[:n])
	}
	f.block, f.blockOpen = f.block[n:], true
}

// cutAccounts are the decisions with accounts that are no longer than what is kept of one.
func cutAccounts(decisions []ban.Decision) []ban.Decision {
	copied := false
	for i := range decisions {
		if len(decisions[i].Account) <= maxAccount {
			continue
		}
		if !copied {
			decisions, copied = slices.Clone(decisions), true
		}
		decisions[i].Account = strings.Clone(decisions[i].Account[:maxAccount])
	}
	return decisions
}

// sinceLocked returns the decisions from a number on, which is not beyond the next.
func (f *Feed) sinceLocked(number uint64) [][]ban.Decision {
	i, at := len(f.pieces), f.next
	for at > number {
		i--
		at -= uint64(len(f.pieces[i]))
	}
	pieces := slices.Clone(f.pieces[i:])
	for i := range pieces {
		pieces[i] = slices.Clip(pieces[i])
	}
	if len(pieces) > 0 {
		pieces[0] = pieces[0][number-at:]
	}
	return pieces
}

// historyLocked are the decisions that are remembered.
func (f *Feed) historyLocked() [][]ban.Decision {
	return f.sinceLocked(max(f.first, f.next-min(f.next, uint64(f.historySize))))
}

// Recent returns remembered decisions since a time, oldest first, of one source or, where addr is not valid, of all. A
// decision about a network that holds addr is one of its own too.
func (f *Feed) Recent(since time.Time, addr netip.Addr) []ban.Decision {
	f.mu.Lock()
	pieces := f.historyLocked()
	f.mu.Unlock()
	return copyMatching(pieces, func(d *ban.Decision) bool {
		return !d.Time.Before(since) && (!addr.IsValid() || d.Source == addr || d.Prefix.IsValid() &&
			d.Prefix.Contains(addr))
	})
}

// copyMatching copies the decisions that are wanted. It holds no lock, so that Publish need not wait for it.
func copyMatching(pieces [][]ban.Decision, wanted func(*ban.Decision) bool) []ban.Decision {
	var found []*ban.Decision
	for _, piece := range pieces {
		for i := range piece {
			if wanted(&piece[i]) {
				found = append(found, &piece[i])
			}
		}
	}
	out := make([]ban.Decision, 0, len(found))
	for _, d := range found {
		out = append(out, *d)
	}
	return out
}

// addFollower adds a follower, and returns the decisions since a time: none is missing or doubled between them and
// what the follower gets.
func (f *Feed) addFollower(since time.Time) ([]ban.Decision, *follower) {
	fo := &follower{more: make(chan struct{}, 1)}
	var past [][]ban.Decision
	f.mu.Lock()
	fo.next = f.next
	f.followers[fo] = struct{}{}
	if !since.IsZero() {
		past = f.historyLocked()
	}
	f.mu.Unlock()
	return copyMatching(past, func(d *ban.Decision) bool { return !d.Time.Before(since) }), fo
}

func (f *Feed) removeFollower(fo *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.followers, fo)
}

// takeNew returns what a follower has not seen yet, in pieces that nobody may change; lost is how many it came too late
// for, all older than those returned.
func (f *Feed) takeNew(fo *follower) (pieces [][]ban.Decision, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.followers[fo]; !ok {
		return nil, 0
	}
	from := max(fo.next, f.next-min(f.next, followBuffer))
	lost = int(from - fo.next)
	fo.next = f.next
	return f.sinceLocked(from), lost
}

type follower struct {
	more chan struct{} // holds a token when there is something to take
	next uint64        // number of the decision that it has not seen
}
