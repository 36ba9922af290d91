package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
)

// waiting is how long a test waits for what must happen.
const waiting = 2 * time.Minute

// stream is a client of the events of a real server.
type stream struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Scanner
}

func listen(t *testing.T, url string, cookies ...*http.Cookie) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cookies {
		req.AddCookie(c)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	return &stream{t, resp, lines}
}

// next returns the next event; ok is false at the end of the stream.
func (s *stream) next() (event string, data map[string]any, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "event":
			event = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				s.t.Fatal(err)
			}
		case "":
			if event != "" {
				return event, data, true
			}
		}
	}
	return "", nil, false
}

// part waits for a part that holds a text.
func (s *stream) part(name, text string) string {
	s.t.Helper()
	for {
		event, data, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream ended before %q was in part %s: %v", text, name, s.lines.Err())
		}
		if html, _ := data["html"].(string); event == "part" && data["part"] == name && strings.Contains(html, text) {
			return html
		}
	}
}

func TestABanAppearsInEveryStream(t *testing.T) {
	s := serve(t, newFake())
	a, b := listen(t, s.url), listen(t, s.url)
	for _, client := range []*stream{a, b} {
		if event, data, ok := client.next(); !ok || event != "hello" || data["act"] != false {
			t.Fatalf("%s %v", event, data)
		}
		client.part("bans", "Nobody is banned.")
	}
	s.f.ban(banOf("203.0.113.66/32", "1000"))
	s.feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan, Reason: ban.ReasonUnknownAccount,
		Prefix: netip.MustParsePrefix("203.0.113.66/32"), Account: "1000"})
	for _, client := range []*stream{a, b} {
		if html := client.part("bans", "203.0.113.66"); strings.Contains(html, "<button") {
			t.Error("there is a button for who may not use it")
		}
		client.part("decisions", "banned")
	}
	late := listen(t, s.url)
	late.part("bans", "203.0.113.66")
}

func TestAStreamOfASessionHasButtons(t *testing.T) {
	s := serve(t, newFake())
	s.f.ban(banOf("203.0.113.66/32", "1000"))
	secret, _ := s.sessions.issueTicket(time.Now(), api.Peer{User: "alice"})
	open, _, _ := s.sessions.openSession(time.Now(), secret)
	c := listen(t, s.url, &http.Cookie{Name: cookieName, Value: open})
	if event, data, _ := c.next(); event != "hello" || data["act"] != true {
		t.Fatalf("%s %v", event, data)
	}
	if html := c.part("bans", "203.0.113.66"); !strings.Contains(html, `formaction="/unban"`) ||
		strings.Contains(html, `name="token"`) {
		t.Error(html)
	}
}

func TestTooManyStreamsAreTurnedAway(t *testing.T) {
	s := serve(t, newFake())
	var all []*stream
	for range maxStreams {
		c := listen(t, s.url)
		if _, _, ok := c.next(); !ok {
			t.Fatal("a stream ended")
		}
		all = append(all, c)
	}
	more := listen(t, s.url)
	text, _ := io.ReadAll(more.resp.Body)
	if more.resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "too many pages") {
		t.Errorf("%d %s", more.resp.StatusCode, text)
	}
	if resp := listenOnce(t, s.url); resp != http.StatusOK {
		t.Errorf("the page itself: %d", resp)
	}
	_ = all[0].resp.Body.Close()
	deadline := time.Now().Add(waiting)
	for listen(t, s.url).resp.StatusCode != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("who leaves makes no room")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func listenOnce(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A client that reads nothing must hold up nobody: not those who decide, not the other clients, not the end of the
// server.
func TestAStalledClientHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	s := serve(t, newFake())
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.(*net.TCPConn).SetReadBuffer(1)
	if _, err := fmt.Fprintf(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	other := listen(t, s.url)
	other.part("bans", "Nobody is banned.")
	for i := range 20 { // far more than fits into the sockets' buffers, at a pace that makes generations
		for n := range 50 {
			prefix := fmt.Sprintf("203.0.%d.%d/32", i, n)
			s.f.ban(banOf(prefix, strings.Repeat("x", 36)))
			s.feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan, Prefix: netip.MustParsePrefix(prefix)})
		}
		if i%5 == 0 {
			other.part("bans", fmt.Sprintf("203.0.%d.49", i))
		}
	}
	other.part("bans", "203.0.19.49")
	begun := time.Now()
	s.stop()
	if d := time.Since(begun); d > waiting {
		t.Errorf("the end took %v", d)
	}
}

func TestStreamsEndWithThePage(t *testing.T) {
	s := serve(t, newFake())
	c := listen(t, s.url)
	c.part("health", "Ringwall is working")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, _, ok := c.next(); !ok {
				return
			}
		}
	}()
	s.stop()
	select {
	case <-done:
	case <-time.After(waiting):
		t.Error("the stream goes on")
	}
}

// recorder is what a stream writes, without a network.
type recorder struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ResponseRecorder.Write(p)
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Body.String()
}

// streaming serves the events of a page in the test's own time, and calls f while it does.
func streaming(t *testing.T, fake *fake, change func(*Page, *http.Request),
	f func(p *Page, w *recorder, ended func() bool)) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, fake, "127.0.0.1:9646")
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = p.Run(ctx) })
		w := &recorder{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx)
		r.Host = "localhost"
		if change != nil {
			change(p, r)
		}
		done := make(chan struct{})
		group.Go(func() {
			defer close(done)
			p.Handler().ServeHTTP(w, r)
		})
		synctest.Wait()
		f(p, w, func() bool {
			synctest.Wait()
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
		cancel()
		group.Wait()
	})
}

func TestASilentStreamShowsThatItIsAlive(t *testing.T) {
	streaming(t, newFake(), nil, func(_ *Page, w *recorder, ended func() bool) {
		time.Sleep(10*time.Minute + time.Second)
		if ended() {
			t.Fatal("the stream ended")
		}
		if n := strings.Count(w.text(), "event: beat\n"); n != 60 {
			t.Errorf("%d signs of life in ten minutes, want 60", n)
		}
		// Time passes, and nothing else: what is shown is not sent again.
		if n := strings.Count(w.text(), `"part":"bans"`); n != 1 {
			t.Errorf("the bans were sent %d times", n)
		}
	})
}

func TestABanIsSentWithinASecond(t *testing.T) {
	f := newFake()
	streaming(t, f, nil, func(p *Page, w *recorder, _ func() bool) {
		time.Sleep(5 * time.Second)
		f.ban(banOf("203.0.113.66/32"))
		p.Feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan,
			Prefix: netip.MustParsePrefix("203.0.113.66/32")})
		time.Sleep(time.Second)
		synctest.Wait()
		if !strings.Contains(w.text(), "203.0.113.66") {
			t.Error("the ban was not sent")
		}
	})
}

// A flood of decisions is a few looks at the engine a second, however many decide and however many look.
func TestAFloodAsksTheEngineSeldom(t *testing.T) {
	f := newFake()
	streaming(t, f, nil, func(p *Page, w *recorder, _ func() bool) {
		before := f.looks()
		for i := range 10_000 {
			f.ban(banOf(fmt.Sprintf("10.%d.%d.1/32", i>>8, i&255)))
			p.Feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan, Account: fmt.Sprint(i)})
			time.Sleep(time.Millisecond)
		}
		if n := f.looks() - before; n > 60 || n < 10 {
			t.Errorf("%d looks in ten seconds, want about five a second", n)
		}
		if n := strings.Count(w.text(), `"part":"bans"`); n > 25 || n < 5 {
			t.Errorf("the bans were sent %d times in ten seconds, want about two a second", n)
		}
	})
}

func TestNobodyLooksSoNobodyIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		p := made(t, f, "127.0.0.1:9646")
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = p.Run(ctx) })
		for range 100 {
			p.Feed.Publish(ban.Decision{Time: time.Now(), Action: ban.ActionBan})
			time.Sleep(time.Second)
		}
		if n := f.looks(); n != 0 {
			t.Errorf("the engine was asked %d times", n)
		}
		cancel()
		group.Wait()
	})
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	streaming(t, newFake(), func(p *Page, r *http.Request) {
		ticket, _ := p.sessions.issueTicket(time.Now(), api.Peer{})
		secret, _, _ := p.sessions.openSession(time.Now(), ticket)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: secret})
	}, func(_ *Page, _ *recorder, ended func() bool) {
		time.Sleep(sessionLifetime - time.Second)
		if ended() {
			t.Error("the stream ended early")
		}
		time.Sleep(time.Minute)
		if !ended() {
			t.Error("the stream outlives the session: the buttons stay")
		}
	})
}
