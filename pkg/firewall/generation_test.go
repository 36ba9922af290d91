package firewall

import (
	"testing"
	"time"
)

func TestGenerationCountsEverybodysTransactions(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	generation := func() uint32 {
		t.Helper()
		g, err := fw.Generation()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	before := generation()
	if _, err := fw.Elements(Ban); err != nil {
		t.Fatal(err)
	}
	if err := fw.VerifyTable(); err != nil {
		t.Fatal(err)
	}
	if g := generation(); g != before {
		t.Errorf("generation %d after %d, and nobody changed anything", g, before)
	}
	for _, change := range []func(){
		func() { apply(t, fw, ban("192.0.2.1", time.Hour)) },
		func() { apply(t, fw, ban("198.18.0.0/15", time.Hour)) },
		func() { s.command(t, "nft add table inet other") },
		func() { s.command(t, "nft delete element inet ringwall ban4 '{ 192.0.2.1 }'") },
	} {
		change()
		g := generation()
		if g == before {
			t.Errorf("generation %d before and after a change", g)
		}
		before = g
	}
}

// What was looked at a moment ago counts only as long as the kernel's number says so, and no longer than a minute.
func TestALookAtTheTableIsSparedWhileNothingChanges(t *testing.T) {
	for name, c := range map[string]struct {
		seen verification
		want bool
	}{
		"never":        {verification{}, false},
		"just now":     {verification{7, time.Now()}, true},
		"another one":  {verification{6, time.Now()}, false},
		"too long ago": {verification{7, time.Now().Add(-maxVerifyAge - time.Second)}, false},
	} {
		if got := c.seen.unchanged(7); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
