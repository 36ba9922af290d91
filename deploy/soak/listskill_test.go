package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// swapped is a list of which there are two editions that share no address.
type swapped struct {
	host      *host
	file      string
	addresses int
	networks  int
}

// edition is the text of one of the two: addresses of 32.0.0.0/9 and networks of 32.128.0.0/9, or the same of 33.
func (s *swapped) edition(odd bool) string {
	first := 32
	if odd {
		first = 33
	}
	var b strings.Builder
	for i := range s.addresses {
		fmt.Fprintf(&b, "%d.%d.%d.%d\n", first, i>>16, i>>8&255, i&255)
	}
	for i := range s.networks {
		fmt.Fprintf(&b, "%d.%d.%d.0/25\n", first, 128+i>>8, i&255)
	}
	return b.String()
}

// publish puts an edition in the other's place.
func (s *swapped) publish(odd bool) error {
	if err := os.WriteFile(s.file+".new", []byte(s.edition(odd)), 0o600); err != nil {
		return err
	}
	return os.Rename(s.file+".new", s.file)
}

// inForce counts what packets meet: the elements of the maps to which the rules lead, by the editions. two says that
// there are others beside them.
func (s *swapped) inForce(t *testing.T) (even, odd int, two bool) {
	t.Helper()
	table := netnstest.NFT(t, s.host.space, "list table inet ringwall")
	two = strings.Contains(table, "map list4_a ") && strings.Contains(table, "map list4_b ")
	goes := regexp.MustCompile(`chain lists \{\s+goto lists_([ab])\s`).FindStringSubmatch(table)
	if goes == nil {
		t.Fatalf("no packet gets to the lists:\n%.2000s", table)
	}
	for _, name := range []string{"list4_" + goes[1], "listnet4_" + goes[1]} {
		_, text, found := strings.Cut(table, "\tmap "+name+" {")
		text, _, _ = strings.Cut(text, "\n\t}")
		if !found {
			t.Fatalf("there is no map %s:\n%.2000s", name, table)
		}
		if !strings.Contains(table, "@"+name+" ") {
			t.Errorf("no rule looks into %s", name)
		}
		even += len(regexp.MustCompile(`\b32\.\d+\.\d+\.\d+(/\d+)? timeout`).FindAllString(text, -1))
		odd += len(regexp.MustCompile(`\b33\.\d+\.\d+\.\d+(/\d+)? timeout`).FindAllString(text, -1))
	}
	return even, odd, two
}

// A power cut at any moment of a swap leaves in the kernel the list of before or the new one, whole, and on the disk a
// copy that the next start reads; what a cut left behind is gone with the next swap.
func TestKilledWhileListsAreSwapped(t *testing.T) {
	rounds := shortOrLong(4, 100)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := &swapped{file: filepath.Join(t.TempDir(), "list"), addresses: 8000, networks: 300}
	all := s.addresses + s.networks
	if err := s.publish(false); err != nil {
		t.Fatal(err)
	}
	s.host = newHost(t, fmt.Sprintf("lists: [{name: bad, file: %q}]\n", s.file))
	h := s.host
	h.startAndAwait()
	h.waitUntil("the list is in force", func() bool { n, _, _ := s.inForce(t); return n == all })
	swaps, between := 0, 0 // and those that the cut came in the middle of
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			for n := round; ctx.Err() == nil; n++ {
				if err := s.publish(n%2 == 0); err != nil {
					t.Error(err)
				}
				if _, err := h.client.RefreshList(ctx, api.ListRefreshRequest{Name: "bad"}); err == nil {
					swaps++
				}
			}
		})
		pauseFor(ctx, 100*time.Millisecond+time.Duration(random.Int64N(int64(500*time.Millisecond))))
		h.daemon.Kill()
		cancel()
		work.Wait()
		even, odd, two := s.inForce(t)
		if even != 0 && odd != 0 || even+odd != all {
			t.Fatalf("round %d: of the one %d are in force, of the other %d, of %d", round, even, odd, all)
		}
		if two {
			between++
		}
		h.startAndAwait()
		h.waitUntil("the lists are known", func() bool { return len(h.daemonStatus().Lists) == 1 })
		if l := h.daemonStatus().Lists[0]; l.Entries != all || l.Error != "" {
			t.Fatalf("round %d: after the cut the list is %+v", round, l)
		}
		if said := h.daemon.Output(); strings.Contains(said, "is not used") {
			t.Fatalf("round %d: the copy cannot be read:\n%s", round, said)
		}
	}
	folder := filepath.Join(filepath.Dir(h.config), "lists")
	left, err := filepath.Glob(filepath.Join(folder, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left { // which the cuts left behind
		if err := os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.publish(rounds%2 == 0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad"}); err != nil {
		t.Fatal(err)
	}
	if _, _, two := s.inForce(t); two {
		t.Error("the maps of before are still there")
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("beside the copy there are %v, %v", files, err)
	}
	t.Logf("the cuts left %d halves of a copy", len(left))
	t.Logf("%d kills, %d of them in the middle of an exchange; %d exchanges came to their end", rounds, between, swaps)
	if swaps == 0 {
		t.Error("nothing was exchanged")
	}
}
