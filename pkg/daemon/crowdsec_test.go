package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// fakeLAPI is as much of a LAPI as Ringwall asks for; deploy/crowdsec has a real one.
type fakeLAPI struct {
	*httptest.Server
	mu      sync.Mutex
	has     map[string]int // the number of each decision, by its value
	next    int
	allowed string // an address of the allow list
	away    bool
}

func newFakeLAPI(t *testing.T) *fakeLAPI {
	l := &fakeLAPI{has: make(map[string]int)}
	type decision struct {
		ID       int    `json:"id"`
		Value    string `json:"value"`
		Duration string `json:"duration"`
	}
	type alert struct {
		MachineID string     `json:"machine_id"`
		Scenario  string     `json:"scenario"`
		Decisions []decision `json:"decisions"`
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/watchers/login", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"token":"t"}`)
	})
	mux.HandleFunc("GET /v1/allowlists", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `[{"name":"office","items":[{"value":%q}]}]`, l.allowed)
	})
	mux.HandleFunc("POST /v1/alerts", func(w http.ResponseWriter, r *http.Request) {
		var some []alert
		_ = json.NewDecoder(r.Body).Decode(&some)
		ids := make([]string, len(some))
		for i, a := range some {
			l.next++
			l.has[a.Decisions[0].Value], ids[i] = l.next, fmt.Sprint(l.next)
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(ids)
	})
	mux.HandleFunc("GET /v1/alerts", func(w http.ResponseWriter, r *http.Request) {
		all := []alert{}
		for value, id := range l.has {
			if v := r.URL.Query().Get("value"); v == "" || v == value {
				all = append(all, alert{"pbx", "ringwall/x", []decision{{id, value, "1h"}}})
			}
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	mux.HandleFunc("DELETE /v1/decisions/{id}", func(_ http.ResponseWriter, r *http.Request) {
		for value, id := range l.has {
			if fmt.Sprint(id) == r.PathValue("id") {
				delete(l.has, value)
			}
		}
	})
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.away {
			http.Error(w, "gone", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *fakeLAPI) list() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(sortedKeys(l.has), " ")
}

func TestCrowdSecIsToldAndItsAllowListHonoured(t *testing.T) {
	t.Parallel()
	l := newFakeLAPI(t)
	r := newRig(t, func(c *config.Config) {
		c.CrowdSec = config.CrowdSec{URL: l.URL, CredentialsFile: "/credentials", Login: "pbx", ProvenOnly: true,
			Password: config.NewSecret("hunter2")}
	})
	banIt := func(prefix string) {
		t.Helper()
		if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix(prefix), For: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	banIt("203.0.113.9/32")
	banIt("198.51.100.0/24")
	r.attack("IPV4/UDP/203.0.113.66/5060") // which could be forged
	r.await("ban", "203.0.113.66/32")
	r.until("the LAPI has the bans that are proven", func() bool { return l.list() == "198.51.100.0/24 203.0.113.9" })
	if _, err := r.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("198.51.100.0/24")}); err != nil {
		t.Fatal(err)
	}
	r.until("an unban takes it back", func() bool { return l.list() == "203.0.113.9" })

	l.mu.Lock()
	l.away = true
	l.mu.Unlock()
	banIt("203.0.113.10/32")
	r.until("a LAPI that is away is told of", func() bool {
		s := r.status()
		for _, w := range s.Warnings {
			if strings.HasPrefix(w.Text, "crowdsec does not work: the LAPI answers 502") {
				return s.CrowdSec != nil && !s.CrowdSec.Up && s.CrowdSec.Waiting == 2
			}
		}
		return false
	})
	l.mu.Lock()
	l.away, l.allowed = false, "203.0.113.10"
	l.mu.Unlock()
	if d := r.await("unban", "203.0.113.10/32"); d.Reason != ban.ReasonAllowed {
		t.Errorf("%+v", d)
	}
	r.until("all is well again", func() bool {
		s := r.status().CrowdSec
		return s.Up && s.Waiting == 0 && s.Allowed == 1 && l.list() == "203.0.113.9"
	})
	why, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.10"))
	if err != nil || why.Verdict != "allowed" || !strings.Contains(strings.Join(why.Lines, "\n"), "crowdsec") {
		t.Errorf("%+v, %v", why, err)
	}

	// A LAPI that is away during a start locks out nobody whom it allowed.
	l.mu.Lock()
	l.away = true
	l.mu.Unlock()
	r.stop()
	r.start()
	banned, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.10/32"), For: time.Hour})
	if err == nil {
		t.Errorf("whom the allow list named is banned after a restart: %+v", banned)
	}
	l.mu.Lock()
	l.away, l.allowed = false, "203.0.113.11"
	l.mu.Unlock()
	r.until("the list of now counts", func() bool {
		why, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.10"))
		return err == nil && why.Verdict != "allowed"
	})
}
