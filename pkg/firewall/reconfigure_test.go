package firewall

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// Each key of a table in use changes, and what was banned, allowed and counted stays.
func TestATableInUseIsReconfigured(t *testing.T) {
	w := newWire(t, nil)
	old := w.fw.currentConfig()
	apply(t, w.fw, ban("10.99.0.66", time.Hour), ban("10.99.7.0/24", time.Hour), ban("fd99::66", time.Hour),
		Change{Kind: Allow, Prefix: pfx("10.99.7.6/32")})
	if w.reaches(t, "10.99.0.66", 5060) || !w.reaches(t, "10.99.0.66", 5080) {
		t.Fatal("the ban does not work as it should at first")
	}
	for _, step := range []struct {
		name        string
		change      func(*Config)
		open, close uint16 // a port that the banned reach, and one that they do not; 0 for none
		text        string // in the kernel's table
	}{
		{"ports", func(c *Config) { c.UDPPorts = []uint16{5080} }, 5060, 5080, "5080"},
		{"scope", func(c *Config) { c.Scope = All }, 0, 9999, ""},
		{"scope back", func(c *Config) { c.Scope = VoIP }, 9999, 5080, "fragment"},
		{"meter", func(c *Config) { c.Meter = Meter{Enabled: true, Rate: 1000, Burst: 1000} }, 9999, 5080,
			"limit rate over 1000/second"},
		{"rate", func(c *Config) { c.Meter.Rate = 2000 }, 9999, 5080, "limit rate over 2000/second"},
		{"no meter", func(c *Config) { c.Meter = Meter{} }, 9999, 5080, ""},
		{"priority", func(c *Config) { c.Priority = -150 }, 9999, 5080, "priority mangle"},
	} {
		cfg := w.fw.currentConfig()
		step.change(&cfg)
		before := w.dropped(t)
		if err := w.fw.Reconfigure(cfg); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err := w.fw.VerifyTable(); err != nil {
			t.Errorf("%s: Verify: %v", step.name, err)
		}
		if n := w.dropped(t); n < before {
			t.Errorf("%s: %d packets dropped, %d before", step.name, n, before)
		}
		if text := w.server.command(t, "nft list table inet "+old.Table); !strings.Contains(text, step.text) {
			t.Errorf("%s: no %q in\n%s", step.name, step.text, text)
		}
		for _, src := range []string{"10.99.0.66", "fd99::66", "10.99.7.5"} {
			if step.close != 0 && w.reaches(t, src, step.close) {
				t.Errorf("%s: %s is banned and reaches %d", step.name, src, step.close)
			}
			if step.open != 0 && !w.reaches(t, src, step.open) {
				t.Errorf("%s: %s does not reach %d", step.name, src, step.open)
			}
		}
		if step.close != 0 && !w.reaches(t, "10.99.7.6", step.close) {
			t.Errorf("%s: who is allowed does not get through", step.name)
		}
		apply(t, w.fw, unban("10.99.0.66")) // what is written now is written as ever
		lacks(t, w.fw, Ban, "10.99.0.66/32")
		apply(t, w.fw, ban("10.99.0.66", time.Hour))
	}
	// A new process would find it as the last configuration has it.
	if err := w.fw.Close(); err != nil {
		t.Fatal(err)
	}
	ensure(t, openTable(t, w.fw.currentConfig()), Adopted)
}

// While the table changes, the banned do not get through.
func TestNoPacketGetsThroughWhileTheTableIsReconfigured(t *testing.T) {
	w := newWire(t, nil)
	w.keepsOut(t, func() {
		for i := range 60 {
			cfg := w.fw.currentConfig()
			switch i % 3 {
			case 0:
				cfg.UDPPorts = []uint16{5060, 5080 + uint16(i)}
			case 1:
				cfg.Scope = All - cfg.Scope
			case 2:
				cfg.Meter = Meter{Enabled: !cfg.Meter.Enabled, Rate: 1_000_000, Burst: 1_000_000}
			}
			if err := w.fw.Reconfigure(cfg); err != nil {
				t.Error(err)
				break
			}
		}
	})
}

// What cannot change is refused, and so is what makes no sense; the kernel keeps what it had.
func TestWhatCannotBeReconfigured(t *testing.T) {
	fw := ensured(t, testConfig(newSpace(t)))
	for name, change := range map[string]func(*Config){
		"table": func(c *Config) { c.Table = "other" }, "owner": func(c *Config) { c.Owner = Off - c.Owner },
		"IPv6 prefix": func(c *Config) { c.IPv6Prefix = 56 }, "elements": func(c *Config) { c.MaxElements = 77 },
		"rate": func(c *Config) { c.Meter = Meter{Enabled: true} }, "priority": func(c *Config) { c.Priority = 5000 },
	} {
		cfg := fw.currentConfig()
		change(&cfg)
		if err := fw.Reconfigure(cfg); err == nil {
			t.Errorf("%s was changed", name)
		}
	}
	if err := fw.VerifyTable(); err != nil {
		t.Error(err)
	}
}

// The Writer goes on writing before, while and after.
func TestTheWriterReconfigures(t *testing.T) {
	fw := openTable(t, testConfig(newSpace(t)))
	w := NewWriter(fw, nil, WriterConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for i := range uint16(20) {
		if err := w.Apply(t.Context(), []Change{ban("10.99.0.66", time.Hour)}); err != nil {
			t.Fatal(err)
		}
		cfg := fw.currentConfig()
		cfg.UDPPorts = []uint16{5060 + i}
		if err := w.Reconfigure(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, fw, Ban, "10.99.0.66/32", time.Hour)
	w.writing.Lock() // it builds the table again and again
	late, stop := context.WithCancel(t.Context())
	stop()
	if err := w.Reconfigure(late, fw.currentConfig()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want that it does not wait for ever", err)
	}
	w.writing.Unlock()
}
