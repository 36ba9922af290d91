package web

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"html/template"
	"time"
)

// part is a piece of the page that is renewed on its own.
type part struct {
	Name  string
	every time.Duration // it is not renewed more often
	view  func(p *Page, s *snapshot) any
}

// parts are in the order of the fears of the person who reads them.
func parts() []part {
	return []part{
		{"health", time.Second, func(p *Page, s *snapshot) any { return p.health(s) }},
		{"numbers", 500 * time.Millisecond, func(_ *Page, s *snapshot) any { return numbersOf(s) }},
		{"bans", 500 * time.Millisecond, func(p *Page, s *snapshot) any { return p.bans(s) }},
		{"phones", 2 * time.Second, func(p *Page, s *snapshot) any { return p.phones(s) }},
		{"chart", 3 * time.Second, func(p *Page, s *snapshot) any { return p.charts(s) }},
		{"accounts", 3 * time.Second, func(_ *Page, s *snapshot) any { return accountsOf(s) }},
		{"trusted", 3 * time.Second, func(p *Page, s *snapshot) any { return p.trusted(s) }},
		{"decisions", time.Second, func(p *Page, s *snapshot) any { return p.decisions(s) }},
	}
}

// rights are what a reader may do.
type rights struct {
	Act      bool // unban and allow by a click
	Loopback bool // could be given that right
}

// framed is what the template of a part gets.
type framed struct {
	rights
	View    any
	Now     time.Time
	Caption string // of a table
}

// render makes the HTML of a part.
func (p *Page) render(name string, view any, now time.Time, may rights) (template.HTML, error) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, framed{rights: may, View: view, Now: now}); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil // made by html/template
}

// viewHash tells whether two views of a part look the same, but for the time that passes.
func viewHash(view any) uint64 {
	text, err := json.Marshal(view)
	if err != nil {
		return 0
	}
	return fnvOf(text)
}

func fnvOf(text []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(text)
	return h.Sum64()
}
