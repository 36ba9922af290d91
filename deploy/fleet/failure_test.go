package fleet

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// TestTheHubFails takes the hub away in all the ways in which it can go. Each time every node goes on by itself, says
// what is wrong, and in the end all know the same: nothing is lost.
func TestTheHubFails(t *testing.T) {
	t.Parallel()
	hub, list := newFleet(t, "", "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	banned := map[netip.Addr]bool{} // whom all of them keep out
	next := 0
	attackers := func(count int) []netip.Addr { // who never attacked before
		some := nths(next, count)
		next += count
		return some
	}
	proven := func(n *nodeHost, count int) []netip.Addr {
		some := attackers(count)
		for piece := range slices.Chunk(some, 50) {
			n.proven(piece...)
		}
		for _, attacker := range some {
			banned[attacker] = true
		}
		return some
	}
	unban := func(t *testing.T, n *nodeHost, some ...netip.Addr) {
		t.Helper()
		for _, attacker := range some {
			if _, err := n.client.Unban(t.Context(), api.UnbanRequest{Prefix: single(attacker)}); err != nil {
				t.Fatal(err)
			}
			delete(banned, attacker)
		}
	}
	reacts := func(t *testing.T, n *nodeHost) {
		t.Helper()
		some := attackers(50)
		for _, attacker := range some {
			banned[attacker] = true
		}
		n.reacts(t, some)
	}
	agree := func(t *testing.T) {
		t.Helper()
		awaitSameKernels(t, len(banned), list...)
		if kernel := a.kernel(); slices.ContainsFunc(slices.Collect(maps.Keys(banned)), func(attacker netip.Addr) bool {
			_, ok := kernel[fmt.Sprint(single(attacker), " all")]
			return !ok
		}) {
			t.Error("not all who were banned are in the kernels")
		}
		for _, n := range list {
			n.awaitUpToDate()
			n.says("and up to date", " 0 wait for the hub")
		}
	}

	t.Run("it is down when they start", func(t *testing.T) {
		early := proven(b, 20)
		agree(t)
		hub.stop()
		unban(t, a, early[:10]...)
		for _, n := range list {
			n.stop()
			n.start()
		}
		for _, n := range list {
			reacts(t, n)
		}
		a.says("NOT CONNECTED", "connection refused", "60 wait for the hub")
		hub.start()
		agree(t)
	})
	t.Run("it is killed under load", func(t *testing.T) {
		var feeding sync.WaitGroup
		count := shortOrFull(1000, 10_000)
		some := map[*nodeHost][]netip.Addr{}
		for _, n := range list {
			some[n] = attackers(count)
			for _, attacker := range some[n] {
				banned[attacker] = true
			}
		}
		half := make(chan struct{}, len(list))
		for _, n := range list {
			feeding.Go(func() {
				for i, attacker := range some[n] {
					n.proven(attacker)
					if i%20 == 19 {
						time.Sleep(10 * time.Millisecond) // some 2,000 a second
					}
					if i == count/2 {
						half <- struct{}{}
					}
				}
			})
		}
		<-half
		hub.process.Kill()
		reacts(t, b)
		b.says("NOT CONNECTED")
		hub.start()
		feeding.Wait()
		agree(t)
	})
	t.Run("one node is cut off from it", func(t *testing.T) {
		early := proven(b, 20)
		agree(t)
		a.cutOff(t, true)
		begun := time.Now()
		here, there := proven(a, 20), proven(c, 20)
		trial.WaitUntil(t, "both sides ban", func() bool { return allBanned(a, here) && allBanned(b, there) })
		unban(t, a, early[:5]...)
		unban(t, b, early[5:10]...)
		unban(t, a, here[:5]...)
		unban(t, c, there[:5]...)
		reacts(t, a)
		reacts(t, b)
		a.says(" wait for the hub")
		if allBanned(b, here[5:]) {
			t.Error("a is not cut off")
		}
		// A minute is more than it takes until a sees by itself that it is alone.
		if isFullLength() {
			time.Sleep(time.Minute - time.Since(begun))
			a.says("NOT CONNECTED")
		}
		a.cutOff(t, false)
		agree(t)
	})
	t.Run("its stream is gone", func(t *testing.T) {
		early := proven(c, 20)
		agree(t)
		unban(t, b, early[:10]...)
		agree(t)
		hub.stop()
		if err := os.RemoveAll(filepath.Join(hub.folder, "jetstream")); err != nil {
			t.Fatal(err)
		}
		reacts(t, c)
		hub.start()
		agree(t)
		list = append(list, hub.add("", "d")...)
		agree(t) // d knows all that was said before it was there
	})
	t.Run("one node's invitation is revoked", func(t *testing.T) {
		hub.run("revoke", c.name)
		c.says("NOT CONNECTED", "uthorization") // as the server says it
		here, there := proven(c, 20), proven(a, 20)
		trial.WaitUntil(t, "both sides ban", func() bool { return allBanned(c, here) && allBanned(b, there) })
		reacts(t, c)
		if slices.ContainsFunc(here, a.bans) || slices.ContainsFunc(there, c.bans) {
			t.Error("who is out is heard, or hears")
		}
		c.configure(c.join(c.invite()))
		c.reload()
		agree(t)
	})
	if !isFullLength() {
		return // a program at another time takes two minutes to build
	}
	t.Run("one node's clock is ten minutes ahead", func(t *testing.T) {
		c.stop()
		c.program, c.isAhead = programAhead(t, 10*time.Minute), true
		c.start()
		early, here := proven(a, 20), proven(c, 20)
		agree(t)
		unban(t, c, early[:10]...)
		unban(t, b, here[:10]...)
		agree(t)
		again := append(early[:5:5], here[:5]...)
		for _, attacker := range again {
			banned[attacker] = true
		}
		c.proven(early[:5]...)
		a.proven(here[:5]...)
		agree(t)
		reacts(t, c)
		agree(t)
	})
}

// programAhead builds the program so that it is so much later for it.
func programAhead(t *testing.T, by time.Duration) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	run("go", "run", "./clock/later", "-years", "1", dir)
	const year = "31557600" // seconds, as it writes them
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), year) {
			t.Fatalf("%s has no year in it", file)
		}
		text = []byte(strings.ReplaceAll(string(text), year, fmt.Sprint(int(by/time.Second))))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ahead := filepath.Join(dir, "ringwall")
	run("go", "-C", "..", "build", "-overlay="+filepath.Join(dir, "overlay.json"), "-o", ahead, "./cmd/ringwall")
	return ahead
}

// TestTheDiskOfTheHubIsFull has the hub keep what nodes say on a disk that somebody else fills.
func TestTheDiskOfTheHubIsFull(t *testing.T) {
	t.Parallel()
	hub := prepareHub(t)
	hub.wrapped = []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc",
		`mkdir -p "$0/jetstream"; mount -t tmpfs -o size=16m disk "$0/jetstream"; exec "$@"`, hub.folder}
	hub.start()
	list := hub.add("", "a", "b")
	a, b := list[0], list[1]
	first := nths(0, 200)
	a.proven(first...)
	awaitSameKernels(t, len(first), list...)
	hub.inside("cat /dev/zero >\"$0/jetstream/zeros\" 2>/dev/null || true")
	second := nths(1000, 5000)
	for piece := range slices.Chunk(second, 100) {
		a.proven(piece...)
	}
	trial.WaitUntil(t, "a keeps all out", func() bool { return len(a.kernel()) == len(first)+len(second) })
	a.reacts(t, nths(10_000, 50))
	b.reacts(t, nths(10_050, 50))
	a.says(" wait for the hub", "is its disk full?")
	hub.says("no space left on device")

	hub.inside("rm \"$0/jetstream/zeros\"")
	awaitSameKernels(t, len(first)+len(second)+100, list...)
	a.says("and up to date", " 0 wait for the hub")
}

// says waits until the hub's log says something.
func (h *hubHost) says(text string) {
	h.t.Helper()
	trial.WaitUntil(h.t, "the hub says: "+text, func() bool { return strings.Contains(h.process.Output(), text) })
}

// inside runs a shell's line where the hub sees its folder.
func (h *hubHost) inside(script string) {
	h.t.Helper()
	netnstest.Run(h.t, h.space, "", "nsenter", "--mount", "--target", fmt.Sprint(h.process.Cmd.Process.Pid), "sh", "-euc",
		script, h.folder)
}

// stop ends the node as systemd does.
func (n *nodeHost) stop() {
	n.t.Helper()
	n.daemon.Stop(trial.Patience)
	if err := n.daemon.Wait(); err != nil {
		n.t.Fatalf("%s after SIGTERM: %v", n.name, err)
	}
}

// reacts has attackers banned, one after the other: here nothing may wait for the hub.
func (n *nodeHost) reacts(t *testing.T, attackers []netip.Addr) {
	t.Helper()
	var took []time.Duration
	for _, attacker := range attackers {
		begun := time.Now()
		n.proven(attacker)
		took = append(took, awaitEach(t, attacker, true, n)[0].Sub(begun))
	}
	t.Logf("meanwhile %s bans by itself: %s", n.name, quantiles(took))
	if most := 50 * time.Millisecond; isFullLength() && quantile(took, 0.5) > most {
		t.Errorf("%s takes more than %s to ban", n.name, most)
	}
}

// cutOff has each packet between the hub and a node dropped, or no more. Neither is told.
func (n *nodeHost) cutOff(t *testing.T, on bool) {
	t.Helper()
	script := "delete table inet cut"
	if on {
		script = strings.ReplaceAll(`table inet cut {
			chain in { type filter hook input priority 0; iifname LINK drop; }
			chain out { type filter hook output priority 0; oifname LINK drop; }
		}`, "LINK", n.link)
	}
	netnstest.NFT(t, n.hub.space, script)
}
