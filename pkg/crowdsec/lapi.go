package crowdsec

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/retryafter"
)

// Account is a LAPI, and who Ringwall is there.
type Account struct {
	URL      string
	Login    string // the machine's name: cscli machines list
	Password string
	Roots    *x509.CertPool // nil: those of the system
}

// Bounds of what a LAPI answers.
const (
	requestTime   = 30 * time.Second
	maxAnswer     = 64 << 20
	maxShown      = 200
	maxRetryAfter = 10 * time.Minute
)

// scenarioPrefix is before the reason of a ban, so that what is Ringwall's is found among other decisions.
const scenarioPrefix = lists.CrowdSecScenario

// lapi speaks to a LAPI: crowdsecurity/crowdsec pkg/models/localapi_swagger.yaml.
type lapi struct {
	account Account
	base    *url.URL
	client  *http.Client
	token   string // for an hour (pkg/apiserver/middlewares/v1/jwt.go); empty: none
	now     func() time.Time
	ahead   time.Duration // by which its clock is ahead of ours
}

func newLAPI(a Account) (*lapi, error) {
	base, err := url.Parse(a.URL)
	if err != nil {
		return nil, errors.New("the url cannot be read")
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Roots},
	}
	client := &http.Client{Transport: transport, Timeout: requestTime,
		// A redirect would carry the password to whatever place it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &lapi{account: a, base: base.JoinPath("v1"), client: client, now: time.Now}, nil
}

// statusError is an answer that is none of those that were hoped for.
type statusError struct {
	status int
	text   string
	after  time.Duration // it wants to be left alone for so long
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the LAPI answers %d %s: %s", e.status, http.StatusText(e.status), e.text)
}

// request is what is asked of a LAPI, and what is hoped for.
type request struct {
	method string
	at     *url.URL
	body   any // JSON; nil: none
	want   int // the status
	read   func(io.Reader) error
}

// do sends a request as a machine that has logged in. A token that is no longer good is renewed once.
func (l *lapi) do(ctx context.Context, q request) error {
	for renewed := l.token == ""; ; renewed = true {
		if l.token == "" {
			if err := l.logIn(ctx); err != nil {
				return err
			}
		}
		err := l.send(ctx, q)
		if refused, ok := errors.AsType[*statusError](err); ok && refused.status == http.StatusUnauthorized &&
			!renewed {
			l.token = ""
			continue
		}
		return err
	}
}

// logIn gets a token.
func (l *lapi) logIn(ctx context.Context) error {
	var answer struct{ Token string }
	err := l.send(ctx, request{method: http.MethodPost, at: l.base.JoinPath("watchers", "login"), want: http.StatusOK,
		body: map[string]any{"machine_id": l.account.Login, "password": l.account.Password, "scenarios": []string{}},
		read: readObject(&answer)})
	if refused, ok := errors.AsType[*statusError](err); ok &&
		(refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden) {
		return hint.Errorf("on the machine of the LAPI: cscli machines list; cscli machines add or validate",
			"the LAPI does not let this machine in: %w", err)
	}
	if err == nil && answer.Token == "" {
		err = errors.New("the LAPI gives no token")
	}
	if err != nil {
		return err
	}
	l.token = answer.Token
	return nil
}

// send sends one request, and has the answer read that is wanted.
func (l *lapi) send(ctx context.Context, q request) error {
	var text io.Reader = http.NoBody
	if q.body != nil {
		encoded, err := json.Marshal(q.body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, q.at.String(), text)
	if err != nil {
		return errors.New("the url cannot be read")
	}
	r.Header.Set("User-Agent", "ringwall/1") // it logs nobody in without a version (middlewares/v1/jwt.go)
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if l.token != "" {
		r.Header.Set("Authorization", "Bearer "+l.token)
	}
	answer, err := l.client.Do(r)
	if err != nil {
		return networkError(err)
	}
	defer func() { _ = answer.Body.Close() }()
	l.compareClocks(answer.Header.Get("Date"))
	if answer.StatusCode != q.want {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, maxShown))
		return &statusError{answer.StatusCode, printable.Quote(string(said)),
			retryafter.Parse(answer.Header.Get("Retry-After"), l.now(), maxRetryAfter)}
	}
	if q.read == nil {
		return nil
	}
	return networkError(q.read(io.LimitReader(answer.Body, maxAnswer)))
}

// compareClocks takes over by how much the LAPI's clock is ahead, but for what the answer may have been on its way.
func (l *lapi) compareClocks(date string) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	if l.ahead = at.Sub(l.now()).Round(time.Second); l.ahead.Abs() < 5*time.Second {
		l.ahead = 0
	}
}

// networkError is without the url around it, and in words that are the same each time.
func networkError(err error) error {
	if err == nil {
		return nil
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return errors.New("the LAPI takes too long")
	}
	return err
}

// readObject reads JSON into a value.
func readObject(into any) func(io.Reader) error {
	return func(r io.Reader) error {
		if err := json.NewDecoder(r).Decode(into); err != nil {
			return notWanted(err)
		}
		return nil
	}
}

// notWanted says that an answer of the right status is not what it should be: an error may be JSON, too.
func notWanted(err error) error {
	return fmt.Errorf("the LAPI answers what is none: %s", printable.Quote(err.Error()))
}

// alert is one alert, as it is sent and as it is read.
type alert struct {
	MachineID       string     `json:"machine_id,omitempty"`
	Scenario        string     `json:"scenario"`
	ScenarioHash    string     `json:"scenario_hash"`
	ScenarioVersion string     `json:"scenario_version"`
	Message         string     `json:"message"`
	EventsCount     int32      `json:"events_count"`
	StartAt         string     `json:"start_at"`
	StopAt          string     `json:"stop_at"`
	Capacity        int32      `json:"capacity"`
	Leakspeed       string     `json:"leakspeed"`
	Simulated       bool       `json:"simulated"`
	Events          []struct{} `json:"events"`
	Remediation     bool       `json:"remediation"`
	Source          source     `json:"source"`
	Decisions       []decision `json:"decisions"`
}

type source struct {
	Scope string `json:"scope"`
	Value string `json:"value"`
	IP    string `json:"ip,omitempty"`
	Range string `json:"range,omitempty"`
}

type decision struct {
	ID       int64  `json:"id,omitempty"`
	Origin   string `json:"origin"`
	Type     string `json:"type"`
	Scope    string `json:"scope"`
	Value    string `json:"value"`
	Duration string `json:"duration"`
	Scenario string `json:"scenario"`
}

// origin is that of what a machine found out by itself: cscli decisions list shows no others but those of cscli.
const origin = "crowdsec"

func scopeOf(p netip.Prefix) (scope, value string) {
	if p.IsSingleIP() {
		return "Ip", p.Addr().String()
	}
	return "Range", p.String()
}

// alertOf is a ban as a LAPI wants it. Its decision begins with stop_at (pkg/database/alerts.go), which therefore is
// now, by the LAPI's clock.
func alertOf(b Ban, now time.Time, ahead time.Duration) alert {
	scope, value := scopeOf(b.Prefix)
	s := source{Scope: scope, Value: value}
	if b.Prefix.IsSingleIP() {
		s.IP = value
	} else {
		s.Range = value
	}
	left := max(time.Second, b.Until.Sub(now).Round(time.Second))
	scenario := scenarioPrefix + b.Reason
	since := b.Since
	if since.IsZero() || since.After(now) {
		since = now
	}
	return alert{
		Scenario: scenario, Message: fmt.Sprintf("Ringwall banned %s: %s", value, b.Reason),
		EventsCount: int32(max(1, min(b.Attempts, 1<<30))), Leakspeed: "0", Remediation: true, Events: []struct{}{},
		StartAt: since.Add(ahead).UTC().Format(time.RFC3339), StopAt: now.Add(ahead).UTC().Format(time.RFC3339),
		Source: s,
		Decisions: []decision{{Origin: origin, Type: "ban", Scope: scope, Value: value, Duration: left.String(),
			Scenario: scenario}},
	}
}

// add sends alerts with their decisions. The LAPI answers with the number of each.
func (l *lapi) add(ctx context.Context, bans []Ban) error {
	now := l.now()
	alerts := make([]alert, len(bans))
	for i, b := range bans {
		alerts[i] = alertOf(b, now, l.ahead)
	}
	var ids []json.RawMessage
	err := l.do(ctx, request{method: http.MethodPost, at: l.base.JoinPath("alerts"), body: alerts,
		want: http.StatusCreated, read: readObject(&ids)})
	if err == nil && len(ids) != len(bans) {
		return fmt.Errorf("the LAPI took %d of %d alerts", len(ids), len(bans))
	}
	return err
}

// eachOwn calls a function for each decision of this machine's that is in force, of a prefix or of all.
func (l *lapi) eachOwn(ctx context.Context, of netip.Prefix, found func(decision)) error {
	at := l.base.JoinPath("alerts")
	query := url.Values{"has_active_decision": {"true"}, "origin": {origin}, "limit": {"0"}}
	if of.IsValid() {
		scope, value := scopeOf(of)
		query.Set("scope", scope)
		query.Set("value", value)
	}
	at.RawQuery = query.Encode()
	each := func(a *alert) {
		if a.MachineID == l.account.Login && strings.HasPrefix(a.Scenario, scenarioPrefix) {
			for _, d := range a.Decisions {
				found(d)
			}
		}
	}
	return l.do(ctx, request{method: http.MethodGet, at: at, want: http.StatusOK,
		read: func(r io.Reader) error { return readAlerts(r, each) }})
}

// readAlerts reads them one by one: there may be many of other machines.
func readAlerts(r io.Reader, found func(*alert)) error {
	d := json.NewDecoder(r)
	t, err := d.Token()
	switch {
	case err != nil:
		return notWanted(err)
	case t == nil: // none
		return nil
	case t != json.Delim('['):
		return notWanted(errors.New("no list of alerts"))
	}
	for d.More() {
		var a alert
		if err := d.Decode(&a); err != nil {
			return notWanted(err)
		}
		found(&a)
	}
	if _, err := d.Token(); err != nil {
		return notWanted(err)
	}
	return nil
}

// own returns until when each prefix is banned there by this machine.
func (l *lapi) own(ctx context.Context) (map[netip.Prefix]time.Time, error) {
	all := make(map[netip.Prefix]time.Time)
	now := l.now()
	err := l.eachOwn(ctx, netip.Prefix{}, func(d decision) {
		p, err := lists.ParsePrefix(d.Value)
		left, err2 := time.ParseDuration(d.Duration)
		if err != nil || err2 != nil || left <= 0 {
			return
		}
		if until := now.Add(left); until.After(all[p]) {
			all[p] = until
		}
	})
	return all, err
}

// remove ends this machine's decisions of a prefix, by their numbers: those of others stay.
func (l *lapi) remove(ctx context.Context, p netip.Prefix) error {
	var ids []int64
	if err := l.eachOwn(ctx, p, func(d decision) { ids = append(ids, d.ID) }); err != nil {
		return err
	}
	for _, id := range ids {
		err := l.do(ctx, request{method: http.MethodDelete, want: http.StatusOK,
			at: l.base.JoinPath("decisions", strconv.FormatInt(id, 10))})
		if gone, ok := errors.AsType[*statusError](err); ok && gone.status == http.StatusNotFound {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// allowLists reads the allow lists; known is false where the LAPI has none such: they came with CrowdSec 1.6.8.
func (l *lapi) allowLists(ctx context.Context) (all []Allowed, known bool, err error) {
	at := l.base.JoinPath("allowlists")
	at.RawQuery = "with_content=true"
	var answer []struct {
		Name  string
		Items []struct {
			Value, Expiration string
		}
	}
	err = l.do(ctx, request{method: http.MethodGet, at: at, want: http.StatusOK, read: readObject(&answer)})
	if none, ok := errors.AsType[*statusError](err); ok && none.status == http.StatusNotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	now := l.now()
	for _, list := range answer {
		for _, item := range list.Items {
			p, err := lists.ParsePrefix(item.Value)
			if err != nil {
				continue
			}
			// An item without an end has year 1, or 1970 (strfmt.DateTime), or none.
			ends, err := time.Parse(time.RFC3339, item.Expiration)
			if err == nil && ends.Unix() > 0 && !ends.After(now.Add(l.ahead)) {
				continue
			}
			all = append(all, Allowed{Prefix: p, List: list.Name})
		}
	}
	return all, true, nil
}
