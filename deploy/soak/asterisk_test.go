package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// Phones and attackers for a long time: nothing grows, and in the end the kernel has what the daemon wants.
func TestSoakAgainstAsterisk(t *testing.T) {
	t.Parallel()
	length := shortOrLong(15*time.Second, 30*time.Minute)
	if text := os.Getenv("RINGWALL_SOAK_FOR"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := &soak{T: t, Lab: lab.Start(t, lab.Options{Version: 22})}
	dir := t.TempDir()
	s.client = &api.Client{Socket: filepath.Join(dir, "ringwall.sock"), Timeout: trial.Patience}
	config := filepath.Join(dir, "ringwall.yaml")
	// Short bans, so that they also end during the test.
	text := fmt.Sprintf("asterisk:\n  - {name: lab, address: %q, username: ringwall, secret: %q}\ncontrol: {socket: "+
		"%s}\n"+
		"state: {path: %s}\npolicy: {ban: {first: 20s, factor: 2, max: 2m}}\n",
		lab.AMIAddress, lab.Ringwall.Secret(), s.client.Socket, filepath.Join(dir, "state.db"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := s.Spawn(t, lab.Server, program, "run", "--config", config)
	t.Cleanup(func() {
		if t.Failed() {
			out := daemon.Output()
			t.Logf("the daemon said at the end:\n%s", out[max(0, len(out)-8192):])
		}
	})
	trial.WaitUntil(t, "the daemon hears Asterisk", func() bool {
		st, err := s.client.Status(t.Context())
		return err == nil && st.Healthy() && st.PBXs[0].Events > 0
	})

	for net := range 3 {
		for n := range addresses {
			s.AddAddr(t, lab.Attacker, attackerAddress(net, n, net == 2))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work sync.WaitGroup
	for _, o := range []lab.AgentOptions{{Transport: "udp"}, {Transport: "tcp"}, {Transport: "udp", IPv6: true},
		{Transport: "tls"}} {
		phone := s.Agent(t, lab.Phone, o)
		work.Go(func() { s.keepRegistering(ctx, phone) })
	}
	for i, o := range []lab.AgentOptions{{Transport: "tcp"}, {Transport: "udp", IPv6: true}} {
		work.Go(func() { s.keepGuessing(ctx, i+1, o) })
	}
	work.Go(func() { s.keepScanning(ctx) })
	work.Go(func() { s.actAsAdministrator(ctx, daemon) })
	samples := s.takeSamples(ctx, length)
	cancel()
	work.Wait()

	s.compareSamples(samples)
	s.awaitSameBans()
	if !strings.Contains(s.scrapeMetrics(), "ringwall_ami_up{pbx=\"lab\"} 1\n") {
		t.Error("no session with Asterisk in the end")
	}
	for _, local := range []netip.Addr{lab.Phone.IPv4(), lab.Phone.IPv6()} {
		x, err := s.client.Why(t.Context(), local)
		if err != nil || x.Verdict != "trusted" || x.Ban != nil {
			t.Errorf("the phones at %s: %+v, %v", local, x, err)
		}
	}
	t.Logf("%v: %d registrations, %d sources attacked, %d attempts", length, s.registrations.Load(), s.attackers.Load(),
		s.attempts.Load())
	if s.registrations.Load() == 0 || s.attackers.Load() == 0 || s.countBans() == 0 {
		t.Error("nothing happened")
	}
	if err := daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

type soak struct {
	*testing.T
	*lab.Lab
	client *api.Client

	registrations, attackers, attempts atomic.Int64
}

// addresses is how many each group of attackers has.
const addresses = 250

// attackerAddress is an address of a group, for IPv6 in a /64 of its own.
func attackerAddress(net, n int, ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd99:0:0:%x::1", (net+1)<<8|n%addresses))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.99.%d.%d", 100+net, 1+n%addresses))
}

// keepRegistering registers again and again, and fails the test when it is not let in.
func (s *soak) keepRegistering(ctx context.Context, phone *lab.Agent) {
	for n := 0; pauseFor(ctx, 200*time.Millisecond); n++ {
		code, err := phone.Register("6001", lab.Password("6001"))
		if err != nil || code != 200 {
			phone.Close()
			// One packet may be lost where Asterisk or the machine is busy; a ban would last.
			if code, err = phone.Register("6001", lab.Password("6001")); err != nil || code != 200 {
				s.Errorf("registration %d: %d, %v", n, code, err)
				return
			}
		}
		s.registrations.Add(1)
	}
}

// keepGuessing guesses passwords from one address until it is banned, then from the next.
func (s *soak) keepGuessing(ctx context.Context, net int, o lab.AgentOptions) {
	for n := 0; ctx.Err() == nil; n++ {
		a := attackerAddress(net, n, o.IPv6)
		o.Local, o.Timeout = a, 500*time.Millisecond
		bad := s.Agent(s, lab.Attacker, o)
		s.attackers.Add(1)
		for i := range 12 {
			if !pauseFor(ctx, 20*time.Millisecond) {
				break
			}
			s.attempts.Add(1)
			if _, err := bad.GuessAnew("6002", fmt.Sprintf("guess-%d", i)); errors.Is(err, lab.ErrNoReply) {
				break // banned
			}
		}
		bad.Close()
	}
}

// keepScanning are sipp, each time from another address.
func (s *soak) keepScanning(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		a := attackerAddress(0, n, false)
		s.attackers.Add(1)
		// It gets no answers once it is banned, and says so with its exit code.
		_, _ = s.Sipp(ctx, lab.Attacker, "scan", "-i", a.String(), "-m", "20", "-r", "20", "-timeout", "2")
		s.attempts.Add(20)
	}
}

// actAsAdministrator does now and then what administrators do.
func (s *soak) actAsAdministrator(ctx context.Context, daemon *lab.Process) {
	for n := 0; pauseFor(ctx, shortOrLong(4*time.Second, 30*time.Second)); n++ {
		if n%2 == 0 {
			_, _ = s.Exec(ctx, lab.Server, "nft", "flush", "ruleset") // refused where the table has an owner
		} else if err := daemon.Signal(syscall.SIGHUP); err != nil {
			s.Error(err)
			return
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// watched are what must not grow, and by how much more than in the middle of the test they may be at its end: noise.
var watched = map[string]func(middle float64) float64{
	"go_goroutines":                 func(m float64) float64 { return m + 20 },
	"process_open_fds":              func(m float64) float64 { return m + 20 },
	"process_resident_memory_bytes": func(m float64) float64 { return m*1.25 + 16<<20 },
}

// takeSamples looks at the daemon for a time, on a slow machine until it has been looked at often enough and something
// happened.
func (s *soak) takeSamples(ctx context.Context, length time.Duration) (samples []map[string]float64) {
	for end := time.Now().Add(length); ; {
		values := make(map[string]float64)
		for l := range strings.Lines(s.scrapeMetrics()) {
			name, text, _ := strings.Cut(strings.TrimSpace(l), " ")
			if _, ok := watched[name]; ok {
				v, err := strconv.ParseFloat(text, 64)
				if err != nil {
					s.Fatal(err)
				}
				values[name] = v
			}
		}
		if len(values) != len(watched) {
			s.Fatalf("metrics: %v", values)
		}
		samples = append(samples, values)
		over := time.Since(end)
		if over > trial.Patience || over > 0 && len(samples) >= 30 && s.registrations.Load() > 0 && s.countBans() > 0 ||
			!pauseFor(ctx, length/60) {
			return samples
		}
	}
}

// compareSamples looks at the last third of the test and the one before: the first third is for warming up.
func (s *soak) compareSamples(samples []map[string]float64) {
	third := len(samples) / 3
	if third < 3 {
		s.Fatalf("%d samples", len(samples))
	}
	for name, limit := range watched {
		values := make([]float64, len(samples))
		for i := range samples {
			values[i] = samples[i][name]
		}
		first, middle, last := slices.Max(values[:third]), slices.Max(values[third:2*third]),
			slices.Max(values[2*third:])
		s.Logf("%s: at most %.0f, %.0f and %.0f in the three thirds of the test, %.0f at its end", name, first, middle,
			last,
			values[len(values)-1])
		if last > limit(middle) {
			s.Errorf("%s grows: %.0f", name, values)
		}
	}
}

// awaitSameBans waits until the kernel has exactly the bans that the daemon has.
func (s *soak) awaitSameBans() {
	table, err := firewall.Open(firewall.Config{NetNS: s.NetNS(lab.Server)})
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	var want, have []string
	trial.WaitUntil(s, "the kernel has the bans that the daemon has", func() bool {
		bans, err := s.client.Bans(s.Context(), api.BanFilter{})
		if err != nil {
			s.Fatal(err)
		}
		elements, err := table.Elements(firewall.Ban)
		if err != nil {
			s.Fatal(err)
		}
		w, h := map[string]bool{}, map[string]bool{}
		for _, b := range bans {
			w[b.Prefix.String()] = true
		}
		for _, e := range elements {
			h[e.Prefix.String()] = true
			if e.Timeout <= 0 || e.Timeout > 2*time.Minute {
				s.Errorf("in the kernel for %v: %s", e.Timeout, e.Prefix)
			}
		}
		want, have = slices.Sorted(maps.Keys(w)), slices.Sorted(maps.Keys(h))
		return slices.Equal(want, have)
	})
	st, err := s.client.Status(s.Context())
	if err != nil || !st.Healthy() || st.Kernel.Present != st.Kernel.Desired {
		s.Errorf("%+v, %v", st.Kernel, err)
	}
	s.Logf("%d bans in the end, desired and present; rebuilds %v", len(want), st.Kernel.Rebuilds)
}

func (s *soak) countBans() (n int) {
	list, err := s.client.History(s.Context(), time.Time{}, netip.Addr{})
	if err != nil {
		s.Fatal(err)
	}
	for _, d := range list {
		if d.Action == "ban" {
			n++
		}
	}
	return n
}

func (s *soak) scrapeMetrics() string {
	s.Helper()
	tr := &http.Transport{DialContext: s.Dialer(lab.Server), DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://127.0.0.1:9646/metrics", nil)
	if err != nil {
		s.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}
