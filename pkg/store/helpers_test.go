package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// start is when the tests' records are made.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func statePath(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") }

func mustOpen(t testing.TB, path string, o Options) (*Store, Recovery) {
	t.Helper()
	s, r, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, r
}

// runs starts a Store's Run; the function returned ends it and returns its error.
func runs(t testing.TB, s *Store) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var err error
	ended := false
	stop = func() error {
		if !ended {
			ended = true
			cancel()
			err = <-done
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func mustPut(t testing.TB, s *Store, changes ...Change) {
	t.Helper()
	if err := s.Put(changes...); err != nil {
		t.Fatal(err)
	}
}

func mustFlush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t testing.TB, s *Store, now time.Time) State {
	t.Helper()
	state, err := s.Load(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// save writes changes to a file and closes it.
func save(t testing.TB, path string, changes ...Change) {
	t.Helper()
	s, _ := mustOpen(t, path, Options{})
	stop := runs(t, s)
	mustPut(t, s, changes...)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// load opens a file, reads it and closes it.
func load(t testing.TB, path string, now time.Time) (State, Recovery) {
	t.Helper()
	s, r := mustOpen(t, path, Options{})
	state := mustLoad(t, s, now)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return state, r
}

func host(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(i>>24), byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

// sampleBan is a ban as an attack makes it, with n pieces of evidence.
func sampleBan(i, n int) ban.Ban {
	p := host(i)
	b := ban.Ban{
		Prefix: p, Source: p.Addr(), Since: start, Until: start.Add(time.Duration(1+i%24) * time.Hour),
		Reason: "unknown_account", Score: 12.5, Proven: i%2 == 0, Number: 1 + i%3, PBX: "pbx1", Attempts: 3 + i%40,
	}
	for j := range n {
		b.Evidence = append(b.Evidence, ban.Evidence{
			Time: start.Add(time.Duration(j-n) * time.Second), Event: "InvalidAccountID", Service: "PJSIP",
			Transport: "UDP",
			Account:   fmt.Sprintf("%d", 100+(i+j)%9000), Reason: "unknown_account", Points: 4,
			Score: float64(4 * (j + 1)), PBX: "pbx1",
		})
	}
	return b
}

// countsInTests is Options.Counts as a daemon may have it.
func countsInTests(b *ban.Ban) bool { return !b.Manual && b.Number > 0 }

// worst is what is known of each source.
func worst(list []ban.Offender) map[netip.Prefix]ban.Offender {
	known := make(map[netip.Prefix]ban.Offender)
	for _, o := range list {
		have := known[o.Prefix]
		known[o.Prefix] = ban.Offender{Prefix: o.Prefix, Bans: max(o.Bans, have.Bans), Last: laterOf(o.Last, have.Last)}
	}
	return known
}

func sampleBans(n, evidence int) []Change {
	list := make([]Change, n)
	for i := range n {
		list[i] = PutBan(sampleBan(i, evidence))
	}
	return list
}

func sampleDecision(i int, at time.Time) ban.Decision {
	p := host(i)
	return ban.Decision{
		Time: at, Action: ban.ActionBan, Source: p.Addr(), Prefix: p, Reason: ban.ReasonUnknownAccount, Points: 4,
		Score:   12,
		Account: "100", Service: event.PJSIP, Transport: event.UDP, Duration: time.Hour, PBX: "pbx1",
	}
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// await receives what a test waits for.
func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("never came: " + what)
		panic("unreachable")
	}
}

func sortBy[T any](list []T, text func(T) string) {
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(text(a), text(b)) })
}
