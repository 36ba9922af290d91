package firewall

import (
	"errors"
	"testing"
	"time"
)

func TestCheckTriesTheTableThatIsThere(t *testing.T) {
	cfg := testConfig(newSpace(t))
	cfg.Owner = Off
	check, err := NewCheck(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = check.Close() }()
	if s, err := check.TableState(); err != nil || s.Exists {
		t.Errorf("before there is a table: %+v, %v", s, err)
	}
	if why := check.WhyUnenforced(); why == "" {
		t.Error("bans are enforced without a table")
	}
	fw := ensured(t, cfg)
	if s, err := check.TableState(); err != nil || s != (TableState{Exists: true}) {
		t.Errorf("%+v, %v", s, err)
	}
	if why := check.WhyUnenforced(); why != "" {
		t.Error(why)
	}
	for p, set := range map[string]string{"192.0.2.1": "ban4", "192.0.2.0/24": "ban4_24", "2001:db8::/64": "ban6_64",
		"2001:db8::1": "ban6"} {
		p := pfx(p)
		if got := BanSet(p); got != set {
			t.Errorf("%v: set %s, want %s", p, got, set)
		}
		if err := check.BanAndUnban(p, time.Minute); err != nil {
			t.Errorf("%v: %v", p, err)
		}
		if err := fw.Apply([]Change{{Kind: Ban, Prefix: p, Timeout: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		if found, err := check.HasBan(p); err != nil || !found {
			t.Errorf("%v: %t, %v", p, found, err)
		}
	}
	if err := check.BanAndUnban(pfx("198.51.0.0/16"), time.Minute); !errors.Is(err, ErrChange) {
		t.Errorf("a network among ranges: %v", err)
	}
}
