package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	maxStreams = 32
	// heartbeatInterval is how often a silent stream shows that it is alive.
	heartbeatInterval = 10 * time.Second
	// streamWriteTimeout is how long a client may take to read what it is sent.
	streamWriteTimeout = 10 * time.Second
)

// renderedParts is the page as all browsers should show it now. It never changes: the next one takes its place. A
// browser that reads slowly is not sent those in between.
type renderedParts struct {
	rendered time.Time
	parts    []renderedPart
}

type renderedPart struct {
	viewHash uint64
	renewed  time.Time // when it was renewed
	html     [2]string // without and with the right to act
}

// eventStream is a browser that gets the parts of the page as they change.
type eventStream struct {
	hasNews chan struct{} // holds a token when there is a generation that it has not seen
}

// addStream registers a browser, unless there are maxStreams; false then.
func (p *Page) addStream() (*eventStream, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.streams) >= maxStreams {
		return nil, false
	}
	c := &eventStream{hasNews: make(chan struct{}, 1)}
	p.streams[c] = struct{}{}
	if p.rendered != nil {
		c.hasNews <- struct{}{}
	}
	mailbox.Signal(p.wake)
	return c, true
}

func (p *Page) removeStream(c *eventStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, c)
	if len(p.streams) == 0 {
		p.rendered = nil
	}
}

// renewStreams renders what has changed, and wakes all streams, if there are any.
func (p *Page) renewStreams(ctx context.Context) {
	p.mu.Lock()
	before, watched := p.rendered, len(p.streams) > 0
	p.mu.Unlock()
	if !watched {
		return
	}
	next, changed := p.renderChanged(p.takeSnapshot(ctx), before)
	if !changed {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rendered = next
	for c := range p.streams {
		mailbox.Signal(c.hasNews)
	}
}

// renderChanged renders the parts that look otherwise than before, and returns whether there was one.
func (p *Page) renderChanged(s *snapshot, before *renderedParts) (*renderedParts, bool) {
	all := pageParts()
	next, changed := &renderedParts{rendered: s.at, parts: make([]renderedPart, len(all))}, before == nil
	for i, part := range all {
		if before != nil {
			next.parts[i] = before.parts[i]
			if s.at.Sub(before.parts[i].renewed) < part.minInterval {
				continue
			}
		}
		view := part.view(p, s)
		sum := viewHash(view)
		if before != nil && sum == before.parts[i].viewHash {
			continue
		}
		n := renderedPart{viewHash: sum, renewed: s.at}
		for act := range n.html {
			html, err := p.renderPart(part.Name, view, s.at, rights{Act: act == 1, Loopback: p.loopback})
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

// serveEvents streams the parts that change, as server-sent events (WHATWG HTML, section 9.2): each a line of JSON.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // HEAD, which would hold a place and never read
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	c, ok := p.addStream()
	if !ok {
		http.Error(w, "Ringwall: too many pages are open for live updates; this one is renewed now and then",
			http.StatusServiceUnavailable)
		return
	}
	defer p.removeStream(c)
	_, _, act := p.sessionOf(r)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	// The server's own deadlines are meant for one answer.
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	send := func(text string) bool {
		if err := rc.SetWriteDeadline(time.Now().Add(streamWriteTimeout)); err != nil &&
			!errors.Is(err, http.ErrNotSupported) {
			return false
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	hello := jsonLine(map[string]any{"act": act, "now": time.Now().Unix(), "script": p.assets["/page.js"].link})
	if !send("retry: 2000\nevent: hello\ndata: " + hello + "\n\n") {
		return
	}
	alive := time.NewTicker(heartbeatInterval)
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
			if _, _, still := p.sessionOf(r); still != act { // the session is over: the page should say so
				return
			}
			text = ": alive\nevent: beat\ndata: " + jsonLine(map[string]any{"now": time.Now().Unix()}) + "\n\n"
		case <-c.hasNews:
			p.mu.Lock()
			g := p.rendered
			p.mu.Unlock()
			text, seen = g.changedSince(seen, act)
		}
		if text != "" && !send(text) {
			return
		}
	}
}

// changedSince writes the parts that a browser has not seen as events. seen and the result are the hash of each part
// that the browser has then.
func (g *renderedParts) changedSince(seen []uint64, act bool) (string, []uint64) {
	if g == nil {
		return "", seen
	}
	variant := 0
	if act {
		variant = 1
	}
	text, now := "", make([]uint64, len(g.parts))
	for i, part := range pageParts() {
		now[i] = g.parts[i].viewHash
		if seen != nil && seen[i] == now[i] {
			continue
		}
		text += "event: part\ndata: " + jsonLine(map[string]any{"part": part.Name, "html": g.parts[i].html[variant],
			"now": g.rendered.Unix()}) + "\n\n"
	}
	return text, now
}

// jsonLine is a value as one line of JSON, without control characters.
func jsonLine(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "{}"
	}
	return string(printable.JSON(text))
}
