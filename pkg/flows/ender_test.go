package flows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// fake stands for the kernel where the time between two looks matters.
type fake struct {
	took   time.Duration
	err    error
	ended  int
	looks  []look
	closed bool
}

type look struct {
	at       time.Time
	prefixes int
}

func (f *fake) end(ctx context.Context, s *selection) (int, error) {
	f.looks = append(f.looks, look{time.Now(), len(s.prefixes)})
	select {
	case <-time.After(f.took):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return f.ended, f.err
}

func (f *fake) close() { f.closed = true }

// inBubble runs an Ender on a fake inside a bubble of synctest.
func inBubble(t *testing.T, cfg Config, f *fake, test func(e *Ender)) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnder(cfg, f)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		synctest.Wait()
		test(e)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if !f.closed {
			t.Error("Run left the socket open")
		}
		e.End(netip.MustParsePrefix("192.0.2.1/32"))
		if len(e.pending) != 0 {
			t.Error("End keeps what nobody will take any more")
		}
	})
}

// pass lets time pass until all that it brings has been done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestBansDuringALookAreOneBatch(t *testing.T) {
	f := &fake{took: 100 * time.Millisecond}
	inBubble(t, Config{}, f, func(e *Ender) {
		began := time.Now()
		e.End(netip.MustParsePrefix("192.0.2.0/32"))
		synctest.Wait()
		for i := range 200 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
			e.End(p)
			e.End(p) // twice the same is once
		}
		pass(10 * time.Second)
		want := []look{{began, 1}, {began.Add(1100 * time.Millisecond), 200}}
		if len(f.looks) != 2 || f.looks[0] != want[0] || f.looks[1] != want[1] {
			t.Errorf("looks %v, want %v", f.looks, want)
		}
	})
}

// A table so large that a look takes 3 s is not looked through all the time.
func TestSlowLooksAreRare(t *testing.T) {
	f := &fake{took: 3 * time.Second}
	inBubble(t, Config{}, f, func(e *Ender) {
		for range 299 {
			e.End(netip.MustParsePrefix("192.0.2.1/32"))
			pass(time.Second)
		}
		if len(f.looks) != 10 {
			t.Errorf("%d looks in 300 s, want one in 30 s", len(f.looks))
		}
	})
}

func TestAFullQueueIsSaid(t *testing.T) {
	var log bytes.Buffer
	f := &fake{took: time.Second}
	cfg := Config{MaxPending: 10, Log: slog.New(slog.NewTextHandler(&log, nil))}
	inBubble(t, cfg, f, func(e *Ender) {
		e.End(netip.MustParsePrefix("198.51.100.1/32"))
		synctest.Wait()
		for i := range 25 {
			e.End(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32))
		}
		pass(time.Minute)
		if len(f.looks) != 2 || f.looks[1].prefixes != 10 {
			t.Errorf("looks %v, want 10 prefixes in the second", f.looks)
		}
	})
	if !strings.Contains(log.String(), "sources=15") {
		t.Errorf("the log does not name the 15 sources that found no place:\n%s", &log)
	}
}

func TestAFaultIsSaidOnceAndItsEndToo(t *testing.T) {
	for _, c := range []struct {
		errno error
		is    error
		says  string
	}{
		{unix.EINVAL, ErrMissing, "modprobe nf_conntrack_netlink"},
		{unix.EPERM, ErrPermission, "CAP_NET_ADMIN"},
		{unix.ENOMEM, unix.ENOMEM, "cannot allocate memory"},
	} {
		t.Run(c.errno.Error(), func(t *testing.T) {
			var log bytes.Buffer
			f := &fake{err: explain("read the table of flows", c.errno)}
			if !errors.Is(f.err, c.is) || !errors.Is(f.err, c.errno) {
				t.Errorf("%v is not %v or not %v", f.err, c.is, c.errno)
			}
			inBubble(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, f, func(e *Ender) {
				for range 599 {
					e.End(netip.MustParsePrefix("192.0.2.1/32"))
					pass(time.Second)
				}
				if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), c.says) {
					t.Errorf("%d warnings, want one with %q:\n%s", n, c.says, &log)
				}
				if len(f.looks) != 10 {
					t.Errorf("%d looks in ten minutes, want one a minute", len(f.looks))
				}
				f.err = nil
				e.End(netip.MustParsePrefix("192.0.2.1/32"))
				pass(2 * time.Minute)
				if !strings.Contains(log.String(), "can be ended again") {
					t.Errorf("the end of the fault is not said:\n%s", &log)
				}
			})
		})
	}
}

func TestEndedIsToldWhatWasDeletedBeforeAFault(t *testing.T) {
	f := &fake{ended: 7, err: errors.New("a fault")}
	total := 0
	inBubble(t, Config{Ended: func(n int) { total += n }}, f, func(e *Ender) {
		e.End(netip.MustParsePrefix("192.0.2.1/32"))
		pass(time.Second)
	})
	if total != 7 {
		t.Errorf("told %d, want 7", total)
	}
}

func TestRunEndsInTheMiddleOfALook(t *testing.T) {
	var log bytes.Buffer
	f := &fake{took: time.Hour}
	inBubble(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, f, func(e *Ender) {
		e.End(netip.MustParsePrefix("192.0.2.1/32"))
		synctest.Wait()
	})
	if len(f.looks) != 1 || log.Len() != 0 {
		t.Errorf("looks %v, log %q", f.looks, &log)
	}
}

func TestANilEnderEndsNothing(t *testing.T) {
	var e *Ender
	e.End(netip.MustParsePrefix("192.0.2.1/32"))
}

func TestRounds(t *testing.T) {
	full := make([][]byte, chunk)
	one := full[:1]
	fault := errors.New("fault")
	type answer struct {
		names   [][]byte
		dump    error
		deleted int
		err     error
	}
	for _, c := range []struct {
		name    string
		answers []answer
		total   int
		err     error
	}{
		{name: "one round", answers: []answer{{names: one, deleted: 1}}, total: 1},
		{name: "a full round is followed by another", answers: []answer{
			{names: full, deleted: chunk}, {names: one, deleted: 1},
		}, total: chunk + 1},
		{name: "a full round of flows that were gone is the last", answers: []answer{{names: full}}},
		{name: "an interrupted dump is repeated once", answers: []answer{
			{names: one, dump: nl.ErrDumpInterrupted, deleted: 1}, {names: one, dump: nl.ErrDumpInterrupted, deleted: 1},
		}, total: 2},
		{name: "no dump", answers: []answer{{dump: fault}}, err: fault},
		{name: "an interrupted and a failed dump", answers: []answer{
			{names: one, dump: nl.ErrDumpInterrupted, deleted: 1}, {dump: fault},
		}, total: 1, err: fault},
		{name: "no deletion", answers: []answer{{names: full, deleted: 3, err: fault}}, total: 3, err: fault},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := -1
			total, err := rounds(t.Context(),
				func() ([][]byte, error) {
					if i++; i == len(c.answers) {
						t.Fatal("one round too many")
					}
					return c.answers[i].names, c.answers[i].dump
				},
				func(names [][]byte) (int, error) { return c.answers[i].deleted, c.answers[i].err })
			if total != c.total || !errors.Is(err, c.err) || i != len(c.answers)-1 {
				t.Errorf("%d flows, %v after %d rounds", total, err, i+1)
			}
		})
	}
}

func TestFlowsThatComeBackDoNotKeepALook(t *testing.T) {
	n := 0
	_, err := rounds(t.Context(),
		func() ([][]byte, error) { return make([][]byte, chunk), nil },
		func(names [][]byte) (int, error) {
			if n++; n > maxRounds {
				t.Fatal("one round too many")
			}
			return len(names), nil
		})
	if n != maxRounds || err != nil {
		t.Errorf("%d rounds, %v", n, err)
	}
}

func TestSelection(t *testing.T) {
	voip := Config{UDPPorts: []uint16{5060}, TCPPorts: []uint16{5061}}
	all := Config{All: true}
	spare := Config{All: true, Spare: func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.7") }}
	own := netip.MustParseAddr("198.51.100.1")
	for _, c := range []struct {
		cfg    *Config
		ban    string
		src    string
		proto  uint8
		dport  uint16
		wanted bool
	}{
		{&voip, "192.0.2.1/32", "192.0.2.1", 17, 5060, true},
		{&voip, "192.0.2.1/32", "192.0.2.2", 17, 5060, false},
		{&voip, "192.0.2.1/32", "192.0.2.1", 17, 5061, false},
		{&voip, "192.0.2.1/32", "192.0.2.1", 6, 5061, true},
		{&voip, "192.0.2.1/32", "192.0.2.1", 6, 22, false},
		{&voip, "192.0.2.1/32", "192.0.2.1", 1, 0, false},
		{&voip, "192.0.2.1/32", "192.0.2.1", 132, 5060, false},
		{&all, "192.0.2.1/32", "192.0.2.1", 1, 0, true},
		{&all, "192.0.2.1/32", "192.0.2.1", 6, 22, true},
		{&all, "192.0.2.1/24", "192.0.2.200", 6, 22, true}, // host bits in the ban
		{&all, "::ffff:192.0.2.1/128", "192.0.2.1", 6, 22, true},
		{&all, "::ffff:192.0.2.0/120", "192.0.2.1", 6, 22, true},
		{&all, "2001:db8::/64", "2001:db8::9", 58, 0, true},
		{&all, "2001:db8::/64", "2001:db8:0:1::9", 58, 0, false},
		{&all, "::/0", "192.0.2.1", 6, 22, false},
		{&all, "0.0.0.0/0", "192.0.2.1", 6, 22, true},
		{&all, "0.0.0.0/0", "127.0.0.1", 6, 5038, false},
		{&all, "::/0", "::1", 6, 5038, false},
		{&spare, "192.0.2.0/24", "192.0.2.7", 6, 22, false},
		{&spare, "192.0.2.0/24", "192.0.2.8", 6, 22, true},
	} {
		p, ok := normal(netip.MustParsePrefix(c.ban))
		if !ok {
			t.Fatalf("%s is not valid", c.ban)
		}
		s := newSelection(c.cfg, []netip.Prefix{p})
		theirs := tuple{src: netip.MustParseAddr(c.src), proto: c.proto, dport: c.dport}
		ours := tuple{src: own, proto: c.proto, dport: 40000}
		if own.Is4() != theirs.src.Is4() {
			ours.src = netip.MustParseAddr("2001:db8:ffff::1")
		}
		if c.ban == "0.0.0.0/0" || c.ban == "::/0" {
			ours = tuple{} // every address is banned, the machine's own too
		}
		name := fmt.Sprintf("ban %s, %s>%d/%d, all=%v", c.ban, c.src, c.dport, c.proto, c.cfg.All)
		if got := s.takes(&flow{orig: theirs, reply: ours}); got != c.wanted {
			t.Errorf("%s: %v, begun by the source", name, got)
		}
		if got := s.takes(&flow{orig: ours, reply: theirs}); got != c.wanted {
			t.Errorf("%s: %v, begun by the machine", name, got)
		}
	}
}

func TestInvalidPrefixesArePassedOver(t *testing.T) {
	e := newEnder(Config{}, &fake{})
	e.End(netip.Prefix{}, netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 99))
	if len(e.pending) != 0 {
		t.Errorf("pending %v", e.pending)
	}
}

// Room is used again, and what waits in it is not what is being looked for.
func TestABatchIsNotOverwritten(t *testing.T) {
	e := newEnder(Config{}, &fake{})
	var before []netip.Prefix
	for round := range 4 {
		var want []netip.Prefix
		for i := range 100 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(round), byte(i)}), 32)
			want = append(want, p)
		}
		room := slices.Clone(want)
		e.End(room...)
		clear(room) // it is the caller's
		got, _ := e.take()
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %v", round, got)
		}
		e.give(before)
		before = got
	}
	for i := range 2 * maxRoom {
		e.End(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	got, _ := e.take()
	e.give(got)
	if len(got) != 2*maxRoom || cap(e.spare) > maxRoom {
		t.Errorf("%d of %d wait, and there is room for %d afterwards", len(got), 2*maxRoom, cap(e.spare))
	}
}
