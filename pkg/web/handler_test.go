package web

import (
	"errors"
	"fmt"
	"log/slog"
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

func TestEveryAnswerHasItsHeaders(t *testing.T) {
	p := made(t, newFake(), "127.0.0.1:9646")
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
			"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
		"Cache-Control":              "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
	}
	for path, code := range map[string]int{
		"/": 200, "/why?address=203.0.113.5": 200, "/why?address=x!": 400, "/why": 400, "/page.css": 200,
		"/page.js": 200, "/icon.svg": 200,
		"/nothing": 404, "/enter?ticket=x": 403, "/../../etc/passwd": 307, "/web/page.js": 404,
	} {
		w := ask(p.Handler(), http.MethodGet, path, "")
		if w.Code != code {
			t.Errorf("%s: %d, want %d", path, w.Code, code)
		}
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %s: %q, want %q", path, name, got, value)
			}
		}
		for _, forbidden := range []string{"<style", " style=", " onclick=", "javascript:", "http://www", "https://"} {
			if strings.Contains(w.Body.String(), forbidden) &&
				strings.HasSuffix(w.Header().Get("Content-Type"), "html; charset=utf-8") {
				t.Errorf("%s: there is %q in the page", path, forbidden)
			}
		}
	}
	if w := ask(p.Handler(), http.MethodHead, "/events", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("HEAD /events: %d", w.Code)
	}
	for path, method := range map[string]string{"/": http.MethodPost, "/unban": http.MethodGet,
		"/allow": http.MethodGet, "/leave": http.MethodGet, "/events": http.MethodPost} {
		if w := ask(p.Handler(), method, path, ""); w.Code != http.StatusNotFound &&
			w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
	}
}

func TestOnLoopbackOnlyItsOwnNamesAreAnswered(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:9646": 200, "127.0.0.1": 200, "127.9.9.9:1": 200, "localhost:9646": 200, "LOCALHOST": 200,
		"[::1]:9646": 200, "[::1]": 200, "[::ffff:127.0.0.1]:9646": 200,
		"evil.example:9646": 421, "localhost.evil.example": 421, "192.0.2.1:9646": 421, "": 421,
		"127.0.0.1.evil.example": 421, "0.0.0.0:9646": 421, "[::]:9646": 421, "a b": 421,
	} {
		for _, path := range []string{"/", "/events-not", "/page.js", "/why?address=1.2.3.4"} {
			w := ask(made(t, newFake(), "127.0.0.1:9646").Handler(), http.MethodGet, path, "",
				func(r *http.Request) { r.Host = host })
			if (w.Code == http.StatusMisdirectedRequest) != (want == 421) {
				t.Errorf("Host %q, %s: %d", host, path, w.Code)
			}
			if want == 421 && !strings.Contains(w.Body.String(), "localhost") {
				t.Errorf("the refusal does not say what to do: %s", w.Body)
			}
		}
	}
	w := ask(made(t, newFake(), "192.0.2.1:9646").Handler(), http.MethodGet, "/", "",
		func(r *http.Request) { r.Host = "pbx.example.com" })
	if w.Code != http.StatusOK {
		t.Errorf("a page that is not on loopback goes by any name: %d", w.Code)
	}
}

// form sends a form the way a browser does.
func form(p *Page, path string, values url.Values, change ...func(*http.Request)) (int, string) {
	head := func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Origin", "null") // as under Referrer-Policy: no-referrer
	}
	w := ask(p.Handler(), http.MethodPost, path, values.Encode(), append([]func(*http.Request){head}, change...)...)
	return w.Code, w.Header().Get("Location") + w.Body.String()
}

// token reads the token of the forms of a session.
func token(t *testing.T, p *Page, cookie func(*http.Request)) string {
	t.Helper()
	_, after, ok := strings.Cut(ask(p.Handler(), http.MethodGet, "/", "", cookie).Body.String(), `name="token" value="`)
	value, _, _ := strings.Cut(after, `"`)
	if !ok || len(value) < 20 {
		t.Fatalf("no token: %q", value)
	}
	return value
}

// People type what they have: what Asterisk's log shows, or the extension of a customer who calls.
func TestAnExtensionAndAPortAreLookedUp(t *testing.T) {
	p := made(t, newFake(), "127.0.0.1:9646")
	for question, want := range map[string][]string{
		"203.0.113.5:5060":   {"<h1>203.0.113.5 is not banned"},
		"[2001:db8::1]:5061": {"<h1>2001:db8::1 is not banned"},
		"201": {"Account", "201", `href="/why?address=203.0.113.5"`, "banned", "192.0.2.10",
			"ringwall history 201"},
		"sip:201@pbx.example.net": {"ringwall history 201"},
	} {
		w := ask(p.Handler(), http.MethodGet, "/why?address="+url.QueryEscape(question), "")
		for _, part := range want {
			if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, part) {
				t.Errorf("%s: %d, no %q in %s", question, w.Code, part, body)
			}
		}
	}
}

func TestWithATicketOneMayUnbanAndAllow(t *testing.T) {
	var log strings.Builder
	f := newFake()
	f.ban(banOf("203.0.113.5/32", "1000"))
	p := made(t, f, "127.0.0.1:9646")
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	if body := ask(p.Handler(), http.MethodGet, "/", "").Body.String(); strings.Contains(body, "<button form") ||
		!strings.Contains(body, "ringwall unban ADDRESS") {
		t.Error("without a ticket there are buttons, or no commands")
	}
	res := p.IssueTicket(api.Peer{User: "alice", UID: 1000, PID: 4711})
	if !res.Writable || !strings.HasPrefix(res.Address, "http://127.0.0.1:9646/enter?ticket=") || res.Expires == nil {
		t.Fatalf("%+v", res)
	}
	cookie := entered(t, p, api.Peer{User: "alice", UID: 1000, PID: 4711})
	if body := ask(p.Handler(), http.MethodGet, "/", "", cookie).Body.String(); !strings.Contains(body,
		`formaction="/unban"`) || !strings.Contains(body, "alice") {
		t.Error("with a ticket there is no button, or nobody's name")
	}
	tok := token(t, p, cookie)
	code, to := form(p, "/unban", url.Values{"token": {tok}, "prefix": {"203.0.113.5/32"}, "grace": {"1"}}, cookie)
	if code != http.StatusSeeOther || !strings.HasPrefix(to, "/why?address=203.0.113.5") {
		t.Fatalf("%d %s", code, to)
	}
	if len(f.unbans) != 1 || f.unbans[0].Prefix.String() != "203.0.113.5/32" || f.unbans[0].Grace != time.Hour ||
		f.unbans[0].By.User != "alice" {
		t.Errorf("%+v", f.unbans)
	}
	for i, want := range []bool{true, false} { // it is said once
		body := ask(p.Handler(), http.MethodGet, "/why?address=203.0.113.5", "", cookie).Body.String()
		if strings.Contains(body, "203.0.113.5 is let in again") != want {
			t.Errorf("look %d: %s", i, body)
		}
	}
	// Nobody is allowed for ever by a slip: the form says for how long, or nothing is done.
	if code, _ = form(p, "/allow", url.Values{"token": {tok}, "prefix": {"2001:db8::/64"}},
		cookie); code != http.StatusBadRequest || len(f.allows) != 0 {
		t.Errorf("%d %+v", code, f.allows)
	}
	for length, want := range map[string]time.Duration{"day": 24 * time.Hour, "week": 7 * 24 * time.Hour, "ever": 0} {
		f.allows = nil
		code, to = form(p, "/allow", url.Values{"token": {tok}, "prefix": {"2001:db8::/64"}, "for": {length}}, cookie)
		if code != http.StatusSeeOther || len(f.allows) != 1 || f.allows[0].By.PID != 4711 || f.allows[0].For != want {
			t.Errorf("%s: %d %s %+v", length, code, to, f.allows)
		}
		if body := ask(p.Handler(), http.MethodGet, "/why?address=2001:db8::", "",
			cookie).Body.String(); !strings.Contains(body, "ringwall allow del 2001:db8::/64") {
			t.Errorf("%s: nobody says how to take it back: %s", length, body)
		}
	}
	for _, want := range []string{`msg="manual change"`, "change=unban", "change=allow", "by.user=alice", "by.pid=4711",
		"through=page", "prefix=203.0.113.5/32"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, log.String())
		}
	}
	_, secret, _ := strings.Cut(res.Address, "ticket=")
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), tok) {
		t.Error("a secret is in the log")
	}
	if code, _ = form(p, "/leave", url.Values{"token": {tok}}, cookie); code != http.StatusSeeOther {
		t.Errorf("leave: %d", code)
	}
	if code, _ = form(p, "/unban", url.Values{"token": {tok}, "prefix": {"203.0.113.5/32"}},
		cookie); code != http.StatusForbidden || len(f.unbans) != 1 {
		t.Errorf("after leave: %d", code)
	}
}

func TestNobodyElseChangesAnything(t *testing.T) {
	f := newFake()
	p := made(t, f, "127.0.0.1:9646")
	cookie := entered(t, p, api.Peer{User: "alice"})
	other := entered(t, p, api.Peer{User: "bob"})
	tok, good := token(t, p, cookie), "203.0.113.5/32"
	head := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	without := func(names ...string) func(*http.Request) {
		return func(r *http.Request) {
			for _, name := range names {
				r.Header.Del(name)
			}
		}
	}
	for name, row := range map[string]struct {
		values url.Values
		change []func(*http.Request)
		code   int
	}{
		"no session": {url.Values{"token": {tok}, "prefix": {good}}, nil, 403},
		"no token":   {url.Values{"prefix": {good}}, []func(*http.Request){cookie}, 403},
		"a wrong token": {url.Values{"token": {tok[1:] + "A"}, "prefix": {good}},
			[]func(*http.Request){cookie}, 403},
		"the token of another session": {url.Values{"token": {tok}, "prefix": {good}}, []func(*http.Request){other},
			403},
		"an invented session": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookieName, Value: "x"}) }},
			403},
		"from another site": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, head("Sec-Fetch-Site", "cross-site")}, 403},
		"from another port": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, head("Sec-Fetch-Site", "same-site")}, 403},
		"from nowhere": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, head("Sec-Fetch-Site", "none")}, 403},
		"an old browser's null": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, without("Sec-Fetch-Site")}, 403},
		"no word of origin": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, without("Sec-Fetch-Site", "Origin")}, 403},
		"another origin": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, without("Sec-Fetch-Site"), head("Origin", "http://127.0.0.1:8080")}, 403},
		"another type": {url.Values{"token": {tok}, "prefix": {good}},
			[]func(*http.Request){cookie, head("Content-Type", "text/plain")}, 400},
		"a long form": {url.Values{"token": {tok}, "prefix": {good}, "x": {strings.Repeat("x", 10_000)}},
			[]func(*http.Request){cookie}, 400},
		"no prefix": {url.Values{"token": {tok}}, []func(*http.Request){cookie}, 400},
		"everybody": {url.Values{"token": {tok}, "prefix": {"0.0.0.0/0"}}, []func(*http.Request){cookie},
			400},
		"nearly everybody": {url.Values{"token": {tok}, "prefix": {"2000::/3"}}, []func(*http.Request){cookie},
			400},
		"a hostile prefix": {url.Values{"token": {tok}, "prefix": {"<script>"}}, []func(*http.Request){cookie},
			400},
	} {
		for _, path := range []string{"/unban", "/allow"} {
			code, body := form(p, path, row.values, row.change...)
			if code != row.code {
				t.Errorf("%s: %s: %d, want %d", name, path, code, row.code)
			}
			if strings.Contains(body, "<script>") {
				t.Errorf("%s: %s", name, body)
			}
		}
	}
	if w := ask(p.Handler(), http.MethodGet, "/unban?prefix=203.0.113.5&token="+tok, "",
		cookie); w.Code == http.StatusOK || w.Code == http.StatusSeeOther {
		t.Errorf("GET: %d", w.Code)
	}
	if len(f.unbans)+len(f.allows) != 0 {
		t.Errorf("changed: %+v %+v", f.unbans, f.allows)
	}
	old := []func(*http.Request){cookie, without("Sec-Fetch-Site"), head("Origin", "http://127.0.0.1:9646")}
	if code, _ := form(p, "/unban", url.Values{"token": {tok}, "prefix": {good}}, old...); code != http.StatusSeeOther {
		t.Errorf("an old browser that says where it comes from: %d", code)
	}
}

func TestATicketOpensOnce(t *testing.T) {
	p := made(t, newFake(), "127.0.0.1:9646")
	_, ticket, _ := strings.Cut(p.IssueTicket(api.Peer{}).Address, "127.0.0.1:9646")
	if w := ask(p.Handler(), http.MethodGet, ticket, "",
		func(r *http.Request) {
			r.Header.Set("Sec-Purpose",
				"prefetch;prerender")
		}); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a guess of the browser's: %d", w.Code)
	}
	if w := ask(p.Handler(), http.MethodHead, ticket, ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("HEAD: %d", w.Code)
	}
	w := ask(p.Handler(), http.MethodGet, ticket, "")
	c := w.Result().Cookies()
	if w.Code != http.StatusOK || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode ||
		c[0].MaxAge != 3600 || c[0].Domain != "" {
		t.Fatalf("%d %+v", w.Code, c)
	}
	if strings.Contains(ticket, c[0].Value) {
		t.Error("the cookie is the ticket")
	}
	if w = ask(p.Handler(), http.MethodGet, ticket, ""); w.Code != http.StatusForbidden ||
		len(w.Result().Cookies()) != 0 || !strings.Contains(w.Body.String(), "ringwall page") {
		t.Errorf("the second time: %d %s", w.Code, w.Body)
	}
}

func TestRightsEnd(t *testing.T) {
	var s sessions
	now := time.Now()
	ticket, until := s.issueTicket(now, api.Peer{})
	if _, _, ok := s.openSession(until, ticket); ok {
		t.Error("a ticket opens after its time")
	}
	ticket, _ = s.issueTicket(now, api.Peer{})
	secret, _, ok := s.openSession(now, ticket)
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: secret})
	if _, _, still := s.sessionOf(now.Add(sessionLifetime-time.Second), r); !ok || !still {
		t.Error("a session ends before its time")
	}
	if _, _, still := s.sessionOf(now.Add(sessionLifetime), r); still {
		t.Error("a session outlives its time")
	}
	for range 1000 { // the oldest make room
		ticket, _ = s.issueTicket(now, api.Peer{})
		if _, _, ok := s.openSession(now, ticket); !ok {
			t.Fatal("a fresh ticket does not open")
		}
		s.issueTicket(now, api.Peer{})
	}
	if len(s.open) > maxSessions || len(s.tickets) > maxSessions {
		t.Errorf("%d sessions and %d tickets are kept", len(s.open), len(s.tickets))
	}
}

func TestAPageThatOthersReachChangesNothing(t *testing.T) {
	f := newFake()
	for _, address := range []string{"192.0.2.1:9646", "0.0.0.0:9646", "[::]:9646"} {
		p := made(t, f, address)
		res := p.IssueTicket(api.Peer{})
		if res.Writable || strings.Contains(res.Address, "ticket") || !strings.Contains(res.Note, "loopback") {
			t.Errorf("%s: %+v", address, res)
		}
		secret, _ := p.sessions.issueTicket(time.Now(), api.Peer{}) // also not by a ticket that should not be there
		if w := ask(p.Handler(), http.MethodGet, "/enter?ticket="+secret, ""); w.Code != http.StatusForbidden ||
			len(w.Result().Cookies()) != 0 {
			t.Errorf("%s: enter: %d", address, w.Code)
		}
		open, _, _ := p.sessions.openSession(time.Now(), secret)
		cookie := func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookieName, Value: open}) }
		body := ask(p.Handler(), http.MethodGet, "/", "", cookie).Body.String()
		if strings.Contains(body, "<button form") ||
			!strings.Contains(body, "This page can change nothing, because other machines can reach it") {
			t.Errorf("%s: %s", address, body)
		}
		if code, _ := form(p, "/unban", url.Values{"prefix": {"203.0.113.5"}}, cookie); code != http.StatusForbidden ||
			len(f.unbans) != 0 {
			t.Errorf("%s: unban: %d", address, code)
		}
	}
}

func TestARefusedChangeSaysWhatToTry(t *testing.T) {
	f := newFake()
	p := made(t, f, "127.0.0.1:9646")
	cookie := entered(t, p, api.Peer{})
	tok := token(t, p, cookie)
	for _, row := range []struct {
		err  error
		code int
		want string
	}{
		{api.Refused("see: ringwall list allow", "it must not be"), 409, "It must not be"},
		{&api.Error{Message: "the kernel has not let it go yet", Try: "look at nft"}, 500, "Look at nft"},
		{errors.New("<b>"), 500, "&lt;b&gt;"},
	} {
		f.err = row.err
		if code, body := form(p, "/unban", url.Values{"token": {tok}, "prefix": {"203.0.113.5"}},
			cookie); code != row.code || !strings.Contains(body, row.want) {
			t.Errorf("%v: %d %s", row.err, code, body)
		}
	}
}

// 100,000 bans are on the page as a hundred and a number.
func TestThePageIsBounded(t *testing.T) {
	f := newFake()
	for i := range 5000 {
		f.ban(banOf(fmt.Sprintf("203.%d.%d.1/32", i>>8, i&255), strings.Repeat("x", 40)))
		f.trusted = append(f.trusted, ban.Trust{Prefix: netip.MustParsePrefix(fmt.Sprintf("198.%d.%d.1/32", i>>8,
			i&255)), Until: time.Now().Add(time.Hour)})
		f.status.Warnings = append(f.status.Warnings, api.Warning{Text: "w"})
		f.history = append(f.history, banDecision(i, ban.ActionMisconfigured), banDecision(i, ban.ActionBreach),
			banDecision(i, ban.ActionBan))
		f.activity.Accounts = append(f.activity.Accounts, engine.AccountTries{Account: fmt.Sprint(i), Tries: 1})
	}
	f.status.Engine.Bans, f.status.Engine.Trusted = 100_000, 5002
	p := made(t, f, "127.0.0.1:9646")
	p.recent.addDecisions(f.history)
	body := ask(p.Handler(), http.MethodGet, "/", "").Body.String()
	if len(body) > 200_000 {
		t.Errorf("the page has %d bytes", len(body))
	}
	for want, n := range map[string]int{`data-key="`: maxBans, "ringwall list bans</code>": 1, "99,900 more": 1,
		"4,952 more": 1, "Keeps sending a wrong password": maxPhones} {
		if got := strings.Count(body, want); got != n {
			t.Errorf("%q is there %d times, want %d", want, got, n)
		}
	}
	if len(p.recent.phones) != maxPhones || len(p.recent.alarms) != maxAlarms ||
		len(p.recent.decisions) != maxDecisions {
		t.Errorf("%d phones, %d alarms, %d decisions are kept", len(p.recent.phones), len(p.recent.alarms),
			len(p.recent.decisions))
	}
}

func banDecision(i int, a ban.Action) ban.Decision {
	b := banOf("203.0.113.5/32")
	return ban.Decision{Time: time.Now().Add(time.Duration(i-5000) * time.Millisecond), Action: a,
		Reason: ban.ReasonPace, Account: fmt.Sprint(i), Duration: time.Hour, Detail: b.Prefix.String()}
}

func TestTheStateIsSaidInPlainWords(t *testing.T) {
	for want, change := range map[string]func(*api.Status){
		"Ringwall is working: attackers are kept out": func(*api.Status) {},
		"Ringwall only watches: nobody is banned":     func(s *api.Status) { s.Mode = "observe" },
		"Ringwall only watches: nobody more is banned": func(s *api.Status) {
			s.Mode, s.Engine.Bans = "observe",
				3
		},
		"A dry run: nobody is banned": func(s *api.Status) { s.Kernel.DryRun = true },
		"The firewall is not as it should be": func(s *api.Status) {
			s.Kernel.OK,
				s.Kernel.LastError = false, "gone"
		},
		"Ringwall hears nothing from Asterisk": func(s *api.Status) { s.PBXs[0].Up = false },
		"Ringwall hears nothing from pbx2": func(s *api.Status) {
			s.PBXs = append(s.PBXs, api.PBXStatus{Name: "pbx2"})
		},
		"Banned sources get through to Asterisk": func(s *api.Status) { s.Engine.LastLeak = ptr(s.Time.Add(-time.Minute)) },
		"Another firewall keeps out whom you allow": func(s *api.Status) {
			s.Dropped = []api.Dropped{{As: api.DroppedTrunk, Chain: "inet a i"}}
		},
		"a trunk of Asterisk&#39;s, and another firewall drops what it sends to Asterisk: chain inet a i": func(s *api.Status) {
			s.Dropped = []api.Dropped{{As: api.DroppedTrunk, Chain: "inet a i"}}
		},
		"A port of Asterisk is open to the banned": func(s *api.Status) {
			s.Ports.Found = []api.FoundPort{{Protocol: "udp", Port: 5080, Open: true}}
		},
		"The configuration was changed, and is not in force: line 3": func(s *api.Status) { s.Config.Error = "line 3" },
		"was blind for 3m":   func(s *api.Status) { s.PBXs[0].Blind = 180 },
		"7 events were lost": func(s *api.Status) { s.PBXs[0].DroppedFrames = 7 },
		"<strong>voipbl</strong> 98,123 known attackers": func(s *api.Status) {
			s.Lists = []api.ListStatus{{Name: "voipbl", Mode: "enforce", Entries: 98123}}
		},
		"4,711 packets counted · never fetched": func(s *api.Status) {
			s.Lists = []api.ListStatus{{Name: "voipbl", Mode: "observe", Packets: 4711}}
		},
		"systemctl reload now": func(s *api.Status) {
			s.Warnings = []api.Warning{{Text: "x",
				Try: "systemctl reload now"}}
		},
	} {
		f := newFake()
		change(&f.status)
		if body := ask(made(t, f, "127.0.0.1:9646").Handler(), http.MethodGet, "/",
			"").Body.String(); !strings.Contains(body, want) {
			t.Errorf("%q is not on the page:\n%s", want, body)
		}
	}
}

// Who is only watched is not among the banned, and in observe mode nobody is.
func TestWatchedSourcesAreNotCalledBanned(t *testing.T) {
	f := newFake()
	f.ban(banOf("203.0.113.5/32"))
	watched := banOf("203.0.113.6/32")
	watched.Observed = true
	f.ban(watched)
	f.status.Engine.Bans, f.status.Engine.Observed = 1, 1
	p := made(t, f, "127.0.0.1:9646")
	view := p.viewBans(p.takeSnapshot(t.Context()))
	if view.Observed || view.Total != 1 || view.More != 0 || !view.Rows[0].Observed || view.Rows[1].Observed {
		t.Errorf("%+v", view)
	}
	body := ask(p.Handler(), http.MethodGet, "/", "").Body.String()
	if strings.Count(body, "watched only") != 1 ||
		!strings.Contains(body, `<h2 id="h-bans">Banned now</h2><p class="count">1</p>`) {
		t.Error(body)
	}
	f.status.Mode = "observe" // those of before are banned all the same
	body = ask(made(t, f, "127.0.0.1:9646").Handler(), http.MethodGet, "/", "").Body.String()
	if strings.Count(body, "watched only") != 1 ||
		!strings.Contains(body, `<h2 id="h-bans">Banned now</h2><p class="count">1</p>`) {
		t.Error(body)
	}
	f.bans, f.status.Engine.Bans = f.bans[:1], 0
	body = ask(made(t, f, "127.0.0.1:9646").Handler(), http.MethodGet, "/", "").Body.String()
	if strings.Contains(body, "Banned now") ||
		!strings.Contains(body, `<h2 id="h-bans">Would be banned</h2><p class="count">1</p>`) ||
		strings.Contains(body, "ringwall unban ADDRESS") {
		t.Error(body)
	}
}

func TestWhySaysWhatTheCommandSays(t *testing.T) {
	f := newFake()
	f.ban(banOf("203.0.113.5/32", "1000"))
	f.why = func(a netip.Addr) engine.Explanation {
		x := saturated("name", time.Now()).why(a)
		x.Source = netip.MustParsePrefix("203.0.113.9/32")
		return x
	}
	body := ask(made(t, f, "127.0.0.1:9646").Handler(), http.MethodGet, "/why?address=203.0.113.9", "").Body.String()
	for _, want := range []string{"203.0.113.9 is banned with all of 203.0.113.0/24 until ", "by hand, &#34;name&#34;.",
		"ringwall unban 203.0.113.0/24", "--grace 1h", "ringwall allow add 203.0.113.9",
		"3 older pieces are no longer kept"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not on the page:\n%s", want, body)
		}
	}
}

// What observing has shown is told on the page, with what to type.
func TestWhatObservingHasShownIsOnThePage(t *testing.T) {
	var w recentDecisions
	at := time.Now()
	w.addDecisions([]ban.Decision{{Time: at, Action: ban.ActionReview, Reason: ban.ReasonObserved,
		Detail: "12 sources would have been banned"}})
	_, _, alarms := w.current(at)
	if len(alarms) != 1 || alarmText(alarms[0]) != "12 sources would have been banned" ||
		!strings.Contains(alarmHint(alarms[0]), "mode: enforce") {
		t.Fatalf("%+v", alarms)
	}
}

// Somebody who guesses and is on the allow list is among the alarms of the day, for nobody bans him.
func TestAnAllowedGuesserIsAnAlarm(t *testing.T) {
	var w recentDecisions
	at := time.Now()
	d := ban.Decision{Time: at, Action: ban.ActionObserve, Reason: ban.ReasonAllowed,
		Source: netip.MustParseAddr("127.0.0.1"),
		Prefix: netip.MustParsePrefix("127.0.0.1/32"), PBX: "pbx1"}
	w.addDecisions([]ban.Decision{d})
	_, _, alarms := w.current(at)
	if len(alarms) != 1 {
		t.Fatalf("%+v", alarms)
	}
	if text := alarmText(alarms[0]); text != "somebody guesses from 127.0.0.1, which is on the allow list and "+
		"therefore never banned" {
		t.Errorf("%q", text)
	}
	if try := alarmHint(alarms[0]); !strings.Contains(try, "proxy") || strings.Contains(try, "database") {
		t.Errorf("%q", try)
	}
}

// What another node of a fleet saw is not this one's, and an unban says whom it reaches.
func TestTheNodeThatSawItIsNamed(t *testing.T) {
	f := newFake()
	b := banOf("203.0.113.5/32")
	b.Origin = "pbx-berlin"
	f.ban(b)
	f.ban(banOf("203.0.113.6/32"))
	f.reach = api.ReachHere
	p := made(t, f, "127.0.0.1:9646")
	if body := ask(p.Handler(), http.MethodGet, "/", "").Body.String(); strings.Count(body, "seen by pbx-berlin") != 1 {
		t.Error(body)
	}
	cookie := entered(t, p, api.Peer{User: "alice"})
	form(p, "/unban", url.Values{"token": {token(t, p, cookie)}, "prefix": {"203.0.113.5/32"}}, cookie)
	if body := ask(p.Handler(), http.MethodGet, "/why?address=203.0.113.5", "", cookie).Body.String(); !strings.Contains(body,
		"ringwall unban 203.0.113.5 --fleet") {
		t.Error(body)
	}
}
