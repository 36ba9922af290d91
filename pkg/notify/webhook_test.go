package notify

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

const secret = "xoxb-s3cret-t0ken"

// attempt sends one message to handler, which may be nil for an address where nobody listens.
func attempt(t *testing.T, server *httptest.Server, change ...func(*config.Notify)) error {
	t.Helper()
	cfg := team(change...)
	if cfg.URL.Reveal() == team().URL.Reveal() {
		cfg.URL = config.NewSecret(server.URL + "/services/" + secret + "/{id}?key=" + secret)
	}
	w, err := newWebhook(cfg, (&net.Dialer{}).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	ctx, cancel := context.WithTimeout(t.Context(), cfg.Timeout)
	defer cancel()
	m := describeDecision(banDecision(1), "host")
	m.ID = "id-1"
	err = w.sendMessage(ctx, m)
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			t.Fatalf("%T: %v", err, err)
		}
		if shown := fmt.Sprintf("%v %+v", err, *f); strings.Contains(shown, "s3cret") ||
			strings.Contains(shown, "services") {
			t.Errorf("the error shows the address: %s", shown)
		}
	}
	return err
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestWebhookSendsWhatWasAskedFor(t *testing.T) {
	type request struct {
		method, path, query, body string
		header                    http.Header
	}
	var got request
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = request{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header}
	})
	if err := attempt(t, s, func(c *config.Notify) {
		c.Method, c.Token, c.Headers = "PUT", config.NewSecret("t1"),
			map[string]config.Secret{"x-site": config.NewSecret("hq")}
	}); err != nil {
		t.Fatal(err)
	}
	var m message.Message
	if err := json.Unmarshal([]byte(got.body), &m); err != nil || m.Prefix != "10.0.0.1/32" || m.ID != "id-1" ||
		m.Seconds != 3600 {
		t.Errorf("%v: %s", err, got.body)
	}
	if got.method != "PUT" || got.path != "/services/"+secret+"/id-1" || got.query != "key="+secret ||
		got.header.Get("Content-Type") != "application/json" || got.header.Get("Authorization") != "Bearer t1" ||
		got.header.Get("X-Site") != "hq" {
		t.Errorf("%+v", got)
	}
	if err := attempt(t, s, func(c *config.Notify) {
		c.Token, c.Body, c.ContentType = config.NewSecret("t1"), "token={{.Token}}", "text/plain"
	}); err != nil {
		t.Fatal(err)
	}
	if got.body != "token=t1" || got.header.Get("Authorization") != "" ||
		got.header.Get("Content-Type") != "text/plain" {
		t.Errorf("a token in the body: %+v", got)
	}
}

func TestWebhookTellsWhatIsWorthAnotherAttempt(t *testing.T) {
	for _, row := range []struct {
		code       int
		retryAfter string
		final      bool
		after      time.Duration
	}{
		{500, "", false, 0}, {502, "", false, 0}, {503, "7", false, 7 * time.Second},
		{429, "1.5", false, 1500 * time.Millisecond},
		{429, "999999999", false, maxRetryAfter}, {429, "soon", false, 0}, {429, "-5", false, 0},
		{429, "NaN", false, 0},
		{429, "Thu, 01 Jan 1970 00:00:00 GMT", false, 0}, {408, "", false, 0}, {425, "", false, 0},
		{400, "", true, 0}, {401, "60", true, 0}, {403, "", true, 0}, {404, "", true, 0}, {410, "", true, 0},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if row.retryAfter != "" {
				w.Header().Set("Retry-After", row.retryAfter)
			}
			w.WriteHeader(row.code)
			_, _ = io.WriteString(w, "no\x1b[2J_service")
		})
		var f *failure
		if err := attempt(t, s); !errors.As(err, &f) || f.permanent != row.final || f.retryAfter != row.after ||
			f.output != `no\x1b[2J_service` ||
			!strings.Contains(f.cause, fmt.Sprint(row.code)) {
			t.Errorf("%d %q: %+v", row.code, row.retryAfter, f)
		}
	}
}

func TestWebhookFollowsNoRedirect(t *testing.T) {
	other := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+r.URL.Path, code) })
		var f *failure
		if err := attempt(t, s); !errors.As(err, &f) || !f.permanent || !strings.Contains(f.cause, "redirect") {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func TestWebhookEndsWithItsTimeout(t *testing.T) {
	release := make(chan struct{})
	hang := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	slow := serve(t, func(w http.ResponseWriter, _ *http.Request) { // an endless answer, a byte at a time
		w.WriteHeader(http.StatusServiceUnavailable)
		for {
			select {
			case <-release:
				return
			default:
			}
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing, not even TLS
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	t.Cleanup(func() { close(release) }) // before the servers close
	short := func(c *config.Notify) { c.Timeout = 200 * time.Millisecond }
	for name, row := range map[string]struct {
		server *httptest.Server
		url    string
	}{"hang": {server: hang}, "slow": {server: slow}, "silent": {url: "https://" + silent.Addr().String()}} {
		start := time.Now()
		err := attempt(t, row.server, short, func(c *config.Notify) {
			if row.url != "" {
				c.URL = config.NewSecret(row.url)
			}
		})
		var f *failure
		if !errors.As(err, &f) || f.permanent {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("%s: after %v", name, took)
		}
	}
}

func TestWebhookReadsLittleOfALongAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, strings.Repeat("\x1b", 10<<20))
	})
	var f *failure
	if err := attempt(t, s); !errors.As(err, &f) || len(f.output) > maxAnswerLogged+20 ||
		strings.Contains(f.output, "\x1b") {
		t.Errorf("%d bytes", len(f.output))
	}
}

func TestWebhookHidesAnAnswerThatRepeatsTheAddress(t *testing.T) {
	for _, with := range []func(r *http.Request) string{
		func(r *http.Request) string { return "no route for " + r.URL.Path },
		func(r *http.Request) string { return "bad key " + r.URL.Query().Get("key") },
		func(r *http.Request) string { return "bad " + r.Header.Get("Authorization") },
		func(r *http.Request) string { return "bad " + r.Header.Get("X-Key") },
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, with(r))
		})
		var f *failure
		err := attempt(t, s, func(c *config.Notify) {
			c.Token, c.Headers = config.NewSecret("b-s3cret"),
				map[string]config.Secret{"X-Key": config.NewSecret("h-s3cret")}
		})
		if !errors.As(err, &f) || f.output != "(hidden)" {
			t.Errorf("%+v", f)
		}
	}
}

func TestWebhookChecksCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(t.Output(), "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	var f *failure
	if err := attempt(t, s); !errors.As(err, &f) || !strings.Contains(f.cause, "signed by nobody") {
		t.Errorf("an unknown authority: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := func(c *config.Notify) { c.CAFile = ca }
	if err := attempt(t, s, trusting); err != nil {
		t.Errorf("with its ca_file: %v", err)
	}
	// The certificate of httptest is for 127.0.0.1, ::1 and example.com.
	if err := attempt(t, s, trusting, func(c *config.Notify) {
		c.URL = config.NewSecret(strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/" + secret)
	}); !errors.As(err, &f) || !strings.Contains(f.cause, "another name") {
		t.Errorf("another name: %v", err)
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	if err := attempt(t, plain, func(c *config.Notify) {
		c.URL = config.NewSecret(strings.Replace(plain.URL, "http:", "https:", 1) + "/" + secret)
	}); !errors.As(err, &f) || f.permanent || !strings.Contains(f.cause, "TLS") {
		t.Errorf("a server without TLS: %v", err)
	}
}

func TestWebhookNamesWhatIsWrongWithTheWay(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	var f *failure
	if err := attempt(t, gone); !errors.As(err, &f) || f.permanent || f.cause != "connection refused" {
		t.Errorf("nobody listens: %v", err)
	}
	cut := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := attempt(t, cut); !errors.As(err, &f) || f.permanent ||
		!strings.Contains(f.cause, "closed the connection") {
		t.Errorf("the server hangs up: %v", err)
	}
	if err := attempt(t, nil, func(c *config.Notify) { c.URL = config.NewSecret("(hidden)") }); !errors.As(err, &f) {
		t.Errorf("no address: %v", err)
	}
}

// TestNoLogHoldsASecret runs a whole Notifier against failures of each kind, with the most verbose log.
func TestNoLogHoldsASecret(t *testing.T) {
	var mu sync.Mutex
	answers := []int{503, 429, 302, 404, 200}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		code := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		w.Header().Set("Location", "http://127.0.0.1/"+secret)
		w.WriteHeader(code)
		_, _ = fmt.Fprint(w, r.URL, r.Header)
	})
	b := new(book)
	n, err := New([]config.Notify{team(func(c *config.Notify) {
		c.URL, c.Token = config.NewSecret(s.URL+"/"+secret+"?k="+secret), config.NewSecret(secret)
		c.Headers = map[string]config.Secret{"X-Key": config.NewSecret(secret)}
	})}, b.options())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, n)
	for i := range 3 { // 503, 429 and 302; 404; 200
		n.Push(banDecision(i))
	}
	for deadline := time.Now().Add(time.Minute); b.total("team sent") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never delivered: %s", b)
		}
	}
	stop()
	if text := b.String(); strings.Contains(text, "s3cret") || strings.Contains(text, s.URL) ||
		!strings.Contains(text, "HTTP 404") {
		t.Errorf("log: %s", text)
	}
	if b.total("team failed") != 2 {
		t.Errorf("%v", b.counts)
	}
}

// TestRealHTTPInVirtualTime runs server and client over pipes, so that retries take no time.
func TestRealHTTPInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{c: make(chan net.Conn), done: make(chan struct{})}
		attempts := 0
		var bodies []string
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch attempts++; attempts {
			case 1:
				time.Sleep(time.Hour) // longer than the client waits
			case 2:
				w.WriteHeader(http.StatusInternalServerError)
			case 3:
				w.Header().Set("Retry-After", "120")
				w.WriteHeader(http.StatusTooManyRequests)
			default:
				bodies = append(bodies, string(body))
			}
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(l) }()
		b := new(book)
		n, err := New([]config.Notify{team(func(c *config.Notify) {
			c.URL = config.NewSecret("http://127.0.0.1/" +
				secret)
		})}, b.options())
		if err != nil {
			t.Fatal(err)
		}
		n.targets[0].sender.(*webhookSender).client.Transport.(*http.Transport).DialContext = l.dial
		stop := run(t, n)
		start := time.Now()
		n.Push(banDecision(1))
		n.Push(banDecision(2))
		for b.total("team sent") < 2 {
			pass(time.Second)
		}
		if took := time.Since(start); took < 130*time.Second || took > 140*time.Second {
			t.Errorf("delivered after %v", took)
		}
		if attempts != 5 || !strings.Contains(bodies[0], "10.0.0.1/32") || !strings.Contains(bodies[1], "10.0.0.2/32") {
			t.Errorf("%d attempts, %s", attempts, bodies)
		}
		stop()
		time.Sleep(2 * time.Hour) // the handler that slept ends too
		_ = server.Close()
		<-served
	})
}

// pipes is a listener in memory.
type pipes struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.c <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.c:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
