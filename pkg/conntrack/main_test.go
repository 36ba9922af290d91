package conntrack

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long the kernel may take on a slow machine.
const patience = 2 * time.Minute

// space is a network namespace of a test's own.
type space struct{ *netns.Space }

func newSpace(t testing.TB) space { return space{netnstest.New(t)} }

// nft runs a script in the namespace and returns what it printed.
func (s space) nft(t testing.TB, script string) string {
	t.Helper()
	return netnstest.NFT(t, s.Space, script)
}

// wire is a server whose connections are tracked, and a client, with a cable
// between them.
type wire struct {
	server, client space
}

// The client's addresses; the server is 10.99.0.1 and fd99::1.
const (
	server4, server6 = "10.99.0.1", "fd99::1"
	client4, client6 = "10.99.0.66", "fd99::66"
	other4           = "10.99.7.5"
)

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{server: newSpace(t), client: newSpace(t)}
	netnstest.Connect(t, w.server.Space, w.client.Space,
		[]string{server4 + "/16", server6 + "/48"}, []string{client4 + "/16", other4 + "/16", client6 + "/48"})
	// A rule that asks for the state is what turns tracking on.
	w.server.nft(t, `table inet tracking {
		chain in { type filter hook prerouting priority -150; ct state established counter; }
	}`)
	return w
}
