package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	maxClients = 32
	// beat is how often a silent stream shows that it is alive.
	beat = 10 * time.Second
	// stalled is how long a client may take to read what it is sent.
	stalled = 10 * time.Second
)

// generation is what everybody who looks should see: it never changes, the next one takes its place. A client that is
// slow leaves generations out.
type generation struct {
	at    time.Time
	parts []shown
}

type shown struct {
	sum  uint64
	at   time.Time // when it was renewed
	html [2]string // without and with the right to act
}

// client is one stream.
type client struct {
	news chan struct{} // holds a token when there is a generation that it has not seen
}

// addClient counts a client in, unless there are too many.
func (p *Page) addClient() (*client, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clients) >= maxClients {
		return nil, false
	}
	c := &client{news: make(chan struct{}, 1)}
	p.clients[c] = struct{}{}
	if p.shown != nil {
		c.news <- struct{}{}
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return c, true
}

func (p *Page) removeClient(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
	if len(p.clients) == 0 {
		p.shown = nil
	}
}

// publish makes the next generation, if anybody looks and anything changed.
func (p *Page) publish(ctx context.Context) {
	p.mu.Lock()
	before, watched := p.shown, len(p.clients) > 0
	p.mu.Unlock()
	if !watched {
		return
	}
	next, changed := p.next(p.snapshot(ctx), before)
	if !changed {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = next
	for c := range p.clients {
		select {
		case c.news <- struct{}{}:
		default:
		}
	}
}

// next renders the parts that look otherwise than before.
func (p *Page) next(s *snapshot, before *generation) (*generation, bool) {
	all := parts()
	next, changed := &generation{at: s.at, parts: make([]shown, len(all))}, before == nil
	for i, part := range all {
		if before != nil {
			next.parts[i] = before.parts[i]
			if s.at.Sub(before.parts[i].at) < part.every {
				continue
			}
		}
		view := part.view(p, s)
		sum := viewHash(view)
		if before != nil && sum == before.parts[i].sum {
			continue
		}
		n := shown{sum: sum, at: s.at}
		for act := range n.html {
			html, err := p.render(part.Name, view, s.at, rights{Act: act == 1, Loopback: p.loopback})
			if err != nil {
				p.Log.Error("the status page cannot be renewed", "part", part.Name, "err", err)
				return before, false
			}
			n.html[act] = string(html)
		}
		next.parts[i], changed = n, true
	}
	return next, changed
}

// events streams the parts that change, as server-sent events (WHATWG HTML, section 9.2): each a line of JSON.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // HEAD, which would hold a place and never read
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	c, ok := p.addClient()
	if !ok {
		http.Error(w, "Ringwall: too many pages are open for live updates; this one is renewed now and then",
			http.StatusServiceUnavailable)
		return
	}
	defer p.removeClient(c)
	_, _, act := p.session(r)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	// The server's own deadlines are meant for one answer.
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	send := func(text string) bool {
		if err := rc.SetWriteDeadline(time.Now().Add(stalled)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	hello := message(map[string]any{"act": act, "now": time.Now().Unix(), "script": p.assets["/page.js"].link})
	if !send("retry: 2000\nevent: hello\ndata: " + hello + "\n\n") {
		return
	}
	alive := time.NewTicker(beat)
	defer alive.Stop()
	var seen []uint64
	for {
		text := ""
		select {
		case <-p.closing:
			return
		case <-r.Context().Done():
			return
		case <-alive.C:
			if _, _, still := p.session(r); still != act { // the session is over: the page should say so
				return
			}
			text = ": alive\nevent: beat\ndata: " + message(map[string]any{"now": time.Now().Unix()}) + "\n\n"
		case <-c.news:
			p.mu.Lock()
			g := p.shown
			p.mu.Unlock()
			text, seen = g.since(seen, act)
		}
		if text != "" && !send(text) {
			return
		}
	}
}

// since writes the parts of a generation that a client has not seen.
func (g *generation) since(seen []uint64, act bool) (string, []uint64) {
	if g == nil {
		return "", seen
	}
	variant := 0
	if act {
		variant = 1
	}
	text, now := "", make([]uint64, len(g.parts))
	for i, part := range parts() {
		now[i] = g.parts[i].sum
		if seen != nil && seen[i] == now[i] {
			continue
		}
		text += "event: part\ndata: " + message(map[string]any{"part": part.Name, "html": g.parts[i].html[variant],
			"now": g.at.Unix()}) + "\n\n"
	}
	return text, now
}

// message is one line of JSON.
func message(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "{}"
	}
	return string(printable.JSON(text))
}
