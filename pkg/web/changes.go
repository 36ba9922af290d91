package web

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
)

const (
	maxFormBytes  = 4 << 10 // bytes
	unbanGrace    = time.Hour
	day           = 24 * time.Hour
	kernelTimeout = 10 * time.Second // for a change to be in the kernel
)

// IssueTicket returns the address of the page for a person at the control socket. On loopback that address opens it
// once, within a few minutes, with the right to change things.
func (p *Page) IssueTicket(by api.Peer) api.PageResult {
	base := "http://" + p.Address.String() + "/"
	if p.Address.Addr().IsUnspecified() && p.Host != "" {
		base = fmt.Sprintf("http://%s:%d/", p.Host, p.Address.Port())
	}
	if !p.loopback {
		return api.PageResult{Address: base,
			Note: "it can change nothing, for metrics.listen is not on loopback: other machines can reach it"}
	}
	secret, until := p.sessions.issueTicket(time.Now(), by)
	return api.PageResult{Address: base + "enter?ticket=" + url.QueryEscape(secret), Writable: true,
		Expires: &until}
}

// serveEnter gives a browser the right to change things, in return for a ticket.
func (p *Page) serveEnter(w http.ResponseWriter, r *http.Request) {
	const again = "On the PBX, type: ringwall page, and open the address that it prints."
	if r.Method != http.MethodGet ||
		r.Header.Get("Sec-Purpose") != "" { // a guess of the browser's must not use the ticket up
		p.writeMessage(w, r, http.StatusServiceUnavailable, "Not yet", "")
		return
	}
	if !p.loopback {
		p.writeMessage(w, r, http.StatusForbidden, "This page can change nothing",
			"metrics.listen is reachable from other machines, so the page only shows. Use the commands.")
		return
	}
	secret, by, ok := p.sessions.openSession(time.Now(), r.URL.Query().Get("ticket"))
	if !ok {
		p.writeMessage(w, r, http.StatusForbidden, "This address was opened before, or is too old", again)
		return
	}
	p.Log.InfoContext(r.Context(), "the status page was opened with the right to change things", "by", by)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: secret, Path: "/", MaxAge: int(sessionLifetime.Seconds()),
		HttpOnly: true,
		SameSite: http.SameSiteStrictMode})
	// Not a redirection: after a click in another page the browser would leave a strict cookie out of it.
	f := p.newPageView(r, "Ringwall")
	p.writePage(w, r, http.StatusOK, "entered", f)
}

// refusal is the answer to a form that may not change things: why not, and what to try.
type refusal struct {
	code       int
	what, hint string
}

// serveChange checks that a form comes from a page of a session, does what it asks, and shows what came of it.
func (p *Page) serveChange(name string, do func(r *http.Request, s session) (text string, address netip.Addr,
	err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, k, no := p.authorizeForm(w, r)
		if no != nil {
			p.Log.WarnContext(r.Context(), "a change by the status page was refused", "change", name, "why", no.what,
				"remote",
				r.RemoteAddr)
			p.writeMessage(w, r, no.code, no.what, no.hint)
			return
		}
		if name == "leave" {
			p.sessions.endSession(k)
			http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true,
				SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		text, addr, err := do(r, s)
		if err != nil {
			var e *api.Error
			code := http.StatusInternalServerError
			if errors.As(err, &e) && e.Code != 0 {
				code = e.Code
			}
			p.writeMessage(w, r, code, capitalized(err.Error()), capitalized(hint.Of(err)))
			return
		}
		p.sessions.setNotice(k, text)
		http.Redirect(w, r, "/why?address="+url.QueryEscape(addr.String()), http.StatusSeeOther)
	}
}

// authorizeForm returns the session of a form that may change things, or why it may not.
func (p *Page) authorizeForm(w http.ResponseWriter, r *http.Request) (session, secretDigest, *refusal) {
	const again = "On the PBX, type: ringwall page, and open the address that it prints."
	if !p.loopback {
		return session{}, secretDigest{}, &refusal{http.StatusForbidden, "This page can change nothing",
			"metrics.listen is reachable from other machines, so the page only shows. Use the commands."}
	}
	if !isSameOrigin(r) {
		return session{}, secretDigest{}, &refusal{http.StatusForbidden, "This form does not come from Ringwall's page",
			"Open the page itself, and try again there."}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if err := r.ParseForm(); err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return session{}, secretDigest{}, &refusal{http.StatusBadRequest, "The form cannot be read", ""}
	}
	s, k, ok := p.sessionOf(r)
	if !ok {
		return session{}, secretDigest{}, &refusal{http.StatusForbidden,
			"The right to change things is not there, or is over",
			again}
	}
	if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("token")), []byte(s.token)) != 1 {
		return session{}, secretDigest{}, &refusal{http.StatusForbidden, "The form is of another session",
			"Reload the page, and try again."}
	}
	return s, k, nil
}

// formPrefix reads the prefix of a form.
func formPrefix(r *http.Request) (netip.Prefix, error) {
	prefix, err := api.ParsePrefix(r.PostForm.Get("prefix"))
	if err != nil {
		return prefix, err
	}
	least := api.MinBits4
	if prefix.Addr().Is6() {
		least = api.MinBits6
	}
	if prefix.Bits() < least {
		return prefix, api.Invalid("name smaller networks", "%s is too wide", prefix)
	}
	return prefix, nil
}

func (p *Page) unbanByForm(r *http.Request, s session) (string, netip.Addr, error) {
	prefix, err := formPrefix(r)
	if err != nil {
		return "", netip.Addr{}, err
	}
	req := api.UnbanRequest{Prefix: prefix, By: s.by}
	if r.PostForm.Get("grace") != "" {
		req.Grace = unbanGrace
	}
	ctx, cancel := detachedContext(r)
	defer cancel()
	res, err := p.Source.Unban(ctx, req)
	p.logChange(r, "unban", err, s, "prefix", prefix, "grace", req.Grace, "count", res.Count, "restrictions",
		res.RestrictionCount)
	if err != nil {
		return "", netip.Addr{}, err
	}
	name := humanize.Prefix(prefix)
	text := name + " is let in again: its packets pass."
	switch {
	case res.Count == 0 && res.RestrictionCount > 0:
		text = fmt.Sprintf("What was cut or slow at %s goes on.", name)
	case res.Count == 0:
		text = fmt.Sprintf("%s was not banned.", name)
	}
	if res.Grace != nil {
		text += " It is not banned again before " + p.shortTime(*res.Grace) + "."
	}
	switch res.Reach {
	case api.ReachFleet:
		text += " All nodes of the fleet let it in."
	case api.ReachHere:
		text += " Other nodes of the fleet go on as they are: ringwall unban " + name + " --fleet"
	}
	return text, prefix.Addr(), nil
}

func (p *Page) allowByForm(r *http.Request, s session) (string, netip.Addr, error) {
	prefix, err := formPrefix(r)
	if err != nil {
		return "", netip.Addr{}, err
	}
	ctx, cancel := detachedContext(r)
	defer cancel()
	length, ok := map[string]time.Duration{"day": day, "week": 7 * day, "ever": 0}[r.PostForm.Get("for")]
	if !ok {
		return "", netip.Addr{}, api.Invalid("a day, a week, or for ever", "the form does not say for how long")
	}
	res, err := p.Source.Allow(ctx, api.AllowRequest{Prefix: prefix, For: length, By: s.by})
	p.logChange(r, "allow", err, s, "entry", prefix, "for", length)
	if err != nil {
		return "", netip.Addr{}, err
	}
	name := humanize.Prefix(prefix)
	text := name + " is allowed from now on, and never banned."
	if res.Until != nil {
		text = name + " is allowed until " + p.shortTime(*res.Until) + ", and not banned before."
	}
	switch {
	case !res.Added && res.Until != nil:
		text = name + " was allowed already, and now is until " + p.shortTime(*res.Until) + "."
	case !res.Added:
		text = name + " was allowed already."
	}
	text += " To take it back, type on the PBX: ringwall allow del " + name
	if !res.Lasting && res.Added {
		text += ". This lasts until ringwall restarts: for good, add it to policy.allow."
	}
	return text, prefix.Addr(), nil
}

func (p *Page) leaveByForm(*http.Request, session) (string, netip.Addr, error) {
	return "", netip.Addr{}, nil
}

// logChange is the record of who changed what by hand, as that of the control socket is.
func (p *Page) logChange(r *http.Request, what string, err error, s session, args ...any) {
	level, args := slog.LevelInfo, append([]any{"change", what, "by", s.by, "through", "page"}, args...)
	if err != nil {
		level, args = slog.LevelWarn, append(args, "err", err)
	}
	p.Log.Log(r.Context(), level, "manual change", args...)
}

// detachedContext is the context of a change: what a person began is finished, also when the browser has gone.
func detachedContext(r *http.Request) (ctx context.Context, cancel context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), kernelTimeout)
}
