package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cret-of-nobody"

// serve starts an AMI server on loopback and returns its address.
func serve(t *testing.T, users ...amiserver.User) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := amiserver.New(amiserver.Config{AuthDelay: -1, Users: users})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

// file writes a configuration for one Asterisk, with everything else in a folder of the test's own.
func file(t *testing.T, address, more string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("asterisk: [{name: pbx1, address: %q, username: ringwall, secret: %s}]\ncontrol: {socket: "+
		"%s}\nstate: {path: %s}\n%s",
		address, secret, filepath.Join(dir, "r.sock"), filepath.Join(dir, "state.db"), more)
	path := filepath.Join(dir, "ringwall.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// of returns the checks of one name.
func of(list []Check, name string) []Check {
	var found []Check
	for _, c := range list {
		if c.Name == name {
			found = append(found, c)
		}
	}
	return found
}

// one returns the only check of a name.
func one(t *testing.T, list []Check, name string) Check {
	t.Helper()
	found := of(list, name)
	if len(found) != 1 {
		t.Fatalf("%d checks %q in %+v", len(found), name, list)
	}
	return found[0]
}

// is demands a result and parts of the texts.
func is(t *testing.T, c Check, want Result, parts ...string) {
	t.Helper()
	if c.Result != want {
		t.Errorf("%s is %s: %s (%s), want %s", c.Name, c.Result, c.Detail, c.Fix, want)
	}
	for _, part := range parts {
		if !strings.Contains(c.Detail+"\n"+c.Fix, part) {
			t.Errorf("%s lacks %q: %s\n%s", c.Name, part, c.Detail, c.Fix)
		}
	}
	if strings.Contains(c.Detail, "\n") || c.Detail == "" {
		t.Errorf("%s has the detail %q", c.Name, c.Detail)
	}
}
