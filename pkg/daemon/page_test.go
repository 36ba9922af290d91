package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/internal/browser"
)

// site is the address of the metrics and the page.
func (r *rig) site() string {
	r.t.Helper()
	url, up := r.openSite()
	if !up {
		r.t.Fatal("there is no listener")
	}
	return url
}

// openSite is the address of the metrics and the page, where they have a listener at present.
func (r *rig) openSite() (url string, up bool) {
	for _, p := range r.d.parts {
		p.mu.Lock()
		tasks := p.opened.tasks
		p.mu.Unlock()
		for _, task := range tasks {
			if m, ok := task.(*metricsServer); ok {
				return "http://" + m.listener.Addr().String(), true
			}
		}
	}
	return "", false
}

// From Asterisk's event to the button in a browser, and from there to the kernel.
func TestAttackerIsSeenAndUnbannedInABrowser(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := browser.Open(t)
	b.Go(r.site())
	b.Until(`document.getElementById("live").className === "live on"`)
	b.Until(`document.querySelector("#health h2").textContent === "Ringwall is working: attackers are kept out"`)
	b.Until(`document.getElementById("bans").innerText.includes("Nobody is banned.")`)

	r.login("IPV4/UDP/198.51.100.10/5060", "201")
	for range 3 {
		r.calls++
		r.event("InvalidAccountID", `<img src=x onerror=alert(1)>`, fmt.Sprintf("call-%d", r.calls), attacker, "")
	}
	r.await(ban.ActionBan, "203.0.113.66/32")
	b.Until(`document.querySelector('#bans tr[data-key="203.0.113.66/32"]')`)
	b.Until(`document.getElementById("trusted").innerText.includes("198.51.100.10")`)
	b.Until(`document.getElementById("accounts").innerText.includes("<img src=x onerror=alert(1)>")`)
	b.Until(`document.querySelector("#chart desc").textContent.startsWith("3 attempts and 1 ban ")`)
	if n := browser.Eval[int](b, `document.querySelectorAll("img").length`); n != 0 {
		t.Errorf("a name made %d images", n)
	}

	res, err := r.client.Page(t.Context())
	if err != nil || !res.Writable {
		t.Fatalf("%+v, %v", res, err)
	}
	b.Go(res.Address)
	b.Until(`location.pathname === "/" && document.querySelector(".rights")`)
	b.Click(`#bans tr[data-key="203.0.113.66/32"] a`)
	b.Until(`location.pathname === "/why" && document.querySelector("h1").innerText.startsWith("203.0.113.66 is banned until ")`)
	b.Click(`button[formaction="/unban"]`)
	b.Until(`document.querySelector(".told") && document.querySelector("h1").innerText.startsWith("203.0.113.66 is not banned")`)
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("the answer came, and the kernel still has the ban")
	}
	b.Click(`a[href$="#allow"]`)
	b.Until(`location.hash === "#allow" && document.querySelector("#allow")`)
	b.Click(`#allow button[value="week"]`)
	b.Until(`document.querySelector("h1").innerText.startsWith("203.0.113.66 is never banned")`)
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); !ok {
		t.Error("the answer came, and the kernel does not have the exemption")
	}
	b.Quiet()
}

func TestThePageCanBeTurnedOff(t *testing.T) {
	r := newRig(t, func(cfg *config.Config) { cfg.Metrics.Page = false })
	if text := get(t, r.site()+"/"); !strings.HasPrefix(text, "Ringwall. Metrics are at /metrics") {
		t.Errorf("%.200s", text)
	}
	if text := get(t, r.site()+"/why?address=203.0.113.5"); !strings.Contains(text, "404") {
		t.Errorf("%.200s", text)
	}
	if _, err := r.client.Page(t.Context()); err == nil || !strings.Contains(err.Error(), "turns the status page off") {
		t.Error(err)
	}
}

// Metrics are scraped by whatever name; the page is not for other sites.
func TestOnlyMetricsGoByAnyName(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/": http.StatusMisdirectedRequest,
		"/events": http.StatusMisdirectedRequest} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.site()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "rebound.example"
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// The stream outlives the deadlines of the server, and ends with the daemon.
func TestTheStreamEndsWithTheDaemon(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.site()+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	r.stop()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "event: hello") {
		t.Errorf("%v: %.200s", err, text)
	}
}

// BenchmarkPage is one look at the page with a number of bans in force.
func BenchmarkPage(b *testing.B) {
	for _, bans := range []int{10, 100_000} {
		b.Run(fmt.Sprint(bans), func(b *testing.B) {
			cfg := config.Default()
			cfg.Control.Socket, cfg.State.Path, cfg.Metrics.Listen = "", "", "127.0.0.1:0"
			d, err := New(Options{Config: &cfg, DryRun: true, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := d.Close(); err != nil {
					b.Error(err)
				}
			}()
			d.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
				for i := range bans {
					a := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
					if _, err := e.Ban(now, netip.PrefixFrom(a, 32), time.Hour, "a comment of a person"); err != nil {
						b.Fatal(err)
					}
				}
			})
			var bytes int
			h := d.page.Load().Handler()
			held := time.Duration(0)
			for b.Loop() {
				w, req := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
				req.Host = "localhost"
				h.ServeHTTP(w, req)
				bytes = w.Body.Len()
			}
			for range 20 {
				begun := time.Now()
				_, _, _ = backend{d}.NewestBans(100), backend{d}.NewestTrusted(50), backend{d}.Activity(15)
				held = max(held, time.Since(begun))
			}
			b.ReportMetric(float64(bytes), "bytes")
			b.ReportMetric(float64(held.Microseconds()), "µs-locked-at-most")
		})
	}
}
