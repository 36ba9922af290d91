package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

const patience = time.Minute

var attacker = netip.MustParsePrefix("198.51.100.7/32")

// startHub runs a hub of the fleet acme in a folder.
func startHub(t *testing.T, folder hub.Folder, listen string) (h *hub.Hub, stop func()) {
	t.Helper()
	if _, err := folder.Prepare("acme"); err != nil {
		t.Fatal(err)
	}
	h, err := hub.Open(folder, listen, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h, serve(t, h)
}

// serve runs a hub until the test or stop ends it.
func serve(t *testing.T, h *hub.Hub) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- h.Run(ctx, func() { close(ready) }) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the hub ends with: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		stopped = true
		t.Fatalf("the hub does not start: %v", err)
	}
	return stop
}

// configOf is the configuration of a node that has only its line.
func configOf(t *testing.T, line string) fleet.Config {
	t.Helper()
	i, err := hub.ParseInvitation(line)
	if err != nil {
		t.Fatal(err)
	}
	seed := filepath.Join(t.TempDir(), "fleet.creds")
	if err := os.WriteFile(seed, []byte(i.Seed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(i.CertificatePEM())
	kinds := []record.Kind{record.Ban, record.Unban}
	return fleet.Config{Servers: []string{i.Server}, CredentialsFile: seed, Name: i.Fleet, Node: i.Node,
		TLS: &tls.Config{RootCAs: pool, ServerName: hub.ServerName}, Share: kinds, Accept: kinds,
		Limits: record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 60, Records: 100, Nodes: 10},
		Log:    slog.New(slog.DiscardHandler)}
}

func run(t *testing.T, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	f, _ := runUntil(t, cfg)
	return f
}

// runUntil runs a node until the test or stop ends it.
func runUntil(t *testing.T, cfg fleet.Config) (f *fleet.Fleet, stop func()) {
	t.Helper()
	f = fleet.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ends with: %v", cfg.Node, err)
		}
	})
	t.Cleanup(stop)
	return f, stop
}

func await(t *testing.T, f *fleet.Fleet, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s; %+v", patience, what, f.Status())
		}
	}
}

func bans(f *fleet.Fleet, p netip.Prefix) (banned bool) {
	f.Read(func(b *record.Book, now time.Time) { _, banned = b.Ban(now, p) })
	return banned
}

func banOf(p netip.Prefix) record.Record {
	return record.Record{Key: record.Key{Kind: record.Ban, Prefix: p}, Until: time.Now().Add(time.Hour),
		Reason: ban.ReasonScanner, Proven: true}
}

func invite(t *testing.T, folder hub.Folder, node, address string) string {
	t.Helper()
	i, err := folder.Invite(node, address)
	if err != nil {
		t.Fatal(err)
	}
	return i.String()
}

func TestALineIsEnoughToJoin(t *testing.T) {
	t.Parallel()
	folder := hub.Folder{Path: filepath.Join(t.TempDir(), "hub")}
	h, stop := startHub(t, folder, "127.0.0.1:0")
	address := h.Address()
	a := run(t, configOf(t, invite(t, folder, "a", address)))
	lineOfB := invite(t, folder, "b", address)
	configOfB := configOf(t, lineOfB)
	b := run(t, configOfB)
	a.Say(banOf(attacker))
	await(t, b, "b knows what a saw", func() bool { return bans(b, attacker) })

	// A hub that is started again knows its nodes and what they said, and has the same certificate.
	stop()
	_, stop = startHub(t, folder, address)
	c := run(t, configOf(t, invite(t, folder, "c", address)))
	await(t, c, "c knows what a said before", func() bool { return bans(c, attacker) })

	// Who is revoked is cut off while the others go on.
	if err := folder.Revoke("b"); err != nil {
		t.Fatal(err)
	}
	await(t, b, "b is cut off", func() bool {
		return !b.Status().Connected && strings.Contains(strings.ToLower(b.Status().Error), "auth")
	})
	after := netip.MustParsePrefix("198.51.100.8/32")
	a.Say(banOf(after))
	await(t, c, "c hears a", func() bool { return bans(c, after) })
	if bans(b, after) {
		t.Error("who was revoked hears the fleet")
	}
	if err := folder.Revoke("b"); err == nil {
		t.Error("b is revoked twice")
	}

	// It goes on alone. With a new line in the same file it is heard again, and what it saw meanwhile as well.
	alone := netip.MustParsePrefix("198.51.100.9/32")
	b.Say(banOf(alone))
	again, err := folder.Invite("b", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(configOfB.CredentialsFile, []byte(again.Seed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, b, "b hears the fleet again", func() bool { return bans(b, after) && bans(b, attacker) })
	await(t, c, "c hears what b saw", func() bool { return bans(c, alone) })
	stop()
}

// What a revoked node said is void once the hub is told so, while it runs or the next time that it does.
func TestWhatARevokedNodeSaidIsForgotten(t *testing.T) {
	t.Parallel()
	folder := hub.Folder{Path: t.TempDir()}
	h, stop := startHub(t, folder, "127.0.0.1:0")
	address := h.Address()
	stolen := run(t, configOf(t, invite(t, folder, "stolen", address)))
	a := run(t, configOf(t, invite(t, folder, "a", address)))
	other := netip.MustParsePrefix("198.51.100.8/32")
	a.Say(banOf(other))
	stolen.Say(banOf(attacker))
	await(t, a, "a knows what it said", func() bool { return bans(a, attacker) })
	if isInvited, err := folder.Forget("stolen"); err != nil || !isInvited {
		t.Errorf("it is invited: %v, %v", isInvited, err)
	}
	await(t, a, "a forgets", func() bool { return !bans(a, attacker) && bans(a, other) })
	await(t, a, "it is done", func() bool { done, err := folder.IsForgotten("stolen"); return done && err == nil })

	stolen.Say(banOf(attacker))
	stop()
	await(t, a, "a is alone", func() bool { return !a.Status().Connected })
	if err := folder.Revoke("stolen"); err != nil {
		t.Error(err)
	}
	if isInvited, err := folder.Forget("stolen"); err != nil || isInvited {
		t.Errorf("it is not invited: %v, %v", isInvited, err)
	}
	if done, err := folder.IsForgotten("stolen"); done || err != nil {
		t.Errorf("without a hub it is done: %v, %v", done, err)
	}
	_, stop = startHub(t, folder, address)
	await(t, a, "it is done", func() bool { done, err := folder.IsForgotten("stolen"); return done && err == nil })
	await(t, a, "a forgets", func() bool { return a.Status().CaughtUp && !bans(a, attacker) && bans(a, other) })
	if _, err := folder.Forget("a.b"); err == nil {
		t.Error("a name that is none is forgotten")
	}
	stop()
}

// A node that says more than its share loses its own oldest words, and nobody else loses one.
func TestANodeCannotFillTheStream(t *testing.T) {
	t.Parallel()
	folder := hub.Folder{Path: filepath.Join(t.TempDir(), "hub")}
	if _, err := folder.Prepare("acme"); err != nil {
		t.Fatal(err)
	}
	h, err := hub.Open(folder, "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.MaxRecords = 50
	serve(t, h)
	a := run(t, configOf(t, invite(t, folder, "a", h.Address())))
	a.Say(banOf(attacker))
	await(t, a, "the hub has it", func() bool { return a.Status().CaughtUp && a.Status().Waiting == 0 })
	hostile := configOf(t, invite(t, folder, "hostile", h.Address()))
	hostile.Limits.Records = 1000
	b := run(t, hostile)
	const many = 500
	for i := range many {
		b.Say(banOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 32)))
	}
	await(t, b, "the hub has them all", func() bool { return b.Status().CaughtUp && b.Status().Waiting == 0 })

	late := configOf(t, invite(t, folder, "late", h.Address()))
	late.Limits.Records, late.Limits.Rate = 1000, 60_000
	deadline := time.Now().Add(patience)
	for {
		f, stop := runUntil(t, late)
		await(t, f, "it knows what there is", func() bool { return f.Status().CaughtUp })
		known := f.Status().Records
		if !bans(f, attacker) {
			t.Fatal("what another node said is gone")
		}
		stop()
		if known <= 1+50+5 { // what was said since it was looked at may be more
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records are kept", known)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestANodeSpeaksInItsOwnNameAlone(t *testing.T) {
	t.Parallel()
	folder := hub.Folder{Path: t.TempDir()}
	h, _ := startHub(t, folder, "127.0.0.1:0")
	b := run(t, configOf(t, invite(t, folder, "b", h.Address())))
	cfg := configOf(t, invite(t, folder, "a", h.Address()))
	cfg.Node = "c" // which it is not
	hostile := run(t, cfg)
	await(t, hostile, "it is connected", func() bool { return hostile.Status().CaughtUp })
	hostile.Say(banOf(attacker))
	await(t, hostile, "it is refused", func() bool { return hostile.Status().Error != "" })
	if bans(b, attacker) || hostile.Status().Waiting != 1 {
		t.Error("a speaks in the name of c")
	}
}

func TestWhoIsNotInvitedStaysOutside(t *testing.T) {
	folder := hub.Folder{Path: t.TempDir()}
	h, _ := startHub(t, folder, "127.0.0.1:0")
	for name, options := range map[string][]nats.Option{
		"anybody":       {nats.Secure(&tls.Config{InsecureSkipVerify: true})},
		"with a secret": {nats.Secure(&tls.Config{InsecureSkipVerify: true}), nats.UserInfo("a", "a")},
	} {
		if nc, err := nats.Connect("tls://"+h.Address(), options...); err == nil {
			nc.Close()
			t.Errorf("%s comes in", name)
		}
	}
	// Another server with a certificate of its own is not the hub.
	other := hub.Folder{Path: t.TempDir()}
	another, _ := startHub(t, other, "127.0.0.1:0")
	cfg := configOf(t, invite(t, folder, "a", another.Address()))
	a := run(t, cfg)
	await(t, a, "a says what is wrong", func() bool { return strings.Contains(a.Status().Error, "certificate") })
}

func TestAFolder(t *testing.T) {
	folder := hub.Folder{Path: filepath.Join(t.TempDir(), "hub")}
	if _, err := folder.Invite("a", "hub.example.net:4222"); !errors.Is(err, hub.ErrNoHub) {
		t.Errorf("an invitation to no hub: %v", err)
	}
	if err := folder.Revoke("a"); !errors.Is(err, hub.ErrNoHub) {
		t.Errorf("a revocation at no hub: %v", err)
	}
	if isNew, err := folder.Prepare("acme"); err != nil || !isNew {
		t.Fatalf("new: %v, %v", isNew, err)
	}
	if isNew, err := folder.Prepare("acme"); err != nil || isNew {
		t.Errorf("again new: %v, %v", isNew, err)
	}
	if _, err := folder.Prepare("other"); err == nil {
		t.Error("a fleet is renamed")
	}
	for _, name := range []string{"", "a.b", "*", ">", strings.Repeat("x", 33)} {
		if _, err := folder.Invite(name, "hub.example.net:4222"); err == nil {
			t.Errorf("%q is invited", name)
		}
	}
	if _, err := folder.Invite("a", "hub.example.net"); err == nil {
		t.Error("an address without a port")
	}
	for _, file := range []string{"nodes.json", "key.pem"} {
		if info, err := os.Stat(filepath.Join(folder.Path, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestWhatIsNoInvitation(t *testing.T) {
	folder := hub.Folder{Path: t.TempDir()}
	if _, err := folder.Prepare("acme"); err != nil {
		t.Fatal(err)
	}
	i, err := folder.Invite("a", "hub.example.net:4222")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := hub.ParseInvitation(" " + i.String() + "\n"); err != nil || again.String() != i.String() {
		t.Errorf("read as %+v, %v", again, err)
	}
	change := func(f func(*hub.Invitation)) string {
		other := i
		f(&other)
		return other.String()
	}
	for name, line := range map[string]string{
		"nothing": "", "another word": "hello", "cut off": i.String()[:len(i.String())-10],
		"huge":                  "ringwall1:" + strings.Repeat("A", 1<<20),
		"no encryption":         change(func(i *hub.Invitation) { i.Server = "nats://hub.example.net:4222" }),
		"a password in it":      change(func(i *hub.Invitation) { i.Server = "tls://a:b@hub.example.net:4222" }),
		"a node with a dot":     change(func(i *hub.Invitation) { i.Node = "a.b" }),
		"a key that is none":    change(func(i *hub.Invitation) { i.Seed = "SUAAA" }),
		"no certificate":        change(func(i *hub.Invitation) { i.Certificate = []byte("x") }),
		"a name that is a path": change(func(i *hub.Invitation) { i.Fleet = "../x" }),
	} {
		if got, err := hub.ParseInvitation(line); !errors.Is(err, hub.ErrInvitation) {
			t.Errorf("%s: read as %+v, %v", name, got, err)
		}
	}
}
