package notify

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

func later(what string) error { return &failure{cause: what} }

// pass lets time go by, and everybody do what is due then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestMessagesComeInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{script: []error{nil, later("503"), later("503"), nil, later("503")}}
		n, b, _ := play(t, s)
		for i := range 20 {
			n.Push(banDecision(i))
		}
		pass(time.Minute)
		got := s.messages()
		ids := map[string]bool{}
		for i, m := range got {
			if want := fmt.Sprintf("10.0.0.%d/32", i); m.Prefix != want {
				t.Errorf("message %d is about %s", i, m.Prefix)
			}
			ids[m.ID] = true
		}
		if len(got) != 20 || len(ids) != 20 || b.total("team sent") != 20 || b.total("team failed") != 0 {
			t.Errorf("%d messages, %d IDs, %v", len(got), len(ids), b.counts)
		}
	})
}

func TestPausesGrowAndRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{script: []error{later("a"), later("b"), later("c"),
			&failure{cause: "429", retryAfter: 42 * time.Second}, later("e")}}
		n, b, _ := play(t, s)
		n.Push(banDecision(1))
		pass(5 * time.Minute)
		if len(s.at) != 6 || len(s.messages()) != 1 {
			t.Fatalf("%d attempts, %d messages", len(s.at), len(s.messages()))
		}
		for i, base := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 0, 16 * time.Second} {
			pause := s.at[i+1].Sub(s.at[i])
			if base == 0 && pause != 42*time.Second || base != 0 && (pause < base/2 || pause > base) {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if text := b.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "get through again") {
			t.Errorf("log: %s", text)
		}
	})
}

func TestWhatCannotWorkIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{script: []error{&failure{cause: "HTTP 404", output: "no_service", permanent: true}}}
		n, b, _ := play(t, s)
		n.Push(banDecision(1))
		n.Push(banDecision(2))
		pass(time.Hour)
		if got := s.messages(); len(s.at) != 2 || len(got) != 1 || got[0].Prefix != "10.0.0.2/32" {
			t.Errorf("%d attempts, %+v", len(s.at), got)
		}
		if b.total("team failed") != 1 || !strings.Contains(b.String(), "no_service") {
			t.Errorf("%v, %s", b.counts, b.String())
		}
	})
}

func TestATargetThatIsDownForHoursIsToldHowMuchItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		for range 1000 {
			s.script = append(s.script, later("connection refused"))
		}
		n, b, _ := play(t, s)
		for i := range 3 {
			n.Push(banDecision(i))
		}
		pass(3 * time.Hour)
		synctest.Wait()
		if b.total("team failed") < 3 || len(s.messages()) != 0 || len(s.at) > 200 {
			t.Fatalf("%v, %d messages, %d attempts", b.counts, len(s.messages()), len(s.at))
		}
		s.mu.Lock()
		s.script = nil
		s.mu.Unlock()
		pass(10 * time.Minute)
		got := s.messages()
		if len(got) != 1 || got[0].Action != message.Summary || got[0].Count != 3 || len(got[0].Prefixes) != 3 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAFloodBecomesASummaryAndHidesNoBreach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		n, b, _ := play(t, s)
		for i := range 10_000 {
			n.Push(banDecision(i))
		}
		n.Push(breach())
		pass(time.Second)
		if got := s.messages(); len(got) != 21 || got[20].Action != "breach" {
			t.Fatalf("%d messages at first", len(got))
		}
		pass(2 * time.Minute)
		got := s.messages()
		if len(got) != 22 {
			t.Fatalf("%d messages", len(got))
		}
		sum := got[21]
		if sum.Action != message.Summary || sum.Count != 9980 ||
			!slices.Equal(sum.Actions, []message.Tally{{Action: "ban", Count: 9980}}) ||
			len(sum.Prefixes) != maxPrefixes || !strings.Contains(sum.Title, "9980 more") ||
			!strings.Contains(sum.Text, "9980 ban") {
			t.Errorf("%+v", sum)
		}
		if d := s.at[21].Sub(s.at[20]); d < summaryAfter-time.Second || d > summaryAfter {
			t.Errorf("the summary came after %v", d)
		}
		if b.total("team suppressed") != 9980 || b.total("team dropped") != 0 || b.total("team sent") != 22 {
			t.Errorf("%v", b.counts)
		}
		pass(10 * time.Minute) // the bucket is full again
		n.Push(banDecision(1))
		synctest.Wait()
		if got := s.messages(); len(got) != 23 || got[22].Action != "ban" {
			t.Errorf("after the flood: %d", len(got))
		}
	})
}

func TestTheRateIsKeptOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		n, _, _ := play(t, s, func(c *config.Notify) { c.Rate = config.NotifyRate{PerMinute: 6, Burst: 2} })
		for i := range 3600 { // one a second for an hour
			n.Push(banDecision(i))
			pass(time.Second)
		}
		single, summed, summaries := 0, 0, 0
		for _, m := range s.messages() {
			if m.Action == message.Summary {
				summed, summaries = summed+m.Count, summaries+1
			} else {
				single++
			}
		}
		if single < 355 || single > 365 || summaries > 60 || single+summed < 3500 {
			t.Errorf("%d messages and %d summaries of %d", single, summaries, summed)
		}
	})
}

func TestAFloodNeverWaitsForATargetThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 1000 * time.Hour}
		n, b, stop := play(t, s, func(c *config.Notify) { c.Rate.PerMinute = 0 })
		start := time.Now()
		for i := range 10_000 {
			n.Push(banDecision(i))
		}
		if time.Since(start) != 0 { // the bubble's clock moves only when everybody waits
			t.Errorf("pushing took %v", time.Since(start))
		}
		if n.targets[0].waiting.Len() > maxWaitingWithout {
			t.Errorf("%d messages wait", n.targets[0].waiting.Len())
		}
		if dropped := b.total("team dropped"); dropped < 10_000-maxWaitingWithout-1 {
			t.Errorf("%d dropped", dropped)
		}
		if strings.Count(b.String(), "are dropped") != 1 {
			t.Errorf("log: %s", b.String())
		}
		start = time.Now()
		stop()
		if took := time.Since(start); took > shutdownGracePeriod {
			t.Errorf("the end took %v", took)
		}
		if total := b.total("team dropped"); total < 10_000 || !strings.Contains(b.String(), "no time to tell") {
			t.Errorf("%d dropped in the end", total)
		}
		if !s.ended {
			t.Error("the sender was not closed")
		}
	})
}

func TestWhatWaitsIsToldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 10 * time.Millisecond}
		n, b, stop := play(t, s)
		for i := range 50 {
			n.Push(banDecision(i))
		}
		stop()
		got := s.messages()
		if len(got) != 21 || got[20].Action != message.Summary || got[20].Count != 30 {
			t.Errorf("%d messages", len(got))
		}
		if b.total("team dropped") != 0 {
			t.Errorf("%v", b.counts)
		}
	})
}

func TestTheEndDoesNotWaitForARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		for range 100 {
			s.script = append(s.script, later("503"))
		}
		n, _, stop := play(t, s)
		n.Push(banDecision(1))
		n.Push(banDecision(2))
		pass(10 * time.Minute)
		start := time.Now()
		stop()
		if took := time.Since(start); took > shutdownGracePeriod {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestOnlyWhatWasAskedForIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		n, _, _ := play(t, s, func(c *config.Notify) {
			c.Actions, c.Reasons, c.PBX = []string{"ban", "breach"}, []string{"honeypot", "guessed"}, []string{"pbx1"}
		})
		unban, elsewhere, honeypot := banDecision(1), banDecision(2), banDecision(3)
		unban.Action = ban.ActionUnban
		honeypot.Reason, elsewhere.Reason, elsewhere.PBX = ban.ReasonHoneypot, ban.ReasonHoneypot, "pbx2"
		for _, d := range []ban.Decision{banDecision(0), unban, elsewhere, honeypot, breach()} {
			n.Push(d)
		}
		pass(5 * time.Minute)
		if got := s.messages(); len(got) != 2 || got[0].Prefix != "10.0.0.3/32" || got[1].Action != "breach" {
			t.Errorf("%+v", got)
		}
	})
}

func TestAReloadKeepsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		for range 100 {
			s.script = append(s.script, later("503"))
		}
		n, b, _ := play(t, s)
		for i := range 25 {
			n.Push(banDecision(i))
		}
		pass(10 * time.Second)
		same := n.targets[0]
		if err := n.Configure([]config.Notify{team()}); err != nil || n.targets[0] != same {
			t.Fatalf("an equal target was replaced: %v", err)
		}
		// The new sender must be in place before the target runs: Configure launches it at once, so hold it back.
		next := &scripted{}
		n.mu.Lock()
		t2, err := newTarget(team(func(c *config.Notify) { c.Timeout = time.Minute }), n)
		if err != nil {
			t.Fatal(err)
		}
		t2.sender = next
		n.targets = []*target{t2}
		same.replaceBy(t2)
		n.launchLocked(t2)
		n.mu.Unlock()
		pass(3 * time.Minute)
		got := next.messages()
		if len(got) != 21 || got[20].Action != message.Summary || got[20].Count != 5 {
			t.Fatalf("%d messages", len(got))
		}
		seen := map[string]bool{}
		for _, m := range got[:20] {
			seen[m.Prefix] = true
		}
		if len(seen) != 20 || b.total("team dropped") != 0 {
			t.Errorf("%d prefixes, %v", len(seen), b.counts)
		}
		n.Push(banDecision(99)) // the rate goes on, too: the minutes since then gave tokens
		synctest.Wait()
		if got := next.messages(); len(got) != 22 {
			t.Errorf("%d messages", len(got))
		}
		if err := n.Configure(nil); err != nil {
			t.Fatal(err)
		}
		n.Push(banDecision(100))
		pass(time.Minute)
		if got := next.messages(); len(got) != 22 || !next.ended {
			t.Errorf("a target that is gone is told: %d", len(got))
		}
	})
}

func TestConfigureRefusesAndKeepsTheOldTargets(t *testing.T) {
	n, err := New([]config.Notify{team()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := n.targets[0]
	for _, bad := range []config.Notify{
		team(func(c *config.Notify) { c.Template = "pigeon" }),
		team(func(c *config.Notify) { c.Body = "{{" }),
		team(func(c *config.Notify) { c.CAFile = "/none" }),
	} {
		if err := n.Configure([]config.Notify{bad}); err == nil || !strings.Contains(err.Error(), "team") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if len(n.targets) != 1 || n.targets[0] != old {
		t.Error("the old target is gone")
	}
	if _, err := New([]config.Notify{team(func(c *config.Notify) { c.Template = "" })}, Options{}); err == nil {
		t.Error("a target without a template")
	}
}

func TestNoTargetCostsNothing(t *testing.T) {
	n, err := New(nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := banDecision(1)
	if allocs := testing.AllocsPerRun(100, func() { n.Push(d) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
