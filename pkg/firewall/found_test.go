package firewall

import (
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// restarted fills a table, and opens it again as a new process does that has listed what is in it.
func restarted(t *testing.T, before []Change) (s space, fw *Table, found []Element, at time.Time) {
	t.Helper()
	s = newSpace(t)
	old := ensured(t, testConfig(s))
	apply(t, old, before...)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	fw = openTable(t, testConfig(s))
	ensure(t, fw, Adopted)
	at = time.Now()
	found, err := fw.Elements(Ban)
	if err != nil || len(found) != len(before) {
		t.Fatalf("%d elements are found of %d: %v", len(found), len(before), err)
	}
	return s, fw, found, at
}

// left is when each of the elements ends.
func left(found []Element, at time.Time) map[netip.Prefix]time.Time {
	ends := make(map[netip.Prefix]time.Time)
	for _, e := range found {
		ends[e.Prefix] = at.Add(e.Remaining)
	}
	return ends
}

func changes(ends map[netip.Prefix]time.Time) (list []Change) {
	for p, end := range ends {
		list = append(list, Change{Kind: Ban, Prefix: p, Timeout: time.Until(end)})
	}
	return list
}

// built runs a writer until it has built the table.
func built(t *testing.T, fw *Table, found []Element, at time.Time, desired func() []Change) *Writer {
	t.Helper()
	done := make(chan struct{})
	first := true
	w := NewWriter(fw, desired, WriterConfig{Found: found, FoundAt: at,
		Sample: func(n int) []Change { return desired() },
		Rebuilt: func(string) {
			if first {
				close(done)
			}
			first = false
		}})
	start(t, w)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the table is not built")
	}
	return w
}

func TestAStartWritesOnlyWhatIsDifferent(t *testing.T) {
	const given = 2 * time.Hour // so long that no other timeout is taken for it
	before := append(many(3000, given), ban("2001:db8::1", given), ban("2001:db8:1::/64", given),
		ban("203.0.113.0/24", given),
		ban("198.18.0.0/15", given))
	_, fw, found, at := restarted(t, before)
	ends := left(found, at)
	shorter, longer, fresh := before[7].Prefix, before[8].Prefix, pfx("192.0.2.77")
	ends[shorter], ends[longer], ends[fresh] = time.Now().Add(time.Hour), time.Now().Add(3*time.Hour),
		time.Now().Add(time.Hour)
	w := built(t, fw, found, at, func() []Change { return changes(ends) })

	now, err := fw.Elements(Ban)
	if err != nil || len(now) != len(ends) {
		t.Fatalf("%d elements, want %d: %v", len(now), len(ends), err)
	}
	for _, e := range now {
		switch e.Prefix {
		case shorter, longer, fresh:
			if e.Timeout == given {
				t.Errorf("%v was not written", e.Prefix)
			}
		default:
			// What a range was given is not listed, only what is left of it.
			if e.Timeout != given && e.Prefix.Bits() != 15 {
				t.Fatalf("%v was written again: it was given %v", e.Prefix, e.Timeout)
			}
		}
		if d := time.Until(ends[e.Prefix]) - e.Remaining; d.Abs() > time.Minute {
			t.Errorf("%v has %v left, and should have %v more", e.Prefix, e.Remaining, d)
		}
	}
	// What was only remembered is known to be there: it can be extended, shortened and taken out at the first
	// attempt.
	own := fw.writeConn.Commits
	for _, c := range []Change{ban(before[1].Prefix.String(), 5*time.Hour), ban(before[2].Prefix.String(), time.Minute),
		unban(before[3].Prefix.String())} {
		if err := w.Apply(t.Context(), []Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	if n := fw.writeConn.Commits - own; n != 3 {
		t.Errorf("three changes took %d transactions", n)
	}
	holds(t, fw, Ban, before[1].Prefix.String(), 5*time.Hour)
	holds(t, fw, Ban, before[2].Prefix.String(), time.Minute)
	lacks(t, fw, Ban, before[3].Prefix.String())
}

func TestWhatGoesBetweenTheListAndTheStartComesBack(t *testing.T) {
	for _, damage := range []string{"flush set inet ringwall ban4", "flush ruleset", "flush table inet ringwall"} {
		t.Run(damage, func(t *testing.T) {
			before := many(500, time.Hour)
			s, fw, found, at := restarted(t, before)
			ends := left(found, at)
			s.command(t, "nft '"+damage+"'")
			built(t, fw, found, at, func() []Change { return changes(ends) })
			for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
				now, err := fw.Elements(Ban)
				if err != nil {
					t.Fatal(err)
				}
				if len(now) == len(before) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d of %d bans are back", len(now), len(before))
				}
			}
		})
	}
}

// The table that a second attempt adopts may be one that the first made, and failed to fill.
func TestWhatWasFoundCountsForTheFirstAttemptAlone(t *testing.T) {
	fw := newFake()
	fw.fail = []error{syscall.ENOBUFS}
	at := time.Now()
	desired := []Change{ban("203.0.113.9", time.Hour)}
	found := []Element{{Kind: Ban, Prefix: desired[0].Prefix, Timeout: time.Hour, Remaining: time.Hour}}
	w := NewWriter(fw, func() []Change { return desired }, WriterConfig{VerifyInterval: -1, Found: found, FoundAt: at})
	stop := start(t, w)
	if err := w.Apply(t.Context(), []Change{ban("203.0.113.10", time.Hour)}); err != nil {
		t.Fatal(err)
	}
	stop()
	if fw.ensures != 2 || len(fw.batches) == 0 || fw.batches[0][0].Prefix != desired[0].Prefix ||
		fw.batches[0][0].alreadyThere {
		t.Errorf("after %d attempts: %+v", fw.ensures, fw.batches)
	}
}
