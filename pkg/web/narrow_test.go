package web

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// What a ban closes, and what is cut or slow besides, is on the page.
func TestNarrowVerdictsAreOnThePage(t *testing.T) {
	f := newFake()
	udp := banOf("203.0.113.5/32")
	udp.Scope, udp.Closes = ban.ScopeSource, ban.ClosesUDP
	f.ban(udp)
	manager := banOf("198.51.100.7/32")
	manager.Scope, manager.Closes = ban.ScopeService, ban.ClosesManager
	f.ban(manager)
	f.status.Engine.CutFlows, f.status.Engine.SlowSources = 30, 1
	p := made(t, f, "127.0.0.1:9646")
	cut := ban.Decision{Time: time.Now(), Action: ban.ActionCut, Reason: ban.ReasonWrongPassword, Scope: ban.ScopeFlow,
		Source: netip.MustParseAddr("198.51.100.7"), Prefix: netip.MustParsePrefix("198.51.100.7/32"),
		Flow: ban.Flow{Source: netip.MustParseAddrPort("198.51.100.7:4711")}, Duration: 10 * time.Minute}
	p.recent.addDecisions([]ban.Decision{cut, {Time: time.Now(), Action: ban.ActionBan, Reason: ban.ReasonManager,
		Scope: ban.ScopeService, Closes: ban.ClosesManager, Prefix: netip.MustParsePrefix("198.51.100.7/32")}})
	body := ask(p.Handler(), http.MethodGet, "/", "").Body.String()
	for want, times := range map[string]int{
		`<span class="tag">UDP only</span>`: 1, `<span class="tag">AMI only</span>`: 2, // the ban and its decision
		`<h3 id="h-restricted">Cut or slow, while others there go on</h3><p class="count">31</p>`: 1,
		`>tcp [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:54711<`:                                    1,
		`4 packets a minute <span class="tag">slow lane</span>`:                                   1, `nothing <span class="tag">cut</span>`: 1,
		`and 29 more: <code>ringwall list restricted</code>`: 1, `>tcp 198.51.100.7:4711</a>`: 1,
		`CUT OFF</span> <small class="inline">for 10m</small>`: 1, "Let all there go on": 0,
	} {
		if got := strings.Count(body, want); got != times {
			t.Errorf("%d times, want %d: %s", got, times, want)
		}
	}
	f.restricted, f.status.Engine.CutFlows, f.status.Engine.SlowSources = nil, 0, 0
	if body := ask(made(t, f, "127.0.0.1:9646").Handler(), http.MethodGet, "/",
		"").Body.String(); strings.Contains(body,
		"h-restricted") {
		t.Error("where nothing is cut, something is said of it")
	}
}

// Whoever may change things lets a whole source go on, from the list or from what is said of its address.
func TestAnUnbanLetsGoWhatIsCut(t *testing.T) {
	f := newFake()
	f.why = func(a netip.Addr) engine.Explanation {
		return engine.Explanation{Address: a, Source: netip.MustParsePrefix("198.51.100.7/32"), Verdict: "trusted",
			Trust: &ban.Trust{Until: time.Now().Add(time.Hour)}, Restrictions: f.restricted,
			GoodFlows: []ban.GoodFlow{{Flow: ban.Flow{UDP: true,
				Source: netip.MustParseAddrPort("198.51.100.7:5060")}}}, AllGoodFlows: 1}
	}
	p := made(t, f, "127.0.0.1:9646")
	cookie := entered(t, p, api.Peer{User: "alice"})
	if body := ask(p.Handler(), http.MethodGet, "/", "", cookie).Body.String(); !strings.Contains(body,
		`name="prefix" value="198.51.100.7/32">Let all there go on`) {
		t.Error("no button")
	}
	body := ask(p.Handler(), http.MethodGet, "/why?address=198.51.100.7", "", cookie).Body.String()
	for _, want := range []string{"In the slow lane until ", "Cut: nothing from tcp " +
		"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]",
		"Whoever logged in from there passes, whatever is banned but by hand: udp 198.51.100.7:5060.",
		`name="prefix" value="198.51.100.7/32">Let them all go on</button>`, "ringwall unban 198.51.100.7<"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	tok := token(t, p, cookie)
	if code, to := form(p, "/unban", url.Values{"token": {tok}, "prefix": {"198.51.100.7/32"}}, cookie); code !=
		http.StatusSeeOther || to != "/why?address=198.51.100.7" {
		t.Fatalf("%d %s", code, to)
	}
	body = ask(p.Handler(), http.MethodGet, "/why?address=198.51.100.7", "", cookie).Body.String()
	if !strings.Contains(body, "What was cut or slow at 198.51.100.7 goes on.") {
		t.Error(body)
	}
}
