package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/lists"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// publisher is a real server of lists, whose next answer a test chooses.
type publisher struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  []*http.Request
}

func newPublisher(t *testing.T, answer http.HandlerFunc) *publisher {
	p := &publisher{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r)
		a := p.answer
		p.mu.Unlock()
		a(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) answers(a http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = a
}

func (p *publisher) lastAsked() *http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[len(p.asked)-1]
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
}

// addresses are n lines of different ones.
func addresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "198.18.%d.%d\n", i/256, i%256)
	}
	return b.String()
}

func source(url string) Source {
	return Source{Name: "test", URL: url, Format: lists.Auto, Refresh: time.Hour, TTL: 7 * 24 * time.Hour,
		MaxEntries: 10_000, MaxPrefix: 10, Enforce: true}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// started is a keeper of one list that runs until the test ends. Nothing is fetched but what the test asks for.
func started(t *testing.T, s Source, dir string) *Keeper {
	t.Helper()
	k := NewKeeper([]Source{s}, dir, quiet(), func() {})
	k.fetcher.pause = 0
	k.kept[0].next = time.Now().Add(time.Hour)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return k
}

func fetched(t *testing.T, s Source, dir string) *Keeper {
	t.Helper()
	k := started(t, s, dir)
	if err := k.Refresh(t.Context(), s.Name, false); err != nil {
		t.Fatal(err)
	}
	return k
}

func inForce(k *Keeper) []netip.Prefix {
	var all []netip.Prefix
	for _, e := range k.Lists()[0].Entries {
		all = append(all, e.Prefix())
	}
	return all
}

func TestAPoisonedListChangesNothingInForceAndIsTold(t *testing.T) {
	const good = 100
	zip := func(s string, times int) http.HandlerFunc {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		for range times {
			_, _ = io.WriteString(z, s)
		}
		_ = z.Close()
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(b.Bytes())
		}
	}
	elsewhere := httptest.NewServer(text(addresses(good + 1)))
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		told   string // of the error; else
		left   lists.Why
	}{
		"everybody": {text(addresses(good) + "0.0.0.0/0\n::/0\n"), "", lists.TooWide},
		"private ranges": {text(addresses(good) + "10.0.0.0/8\n192.168.0.0/16\n127.0.0.1\nfd00::/8\n"), "",
			lists.Reserved},
		"half of it":     {text(addresses(good / 2)), "shrank from 100 entries to 50", ""},
		"twice of it":    {text(addresses(2 * good)), "grew from 100 entries to 200", ""},
		"nothing":        {text(""), "nothing is in it", ""},
		"comments alone": {text("# moved\n"), "nothing is in it", ""},
		"100 MB":         {text(strings.Repeat("198.18.0.1\n", 10_000_000)), "larger than what is read", ""},
		"100 MB, as its head says": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			w.WriteHeader(http.StatusOK)
		}, "larger than what is read", ""},
		"too many":               {text(addresses(10_001)), "more than 10000 entries", ""},
		"an endless line":        {text(strings.Repeat("1", 1_000_000)), "a line of more than", ""},
		"a slow drip":            {drip, "takes too long", ""},
		"an error page with 200": {text("<html><body>Service unavailable</body></html>"), "a web page", ""},
		"an error in a line":     {text("Rate limit exceeded\n"), "no list of addresses", ""},
		"a redirect to another": {http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
			"sends to another host", ""},
		"a redirect in a circle": {http.RedirectHandler("/again", http.StatusFound).ServeHTTP, "around in circles",
			""},
		"a gzip bomb": {zip(strings.Repeat("198.18.0.1\n", 100_000), 300), "larger than what is read",
			""},
		"an answer that breaks off": {breaksOff, "unexpected EOF", ""},
		"no longer there":           {http.NotFound, "404", ""},
		"a wrong key": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "who?",
				http.StatusForbidden)
		}, "403 Forbidden: \"who?", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t, text(addresses(good)))
			dir := t.TempDir()
			k := fetched(t, source(p.URL), dir)
			k.fetcher.time = 5 * time.Second
			if name == "a slow drip" {
				k.fetcher.time = 100 * time.Millisecond
			}
			before := fmt.Sprint(inForce(k))
			p.answers(test.answer)
			err := k.Refresh(t.Context(), "test", false)
			state := k.States()[0]
			if test.told != "" && (err == nil || !strings.Contains(err.Error(), test.told) || state.Err == nil) {
				t.Errorf("got %v, want %q", err, test.told)
			}
			if test.told == "" && (err != nil || state.LeftOut.Count[test.left] == 0) {
				t.Errorf("%v, left out %+v", err, state.LeftOut)
			}
			if got := fmt.Sprint(inForce(k)); got != before {
				t.Errorf("in force are %d entries", len(inForce(k)))
			}
			again := NewKeeper([]Source{source(p.URL)}, dir, quiet(), func() {}) // after a restart without network
			if got := fmt.Sprint(inForce(again)); got != before {
				t.Errorf("after a restart %d entries are in force", len(inForce(again)))
			}
		})
	}
}

// drip sends a byte now and then, and never ends by itself.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, "1")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func breaksOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "2000")
	_, _ = io.WriteString(w, addresses(100))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestAPersonTakesAListThatChangedMuch(t *testing.T) {
	p := newPublisher(t, text(addresses(100)))
	k := fetched(t, source(p.URL), t.TempDir())
	p.answers(text(addresses(20)))
	if err := k.Refresh(t.Context(), "test", false); err == nil || !k.States()[0].Held {
		t.Fatalf("%v", err)
	}
	if err := k.Refresh(t.Context(), "test", true); err != nil || len(inForce(k)) != 20 || k.States()[0].Held {
		t.Errorf("%v, %d entries", err, len(inForce(k)))
	}
}

func TestWhatIsNotNewIsNotSentAgain(t *testing.T) {
	p := newPublisher(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Wed, 06 May 2026 12:00:00 GMT")
		if r.Header.Get("If-None-Match") == `"v1"` && r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		text("198.18.0.0/24\n203.0.113.9\n")(w, r)
	})
	dir := t.TempDir()
	k := fetched(t, source(p.URL), dir)
	first := k.States()[0]
	if r := p.lastAsked(); r.Header.Get("If-None-Match") != "" || !strings.Contains(r.Header.Get("Accept-Encoding"),
		"gzip") {
		t.Errorf("the first time it asked %v", r.Header)
	}
	again := started(t, source(p.URL), dir) // after a restart as well
	if err := again.Refresh(t.Context(), "test", false); err != nil {
		t.Fatal(err)
	}
	s := again.States()[0]
	if len(inForce(again)) != 2 || !s.Changed.Equal(first.Changed) || !s.Fetched.After(first.Fetched) ||
		p.lastAsked().Header.Get("If-None-Match") != `"v1"` {
		t.Errorf("%+v", s)
	}
}

func TestARedirectOnTheSameHostIsFollowed(t *testing.T) {
	p := newPublisher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/list.txt", http.StatusMovedPermanently)
			return
		}
		text("198.18.0.1\n")(w, r)
	})
	if k := fetched(t, source(p.URL), t.TempDir()); len(inForce(k)) != 1 {
		t.Error(k.States())
	}
}

func TestKeysAreSentAndNeverTold(t *testing.T) {
	for key, test := range map[string]struct{ path, seen string }{
		"user:secret7": {"/", "Basic dXNlcjpzZWNyZXQ3"},
		"secret7":      {"/", "secret7"},
		"secret7+/":    {"/api/{key}/banned", ""},
	} {
		p := newPublisher(t, text("198.18.0.1\n"))
		s := source(p.URL + test.path)
		s.Key = key
		k := fetched(t, s, t.TempDir())
		r := p.lastAsked()
		if got := r.Header.Get("Authorization") + r.Header.Get("X-Api-Key"); got != test.seen {
			t.Errorf("key %s: sent %q", key, got)
		}
		if test.seen == "" && r.URL.EscapedPath() != "/api/secret7+%2F/banned" {
			t.Errorf("asked for %s", r.URL.EscapedPath())
		}
		p.Close()
		if err := k.Refresh(t.Context(), "test", false); err == nil || strings.Contains(err.Error(), "secret7") {
			t.Errorf("told %v", err)
		}
	}
}

func TestURLsThatAreRefused(t *testing.T) {
	for _, u := range []string{"http://lists.example.com/x", "ftp://lists.example.com/x", "https:///x",
		"file:///etc/passwd", "x"} {
		s := source(u)
		if _, err := newFetcher().get(t.Context(), &s, nil, false, nil); err == nil {
			t.Errorf("%s is fetched", u)
		}
	}
}

func TestAListOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(addresses(30)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := source("")
	s.File = path
	dir := t.TempDir()
	k := fetched(t, s, dir)
	if len(inForce(k)) != 30 {
		t.Errorf("%d entries", len(inForce(k)))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := k.Refresh(t.Context(), "test", false); !errors.Is(err, os.ErrNotExist) || len(inForce(k)) != 30 {
		t.Errorf("%v, %d entries", err, len(inForce(k)))
	}
}

func TestADamagedCopyIsNotUsed(t *testing.T) {
	p := newPublisher(t, text(addresses(100)))
	dir := t.TempDir()
	fetched(t, source(p.URL), dir)
	path := copyPath(dir, "test")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"cut off": whole[:len(whole)-20], "empty": nil, "zeros": make([]byte, 4096),
		"another address": bytes.Replace(whole, []byte("198.18.0.77/32"), []byte("198.19.0.77/32"), 1),
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if k := NewKeeper([]Source{source(p.URL)}, dir, quiet(), func() {}); len(inForce(k)) != 0 {
			t.Errorf("%s: %d entries are in force", name, len(inForce(k)))
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	// A power cut while a copy was written leaves what was there, and a file of no name.
	if err := os.WriteFile(filepath.Join(dir, "test.123.new"), whole[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	if k := NewKeeper([]Source{source(p.URL)}, dir, quiet(), func() {}); len(inForce(k)) != 100 {
		t.Errorf("%d entries are in force", len(inForce(k)))
	}
	if k := NewKeeper([]Source{source(p.URL + "/other")}, dir, quiet(), func() {}); len(inForce(k)) != 0 {
		t.Error("the copy of one address is in force for another")
	}
}

func TestAListThatCannotBeFetchedCountsForItsTTL(t *testing.T) {
	p := newPublisher(t, text(addresses(100)))
	s, dir := source(p.URL), t.TempDir()
	fetched(t, s, dir)
	real := time.Now()
	after := func(days int) *Keeper { // which does not run
		k := NewKeeper([]Source{s}, dir, quiet(), func() {})
		k.fetcher.now = func() time.Time { return real.Add(time.Duration(days) * 24 * time.Hour) }
		return k
	}
	if k := after(6); len(inForce(k)) != 100 || k.States()[0].Over {
		t.Error("it is over after six days")
	}
	if k := after(8); len(inForce(k)) != 0 || !k.States()[0].Over {
		t.Error("it is in force after eight days")
	}
}

// apibanServer behaves as APIBAN does: 250 addresses a batch, and 400 where there is none after an ID.
type apibanServer struct {
	mu      sync.Mutex
	n       int // addresses that it has
	limited int // requests until it has enough
}

func (a *apibanServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var from int
	if _, err := fmt.Sscanf(r.URL.Path, "/api/K7/banned/%d", &from); err != nil {
		http.Error(w, `{"ipaddress":["unauthorized"],"ID":"unauthorized"}`, http.StatusForbidden)
		return
	}
	if a.limited--; a.limited < 0 {
		w.Header().Set("Retry-After", "120")
		http.Error(w, "slow down", http.StatusTooManyRequests)
		return
	}
	from -= 100
	if from >= a.n {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"ipaddress":["no new bans"],"ID":"none"}`)
		return
	}
	to := min(from+250, a.n)
	var list []string
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf(`"198.18.%d.%d"`, i/256, i%256))
	}
	fmt.Fprintf(w, `{"ipaddress":[%s],"ID":"%d"}`, strings.Join(list, ","), to+100)
}

func apibanSource(url string) Source {
	s := source(url + "/api/{key}/banned")
	s.Format, s.Key = lists.APIBAN, "K7"
	return s
}

func TestAPIBAN(t *testing.T) {
	server := &apibanServer{n: 600, limited: 1000}
	p := newPublisher(t, server.ServeHTTP)
	dir := t.TempDir()
	k := fetched(t, apibanSource(p.URL), dir)
	if len(inForce(k)) != 600 {
		t.Fatalf("%d entries", len(inForce(k)))
	}
	server.mu.Lock()
	server.n = 650
	server.mu.Unlock()
	again := started(t, apibanSource(p.URL), dir)
	asked := len(p.asked)
	if err := again.Refresh(t.Context(), "test", false); err != nil || len(inForce(again)) != 650 || len(p.asked) != asked+2 {
		t.Errorf("after a restart: %v, %d entries, %d requests", err, len(inForce(again)), len(p.asked)-asked)
	}
	// Without its addresses the cursor is gone, too.
	dir = t.TempDir()
	anew := fetched(t, apibanSource(p.URL), dir)
	if len(inForce(anew)) != 650 {
		t.Errorf("after a reinstall: %d entries", len(inForce(anew)))
	}
	// Each lives for seven days, unless it is named again.
	real := time.Now()
	later := NewKeeper([]Source{apibanSource(p.URL)}, dir, quiet(), func() {}) // which does not run
	later.fetcher.now = func() time.Time { return real.Add(8 * 24 * time.Hour) }
	if n := lists.Merge(later.Lists(), nil, later.fetcher.now()).Len(); n != 0 {
		t.Errorf("after eight days %d are in force", n)
	}
}

func TestAPIBANSaysWhenToComeAgain(t *testing.T) {
	server := &apibanServer{n: 1000, limited: 2}
	p := newPublisher(t, server.ServeHTTP)
	dir := t.TempDir()
	k := started(t, apibanSource(p.URL), dir)
	err := k.Refresh(t.Context(), "test", false)
	s := k.States()[0]
	if err == nil || !strings.Contains(err.Error(), "429") || s.Entries != 500 || time.Until(s.Next) < 110*time.Second {
		t.Fatalf("%v, %+v", err, s)
	}
	server.mu.Lock()
	server.limited = 100
	server.mu.Unlock()
	again := fetched(t, apibanSource(p.URL), dir) // goes on where it stood
	if len(inForce(again)) != 1000 || !strings.HasSuffix(p.asked[3].URL.Path, "/600") {
		t.Errorf("%d entries, asked for %s", len(inForce(again)), p.asked[3].URL.Path)
	}
}

func TestAPIBANWithAWrongKey(t *testing.T) {
	p := newPublisher(t, (&apibanServer{n: 10}).ServeHTTP)
	s := apibanSource(p.URL)
	s.Key = "wrong"
	k := started(t, s, t.TempDir())
	if err := k.Refresh(t.Context(), "test", false); err == nil || !strings.Contains(err.Error(),
		"403") || len(inForce(k)) != 0 {
		t.Errorf("%v", err)
	}
}

func TestAListIsFetchedByItself(t *testing.T) {
	p := newPublisher(t, text(addresses(3)))
	changed := make(chan struct{}, 1)
	k := NewKeeper([]Source{source(p.URL)}, t.TempDir(), quiet(), func() { changed <- struct{}{} })
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	<-changed
	stop()
	wg.Wait()
	if n := k.Naming(netip.MustParseAddr("198.18.0.2")); len(n) != 1 || n[0].Name != "test" || !n[0].Enforce {
		t.Errorf("%+v", n)
	}
	if err := k.Refresh(t.Context(), "other", false); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// A list that did not change goes on, one of the same address is not fetched anew, and nobody waits for one that is
// gone.
func TestOtherListsAreKept(t *testing.T) {
	hangs := make(chan struct{})
	p := newPublisher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs" {
			close(hangs)
			<-r.Context().Done()
			return
		}
		text(addresses(9))(w, r)
	})
	dir := t.TempDir()
	named := func(name, path string, change func(*Source)) Source {
		s := source(p.URL + path)
		s.Name = name
		change(&s)
		return s
	}
	as := func(*Source) {}
	k := fetched(t, named("test", "/", as), dir)
	k.Configure([]Source{named("hangs", "/hangs", as), named("test", "/", as)})
	kept := k.kept[1]
	<-hangs
	waits := make(chan error, 1)
	go func() { waits <- k.Refresh(t.Context(), "hangs", false) }()
	observing := named("test", "/", func(s *Source) { s.Enforce, s.Refresh = false, 2*time.Hour })
	k.Configure([]Source{observing})
	if err := <-waits; err == nil {
		t.Error("a list that is gone was fetched")
	}
	if k.kept[0] == kept || k.States()[0].Entries != 9 || k.Lists()[0].Enforce || k.States()[0].Next.IsZero() {
		t.Errorf("%+v", k.States())
	}
	k.Configure([]Source{observing, named("moved", "/moved", as)})
	if err := k.Refresh(t.Context(), "moved", false); err != nil || k.States()[1].Entries != 9 {
		t.Errorf("%v, %+v", err, k.States())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, want := range []string{"/", "/hangs", "/moved"} {
		if i >= len(p.asked) || p.asked[i].URL.Path != want {
			t.Errorf("request %d is not for %s, of %d", i, want, len(p.asked))
		}
	}
}
