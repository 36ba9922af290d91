package web

import (
	"context"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// fresh is how old a snapshot may be that is shown once more: however many look, the engine is asked this often.
const fresh = 150 * time.Millisecond

// snapshot is all that the page shows, at one moment.
type snapshot struct {
	at       time.Time
	status   api.Status
	failed   error // the status could not be had
	bans     []ban.Ban
	trusted  []ban.Trust
	activity engine.Activity
	last     []ban.Decision
	phones   []ban.Decision
	alarms   []ban.Decision
}

// snapshot asks the source, or returns what it said a moment ago.
func (p *Page) snapshot(ctx context.Context) *snapshot {
	p.building.Lock()
	defer p.building.Unlock()
	now := time.Now()
	if p.latest != nil && now.Sub(p.latest.at) < fresh {
		return p.latest
	}
	s := &snapshot{at: now}
	s.status, s.failed = p.Source.Status(ctx)
	s.bans = p.Source.NewestBans(maxBans)
	s.trusted = p.Source.NewestTrusted(maxTrusted)
	s.activity = p.Source.Activity(maxAccounts)
	s.last, s.phones, s.alarms = p.watch.latest(now)
	p.latest = s
	return s
}
