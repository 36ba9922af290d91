package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone answers look-ups, and counts them.
type zone struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr
	errs    map[string]error
	asked   map[string][]time.Time
	block   bool
}

func newZone() *zone {
	return &zone{answers: map[string][]netip.Addr{}, errs: map[string]error{}, asked: map[string][]time.Time{}}
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.errs, name)
	z.answers[name] = nil
	for _, a := range addrs {
		z.answers[name] = append(z.answers[name], netip.MustParseAddr(a))
	}
}

func (z *zone) fail(name string, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.errs[name] = err
}

func (z *zone) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[name] = append(z.asked[name], time.Now())
	addrs, err, block := slices.Clone(z.answers[name]), z.errs[name], z.block
	z.mu.Unlock()
	if block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return addrs, err
}

func (z *zone) count(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.asked[name])
}

// running starts a resolver whose changes and errors become lines of text.
func running(t *testing.T, cfg Config, before ...func(*Resolver)) (r *Resolver, said func() []string) {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}
	cfg.OnChange = func(name string, added, removed []netip.Prefix) { say("%s +%v -%v", name, added, removed) }
	cfg.OnError = func(name string, err error) { say("%s %s", name, errorKind(err)) }
	r = NewResolver(cfg)
	for _, f := range before {
		f(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r, func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := lines
		lines = nil
		return out
	}
}

func want(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if !slices.Equal(got, lines) {
		t.Fatalf("said\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

func TestNamesAreLookedUpAtOnceAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("home.example.net", "203.0.113.7", "2001:db8::7", "::ffff:203.0.113.8")
		r, said := running(t, Config{Lookup: z.lookup})
		if err := r.Set([]string{"Home.Example.net."}); err != nil {
			t.Fatal(err)
		}
		want(t, said(), "home.example.net +[203.0.113.7/32 203.0.113.8/32 2001:db8::7/128] -[]")
		z.set("home.example.net", "203.0.113.9", "2001:db8::7")
		time.Sleep(4 * time.Minute)
		want(t, said())
		time.Sleep(2 * time.Minute)
		want(t, said(), "home.example.net +[203.0.113.9/32] -[203.0.113.7/32 203.0.113.8/32]")
		if got := fmt.Sprint(r.Prefixes("HOME.example.net")); got != "[203.0.113.9/32 2001:db8::7/128]" {
			t.Errorf("Prefixes: %s", got)
		}
		if err := r.Set(nil); err != nil {
			t.Fatal(err)
		}
		want(t, said(), "home.example.net +[] -[203.0.113.9/32 2001:db8::7/128]")
	})
}

func TestNoNameIsAskedMoreThanOnceAMinuteNorAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		r, said := running(t, Config{Lookup: z.lookup, Interval: time.Second})
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprintf("h%02d.example.net", i))
			z.set(names[i], "203.0.113.1")
		}
		z.fail(names[0], errors.New("broken"))
		if err := r.Set(names); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		said()
		moments := map[time.Time]bool{}
		for _, n := range names {
			for i, at := range z.asked[n] {
				moments[at] = true
				if n == names[0] && i <= 6 { // it was never found: after 1 s, 2 s, 4 s, …
					continue
				}
				if i > 0 && at.Sub(z.asked[n][i-1]) < MinInterval {
					t.Fatalf("%s asked again after %v", n, at.Sub(z.asked[n][i-1]))
				}
			}
			if got := len(z.asked[n]); got < 25 || got > 31+6 || n != names[0] && got > 31 {
				t.Errorf("%s asked %d times in 30 minutes", n, got)
			}
		}
		if len(moments) < 100 {
			t.Errorf("40 names were asked at %d moments only", len(moments))
		}
	})
}

func TestLastGoodAnswerIsKeptAndAFailureReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("a.example.net", "203.0.113.7")
		r, said := running(t, Config{Lookup: z.lookup})
		if err := r.Set([]string{"a.example.net"}); err != nil {
			t.Fatal(err)
		}
		want(t, said(), "a.example.net +[203.0.113.7/32] -[]")
		for port := range 20 {
			z.fail("a.example.net", &net.DNSError{Err: fmt.Sprintf("read udp 127.0.0.1:%d: i/o timeout", port),
				IsTimeout: true})
			time.Sleep(6 * time.Minute)
		}
		want(t, said(), "a.example.net timeout")
		z.fail("a.example.net", &net.DNSError{Err: "no such host", IsNotFound: true})
		time.Sleep(6 * time.Minute)
		want(t, said(), "a.example.net not found")
		z.set("a.example.net") // an empty answer is a failure too
		time.Sleep(6 * time.Minute)
		want(t, said(), "a.example.net empty")
		st := r.States()
		if len(st) != 1 || !errors.Is(st[0].Err, ErrNoAddrs) || fmt.Sprint(st[0].Prefixes) != "[203.0.113.7/32]" ||
			time.Since(st[0].Resolved) < time.Hour {
			t.Errorf("States: %+v", st)
		}
		z.set("a.example.net", "203.0.113.7")
		time.Sleep(2 * time.Minute)
		want(t, said(), "a.example.net ")
	})
}

// The network comes up some seconds after the start: a name is found at once then.
func TestANameThatWasNeverFoundIsAskedForAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.fail("sip.example.net", &net.DNSError{Err: "network is unreachable"})
		r, said := running(t, Config{Lookup: z.lookup})
		if err := r.Set([]string{"sip.example.net"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		z.set("sip.example.net", "203.0.113.7")
		want(t, said(), "sip.example.net other")
		time.Sleep(3 * time.Second)
		want(t, said(), "sip.example.net +[203.0.113.7/32] -[]", "sip.example.net ")
		if st := r.States(); len(st) != 1 || !st[0].Confirmed {
			t.Errorf("%+v", st)
		}
		// One that was found is left alone for a minute when it fails.
		z.fail("sip.example.net", &net.DNSError{Err: "network is unreachable"})
		time.Sleep(6 * time.Minute)
		n := z.count("sip.example.net")
		time.Sleep(50 * time.Second)
		if more := z.count("sip.example.net") - n; more > 1 {
			t.Errorf("asked %d times in less than a minute", more)
		}
	})
}

// What a name stood for before a restart counts until an answer comes.
func TestAddressesAreRememberedOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.fail("sip.example.net", &net.DNSError{Err: "network is unreachable"})
		r, said := running(t, Config{Lookup: z.lookup}, func(r *Resolver) {
			r.Remember("SIP.example.net.", []netip.Addr{netip.MustParseAddr("203.0.113.7"),
				netip.MustParseAddr("127.0.0.1")},
				time.Now().Add(-time.Hour))
			r.Remember("gone.example.net", []netip.Addr{netip.MustParseAddr("203.0.113.8")}, time.Now())
			if err := r.Set([]string{"sip.example.net"}); err != nil {
				t.Error(err)
			}
		})
		want(t, said(), "gone.example.net +[] -[203.0.113.8/32]", "sip.example.net other")
		if st := r.States(); len(st) != 1 || st[0].Confirmed || fmt.Sprint(st[0].Prefixes) != "[203.0.113.7/32]" ||
			time.Since(st[0].Resolved) < time.Hour {
			t.Errorf("%+v", st)
		}
		z.set("sip.example.net", "203.0.113.7", "203.0.113.9")
		time.Sleep(2 * time.Second)
		want(t, said(), "sip.example.net +[203.0.113.9/32] -[]", "sip.example.net ")
	})
}

func TestAddressesThatNobodyCanHaveAreNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("blocked.example.net", "0.0.0.0", "127.0.0.1", "::", "::1", "224.0.0.5", "ff02::1", "255.255.255.255",
			"169.254.1.1", "fe80::1", "fe80::1%lo")
		z.set("lan.example.net", "192.168.1.20", "0.0.0.0")
		r, said := running(t, Config{Lookup: z.lookup})
		if err := r.Set([]string{"blocked.example.net", "lan.example.net"}); err != nil {
			t.Fatal(err)
		}
		want(t, said(), "blocked.example.net empty", "lan.example.net +[192.168.1.20/32] -[]")
	})
}

func TestLingeringAddressesStayForTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("sip.example.net", "203.0.113.1")
		r, said := running(t, Config{Lookup: z.lookup, Linger: time.Hour})
		if err := r.Set([]string{"sip.example.net"}); err != nil {
			t.Fatal(err)
		}
		want(t, said(), "sip.example.net +[203.0.113.1/32] -[]")
		z.set("sip.example.net", "203.0.113.2")
		time.Sleep(30 * time.Minute)
		want(t, said(), "sip.example.net +[203.0.113.2/32] -[]")
		time.Sleep(45 * time.Minute)
		want(t, said(), "sip.example.net +[] -[203.0.113.1/32]")
	})
}

func TestAnswersAndListsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		var many []string
		for i := range 200 {
			many = append(many, fmt.Sprintf("203.0.113.%d", i+1))
		}
		z.set("a.example.net", many[100:]...)
		r, said := running(t, Config{Lookup: z.lookup, MaxAddrs: 10, MaxNames: 1})
		err := r.Set([]string{"b.example.net", "a.example.net", "-bad-", "10.0.0.1", "a.example.net"})
		if !errors.Is(err, ErrTooMany) || !errors.Is(err, ErrBadName) {
			t.Errorf("Set: %v", err)
		}
		first := said()
		if len(first) != 2 || len(r.Prefixes("a.example.net")) != 10 || z.count("b.example.net") != 0 {
			t.Fatalf("%q, %v", first, r.Prefixes("a.example.net"))
		}
		// Lower addresses join the answer: those that are known stay.
		z.set("a.example.net", many...)
		time.Sleep(6 * time.Minute)
		want(t, said())
	})
}

func TestRunEndsWhileDNSHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.block = true
		r, said := running(t, Config{Lookup: z.lookup, Timeout: time.Second})
		if err := r.Set([]string{"a.example.net"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		want(t, said(), "a.example.net timeout")
		time.Sleep(65 * time.Second) // the next one hangs when the test ends
	})
}

func TestNames(t *testing.T) {
	for in, out := range map[string]string{
		"Example.NET.": "example.net", "sip_1.example.net": "sip_1.example.net", "pbx": "pbx",
		"1.example.x1": "1.example.x1",
		"":             "", ".": "", "a..b": "", "-a.b": "", "a-.b": "", "10.0.0.1": "", "10.1": "", "0x7f000001": "",
		"a b":            "",
		"a\nb":           "",
		"bücher.example": "", strings.Repeat("a", 64) + ".b": "", strings.Repeat("a.", 130) + "b": "", "[::1]": "",
		"a/24": "", "P\u212a.example": "", // which strings.ToLower makes pk.example
	} {
		if got, ok := NormalizeName(in); got != out || ok != (out != "") {
			t.Errorf("Name(%q) = %q, %v; want %q", in, got, ok, out)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"sip.example.net", "10.1", "a..b", "_sip._udp.example.net.", "0x1",
		"xn--bcher-kva.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := NormalizeName(s)
		if !ok {
			return
		}
		if again, ok := NormalizeName(n); !ok || again != n {
			t.Errorf("Name(%q) = %q, then %q", s, n, again)
		}
		if _, err := netip.ParseAddr(n); err == nil || strings.ContainsAny(n, " \r\n\t:/%;@") {
			t.Errorf("Name(%q) = %q", s, n)
		}
	})
}
