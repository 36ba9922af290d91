package web

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/internal/browser"
)

const isLive = `document.getElementById("live").className === "live on"`

// announce makes a ban that is published.
func (s *served) announce(prefix, account string) {
	p := netip.MustParsePrefix(prefix)
	s.f.ban(banOf(prefix, account))
	s.feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan, Reason: ban.ReasonUnknownAccount,
		Source: p.Addr(), Prefix: p, Account: account, Duration: time.Hour})
}

func TestABrowserSeesABanWithoutAReload(t *testing.T) {
	t.Parallel()
	s := serve(t, newFake())
	b := browser.Open(t)
	b.Go(s.url)
	b.Until(isLive)
	b.Until(`document.getElementById("bans").innerText.includes("Nobody is banned.")`)
	browser.Eval[bool](b, `window.sameDocument = true`)
	s.announce("203.0.113.66/32", "1000")
	b.Until(`document.querySelector('#bans tr[data-key="203.0.113.66/32"]')`)
	b.Until(`document.getElementById("decisions").innerText.includes("203.0.113.66")`)
	b.Until(`document.getElementById("news").textContent === "Banned: 203.0.113.66/32"`)
	b.Until(`document.title.startsWith("(1) ")`)
	b.Until(`/^(1h|59m \d+s)$/.test(document.querySelector("#bans time").textContent)`)
	s.f.mu.Lock()
	s.f.activity.Minutes[len(s.f.activity.Minutes)-1] = engine.Minute{Attempts: 4711, Bans: 1}
	s.f.status.PBXs[0].Up = false
	s.f.mu.Unlock()
	b.Until(`document.querySelector("#chart desc").textContent.includes("4,711 attempts")`)
	b.Until(`document.querySelector("#health h2").textContent === "Ringwall hears nothing from Asterisk"`)
	if !browser.Eval[bool](b, `window.sameDocument === true`) {
		t.Error("the page was loaded again")
	}
	b.Quiet()
	s.stop()
	b.Until(`document.getElementById("live").textContent.startsWith("Connection to Ringwall lost since ")`)
}

func TestABrowserFindsHostileNamesInert(t *testing.T) {
	f := newFake()
	s := serve(t, f)
	b := browser.Open(t)
	b.Go(s.url)
	b.Until(isLive)
	count := func() int {
		return browser.Eval[int](b, `document.querySelectorAll("script, img, iframe, object, embed, form, h1, style").length`)
	}
	before := count()
	for i, name := range hostileNames() {
		s.announce(fmt.Sprintf("203.0.113.%d/32", i+1), name)
		f.mu.Lock()
		f.activity.Accounts = append(f.activity.Accounts,
			engine.AccountTries{Account: name, Tries: 99 - i, Sources: 1, Last: time.Now()})
		f.trusted = append(f.trusted, ban.Trust{Prefix: netip.MustParsePrefix("198.51.100.9/32"),
			Until: time.Now().Add(time.Hour), Accounts: []string{name}})
		f.mu.Unlock()
	}
	last := fmt.Sprintf(`document.querySelector('#bans tr[data-key="203.0.113.%d/32"]')`, len(hostileNames()))
	b.Until(last)                                                                               // by the stream
	b.Until(`document.getElementById("accounts").innerText.includes("<script>window.pwned=1")`) // as text
	b.Until(`document.getElementById("trusted").innerText.includes("onload=window.pwned")`)     // as text
	b.Until(fmt.Sprintf(`document.getElementById("decisions").innerText.includes("203.0.113.%d")`, len(hostileNames())))
	if n := count(); n != before {
		t.Errorf("%d elements that could do something, before %d", n, before)
	}
	b.Go(s.url) // and from the server in one piece
	b.Until(isLive)
	b.Until(last)
	if n := count(); n != before {
		t.Errorf("%d elements that could do something, before %d", n, before)
	}
	if !browser.Eval[bool](b, `window.pwned === undefined`) {
		t.Error("a name ran as a script")
	}
	b.Quiet()
}

func TestABrowserWithATicketUnbans(t *testing.T) {
	f := newFake()
	s := serve(t, f)
	s.announce("203.0.113.66/32", "1000")
	s.announce("203.0.113.67/32", "1001")
	b := browser.Open(t)
	b.Go(s.url)
	b.Until(isLive)
	if browser.Eval[bool](b, `document.querySelector(".acts, .rights") !== null`) {
		t.Error("buttons without a ticket")
	}
	b.Go(s.IssueTicket(api.Peer{User: "alice", UID: 1000, PID: 4711}).Address)
	b.Until(`location.pathname === "/" && document.querySelector(".rights").innerText.includes("alice")`)
	if url := browser.Eval[string](b, `location.href + document.referrer`); strings.Contains(url, "ticket") {
		t.Errorf("the ticket stays in the address or the referrer: %s", url)
	}
	if c := browser.Eval[string](b, `document.cookie`); c != "" {
		t.Errorf("scripts can read the cookie: %s", c)
	}
	b.Until(isLive)
	b.Click(`#bans tr[data-key="203.0.113.66/32"] button[formaction="/unban"]`)
	b.Until(`location.pathname === "/why" && document.querySelector(".told").innerText.includes("203.0.113.66 is let in again")`)
	f.mu.Lock()
	if len(f.unbans) != 1 || f.unbans[0].Prefix.String() != "203.0.113.66/32" || f.unbans[0].By.User != "alice" {
		t.Errorf("%+v", f.unbans)
	}
	f.mu.Unlock()
	b.Go(s.url)
	b.Until(isLive)
	b.Until(`!document.querySelector('#bans tr[data-key="203.0.113.66/32"]') && document.querySelector('#bans tr[data-key="203.0.113.67/32"]')`)
	b.Click(`#bans tr[data-key="203.0.113.67/32"] .acts a`)
	b.Until(`location.pathname === "/why" && document.querySelector("#allow").innerText.includes("ringwall allow del 203.0.113.67")`)
	b.Click(`#allow button[value="week"]`)
	b.Until(`location.pathname === "/why" && document.querySelector(".told").innerText.includes("ringwall allow del 203.0.113.67")`)
	f.mu.Lock()
	if len(f.allows) != 1 || f.allows[0].Prefix.String() != "203.0.113.67/32" || f.allows[0].For != 7*24*time.Hour {
		t.Errorf("%+v", f.allows)
	}
	f.mu.Unlock()
	b.Click(`.rights button`)
	b.Until(`location.pathname === "/" && !document.querySelector(".rights") && !document.querySelector(".acts")`)
	b.Quiet()
}

func TestABrowserLooksUpAnAddress(t *testing.T) {
	s := serve(t, newFake())
	b := browser.Open(t)
	b.Go(s.url)
	b.Until(isLive)
	b.Type("#address", "203.0.113.9\r")
	b.Until(`location.pathname === "/why" && document.querySelector("h1").innerText === "203.0.113.9 is not banned: Ringwall has seen nothing from it."`)
	if !browser.Eval[bool](b, `document.body.innerText.includes("ringwall why 203.0.113.9") && !document.querySelector(".buttons")`) {
		t.Error("no command, or a button for who may not use it")
	}
	b.Quiet()
}

// The page fits a small phone: nothing sticks out on either side.
func TestAPhoneNeedNotScrollSideways(t *testing.T) {
	f := attacked(newFake())
	s := serve(t, f)
	for _, name := range hostileNames() {
		s.announce("2001:db8:aaaa:bbbb::/64", name)
	}
	b := browser.Open(t)
	b.Go(s.IssueTicket(api.Peer{User: "alice", UID: 1000, PID: 4711}).Address)
	b.Until(`location.pathname === "/" && document.querySelector(".rights")`)
	f.mu.Lock()
	f.why = saturated(strings.Repeat("x", 300), time.Now()).why
	f.mu.Unlock()
	for _, width := range []int64{320, 360, 1280} {
		b.Screen(width, 740, "light")
		for _, path := range []string{"/", "/why?address=2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "/nothing"} {
			b.Go(s.url + path)
			b.Until(`document.readyState === "complete"`)
			if path == "/" {
				b.Until(isLive)
				browser.Eval[int](b, `document.querySelectorAll("details").forEach((d) => d.open = true)||0`)
			}
			if w := browser.Eval[int64](b, `document.documentElement.scrollWidth`); w > width {
				t.Errorf("%s at %d pixels is %d wide: %s", path, width, w, browser.Eval[string](b,
					`Array.from(document.querySelectorAll("main *")).filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll")).map((e) => e.tagName + "." + e.className).slice(0, 5).join(" ")`))
			}
		}
	}
	b.Complaints() // the 404 above is one
}

// Every text is at least 4.5 times as bright as its background, or the other way round (WCAG 2.2, 1.4.3).
func TestTextHasContrast(t *testing.T) {
	f := attacked(newFake())
	f.status.PBXs = append(f.status.PBXs, api.PBXStatus{Name: "pbx2", LastError: "refused",
		Try: "systemctl restart asterisk"})
	s := serve(t, f)
	b := browser.Open(t)
	b.Go(s.IssueTicket(api.Peer{User: "alice"}).Address)
	b.Until(`location.pathname === "/" && document.querySelector(".rights")`)
	for _, scheme := range []string{"light", "dark"} {
		b.Screen(1280, 900, scheme)
		for _, path := range []string{"/", "/why?address=203.0.113.5"} {
			b.Go(s.url + path)
			if path == "/" {
				b.Until(isLive)
			}
			weak := browser.Eval[string](b, `(() => {
				const rgb = (c) => c.match(/[\d.]+/g).map(Number);
				const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
				const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
				const weak = new Set();
				const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
				for (let n; (n = walk.nextNode());) {
					const e = n.parentElement;
					if (!n.data.trim() || !e.checkVisibility() || e.closest(".vh, .skip, noscript, tr.new")) continue;
					const style = getComputedStyle(e);
					const a = light(rgb(e.closest("svg") ? style.fill : style.color)), z = light(back(e));
					const ratio = (Math.max(a, z) + 0.05) / (Math.min(a, z) + 0.05);
					if (ratio < 4.5) weak.add(e.tagName + "." + (e.getAttribute("class") || "") + " " + ratio.toFixed(2) + " " + n.data.trim().slice(0, 20));
				}
				return Array.from(weak).join("; ");
			})()`)
			if weak != "" {
				t.Errorf("%s, %s: %s", path, scheme, weak)
			}
		}
	}
	b.Quiet()
}

func TestThePageWorksWithoutScript(t *testing.T) {
	f := newFake()
	s := serve(t, f)
	s.announce("203.0.113.66/32", "1000")
	b := browser.Open(t)
	b.WithoutScript()
	b.Go(s.IssueTicket(api.Peer{User: "alice"}).Address)
	b.Until(`location.pathname === "/" && document.querySelector(".rights")`) // the browser goes on by itself
	b.Until(`document.querySelector("noscript").innerText.includes("to see what is new")`)
	if !browser.Eval[bool](b, `document.getElementById("live").hidden`) {
		t.Error("without a script nothing is live")
	}
	b.Click(`#bans tr[data-key="203.0.113.66/32"] button[formaction="/unban"]`)
	b.Until(`location.pathname === "/why" && document.querySelector(".told").innerText.includes("203.0.113.66 is let in again")`)
	b.Type("#address", "\r")
	b.Until(`location.pathname === "/why" && !document.querySelector(".told")`)
	b.Click(`.brand`)
	b.Until(`location.pathname === "/" && document.getElementById("bans").innerText.includes("Nobody is banned.")`)
	b.Quiet()
}

// Where there are too many streams, the page is renewed as a whole.
func TestABrowserThatIsTurnedAwayAsksNowAndThen(t *testing.T) {
	t.Parallel()
	s := serve(t, newFake())
	var all []*eventStream
	for range maxStreams {
		c, ok := s.addStream()
		if !ok {
			t.Fatal("no room")
		}
		all = append(all, c)
	}
	b := browser.Open(t)
	b.Go(s.url)
	b.Until(`document.getElementById("live").textContent.startsWith("Renewed every 10 seconds")`)
	s.announce("203.0.113.66/32", "1000")
	b.Until(`document.querySelector('#bans tr[data-key="203.0.113.66/32"]')`)
	for _, c := range all {
		s.removeStream(c)
	}
	b.Until(isLive)
	for _, c := range b.Complaints() {
		if !strings.Contains(c, "503") {
			t.Errorf("the browser says: %s", c)
		}
	}
}
