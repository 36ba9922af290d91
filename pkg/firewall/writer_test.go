package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a Firewall that notes what it is told and fails when asked to.
type fake struct {
	*DryRun
	mu      sync.Mutex
	batches [][]Change
	fail    []error // answers of Apply, in turn
	ensure  []error
	verify  error
	ensures int
	gate    chan struct{} // Apply waits for it, if set
}

func newFake() *fake { return &fake{DryRun: NewDryRun(nil)} }

func (f *fake) Apply(c []Change) error {
	if f.gate != nil && len(c) > 0 {
		<-f.gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(c) == 0 {
		return nil
	}
	if len(f.fail) > 0 {
		err := f.fail[0]
		f.fail = f.fail[1:]
		if err != nil {
			return err
		}
	}
	f.batches = append(f.batches, slices.Clone(c))
	return f.DryRun.Apply(c)
}

func (f *fake) EnsureTable() (Outcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ensures++
	if len(f.ensure) > 0 {
		err := f.ensure[0]
		f.ensure = f.ensure[1:]
		if err != nil {
			return "", err
		}
	}
	return f.DryRun.EnsureTable()
}

func (f *fake) VerifyTable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verify
}

func (f *fake) seen() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n []int
	for _, b := range f.batches {
		n = append(n, len(b))
	}
	return n
}

// start runs a Writer until the test ends.
func start(t testing.TB, w *Writer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func causes() (func(string), func() []string) {
	var mu sync.Mutex
	var list []string
	return func(c string) { mu.Lock(); list = append(list, c); mu.Unlock() },
		func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(list) }
}

func TestWriterBatchesWhatComesWhileItWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.gate = make(chan struct{})
		w := NewWriter(f, nil, WriterConfig{})
		var done atomic.Int32
		submit := func(c ...Change) {
			w.Submit(c, func(err error) {
				if err != nil {
					t.Errorf("%v: %v", c, err)
				}
				done.Add(1)
			})()
		}
		submit(ban("192.0.2.1", time.Hour)) // before the table is built, which leaves it to the Writer
		stop := start(t, w)
		synctest.Wait()
		for i := range 100 {
			submit(ban(fmt.Sprintf("198.51.100.%d", i), time.Hour))
		}
		submit(ban("198.51.100.7", 2*time.Hour), unban("198.51.100.8"))
		submit(unban("198.51.100.8"), ban("198.51.100.8", 3*time.Hour), ban("198.51.100.8", 4*time.Hour))
		f.gate <- struct{}{}
		f.gate <- struct{}{}
		synctest.Wait()
		if got := fmt.Sprint(f.seen()); got != "[1 100]" {
			t.Errorf("batches %s, want one of 1 and one of 100", got)
		}
		if done.Load() != 103 {
			t.Errorf("%d done functions were called, want 103", done.Load())
		}
		for p, want := range map[string]time.Duration{"198.51.100.7": 2 * time.Hour, "198.51.100.8": 4 * time.Hour} {
			if e, ok, _ := f.LookUpPrefix(Ban, pfx(p)); !ok || e.Remaining != want {
				t.Errorf("%s: %v %s, the last change was for %s", p, ok, e.Remaining, want)
			}
		}
		stop()
	})
}

func TestWriterLosesNothingToErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.ensure = []error{syscall.EPERM, syscall.ENOMEM, nil, syscall.ENOENT}
		f.fail = []error{nil, syscall.ENOBUFS, syscall.EIO}
		rebuilt, list := causes()
		desired := []Change{ban("192.0.2.1", time.Hour), ban("192.0.2.2", 300*time.Millisecond),
			ban("192.0.2.3", -time.Hour),
			{Kind: Allow, Prefix: pfx("10.0.0.0/8")}}
		w := NewWriter(f, func() []Change { return desired }, WriterConfig{Rebuilt: rebuilt})
		begin := time.Now()
		stop := start(t, w)
		synctest.Wait()
		if w.Err() == nil {
			t.Error("no error is shown while the kernel refuses")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Apply(ctx, []Change{ban("198.51.100.1", time.Hour), unban("198.51.100.2")}); err != nil {
			t.Fatal(err)
		}
		if w.Err() != nil {
			t.Error(w.Err())
		}
		e, ok, _ := f.LookUpPrefix(Ban, pfx("198.51.100.1"))
		if !ok || e.Remaining != time.Hour-time.Since(begin) {
			t.Errorf("%v, %s left after %s in the queue", ok, e.Remaining, time.Since(begin))
		}
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.1")); !ok {
			t.Error("what was desired is not there")
		}
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.3")); ok {
			t.Error("what was over is there")
		}
		if got := fmt.Sprint(list()); got != "[create error]" {
			t.Errorf("rebuilds %s", got)
		}
		stop()
	})
}

func TestWriterGivesUpOnlyTheChangeThatNeverWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		poison := &poisoned{fake: f, prefix: pfx("192.0.2.66")}
		w := NewWriter(poison, nil, WriterConfig{})
		good, bad := make(chan error, 1), make(chan error, 1)
		go w.Submit([]Change{ban("192.0.2.1", time.Hour)}, nil)()
		go w.Submit([]Change{ban("192.0.2.2", time.Hour)}, func(err error) { good <- err })()
		go w.Submit([]Change{ban("192.0.2.66", time.Hour)}, func(err error) { bad <- err })()
		stop := start(t, w)
		if err := <-good; err != nil {
			t.Errorf("the good one: %v", err)
		}
		if err := <-bad; !errors.Is(err, syscall.EINVAL) {
			t.Errorf("the bad one: %v", err)
		}
		stop()
	})
}

type poisoned struct {
	*fake
	prefix netip.Prefix
}

func (p *poisoned) Apply(c []Change) error {
	if slices.ContainsFunc(c, func(c Change) bool { return c.Prefix == p.prefix }) {
		return syscall.EINVAL
	}
	return p.fake.Apply(c)
}

func TestWriterTellsOnlyThoseWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.cfg.MaxElements = 2
		f.gate = make(chan struct{})
		w := NewWriter(f, nil, WriterConfig{})
		stop := start(t, w)
		synctest.Wait()
		results := make([]error, 4)
		go w.Submit([]Change{ban("192.0.2.0", time.Hour)}, func(err error) { results[0] = err })()
		synctest.Wait()
		for i := 1; i < 4; i++ {
			go w.Submit([]Change{ban(fmt.Sprintf("192.0.2.%d", i), time.Hour)}, func(err error) { results[i] = err })()
		}
		close(f.gate)
		synctest.Wait()
		for i, err := range results {
			if (i < 2) != (err == nil) || err != nil && !errors.Is(err, ErrFull) {
				t.Errorf("ban %d: %v", i, err)
			}
		}
		stop()
	})
}

func TestWriterMakesUpForAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.gate = make(chan struct{})
		rebuilt, list := causes()
		var desired []Change
		for i := range 20 {
			desired = append(desired, ban(fmt.Sprintf("192.0.2.%d", i), time.Hour))
		}
		var full atomic.Int32
		w := NewWriter(f, func() []Change { return desired }, WriterConfig{MaxPending: 4, Rebuilt: rebuilt})
		for _, c := range desired {
			w.Submit([]Change{c}, func(err error) {
				if errors.Is(err, ErrQueueFull) {
					full.Add(1)
				}
			})
		}
		var unbanned error = errors.New("not called")
		go w.Submit([]Change{unban("198.51.100.1")}, func(err error) { unbanned = err })()
		if full.Load() != 16 || w.Pending() != 5 {
			t.Errorf("%d refused and %d pending, want 16 and 5", full.Load(), w.Pending())
		}
		close(f.gate)
		stop := start(t, w)
		synctest.Wait()
		if unbanned != nil {
			t.Errorf("an unban found no place: %v", unbanned)
		}
		if got, _ := f.Elements(Ban); len(got) != 20 {
			t.Errorf("%d bans, want 20", len(got))
		}
		if got := fmt.Sprint(list()); got != "[create overflow]" {
			t.Errorf("rebuilds %s", got)
		}
		stop()
	})
}

func TestWriterRefusesNonsenseAtOnce(t *testing.T) {
	w := NewWriter(newFake(), nil, WriterConfig{})
	for _, c := range []Change{ban("192.0.2.1", 0), ban("192.0.2.1", time.Millisecond), ban("0.0.0.0/0", time.Hour),
		{}} {
		if err := w.Apply(t.Context(), []Change{c}); !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrChange) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := w.Apply(t.Context(), nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestWriterEndsWithWhatWaits(t *testing.T) {
	f := newFake()
	w := NewWriter(f, nil, WriterConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	called := false
	go w.Submit([]Change{ban("192.0.2.1", time.Hour)}, func(err error) { called = err == nil })()
	if err := w.Run(ctx); err != nil || !called {
		t.Errorf("done called: %v, %v", called, err)
	}
	if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.1")); !ok {
		t.Error("the change was lost")
	}
	if err := w.Apply(t.Context(), []Change{ban("192.0.2.2", time.Hour)}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestWriterApplyEndsWithItsContext(t *testing.T) {
	w := NewWriter(newFake(), nil, WriterConfig{}) // and nobody runs it
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := w.Apply(ctx, []Change{ban("192.0.2.1", time.Hour)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestWriterVerifiesNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		rebuilt, list := causes()
		desired := []Change{ban("192.0.2.1", time.Hour), ban("192.0.2.2", time.Hour)}
		var looked, found atomic.Int32
		w := NewWriter(f, func() []Change { return desired }, WriterConfig{
			Rebuilt: rebuilt,
			Sample:  func(int) []Change { return desired },
			Sampled: func(l, n int) { looked.Store(int32(l)); found.Store(int32(n)) },
		})
		stop := start(t, w)
		time.Sleep(defaultVerify + time.Second)
		if looked.Load() != 2 || found.Load() != 2 {
			t.Errorf("looked for %d, found %d", looked.Load(), found.Load())
		}
		f.mu.Lock()
		f.verify = ErrGone
		f.mu.Unlock()
		time.Sleep(defaultVerify)
		f.mu.Lock()
		f.verify = nil
		f.mu.Unlock()
		if err := f.DryRun.Apply([]Change{unban("192.0.2.2")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(defaultVerify)
		if found.Load() != 1 {
			t.Errorf("found %d, want 1", found.Load())
		}
		if got := fmt.Sprint(list()); got != "[create gone elements]" {
			t.Errorf("rebuilds %s", got)
		}
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.2")); !ok {
			t.Error("the element was not put back")
		}
		stop()
	})
}

// TestWriterRecoversFromEachKindOfFlush is the real thing: the kernel tells the watcher, and the table is built
// again.
func TestWriterRecoversFromEachKindOfFlush(t *testing.T) {
	s := newSpace(t)
	fw := openTable(t, testConfig(s))
	rebuilt := make(chan string, 100)
	desired := append(many(1000, time.Hour), ban("198.18.0.0/15", time.Hour),
		Change{Kind: Allow, Prefix: pfx("10.0.0.0/8")})
	w := NewWriter(fw, func() []Change { return desired }, WriterConfig{
		VerifyInterval: time.Second, // a lost notice would only make it slow
		Rebuilt:        func(c string) { rebuilt <- c },
		Sample:         func(int) []Change { return desired[len(desired)-8:] },
	})
	stop := start(t, w)
	wait := func(want string) {
		t.Helper()
		select {
		case got := <-rebuilt:
			if got != want {
				t.Fatalf("rebuilt for %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatal("not rebuilt")
		}
	}
	wait("create")
	for _, r := range []struct{ damage, cause string }{
		{"flush ruleset", CauseGone},
		{"flush table inet ringwall", CauseGone},
		{"delete table inet ringwall", CauseGone},
		{"flush ruleset; add table inet ringwall", CauseGone},
		{"flush set inet ringwall ban4", CauseElements},
		{"flush set inet ringwall net4", CauseElements},
		{"flush set inet ringwall allow4", CauseElements},
	} {
		begin := time.Now()
		s.command(t, "nft '"+r.damage+"'")
		wait(r.cause)
		t.Logf("%s: back after %s, nft's own time included", r.damage, time.Since(begin))
		if err := fw.VerifyTable(); err != nil {
			t.Errorf("%s: %v", r.damage, err)
		}
		for _, c := range desired[len(desired)-20:] {
			holds(t, fw, c.Kind, c.Prefix.String(), c.Timeout)
		}
	}
	// A change right after a flush is not lost, whoever notices first.
	for range 10 {
		s.command(t, "nft flush ruleset")
		if err := w.Apply(t.Context(), []Change{ban("203.0.113.9", time.Hour),
			ban("198.51.0.0/16", time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	holds(t, fw, Ban, desired[0].Prefix.String(), time.Hour)
}

func TestWatchHearsOthersAndNotItself(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 1000)
	ended := make(chan error, 1)
	go func() { ended <- fw.WatchRulesets(ctx, func() { heard <- struct{}{} }) }()
	foreign, notices := 0, 0
	change := func() {
		foreign += 2
		s.command(t, "nft add table inet other")
		s.command(t, "nft delete table inet other")
	}
	hear := func(limit time.Duration) bool {
		select {
		case <-heard:
			notices++
			return true
		case <-time.After(limit):
			return false
		}
	}
	// The socket is there when a foreign change is heard.
	for change(); !hear(50 * time.Millisecond); change() {
	}
	// None of these may be heard, and they are more than the foreign changes, of which the first went unheard.
	own := foreign + 100
	for i := range own {
		apply(t, fw, ban(fmt.Sprintf("192.0.%d.%d", i>>8, i&255), time.Hour))
	}
	apply(t, fw, ban("10.0.0.0/8", time.Hour))
	for until := notices + foreign + 1; notices < until; {
		change()
		for hear(50 * time.Millisecond) {
		}
	}
	for hear(200 * time.Millisecond) {
	}
	if notices > foreign {
		t.Errorf("%d notices of %d foreign changes: it hears its own", notices, foreign)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
