package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

var (
	// ErrNoFile is a path that names something else than a file.
	ErrNoFile = errors.New("not a file")
	// ErrReadOnly is a change of a Store that was opened to be read.
	ErrReadOnly = errors.New("opened read-only")
	// ErrClosed is a change that came after the end.
	ErrClosed = errors.New("closed")
	// ErrFull is a change that found no room in the queue.
	ErrFull = errors.New("too many changes wait for the disk")
)

// Options say how state is kept. The zero value is that of the daemon, without its hooks.
type Options struct {
	Log *slog.Logger // nil: nothing is logged

	// ReadOnly opens a file that no daemon keeps, changes nothing, and fails where it cannot be read.
	ReadOnly bool

	// Snapshot returns everything that should be in the file, apart from history. Run calls it where the file had to
	// be begun anew, or more changes came than may wait. It must not wait for the Store, and must know of a change no
	// later than Put does. Without it, what the file held then is lost.
	Snapshot func() []Change

	// Counts says of which bans Number counts the bans of the source, nil of none. Such a ban says all that the
	// source's Offender would, which is then not needed while the ban is stored: State.Offenders has it from the ban,
	// and it is kept when the ban is removed from the file because it is over. Whoever removes such a ban, or puts
	// one that does not count in its place, has to put the Offender with the same Put; Snapshot, too, has one where
	// no ban says it.
	Counts func(*ban.Ban) bool

	// Health is told of each change of state: with the reason when saving begins to fail or fails for another reason,
	// with nil when all that waited is saved. Run calls it; it must be quick.
	Health func(error)

	Interval       time.Duration // between two commits under load; 0 is 250 ms, a second is the longest
	History        int           // decisions kept; 0 is 100,000
	HistoryAge     time.Duration // and for how long; 0 is 720 h
	OffenderMemory time.Duration // after the last ban; 0 is 720 h
	TrustMemory    time.Duration // after the last login, where that is longer than the trust; 0 is 720 h
	MaxPending     int           // changes that wait for the disk; 0 is 1,048,576
}

const (
	month             = 720 * time.Hour
	defaultInterval   = 250 * time.Millisecond
	defaultHistory    = 100_000
	defaultMaxPending = 1 << 20
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Health == nil {
		o.Health = func(error) {}
	}
	o.Interval = min(positiveOr(o.Interval, defaultInterval), time.Second)
	o.History = positiveOr(o.History, defaultHistory)
	o.HistoryAge = positiveOr(o.HistoryAge, month)
	o.OffenderMemory = positiveOr(o.OffenderMemory, month)
	o.TrustMemory = positiveOr(o.TrustMemory, month)
	o.MaxPending = positiveOr(o.MaxPending, defaultMaxPending)
	return o
}

func positiveOr[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}

// Recovery says what Open found.
type Recovery struct {
	Fresh    bool   // a new file was begun
	SetAside string // name that the file there before has now, because it was of no use
	Cause    error  // why
	Migrated int    // version that the file had, -1 where it was the present one or there was none

	Before, After int64 // bytes, where the file was compacted

	// Unavailable is why nothing can be saved at present, as with a full disk or a folder that may not be written. The
	// Store works all the same, and saves as soon as it can.
	Unavailable error
	// Readable says that what was saved before can be read although Unavailable.
	Readable bool
}

// Adopt says that bans may have been lost: whatever the kernel still holds should be adopted.
func (r Recovery) Adopt() bool { return r.Fresh || r.SetAside != "" || r.Unavailable != nil }

// Store keeps state in a file. Its methods may be called from many goroutines.
type Store struct {
	path string
	o    Options
	log  *slog.Logger

	fileMu  sync.RWMutex // readers share the file; Run has it alone to exchange it
	file    *file        // nil while there is none
	suspect atomic.Bool  // the disk failed to write: what it said it wrote before may be gone

	batchMu sync.RWMutex // held while a batch is written
	wake    chan struct{}

	mu      sync.Mutex // for all below
	queue   queue
	stale   []recordID // over or damaged as of staleAt: to be removed from the file
	staleAt time.Time
	resync  bool // the file lacks what Snapshot knows
	err     error
	ended   bool
	stats   Stats

	// For Flush. Changes and attempts to write are numbered from 1.
	urgent          bool          // somebody waits
	attempted       chan struct{} // closed, and made anew, when an attempt has come to its end
	lastPut         uint64        // change
	lastDurable     uint64        // change
	lastFailed      uint64        // change that the last attempt which failed was to write
	attemptsStarted uint64
	attemptsDone    uint64
}

// Stats are counts since Open.
type Stats struct {
	Pending int    // changes that wait for the disk
	Saved   uint64 // changes that are durable
	Commits uint64
	Lost    uint64 // history that found no room while the disk failed
	Refused uint64 // changes that found no room
	Damaged uint64 // records that could not be read
	Bytes   int64  // of the file
	Last    time.Time
}

// Open opens the state file, or makes it. What is there but of no use is set aside under another name, and a new file
// begun. Where nothing can be written, because of a full disk or a read-only folder, Open succeeds all the same and
// Recovery.Unavailable says why. It fails with ErrLocked where another process keeps the file, and with ErrNoFile where
// the path names no file. Close the Store, or Run it.
func Open(path string, o Options) (*Store, Recovery, error) {
	o = o.withDefaults()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	s := &Store{path: path, o: o, log: o.Log, wake: make(chan struct{}, 1), attempted: make(chan struct{}),
		queue: newQueue()}
	if o.ReadOnly {
		f, err := openFile(path, true, nil)
		if err != nil {
			return nil, Recovery{Migrated: -1}, s.withPath(err)
		}
		if f.migrated >= 0 {
			f.close()
			return nil, Recovery{Migrated: -1},
				fmt.Errorf("state file %s has the older version %d: start the daemon once to bring it up to date", path,
					f.migrated)
		}
		s.file = f
		return s, Recovery{Migrated: -1}, nil
	}
	f, r, err := s.openOrCreate(time.Now())
	switch {
	case errors.Is(err, ErrLocked), errors.Is(err, ErrNoFile):
		return nil, r, s.withPath(err)
	case err != nil:
		r.Unavailable = s.withPath(err)
		// What can be read counts, though nothing can be written.
		if f, err := openFile(path, true, nil); err == nil && f.migrated < 0 {
			s.file, r.Readable = f, true
		} else if err == nil {
			f.close()
		}
		s.err = r.Unavailable
		s.log.Error("state cannot be saved, and is kept in memory until it can", hint.Attr(r.Unavailable))
		s.o.Health(r.Unavailable)
	default:
		s.file = f
	}
	return s, r, nil
}

// openOrCreate opens the file to be written, sets aside what is of no use, and makes a new one.
func (s *Store) openOrCreate(now time.Time) (*file, Recovery, error) {
	r := Recovery{Migrated: -1}
	for range 5 {
		f, err := openFile(s.path, false, func(cause error) error {
			name, err := setAside(s.path, cause, now)
			if err != nil {
				return err
			}
			r.SetAside, r.Cause = name, cause
			s.log.Error("the state file is of no use and was set aside; a new one is begun, and bans still in the "+
				"kernel are kept",
				"file", s.path, "kept_as", name, "cause", cause)
			return nil
		})
		switch {
		case err == nil:
			removeLeftovers(s.path)
			if f.migrated >= 0 {
				r.Migrated = f.migrated
				s.log.Info("the state file was brought up to date", "from_version", f.migrated, "to_version", schema)
			}
			return s.compactIfMostlyFree(f, &r), r, nil
		case errors.Is(err, fs.ErrNotExist), r.SetAside != "" && isUnusable(err):
			f, err := createFile(s.path)
			if errors.Is(err, fs.ErrExist) { // somebody else was faster
				continue
			}
			r.Fresh = err == nil
			return f, r, err
		case errors.Is(err, errMoved):
			continue
		default:
			return nil, r, err
		}
	}
	return nil, r, fmt.Errorf("%s: %w", s.path, errMoved)
}

// compactIfMostlyFree shrinks a file of mostly free pages. Where that fails the file goes on as it is.
func (s *Store) compactIfMostlyFree(f *file, r *Recovery) *file {
	if !f.mostlyFree() {
		return f
	}
	before := f.usage.Size()
	fresh, err := f.compactTo(s.path)
	if err != nil {
		s.log.Warn("the state file could not be compacted", "file", s.path, "bytes", before, "err", err)
		return f
	}
	if info, err := fresh.os.Stat(); err == nil {
		r.Before, r.After = before, info.Size()
		s.log.Info("the state file was compacted", "bytes_before", before, "bytes_after", info.Size())
	}
	return fresh
}

func (s *Store) withPath(err error) error {
	return hint.Errorf(hintFor(err), "state file %s: %w", s.path, err)
}

// hintFor is what a person can do about an error.
func hintFor(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "free some space on that disk"
	case errors.Is(err, unix.EROFS):
		return "the disk is mounted read-only: look at dmesg, mount it for writing, or set state.path to another"
	case errors.Is(err, fs.ErrPermission):
		return "let the daemon's user write to the folder of state.path; with systemd, set StateDirectory=ringwall"
	case errors.Is(err, fs.ErrNotExist):
		return "make the folder of state.path"
	}
	return "look at dmesg for errors of the disk"
}

// Put takes changes over; Run saves them. It never waits for the disk. Of two changes of one record the later counts.
// What is wrong with a change, or that there was no room for it, is returned; the others are taken all the same. A Put
// of several changes may be saved in parts.
func (s *Store) Put(changes ...Change) error {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	var errs []error
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return ErrClosed
	}
	for i := range changes {
		c := &changes[i]
		if c.err != nil {
			errs = append(errs, c.err)
			continue
		}
		s.lastPut++
		if c.kind == kindDecision {
			s.stats.Lost += uint64(s.queue.appendLine(c.value, s.o.History))
			continue
		}
		if s.resync && s.o.Snapshot != nil && len(s.queue.records) >= s.o.MaxPending {
			continue // Snapshot will know of it
		}
		if s.queue.putRecord(c.record, s.o.MaxPending) {
			continue
		}
		if s.o.Snapshot != nil {
			s.resync = true
			s.queue.forgetRecords()
			continue
		}
		s.stats.Refused++
		errs = append(errs, fmt.Errorf("an entry of %s: %w", c.kind, ErrFull))
	}
	mailbox.Signal(s.wake)
	return errors.Join(errs...)
}

// Flush returns when all that was Put before it is durable. When an attempt to save it fails it returns why; the
// changes stay in the queue. Run must be running.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.lastPut
	started := s.attemptsStarted // the one under way may have failed already, of something that is mended by now
	for s.lastDurable < target || s.resync {
		if s.ended {
			return ErrClosed
		}
		if s.attemptsDone > started && s.lastFailed >= target && s.err != nil {
			return s.err
		}
		s.urgent = true
		mailbox.Signal(s.wake)
		attempted := s.attempted
		s.mu.Unlock()
		select {
		case <-attempted:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil && s.lastDurable < target {
			return errors.Join(fmt.Errorf("the state is not saved yet: %w", ctx.Err()), s.err)
		}
	}
	return nil
}

// Err returns why nothing can be saved at present, nil if all is well.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stats returns counts.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	st.Pending = s.queue.len()
	s.mu.Unlock()
	if info, err := os.Stat(s.path); err == nil {
		st.Bytes = info.Size()
	}
	return st
}

// String names the task.
func (s *Store) String() string { return "state" }

// Close gives back what Open took, of a Store that is not run. What was Put is lost. After Run it does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	if s.file != nil {
		s.file.close()
		s.file = nil
	}
	return nil
}
