package engine_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// senders are the addresses of the laboratory that the captures come from. An address outside of it stands only in
// hostile bytes.
var senders = []netip.Prefix{
	netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"),
}

// TestCaptures plays each recording of a running Asterisk, the way it came, to an engine of its own.
func TestCaptures(t *testing.T) {
	files, err := filepath.Glob("../asterisk/event/testdata/captures/*.ami")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	old, err := filepath.Glob("../asterisk/event/testdata/captures/chan_sip/*.ami")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, old...) {
		name := strings.TrimSuffix(filepath.Base(file), ".ami")
		t.Run(name, func(t *testing.T) {
			for _, d := range play(t, file, nil, 1) {
				if d.Action != ban.ActionBan && d.Action != ban.ActionTrust {
					continue
				}
				if !inside(d.Prefix) {
					t.Errorf("%v: that address sent nothing", brief(d))
				}
				if d.Action == ban.ActionBan &&
					(strings.HasPrefix(name, "normal-") || strings.HasPrefix(name, "trunk-") ||
						strings.HasPrefix(name, "spoof-") || strings.HasPrefix(name, "cs-")) {
					t.Errorf("%v: a customer", brief(d))
				}
			}
		})
	}
}

// TestCapturesRepeated plays customers' captures over and over: nobody is banned for doing the right thing often.
func TestCapturesRepeated(t *testing.T) {
	for _, pattern := range []string{"normal-*.ami", "trunk-*.ami"} {
		files, _ := filepath.Glob("../asterisk/event/testdata/captures/" + pattern)
		if len(files) == 0 {
			t.Fatal("no captures", pattern)
		}
		for _, file := range files {
			for _, d := range play(t, file, nil, 100) {
				if d.Action == ban.ActionBan {
					t.Errorf("%s: %v", filepath.Base(file), brief(d))
				}
			}
		}
	}
}

// TestCapturedAttacks says who of the captured attackers is banned.
func TestCapturedAttacks(t *testing.T) {
	for name, want := range map[string]string{
		"svwar": "10.99.0.66/32", "svcrack": "10.99.0.66/32", "ami-weird-user": "10.99.0.66/32",
	} {
		t.Run(name, func(t *testing.T) {
			var bans []string
			for _, d := range play(t, "../asterisk/event/testdata/captures/"+name+".ami", nil, 1) {
				if d.Action == ban.ActionBan {
					bans = append(bans, d.Prefix.String())
				}
			}
			if len(bans) != 1 || bans[0] != want {
				t.Errorf("bans %v, want %s alone", bans, want)
			}
		})
	}
}

func inside(p netip.Prefix) bool {
	for _, s := range senders {
		if s.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// play replays a recording n times, a second apart.
func play(t *testing.T, file string, change func(*config.Policy), n int) []ban.Decision {
	t.Helper()
	p := config.Default().Policy
	if change != nil {
		change(&p)
	}
	e := engine.New(p)
	var out []ban.Decision
	now := start
	for range n {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		s := ami.NewSplitter(f, ami.Limits{})
		for {
			frame, err := s.Next()
			if err != nil {
				break
			}
			var ev event.Event
			var bad *event.TamperError
			switch err := event.Decode(frame, &ev); {
			case err == nil:
				out = e.Handle(now, "pbx", &ev, out)
			case errors.As(err, &bad):
				out = e.ReportTampering(now, "pbx", bad.Reason, bad.Sources, out)
			}
			now = now.Add(time.Millisecond)
		}
		f.Close()
		now = now.Add(time.Second)
		for more := true; more; {
			out, more = e.Tick(now, out)
		}
	}
	out, _ = e.Tick(now.Add(time.Minute), out)
	return out
}
