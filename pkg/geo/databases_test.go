package geo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// journal is a log that may be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func logTo(j *journal) *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

var attacker = netip.MustParseAddr("203.0.113.7")

func nation(code string) geotest.Networks {
	return geotest.Networks{"203.0.113.0/24": geotest.Country(code)}
}

// age makes a file look as if it had been written an hour ago, so that nobody takes it for unfinished. Files of one
// test differ by their inode.
func age(t testing.TB, path string) {
	t.Helper()
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}

func TestSeveralFilesAreOneAnswer(t *testing.T) {
	countries := geotest.Write(t, "country.mmdb", nation("NL"))
	systems := geotest.Write(t, "asn.mmdb", geotest.Networks{"203.0.113.0/24": geotest.ASN(64496, "Example")})
	others := geotest.Write(t, "city.mmdb", geotest.Networks{
		"203.0.113.0/24": geotest.Country("US"), "198.51.100.0/24": geotest.Both("SE", 64497, "Second")})
	a := New(logTo(&journal{}), countries, systems, others)
	for addr, want := range map[string]ban.Place{
		"203.0.113.7":  {Country: "NL", ASN: 64496, ASName: "Example"},
		"198.51.100.9": {Country: "SE", ASN: 64497, ASName: "Second"},
		"192.0.2.1":    {},
	} {
		if got := a.Place(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %+v", addr, got)
		}
	}
	if got := New(logTo(&journal{})).Place(attacker); got != (ban.Place{}) {
		t.Errorf("no files, and %+v", got)
	}
}

// TestFilesThatCannotBeUsed is about the paths that people give. None keeps New waiting, and each says what to try.
func TestFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("folder"), 0o755), syscall.Mkfifo(at("pipe"), 0o644),
		os.WriteFile(at("empty"), nil, 0o644),
		os.WriteFile(at("text"), []byte("not found"), 0o644), os.WriteFile(at("large"), nil, 0o644),
		os.Truncate(at("large"), MaxBytes+1),
		os.Symlink("loop", at("loop"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"none":      "does not exist",
		"text/none": "cannot be read: not a directory",
		"folder":    "is a folder",
		"pipe":      "is no regular file",
		"empty":     "is empty",
		"text":      "is damaged, or no file in MaxMind's format: error opening database: invalid MaxMind DB file",
		"large":     "has 256 MB, more than the 256 MB that are read into memory",
		"loop":      "cannot be read: too many levels of symbolic links",
	} {
		t.Run(name, func(t *testing.T) {
			var log journal
			a := New(logTo(&log), at(name))
			files := a.Files()
			var bad *Error
			if len(files) != 1 || files[0].DB != nil || !errors.As(files[0].Err, &bad) || bad.What != want ||
				bad.Path != at(name) ||
				bad.Try == "" && name != "text/none" {
				t.Fatalf("%+v", files)
			}
			if got := bad.Error(); got != at(name)+": "+want {
				t.Error(got)
			}
			if a.Place(attacker) != (ban.Place{}) {
				t.Error("a place out of nothing")
			}
			for range 3 {
				a.Refresh()
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, &log)
			}
		})
	}
}

func TestAFileThatMayNotBeRead(t *testing.T) {
	err := readError(&fs.PathError{Op: "open", Path: "/x", Err: fs.ErrPermission})
	if err.What != "cannot be read: permission denied" || !strings.Contains(err.Try, "chmod a+r") {
		t.Errorf("%+v", err)
	}
}

// TestAReplacedFileIsReadAgain replaces a file by good and bad ones, as geoipupdate and as people do.
func TestAReplacedFileIsReadAgain(t *testing.T) {
	var log journal
	path := geotest.Write(t, "country.mmdb", nation("NL"))
	age(t, path)
	a := New(logTo(&log), path)
	want := func(country, trouble string) {
		t.Helper()
		f := a.Files()[0]
		if got := a.Place(attacker).Country; got != country || (f.Err != nil) != (trouble != "") || f.Err != nil &&
			!strings.Contains(f.Err.Error(), trouble) {
			t.Errorf("%s, %v; want %s, %s", got, f.Err, country, trouble)
		}
	}
	want("NL", "")
	first := a.Files()[0].DB

	a.Refresh()
	if a.Files()[0].DB != first {
		t.Error("the same file was read again")
	}
	geotest.Put(t, path, geotest.Make(t, nation("DE")))
	a.Refresh()
	want("NL", "") // it has changed just now
	age(t, path)
	a.Refresh()
	want("DE", "")

	geotest.Put(t, path, []byte("half"))
	age(t, path)
	a.Refresh()
	want("DE", "is damaged")
	a.Refresh()
	want("DE", "is damaged")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a.Refresh()
	want("DE", "does not exist")
	a.Refresh()
	geotest.Put(t, path, geotest.Make(t, nation("SE")))
	age(t, path)
	a.Refresh()
	want("SE", "")
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || strings.Count(log.String(), "still_used=true") != 2 {
		t.Errorf("%d warnings:\n%s", n, &log)
	}

	other := geotest.Write(t, "asn.mmdb", geotest.Networks{"203.0.113.0/24": geotest.ASN(64496, "Example")})
	kept := a.Files()[0].DB
	a.Configure([]string{other, path})
	if got := a.Place(attacker); got != (ban.Place{Country: "SE", ASN: 64496, ASName: "Example"}) ||
		a.Files()[1].DB != kept {
		t.Errorf("%+v", got)
	}
	a.Configure(nil)
	want0 := a.Place(attacker)
	if want0 != (ban.Place{}) || len(a.Files()) != 0 {
		t.Errorf("%+v", want0)
	}
}

// TestAFileThatIsWrittenInPlaceIsAwaited writes over the open file, as cp does: what is there meanwhile is no file.
func TestAFileThatIsWrittenInPlaceIsAwaited(t *testing.T) {
	var log journal
	path := geotest.Write(t, "country.mmdb", nation("NL"))
	age(t, path)
	a := New(logTo(&log), path)
	next := geotest.Make(t, nation("DE"))
	if err := os.WriteFile(path, next[:len(next)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	a.Refresh()
	if got := a.Place(attacker).Country; got != "NL" || strings.Contains(log.String(), "WARN") {
		t.Errorf("%s\n%s", got, &log)
	}
	if err := os.WriteFile(path, next, 0o644); err != nil {
		t.Fatal(err)
	}
	age(t, path)
	a.Refresh()
	if got := a.Place(attacker).Country; got != "DE" {
		t.Errorf("%s\n%s", got, &log)
	}
}

// TestRunLooksEveryMinute waits on a clock of the test's own.
func TestRunLooksEveryMinute(t *testing.T) {
	path := geotest.Write(t, "country.mmdb", nation("NL"))
	past := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // before the test's clock begins
	next := geotest.Make(t, nation("DE"))
	synctest.Test(t, func(t *testing.T) {
		a := New(logTo(&journal{}), path)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		geotest.Put(t, path, next)
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pollInterval - time.Second)
		synctest.Wait()
		before := a.Place(attacker).Country
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if after := a.Place(attacker).Country; before != "NL" || after != "DE" {
			t.Errorf("%s, then %s", before, after)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestLookupsWhileFilesAreReplaced has the race detector and the garbage collector look on: what is read must not be
// given back meanwhile.
func TestLookupsWhileFilesAreReplaced(t *testing.T) {
	path := geotest.Write(t, "place.mmdb", geotest.Networks{"203.0.113.0/24": geotest.Both("NL", 1, "one")})
	age(t, path)
	a := New(logTo(&journal{}), path)
	versions := [][]byte{}
	for i := range uint32(4) {
		versions = append(versions, geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Record{
			"country": geotest.Record{"iso_code": "NL"}, "autonomous_system_number": i + 1,
			"autonomous_system_organization": []string{"one", "two", "three", "four"}[i],
		}}))
	}
	names := map[ban.Place]bool{}
	for i, name := range []string{"one", "two", "three", "four"} {
		names[ban.Place{Country: "NL", ASN: uint32(i + 1), ASName: name}] = true
	}
	var stop atomic.Bool
	looked := make(chan struct{}) // a lookup came to its end
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				if got := a.Place(attacker); !names[got] {
					t.Errorf("a mixture: %+v", got)
					return
				}
				select {
				case looked <- struct{}{}:
				default:
					runtime.Gosched()
				}
			}
		})
	}
	for i := range 20 {
		geotest.Put(t, path, versions[i%len(versions)])
		age(t, path)
		a.Refresh()
		if got, want := a.Place(attacker).ASN, uint32(i%len(versions)+1); got != want {
			t.Errorf("round %d: %d", i, got)
		}
		runtime.GC()
		for range 8 {
			if !t.Failed() {
				<-looked
			}
		}
	}
	stop.Store(true)
	group.Wait()
}

// TestMemoryIsGivenBack reads a file time and again: what was read before is garbage.
func TestMemoryIsGivenBack(t *testing.T) {
	networks := geotest.Networks{}
	for i := range 2000 {
		networks[fmt.Sprintf("20.%d.%d.0/24", i/250, i%250)] = geotest.ASN(uint32(i+1),
			strings.Repeat("x", 300)+fmt.Sprint(i))
	}
	path := geotest.Write(t, "asn.mmdb", networks)
	age(t, path)
	a := New(logTo(&journal{}), path)
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, size := inUse(), a.Files()[0].DB.Bytes
	for i := range 50 {
		past := time.Now().Add(-time.Duration(i+2) * time.Hour)
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
		first := a.Files()[0].DB
		if a.Refresh(); a.Files()[0].DB == first {
			t.Fatal("the file was not read again")
		}
	}
	if grown := inUse() - before; grown > 10*size {
		t.Errorf("%d bytes more after a file of %d was read 50 times", grown, size)
	}
}
