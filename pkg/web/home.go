package web

import (
	"bytes"
	"html/template"
	"net/http"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// frame is what every page has.
type frame struct {
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
	Why      *answer
	Tried    *tried // instead of Why
	Parts    map[string]template.HTML
	Commands []command
}

type command struct{ What, Type string }

// frame begins a page for whoever asks.
func (p *Page) frame(r *http.Request, title string) frame {
	f := frame{Title: title, Host: printable.String(p.Host), Address: p.Address.String(), Now: time.Now(),
		rights: rights{Loopback: p.loopback}}
	if s, k, ok := p.session(r); ok {
		f.Act, f.Token, f.By, f.Until = true, s.token, sentence(s.by.String()), s.until
		f.Told = p.sessions.told(k)
	}
	return f
}

// session returns who asks, if that is somebody who may change things.
func (p *Page) session(r *http.Request) (session, key, bool) {
	if !p.loopback {
		return session{}, key{}, false
	}
	return p.sessions.of(time.Now(), r)
}

// home shows everything.
func (p *Page) home(w http.ResponseWriter, r *http.Request) {
	f := p.frame(r, "Ringwall")
	if f.Host != "" {
		f.Title += " on " + f.Host
	}
	f.Live, f.Parts = true, make(map[string]template.HTML)
	s := p.snapshot(r.Context())
	for _, part := range parts() {
		html, err := p.render(part.Name, part.view(p, s), s.at, f.rights)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		f.Parts[part.Name] = html
	}
	p.write(w, r, http.StatusOK, "home", f)
}

// message is a page with one thing to say.
func (p *Page) message(w http.ResponseWriter, r *http.Request, code int, problem, hint string) {
	f := p.frame(r, "Ringwall")
	f.Problem, f.Hint = sentence(problem), sentence(hint)
	p.write(w, r, code, "message", f)
}

func (p *Page) fail(w http.ResponseWriter, r *http.Request, err error) {
	p.Log.ErrorContext(r.Context(), "the status page cannot be written", "path", r.URL.Path, "err", err)
	http.Error(w, "Ringwall cannot write this page; its log says why", http.StatusInternalServerError)
}

// write sends a page in one piece: half of a page would look like good news.
func (p *Page) write(w http.ResponseWriter, r *http.Request, code int, name string, f frame) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, f); err != nil {
		p.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}
