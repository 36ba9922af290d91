package fleet_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

func nodeOf(f *fleet.Fleet, name string) record.Node {
	for _, n := range f.Status().Nodes {
		if n.Name == name {
			return n
		}
	}
	return record.Node{}
}

// clock is the machine's, ahead of it by as much as a test says.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func TestWhoIsThereIsSeenAndWhoIsNot(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), freePort(t)
	s := startServer(t, dir, port, nil)
	var clockOfB clock
	cfg := configOf(s.ClientURL(), "b")
	cfg.Now = clockOfB.Now
	clockOfB.ahead.Store(int64(10 * time.Second))
	b, _ := run(t, cfg)
	a, stopA := run(t, configOf(s.ClientURL(), "a"))
	a.Say(banOf(address(1)))
	await(t, b, "b has heard a", func() bool { return !nodeOf(b, "a").Alive.IsZero() && bans(b, address(1)) })
	if n := nodeOf(b, "a"); n.Silent || n.Behind > 1 || n.Ahead > -9 || n.Ahead < -60 || n.PerMinute <= 0 {
		t.Errorf("a is %+v", n)
	}
	stopA()
	clockOfB.ahead.Add(int64(4 * time.Minute))
	if n := nodeOf(b, "a"); n.Silent {
		t.Errorf("after some minutes a is silent: %+v", n)
	}
	clockOfB.ahead.Add(int64(2 * time.Minute))
	if n := nodeOf(b, "a"); !n.Silent {
		t.Errorf("a is not silent: %+v", n)
	}
	if n := nodeOf(b, "b"); n.Silent {
		t.Errorf("b itself is silent: %+v", n)
	}
	// Without a hub nobody is heard, and that is nobody's silence.
	stopServer(s)
	await(t, b, "b is alone", func() bool { return !b.Status().Connected })
	if n := nodeOf(b, "a"); n.Silent {
		t.Errorf("without a hub a is silent: %+v", n)
	}
	startServer(t, dir, port, nil)
	await(t, b, "b is back", func() bool { return b.Status().CaughtUp })
	if n := nodeOf(b, "a"); n.Silent {
		t.Errorf("right after it is back a is silent: %+v", n)
	}
}

// In a large fleet nobody looks who is not told to.
func TestWhoLooksInALargeFleet(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1, nil)
	with := func(node string, w fleet.Watch) *fleet.Fleet {
		cfg := configOf(s.ClientURL(), node)
		cfg.Watch, cfg.Limits.Nodes = w, 1000
		f, _ := run(t, cfg)
		await(t, f, node+" is there", func() bool { return f.Status().CaughtUp })
		return f
	}
	auto, on, off := with("auto", fleet.WatchAuto), with("on", fleet.WatchOn), with("off", fleet.WatchOff)
	await(t, auto, "those who look do", func() bool { return auto.Status().Watching && on.Status().Watching })
	nc, _ := client(t, s.ClientURL())
	defer nc.Close()
	beat := func(node string, data []byte) {
		if err := nc.Publish(record.HeartbeatSubject("acme", node), data); err != nil {
			t.Error(err)
		}
	}
	good := record.EncodeHeartbeat(record.Heartbeat{Sent: time.Now()})
	beat("a.b", good)
	beat("hostile", []byte(`{"format":1}`))
	beat("hostile", make([]byte, 10_000))
	for i := range 250 {
		beat(fmt.Sprintf("n%d", i), good)
	}
	await(t, auto, "it looks no more", func() bool { return !auto.Status().Watching })
	await(t, on, "it hears all", func() bool { return len(on.Status().Nodes) >= 251 })
	if !on.Status().Watching || off.Status().Watching || len(off.Status().Nodes) > 1 {
		t.Errorf("on %v, off %v, with %d nodes", on.Status().Watching, off.Status().Watching, len(off.Status().Nodes))
	}
	if n := nodeOf(on, "hostile"); !n.Alive.IsZero() || n.RefusedCount() != 2 {
		t.Errorf("who says nonsense is %+v", n)
	}
}

// Servers with an account file of before let nobody say that he is there: that is told, and all else works.
func TestHeartbeatsThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1, func(o *server.Options) {
		withUsers(o)
		for _, u := range o.Users[:2] {
			u.Permissions.Publish.Deny = []string{"ringwall-alive.>"}
			u.Permissions.Subscribe.Deny = []string{"ringwall-alive.>"}
		}
	})
	operator, js := client(t, urlOf(s, "operator"))
	if _, err := js.CreateStream(t.Context(), fleet.StreamConfig("acme")); err != nil {
		t.Fatal(err)
	}
	operator.Close()
	a, _ := run(t, configOf(urlOf(s, "a"), "a"))
	b, _ := run(t, configOf(urlOf(s, "b"), "b"))
	await(t, a, "a is told", func() bool { return a.Status().Unseen != "" })
	a.Say(banOf(address(1)))
	await(t, b, "b knows", func() bool { return bans(b, address(1)) })
	if s := a.Status(); !s.Connected || s.Error != "" {
		t.Errorf("a is %+v", s)
	}
}

func TestAHeartbeatIsSmall(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1, nil)
	nc, _ := client(t, s.ClientURL(), nats.Name("b"))
	defer nc.Close()
	heard := make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe(record.HeartbeatSubject("acme", "*"), heard); err != nil {
		t.Fatal(err)
	}
	run(t, configOf(s.ClientURL(), "pbx-berlin"))
	m := <-heard
	if size := len(m.Subject) + len(m.Data) + len("MSG  12 123\r\n\r\n"); size > 140 || len(m.Header) > 0 {
		t.Errorf("it takes %d bytes: %s %s", size, m.Subject, m.Data)
	}
}
