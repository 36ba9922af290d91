package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
)

//go:embed assets
var assets embed.FS

// asset is a file that the page loads, under a name that changes with it.
type asset struct {
	contentType string
	text        []byte
	link        string
}

// ServeHTTP sends the file.
func (a asset) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", a.contentType)
	_, _ = w.Write(a.text)
}

func loadAssets() (map[string]asset, error) {
	kinds := map[string]string{
		"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8",
		"/icon.svg": "image/svg+xml",
	}
	all := make(map[string]asset, len(kinds))
	for name, kind := range kinds {
		text, err := assets.ReadFile(path.Join("assets", name))
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256(text)
		all[name] = asset{kind, text, name + "?v=" + hex.EncodeToString(digest[:6])}
	}
	return all, nil
}

func (p *Page) parseTemplates() (*template.Template, error) {
	return template.New("page").Funcs(template.FuncMap{
		"asset": func(name string) string { return p.assets[name].link },
		"clock": p.shortTime,
		"short": p.minuteTime,
		"rfc":   func(t time.Time) string { return t.In(p.Zone).Format(time.RFC3339) },
		"unix":  func(t time.Time) int64 { return t.Unix() },
		"left": func(now, until time.Time) string {
			return humanize.Duration(max(time.Second, until.Sub(now).Round(time.Second)))
		},
		"ago":       agoText,
		"thousands": humanize.Thousands,
		"plural":    pluralThousands,
		"capital":   capitalized,
		"bare":      humanize.Prefix,
		"zone":      func(t time.Time) string { return t.In(p.Zone).Format("MST") },
		"ordinal":   humanize.Ordinal,
		"command":   isCommand,
		"first":     firstItems,
		"rest":      restItems,
		"withView": func(f partView, view any, caption string) partView {
			f.View, f.Caption = view, caption
			return f
		},
	}).ParseFS(assets, "assets/*.html")
}

// shortTime writes a time in this machine's zone, without the date where it is today's.
func (p *Page) shortTime(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	now := time.Now().In(p.Zone)
	t = t.In(p.Zone)
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2 Jan 15:04:05")
}

// minuteTime is shortTime without seconds.
func (p *Page) minuteTime(t time.Time) string {
	text := p.shortTime(t)
	return text[:max(0, len(text)-len(":05"))]
}

// agoText writes how long ago something was, to the minute.
func agoText(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 10*time.Second:
		return "just now"
	case d < time.Minute:
		return "seconds ago"
	}
	return humanize.Duration(d.Truncate(time.Minute)) + " ago"
}

// firstItems and restItems cut a list of any kind in two.
func firstItems(list any, n int) any {
	v := reflect.ValueOf(list)
	return v.Slice(0, min(n, v.Len())).Interface()
}

func restItems(list any, n int) any {
	v := reflect.ValueOf(list)
	return v.Slice(min(n, v.Len()), v.Len()).Interface()
}

// isCommand reports whether a line is a command to type, rather than a sentence.
func isCommand(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return slices.Contains([]string{"ringwall", "systemctl", "journalctl", "asterisk", "nft", "sudo", "modprobe"}, word)
}
