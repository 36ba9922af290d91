package firewall

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// roomy is a table with room for many.
func roomy(t *testing.T) *Table {
	cfg := testConfig(newSpace(t))
	cfg.MaxElements = 1 << 18
	return ensured(t, cfg)
}

// What the kernel lists comes in pieces, each element once, with the times that it was given.
func TestAWalkListsEveryElementInPieces(t *testing.T) {
	fw := roomy(t)
	changes := many(20_000, time.Hour)
	apply(t, fw, changes...)
	apply(t, fw, ban("198.18.0.0/15", 2*time.Hour), ban("192.0.2.0/24", 3*time.Hour),
		Change{Kind: Allow, Prefix: pfx("10.0.0.0/8")})
	var seen map[netip.Prefix]int
	var whole bool
	var err error
	pieces := 0
	// While the kernel still enlarges its hash tables for all of these, in the background, a list lacks some.
	for end := time.Now().Add(patience); len(seen) != len(changes)+2 && err == nil && time.Now().Before(end); {
		seen, pieces = make(map[netip.Prefix]int), 0
		whole, err = fw.WalkElements(t.Context(), Ban, func(list []Element) error {
			pieces++
			for _, e := range list {
				seen[e.Prefix]++
				if e.Kind != Ban || e.Timeout < time.Hour-time.Minute || e.Remaining > e.Timeout ||
					e.Remaining < e.Timeout-5*time.Minute {
					t.Fatalf("%+v", e)
				}
			}
			return nil
		})
	}
	if err != nil || !whole || len(seen) != len(changes)+2 || pieces < 20 {
		t.Fatalf("%d of %d in %d pieces, whole: %v, %v", len(seen), len(changes)+2, pieces, whole, err)
	}
	for _, c := range changes {
		if seen[c.Prefix] != 1 {
			t.Fatalf("%s was listed %d times", c.Prefix, seen[c.Prefix])
		}
	}
	allowed, err := fw.Elements(Allow)
	if err != nil || len(allowed) != 1 || allowed[0].Prefix != pfx("10.0.0.0/8") || allowed[0].Timeout != 0 {
		t.Errorf("%+v, %v", allowed, err)
	}
	enough := errors.New("enough")
	if _, err := fw.WalkElements(t.Context(), Ban, func([]Element) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// A walk does not hold up whoever bans, and tells that it may have missed something.
func TestOthersBanDuringAWalk(t *testing.T) {
	fw := roomy(t)
	apply(t, fw, many(20_000, time.Hour)...)
	banned := false
	whole, err := fw.WalkElements(t.Context(), Ban, func([]Element) error {
		if !banned {
			apply(t, fw, ban("203.0.113.66", time.Hour))
			holds(t, fw, Ban, "203.0.113.66", time.Hour)
			banned = true
		}
		return nil
	})
	if err != nil || !banned || whole {
		t.Errorf("banned: %v, whole: %v, %v", banned, whole, err)
	}
}
