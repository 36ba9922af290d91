package web

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"html/template"
	"time"
)

// pagePart is a piece of the page that is renewed by itself.
type pagePart struct {
	Name        string
	minInterval time.Duration // it is not renewed more often
	view        func(p *Page, s *snapshot) any
}

// pageParts are the parts of the page from top to bottom: what a reader fears most comes first.
func pageParts() []pagePart {
	return []pagePart{
		{"health", time.Second, func(p *Page, s *snapshot) any { return p.viewHealth(s) }},
		{"numbers", 500 * time.Millisecond, func(_ *Page, s *snapshot) any { return viewNumbers(s) }},
		{"bans", 500 * time.Millisecond, func(p *Page, s *snapshot) any { return p.viewBans(s) }},
		{"phones", 2 * time.Second, func(p *Page, s *snapshot) any { return p.viewPhones(s) }},
		{"chart", 3 * time.Second, func(p *Page, s *snapshot) any { return p.viewCharts(s) }},
		{"accounts", 3 * time.Second, func(_ *Page, s *snapshot) any { return viewAccounts(s) }},
		{"trusted", 3 * time.Second, func(p *Page, s *snapshot) any { return p.viewTrusted(s) }},
		{"decisions", time.Second, func(p *Page, s *snapshot) any { return p.viewDecisions(s) }},
	}
}

// rights are what whoever sees the page may do.
type rights struct {
	Act      bool // unban and allow by a click
	Loopback bool // could be given that right
}

// partView is what the template of a part gets.
type partView struct {
	rights
	View    any
	Now     time.Time
	Caption string // of a table
}

// renderPart makes the HTML of a part.
func (p *Page) renderPart(name string, view any, now time.Time, may rights) (template.HTML, error) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, partView{rights: may, View: view, Now: now}); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil // made by html/template
}

// viewHash is the same for two views of a part that look the same, but for the time that passes.
func viewHash(view any) uint64 {
	text, err := json.Marshal(view)
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(text)
	return h.Sum64()
}
