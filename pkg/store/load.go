package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
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
	return s.load(ctx, now, kinds[:]...)
}

// LoadCustomers is Load of what spares customers alone: trust, the allow list and graces. WalkBans has the rest.
func (s *Store) LoadCustomers(ctx context.Context, now time.Time) (State, error) {
	return s.load(ctx, now, kindTrust, kindAllow, kindGrace)
}

func (s *Store) load(ctx context.Context, now time.Time, kinds ...kind) (State, error) {
	l := loader{s: s, now: now, words: make(words)}
	err := s.read(func(tx *bbolt.Tx) error {
		for _, k := range kinds {
			b, err := bucketOf(tx, k)
			if err != nil {
				return err
			}
			l.grow(k, b)
			c := b.Cursor()
			n := 0
			for key, value := c.First(); key != nil; key, value = c.Next() {
				if n++; n%1024 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				l.add(k, string(key), value)
			}
		}
		return nil
	})
	if err != nil {
		return State{}, err
	}
	l.report()
	return l.state, nil
}

// report counts what cannot be read, and has what is over removed.
func (l *loader) report() {
	s := l.s
	s.mu.Lock()
	s.stats.Damaged += uint64(l.state.Damaged)
	if !s.o.ReadOnly && !s.ended {
		s.stale, s.staleAt = append(s.stale, l.stale...), l.now
	}
	s.mu.Unlock()
	if l.state.Damaged > 0 {
		s.log.Error("some records of the state file are damaged and left out", "file", s.path, "records", l.state.Damaged, "first", l.err)
	}
	signal(s.wake)
}

// pieceBans is how many records are handed over at a time.
const pieceBans = 128

// WalkBans calls each with what Load returns of bans, the oldest first, and of offenders, a piece at a time: hundreds of
// thousands take no more memory than a few. Nothing is locked meanwhile. A piece is good until each returns. An error of
// each ends it.
func (s *Store) WalkBans(ctx context.Context, now time.Time, each func([]ban.Ban, []ban.Offender) error) error {
	l := loader{s: s, now: now, words: make(words)}
	order, err := s.bansByAge(ctx)
	if err != nil {
		return err
	}
	hand := func() error {
		defer func() { l.state.Bans, l.state.Offenders = l.state.Bans[:0], l.state.Offenders[:0] }()
		if len(l.state.Bans)+len(l.state.Offenders) == 0 {
			return ctx.Err()
		}
		return cmp.Or(ctx.Err(), each(l.state.Bans, l.state.Offenders))
	}
	for part := range slices.Chunk(order, pieceBans) {
		err := s.read(func(tx *bbolt.Tx) error {
			b, err := bucketOf(tx, kindBan)
			if err != nil {
				return err
			}
			for _, r := range part {
				if value := b.Get([]byte(r.key)); value != nil {
					l.add(kindBan, r.key, value)
				}
			}
			return nil
		})
		if err == nil {
			err = hand()
		}
		if err != nil {
			return err
		}
	}
	for next, more := []byte{}, true; more; {
		err := s.read(func(tx *bbolt.Tx) error {
			more = false
			b, err := bucketOf(tx, kindOffender)
			if err != nil {
				return err
			}
			c := b.Cursor()
			n := 0
			for key, value := c.Seek(next); key != nil; key, value = c.Next() {
				if n++; n > pieceBans {
					next, more = bytes.Clone(key), true
					return nil
				}
				l.add(kindOffender, string(key), value)
			}
			return nil
		})
		if s.none() {
			more = false
		}
		if err == nil {
			err = hand()
		}
		if err != nil {
			return err
		}
	}
	l.report()
	return nil
}

// dated is where a ban is, and when it began.
type dated struct {
	since int64
	key   string
}

// bansByAge returns the keys of all bans, the oldest first.
func (s *Store) bansByAge(ctx context.Context) (order []dated, err error) {
	err = s.read(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindBan)
		if err != nil {
			return err
		}
		order = make([]dated, 0, min(b.Inspect().KeyN, 1<<20))
		c := b.Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			if len(order)%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			order = append(order, dated{banSince(value), string(key)})
		}
		return nil
	})
	slices.SortStableFunc(order, func(a, b dated) int { return cmp.Compare(a.since, b.since) })
	return order, err
}

// read runs a reading transaction, of nothing where there is no file.
func (s *Store) read(fn func(*bbolt.Tx) error) error {
	s.fileMu.RLock()
	defer s.fileMu.RUnlock()
	if s.file == nil {
		return nil
	}
	err := s.file.view(fn)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = s.explain(err)
	}
	return err
}

type loader struct {
	s     *Store
	now   time.Time
	words words
	ban   ban.Ban // the last
	state State
	stale []entry
	err   error
}

// grow makes room for a bucket's records.
func (l *loader) grow(k kind, b *bbolt.Bucket) {
	if k == kindBan {
		n := min(b.Inspect().KeyN, 1<<20)
		l.state.Bans = slices.Grow(l.state.Bans, n)
		if l.s.o.Counts != nil {
			l.state.Offenders = slices.Grow(l.state.Offenders, n)
		}
	}
}

func (l *loader) add(k kind, key string, value []byte) {
	end, err := l.decode(k, key, value)
	switch {
	case err != nil:
		l.state.Damaged++
		if l.err == nil {
			l.err = fmt.Errorf("%s: %w", k, err)
		}
		l.stale = append(l.stale, entry{k, key})
	case !end.IsZero() && !end.After(l.now):
		l.state.Expired++
		if l.now.Sub(end) > staleAfter {
			l.stale = append(l.stale, entry{k, key})
		}
	}
}

// never is the end of what does not end.
var never = time.Time{}

// decode reads a record and keeps it unless it is over. It returns when it ends.
func (l *loader) decode(k kind, key string, value []byte) (end time.Time, err error) {
	now := l.now
	switch k {
	case kindBan:
		b := &l.ban
		if *b, err = decodeBan(key, value, l.words); err != nil {
			return never, err
		}
		b.Since, b.Until = rebase(b.Since, b.Until, now)
		if end = atLeast(b.Until); end.After(now) {
			l.state.Bans = append(l.state.Bans, *b)
		}
		if l.s.o.Counts != nil && l.s.o.Counts(b) && b.Until.Add(l.s.o.OffenderMemory).After(now) {
			l.state.Offenders = append(l.state.Offenders, ban.Offender{Prefix: b.Prefix, Bans: b.Number, Last: b.Until})
		}
	case kindOffender:
		o, err := decodeOffender(key, value)
		if err != nil {
			return never, err
		}
		o.Last = earlier(o.Last, now.Add(l.s.o.OffenderMemory))
		if end = atLeast(o.Last.Add(l.s.o.OffenderMemory)); end.After(now) {
			l.state.Offenders = append(l.state.Offenders, o)
		}
	case kindTrust:
		t, err := decodeTrust(key, value, l.words)
		if err != nil {
			return never, err
		}
		t.Last, t.Until = rebase(t.Last, t.Until, now) // trust counts from the last login
		t.Since = earlier(t.Since, now)
		end = atLeast(later(t.Until, t.Last.Add(l.s.o.TrustMemory)))
		if end.After(now) {
			l.state.Trusts = append(l.state.Trusts, t)
		}
	case kindAllow:
		a, err := decodeAllow(key, value)
		if err != nil {
			return never, err
		}
		l.state.Allow = append(l.state.Allow, a)
		return never, nil
	case kindGrace:
		g, err := decodeGrace(key, value)
		if err != nil {
			return never, err
		}
		g.Since, g.Until = rebase(g.Since, g.Until, now)
		if end = atLeast(g.Until); end.After(now) {
			l.state.Graces = append(l.state.Graces, g)
		}
	}
	return end, nil
}

// rebase moves a span that begins in the future to begin now.
func rebase(since, until, now time.Time) (time.Time, time.Time) {
	if ahead := since.Sub(now); ahead > 0 {
		return now, until.Add(-ahead)
	}
	return since, until
}

// atLeast is an end that is not taken for none.
func atLeast(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// discard removes records that are over or damaged, unless they are no longer. What a ban said of its source stays.
func (s *Store) discard(tx *bbolt.Tx, list []entry, now time.Time) error {
	for _, e := range list {
		b, err := bucketOf(tx, e.kind)
		if err != nil {
			return err
		}
		l := loader{s: s, now: now}
		value := b.Get([]byte(e.key))
		if value == nil {
			continue
		}
		if l.add(e.kind, e.key, value); len(l.stale) == 0 {
			continue
		}
		for _, o := range l.state.Offenders { // of a ban: the record of an offender who counts is not over
			if err := s.remember(tx, o, now); err != nil {
				return err
			}
		}
		if err := b.Delete([]byte(e.key)); err != nil {
			return err
		}
	}
	return nil
}

// remember writes an offender. Where the file has the same, the worse counts.
func (s *Store) remember(tx *bbolt.Tx, o ban.Offender, now time.Time) error {
	b, err := bucketOf(tx, kindOffender)
	if err != nil {
		return err
	}
	c := PutOffender(o)
	l := loader{s: s, now: now}
	if value := b.Get(c.key()); value != nil {
		l.add(kindOffender, string(c.key()), value)
	}
	for _, have := range l.state.Offenders {
		c = PutOffender(ban.Offender{Prefix: o.Prefix, Bans: max(o.Bans, have.Bans), Last: later(o.Last, have.Last)})
	}
	return b.Put(c.key(), c.value())
}

// writeHistory appends lines and removes those that are too many or too old.
func (s *Store) writeHistory(tx *bbolt.Tx, lines [][]byte, now time.Time) error {
	if len(lines) == 0 {
		return nil
	}
	b, err := bucketOf(tx, kindDecision)
	if err != nil {
		return err
	}
	b.FillPercent = historyFill
	var seq uint64
	var key []byte // bbolt copies keys
	for _, line := range lines {
		if seq, err = b.NextSequence(); err != nil {
			return err
		}
		key = binary.BigEndian.AppendUint64(key[:0], seq)
		if err := b.Put(key, line); err != nil {
			return err
		}
	}
	oldest := now.Add(-s.o.HistoryAge)
	var gone [][]byte
	c := b.Cursor()
	for key, value := c.First(); key != nil && len(gone) < 2*chunkRecords; key, value = c.Next() {
		d, err := decodeDecision(value)
		few := len(key) == 8 && seq-binary.BigEndian.Uint64(key) < uint64(s.o.History)
		if few && err == nil && !d.Time.Before(oldest) {
			break
		}
		gone = append(gone, bytes.Clone(key))
	}
	for _, key := range gone {
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// History returns the decisions since a time, oldest first: those about one address or, where it is not valid, all.
// Decisions about a network that holds the address are among them, and so are those that are not saved yet.
func (s *Store) History(ctx context.Context, since time.Time, about netip.Addr) (out []Decision, err error) {
	err = s.WalkHistory(ctx, since, about, func(some []Decision) error {
		out = append(out, some...)
		return nil
	})
	return out, err
}

// Pieces of history: what is handed over at once, and for how long the file is read at a time.
const (
	pieceLines = 128
	pieceBytes = 64 << 10
	pieceLooks = 4096
)

// WalkHistory calls each with what History returns, a piece at a time, so that a long history takes no more memory than a
// short one. Nothing is locked meanwhile. An error of each ends it.
func (s *Store) WalkHistory(ctx context.Context, since time.Time, about netip.Addr, each func([]Decision) error) error {
	var next uint64 // number of the line to go on with
	for {
		var p piece
		var waiting [][]byte
		s.batchMu.RLock() // between two batches a line either waits or is in the file
		end, err := s.readHistory(since, about, &next, &p)
		if end {
			s.mu.Lock()
			waiting = slices.Clone(s.queue.lines)
			s.mu.Unlock()
		}
		s.batchMu.RUnlock()
		if err != nil {
			return err
		}
		for {
			if len(p.lines) > 0 {
				if err := errors.Join(ctx.Err(), each(p.lines)); err != nil {
					return err
				}
			}
			if p = (piece{}); len(waiting) == 0 {
				break
			}
			for len(waiting) > 0 && !p.full() {
				p.add(waiting[0], since, about)
				waiting = waiting[1:]
			}
		}
		if end {
			return ctx.Err()
		}
	}
}

// readHistory reads one piece of the file, and says whether it has come to the file's end.
func (s *Store) readHistory(since time.Time, about netip.Addr, next *uint64, p *piece) (end bool, err error) {
	err = s.read(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindDecision)
		if err != nil {
			return err
		}
		c := b.Cursor()
		looks := 0
		for key, value := c.Seek(binary.BigEndian.AppendUint64(nil, *next)); key != nil; key, value = c.Next() {
			if looks++; p.full() || looks > pieceLooks {
				return nil
			}
			if len(key) == 8 {
				*next = binary.BigEndian.Uint64(key) + 1
			}
			p.add(value, since, about)
		}
		end = true
		return nil
	})
	return end || s.none(), err
}

// none says that there is no file.
func (s *Store) none() bool {
	s.fileMu.RLock()
	defer s.fileMu.RUnlock()
	return s.file == nil
}

// piece is a part of history.
type piece struct {
	lines []Decision
	bytes int
}

func (p *piece) full() bool { return len(p.lines) >= pieceLines || p.bytes >= pieceBytes }

func (p *piece) add(value []byte, since time.Time, about netip.Addr) {
	d, err := decodeDecision(value)
	if err != nil || d.Time.Before(since) || about.IsValid() && d.Source != about && !d.Prefix.Contains(about) {
		return
	}
	d.Raw = bytes.Clone(d.Raw)
	p.lines, p.bytes = append(p.lines, d), p.bytes+len(d.Raw)
}
