package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/printable"
)

// route is one path of the API.
type route struct {
	method string
	query  []string // parameters that it knows
	long   bool     // the answer has any length: its pieces have a time to be made and read, not all of it
	serve  func(w http.ResponseWriter, r *http.Request, q url.Values) error
}

func (s *Server) routeTable() map[string]route {
	get := func(serve func(http.ResponseWriter, *http.Request, url.Values) error, query ...string) route {
		return route{method: http.MethodGet, query: query, serve: serve}
	}
	long := func(serve func(http.ResponseWriter, *http.Request, url.Values) error, query ...string) route {
		return route{method: http.MethodGet, query: query, long: true, serve: serve}
	}
	post := func(serve func(http.ResponseWriter, *http.Request, url.Values) error) route {
		return route{method: http.MethodPost, serve: serve}
	}
	return map[string]route{
		"/v1/status":     get(s.serveStatus),
		"/v1/bans":       long(s.serveBans, "within", "evidence"),
		"/v1/trusted":    long(s.serveTrusted),
		"/v1/restricted": long(s.serveRestricted, "within"),
		"/v1/allowed":    get(serveList(s.Backend.Allowed)),
		"/v1/protected":  get(serveList(s.Backend.Protected)),
		"/v1/why":        get(s.serveWhy, "address"),
		"/v1/account":    get(s.serveAccount, "name"),
		"/v1/history":    long(s.serveHistory, "since", "address"),
		"/v1/decisions":  long(s.serveDecisions, "since"),
		"/v1/page":       post(s.servePage),
		"/v1/ban":        post(s.serveBan),
		"/v1/unban":      {method: http.MethodPost, long: true, serve: s.serveUnban},
		"/v1/allow":      post(s.serveAllow),

		"/v1/fleet-forget": post(s.serveForget),
		"/v1/list-refresh": {method: http.MethodPost, long: true, serve: s.serveListRefresh},
	}
}

func (s *Server) newHandler() http.Handler {
	routes := s.routeTable()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.active.Add(1)
		defer s.active.Add(-1)
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				s.Log.Error("control: a request failed inside ringwall", "path", r.URL.Path, "panic", p, "stack",
					string(debug.Stack()))
				panic(http.ErrAbortHandler)
			}
		}()
		if err := s.serveRoute(w, r, routes); err != nil {
			s.writeError(w, r, err)
		}
	})
}

func (s *Server) serveRoute(w http.ResponseWriter, r *http.Request, routes map[string]route) error {
	to, ok := routes[r.URL.Path]
	if !ok {
		return NotFound("the client and the daemon may be of different versions: ringwall version, ringwall status",
			"there is no %s", printable.Quote(r.URL.Path))
	}
	if r.Method != to.method {
		w.Header().Set("Allow", to.method)
		return &Error{Code: http.StatusMethodNotAllowed, Message: fmt.Sprintf("%s takes %s", r.URL.Path, to.method)}
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Invalid("", "the query cannot be read")
	}
	for name, values := range q {
		if !slices.Contains(to.query, name) {
			return Invalid("known: "+strings.Join(to.query, ", "), "unknown parameter %s", printable.Quote(name))
		}
		if len(values) > 1 {
			return Invalid("", "%s is given twice", name)
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.limits.body)
	ctx := r.Context()
	if to.method != http.MethodGet {
		// What a person began is finished, even when the client has gone.
		ctx = context.WithoutCancel(ctx)
	}
	if !to.long {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limits.backend)
		defer cancel()
	}
	return to.serve(w, r.WithContext(ctx), q)
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	st, err := s.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, st)
}

func (s *Server) serveBans(w http.ResponseWriter, r *http.Request, q url.Values) error {
	var filter BanFilter
	var err error
	if q.Has("within") {
		if filter.Within, err = ParsePrefix(q.Get("within")); err != nil {
			return err
		}
	}
	if q.Has("evidence") {
		if filter.Evidence, err = strconv.ParseBool(q.Get("evidence")); err != nil {
			return Invalid("true or false", "evidence: %s", printable.Quote(q.Get("evidence")))
		}
	}
	out := s.newLineWriter(w)
	return out.finishList(s.Backend.Bans(r.Context(), filter,
		func(some []ban.Ban) error { return writeLines(out, some) }))
}

func (s *Server) serveTrusted(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	out := s.newLineWriter(w)
	return out.finishList(s.Backend.Trusted(r.Context(), func(some []ban.Trust) error { return writeLines(out, some) }))
}

func (s *Server) serveRestricted(w http.ResponseWriter, r *http.Request, q url.Values) error {
	var within netip.Prefix
	if q.Has("within") {
		var err error
		if within, err = ParsePrefix(q.Get("within")); err != nil {
			return err
		}
	}
	out := s.newLineWriter(w)
	return out.finishList(s.Backend.Restricted(r.Context(), within,
		func(some []ban.Restriction) error { return writeLines(out, some) }))
}

func (s *Server) serveWhy(w http.ResponseWriter, r *http.Request, q url.Values) error {
	addr, err := ParseAddr(q.Get("address"))
	if err != nil {
		return err
	}
	ex, err := s.Backend.Why(r.Context(), addr)
	if err != nil {
		return err
	}
	return writeJSON(w, ex)
}

func (s *Server) serveAccount(w http.ResponseWriter, r *http.Request, q url.Values) error {
	name, err := parseAccount(q.Get("name"))
	if err != nil {
		return err
	}
	res, err := s.Backend.Account(r.Context(), name)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

func (s *Server) serveHistory(w http.ResponseWriter, r *http.Request, q url.Values) error {
	since, err := parseSince(q)
	if err != nil {
		return err
	}
	var addr netip.Addr
	if q.Has("address") {
		if addr, err = ParseAddr(q.Get("address")); err != nil {
			return err
		}
	}
	out := s.newLineWriter(w)
	return out.finishList(s.Backend.History(r.Context(), since, addr, func(some []ban.Decision) error {
		for i, d := range some {
			some[i] = s.withPlace(d)
		}
		return writeLines(out, some)
	}))
}

func (s *Server) servePage(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	by := peerFrom(r.Context()).withUserName()
	res, err := s.Backend.Page(r.Context(), by)
	if err != nil {
		return err
	}
	s.Log.InfoContext(r.Context(), "the status page was asked for", "by", by, "writable", res.Writable)
	return writeJSON(w, res)
}

func (s *Server) serveBan(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	var body banBody
	if err := readBody(r, &body); err != nil {
		return err
	}
	req := BanRequest{Reason: body.Reason, Force: body.Force, By: peerFrom(r.Context()).withUserName()}
	var err error
	if body.Session != "" {
		if req.Session, err = netip.ParseAddr(body.Session); err != nil {
			return Invalid("an address, or nothing", "session is no address")
		}
	}
	if req.Prefix, err = ParsePrefix(body.Prefix); err != nil {
		return err
	}
	if err = tooWide(req.Prefix, "banned"); err != nil {
		return err
	}
	if body.For != nil {
		if req.For, err = durationOf("for_seconds", *body.For, MinDuration); err != nil {
			return err
		}
	}
	if err = checkReason(req.Reason); err != nil {
		return err
	}
	res, err := s.Backend.Ban(r.Context(), req)
	s.logChange(r, "ban", err, req.By, "prefix", req.Prefix, "for", req.For, "reason", req.Reason)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

func (s *Server) serveUnban(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	var body unbanBody
	if err := readBody(r, &body); err != nil {
		return err
	}
	req := UnbanRequest{All: body.All, Fleet: body.Fleet, Here: body.Here, By: peerFrom(r.Context()).withUserName()}
	var err error
	switch {
	case body.All && body.Prefix != "":
		return Invalid("one of them", "prefix and all are both given")
	case body.Fleet && body.Here:
		return Invalid("one of them", "fleet and here are both given")
	case body.Flow != "" && (body.All || body.Prefix != "" || body.Grace != nil || body.Fleet || body.Here):
		return Invalid("the flow alone", "flow is given with something else")
	case body.Flow != "":
		if req.Flow, err = ParseFlow(body.Flow); err != nil {
			return err
		}
	case !body.All:
		if req.Prefix, err = ParsePrefix(body.Prefix); err != nil {
			return err
		}
	}
	if body.Grace != nil {
		if req.Grace, err = durationOf("grace_seconds", *body.Grace, 0); err != nil {
			return err
		}
	}
	limit := s.limits.backend
	if req.mayLiftMany() {
		limit = s.limits.unbanMany
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + s.limits.write))
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	res, err := s.Backend.Unban(ctx, req)
	target := req.Prefix.String()
	switch {
	case req.All:
		target = "all"
	case req.Flow.IsValid():
		target = req.Flow.String()
	}
	s.logChange(r, "unban", err, req.By, "prefix", target, "grace", req.Grace, "count", res.Count, "restrictions",
		res.RestrictionCount, "reach", string(res.Reach))
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

func (s *Server) serveAllow(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	var body allowBody
	if err := readBody(r, &body); err != nil {
		return err
	}
	req := AllowRequest{Remove: body.Remove, By: peerFrom(r.Context()).withUserName()}
	var err error
	if req.Prefix, req.Host, err = ParseTarget(body.Target); err != nil {
		return err
	}
	target := req.Host
	if req.Host == "" {
		target = req.Prefix.String()
		if err = tooWide(req.Prefix, "allowed"); err != nil && !req.Remove {
			return err
		}
	}
	if body.For != nil {
		if req.For, err = durationOf("for_seconds", *body.For, MinDuration); err != nil {
			return err
		}
	}
	if err = req.checkDuration(); err != nil {
		return err
	}
	res, err := s.Backend.Allow(r.Context(), req)
	what := "allow"
	if req.Remove {
		what = "stop allowing"
	}
	s.logChange(r, what, err, req.By, "entry", target, "for", req.For)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

// checkDuration refuses a duration where there can be none.
func (r AllowRequest) checkDuration() error {
	switch {
	case r.For != 0 && r.Remove:
		return Invalid("leave the time out", "what is removed has no end")
	case r.For != 0 && r.Host != "":
		return Invalid("allow its addresses, or leave the time out and later say: ringwall allow del "+r.Host,
			"a time is for addresses and networks, and %s is a host name", printable.Quote(r.Host))
	}
	return nil
}

// logChange is the record of who changed what by hand.
func (s *Server) logChange(r *http.Request, what string, err error, by Peer, args ...any) {
	level, args := slog.LevelInfo, append([]any{"change", what, "by", by}, args...)
	if err != nil {
		level, args = slog.LevelWarn, append(args, "err", err)
	}
	s.Log.Log(r.Context(), level, "manual change", args...)
}

type banBody struct {
	Prefix string   `json:"prefix"`
	For    *float64 `json:"for_seconds,omitempty"`
	Reason string   `json:"reason,omitempty"`

	Session string `json:"session,omitempty"`
	Force   bool   `json:"force,omitempty"`
}

type unbanBody struct {
	Prefix string   `json:"prefix,omitempty"`
	Flow   string   `json:"flow,omitempty"`
	All    bool     `json:"all,omitempty"`
	Grace  *float64 `json:"grace_seconds,omitempty"`
	Fleet  bool     `json:"fleet,omitempty"`
	Here   bool     `json:"here,omitempty"`
}

type allowBody struct {
	Target string   `json:"target"`
	For    *float64 `json:"for_seconds,omitempty"`
	Remove bool     `json:"remove,omitempty"`
}

func readBody(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return Invalid("", "the request holds more than one JSON object")
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Error{Code: http.StatusRequestEntityTooLarge,
			Message: fmt.Sprintf("the request is longer than %d bytes",
				tooLarge.Limit)}
	}
	return Invalid("one JSON object", "the request cannot be read: %s", printable.Limit(err.Error(), 200))
}

func durationOf(key string, seconds float64, least time.Duration) (time.Duration, error) {
	if !(seconds >= least.Seconds() && seconds <= MaxDuration.Seconds()) {
		return 0, Invalid(fmt.Sprintf("%g to %g", least.Seconds(), MaxDuration.Seconds()), "%s: %g is out of range",
			key,
			seconds)
	}
	return time.Duration(math.Round(seconds * float64(time.Second))), nil
}

func checkReason(reason string) error {
	if len(reason) > MaxReason {
		return Invalid("", "the reason is longer than %d bytes", MaxReason)
	}
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		return Invalid("one line of text", "the reason holds control characters")
	}
	return nil
}

func parseSince(q url.Values) (time.Time, error) {
	if !q.Has("since") {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, q.Get("since"))
	if err != nil {
		return t, Invalid("RFC 3339, such as 2026-01-31T12:00:00Z", "since: %s is not a time",
			printable.Quote(q.Get("since")))
	}
	return t, nil
}

func serveList[T any](ask func(context.Context) ([]T, error)) func(http.ResponseWriter, *http.Request,
	url.Values) error {
	return func(w http.ResponseWriter, r *http.Request, _ url.Values) error {
		list, err := ask(r.Context())
		if err != nil {
			return err
		}
		out := &lineWriter{w: w}
		return out.finishList(writeLines(out, list))
	}
}

func writeJSON(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(printable.JSON(text), '\n'))
	return abortStream(err)
}

// lineWriter writes an object a line, so that neither side needs the whole list.
type lineWriter struct {
	w     http.ResponseWriter
	limit time.Duration // for the client to read a piece; 0: the server's own for all
	out   *bufio.Writer // nil while nothing is written: an error can still be told
}

// newLineWriter writes a list of any length, each piece of which has its own time to be read.
func (s *Server) newLineWriter(w http.ResponseWriter) *lineWriter {
	return &lineWriter{w: w, limit: s.limits.write}
}

// startPiece gives what is written next its time to be read.
func (l *lineWriter) startPiece() error {
	if l.out == nil {
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.out = bufio.NewWriterSize(l.w, 32<<10)
	}
	if l.limit == 0 {
		return nil
	}
	rc := http.NewResponseController(l.w)
	// The request's own deadlines are meant for one answer.
	return errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Now().Add(l.limit)))
}

// finishList writes what is left in the buffer. Where the list could not be made in full, and some of it is written,
// the connection is cut.
func (l *lineWriter) finishList(err error) error {
	if l.out == nil && err != nil {
		return err
	}
	if err == nil {
		err = l.startPiece()
	}
	if err == nil {
		err = l.out.Flush()
	}
	return abortStream(err)
}

// writeLines writes a piece of a list.
func writeLines[T any](l *lineWriter, piece []T) error {
	if err := l.startPiece(); err != nil {
		return err
	}
	for i := range piece {
		text, err := json.Marshal(piece[i])
		if err != nil {
			return err
		}
		_, _ = l.out.Write(printable.JSON(text))
		if err := l.out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return nil
}

// abortStream cuts the connection where an answer has begun and cannot be ended: the client must not take it for whole.
func abortStream(err error) error {
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code != 0:
	case errors.As(err, &e):
		e = &Error{Code: http.StatusInternalServerError, Message: e.Message, Try: e.Try}
		s.Log.ErrorContext(r.Context(), "control: a request failed", "path", r.URL.Path, "err", err)
	case errors.Is(err, context.DeadlineExceeded):
		e = &Error{
			Code: http.StatusGatewayTimeout, Message: "ringwall did not finish in time",
			Try: "it may still do so: look with ringwall status, and at its log",
		}
	default:
		e = &Error{Code: http.StatusInternalServerError, Message: err.Error(),
			Try: "the daemon's log may say more: journalctl -u ringwall"}
		s.Log.ErrorContext(r.Context(), "control: a request failed", "path", r.URL.Path, "err", err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		_ = abortStream(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code)
	_, _ = w.Write(append(printable.JSON(text), '\n'))
}
