package web

import (
	"bytes"
	"html/template"
	"net/http"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// pageView is what the templates of all pages get.
type pageView struct {
	rights
	Title    string
	Host     string
	Address  string
	Now      time.Time
	Token    string // of the forms of a session
	By       string // who passed on the right to change things
	Until    time.Time
	Live     bool // the page is renewed
	Told     string
	Problem  string // instead of what was asked for
	Hint     string
	Asked    string // in the search field
	Note     string // how what was asked was understood
	Why      *whyView
	Tried    *accountView // instead of Why
	Parts    map[string]template.HTML
	Commands []suggestedCommand
}

type suggestedCommand struct{ What, Type string }

// newPageView is a page with this title, and with the rights and the notice of the session of the request.
func (p *Page) newPageView(r *http.Request, title string) pageView {
	f := pageView{Title: title, Host: printable.String(p.Host), Address: p.Address.String(), Now: time.Now(),
		rights: rights{Loopback: p.loopback}}
	if s, k, ok := p.sessionOf(r); ok {
		f.Act, f.Token, f.By, f.Until = true, s.token, boundedLine(s.by.String()), s.until
		f.Told = p.sessions.takeNotice(k)
	}
	return f
}

// sessionOf returns the session of a request; false where it has none, and so may change nothing.
func (p *Page) sessionOf(r *http.Request) (session, secretDigest, bool) {
	if !p.loopback {
		return session{}, secretDigest{}, false
	}
	return p.sessions.sessionOf(time.Now(), r)
}

// serveHome writes the status page itself, with all parts.
func (p *Page) serveHome(w http.ResponseWriter, r *http.Request) {
	f := p.newPageView(r, "Ringwall")
	if f.Host != "" {
		f.Title += " on " + f.Host
	}
	f.Live, f.Parts = true, make(map[string]template.HTML)
	s := p.takeSnapshot(r.Context())
	for _, part := range pageParts() {
		html, err := p.renderPart(part.Name, part.view(p, s), s.at, f.rights)
		if err != nil {
			p.writeFailure(w, r, err)
			return
		}
		f.Parts[part.Name] = html
	}
	p.writePage(w, r, http.StatusOK, "home", f)
}

// writeMessage writes a page that says a problem and what to try.
func (p *Page) writeMessage(w http.ResponseWriter, r *http.Request, code int, problem, hint string) {
	f := p.newPageView(r, "Ringwall")
	f.Problem, f.Hint = boundedLine(problem), boundedLine(hint)
	p.writePage(w, r, code, "message", f)
}

func (p *Page) writeFailure(w http.ResponseWriter, r *http.Request, err error) {
	p.Log.ErrorContext(r.Context(), "the status page cannot be written", "path", r.URL.Path, "err", err)
	http.Error(w, "Ringwall cannot write this page; its log says why", http.StatusInternalServerError)
}

// writePage sends a page in one piece: half of a page would look like good news.
func (p *Page) writePage(w http.ResponseWriter, r *http.Request, code int, name string, f pageView) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, f); err != nil {
		p.writeFailure(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}
