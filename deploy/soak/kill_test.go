package soak

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// A power cut at any moment loses no ban that somebody was told of, makes none permanent and none longer.
func TestKilledUnderLoad(t *testing.T) {
	rounds := shortOrLong(10, 200)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHost(t, "policy: {honeypots: [trap], ban: {first: 1h, factor: 1}}\n")
	books := &books{bans: make(map[netip.Prefix]promise), lifted: make(map[netip.Prefix]bool),
		asked: make(map[netip.Prefix]time.Time)}
	fruitless := 0
	for round := range rounds {
		before := len(books.bans)
		h.spawnDaemon()
		if round%2 == 0 {
			h.waitUntil("the daemon hears Asterisk", h.isUp)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { h.playAttackers(ctx, round) })
		work.Go(func() { h.followDecisions(ctx, books) })
		for typist := range 2 {
			work.Go(func() { h.typeCommands(ctx, books, round, typist) })
		}
		if round%4 == 0 { // on a slow machine, too, some commands come to their end
			typed := books.countConfirmed()
			h.waitUntil("a command has banned", func() bool { return books.countConfirmed() > typed })
		}
		pauseFor(ctx, time.Duration(random.Int64N(int64(500*time.Millisecond))))
		h.daemon.Kill()
		cancel()
		work.Wait()
		books.readLog(t, h.daemon.Output())
		if len(books.bans) == before {
			fruitless++
		}
		at := time.Now()
		books.checkList(t, "the kernel, after the cut", at, h.kernelBans())
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	h.startAndAwait()
	h.compareWithBooks(books, "after the last start")
	// The kernel forgets everything at a reboot; then the state file alone has it all.
	h.stopDaemon()
	h.flushRuleset()
	h.startAndAwait()
	h.awaitAllBans() // the first writing follows the start
	h.compareWithBooks(books, "after a reboot")
	h.stopDaemon()
	t.Logf("%d kills, %d of them before anything was confirmed; %d bans confirmed (%d by commands), %d lifted; at most "+
		"%v more than was given",
		rounds, fruitless, len(books.bans), books.typed, len(books.lifted), books.most)
	if len(books.bans) < rounds || books.typed == 0 {
		t.Error("hardly a ban was confirmed")
	}
}

// compareWithBooks compares the kernel and the daemon's list with the books.
func (h *host) compareWithBooks(books *books, when string) {
	t := h.t
	t.Helper()
	at := time.Now()
	books.checkList(t, "the kernel, "+when, at, h.kernelBans())
	bans, err := h.client.Bans(t.Context(), api.BanFilter{})
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[netip.Prefix]firewall.Element)
	for _, b := range bans {
		p := netip.MustParsePrefix(b.Prefix.String())
		known[p] = firewall.Element{Prefix: p, Timeout: b.Until.Sub(b.Since), Remaining: b.Until.Sub(at)}
	}
	books.checkList(t, "the daemon's list, "+when, at, known)
}

// promise is what somebody was told of a ban.
type promise struct {
	by  string
	end time.Time // at the latest
}

// books hold what was confirmed.
type books struct {
	mu     sync.Mutex
	bans   map[netip.Prefix]promise
	lifted map[netip.Prefix]bool
	asked  map[netip.Prefix]time.Time // the latest end that a command has asked for, confirmed or not
	typed  int
	most   time.Duration
}

func (b *books) confirmBan(by string, p netip.Prefix, end time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, ok := b.bans[p]; ok && have.end.After(end) {
		end = have.end
	}
	b.bans[p] = promise{by, end}
	if by == "command" {
		b.typed++
	}
}

// countConfirmed counts the commands that did what they should.
func (b *books) countConfirmed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.typed
}

// forgetPrefix forgets a prefix: a command about it was cut off, so that either may be so.
func (b *books) forgetPrefix(p netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.bans, p)
	delete(b.lifted, p)
}

// readLog takes the bans from the log.
func (b *books) readLog(t *testing.T, log string) {
	t.Helper()
	for l := range strings.Lines(log) {
		at, rest, ok := strings.Cut(l, " level=INFO msg=ban prefix=")
		if !ok || !strings.HasSuffix(l, "\n") || strings.Contains(rest, "not_in_the_kernel_yet") {
			continue
		}
		prefix, rest, _ := strings.Cut(rest, " ")
		_, rest, _ = strings.Cut(rest, " for=")
		length, _, _ := strings.Cut(rest, " ")
		when, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(at, "time="))
		if err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		d, err := time.ParseDuration(strings.TrimSpace(length))
		if err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		if trapAddress(p) { // the others are told of by their commands
			b.confirmBan("log", p, when.Add(d))
		}
	}
}

// checkList compares what is somewhere with the books. Whoever lists bans, be it the kernel, the daemon or a file, is
// to be held to the same. The list was made at a time, or a little later.
func (b *books) checkList(t *testing.T, where string, at time.Time, have map[netip.Prefix]firewall.Element) {
	t.Helper()
	const slack = time.Second
	for p, told := range b.bans {
		if e, ok := have[p]; !ok {
			t.Errorf("%s: %s is missing, confirmed by a %s", where, p, told.by)
		} else {
			b.most = max(b.most, at.Add(e.Remaining).Sub(told.end))
		}
	}
	for p := range b.lifted {
		if _, ok := have[p]; ok {
			t.Errorf("%s: %s is back after an unban", where, p)
		}
	}
	for p, e := range have {
		if e.Timeout <= 0 || e.Remaining <= 0 {
			t.Errorf("%s: %s is permanent: %+v", where, p, e)
		}
		end := at.Add(time.Hour) // the length of the bans for trap
		if told, ok := b.bans[p]; ok {
			end = told.end
		} else if asked, ok := b.asked[p]; ok {
			end = asked
		}
		if left := at.Add(e.Remaining); left.After(end.Add(slack)) {
			t.Errorf("%s: %s ends %v later than was said", where, p, left.Sub(end))
		}
	}
}

// trapAddress tells the addresses of load from those of commands.
func trapAddress(p netip.Prefix) bool { return p.Addr().As4()[0] == 32 }

// playAttackers plays attackers: some 5,000 events a second, 300 of them worth a ban.
func (h *host) playAttackers(ctx context.Context, round int) {
	s := newScript()
	s.calls = round << 16
	for n := 0; pauseFor(ctx, 10*time.Millisecond); n++ {
		for i := range 3 {
			s.addTrapped("TCP", nthAddress(round<<10|(n*3+i)&1023))
		}
		for i := range 25 {
			s.addScan("UDP", nthAddress(1<<23+round<<12+(n*25+i)&4095))
		}
		h.server.Broadcast(s.takeText())
	}
}

// followDecisions listens to the stream of decisions while there is a daemon.
func (h *host) followDecisions(ctx context.Context, b *books) {
	for ctx.Err() == nil {
		_ = h.client.Follow(ctx, time.Time{}, func(d ban.Decision) error {
			if d.Action == ban.ActionBan && trapAddress(d.Prefix) {
				b.confirmBan("stream", d.Prefix, d.Time.Add(d.Duration))
			}
			return nil
		}, nil)
		pauseFor(ctx, 5*time.Millisecond)
	}
}

// typeCommands plays a person who bans and unbans by hand: what a command has done is done.
func (h *host) typeCommands(ctx context.Context, b *books, round, typist int) {
	for n := 0; ctx.Err() == nil; n++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{33 + byte(typist), byte(round), byte(n >> 8), byte(n)}), 32)
		length := time.Duration(10+n%50) * time.Minute
		b.mu.Lock()
		b.asked[p] = time.Now().Add(length + trial.Patience)
		b.mu.Unlock()
		if !h.runCommand("ban", p.String(), "--for", length.String()) {
			b.forgetPrefix(p)
			continue
		}
		b.confirmBan("command", p, time.Now().Add(length))
		if n%4 != 3 {
			continue
		}
		b.forgetPrefix(p)
		if h.runCommand("unban", p.String()) {
			b.mu.Lock()
			b.lifted[p] = true
			b.mu.Unlock()
		}
	}
}

// runCommand runs the program as a person does, and says whether it ended with 0. It is not ended with the load:
// whether it did what it should is only known at its end.
func (h *host) runCommand(args ...string) bool {
	out, err := h.space.Run(exec.Command(program, append(args, "--config", h.config)...))
	if err == nil {
		return true
	}
	for _, expected := range []string{"does not answer", "closed the connection"} {
		if bytes.Contains([]byte(out), []byte(expected)) {
			return false
		}
	}
	h.t.Error(fmt.Errorf("%v: %w: %s", args, err, out))
	return false
}
