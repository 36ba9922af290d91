package crowdsec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
)

// server behaves as a LAPI of CrowdSec 1.7, and badly where a test says so. What the real one of Debian's does is in
// deploy/crowdsec.
type server struct {
	mu         sync.Mutex
	logins     int
	tokens     int // that are good; those of before are not any more
	alerts     []alert
	nextID     int64
	allowLists string
	// spoil answers in place of the server; nil, or false: it does not.
	spoil func(w http.ResponseWriter, r *http.Request) bool
	asked []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	if s.spoil != nil && s.spoil(w, r) {
		return
	}
	if r.URL.Path == "/v1/watchers/login" {
		var who struct {
			MachineID string `json:"machine_id"`
			Password  string
		}
		if json.NewDecoder(r.Body).Decode(&who); who.MachineID != "pbx" || who.Password != "hunter2" {
			http.Error(w, `{"code":401,"message":"incorrect Username or Password"}`, http.StatusUnauthorized)
			return
		}
		s.logins++
		s.tokens = s.logins
		fmt.Fprintf(w, `{"code":200,"expire":"2026-11-29T16:50:50Z","token":"token%d"}`, s.logins)
		return
	}
	if r.Header.Get("Authorization") != fmt.Sprintf("Bearer token%d", s.tokens) {
		http.Error(w, `{"code":401,"message":"Token is expired"}`, http.StatusUnauthorized)
		return
	}
	id, isOne := strings.CutPrefix(r.URL.Path, "/v1/decisions/")
	switch {
	case r.URL.Path == "/v1/allowlists":
		if s.allowLists == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, s.allowLists)
	case r.URL.Path == "/v1/alerts" && r.Method == http.MethodPost:
		var some []alert
		if err := json.NewDecoder(r.Body).Decode(&some); err != nil {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		ids := []string{}
		for _, a := range some {
			s.nextID++
			a.MachineID = "pbx"
			a.Decisions[0].ID = s.nextID
			s.alerts = append(s.alerts, a)
			ids = append(ids, strconv.FormatInt(s.nextID, 10))
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(ids)
	case r.URL.Path == "/v1/alerts":
		found := []alert{}
		for _, a := range s.alerts {
			if v := r.URL.Query().Get("value"); v == "" || v == a.Source.Value {
				found = append(found, a)
			}
		}
		_ = json.NewEncoder(w).Encode(found)
	case isOne && r.Method == http.MethodDelete:
		s.alerts = slices.DeleteFunc(s.alerts, func(a alert) bool {
			return strconv.FormatInt(a.Decisions[0].ID, 10) == id
		})
		_, _ = io.WriteString(w, `{"nbDeleted":"1"}`)
	default:
		http.NotFound(w, r)
	}
}

// has is what the server has, sorted.
func (s *server) has() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.alerts {
		all = append(all, a.Source.Value)
	}
	slices.Sort(all)
	return all
}

func (s *server) spoilt(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = f
}

// rig is a Reporter that does not run, and its server.
type rig struct {
	*Reporter
	server  *server
	bans    []Ban
	allowed []Allowed
	said    strings.Builder
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{server: &server{}}
	h := httptest.NewServer(r.server)
	t.Cleanup(h.Close)
	var err error
	r.Reporter, err = NewReporter(Options{
		Account: Account{URL: h.URL, Login: "pbx", Password: "hunter2"},
		Bans:    func(context.Context) ([]Ban, error) { return r.bans, nil },
		Allow:   func(list []Allowed) { r.allowed = list },
		Fault:   func(error) {},
		Log:     slog.New(slog.NewTextHandler(&r.said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try makes a round as Run does.
func (r *rig) try(t *testing.T) error {
	t.Helper()
	err := r.round(t.Context())
	r.note(err)
	if err != nil {
		r.told = nil
	}
	return err
}

func (r *rig) works(t *testing.T, want ...string) {
	t.Helper()
	if err := r.try(t); err != nil {
		t.Fatal(err)
	}
	if got := r.server.has(); !slices.Equal(got, want) {
		t.Fatalf("the LAPI has %q instead of %q", got, want)
	}
}

func banUntil(prefix string, left time.Duration) Ban {
	return Ban{Prefix: netip.MustParsePrefix(prefix), Reason: "unknown_account", Since: time.Now(),
		Until: time.Now().Add(left)}
}

func TestWhatFails(t *testing.T) {
	answer := func(status int, text string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
			return true
		}
	}
	on := func(request string, do func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter,
		*http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method+" "+r.URL.Path == request && do(w, r)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(http.ResponseWriter, *http.Request) bool
		says  string
	}{
		{"a database that is gone", on("POST /v1/alerts", answer(500, `{"message":"unable to create alerts"}`)),
			"the LAPI answers 500 Internal Server Error: "},
		{"an error with status 200", on("GET /v1/alerts", answer(200, `{"message":"database is locked"}`)),
			"the LAPI answers what is none"},
		{"an error in place of numbers", on("POST /v1/alerts", answer(201, `{"message":"database is locked"}`)),
			"the LAPI answers what is none"},
		{"alerts that it did not take", on("POST /v1/alerts", answer(201, `["7"]`)), "the LAPI took 1 of 2 alerts"},
		{"an answer that breaks off", on("GET /v1/alerts", answer(200, `[{"machine_id":"pbx","scena`)),
			"the LAPI answers what is none"},
		{"a page of a proxy's", on("POST /v1/watchers/login", answer(200, `<html>`)), "the LAPI answers what is none"},
		{"no token", on("POST /v1/watchers/login", answer(200, `{}`)), "gives no token"},
		{"a machine that was not validated", on("POST /v1/watchers/login", answer(403, `{"message":"not validated"}`)),
			"does not let this machine in"},
		{"a redirect", answer(302, ""), "302"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.bans = []Ban{banUntil("192.0.2.7/32", time.Hour), banUntil("198.51.100.0/24", time.Hour)}
			r.server.spoilt(c.spoil)
			err := r.try(t)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v", err)
			}
			if s := r.Status(); s.Up || s.Waiting != 2 || s.Failures != 1 || s.Error == "" {
				t.Errorf("%+v", s)
			}
			if strings.Contains(err.Error()+hint.Of(err), "hunter2") {
				t.Error("the password is shown")
			}
			r.server.spoilt(nil)
			r.works(t, "192.0.2.7", "198.51.100.0/24")
			if s := r.Status(); !s.Up || s.Waiting != 0 || s.Told != 2 || s.Error != "" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// An answer that was lost is no reason to say everything twice.
func TestAnAnswerIsLost(t *testing.T) {
	r := newRig(t)
	r.bans = []Ban{banUntil("192.0.2.7/32", time.Hour)}
	r.server.spoilt(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPost || q.URL.Path != "/v1/alerts" {
			return false
		}
		r.server.spoil = nil
		r.server.mu.Unlock()
		r.server.ServeHTTP(httptest.NewRecorder(), q)
		r.server.mu.Lock()
		panic(http.ErrAbortHandler)
	})
	if err := r.try(t); err == nil {
		t.Fatal("it worked")
	}
	r.works(t, "192.0.2.7")
}

func TestATokenExpires(t *testing.T) {
	r := newRig(t)
	r.works(t)
	r.server.mu.Lock()
	r.server.tokens = -1
	r.server.mu.Unlock()
	r.bans = []Ban{banUntil("192.0.2.7/32", time.Hour)}
	r.works(t, "192.0.2.7")
	if r.server.logins != 2 {
		t.Errorf("%d logins", r.server.logins)
	}
	// A LAPI that takes no token is not asked for one for ever.
	r.server.spoilt(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/v1/watchers/login" {
			return false
		}
		http.Error(w, `{"code":401}`, http.StatusUnauthorized)
		return true
	})
	if err := r.try(t); err == nil || r.server.logins != 3 {
		t.Errorf("%v, %d logins", err, r.server.logins)
	}
}

func TestAllowListsAreHonoured(t *testing.T) {
	r := newRig(t)
	r.bans = []Ban{banUntil("192.0.2.7/32", time.Hour), banUntil("198.51.100.0/24", time.Hour),
		banUntil("203.0.113.9/32", time.Hour)}
	r.works(t, "192.0.2.7", "198.51.100.0/24", "203.0.113.9")
	if r.Status().AllowLists {
		t.Error("404 is an allow list")
	}
	// As pkg/apiserver/controllers/v1/allowlist.go writes them.
	r.server.mu.Lock()
	r.server.allowLists = `[{"allowlist_id":"7","name":"office","description":"","items":[
		{"created_at":"2026-01-01T00:00:00.000Z","value":"192.0.2.7","expiration":"0001-01-01T00:00:00.000Z"},
		{"value":"198.51.100.9","expiration":"9999-01-01T00:00:00.000Z"},
		{"value":"203.0.113.9","expiration":"2001-01-01T00:00:00.000Z"},
		{"value":"0.0.0.0/0"},{"value":"::/0"},{"value":"nonsense"},{"value":""}]},
		{"name":"empty","items":null}]`
	r.server.mu.Unlock()
	r.works(t, "203.0.113.9")
	want := []Allowed{{netip.MustParsePrefix("192.0.2.7/32"), "office"}, {netip.MustParsePrefix("198.51.100.9/32"), "office"}}
	if !slices.Equal(r.allowed, want) {
		t.Errorf("%v", r.allowed)
	}
	if s := r.Status(); s.Allowed != 2 || s.Refused != 2 || s.OnAllowList != 2 || !s.AllowLists {
		t.Errorf("%+v", s)
	}
	for _, said := range []string{"not honoured", "where its allow lists name somebody"} {
		if !strings.Contains(r.said.String(), said) {
			t.Errorf("it does not say %q:\n%s", said, r.said.String())
		}
	}
	r.server.spoilt(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path != "/v1/allowlists" {
			return false
		}
		_, _ = io.WriteString(w, `{"message":"database is locked"}`)
		return true
	})
	if err := r.try(t); err == nil || !slices.Equal(r.allowed, want) {
		t.Errorf("%v, %v", err, r.allowed)
	}
}

// What a LAPI keeps is bounded, and so is what it is told: those that last longest.
func TestMoreBansThanALAPIKeeps(t *testing.T) {
	r := newRig(t)
	for i := range maxBans + 3 {
		b := banUntil(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32).String(),
			time.Hour+time.Duration(i)*time.Second)
		r.bans = append(r.bans, b)
	}
	if err := r.try(t); err != nil {
		t.Fatal(err)
	}
	if got := r.server.has(); len(got) != maxBans || slices.Contains(got, "10.0.0.2") || !slices.Contains(got, "10.0.0.3") {
		t.Errorf("%d bans", len(got))
	}
	if s := r.Status(); s.LeftOut != 3 || s.Told != maxBans || !strings.Contains(r.said.String(), "left_out=3") {
		t.Errorf("%+v", s)
	}
}

func TestCompare(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := netip.MustParsePrefix("192.0.2.7/32")
	for _, c := range []struct {
		name         string
		told, wanted time.Duration // 0: not at all
		add, remove  bool
	}{
		{"new", 0, time.Hour, true, false},
		{"the same", time.Hour, time.Hour, false, false},
		{"extended by little", time.Hour, 70 * time.Minute, false, false},
		{"extended by much", time.Hour, 2 * time.Hour, true, false},
		{"extended by little, and nearly over there", time.Minute, 11 * time.Minute, true, false},
		{"shorter", 3 * time.Hour, time.Hour, true, true},
		{"over", time.Hour, 0, false, true},
		{"over, and there soon", 10 * time.Second, 0, false, false},
		{"over there", -time.Second, time.Hour, true, false},
		{"over everywhere", -time.Second, 0, false, false},
	} {
		told, wanted := map[netip.Prefix]time.Time{}, map[netip.Prefix]Ban{}
		if c.told != 0 {
			told[p] = now.Add(c.told)
		}
		if c.wanted != 0 {
			wanted[p] = Ban{Prefix: p, Until: now.Add(c.wanted)}
		}
		add, remove := compare(wanted, told, now)
		if len(add) > 0 != c.add || len(remove) > 0 != c.remove {
			t.Errorf("%s: add %v, remove %v", c.name, add, remove)
		}
	}
}

// A decision begins with stop_at, by the LAPI's clock.
func TestAClockThatDiffers(t *testing.T) {
	r := newRig(t)
	r.server.spoilt(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(3*time.Hour).UTC().Format(http.TimeFormat))
		return false
	})
	r.bans = []Ban{banUntil("192.0.2.7/32", time.Hour)}
	r.works(t, "192.0.2.7")
	a := r.server.alerts[0]
	stop, err := time.Parse(time.RFC3339, a.StopAt)
	if ahead := time.Until(stop); err != nil || (ahead-3*time.Hour).Abs() > time.Hour {
		t.Errorf("stop_at %s, %v", a.StopAt, err)
	}
	if a.Decisions[0].Duration != "1h0m0s" {
		t.Error(a.Decisions[0].Duration)
	}
}

// A LAPI that is away for an hour is left alone for up to a minute each time, and then told all that still holds.
func TestALAPIThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		var mu sync.Mutex // of what follows
		away, tries, faults := true, 0, []error{}
		var bans []Ban
		locked := func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			f()
		}
		r, err := NewReporter(Options{Account: Account{URL: "http://127.0.0.1:8080", Login: "pbx", Password: "hunter2"},
			Bans: func(context.Context) (all []Ban, err error) {
				locked(func() { all = slices.Clone(bans) })
				return all, nil
			},
			Allow: func([]Allowed) {}, Log: slog.New(slog.DiscardHandler),
			Fault: func(err error) { locked(func() { faults = append(faults, err) }) }})
		if err != nil {
			t.Fatal(err)
		}
		r.lapi.client.Transport = transport(func(q *http.Request) (*http.Response, error) {
			gone := false
			locked(func() {
				if gone = away; gone {
					tries++
				}
			})
			if gone {
				return nil, errors.New("connection refused")
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, q)
			return w.Result(), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		locked(func() { bans = []Ban{banUntil("192.0.2.7/32", 10*time.Minute)} })
		for i := range 60 {
			r.Changed()
			time.Sleep(time.Minute)
			locked(func() { bans = append(bans, banUntil(fmt.Sprintf("198.51.100.%d/32", i), 2*time.Hour)) })
		}
		locked(func() {
			bans = bans[1:] // it is over
			if tries < 60 || tries > 140 {
				t.Errorf("%d tries in an hour", tries)
			}
			if st := r.Status(); st.Up || st.Waiting < 50 || st.Failures != tries {
				t.Errorf("%+v", st)
			}
			away = false
		})
		time.Sleep(2 * time.Minute)
		if got := s.has(); len(got) != 60 || slices.Contains(got, "192.0.2.7") {
			t.Errorf("%q", got)
		}
		locked(func() {
			if faults[0] == nil || faults[len(faults)-1] != nil {
				t.Errorf("%v", faults)
			}
			bans = bans[:1]
		})
		r.Changed()
		time.Sleep(5 * time.Second)
		if got := s.has(); len(got) != 1 {
			t.Errorf("%q", got)
		}
		cancel()
		<-done
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
