package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/store"
)

// gullible is a kernel that takes everything and costs nothing.
type gullible struct {
	firewall.Firewall
	at    time.Time // of the last change
	moody int       // each so many times it takes nothing; 0 is never
	calls int
}

func (*gullible) EnsureTable() (firewall.Outcome, error) { return firewall.Created, nil }
func (*gullible) VerifyTable() error                     { return nil }

func (g *gullible) Apply([]firewall.Change) error {
	g.at = time.Now()
	if g.calls++; g.moody > 0 && g.calls%g.moody == 0 {
		return errors.New("not now")
	}
	return nil
}

// workbench is a pipeline with all that decisions go to, but for the kernel and the disk.
type workbench struct {
	pipeline *pipeline.Pipeline
	kernel   *gullible
	feed     *api.Feed
	store    *store.Store
	newPBX   func(name string) *pbx
	notify   func(ban.Decision)
	stop     func() // when all is told
}

func newWorkbench(tb testing.TB, moody int) *workbench {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	s, _, err := store.Open(filepath.Join(tb.TempDir(), "state.db"), store.Options{Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	cfg := config.Default()
	cfg.Policy.Limits.Bans, cfg.Policy.Limits.ForgeableBans = 1<<20, 1<<20
	cfg.Policy.Limits.ForgeableBurst, cfg.Policy.Limits.ForgeableRate = 1<<20, 1<<20
	w := &workbench{feed: api.NewFeed(historySize), kernel: &gullible{moody: moody}}
	counts := metrics.New("test", nil)
	announcer := pipeline.NewAnnouncer(log, func(d ban.Decision) { w.notify(d) })
	w.notify = func(ban.Decision) {}
	w.pipeline = pipeline.New(pipeline.Config{
		Clock: pipeline.NewClock(time.Now()), Engine: engine.New(cfg.Policy), Metrics: counts, History: w.feed,
		Announcer: announcer, Log: log,
	})
	w.pipeline.SetStore(s)
	writer := firewall.NewWriter(w.kernel, nil, firewall.WriterConfig{VerifyInterval: -1})
	w.pipeline.SetWriter(writer)
	w.store, w.newPBX = s, func(name string) *pbx {
		return &pbx{name: name, pipeline: w.pipeline, metrics: counts.PBX(name), log: log}
	}
	ctx, cancel := context.WithCancel(context.Background())
	told, stopTelling := context.WithCancel(context.Background())
	var writing, telling sync.WaitGroup
	writing.Go(func() { _ = writer.Run(ctx) })
	telling.Go(func() { _ = announcer.Run(told) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		writing.Wait()
		stopTelling()
		telling.Wait()
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(w.stop)
	return w
}

// attacks returns what n scanners send until they are banned, as an Asterisk writes it.
func attacks(n int) (frames []ami.Frame) {
	now := time.Now()
	at := now.UTC().Format("2006-01-02T15:04:05.000+0000")
	for i := range n {
		for try := range 3 {
			text := fmt.Sprintf("Event: InvalidAccountID\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: "+
				"Error\r\nService: PJSIP\r\n"+
				"EventVersion: 1\r\nAccountID: %d\r\nSessionID: call-%d-%d\r\nLocalAddress: IPV4/TCP/192.0.2.1/5060\r\n"+
				"RemoteAddress: IPV4/TCP/%v/5060", at, 100+try, i, try, scanner(i))
			frames = append(frames, ami.Frame{Text: text, Received: now})
		}
	}
	return frames
}

func scanner(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

// bans makes n bans, and returns their decisions.
func (w *workbench) bans(tb testing.TB, n int) []ban.Decision {
	tb.Helper()
	var out []ban.Decision
	w.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, f := range attacks(n) {
			var ev event.Event
			if err := event.Decode(f.Text, &ev); err != nil {
				tb.Fatal(err)
			}
			out = e.Handle(now, "pbx1", &ev, out)
		}
	})
	if len(out) != n {
		tb.Fatalf("%d decisions of %d attackers: %+v", len(out), n, out[:min(len(out), 3)])
	}
	return out
}

// What a ban costs from the engine's decision to those who are told of it, in batches as a flood brings them.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := newWorkbench(b, 0)
			_, follower := w.feed.Follow(time.Time{})
			defer follower.Close()
			all := w.bans(b, 4096)
			commit := func(i int) {
				at := i * size % len(all)
				_, err := w.pipeline.UpdateEngineAndWait(b.Context(),
					func(*engine.Engine, time.Time) ([]ban.Decision, error) {
						return all[at : at+size], nil
					})
				if err != nil {
					b.Fatal(err)
				}
				follower.Take()
			}
			for i := range historySize / size { // history and the queue for the disk have their size
				commit(i)
			}
			used := cpu(b)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range (b.N + size - 1) / size {
				commit(i)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// Whoever writes a ban, and whatever the kernel says at first: each is told once, and each event is counted.
func TestEachBanIsToldOnce(t *testing.T) {
	for _, moody := range []int{0, 5} {
		w := newWorkbench(t, moody)
		const each, pbxs = 100, 3
		frames := attacks(each * pbxs)
		var told sync.Map
		w.notify = func(d ban.Decision) {
			if _, twice := told.LoadOrStore(d.Prefix, d); twice || d.Action != ban.ActionBan {
				t.Errorf("unexpected: %+v", d)
			}
		}
		var all [pbxs]*pbx
		var group sync.WaitGroup
		for i := range all {
			p, mine := w.newPBX(fmt.Sprint(i)), frames[3*each*i:3*each*(i+1)]
			all[i] = p
			group.Go(func() {
				for len(mine) > 0 {
					n := min(len(mine), 1+len(mine)%4)
					p.judgeFrames(mine[:n])
					mine = mine[n:]
				}
			})
		}
		group.Wait()
		w.stop()
		for i := range each * pbxs {
			v, _ := told.Load(netip.PrefixFrom(scanner(i), 32))
			if d, ok := v.(ban.Decision); !ok || d.Source != scanner(i) || d.PBX != fmt.Sprint(i/each) {
				t.Errorf("moody %d, %v: %+v", moody, scanner(i), v)
			}
		}
		if history := w.feed.Recent(time.Time{}, netip.Addr{}); len(history) != each*pbxs {
			t.Errorf("moody %d: history has %d bans of %d", moody, len(history), each*pbxs)
		}
		for i := range all {
			if n := all[i].events.Load(); n != 3*each {
				t.Errorf("moody %d: %d events of %d are counted", moody, n, 3*each)
			}
		}
		if n := w.store.Stats().Pending; n < 2*each*pbxs {
			t.Errorf("moody %d: %d records wait for the disk", moody, n)
		}
	}
}

// cpu is the time that the process has used: decisions go from goroutine to goroutine.
func cpu(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What an idle daemon does with the frame that makes a ban, until it is told; ns/kernel are those until the kernel is.
func BenchmarkDirect(b *testing.B) {
	w := newWorkbench(b, 0)
	n := min(b.N, 1<<18)
	frames := attacks(n)
	p := w.newPBX("pbx1")
	for i := range n {
		p.judgeFrames(frames[3*i : 3*i+2])
	}
	sooner := time.Duration(0)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range n {
		began := time.Now()
		p.judgeFrames(frames[3*i+2 : 3*i+3])
		sooner += w.kernel.at.Sub(began)
	}
	b.StopTimer()
	b.ReportMetric(float64(sooner.Nanoseconds())/float64(n), "ns/kernel")
	bans := 0
	w.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { bans = e.Stats(now).Bans })
	if bans != n {
		b.Fatalf("%d bans of %d", bans, n)
	}
}

// What events wait for while a hundred thousand bans are ended, each with a grace: ns/longest is the processor time of
// the longest piece, of which most is under the engine's lock.
func BenchmarkUnbanAll(b *testing.B) {
	const bans = 100_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return time.Duration(t.Nano())
	}
	longest := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		w := newWorkbench(b, 0)
		w.bans(b, bans)
		ended := 0
		b.StartTimer()
		began := thread()
		err := w.pipeline.Unban(b.Context(), engine.NewPardon(netip.Prefix{}, time.Hour), func(some []ban.Decision,
			_ []ban.Restriction) {
			ended += len(some)
			longest, began = max(longest, thread()-began), thread()
		})
		if err != nil || ended != bans {
			b.Fatalf("%d bans of %d ended, %v", ended, bans, err)
		}
	}
	b.ReportMetric(float64(longest.Nanoseconds()), "ns/longest")
}
