package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	chunkRecords = 8192 // in one transaction
	chunkBytes   = 8 << 20
	backoffMin   = 100 * time.Millisecond
	backoffMax   = 10 * time.Second
	historyFill  = 0.95 // of a page: lines are only appended
	keptRoom     = 1024 // changes that an idle queue has room for
	recordFill   = 0.8  // what a flood writes is sorted and seldom gets something in between
)

// errReplaced is a path that names another file than the one in use.
var errReplaced = errors.New("another file took its place while it was in use: restart the daemon to use that one, or remove it")

// Run saves what is Put until ctx ends, then what still waits, and closes the Store. It is to be called once. Troubles
// with the disk are reported and retried, not returned; only what could not be saved in the end is an error.
func (s *Store) Run(ctx context.Context) error {
	if s.o.ReadOnly {
		<-ctx.Done()
		return s.Close()
	}
	var next time.Time
	wait := backoffMin
	for ctx.Err() == nil {
		needed, urgent := s.needed()
		if !needed {
			s.relax()
			pause(ctx, s.wake, nil)
			continue
		}
		if d := time.Until(next); d > 0 && !urgent {
			t := time.NewTimer(d)
			pause(ctx, s.wake, t.C)
			t.Stop()
			continue
		}
		if err := s.save(); err != nil {
			next, wait = time.Now().Add(wait), min(2*wait, backoffMax)
		} else {
			next, wait = time.Now().Add(s.o.Interval), backoffMin
		}
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	var err error
	if needed, _ := s.needed(); needed {
		if err = s.save(); err != nil {
			if err = s.save(); err != nil { // a broken file is begun anew by the second attempt
				err = fmt.Errorf("%d changes are not saved: %w", s.Stats().Pending, err)
			}
		}
	}
	s.settle(nil)
	return errors.Join(err, s.Close())
}

// relax gives back the room of a flood.
func (s *Store) relax() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cap(s.spare.items) > keptRoom || cap(s.spare.lines) > keptRoom {
		s.spare = queue{}
	}
	if s.queue.len() == 0 && (cap(s.queue.items) > keptRoom || cap(s.queue.lines) > keptRoom) {
		s.queue = newQueue()
	}
}

func pause(ctx context.Context, wake <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer:
	}
}

// needed says whether there is anything to do, and whether somebody waits for it.
func (s *Store) needed() (needed, urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.len() > 0 || len(s.stale) > 0 || s.resync || s.err != nil || s.saved < s.taken, s.urgent
}

// settle tells those who wait in Flush that something is different.
func (s *Store) settle(more func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more != nil {
		more()
	}
	close(s.round)
	s.round = make(chan struct{})
}

// save makes one attempt to write all that waits.
func (s *Store) save() error {
	s.mu.Lock()
	s.urgent = false
	s.begun++
	mark := s.taken
	s.mu.Unlock()
	err := s.ready()
	if err == nil {
		mark, err = s.write()
	}
	if err != nil {
		err = s.explain(err)
	}
	s.report(err)
	s.settle(func() {
		s.attempts++
		if err == nil {
			s.saved = mark
		} else {
			s.failed = mark
		}
	})
	return err
}

// ready sees to it that the file is open, and the one that the path names.
func (s *Store) ready() error {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	if s.file != nil && s.file.readOnly {
		s.file.close()
		s.file = nil
	}
	if s.file != nil && s.file.broken() {
		s.lose()
	}
	if s.file == nil {
		f, r, err := s.acquire(time.Now())
		if err == nil {
			s.file = f
			if r.Fresh && s.o.Snapshot != nil {
				s.mu.Lock()
				s.resync = true
				s.mu.Unlock()
			}
			return nil
		}
		if f, again := attach(s.path, true, nil); again == nil && f.migrated < 0 {
			s.file = f // history can be read in the meantime
		} else if again == nil {
			f.close()
		}
		return err
	}
	there := sameFile(s.file.os, s.path)
	if there && !s.suspect.Load() {
		return nil
	}
	if !there {
		if _, err := os.Stat(s.path); err == nil {
			return errReplaced
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.log.Warn("the state file was removed while in use; it is written again", "file", s.path)
	}
	f, err := s.file.rewrite(s.path)
	switch {
	case errors.Is(err, errBroken):
		s.lose()
		return err
	case err == nil:
		s.file = f
	case !there || !full(err):
		return err
	}
	s.suspect.Store(false)
	return nil
}

// lose lets go of a file that broke. The next attempt checks it, and begins anew if need be.
func (s *Store) lose() {
	s.file.close()
	s.file = nil
	s.suspect.Store(false)
}

// full says whether a disk refused to take more, as opposed to losing what it took.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EFBIG)
}

// write writes all that waits, and puts back what it could not. It returns how many changes had been taken by then.
func (s *Store) write() (uint64, error) {
	s.batchMu.Lock()
	defer s.batchMu.Unlock()
	s.mu.Lock()
	batch, stale, staleAt, resync, mark := s.queue, s.stale, s.staleAt, s.resync, s.taken
	s.queue, s.stale, s.resync = s.spare, nil, false
	s.spare = queue{}
	if s.queue.index == nil {
		s.queue = newQueue()
	}
	s.mu.Unlock()
	all := batch
	n := uint64(batch.len())

	err := s.writeAll(&batch, stale, staleAt, resync)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.resync = s.resync || resync
		s.stats.Lost += s.queue.restore(batch, s.o.History)
		s.stats.Saved += n - min(n, uint64(batch.len()))
		return mark, err
	}
	s.stats.Saved += n
	s.stats.Last = time.Now()
	s.spare = all.emptied()
	return mark, nil
}

func (s *Store) writeAll(batch *queue, stale []entry, staleAt time.Time, resync bool) error {
	s.fileMu.RLock()
	f := s.file
	s.fileMu.RUnlock()
	err := func() error {
		if resync {
			known := s.o.Snapshot()
			if err := s.commit(f, func(tx *bbolt.Tx) error { return replace(tx, known) }); err != nil {
				return err
			}
			batch.forget()
		}
		for len(stale) > 0 {
			part := stale[:min(len(stale), chunkRecords)]
			if err := s.commit(f, func(tx *bbolt.Tx) error { return s.discard(tx, part, staleAt) }); err != nil {
				return err
			}
			stale = stale[len(part):]
		}
		batch.sort()
		for batch.len() > 0 {
			if err := s.writeChunk(f, batch); err != nil {
				return err
			}
		}
		return nil
	}()
	switch {
	case errors.Is(err, errBroken):
		s.fileMu.Lock()
		s.lose()
		s.fileMu.Unlock()
	case err != nil && !full(err):
		// After a failed fsync the kernel may take pages for written that are not (fsync(2), EIO): copy them all.
		s.suspect.Store(true)
	}
	return err
}

func (s *Store) commit(f *file, fn func(*bbolt.Tx) error) error {
	if err := f.update(fn); err != nil {
		return err
	}
	s.mu.Lock()
	s.stats.Commits++
	s.mu.Unlock()
	return nil
}

// writeChunk writes what one transaction takes of a sorted batch, and removes it from there.
func (s *Store) writeChunk(f *file, batch *queue) error {
	records, lines := batch.chunk()
	err := s.commit(f, func(tx *bbolt.Tx) error {
		if err := writeRecords(tx, batch.items[:records]); err != nil {
			return err
		}
		return s.writeHistory(tx, batch.lines[:lines], time.Now())
	})
	if err == nil {
		batch.items, batch.lines = batch.items[records:], batch.lines[lines:]
	}
	return err
}

// chunk says how much of the batch the next transaction takes.
func (q *queue) chunk() (records, lines int) {
	bytes := 0
	for records < min(len(q.items), chunkRecords) && bytes < chunkBytes {
		bytes += len(q.items[records].record)
		records++
	}
	for lines < min(len(q.lines), chunkRecords) && bytes < chunkBytes {
		bytes += len(q.lines[lines])
		lines++
	}
	return records, lines
}

// writeRecords writes sorted records.
func writeRecords(tx *bbolt.Tx, list []item) error {
	var b *bbolt.Bucket
	for i := range list {
		it := &list[i]
		if i == 0 || it.kind() != list[i-1].kind() {
			var err error
			if b, err = bucketOf(tx, it.kind()); err != nil {
				return err
			}
			b.FillPercent = recordFill
		}
		var err error
		if value := it.value(); value != nil {
			err = b.Put(it.key(), value)
		} else {
			err = b.Delete(it.key())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func bucketOf(tx *bbolt.Tx, k kind) (*bbolt.Bucket, error) {
	if b := tx.Bucket(k.bucket()); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: it has no %s", errBroken, k)
}

// replace puts what is known in place of all records but history.
func replace(tx *bbolt.Tx, known []Change) error {
	q := newQueue()
	for _, c := range known {
		if c.err == nil && c.kind() != kindDecision && c.value() != nil {
			q.put(c.item, math.MaxInt32)
		}
	}
	for _, k := range kinds {
		if err := tx.DeleteBucket(k.bucket()); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(k.bucket()); err != nil {
			return err
		}
	}
	q.sort()
	return writeRecords(tx, q.items)
}

// report tells of a change of state: of the same trouble only once.
func (s *Store) report(err error) {
	s.mu.Lock()
	before, lost := s.err, s.stats.Lost
	s.err = err
	s.mu.Unlock()
	switch {
	case err == nil && before == nil, err != nil && before != nil && trouble(err) == trouble(before):
		return
	case err == nil:
		s.log.Info("state is saved again", "file", s.path, "history_lost", lost)
	default:
		s.log.Error("state cannot be saved, and is kept in memory until it can", "err", err, "try", hint(err))
	}
	s.o.Health(err)
}

// trouble is what two errors of the same cause share.
func trouble(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
