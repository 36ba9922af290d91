package commands_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// Everybody is in at once, without a daemon; other tables stay, and it is said how to come back.
func TestPanicOpensEverything(t *testing.T) {
	space := netnstest.New(t)
	table, err := firewall.Open(firewall.Config{NetNS: space.FD(), UDPPorts: []uint16{5060}, Priority: -300,
		Owner: firewall.Off})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.EnsureTable(); err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := space.Run(exec.Command("nft", "add table inet theirs")); err != nil {
		t.Fatal(out, err)
	}
	var out, errs bytes.Buffer
	stops := 0
	app := &commands.App{Env: config.OS(), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC,
		StopService: func(context.Context) error {
			stops++
			return nil
		}}
	for range 2 { // a second time harms nothing
		code := -1
		if err := space.Do(func() error {
			code = app.Execute(t.Context(), []string{"panic", "--socket", filepath.Join(t.TempDir(), "none.sock")})
			return nil
		}); err != nil || code != 0 {
			t.Fatalf("%d, %v\n%s", code, err, errs.String())
		}
	}
	tables, err := space.Run(exec.Command("nft", "list", "tables"))
	if err != nil || strings.Contains(tables, "ringwall") || !strings.Contains(tables, "theirs") {
		t.Errorf("%q, %v", tables, err)
	}
	if stops != 2 || !strings.Contains(out.String(), "systemctl start ringwall") {
		t.Errorf("%d stops\n%s", stops, out.String())
	}
}

// A daemon that goes on is no success: it puts the bans back.
func TestPanicSaysThatADaemonRuns(t *testing.T) {
	space := netnstest.New(t)
	socket := newWorld(t).socket
	var out, errs bytes.Buffer
	app := &commands.App{Env: config.OS(), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC}
	code := 0
	if err := space.Do(func() error {
		code = app.Execute(t.Context(),
			[]string{"panic", "--socket", socket})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if code != 1 || !strings.Contains(errs.String(), "process 812") || strings.Contains(out.String(), "It stays so") {
		t.Errorf("%d\n%s%s", code, out.String(), errs.String())
	}
}

// Without a daemon status says what is so meanwhile: bans stay, and the line that opens everything, or nobody is kept
// out.
func TestStatusWithoutADaemonSaysWhatTheKernelDoes(t *testing.T) {
	space := netnstest.New(t)
	status := func() (text string) {
		var out, errs bytes.Buffer
		app := &commands.App{Env: config.OS(), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC}
		code := 0
		if err := space.Do(func() error {
			code = app.Execute(t.Context(), []string{"status", "--socket", filepath.Join(t.TempDir(), "none.sock")})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if code != 1 || out.Len() > 0 {
			t.Errorf("%d\n%s", code, out.String())
		}
		return errs.String()
	}
	if text := status(); !strings.Contains(text, "nobody is kept out") || strings.Contains(text, "stay in the kernel") {
		t.Errorf("without a table:\n%s", text)
	}
	netnstest.NFT(t, space, "add table inet ringwall")
	if text := status(); !strings.Contains(text, "stay in the kernel") ||
		!strings.Contains(text, "nft delete table inet ringwall") {
		t.Errorf("with a table:\n%s", text)
	}
}

// What holds the person's own address is not sent without a word of where that is.
func TestBanTellsWhereThePersonIs(t *testing.T) {
	w := newWorld(t)
	b, socket := w.backend, w.socket
	var out, errs bytes.Buffer
	app := &commands.App{Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC,
		Env: config.Environment{Lookup: func(name string) (string, bool) {
			return "203.0.113.9 50000 192.0.2.1 22", name == "SSH_CONNECTION"
		}}}
	for _, args := range [][]string{{"ban", "203.0.113.0/24", "--socket", socket},
		{"ban", "203.0.113.0/24", "--force", "--socket", socket}} {
		if code := app.Execute(t.Context(), args); code != 0 {
			t.Fatalf("%d\n%s", code, errs.String())
		}
	}
	if len(b.bans) != 2 || b.bans[0].Session.String() != "203.0.113.9" || b.bans[0].Force || !b.bans[1].Force {
		t.Errorf("%+v", b.bans)
	}
}
