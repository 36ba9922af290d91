package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

func TestEachQuestionReachesTheBackend(t *testing.T) {
	f := &fake{list: []ban.Ban{{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonManual},
		{Prefix: netip.MustParsePrefix("2001:db8::/64")}}}
	c := start(t, f, nil).client
	ctx := t.Context()

	if st, err := c.Status(ctx); err != nil || st.Version != "test" || !st.Started.Equal(noon) || len(st.PBXs) != 1 {
		t.Errorf("Status: %+v, %v", st, err)
	}
	within := netip.MustParsePrefix("203.0.113.0/24")
	bans, err := c.Bans(ctx, BanFilter{Within: within, Evidence: true})
	if err != nil || !reflect.DeepEqual(bans, f.list) || f.filter != (BanFilter{within, true}) {
		t.Errorf("Bans: %+v, %v, filter %+v", bans, err, f.filter)
	}
	if l, err := c.Trusted(ctx); err != nil || len(l) != 1 || l[0].Accounts[0] != "201" {
		t.Errorf("Trusted: %+v, %v", l, err)
	}
	if l, err := c.Allowed(ctx); err != nil || len(l) != 1 || l[0].Origin != "host" {
		t.Errorf("Allowed: %+v, %v", l, err)
	}
	if l, err := c.Protected(ctx); err != nil || len(l) != 1 || l[0].Origin != "learned" {
		t.Errorf("Protected: %+v, %v", l, err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Page(ctx); err != nil || !p.Writable || p.Note != me.Username ||
		!strings.Contains(p.Address, "ticket=") {
		t.Errorf("Page: %+v, %v; want it made for %s", p, err, me.Username)
	}
	addr := netip.MustParseAddr("2001:db8::1")
	if ex, err := c.Why(ctx, addr); err != nil || ex.Address.String() != "2001:db8::1" || f.asked != addr {
		t.Errorf("Why: %+v, %v", ex, err)
	}
	since := noon.Add(-time.Nanosecond)
	h, err := c.History(ctx, since, addr)
	if err != nil || len(h) != 1 || h[0].Source.String() != "203.0.113.1" || h[0].Duration != time.Hour ||
		!f.since.Equal(since) {
		t.Errorf("History: %+v, %v, since %v", h, err, f.since)
	}
}

func TestEachChangeReachesTheBackendWithItsAuthor(t *testing.T) {
	f := &fake{}
	r := start(t, f, nil)
	c, ctx := r.client, t.Context()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	by := Peer{PID: int32(os.Getpid()), UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), User: me.Username}

	banned := BanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), For: 90 * time.Second,
		Reason: "tries \u202e names"}
	res, err := c.Ban(ctx, banned)
	banned.By = by
	if err != nil || res.Duration != 90 || !res.Enforced || !reflect.DeepEqual(f.bans, []BanRequest{banned}) {
		t.Errorf("Ban: %+v, %v, asked %+v", res, err, f.bans)
	}
	unban := UnbanRequest{Prefix: netip.MustParsePrefix("2001:db8::/64"), Grace: time.Hour}
	if _, err := c.Unban(ctx, unban); err != nil {
		t.Error(err)
	}
	if _, err := c.Unban(ctx, UnbanRequest{All: true}); err != nil {
		t.Error(err)
	}
	var flow ban.Flow
	if err := flow.UnmarshalText([]byte("udp [2001:db8::1]:5060")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unban(ctx, UnbanRequest{Flow: flow}); err != nil {
		t.Error(err)
	}
	unban.By = by
	if !reflect.DeepEqual(f.unbans, []UnbanRequest{unban, {All: true, By: by}, {Flow: flow, By: by}}) {
		t.Errorf("asked %+v", f.unbans)
	}
	if _, err := c.Allow(ctx, AllowRequest{Host: "office.example.net"}); err != nil {
		t.Error(err)
	}
	del := AllowRequest{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Remove: true}
	if _, err := c.Allow(ctx, del); err != nil {
		t.Error(err)
	}
	del.By = by
	if !reflect.DeepEqual(f.allows, []AllowRequest{{Host: "office.example.net", By: by}, del}) {
		t.Errorf("asked %+v", f.allows)
	}

	author := fmt.Sprintf("by.pid=%d by.uid=%d by.user=%s", by.PID, by.UID, by.User)
	for _, want := range []string{
		"change=ban " + author + " prefix=203.0.113.5/32 for=1m30s reason=\"tries \\u202e names\"",
		"change=unban " + author + " prefix=2001:db8::/64 grace=1h0m0s count=1",
		"change=unban " + author + " prefix=all",
		"change=unban " + author + " prefix=\"udp [2001:db8::1]:5060\"",
		"change=allow " + author + " entry=office.example.net",
		"change=\"stop allowing\" " + author + " entry=198.51.100.0/24",
	} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log does not hold %s:\n%s", want, r.log)
		}
	}
}

func TestErrorsOfTheBackendKeepTheirMeaning(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		code int
		is   error
		hint string
	}{
		"refused": {Refused("ringwall allow del X", "it is allowed"), 409, ErrRefused, "ringwall allow del X"},
		"wrapped": {fmt.Errorf("backend: %w", NotFound("h", "not banned")), 404, ErrNotFound, "h"},
		"invalid": {Invalid("h", "too long"), 400, ErrInvalid, "h"},
		"no code": {&Error{Message: "the kernel said no", Try: "CAP_NET_ADMIN"}, 500, nil, "CAP_NET_ADMIN"},
		"anything": {errors.New("netlink: broken pipe"), 500, nil,
			"the daemon's log may say more: journalctl -u ringwall"},
		"out of time": {fmt.Errorf("kernel: %w", context.DeadlineExceeded), 504, ErrTimeout,
			"it may still do so: look with ringwall status, and at its log"},
		"hostile text": {Refused("", "account \u009b2J\x1b"), 409, ErrRefused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, &fake{err: row.err}, nil)
			_, err := r.client.Ban(t.Context(), BanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32")})
			var e *Error
			if !errors.As(err, &e) || e.Code != row.code || e.Try != row.hint || row.is != nil &&
				!errors.Is(err, row.is) {
				t.Errorf("got %#v", err)
			}
			if !strings.Contains(r.log.String(), "level=WARN msg=\"manual change\" change=ban") {
				t.Errorf("a refused change is not in the log: %s", r.log)
			}
		})
	}
}

// raw sends one request and returns status and body.
func raw(t *testing.T, socket, method, target, body string) (int, string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://ringwall"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestBadRequestsAreNamed(t *testing.T) {
	f := &fake{}
	socket := start(t, f, nil).client.Socket
	for name, row := range map[string]struct {
		method, target, body string
		code                 int
		want                 string
	}{
		"an unknown path":      {"GET", "/v1/stats", "", 404, `there is no \"/v1/stats\"`},
		"an unknown version":   {"GET", "/v2/status", "", 404, "ringwall version"},
		"a path with dots":     {"GET", "/v1/../v1/status", "", 404, "there is no"},
		"the wrong method":     {"GET", "/v1/ban", "", 405, "/v1/ban takes POST"},
		"an unknown parameter": {"GET", "/v1/why?adress=1.2.3.4", "", 400, `unknown parameter \"adress\"`},
		"a parameter twice":    {"GET", "/v1/why?address=1.2.3.4&address=1.2.3.5", "", 400, "given twice"},
		"a broken query":       {"GET", "/v1/why?address=%zz", "", 400, "query"},
		"no address":           {"GET", "/v1/why", "", 400, "the address is empty"},
		"a bad time":           {"GET", "/v1/history?since=yesterday", "", 400, "RFC 3339"},
		"a bad flag":           {"GET", "/v1/bans?evidence=perhaps", "", 400, "true or false"},
		"no body":              {"POST", "/v1/ban", "", 400, "cannot be read"},
		"no JSON":              {"POST", "/v1/ban", "prefix=1.2.3.4", 400, "cannot be read"},
		"an unknown key":       {"POST", "/v1/ban", `{"prefix":"1.2.3.4","until":3}`, 400, `unknown field \"until\"`},
		"two objects":          {"POST", "/v1/ban", `{"prefix":"1.2.3.4"}{}`, 400, "more than one"},
		"everybody":            {"POST", "/v1/ban", `{"prefix":"0.0.0.0/0"}`, 400, "everybody"},
		"half of everybody":    {"POST", "/v1/ban", `{"prefix":"128.0.0.0/1"}`, 400, "wider than /8"},
		"allow everybody":      {"POST", "/v1/allow", `{"target":"::/0"}`, 400, "cannot be allowed"},
		"no flow":              {"POST", "/v1/unban", `{"flow":"1.2.3.4:5060"}`, 400, "is not the flow of a sender"},
		"a flow with a grace": {"POST", "/v1/unban", `{"flow":"udp 1.2.3.4:5060","grace_seconds":1}`, 400,
			"something else"},
		"a flow and an address": {"POST", "/v1/unban", `{"flow":"udp 1.2.3.4:5060","prefix":"1.2.3.4"}`, 400,
			"something else"},
		"a bad network":        {"GET", "/v1/restricted?within=1.2.3.4/33", "", 400, "is not the length"},
		"a ban of no time":     {"POST", "/v1/ban", `{"prefix":"1.2.3.4","for_seconds":0}`, 400, "out of range"},
		"a ban below a second": {"POST", "/v1/ban", `{"prefix":"1.2.3.4","for_seconds":0.0005}`, 400, "out of range"},
		"a ban for ever":       {"POST", "/v1/ban", `{"prefix":"1.2.3.4","for_seconds":1e300}`, 400, "out of range"},
		"a grace in the past":  {"POST", "/v1/unban", `{"prefix":"1.2.3.4","grace_seconds":-1}`, 400, "out of range"},
		"one and all":          {"POST", "/v1/unban", `{"prefix":"1.2.3.4","all":true}`, 400, "both"},
		"neither one nor all":  {"POST", "/v1/unban", `{}`, 400, "empty"},
		"a reason with escapes": {"POST", "/v1/ban", `{"prefix":"1.2.3.4","reason":"\u001b[2J"}`, 400,
			"control characters"},
		"a long reason": {"POST", "/v1/ban", `{"prefix":"1.2.3.4","reason":"` + strings.Repeat("x", 201) + `"}`,
			400, "longer than 200"},
		"a huge body": {"POST", "/v1/ban", `{"prefix":"` + strings.Repeat("1", 1<<20), 413,
			"longer than 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := raw(t, socket, row.method, row.target, row.body)
			if code != row.code || !strings.Contains(text, row.want) || !strings.HasPrefix(text, `{"error":"`) {
				t.Errorf("%d %s; want %d with %q", code, text, row.code, row.want)
			}
		})
	}
	if len(f.bans)+len(f.unbans)+len(f.allows) != 0 {
		t.Errorf("a bad request reached the backend: %+v %+v %+v", f.bans, f.unbans, f.allows)
	}
}

func TestAWideEntryCanStillBeRemoved(t *testing.T) {
	f := &fake{}
	socket := start(t, f, nil).client.Socket
	for _, row := range [][2]string{{"/v1/allow", `{"target":"0.0.0.0/0","remove":true}`},
		{"/v1/unban", `{"prefix":"::/0"}`}} {
		if code, text := raw(t, socket, "POST", row[0], row[1]); code != 200 {
			t.Errorf("%s %s: %d %s", row[0], row[1], code, text)
		}
	}
}

func TestAChangeIsFinishedWhenItsClientGoesAway(t *testing.T) {
	f := &fake{waiting: make(chan struct{}), hold: make(chan struct{})}
	r := start(t, f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := r.client.Ban(ctx, BanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32")})
		asked <- err
	}()
	<-f.waiting
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	close(f.hold)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if len(f.bans) != 1 || !strings.Contains(r.log.String(), "level=INFO msg=\"manual change\" change=ban") {
		t.Errorf("bans %v, log %s", f.bans, r.log)
	}
}

func TestARequestUnderWayIsAnsweredAtTheEnd(t *testing.T) {
	f := &fake{waiting: make(chan struct{}), hold: make(chan struct{})}
	r := start(t, f, nil)
	type answer struct {
		st  Status
		err error
	}
	asked := make(chan answer, 1)
	go func() {
		st, err := r.client.Status(context.Background())
		asked <- answer{st, err}
	}()
	<-f.waiting
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	<-r.server.closing
	close(f.hold)
	if a := <-asked; a.err != nil || a.st.Version != "test" {
		t.Errorf("got %+v", a)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.client.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := os.Lstat(r.client.Socket + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is still there: %v", err)
	}
}

func TestABackendThatHangsIsATimeout(t *testing.T) {
	f := &fake{hold: make(chan struct{})}
	c := start(t, f, func(s *Server) { s.limits.backend = 20 * time.Millisecond }).client
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

type panicking struct{ Backend }

func (panicking) Status(context.Context) (Status, error) { panic("a defect") }

func TestADefectCostsOneRequest(t *testing.T) {
	r := start(t, panicking{&fake{}}, nil)
	if _, err := r.client.Status(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if _, err := r.client.Allowed(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if !strings.Contains(r.log.String(), "a defect") {
		t.Errorf("the log does not say so: %s", r.log)
	}
}

func TestWhatIsRestrictedComesAsItIs(t *testing.T) {
	office, other := netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::/64")
	want := []ban.Restriction{
		{Kind: ban.RestrictionCut, Scope: ban.ScopeFlow, Prefix: office, Until: noon, Left: 60,
			Flow: ban.Flow{Source: netip.MustParseAddrPort("198.51.100.7:4711")}},
		{Kind: ban.RestrictionSlow, Scope: ban.ScopeSource, Prefix: other, Packets: 4, Every: 600, Until: noon, Left: 60},
	}
	c := start(t, &fake{restricted: want}, nil).client
	for within, n := range map[netip.Prefix]int{{}: 2, office: 1, netip.MustParsePrefix("2001:db8::/32"): 1,
		netip.MustParsePrefix("203.0.113.0/24"): 0} {
		var got []ban.Restriction
		err := c.EachRestricted(t.Context(), within, func(r ban.Restriction) error {
			got = append(got, r)
			return nil
		})
		if err != nil || len(got) != n || n == 2 && !slices.Equal(got, want) {
			t.Errorf("%v: %+v, %v", within, got, err)
		}
	}
}
