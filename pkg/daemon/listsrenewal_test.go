package daemon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/lists/fetch"
)

// endingTable is a kernel whose elements end, and that at times takes none.
type endingTable struct {
	mu     sync.Mutex
	ends   map[string]time.Time
	fails  bool
	writes int
}

func (e *endingTable) SetLists(_ context.Context, _ []firewall.List, listed iter.Seq[firewall.Listed]) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.writes++
	if e.fails {
		return errors.New("no memory")
	}
	e.ends = make(map[string]time.Time)
	for l := range listed {
		end := time.Now().Add(firewall.ListTimeout)
		if !l.Ends.IsZero() && l.Ends.Before(end) {
			end = l.Ends
		}
		e.ends[l.From.String()] = end
	}
	return nil
}

func (e *endingTable) ListsFilled() bool { return true }

func (e *endingTable) ListPackets() (map[string]uint64, error) { return nil, nil }

func (e *endingTable) OnList(l firewall.Listed) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ends[l.From.String()].After(time.Now()), nil
}

func (e *endingTable) inForce() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, end := range e.ends {
		if end.After(time.Now()) {
			n++
		}
	}
	return n
}

// Elements end, so that a machine without Ringwall is closed to nobody for ever; and over days none does while Ringwall
// runs, even if the kernel takes nothing for hours.
func TestElementsOfListsAreRenewedBeforeTheyEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	var text strings.Builder
	const all = 5000
	for i := range all {
		fmt.Fprintf(&text, "198.18.%d.%d\n", i/256, i%256)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := config.DefaultList()
		l.Name, l.File, l.Refresh = "own", path, 4*time.Hour
		table := &endingTable{}
		a := keptLists(table, dir, l)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.Run(ctx) })
		time.Sleep(time.Minute)
		for minute := range 3 * 24 * 60 {
			table.mu.Lock()
			table.fails = minute%1440 > 300 && minute%1440 < 420 // two hours a day
			table.mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := table.inForce(); n < all*999/1000 {
				t.Fatalf("after %d minutes %d of %d are in force", minute, n, all)
			}
		}
		stop()
		wg.Wait()
		time.Sleep(firewall.ListTimeout)
		if n := table.inForce(); n != 0 {
			t.Errorf("a day after its end %d are in force", n)
		}
	})
}

// keptLists are lists of a table that has nothing else.
func keptLists(table listTable, dir string, all ...config.List) *attackerLists {
	built := make(chan struct{})
	close(built)
	c := config.Default()
	d := &Daemon{log: slog.New(slog.DiscardHandler), tableBuilt: built, config: &configuration{cfg: &c}}
	d.faults.log = d.log
	a := &attackerLists{daemon: d, table: table, wanted: make(chan struct{}, 1),
		exemptions: func(context.Context) ([]lists.Exemption, error) { return nil, nil }}
	a.keeper = fetch.NewKeeper(listSources(all), dir, d.log, a.want)
	return a
}

// An exchange of a million takes seconds of a processor: lists that become others at the same time are one, and a
// restart is one.
func TestListsThatChangeTogetherAreWrittenOnce(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	var all []config.List
	for i := range 5 {
		l := config.DefaultList()
		l.Name, l.File, l.Refresh = fmt.Sprint("own", i), filepath.Join(from, fmt.Sprint(i)), 4*time.Hour
		if err := os.WriteFile(l.File, fmt.Appendf(nil, "198.18.0.%d\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	for _, run := range []struct {
		what   string
		writes int
	}{{"without a copy it is at most what there is, and what was fetched", 2}, {"after a restart", 1}} {
		synctest.Test(t, func(t *testing.T) {
			table := &endingTable{}
			a := keptLists(table, dir, all...)
			a.want()
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = a.Run(ctx) })
			time.Sleep(time.Hour)
			if n := table.inForce(); n != len(all) || table.writes > run.writes {
				t.Errorf("%s: %d are in force, after %d exchanges", run.what, n, table.writes)
			}
			stop()
			wg.Wait()
		})
	}
}
