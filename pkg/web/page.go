package web

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// How much is shown. The rest is a command away.
const (
	maxBans       = 100
	maxRestricted = 20
	maxTrusted    = 50
	maxAccounts   = 15
	maxDecisions  = 40
	maxPhones     = 50
	maxAlarms     = 10
	maxWarnings   = 20
)

// Source is what the page asks. Its methods are called from many goroutines, about once a second while somebody looks.
type Source interface {
	Status(ctx context.Context) (api.Status, error)
	// NewestBans returns up to n bans, the newest first, and NewestTrusted up to n trusted sources, those with failing
	// accounts first.
	NewestBans(n int) []ban.Ban
	// LongestRestricted returns up to n of what is cut or slow, those first that last the longest.
	LongestRestricted(n int) []ban.Restriction
	NewestTrusted(n int) []ban.Trust
	// Activity returns the last day with up to n accounts.
	Activity(n int) engine.Activity
	Why(ctx context.Context, addr netip.Addr) (engine.Explanation, error)
	Account(ctx context.Context, name string) (api.AccountResult, error)
	Place(addr netip.Addr) ban.Place
	History(ctx context.Context, since time.Time, addr netip.Addr, each func([]ban.Decision) error) error
	// Unban and Allow return once the kernel has the change.
	Unban(ctx context.Context, req api.UnbanRequest) (api.UnbanResult, error)
	Allow(ctx context.Context, req api.AllowRequest) (api.AllowResult, error)
}

// Config says what the page shows and where it is served.
type Config struct {
	Source  Source
	Feed    *api.Feed
	Address netip.AddrPort // of the listener; only on loopback can anything be changed
	Host    string         // name of this machine; may be empty
	Zone    *time.Location // of the times that are shown; nil is that of this machine
	Log     *slog.Logger
}

// Page is the status page. Serve its Handler, and Run it.
type Page struct {
	Config
	templates *template.Template
	assets    map[string]asset
	loopback  bool
	sessions  sessions
	recent    recentDecisions

	snapshotMu sync.Mutex // held while a snapshot is made; guards latest
	latest     *snapshot

	mu       sync.Mutex
	rendered *renderedParts
	streams  map[*eventStream]struct{}
	wake     chan struct{} // a client came
	closing  chan struct{} // closed when Run ends
}

// New makes a page. It fails only where what is built into the program is broken.
func New(c Config) (*Page, error) {
	if c.Zone == nil {
		c.Zone = time.Local
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Page{Config: c, loopback: c.Address.Addr().Unmap().IsLoopback(), streams: make(map[*eventStream]struct{}),
		wake: make(chan struct{}, 1), closing: make(chan struct{})}
	var err error
	if p.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if p.templates, err = p.parseTemplates(); err != nil {
		return nil, err
	}
	return p, nil
}

// String names the task.
func (p *Page) String() string { return "status page" }

// Run keeps those who look up to date until ctx ends, and then ends their streams. It may be called once.
func (p *Page) Run(ctx context.Context) error {
	defer close(p.closing)
	_, news := p.Feed.Follow(time.Time{})
	defer news.Close()
	err := p.Source.History(ctx, time.Now().Add(-phoneShownFor), netip.Addr{}, func(some []ban.Decision) error {
		p.recent.addDecisions(some)
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Debug("the status page begins without history", "err", err)
	}
	const (
		renewInterval      = time.Second            // for what changes without a decision
		renewAfterDecision = 200 * time.Millisecond // so that a flood of decisions renews the page once
		betweenBatches     = 2 * time.Millisecond   // so that a flood of decisions does not wake us each time
	)
	more := news.More()
	batchPause := time.NewTimer(0)
	defer batchPause.Stop()
	timer := time.NewTimer(renewInterval)
	defer timer.Stop()
	renewAt := time.Now().Add(renewInterval)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-batchPause.C:
			more = news.More()
			continue
		case <-more:
			batches, _ := news.Take()
			for _, decisions := range batches {
				p.recent.addDecisions(decisions)
			}
			more = nil
			batchPause.Reset(betweenBatches)
		case <-p.wake:
		case <-timer.C:
			p.renewStreams(ctx)
			renewAt = time.Now().Add(renewInterval)
			timer.Reset(renewInterval)
			continue
		}
		if left := time.Until(renewAt); left > renewAfterDecision {
			renewAt = time.Now().Add(renewAfterDecision)
			timer.Reset(renewAfterDecision)
		}
	}
}

// Handler serves the page. Every path except that of the metrics may be given to it.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.serveHome)
	mux.HandleFunc("GET /why", p.serveWhy)
	mux.HandleFunc("GET /events", p.serveEvents)
	mux.HandleFunc("GET /enter", p.serveEnter)
	mux.HandleFunc("POST /unban", p.serveChange("unban", p.unbanByForm))
	mux.HandleFunc("POST /allow", p.serveChange("allow", p.allowByForm))
	mux.HandleFunc("POST /leave", p.serveChange("leave", p.leaveByForm))
	for path, a := range p.assets {
		mux.Handle("GET "+path, a)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.writeMessage(w, r, http.StatusNotFound, "There is no such page",
			"The status page is at /, and Prometheus' metrics are at /metrics.")
	})
	return p.guardRequests(mux)
}
