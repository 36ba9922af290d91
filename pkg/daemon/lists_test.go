package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/lists"
)

// listServer publishes a list; the test changes it.
func listServer(t *testing.T, text string) (server *httptest.Server, publish func(string)) {
	var list atomic.Value
	list.Store(text)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, list.Load().(string))
	}))
	t.Cleanup(server.Close)
	return server, func(s string) { list.Store(s) }
}

func listOf(server *httptest.Server, name string, mode config.Mode) config.List {
	l := config.DefaultList()
	l.Name, l.URL, l.Mode, l.Refresh = name, config.NewSecret(server.URL), mode, time.Hour
	return l
}

func (r *rig) nft(line string) string {
	r.t.Helper()
	out, err := r.space.Run(exec.Command("nft", strings.Fields(line)...))
	if err != nil {
		r.t.Fatalf("nft %s: %v\n%s", line, err, out)
	}
	return out
}

// untilListed waits until the kernel has an address on a list, or has it no more.
func (r *rig) untilListed(a string, want bool) {
	r.t.Helper()
	r.until(fmt.Sprintf("%s is on a list in the kernel: %v", a, want), func() bool {
		table, err := r.space.Run(exec.Command("nft", "list", "table", "inet", "ringwall"))
		if err != nil { // somebody has removed it, and it is not back yet
			return false
		}
		inMap := strings.Contains(table, "\t"+a+" timeout")
		if !want { // whoever is trusted stands in a set of his own, after a space
			return !inMap
		}
		return inMap || strings.Contains(table, " "+a+" timeout")
	})
}

// someAddresses are lines of different addresses.
func someAddresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "198.18.0.%d\n", i)
	}
	return b.String()
}

func TestListsAreInForceAndStayThroughEverything(t *testing.T) {
	t.Parallel()
	server, publish := listServer(t, someAddresses(40)+"203.0.113.0/24\n10.0.0.0/8\n192.0.2.7\n")
	watched, _ := listServer(t, "198.51.100.9\n")
	r := newRig(t, func(c *config.Config) {
		c.Firewall.Owner = config.OwnerOff // else nobody could do harm to it
		c.Policy.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("192.0.2.7/32")}}
		c.Lists = []config.List{listOf(server, "bad", config.Enforce), listOf(watched, "watched", config.Observe)}
	})
	r.untilListed("198.18.0.7", true)
	r.untilListed("198.51.100.9", true)
	r.until("both lists are fetched", func() bool {
		l := r.status().Lists
		return len(l) == 2 && l[0].Fetched != nil && l[1].Fetched != nil && l[0].LeftOut[lists.Exempt] == 1
	})
	l := r.status().Lists[0]
	if l.Name != "bad" || l.Mode != "enforce" || l.Entries != 42 || l.LeftOut[lists.Reserved] != 1 || l.Error != "" {
		t.Errorf("%+v", l)
	}
	if out := r.nft("list table inet ringwall"); strings.Contains(out, "192.0.2.7 timeout") || !strings.Contains(out, "203.0.113.0/24 timeout") {
		t.Errorf("in the kernel are\n%s", out)
	}

	why, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.9"))
	if err != nil || len(why.Listed) != 1 || why.Listed[0].List != "bad" || why.Listed[0].Prefix.String() != "203.0.113.0/24" ||
		!strings.Contains(strings.Join(why.Lines, "\n"), "its packets are dropped") {
		t.Errorf("%+v, %v", why, err)
	}
	for address, want := range map[string]string{"192.0.2.7": "counts for nothing", "198.51.100.9": "only counted"} {
		if why, err = r.client.Why(t.Context(), netip.MustParseAddr(address)); err != nil ||
			!strings.Contains(strings.Join(why.Lines, "\n"), want) {
			t.Errorf("%s: %q, %v", address, why.Lines, err)
		}
	}

	// What is poisoned changes nothing.
	publish("<html>Service unavailable</html>")
	if _, err := r.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad"}); err == nil ||
		!strings.Contains(err.Error(), "stays as it was") {
		t.Errorf("a web page: %v", err)
	}
	publish(someAddresses(5))
	if _, err := r.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad"}); err == nil {
		t.Error("a list that shrank is taken over")
	}
	st := r.status()
	held := false
	for _, w := range st.Warnings {
		held = held || strings.Contains(w.Text, "the list bad is not taken over: the list shrank from 42 entries to 5")
	}
	if !held || !st.Lists[0].Held {
		t.Errorf("%+v, %+v", st.Warnings, st.Lists[0])
	}
	r.untilListed("198.18.0.7", true)

	// Nor does what somebody does to the ruleset.
	r.nft("flush ruleset")
	r.untilListed("198.18.0.7", true)
	letter := "a"
	if strings.Contains(r.nft("list table inet ringwall"), "map list4_b {") {
		letter = "b"
	}
	r.nft("flush map inet ringwall list4_" + letter)
	r.untilListed("198.18.0.7", true)

	// A restart needs no network.
	r.stop()
	server.Close()
	watched.Close()
	r.nft("flush ruleset")
	r.start()
	r.untilListed("198.18.0.7", true)
	r.untilListed("198.51.100.9", true)
}

func TestAPersonTakesAListOver(t *testing.T) {
	server, publish := listServer(t, someAddresses(40))
	r := newRig(t, func(c *config.Config) { c.Lists = []config.List{listOf(server, "bad", config.Enforce)} })
	r.untilListed("198.18.0.7", true)
	publish(someAddresses(5))
	l, err := r.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad", Accept: true})
	if err != nil || l.Entries != 5 {
		t.Errorf("%+v, %v", l, err)
	}
	if strings.Contains(r.nft("list table inet ringwall"), "198.18.0.7 timeout") {
		t.Error("it is in force before the command returns, the list of before")
	}
	if _, err := r.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "other"}); err == nil {
		t.Error("there is a list that there is not")
	}
}

func TestACustomerOnAListIsLetInAndTold(t *testing.T) {
	server, _ := listServer(t, "198.51.100.7\n")
	r := newRig(t, func(c *config.Config) {
		c.Firewall.Meter.Enabled = false // the lists need to know whom to trust all the same
		c.Lists = []config.List{listOf(server, "bad", config.Enforce)}
	})
	r.untilListed("198.51.100.7", true)
	r.login("IPV4/UDP/198.51.100.7/5060", "201")
	if d := r.await("newplace", "198.51.100.7/32"); d.Reason != ban.ReasonList || d.Account != "201" ||
		!strings.Contains(d.Detail, "names, bad (198.51.100.7)") {
		t.Errorf("%+v", d)
	}
	r.until("history has it", func() bool {
		all, err := r.client.History(t.Context(), time.Time{}, netip.MustParseAddr("198.51.100.7"))
		return err == nil && slices.ContainsFunc(all, func(d ban.Decision) bool { return d.Reason == ban.ReasonList })
	})
	r.until("the customer is told of", func() bool {
		l := r.status().Lists[0]
		return len(l.Customers) == 1 && l.Customers[0].String() == "198.51.100.7"
	})
	r.until("the kernel lets the customer in", func() bool {
		return strings.Contains(r.nft("list set inet ringwall trust4"), "198.51.100.7")
	})
	// The next time that lists are exchanged the customer is not among them.
	l, err := r.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad"})
	if err != nil || l.LeftOut[lists.Exempt] != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	r.untilListed("198.51.100.7", false)
}

func TestListsOnlyCountWhereThePolicyObserves(t *testing.T) {
	server, _ := listServer(t, "198.51.100.7\n")
	r := newRig(t, func(c *config.Config) {
		c.Policy.Mode = config.Observe
		c.Lists = []config.List{listOf(server, "bad", config.Enforce)}
	})
	r.untilListed("198.51.100.7", true)
	if l := r.status().Lists[0]; l.Mode != "observe" {
		t.Errorf("%+v", l)
	}
	if out := r.nft("list table inet ringwall"); !strings.Contains(out, `counter name "list_bad" return`) {
		t.Errorf("the rules are\n%s", out)
	}
}
