package record_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/fleet/record"
)

func TestHeartbeats(t *testing.T) {
	want := record.Heartbeat{Sent: start, Sequence: math.MaxUint64, Waiting: math.MaxInt64}
	data := record.EncodeHeartbeat(want)
	if got, err := record.DecodeHeartbeat(data); err != nil || got != want {
		t.Errorf("%s is read as %+v, %v", data, got, err)
	}
	good := string(record.EncodeHeartbeat(record.Heartbeat{Sent: start, Sequence: 7, Waiting: 1}))
	for name, tt := range map[string]struct {
		text string
		want error
	}{
		"nothing":            {"", record.ErrMalformed},
		"no time":            {strings.Replace(good, "\"sent\":", "\"sent\":-", 1), record.ErrMalformed},
		"less than nothing":  {strings.Replace(good, "\"waiting\":1", "\"waiting\":-1", 1), record.ErrMalformed},
		"half":               {good[:len(good)/2], record.ErrMalformed},
		"something else too": {good + " ", record.ErrMalformed},
		"an unknown key":     {strings.Replace(good, "}", ",\"x\":1}", 1), record.ErrMalformed},
		"another version":    {strings.Replace(good, "\"format\":1", "\"format\":2", 1), record.ErrFormat},
		"much":               {strings.Repeat(" ", 1<<20), record.ErrSize},
	} {
		if h, err := record.DecodeHeartbeat([]byte(tt.text)); !errors.Is(err, tt.want) || tt.want == nil {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	for subject, want := range map[string]string{"ringwall-alive.acme.a": "a", "ringwall-alive.acme.a.b": "",
		"ringwall-alive.other.a": "", "ringwall-alive.acme.*": "", "ringwall-alive.acme.": ""} {
		if node, ok := record.ParseHeartbeatSubject("acme", subject); ok != (want != "") || ok && node != want {
			t.Errorf("%s is of %q, %v", subject, node, ok)
		}
	}
}

func TestWhatIsKnownOfANode(t *testing.T) {
	b := record.New("here", limits)
	beat := func(at time.Time, sequence, last uint64) {
		b.Hear(at, "a", record.EncodeHeartbeat(record.Heartbeat{Sent: at.Add(3 * time.Second), Sequence: sequence}), last)
	}
	node := func(now time.Time) record.Node { return b.Nodes(now)[0] }
	beat(start, 90, 100)
	if n := node(start); !n.Alive.Equal(start) || n.Behind != 10 || n.Ahead != 3 || n.PerMinute != 0 || n.AtBound {
		t.Errorf("known is %+v", n)
	}
	beat(start.Add(time.Second), 1, 100) // one of a flood
	if n := node(start); n.Behind != 10 {
		t.Errorf("a flood of heartbeats is looked at: %+v", n)
	}
	beat(start.Add(time.Minute), math.MaxUint64, 100)
	if n := node(start); n.Behind != 0 {
		t.Errorf("who says that it knows more than there is: %+v", n)
	}
	b.Hear(start, "here", record.EncodeHeartbeat(record.Heartbeat{Sent: start}), 1)

	now := start
	for i := range 600 { // 10 minutes, one a second
		now = start.Add(time.Duration(i) * time.Second)
		r := banOf("a", attacker, minutes(60))
		r.Made = now
		if _, err := b.Put(now, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := node(now); n.PerMinute < 45 || n.PerMinute > 65 {
		t.Errorf("60 a minute are told as %v", n.PerMinute)
	}
	if n := node(now.Add(time.Hour)); n.PerMinute != 0 {
		t.Errorf("after an hour's silence it is %v a minute", n.PerMinute)
	}
	for i := range 3 * limits.Records {
		r := banOf("a", attacker, minutes(60))
		r.Made = now.Add(time.Duration(i))
		_, _ = b.Put(now, r)
	}
	if !node(now).AtBound || node(now.Add(6*time.Minute)).AtBound {
		t.Errorf("at its bound: %v, and later %v", node(now).AtBound, node(now.Add(6*time.Minute)).AtBound)
	}
	b.DropIdle(now.Add(time.Hour))
	if len(b.Nodes(now)) != 1 {
		t.Error("a node is forgotten whose ban holds")
	}
	b.Forget("a")
	b.Hear(now, "b", record.EncodeHeartbeat(record.Heartbeat{Sent: now}), 1)
	b.DropIdle(now)
	if len(b.Nodes(now)) != 1 {
		t.Error("who was heard is forgotten")
	}
	b.DropIdle(now.Add(time.Second))
	if n := b.Nodes(now); len(n) != 0 {
		t.Errorf("of whom nothing is known: %+v", n)
	}
}
