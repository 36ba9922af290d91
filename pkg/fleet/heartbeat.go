package fleet

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// Watch says whether a node hears the heartbeats of others.
type Watch string

// The values of Watch. Each node sends about 130 bytes a minute, and each that watches hears that of all others: in a
// fleet of watchMost nodes 3 a second each, and the server sends 700 a second, 90 kB. Of 10,000 the server hears 170 a
// second, 22 kB, and sends as much to each node that watches; if all did, it would be 220 MB a second.
const (
	WatchAuto Watch = "auto" // while there are no more than watchMost
	WatchOn   Watch = "on"
	WatchOff  Watch = "off"
)

const (
	watchMost   = 200 // nodes
	beatEvery   = time.Minute
	silentAfter = 5 * time.Minute
	beatQueue   = 1024               // heartbeats that wait; what does not fit is heard the next time
	idleAfter   = 7 * 24 * time.Hour // of a node of which nothing is known any more
)

// beatSoon has a heartbeat sent. After a hub was away, nodes come back within some seconds, and not together.
func (f *Fleet) beatSoon() { f.beatIn(time.Second) }

func (f *Fleet) beatIn(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextBeat = f.cfg.Now().Add(time.Duration((0.8 + 0.4*rand.Float64()) * float64(d)))
}

// beat sends a heartbeat when it is time, and hears those of others or not.
func (l *link) beat() {
	l.mu.Lock()
	now := l.cfg.Now()
	isTime := l.status.Connected && l.status.Unseen == "" && !now.Before(l.nextBeat)
	h := record.Heartbeat{Sent: now, Sequence: l.status.Sequence, Waiting: l.outbox.len()}
	want := l.cfg.Watch == WatchOn || l.cfg.Watch != WatchOff && l.book.CountNodes() <= watchMost
	l.mu.Unlock()
	l.watch(want)
	if isTime && !l.cfg.Passive {
		l.beatIn(beatEvery)
		// What cannot be sent is sent the next time.
		_ = l.nc.Publish(record.HeartbeatSubject(l.cfg.Name, l.cfg.Node), record.EncodeHeartbeat(h))
	}
}

// dropIdle forgets nodes of which nothing is known any more.
func (f *Fleet) dropIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.book.DropIdle(f.cfg.Now().Add(-idleAfter))
}

// watch begins to hear heartbeats, or ends it.
func (l *link) watch(want bool) {
	if want == (l.watching != nil) {
		return
	}
	since := time.Time{}
	if want {
		sub, err := l.nc.ChanSubscribe(record.HeartbeatSubject(l.cfg.Name, "*"), l.beats)
		if err != nil {
			return // it is tried again
		}
		l.watching, since = sub, l.cfg.Now()
	} else {
		_ = l.watching.Unsubscribe()
		l.watching = nil
	}
	l.mu.Lock()
	l.watchedAt = since
	l.mu.Unlock()
}

// hear takes a heartbeat.
func (l *link) hear(m *nats.Msg) {
	node, ok := record.ParseHeartbeatSubject(l.cfg.Name, m.Subject)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.Hear(l.cfg.Now(), node, m.Data, l.last)
}

// isOfHeartbeats says whether something failed that is about heartbeats alone.
func isOfHeartbeats(fleet string, sub *nats.Subscription, err error) bool {
	prefix := record.HeartbeatSubject(fleet, "")
	return sub != nil && strings.HasPrefix(sub.Subject, prefix) ||
		errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), prefix)
}

// heartbeatsFailed notes that this node may not say that it is there, or hear others.
func (f *Fleet) heartbeatsFailed(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		f.setStatus(func(s *Status) { s.Unseen = errorText(err) })
	}
}

// isSilentLocked says whether another node should have been heard.
func (f *Fleet) isSilentLocked(now time.Time, n *record.Node) bool {
	if f.connectedAt.IsZero() || f.watchedAt.IsZero() || f.status.Unseen != "" {
		return false
	}
	for _, t := range []time.Time{f.connectedAt, f.watchedAt, n.Heard, n.Alive} {
		if now.Sub(t) < silentAfter {
			return false
		}
	}
	return true
}
