package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// staleAfter is how long records that are over stay in the file: where the clock was set wrong for a while, a day ahead
// say, they come back once it is right.
const staleAfter = 48 * time.Hour

// State is what the file holds.
type State struct {
	Bans      []ban.Ban
	Offenders []ban.Offender // a source may be in it twice, by its ban and by itself: the worse counts
	Trusts    []ban.Trust
	Allow     []Allow
	Graces    []ban.Grace

	Expired int // records that are over, left out
	Damaged int // records that cannot be read, left out
}

// Load reads everything that counts at a time. Records that are over are left out, and removed from the file after two
// days. Where the clock was set back since a record was made, the record ends no later than it would have if made now:
// nobody is kept out for longer than was decided. What was Put but is not saved yet is not in it.
func (s *Store) Load(ctx context.Context, now time.Time) (State, error) {
	return s.loadKinds(ctx, now, keyedKinds[:]...)
}

// LoadCustomers is Load of what spares customers alone: trust, the allow list and graces. WalkBans has the rest.
func (s *Store) LoadCustomers(ctx context.Context, now time.Time) (State, error) {
	return s.loadKinds(ctx, now, kindTrust, kindAllow, kindGrace)
}

func (s *Store) loadKinds(ctx context.Context, now time.Time, kinds ...kind) (State, error) {
	l := loader{s: s, now: now}
	err := s.runRead(func(tx *bbolt.Tx) error {
		for _, k := range kinds {
			b, err := bucketOf(tx, k)
			if err != nil {
				return err
			}
			c := b.Cursor()
			n := 0
			for key, value := c.First(); key != nil; key, value = c.Next() {
				if n++; n%1024 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				l.addRecord(recordID{k, string(key)}, value)
			}
		}
		return nil
	})
	if err != nil {
		return State{}, err
	}
	s.countLoaded(&l)
	return l.state, nil
}

// countLoaded counts what could not be read, and has what is over removed.
func (s *Store) countLoaded(l *loader) {
	s.mu.Lock()
	s.stats.Damaged += uint64(l.state.Damaged)
	if !s.o.ReadOnly && !s.ended {
		s.stale, s.staleAt = append(s.stale, l.stale...), l.now
	}
	s.mu.Unlock()
	if l.state.Damaged > 0 {
		s.log.Error("some records of the state file are damaged and left out", "file", s.path, "records",
			l.state.Damaged,
			"first", l.firstErr)
	}
	mailbox.Signal(s.wake)
}

// pieceBans is how many records are handed over at a time.
const pieceBans = 128

// WalkBans calls each with what Load returns of bans, the oldest first, and of offenders, a piece at a time: hundreds
// of thousands take no more memory than a few. Nothing is locked meanwhile. A piece is good until each returns. An
// error of each ends it.
func (s *Store) WalkBans(ctx context.Context, now time.Time, each func([]ban.Ban, []ban.Offender) error) error {
	l := loader{s: s, now: now}
	handOver := func() error {
		bans, offenders := l.state.Bans, l.state.Offenders
		l.state.Bans, l.state.Offenders = bans[:0], offenders[:0]
		if len(bans)+len(offenders) == 0 {
			return ctx.Err()
		}
		return cmp.Or(ctx.Err(), each(bans, offenders))
	}
	order, err := s.bansByAge(ctx)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(order, pieceBans) {
		if err := s.readBans(part, &l); err != nil {
			return err
		}
		if err := handOver(); err != nil {
			return err
		}
	}
	for next := []byte{}; next != nil; {
		if next, err = s.readOffenders(next, &l); err == nil {
			err = handOver()
		}
		if err != nil {
			return err
		}
	}
	s.countLoaded(&l)
	return nil
}

// readBans reads the bans of some keys.
func (s *Store) readBans(keys []datedKey, l *loader) error {
	return s.runRead(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindBan)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if value := b.Get([]byte(k.key)); value != nil {
				l.addRecord(recordID{kindBan, k.key}, value)
			}
		}
		return nil
	})
}

// readOffenders reads a piece of the offenders, those from a key on. It returns the key to go on with, nil after the
// last.
func (s *Store) readOffenders(from []byte, l *loader) (next []byte, err error) {
	err = s.runRead(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindOffender)
		if err != nil {
			return err
		}
		c := b.Cursor()
		n := 0
		for key, value := c.Seek(from); key != nil; key, value = c.Next() {
			if n++; n > pieceBans {
				next = bytes.Clone(key)
				return nil
			}
			l.addRecord(recordID{kindOffender, string(key)}, value)
		}
		return nil
	})
	return next, err
}

// datedKey is the key of a ban, and when it began, in ns.
type datedKey struct {
	since int64
	key   string
}

// bansByAge returns the keys of all bans, the oldest first.
func (s *Store) bansByAge(ctx context.Context) (order []datedKey, err error) {
	err = s.runRead(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindBan)
		if err != nil {
			return err
		}
		c := b.Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			if len(order)%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			order = append(order, datedKey{banSince(value), string(key)})
		}
		return nil
	})
	slices.SortStableFunc(order, func(a, b datedKey) int { return cmp.Compare(a.since, b.since) })
	return order, err
}

// runRead runs a reading transaction; where there is no file it does nothing.
func (s *Store) runRead(fn func(*bbolt.Tx) error) error {
	s.fileMu.RLock()
	defer s.fileMu.RUnlock()
	if s.file == nil {
		return nil
	}
	err := s.file.runView(fn)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = s.withPath(err)
	}
	return err
}

// loader collects records of the file as of a time.
type loader struct {
	s        *Store
	now      time.Time
	state    State
	stale    []recordID // over for long, or damaged: to be removed
	firstErr error      // of a damaged record
}

func (l *loader) addRecord(id recordID, value []byte) {
	end, err := l.decodeRecord(id, value)
	switch {
	case err != nil:
		l.state.Damaged++
		if l.firstErr == nil {
			l.firstErr = fmt.Errorf("%s: %w", id.kind, err)
		}
		l.stale = append(l.stale, id)
	case !end.IsZero() && !end.After(l.now):
		l.state.Expired++
		if l.now.Sub(end) > staleAfter {
			l.stale = append(l.stale, id)
		}
	}
}

// decodeRecord reads a record and keeps it unless it is over. It returns when it ends, the zero time where it does not.
func (l *loader) decodeRecord(id recordID, value []byte) (end time.Time, err error) {
	now, memory := l.now, l.s.o.OffenderMemory
	switch id.kind {
	case kindBan:
		b, err := decodeBan(id.key, value)
		if err != nil {
			return end, err
		}
		b.Since, b.Until = startByNow(b.Since, b.Until, now)
		if end = nonZeroTime(b.Until); end.After(now) {
			l.state.Bans = append(l.state.Bans, b)
		}
		if l.s.o.Counts != nil && l.s.o.Counts(&b) && b.Until.Add(memory).After(now) {
			l.state.Offenders = append(l.state.Offenders, ban.Offender{Prefix: b.Prefix, Bans: b.Number, Last: b.Until})
		}
	case kindOffender:
		o, err := decodeOffender(id.key, value)
		if err != nil {
			return end, err
		}
		o.Last = earlierOf(o.Last, now.Add(memory))
		if end = nonZeroTime(o.Last.Add(memory)); end.After(now) {
			l.state.Offenders = append(l.state.Offenders, o)
		}
	case kindTrust:
		t, err := decodeTrust(id.key, value)
		if err != nil {
			return end, err
		}
		t.Last, t.Until = startByNow(t.Last, t.Until, now) // trust counts from the last login
		t.Since = earlierOf(t.Since, now)
		end = nonZeroTime(laterOf(t.Until, t.Last.Add(l.s.o.TrustMemory)))
		if end.After(now) {
			l.state.Trusts = append(l.state.Trusts, t)
		}
	case kindAllow:
		a, err := decodeAllow(id.key, value)
		if err != nil {
			return end, err
		}
		l.state.Allow = append(l.state.Allow, a)
	case kindGrace:
		g, err := decodeGrace(id.key, value)
		if err != nil {
			return end, err
		}
		g.Since, g.Until = startByNow(g.Since, g.Until, now)
		if end = nonZeroTime(g.Until); end.After(now) {
			l.state.Graces = append(l.state.Graces, g)
		}
	}
	return end, nil
}

// startByNow moves a span that begins in the future to begin now.
func startByNow(since, until, now time.Time) (time.Time, time.Time) {
	if ahead := since.Sub(now); ahead > 0 {
		return now, until.Add(-ahead)
	}
	return since, until
}

// nonZeroTime is an end that is not taken for none.
func nonZeroTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

func earlierOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// removeStale removes records that are over or damaged, unless they are no longer. What a ban said of its source stays.
func (s *Store) removeStale(tx *bbolt.Tx, list []recordID, now time.Time) error {
	for _, id := range list {
		b, err := bucketOf(tx, id.kind)
		if err != nil {
			return err
		}
		value := b.Get([]byte(id.key))
		if value == nil {
			continue
		}
		l := loader{s: s, now: now}
		if l.addRecord(id, value); len(l.stale) == 0 {
			continue
		}
		for _, o := range l.state.Offenders { // of a ban: the record of an offender who counts is not over
			if err := s.keepWorse(tx, o, now); err != nil {
				return err
			}
		}
		if err := b.Delete([]byte(id.key)); err != nil {
			return err
		}
	}
	return nil
}

// keepWorse writes an offender. Where the file has the same, the worse counts.
func (s *Store) keepWorse(tx *bbolt.Tx, o ban.Offender, now time.Time) error {
	b, err := bucketOf(tx, kindOffender)
	if err != nil {
		return err
	}
	id := recordID{kindOffender, prefixKey(o.Prefix)}
	l := loader{s: s, now: now}
	if value := b.Get([]byte(id.key)); value != nil {
		l.addRecord(id, value)
	}
	for _, have := range l.state.Offenders {
		o.Bans, o.Last = max(o.Bans, have.Bans), laterOf(o.Last, have.Last)
	}
	return b.Put([]byte(id.key), PutOffender(o).value)
}
