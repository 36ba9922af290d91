package web

import (
	"context"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// snapshotMaxAge is how old a snapshot may be that is shown once more. However many look, the engine is not asked
// more often.
const snapshotMaxAge = 150 * time.Millisecond

// snapshot is all that the page shows, at one moment.
type snapshot struct {
	at         time.Time
	status     api.Status
	statusErr  error // the status could not be had
	bans       []ban.Ban
	restricted []ban.Restriction
	trusted    []ban.Trust
	activity   engine.Activity
	decisions  []ban.Decision
	phones     []ban.Decision
	alarms     []ban.Decision
}

// takeSnapshot asks the source, or returns the latest snapshot where that is young enough.
func (p *Page) takeSnapshot(ctx context.Context) *snapshot {
	p.snapshotMu.Lock()
	defer p.snapshotMu.Unlock()
	now := time.Now()
	if p.latest != nil && now.Sub(p.latest.at) < snapshotMaxAge {
		return p.latest
	}
	s := &snapshot{at: now}
	s.status, s.statusErr = p.Source.Status(ctx)
	s.bans = p.Source.NewestBans(maxBans)
	s.restricted = p.Source.LongestRestricted(maxRestricted)
	s.trusted = p.Source.NewestTrusted(maxTrusted)
	s.activity = p.Source.Activity(maxAccounts)
	s.decisions, s.phones, s.alarms = p.recent.current(now)
	p.latest = s
	return s
}
