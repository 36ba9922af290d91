package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// told is what the demonstration wrote as JSON.
type told struct {
	decisions []ban.Decision
	summary   Summary
}

func read(t *testing.T, out []byte) (got told) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for i, line := range lines {
		var err error
		if i == len(lines)-1 {
			d := json.NewDecoder(bytes.NewReader(line))
			d.DisallowUnknownFields()
			err = d.Decode(&got.summary)
		} else {
			var d ban.Decision
			err = json.Unmarshal(line, &d)
			got.decisions = append(got.decisions, d)
		}
		if err != nil {
			t.Fatalf("line %d: %v: %q", i+1, err, line)
		}
	}
	if got.summary.Action != "summary" {
		t.Fatalf("no summary at the end: %q", out)
	}
	return got
}

// has counts the decisions of an action about a prefix.
func (got told) has(a ban.Action, prefix string) (n int) {
	for _, d := range got.decisions {
		if d.Action == a && d.Prefix.String() == prefix {
			n++
		}
	}
	return n
}

func (got told) source(t *testing.T, name string) Source {
	t.Helper()
	i := slices.IndexFunc(got.summary.Sources, func(s Source) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%q is not in %+v", name, got.summary.Sources)
	}
	return got.summary.Sources[i]
}

// wantBansInKernel checks the report of a run with namespaces.
func wantBansInKernel(t *testing.T, got told) {
	t.Helper()
	if !got.summary.OK || got.summary.DryRun || len(got.summary.Failures) > 0 || got.summary.Tampered != 1 {
		t.Errorf("%+v", got.summary)
	}
	for _, r := range []struct{ name, prefix, reason string }{
		{"scanner", "203.0.113.5/32", "unknown_account"},
		{"enumerator", "203.0.113.40/32", "unknown_account"},
		{"guesser", "198.51.100.66/32", "wrong_password"},
		{"AMI guesser", "203.0.113.150/32", "manager"},
		{"IPv6 scanner", "2001:db8:bad::/64", "unknown_account"},
	} {
		s := got.source(t, r.name)
		if n := got.has(ban.ActionBan, r.prefix); n != 1 {
			t.Errorf("%s: %d bans of %s", r.name, n, r.prefix)
		}
		// With the defaults nobody is banned for fewer than three packets.
		if !s.Banned || !s.InKernel || s.Reason != r.reason || s.Late > firewall.KnockBurst || s.Stopped < 3 ||
			s.Stopped != s.Sent-s.Arrived ||
			s.Arrived < 3 || s.Last <= 0 || s.Reaction <= 0 {
			t.Errorf("%+v", s)
		}
	}
	for _, name := range []string{"office", "home", "lone phone"} {
		s := got.source(t, name)
		if s.Banned || s.InKernel || !s.Answered || s.Trusted != (name != "lone phone") || s.Arrived == 0 {
			t.Errorf("%+v", s)
		}
	}
	if s := got.source(t, "injector"); s.Banned || s.InKernel || s.Arrived != 1 {
		t.Errorf("%+v", s)
	}
	bystander := netip.MustParseAddr("8.8.8.8")
	for _, d := range got.decisions {
		if d.Source == bystander || d.Prefix.Contains(bystander) {
			t.Errorf("a bystander is blamed: %+v", d)
		}
	}
}

// TestBansStopAttackersAndNobodyElse is the demonstration as root sees it.
func TestBansStopAttackersAndNobodyElse(t *testing.T) {
	needRoot(t)
	t.Parallel()
	var out, problems bytes.Buffer
	if err := Run(t.Context(), Options{For: MinFor, JSON: true, Out: &out, Err: &problems}); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &problems, &out)
	}
	got := read(t, out.Bytes())
	wantBansInKernel(t, got)
	if got.summary.UserNamespace {
		t.Error("root needs no user namespace")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("run as root")
	}
}

func TestDryRunClaimsDecisionsOnly(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := runInEnvironment(t.Context(), Options{For: MinFor, JSON: true, Out: &out, Err: t.Output()},
		environment{dryRun: true, dryRunReason: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, out.Bytes())
	if s := got.summary; !s.OK || !s.DryRun || s.DryRunReason != "a test" || s.Bans != 5 {
		t.Errorf("%+v", s)
	}
	for _, s := range got.summary.Sources {
		if s.Banned || s.InKernel || s.Stopped != 0 || s.Arrived == 0 || s.Reaction < 0 {
			t.Errorf("a dry run bans nobody and stops nothing: %+v", s)
		}
		if s.Role == "attacker" && (s.Reason == "" || s.Duration != time.Hour.Seconds()) {
			t.Errorf("%+v", s)
		}
	}
	if got.has(ban.ActionBan, "203.0.113.5/32") != 1 || got.has(ban.ActionTrust, "198.51.100.20/32") != 1 {
		t.Errorf("%+v", got.decisions)
	}
}

// TestWhatDoesNotHappenIsAnError changes the policy so that a part of the claim is untrue.
func TestWhatDoesNotHappenIsAnError(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for _, r := range []struct {
		name   string
		change func(*config.Config)
		want   []string
	}{
		{"bans that do not cover SIP", func(c *config.Config) { c.Firewall.Ports = config.Ports{UDP: []uint16{4569}} },
			[]string{"scanner (203.0.113.5) was banned, but", "packets that it sent later arrived"}},
		{"customers are banned at once", func(c *config.Config) { c.Policy.Misconfigured.Burst = 0; c.Policy.Threshold = 1 },
			[]string{"lone phone was banned"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			cfg := offlineDefaults()
			r.change(&cfg)
			var out bytes.Buffer
			s := &demonstration{
				options:      Options{For: MinFor, JSON: true, Out: &out, Err: t.Output(), Width: 80},
				participants: allParticipants(),
				cfg:          &cfg,
				patience:     time.Millisecond, log: &lastLines{max: 1},
			}
			err := s.runThrough(t.Context())
			if err == nil {
				t.Fatalf("no error: %s", &out)
			}
			if got := read(t, out.Bytes()); got.summary.OK {
				t.Errorf("%+v", got.summary)
			}
			for _, want := range r.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
		})
	}
}

// trigger calls a function when a text was written.
type trigger struct {
	out  bytes.Buffer
	text string
	f    func()
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.out.Write(p)
	if w.f != nil && strings.Contains(w.out.String(), w.text) {
		w.f()
		w.f = nil
	}
	return n, err
}

func TestCancelLeavesNothingBehind(t *testing.T) {
	for _, p := range []environment{{}, {dryRun: true}} {
		name := "kernel"
		if p.dryRun {
			name = "dry"
		} else if os.Geteuid() != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			home := namespaces(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &trigger{text: `"action":"ban"`, f: cancel}
			err := runInEnvironment(ctx, Options{For: time.Hour, JSON: true, Out: out, Err: t.Output()}, p)
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%v\n%s", err, &out.out)
			}
			if got := read(t, out.out.Bytes()); got.summary.OK || got.summary.Bans == 0 {
				t.Errorf("%+v", got.summary)
			}
			goleak.VerifyNone(t, before)
			for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
				if left := namespaces(t); slices.Equal(left, home) {
					break
				} else if time.Now().After(end) {
					t.Fatalf("network namespaces before %v, after %v", home, left)
				}
			}
		})
	}
}

// namespaces lists the network namespaces that this process holds, by threads and by descriptors.
func namespaces(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"/proc/self/task/*/ns/net", "/proc/self/fd/*"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			// A thread or a descriptor may be gone by now.
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "net:[") && !slices.Contains(all, to) {
				all = append(all, to)
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestTooShortIsAnError(t *testing.T) {
	err := Run(t.Context(), Options{For: time.Second})
	if err == nil || !strings.Contains(err.Error(), "1s") || !strings.Contains(err.Error(), "3s") {
		t.Error(err)
	}
}

// failing is an output that breaks, as a pipe whose reader went away.
type failing struct{}

var errBroken = errors.New("broken")

func (failing) Write([]byte) (int, error) { return 0, errBroken }

func TestOutputThatBreaksIsAnError(t *testing.T) {
	for _, o := range []Options{{Out: failing{}}, {Out: failing{}, JSON: true},
		{Out: failing{}, Terminal: true, Width: 80}} {
		story := newReporter(o, environment{})
		story.start(played())
		if err := story.finish(played(), nil, nil); !errors.Is(err, errBroken) {
			t.Error(err)
		}
	}
}
