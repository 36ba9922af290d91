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

	"github.com/ringwall/ringwall/pkg/hint"
)

const (
	chunkRecords = 2048 // in one transaction, whose pages are written in one go
	chunkBytes   = 8 << 20
	backoffMin   = 100 * time.Millisecond
	backoffMax   = 10 * time.Second
	historyFill  = 0.95 // of a page: lines are only appended
	recordFill   = 0.8  // what a flood writes is sorted and seldom gets something in between
)

// errReplaced is a path that names another file than the one in use.
var errReplaced = errors.New("another file took its place while it was in use: restart the daemon to use that one, " +
	"or remove it")

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
		needed, urgent := s.workWaiting()
		if !needed {
			waitForWork(ctx, s.wake, nil)
			continue
		}
		if d := time.Until(next); d > 0 && !urgent {
			t := time.NewTimer(d)
			waitForWork(ctx, s.wake, t.C)
			t.Stop()
			continue
		}
		if err := s.saveOnce(); err != nil {
			next, wait = time.Now().Add(wait), min(2*wait, backoffMax)
		} else {
			next, wait = time.Now().Add(s.o.Interval), backoffMin
		}
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	var err error
	if needed, _ := s.workWaiting(); needed {
		if err = s.saveOnce(); err != nil {
			if err = s.saveOnce(); err != nil { // a broken file is begun anew by the second attempt
				err = fmt.Errorf("%d changes are not saved: %w", s.Stats().Pending, err)
			}
		}
	}
	s.wakeFlushers(func() {})
	return errors.Join(err, s.Close())
}

func waitForWork(ctx context.Context, wake <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer:
	}
}

// workWaiting says whether there is anything to do, and whether somebody waits for it.
func (s *Store) workWaiting() (needed, urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.len() > 0 || len(s.stale) > 0 || s.resync || s.err != nil || s.lastDurable < s.lastPut, s.urgent
}

// wakeFlushers lets those who wait in Flush look again, after more was changed.
func (s *Store) wakeFlushers(more func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	more()
	close(s.attempted)
	s.attempted = make(chan struct{})
}

// saveOnce makes one attempt to write all that waits.
func (s *Store) saveOnce() error {
	s.mu.Lock()
	s.urgent = false
	s.attemptsStarted++
	last := s.lastPut
	s.mu.Unlock()
	err := s.ensureOpen()
	if err == nil {
		last, err = s.writeWaiting()
	}
	if err != nil {
		err = s.withPath(err)
	}
	s.reportHealth(err)
	s.wakeFlushers(func() {
		s.attemptsDone++
		if err == nil {
			s.lastDurable = last
		} else {
			s.lastFailed = last
		}
	})
	return err
}

// ensureOpen sees to it that the file is open, and the one that the path names.
func (s *Store) ensureOpen() error {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	if s.file != nil && s.file.readOnly {
		s.file.close()
		s.file = nil
	}
	if s.file != nil && s.file.hasBroken() {
		s.dropFileLocked()
	}
	if s.file == nil {
		f, r, err := s.openOrCreate(time.Now())
		if err == nil {
			s.file = f
			if r.Fresh && s.o.Snapshot != nil {
				s.mu.Lock()
				s.resync = true
				s.mu.Unlock()
			}
			return nil
		}
		if f, again := openFile(s.path, true, nil); again == nil && f.migrated < 0 {
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
	f, err := s.file.compactTo(s.path)
	switch {
	case errors.Is(err, errBroken):
		s.dropFileLocked()
		return err
	case err == nil:
		s.file = f
	case !there || !isDiskFull(err):
		return err
	}
	s.suspect.Store(false)
	return nil
}

// dropFileLocked lets go of a file that broke. The next attempt checks it, and begins anew if need be.
func (s *Store) dropFileLocked() {
	s.file.close()
	s.file = nil
	s.suspect.Store(false)
}

// isDiskFull says whether a disk refused to take more, as opposed to losing what it took.
func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS) || errors.Is(err,
		unix.EFBIG)
}

// writeWaiting writes all that waits, and puts back what it could not. It returns the last change that had been put
// by then.
func (s *Store) writeWaiting() (uint64, error) {
	s.batchMu.Lock()
	defer s.batchMu.Unlock()
	s.mu.Lock()
	waiting, stale, staleAt, resync, last := s.queue, s.stale, s.staleAt, s.resync, s.lastPut
	s.queue, s.stale, s.resync = newQueue(), nil, false
	s.mu.Unlock()
	batch := waiting.allWaiting()
	n := uint64(batch.len())

	err := s.writeAll(&batch, stale, staleAt, resync)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.resync = s.resync || resync
		s.stats.Lost += uint64(s.queue.putBack(batch, s.o.History))
		s.stats.Saved += n - min(n, uint64(batch.len()))
		return last, err
	}
	s.stats.Saved += n
	s.stats.Last = time.Now()
	return last, nil
}

// writeAll writes a batch, and leaves in it what it could not write.
func (s *Store) writeAll(batch *batch, stale []recordID, staleAt time.Time, resync bool) error {
	s.fileMu.RLock()
	f := s.file
	s.fileMu.RUnlock()
	err := func() error {
		if resync {
			known := s.o.Snapshot()
			if err := s.commitTx(f, func(tx *bbolt.Tx) error { return replaceRecords(tx, known) }); err != nil {
				return err
			}
			batch.records = nil
		}
		for len(stale) > 0 {
			part := stale[:min(len(stale), chunkRecords)]
			if err := s.commitTx(f, func(tx *bbolt.Tx) error { return s.removeStale(tx, part, staleAt) }); err != nil {
				return err
			}
			stale = stale[len(part):]
		}
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
		s.dropFileLocked()
		s.fileMu.Unlock()
	case err != nil && !isDiskFull(err):
		// After a failed fsync the kernel may take pages for written that are not (fsync(2), EIO): copy them all.
		s.suspect.Store(true)
	}
	return err
}

func (s *Store) commitTx(f *file, fn func(*bbolt.Tx) error) error {
	if err := f.runUpdate(fn); err != nil {
		return err
	}
	s.mu.Lock()
	s.stats.Commits++
	s.mu.Unlock()
	return nil
}

// writeChunk writes what one transaction takes of a batch, and removes it from there.
func (s *Store) writeChunk(f *file, batch *batch) error {
	records, lines := batch.nextChunk()
	err := s.commitTx(f, func(tx *bbolt.Tx) error {
		if err := writeRecords(tx, batch.records[:records]); err != nil {
			return err
		}
		return s.writeHistory(tx, batch.lines[:lines], time.Now())
	})
	if err == nil {
		batch.records, batch.lines = batch.records[records:], batch.lines[lines:]
	}
	return err
}

// writeRecords writes sorted records.
func writeRecords(tx *bbolt.Tx, list []record) error {
	var b *bbolt.Bucket
	var others othersFirst
	for i, r := range list {
		others.letOthersFirst()
		var err error
		if i == 0 || r.kind != list[i-1].kind {
			if b, err = bucketOf(tx, r.kind); err != nil {
				return err
			}
			b.FillPercent = recordFill
		}
		if r.value != nil {
			err = b.Put([]byte(r.key), r.value)
		} else {
			err = b.Delete([]byte(r.key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func bucketOf(tx *bbolt.Tx, k kind) (*bbolt.Bucket, error) {
	if b := tx.Bucket(k.bucketName()); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: it has no %s", errBroken, k)
}

// replaceRecords puts what is known in place of all records but history.
func replaceRecords(tx *bbolt.Tx, known []Change) error {
	q := newQueue()
	for _, c := range known {
		if c.err == nil && c.kind != kindDecision && c.value != nil {
			q.putRecord(c.record, math.MaxInt32)
		}
	}
	for _, k := range keyedKinds {
		if err := tx.DeleteBucket(k.bucketName()); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(k.bucketName()); err != nil {
			return err
		}
	}
	return writeRecords(tx, q.allWaiting().records)
}

// reportHealth tells of a change of state: of the same trouble only once.
func (s *Store) reportHealth(err error) {
	s.mu.Lock()
	before, lost := s.err, s.stats.Lost
	s.err = err
	s.mu.Unlock()
	switch {
	case err == nil && before == nil, err != nil && before != nil && causeText(err) == causeText(before):
		return
	case err == nil:
		s.log.Info("state is saved again", "file", s.path, "history_lost", lost)
	default:
		s.log.Error("state cannot be saved, and is kept in memory until it can", hint.Attr(err))
	}
	s.o.Health(err)
}

// causeText is what two errors of the same cause share.
func causeText(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
