package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/hosts"
)

func FuzzControlRequest(f *testing.F) {
	f.Add("POST", "/v1/ban", "", `{"prefix":"203.0.113.5","for_seconds":3600,"reason":"x"}`)
	f.Add("POST", "/v1/ban", "", `{"prefix":"::ffff:1.2.3.0/120","for_seconds":1e9}`)
	f.Add("POST", "/v1/unban", "", `{"all":true,"grace_seconds":60}`)
	f.Add("POST", "/v1/allow", "", `{"target":"office.example.net"}`)
	f.Add("GET", "/v1/why", "address=2001:db8::1", "")
	f.Add("GET", "/v1/bans", "within=10.0.0.0/8&evidence=1", "")
	f.Add("GET", "/v1/history", "since=2026-01-31T12:00:00Z&address=1.2.3.4", "")
	f.Add("GET", "/v1/\u202e\x1b", "%ff=\xff", "{")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		if path == "/v1/decisions" {
			return // has no end
		}
		backend := &fake{}
		s := &Server{Backend: backend, Log: slog.New(slog.DiscardHandler), limits: defaultLimits()}
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: path, RawQuery: query}
		w := httptest.NewRecorder()
		s.newHandler().ServeHTTP(w, r)

		switch w.Code {
		case 200, 400, 404, 405, 413:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for line := range strings.Lines(w.Body.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %q", line)
			}
			for _, r := range strings.TrimSuffix(line, "\n") {
				if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
					t.Errorf("%q holds %U", line, r)
				}
			}
		}
		for _, req := range backend.bans {
			p := req.Prefix
			least := MinBits4
			if p.Addr().Is6() {
				least = MinBits6
			}
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Bits() < least ||
				req.For != 0 && (req.For < MinDuration || req.For > MaxDuration) || checkReason(req.Reason) != nil {
				t.Errorf("%q led to %+v", body, req)
			}
		}
		for _, req := range backend.unbans {
			if req.All == req.Prefix.IsValid() || req.Grace < 0 || req.Grace > MaxDuration {
				t.Errorf("%q led to %+v", body, req)
			}
		}
		for _, req := range backend.allows {
			if req.Prefix.IsValid() == (req.Host != "") || req.Host != "" && !hosts.ValidName(req.Host) {
				t.Errorf("%q led to %+v", body, req)
			}
		}
		if path == "/v1/why" && w.Code == 200 && !backend.asked.IsValid() {
			t.Errorf("%q asked for no address", query)
		}
	})
}
