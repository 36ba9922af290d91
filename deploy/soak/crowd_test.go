package soak

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
	"github.com/ringwall/ringwall/pkg/store"
)

// A two minutes' flood of forged packets leaves 437,000 bans. In the memory of its own unit, Ringwall answers whoever
// asks for them, hears a new attacker right after a restart, and lets everybody in when it is told to.
func TestHundredsOfThousandsOfBans(t *testing.T) {
	bans := shortOrLong(20_000, 437_000)
	h := newHost(t, "policy: {honeypots: [trap], ban: {first: 8h}}\n")
	h.writeStateFile(bans)
	cage := newCage(t, 1<<30)
	began := time.Now()
	h.startInCage(cage)
	h.waitUntil("all stored bans are in force",
		func() bool { return h.isHealthy() && h.daemonStatus().Engine.Bans == bans })
	t.Logf("%d stored bans, empty kernel: all in force after %v; %s", bans, roundedSince(began), h.usageText(cage))

	// Three lists at once, as three people would ask, and status beside them.
	ctx, stop := context.WithCancel(t.Context())
	var work, asking sync.WaitGroup
	var slowest time.Duration
	asking.Go(func() {
		for pauseFor(ctx, 10*time.Millisecond) {
			at := time.Now()
			if _, err := h.client.Status(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("status beside the lists: %v", err)
				return
			}
			slowest = max(slowest, time.Since(at))
		}
	})
	began = time.Now()
	for _, args := range [][]string{{"list", "bans"}, {"list", "bans", "--json"}, {"list", "bans", "--json"}} {
		work.Go(func() {
			at := time.Now()
			n, err := h.countLines(args...)
			if t.Logf("ringwall %s: %d lines in %v", strings.Join(args, " "), n, roundedSince(at)); err != nil ||
				n < bans {
				t.Errorf("ringwall %s: %d lines of %d: %v", strings.Join(args, " "), n, bans, err)
			}
		})
	}
	work.Wait()
	stop()
	asking.Wait()
	t.Logf("three lists at once: %v, status meanwhile at most %v; %s", roundedSince(began),
		slowest.Round(time.Millisecond),
		h.usageText(cage))

	// A restart with every ban in the kernel: an attacker who comes at once.
	stopping := time.Now()
	h.stopDaemon()
	t.Logf("stopped within %v", roundedSince(stopping))
	began = time.Now()
	h.startInCage(cage)
	if err := h.server.WaitSubscribers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	heard := roundedSince(began)
	s := newScript()
	fresh := netip.MustParseAddr("203.0.113.66")
	s.addTrapped("TCP", fresh)
	h.server.Broadcast(s.takeText())
	h.waitUntil("a new attacker is banned", func() bool { return h.inKernel(singlePrefix(fresh)) })
	banned := roundedSince(began)
	h.waitUntil("all bans are known again", func() bool {
		return h.isHealthy() &&
			h.daemonStatus().Engine.Bans == bans+1
	})
	t.Logf("restart: Asterisk is heard after %v, a new attacker is in the kernel after %v, all is known and in force "+
		"after %v; %s",
		heard, banned, roundedSince(began), h.usageText(cage))
	h.checkSomeBans(bans, true)

	// Everybody is let in again.
	began = time.Now()
	res, err := h.client.Unban(t.Context(), api.UnbanRequest{All: true, Grace: time.Hour})
	if err != nil || res.Count != bans+1 {
		t.Errorf("unban --all --grace: %d of %d, %v", res.Count, bans+1, err)
	}
	t.Logf("unban --all --grace 1h: %v; %s", roundedSince(began), h.usageText(cage))
	h.checkSomeBans(bans, false)
	h.stopDaemon()
	cage.failIfKilled(t)
}

// checkSomeBans looks whether some of the bans are in the kernel.
func (h *host) checkSomeBans(bans int, want bool) {
	h.t.Helper()
	for i := 0; i < bans; i += bans / 1000 {
		if h.inKernel(singlePrefix(nthAddress(i))) != want {
			h.t.Fatalf("%s in the kernel: %v", nthAddress(i), !want)
		}
	}
}

func roundedSince(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

// writeStateFile writes a state file of bans, as a flood leaves it.
func (h *host) writeStateFile(bans int) {
	h.t.Helper()
	s, _, err := store.Open(filepath.Join(filepath.Dir(h.config), "state.db"), store.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	now := time.Now()
	for i := range bans {
		at := now.Add(-time.Duration(bans-i) * 300 * time.Microsecond)
		b := ban.Ban{Prefix: singlePrefix(nthAddress(i)), Source: nthAddress(i), Since: at,
			Until:  at.Add(8 * time.Hour),
			Reason: ban.ReasonUnknownAccount,
			Score:  12, Number: 1, PBX: "pbx", Attempts: 3}
		for range 3 {
			b.Evidence = append(b.Evidence, ban.Evidence{Time: at, Event: "InvalidAccountID", Service: "PJSIP",
				Transport: "UDP",
				Account:   "scan" + strconv.Itoa(i), Reason: ban.ReasonUnknownAccount, Points: 4, Score: 12,
				PBX: "pbx"})
		}
		d := ban.Decision{Time: at, Action: ban.ActionBan, Source: b.Source, Prefix: b.Prefix, Reason: b.Reason,
			Points:  4,
			Score:   12,
			Account: "scan" + strconv.Itoa(i), Service: event.PJSIP, Transport: event.UDP,
			Duration: 8 * time.Hour,
			PBX:      "pbx"}
		if err := s.Put(store.PutBan(b), store.AddDecision(d)); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := s.Flush(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
	_ = s.Close()
}

// countLines runs a command of the program and counts the lines that it prints.
func (h *host) countLines(args ...string) (int, error) {
	name := filepath.Join(h.t.TempDir(), "out")
	p := netnstest.Spawn(h.t, h.space, "sh", append([]string{"-c", `out=$1; shift; exec "$@" >"$out"`, "sh", name,
		program,
		"--socket", h.client.Socket}, args...)...)
	if err := p.Wait(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, p.Output())
	}
	b, err := os.ReadFile(name)
	return strings.Count(string(b), "\n"), err
}

// isHealthy says whether the daemon answers, and all is well.
func (h *host) isHealthy() bool {
	select {
	case <-h.daemon.Exited():
		h.t.Fatalf("the daemon ended: %v\n%s", h.daemon.Wait(), h.daemon.Output())
	default:
	}
	s, err := h.client.Status(h.t.Context())
	return err == nil && s.Healthy()
}

// startInCage starts the program with the memory that its unit has.
func (h *host) startInCage(c cage) {
	h.t.Helper()
	h.daemon = netnstest.Spawn(h.t, h.space, "sh", "-c", `[ -z "$1" ] || echo $$ >"$1" || exit 1; shift
		GOMEMLIMIT=640MiB exec "$@"`, "sh", c.procs, program, "run", "--config", h.config)
}

// usageText is what the program takes.
func (h *host) usageText(c cage) string {
	most := ""
	if c.peak != "" {
		if b, err := os.ReadFile(c.peak); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				most = fmt.Sprintf(", the control group at most %d MB", n>>20)
			}
		}
	}
	return fmt.Sprintf("resident %d MB, at most %d MB%s, %v of processor time", h.memoryBytes("VmRSS")>>20,
		h.memoryBytes("VmHWM")>>20, most, h.cpuTime())
}

// cage is a control group with a bound of memory; empty where this machine lets nobody make one.
type cage struct{ procs, peak, events string }

// newCage makes a group below this process's own, of version 2 or of version 1 (cgroups(7)).
func newCage(t *testing.T, memory int) cage {
	t.Helper()
	own, _ := os.ReadFile("/proc/self/cgroup")
	for l := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, limit, peak, events := "/sys/fs/cgroup", "memory.max", "memory.peak", "memory.events"
		if f[1] == "memory" {
			root, limit, peak, events = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes",
				"memory.oom_control"
		} else if f[1] != "" {
			continue
		}
		for _, parent := range []string{filepath.Join(root, f[2]), root} {
			dir := filepath.Join(parent, fmt.Sprintf("ringwall-soak-%d", os.Getpid()))
			if os.Mkdir(dir, 0o700) != nil {
				continue
			}
			if os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(memory)), 0o600) != nil {
				_ = os.Remove(dir)
				continue
			}
			t.Cleanup(func() {
				trial.WaitUntil(t, "the control group is gone",
					func() bool { return os.Remove(dir) == nil })
			})
			return cage{filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, peak), filepath.Join(dir, events)}
		}
	}
	t.Logf("no control group can be made here (%s): GOMEMLIMIT alone bounds the memory", runtime.GOOS)
	return cage{}
}

// failIfKilled fails where the kernel killed for want of memory.
func (c cage) failIfKilled(t *testing.T) {
	t.Helper()
	if c.events == "" {
		return
	}
	b, err := os.ReadFile(c.events)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			t.Errorf("the kernel killed %s processes for want of memory", f[1])
		}
	}
}
