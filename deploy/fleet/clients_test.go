package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	nodes "github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// asClients makes this test's own binary be the nodes of a fleet, without firewall and Asterisk, whose lines the file
// that it names has.
const asClients = "RINGWALL_TEST_AS_CLIENTS"

// TestManyNodesAtOneHub has one real node and many that only tell and hear, in one process.
//
//	RINGWALL_FLEET=full go -C deploy test -v -timeout 1h -run ManyNodes ./fleet
func TestManyNodesAtOneHub(t *testing.T) {
	t.Parallel()
	h, list := newFleet(t, "", "a")
	a := list[0]
	count, bans := shortOrFull(20, 2000), shortOrFull(20, 100)
	first := nths(0, bans)
	a.proven(first...) // which they fetch when they come
	a.awaitUpToDate()
	c := startClients(t, h, count)
	begun := time.Now()
	c.ask("know", bans)
	t.Logf("%d nodes: all connected, each with %d bans, after %s", count, bans, time.Since(begun).Round(time.Millisecond))
	c.ask("forget times", 0)
	hubTime, clientTime, begun := cpuTime(t, h.process), cpuTime(t, c.process), time.Now()
	pace := shortOrFull(20, 2)
	for i := range bans {
		a.proven(nth(10_000 + i))
		time.Sleep(time.Second / time.Duration(pace))
	}
	c.ask("know", 2*bans)
	each := func(d time.Duration) time.Duration {
		return (d / time.Duration(bans*count)).Round(100 * time.Nanosecond)
	}
	t.Logf("%d bans a second for %s: of a processor each ban takes the hub %s for each node, and the node %s", pace,
		time.Since(begun).Round(time.Second), each(cpuTime(t, h.process)-hubTime), each(cpuTime(t, c.process)-clientTime))
	times := c.ask("times", 0)
	t.Logf("from a's decision to the others, one ban after the other: %s", times)
	c.ask("forget times", 0)
	begun = time.Now()
	a.proven(nths(20_000, bans)...)
	c.ask("know", 3*bans)
	t.Logf("%d bans at once: known by all after %s", bans, time.Since(begun).Round(time.Millisecond))
	usage := func() float64 { return memoryMB(t, h.process) }
	quiet := usage()
	h.process.Kill()
	time.Sleep(time.Second)
	begun = time.Now()
	a.proven(nth(30_000))
	h.start()
	c.ask("know", 3*bans+1)
	took := time.Since(begun).Round(time.Millisecond)
	t.Logf("after the hub was killed all are back, and know what was said meanwhile, after %s", took)
	t.Logf("the hub's memory: %.0f MB, then %.0f MB; the clients' %.0f MB", quiet, usage(), memoryMB(t, c.process))
	if isFullLength() {
		if usage() > 512 || quiet > 512 {
			t.Error("the hub takes more than 512 MB")
		}
		_, rest, _ := strings.Cut(times, "p99 ")
		text, _, _ := strings.Cut(rest, ",")
		if p99, err := time.ParseDuration(text); err != nil || p99 > time.Second {
			t.Errorf("the slowest of a hundred take more than a second: %s", times)
		}
	}
}

// clients are the nodes in a process of their own.
type clients struct {
	t       *testing.T
	process *netns.Process
	in      io.Writer
	out     *bufio.Reader
}

// startClients invites nodes and starts them.
func startClients(t *testing.T, h *hubHost, count int) *clients {
	t.Helper()
	space := netnstest.New(t)
	at, _ := h.lay(space)
	var lines strings.Builder
	for i := range count {
		line, err := hub.Folder{Path: h.folder}.Invite(fmt.Sprintf("n%d", i), netip.AddrPortFrom(at, hubPort).String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&lines, line)
	}
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	in, ask := io.Pipe()
	answer, out := io.Pipe()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asClients+"="+file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	p, err := space.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ask.Close()
		_ = answer.Close()
		p.Kill()
	})
	return &clients{t: t, process: p, in: ask, out: bufio.NewReader(answer)}
}

// ask asks the nodes something, and returns their answer.
func (c *clients) ask(what string, n int) string {
	c.t.Helper()
	fmt.Fprintln(c.in, n, what)
	answer, err := c.out.ReadString('\n')
	answer = strings.TrimSpace(answer)
	if err != nil || strings.HasPrefix(answer, "no") {
		c.t.Fatalf("%s: %q, %v", what, answer, err)
	}
	return answer
}

// client is one of the nodes.
type client struct {
	*nodes.Fleet
	mu   sync.Mutex
	took []time.Duration // from when a ban was decided to when it was known here
}

// runClients is the whole process.
func runClients(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all []*client
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for i, line := range strings.Fields(string(text)) {
		invitation, err := hub.ParseInvitation(line)
		if err != nil {
			return err
		}
		seed := fmt.Sprint(file, ".", i)
		if err := os.WriteFile(seed, []byte(invitation.Seed+"\n"), 0o600); err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(invitation.CertificatePEM())
		c := &client{Fleet: nodes.New(nodes.Config{Servers: []string{invitation.Server}, CredentialsFile: seed,
			Name: invitation.Fleet, Node: invitation.Node, Share: record.Kinds(), Accept: record.Kinds(),
			TLS:    &tls.Config{RootCAs: pool, ServerName: hub.ServerName, MinVersion: tls.VersionTLS12},
			Limits: record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 6000, Records: 50_000, Nodes: 20_000},
			Log:    slog.New(slog.DiscardHandler)})}
		all = append(all, c)
		running.Go(func() { _ = c.Run(ctx) })
		running.Go(func() { c.measure(ctx) })
	}
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		number, what, _ := strings.Cut(questions.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		var answer string
		switch what {
		case "know":
			answer = awaitRecords(all, n)
		case "times":
			var took []time.Duration
			for _, c := range all {
				c.mu.Lock()
				took = append(took, c.took...)
				c.mu.Unlock()
			}
			answer = quantiles(took)
		case "forget times":
			for _, c := range all {
				c.mu.Lock()
				c.took = nil
				c.mu.Unlock()
			}
		default:
			return errors.New(what)
		}
		fmt.Println(answer)
	}
	return questions.Err()
}

// awaitRecords waits until all know so many.
func awaitRecords(all []*client, n int) string {
	for deadline := time.Now().Add(trial.Patience); ; time.Sleep(10 * time.Millisecond) {
		behind := slices.IndexFunc(all, func(c *client) bool {
			s := c.Status()
			return !s.CaughtUp || s.Records != n
		})
		if behind < 0 {
			return fmt.Sprintf("all know %d", n)
		}
		if time.Now().After(deadline) {
			return fmt.Sprintf("not all know %d: %+v", n, all[behind].Status())
		}
	}
}

// measure notes when what was said is known.
func (c *client) measure(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.HasChange():
		}
		for list := c.TakeChanged(100); len(list) > 0; list = c.TakeChanged(100) {
			c.Read(func(b *record.Book, now time.Time) {
				c.mu.Lock()
				defer c.mu.Unlock()
				for _, p := range list {
					if v, ok := b.Ban(now, p); ok {
						c.took = append(c.took, now.Sub(v.Made))
					}
				}
			})
		}
	}
}
