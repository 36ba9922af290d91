package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// taken empties a follower.
func taken(f *Feed, fo *follower) ([]ban.Decision, int) {
	pieces, lost := f.takeNew(fo)
	return slices.Concat(pieces...), lost
}

func numbers(decisions []ban.Decision) (out []int) {
	for _, d := range decisions {
		out = append(out, int(d.Source.As4()[3]))
	}
	return out
}

func equal(a []int, b ...int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestFeedRemembersTheLast(t *testing.T) {
	f := NewFeed(3)
	if got := f.Recent(time.Time{}, netip.Addr{}); len(got) != 0 {
		t.Errorf("at first: %v", got)
	}
	for n := range 5 {
		f.Publish(decision(n))
	}
	if got := numbers(f.Recent(time.Time{}, netip.Addr{})); !equal(got, 2, 3, 4) {
		t.Errorf("all: %v", got)
	}
	if got := numbers(f.Recent(noon.Add(3*time.Second), netip.Addr{})); !equal(got, 3, 4) {
		t.Errorf("since: %v", got)
	}
	if got := numbers(f.Recent(time.Time{}, decision(4).Source)); !equal(got, 4) {
		t.Errorf("of one source: %v", got)
	}
}

func TestFeedFindsTheNetworkOfAnAddress(t *testing.T) {
	f := NewFeed(3)
	f.Publish(ban.Decision{Prefix: netip.MustParsePrefix("203.0.113.0/24")})
	if got := f.Recent(time.Time{}, netip.MustParseAddr("203.0.113.9")); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestFeedCutsLongNames(t *testing.T) {
	f := NewFeed(1)
	f.Publish(ban.Decision{Account: strings.Repeat("x", 1<<20)})
	if got := f.Recent(time.Time{}, netip.Addr{})[0].Account; len(got) != maxAccount {
		t.Errorf("keeps %d bytes", len(got))
	}
}

func TestASlowFollowerLosesTheOldestAndLearnsHowMany(t *testing.T) {
	f := NewFeed(1)
	past, fo := f.addFollower(time.Time{})
	if len(past) != 0 {
		t.Errorf("past: %v", past)
	}
	for range followBuffer {
		f.Publish(decision(1))
	}
	f.Publish(decision(2), decision(3))
	got, lost := taken(f, fo)
	n := numbers(got)
	if lost != 2 || len(n) != followBuffer || !equal(n[followBuffer-3:], 1, 2, 3) {
		t.Errorf("lost %d, kept %d, ends with %v", lost, len(n), n[len(n)-3:])
	}
	if got, lost := taken(f, fo); len(got) != 0 || lost != 0 {
		t.Errorf("again: %v, %d", got, lost)
	}
	f.removeFollower(fo)
	f.Publish(decision(4))
	if got, _ := taken(f, fo); len(got) != 0 {
		t.Errorf("after it left: %v", got)
	}
}

func TestDecisionOfTheClientIsThatOfTheEngine(t *testing.T) {
	d := decision(1)
	d.Detail = "a detail"
	d.Proven = true
	want, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(want)))
	dec.DisallowUnknownFields()
	var back ban.Decision
	if err := dec.Decode(&back); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(back)
	if err != nil || string(got) != string(want) {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

func TestFollowShowsPastAndLiveDecisions(t *testing.T) {
	r := start(t, &fake{}, nil)
	r.server.Feed.Publish(decision(1), decision(2))
	seen := make(chan ban.Decision)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.client.Follow(ctx, noon.Add(2*time.Second), func(d ban.Decision) error {
			seen <- d
			return nil
		}, nil)
	}()
	if d := <-seen; d.Source.String() != "203.0.113.2" {
		t.Errorf("past: %+v", d)
	}
	r.server.Feed.Publish(decision(3))
	if d := <-seen; d.Source.String() != "203.0.113.3" || d.Action != ban.ActionBan || d.Duration != time.Hour {
		t.Errorf("live: %+v", d)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowEndsWithItsReaderOrTheDaemon(t *testing.T) {
	r := start(t, &fake{}, nil)
	enough := errors.New("enough")
	r.server.Feed.Publish(decision(1))
	if err := r.client.Follow(t.Context(), noon, func(ban.Decision) error { return enough }, nil); !errors.Is(err,
		enough) {
		t.Errorf("got %v", err)
	}
	began := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- r.client.Follow(context.Background(), noon, func(ban.Decision) error {
			close(began)
			return nil
		}, nil)
	}()
	<-began
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the daemon stopped: %v", err)
	}
}

func TestAStreamTellsWhatItsReaderMissed(t *testing.T) {
	r := start(t, &fake{}, nil)
	c := dial(t, r.client.Socket)
	r.server.Feed.Publish(decision(1))
	send(t, c, "GET /v1/decisions?since=2026-01-31T12:00:00Z HTTP/1.1\r\nHost: x\r\n\r\n")
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, 1<<20)
	next := func(with string) string {
		for lines.Scan() {
			if strings.Contains(lines.Text(), with) {
				return lines.Text()
			}
		}
		t.Fatalf("the stream ended before %s: %v", with, lines.Err())
		return ""
	}
	next(`"203.0.113.1"`)
	// Nothing is read now: socket and buffer fill up.
	big := decision(2)
	big.Detail = strings.Repeat("x", 4096)
	for range 4 * followBuffer {
		r.server.Feed.Publish(big)
	}
	var lost lostLine
	if err := json.Unmarshal([]byte(next(`"lost"`)), &lost); err != nil || lost.Lost < 1 || lost.Lost > 3*followBuffer {
		t.Errorf("%+v, %v", lost, err)
	}
}

func TestWithoutAFeedThereIsNoStream(t *testing.T) {
	r := start(t, &fake{}, func(s *Server) { s.Feed = nil })
	err := r.client.Follow(t.Context(), time.Time{}, func(ban.Decision) error { return nil }, nil)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestAFollowerGetsWhatIsPublishedAfterIt(t *testing.T) {
	f := NewFeed(10)
	f.Publish(ban.Decision{Account: "before", Time: noon})
	past, fo := f.Follow(noon.Add(-time.Second))
	defer fo.Close()
	if len(past) != 1 || past[0].Account != "before" {
		t.Errorf("%+v", past)
	}
	f.Publish(ban.Decision{Account: "after", Time: noon})
	<-fo.More()
	if got, lost := fo.Take(); len(got) != 1 || len(got[0]) != 1 || got[0][0].Account != "after" || lost != 0 {
		t.Errorf("%+v, %d lost", got, lost)
	}
	fo.Close()
	f.Publish(ban.Decision{Account: "later", Time: noon})
	if got, _ := fo.Take(); len(got) != 0 {
		t.Errorf("%+v after Close", got)
	}
}

// Whatever the sizes in which decisions come, history is the last of them, and followers get each once and in order.
func TestFeedRemembersBatchesOfAnySize(t *testing.T) {
	const keep = 1500
	f := NewFeed(keep)
	_, fo := f.addFollower(time.Time{})
	var all []ban.Decision
	var took [][]ban.Decision
	var copied []ban.Decision
	seen := 0
	for round, size := range []int{1, 15, 16, 3, 100, 1, 1, 63, 700, 2, 14, 15, 15, 15, 1024, 5, 3000, 1, 20, 2} {
		var batch []ban.Decision
		for range size {
			batch = append(batch, ban.Decision{Time: noon.Add(time.Duration(len(all)+len(batch)) * time.Second)})
		}
		all = append(all, batch...)
		f.Publish(batch...)
		if !slices.Equal(slices.Concat(took...), copied) {
			t.Fatalf("round %d: what a follower took has changed", round)
		}
		if got := f.Recent(time.Time{}, netip.Addr{}); !slices.Equal(got, all[max(0, len(all)-keep):]) {
			t.Fatalf("round %d: history is %d decisions", round, len(got))
		}
		held := 0
		for _, p := range f.pieces {
			held += len(p)
		}
		if held != int(f.next-f.first) || held >= keep+maxPiece {
			t.Fatalf("round %d: %d decisions are held", round, held)
		}
		if round%3 == 1 {
			continue
		}
		var lost int
		took, lost = f.takeNew(fo)
		copied = slices.Concat(took...)
		if want := all[max(seen, len(all)-followBuffer):]; !slices.Equal(copied, want) ||
			lost != len(all)-seen-len(want) {
			t.Fatalf("round %d: the follower got %d, lost %d", round, len(copied), lost)
		}
		seen = len(all)
	}
	past, _ := f.addFollower(all[len(all)-30].Time)
	if !slices.Equal(past, all[len(all)-30:]) {
		t.Errorf("a new follower got %d of 30", len(past))
	}
}

// Names that are too long are cut in what is remembered, not in what the caller has.
func TestFeedLeavesTheCallersNames(t *testing.T) {
	batch := make([]ban.Decision, fewDecisions)
	long := strings.Repeat("x", maxAccount+1)
	batch[3].Account = long
	f := NewFeed(100)
	f.Publish(batch...)
	if got := f.Recent(time.Time{}, netip.Addr{}); got[3].Account != long[:maxAccount] || batch[3].Account != long {
		t.Errorf("%d bytes are kept, the caller has %d", len(got[3].Account), len(batch[3].Account))
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			f := NewFeed(20000)
			_, fo := f.addFollower(time.Time{})
			b.ReportAllocs()
			for range b.N / size {
				batch := make([]ban.Decision, size) // the feed keeps it
				f.Publish(batch...)
				f.takeNew(fo)
			}
		})
	}
}
