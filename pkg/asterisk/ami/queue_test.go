package ami

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// held is how many bytes the queue counts.
func held(q *queue) int {
	now, _ := q.box.Load()
	return now
}

// dropped is what the queue has given up.
func dropped(q *queue) map[string]uint64 {
	var st Status
	q.addToStatus(&st)
	return st.Dropped
}

func frame(name string, i int) Frame {
	return Frame{Text: fmt.Sprintf("Event: %s\r\nPrivilege: security,all\r\nN: %06d", name, i)}
}

func drainQueue(q *queue) (frames []Frame, states []State) {
	for items, _ := q.takeItems(); len(items) > 0; items, _ = q.takeItems() {
		for _, it := range items {
			if it.state != nil {
				states = append(states, *it.state)
				continue
			}
			frames = append(frames, it.frame)
		}
	}
	return frames, states
}

func TestQueueKeepsOrderAndCounts(t *testing.T) {
	q := newQueue(1 << 20)
	for i := range 3000 {
		q.pushFrame(frame("InvalidAccountID", i))
		if i == 1500 {
			q.pushState(State{Kind: Connected})
		}
	}
	frames, states := drainQueue(q)
	if len(frames) != 3000 || len(states) != 1 {
		t.Fatalf("%d frames, %d states", len(frames), len(states))
	}
	for i, f := range frames {
		if f.Text != frame("InvalidAccountID", i).Text {
			t.Fatalf("frame %d is %q", i, f.Text)
		}
	}
	var st Status
	q.addToStatus(&st)
	if st.QueueBytes != 0 || st.QueuePeak == 0 || st.Received != 3000 || st.Dropped != nil {
		t.Errorf("status %+v", st)
	}
}

func TestFullQueueGivesUpWhatMattersLeast(t *testing.T) {
	const limit = 256 << 10
	q := newQueue(limit)
	trust := 0
	for i := range 10000 {
		switch {
		case i%500 == 0:
			q.pushFrame(frame("SuccessfulAuth", i))
			trust++
		case i%10 == 0:
			q.pushFrame(frame("ChallengeResponseFailed", i))
		case i%10 == 1:
			q.pushFrame(Frame{Text: fmt.Sprintf("rubbish %06d", i)})
		default:
			q.pushFrame(frame("ChallengeSent", i))
		}
	}
	var st Status
	q.addToStatus(&st)
	if st.QueuePeak > limit || st.QueueBytes > limit {
		t.Errorf("peak %d, now %d of %d bytes", st.QueuePeak, st.QueueBytes, limit)
	}
	if st.Dropped["ChallengeSent"] == 0 || st.Dropped["ChallengeResponseFailed"] != 0 ||
		st.Dropped["SuccessfulAuth"] != 0 {
		t.Errorf("dropped %v", st.Dropped)
	}
	frames, _ := drainQueue(q)
	var kept, dropped uint64
	kept = uint64(len(frames))
	for _, n := range st.Dropped {
		dropped += n
	}
	if kept+dropped != 10000 || st.Received != 10000 {
		t.Errorf("%d kept and %d dropped of %d", kept, dropped, st.Received)
	}
	last, got := "", 0
	for _, f := range frames {
		if strings.HasPrefix(f.Text, "Event: SuccessfulAuth") {
			got++
		}
		if n := f.Text[len(f.Text)-6:]; n <= last {
			t.Fatalf("%s after %s", n, last)
		} else {
			last = n
		}
	}
	if got != trust {
		t.Errorf("%d of %d SuccessfulAuth kept", got, trust)
	}
}

func TestFullQueueKeepsTheNewestOfAClass(t *testing.T) {
	q := newQueue(64 << 10)
	for i := range 5000 {
		q.pushFrame(frame("InvalidPassword", i))
	}
	frames, _ := drainQueue(q)
	if last := frames[len(frames)-1].Text; last != frame("InvalidPassword", 4999).Text {
		t.Errorf("last is %q", last)
	}
	if first := frames[0].Text; first == frame("InvalidPassword", 0).Text {
		t.Error("the oldest is still there")
	}
}

func TestQueueNeverTradesEvidenceForNoise(t *testing.T) {
	q := newQueue(16 << 10)
	n := 0
	for ; held(q)+len(frame("SuccessfulAuth", 0).Text)+frameCost <= 16<<10; n++ {
		q.pushFrame(frame("SuccessfulAuth", n))
	}
	q.pushFrame(frame("ChallengeSent", n))
	q.pushFrame(frame("InvalidAccountID", n))
	q.pushFrame(Frame{Text: strings.Repeat("x", 1<<20)})
	frames, _ := drainQueue(q)
	if len(frames) != n || q.dropped[kindOf("Event: ChallengeSent\r\n")].Load() != 1 ||
		q.dropped[kindOf("x")].Load() != 1 {
		t.Errorf("%d of %d kept, dropped %v", len(frames), n, dropped(q))
	}
}

// A flood of forged sources must not hide a guesser over TCP, whose source is certain.
func TestAForgedFloodDisplacesNoProvenEvidence(t *testing.T) {
	q := newQueue(256 << 10)
	over := func(transport string, i int) Frame {
		return Frame{Text: fmt.Sprintf("Event: ChallengeResponseFailed\r\nN: %06d\r\nRemoteAddress: "+
			"IPV4/%s/203.0.113.66/5060", i, transport)}
	}
	proven := 0
	for i := range 20000 {
		if i%100 == 50 {
			q.pushFrame(over("TLS", i))
			proven++
			continue
		}
		q.pushFrame(over("UDP", i))
	}
	frames, _ := drainQueue(q)
	kept := 0
	for _, f := range frames {
		if strings.Contains(f.Text, "/TLS/") {
			kept++
		}
	}
	var st Status
	q.addToStatus(&st)
	if kept != proven || st.Dropped["ChallengeResponseFailed"] != uint64(20000-len(frames)) || held(q) != 0 {
		t.Errorf("%d of %d proven events kept, %d frames, dropped %v, left %v", kept, proven, len(frames), st.Dropped,
			held(q))
	}
}

func TestQueueCountsWhatIsBeingHandled(t *testing.T) {
	q := newQueue(1 << 20)
	for i := range 100 {
		q.pushFrame(frame("InvalidAccountID", i))
	}
	before := held(q)
	q.takeItems()
	if held(q) != before {
		t.Errorf("%d bytes while handled, %d before", held(q), before)
	}
	q.takeItems()
	if held(q) != 0 {
		t.Errorf("%d bytes at the end", held(q))
	}
}

func TestQueueBoundsStates(t *testing.T) {
	q := newQueue(1 << 20)
	for i := range 3 * maxStates {
		q.pushState(State{Blind: time.Duration(i)})
	}
	_, states := drainQueue(q)
	if len(states) != maxStates || states[len(states)-1].Blind != 3*maxStates-1 {
		t.Errorf("%d states", len(states))
	}
}

func TestKindsMatchTheirNames(t *testing.T) {
	for i, k := range kinds[firstSecurityKind:] {
		if got := kindOf("Event: " + k.name + "\r\nPrivilege: security,all"); got != i+firstSecurityKind {
			t.Errorf("%s is counted as %s", k.name, kinds[got].name)
		}
	}
	for text, want := range map[string]string{
		"": "fragment", "Response: Success": "fragment", "event: ChallengeSent\r\n": "fragment",
		"Event: ChallengeSent": "ChallengeSent", "Event: ChallengeSentX\r\n": "other", "Event: ": "other",
	} {
		if got := kinds[kindOf(text)].name; got != want {
			t.Errorf("%q is counted as %s, want %s", text, got, want)
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	q := newQueue(64 << 20)
	f := Frame{Text: strings.TrimSuffix(event, "\r\n\r\n")}
	b.ReportAllocs()
	for b.Loop() {
		q.pushFrame(f)
		if held(q) > 32<<10 {
			q.takeItems()
		}
	}
}

// What may be forged is told from the line of the source alone, wherever else the same text stands.
func TestForgeableIsWhatSaysSoInItsOwnLine(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "/": false, "UDP/": false,
		"Event: FailedACL\r\nRemoteAddress: IPV4/UDP/192.0.2.1/5060":                                     true,
		"Event: FailedACL\r\nRemoteAddress: IPV6/UDP/2001:db8::1/5060":                                   true,
		"Event: FailedACL\r\nRemoteAddress: IPV4/TCP/192.0.2.1/5060":                                     false,
		"Event: FailedACL\r\nLocalAddress: IPV4/UDP/192.0.2.1/5060\r\nRemoteAddress: IPV4/TLS/1.2.3.4/1": false,
		"Event: FailedACL\r\nAccountID: RemoteAddress: IPV4/UDP/\r\nRemoteAddress: IPV4/WSS/1.2.3.4/1":   false,
		"Event: FailedACL\r\nAccountID: a/b//UDP/c\r\nRemoteAddress: IPV4/UDP/1.2.3.4/1":                 true,
	} {
		if got := overUDP(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
