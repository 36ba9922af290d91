package geo

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hint"
)

const (
	pollInterval = time.Minute
	// settleTime is how long ago a file must have changed before it counts as whole.
	settleTime = 3 * time.Second
)

// Databases answers where addresses are registered, from files that it reads again when they are replaced. A file that
// is missing or bad is reported, and makes the answers poorer; nothing else fails. Its methods may be called from many
// goroutines.
type Databases struct {
	log     *slog.Logger
	openDBs atomic.Pointer[[]*DB] // what there is, in the order of the files

	changeMu sync.Mutex // held by who changes files: reading may take long
	mu       sync.Mutex // guards files and what stands in them; never held for long
	files    []*trackedFile
}

// trackedFile is one of the paths, and what became of it.
type trackedFile struct {
	path   string
	db     *DB // nil: never read
	loaded time.Time
	tried  fileVersion // of the latest attempt
	err    error       // of it
}

// File is the state of a file. After a bad replacement there is an Err, and DB is still what was read before.
type File struct {
	Path   string
	DB     *DB // nil if it could never be read
	Loaded time.Time
	Err    error // usually an [*Error]
}

// New reads the files. Those that cannot be read are logged, and read as soon as they can be.
func New(log *slog.Logger, paths ...string) *Databases {
	a := &Databases{log: log}
	a.Configure(paths)
	return a
}

// String names the task.
func (d *Databases) String() string { return "geo files" }

// Configure changes which files there are. Those that stay are not read again.
func (d *Databases) Configure(paths []string) {
	d.changeMu.Lock()
	defer d.changeMu.Unlock()
	files := make([]*trackedFile, 0, len(paths))
	for _, path := range paths {
		i := slices.IndexFunc(d.files, func(f *trackedFile) bool { return f.path == path })
		if i >= 0 {
			files = append(files, d.files[i])
			continue
		}
		f := &trackedFile{path: path}
		f.setResult(readFile(path))
		f.logResult(d.log, nil)
		files = append(files, f)
	}
	d.mu.Lock()
	d.files = files
	d.mu.Unlock()
	d.publishOpen()
}

// Refresh reads the files that were replaced since they were read. Run calls it every minute.
func (d *Databases) Refresh() {
	d.changeMu.Lock()
	defer d.changeMu.Unlock()
	for _, f := range d.files {
		if !f.wasReplaced(time.Now()) {
			continue
		}
		db, s, err := readFile(f.path)
		before := f.err
		d.mu.Lock()
		f.setResult(db, s, err)
		d.mu.Unlock()
		f.logResult(d.log, before)
	}
	d.publishOpen()
}

// Run refreshes until ctx ends, and returns nil.
func (d *Databases) Run(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.Refresh()
		}
	}
}

func (d *Databases) publishOpen() {
	var open []*DB
	for _, f := range d.files {
		if f.db != nil {
			open = append(open, f.db)
		}
	}
	d.openDBs.Store(&open)
}

// Place returns where an address is registered. What several files know is put together; the first one wins. It waits
// for nothing.
func (d *Databases) Place(addr netip.Addr) ban.Place {
	var p ban.Place
	for _, db := range *d.openDBs.Load() {
		if p = orElse(p, db.Place(addr)); p.Country != "" && p.ASN != 0 {
			break
		}
	}
	return p
}

// PlaceIn looks an address up in files, as [Databases] of them would.
func PlaceIn(files []File, addr netip.Addr) ban.Place {
	var p ban.Place
	for _, f := range files {
		if f.DB != nil {
			p = orElse(p, f.DB.Place(addr))
		}
	}
	return p
}

// Files returns the state of each file, in the order in which they were configured.
func (d *Databases) Files() []File {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]File, 0, len(d.files))
	for _, f := range d.files {
		out = append(out, File{Path: f.path, DB: f.db, Loaded: f.loaded, Err: f.err})
	}
	return out
}

// wasReplaced says whether the file is another one than at the last attempt, and looks finished.
func (f *trackedFile) wasReplaced(now time.Time) bool {
	info, err := os.Stat(f.path)
	switch {
	case err != nil && f.tried == fileVersion{} && f.err != nil, err == nil && versionOf(info) == f.tried:
		return false
	case err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()).Abs() < settleTime:
		return false // perhaps still being written: the next look is soon enough
	}
	return true
}

// setResult notes what came of an attempt. Where it failed, what was read before stays.
func (f *trackedFile) setResult(db *DB, s fileVersion, err error) {
	if f.tried, f.err = s, err; err == nil {
		f.db, f.loaded = db, time.Now()
	}
}

// logResult logs what came of an attempt: the same trouble as before is no news.
func (f *trackedFile) logResult(log *slog.Logger, before error) {
	switch {
	case f.err == nil:
		log.Info("geo file read", "file", f.path, "type", f.db.Type, "built", f.db.Built.Format(time.DateOnly), "bytes",
			f.db.Bytes)
	case before == nil || before.Error() != f.err.Error():
		log.Warn("a geo file cannot be used", "err", f.err, "try", hint.Of(f.err), "still_used", f.db != nil)
	}
}
