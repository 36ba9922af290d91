package web

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// hostileNames are what attackers may call themselves.
func hostileNames() []string {
	return []string{
		`<script>window.pwned=1</script>`, `"><img src=x onerror="window.pwned=1">`, `'><svg onload=window.pwned=1>`,
		`</title></table></td><h1>x`,
		`</script><script>window.pwned=1</script>`, `javascript:window.pwned=1`, `&lt;b&gt;`,
		`{{.}}{{template "top" .}}`, `<!--`, `-->`, `]]>`,
		"\u202e1002\u202c", "\u2066x", "\u200f", "\u061c", "\x1b[31mred\x1b[0m", "\x00\x01\x7f", "\u009b31m",
		"a\r\n\r\nevent: part\ndata: {}\n\n", "a\n\ndata: x",
		"\u2028\u2029", "\xff\xfe\xc0", strings.Repeat("x", 10_000), strings.Repeat("<", 10_000),
		strings.Repeat("\u0301", 500), "\ufeff", "\u2800\u3164", "שלום", `\`, "`", "%0a%0d", "\U000e0041",
	}
}

// saturated is a fake in which every text that somebody else may have chosen holds a name.
func saturated(name string, now time.Time) *fake {
	f := newFake()
	a := netip.MustParseAddr("203.0.113.5")
	p := netip.PrefixFrom(a, 32)
	f.status.Version, f.status.Mode = name, "enforce"
	f.status.Config.Error, f.status.Config.Path = name, name
	pbx := &f.status.PBXs[0]
	pbx.Name, pbx.Version, pbx.Up, pbx.LastError, pbx.Try = name, name, false, name, "n"
	pbx.Denied = []api.Denied{{Action: name, For: name, ManagerConf: name}}
	f.status.PBXs = append(f.status.PBXs, *pbx)
	f.status.Kernel.LastError, f.status.Kernel.Try = name, "n"
	f.status.Warnings = []api.Warning{{Text: name, Try: "n"}}
	f.status.Lists = []api.ListStatus{{Name: name, Mode: name, Error: name, Try: "n", BadSample: name, Credit: name}}
	f.status.ObserveOnly = []api.Observed{{Service: name, Why: name}}
	b := banOf("203.0.113.5/32", name, name)
	c := banOf("203.0.113.0/24", name)
	c.Comment, c.Manual, b.PBX, c.Reason = name, true, name, ban.Reason("n"+name)
	f.ban(b)
	f.ban(c)
	f.trusted = []ban.Trust{{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Since: now, Until: now.Add(time.Hour),
		Accounts: []string{name, name}, Score: 3}}
	f.activity.Accounts = []engine.AccountTries{{Account: name, Tries: 7, Sources: 300, Last: now},
		{Account: name, Tries: 3, Sources: 1, Last: now}}
	for _, action := range []ban.Action{ban.ActionBan, ban.ActionBreach, ban.ActionTargeted, ban.ActionTampering,
		ban.ActionMisconfigured, ban.ActionObserve, ban.Action("n" + name)} {
		f.history = append(f.history, ban.Decision{Time: now, Action: action, Source: a, Prefix: p,
			Reason: ban.ReasonStorm, Account: name, PBX: name, Detail: name, Duration: time.Hour})
	}
	f.why = func(a netip.Addr) engine.Explanation {
		return engine.Explanation{Address: a, Source: netip.MustParsePrefix("203.0.113.0/24"), Verdict: "banned",
			Threshold: 10, Ban: &f.bans[0], Lost: 3,
			Lines: []string{name, name}, Evidence: []ban.Evidence{{Time: now, Event: name, Service: name,
				Transport: name, Account: name, Note: name}}}
	}
	return f
}

// pages returns what a reader gets of a fake: the page, with and without rights, an answer to why, and the parts of
// the stream.
func pages(t testing.TB, p *Page, f *fake) map[string]string {
	t.Helper()
	p.Source, p.Host, p.latest, p.recent.decisions, p.recent.phones, p.recent.alarms = f, f.status.Version, nil, nil,
		nil, nil
	p.recent.addDecisions(f.history)
	h := p.Handler()
	out := make(map[string]string)
	cookie := func(*http.Request) {}
	get := func(name, path string) {
		w := ask(h, http.MethodGet, path, "", cookie)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		out[name] = w.Body.String()
	}
	get("home", "/")
	cookie = entered(t, p, api.Peer{User: f.status.Version, UID: 1000})
	get("home with rights", "/")
	get("why with rights", "/why?address=203.0.113.5")
	g, _ := p.renderChanged(p.takeSnapshot(t.Context()), nil)
	text, _ := g.changedSince(nil, true)
	for name, html := range streamed(t, text) {
		out["part "+name] = html
	}
	return out
}

// entered takes a ticket to a session, and returns what adds its cookie to a request.
func entered(t testing.TB, p *Page, by api.Peer) func(*http.Request) {
	t.Helper()
	_, ticket, _ := strings.Cut(p.IssueTicket(by).Address, "/enter")
	w := ask(p.Handler(), http.MethodGet, "/enter"+ticket, "")
	if w.Code != http.StatusOK || len(w.Result().Cookies()) != 1 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	c := w.Result().Cookies()[0]
	return func(r *http.Request) { r.AddCookie(c) }
}

// streamed reads server-sent events the way a browser does, and returns the HTML of the parts.
func streamed(t testing.TB, text string) map[string]string {
	t.Helper()
	parts := make(map[string]string)
	event, data := "", ""
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case lines.Text() == "" && event == "part":
			var m struct{ Part, HTML string }
			if err := json.Unmarshal([]byte(data), &m); err != nil {
				t.Fatalf("%v in %.200q", err, data)
			}
			if _, twice := parts[m.Part]; twice {
				t.Fatalf("part %q comes twice", m.Part)
			}
			parts[m.Part] = m.HTML
			event, data = "", ""
		case name == "event":
			event = value
		case name == "data":
			data = value
		case lines.Text() != "":
			t.Fatalf("a line that is neither event nor data: %.200q", lines.Text())
		}
	}
	return parts
}

// skeleton is the elements of HTML with the names of their attributes, as a browser reads them, and its texts and
// values.
func skeleton(t testing.TB, text string) (shape []string, texts []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		switch n.Type {
		case html.ElementNode:
			s := n.Data
			for _, a := range n.Attr {
				s += " " + a.Key
				texts = append(texts, a.Val)
			}
			shape = append(shape, s)
		case html.TextNode:
			texts = append(texts, n.Data)
		case html.CommentNode:
			shape = append(shape, "comment")
		}
	}
	return shape, texts
}

// plain is a page, and the skeletons of what it shows with a harmless name.
func plain(t testing.TB) (*Page, map[string][]string) {
	t.Helper()
	p, err := New(Config{Feed: api.NewFeed(10), Address: netip.MustParseAddrPort("127.0.0.1:9646"), Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	shapes := make(map[string][]string)
	for page, text := range pages(t, p, saturated("nobody", time.Now())) {
		shapes[page], _ = skeleton(t, text)
	}
	return p, shapes
}

// inert checks that a name changes no element and no attribute of any page, and that no byte of it acts on its
// neighbours.
func inert(t testing.TB, p *Page, want map[string][]string, name string) {
	t.Helper()
	got := pages(t, p, saturated("n"+name, time.Now()))
	for page, shape := range want {
		have, texts := skeleton(t, got[page])
		if !slices.Equal(shape, have) {
			t.Errorf("%s: %.100q changes the elements of the page", page, name)
		}
		for _, text := range texts {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, acts) {
				t.Errorf("%s: %.100q is in the page as %.200q", page, name, text)
			}
			if utf8.RuneCountInString(text) > 3000 { // of which the largest are the paths of the chart
				t.Errorf("%s: a text of %d bytes: %.100q", page, len(text), text)
			}
		}
		if len(got[page]) > 100_000 {
			t.Errorf("%s: a name of %d bytes makes a page of %d bytes", page, len(name), len(got[page]))
		}
	}
}

// acts is true of characters that show nothing, or move their neighbours.
func acts(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Cf, r) ||
		unicode.IsMark(r) ||
		r == '\u2028' || r == '\u2029' || r == '\u2800' || r == '\u3164' || unicode.Is(unicode.Hebrew, r) ||
		unicode.Is(unicode.Arabic, r))
}

// The names above are the corpus, which every run of the tests goes through.
func FuzzHostileNames(f *testing.F) {
	for _, name := range hostileNames() {
		f.Add(name)
	}
	p, want := plain(f)
	f.Fuzz(func(t *testing.T, name string) { inert(t, p, want, name) })
}

// What was asked for is shown again, in the field and in the message.
func TestAHostileQuestionIsInert(t *testing.T) {
	h := made(t, newFake(), "127.0.0.1:9646").Handler()
	want, _ := skeleton(t, ask(h, http.MethodGet, "/why?address=nonsense!", "").Body.String())
	for _, name := range hostileNames() {
		r := httptest.NewRequest(http.MethodGet, "/why", nil)
		r.URL.RawQuery = "address=" + strings.NewReplacer("%", "%25", "&", "%26", "+", "%2B", ";", "%3B", "#", "%23",
			" ", "+").Replace("!"+name)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got, texts := skeleton(t, w.Body.String())
		if w.Code != http.StatusBadRequest || !slices.Equal(got, want) {
			t.Errorf("%d: %.100q changes the page", w.Code, name)
		}
		for _, text := range texts {
			if strings.ContainsFunc(text, acts) || len(text) > 2000 {
				t.Errorf("%.100q is in the page as %.200q", name, text)
			}
		}
	}
}
