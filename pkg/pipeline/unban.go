package pipeline

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/store"
)

// An event waits for a piece under the engine's lock, and its ban for the pieces before it in the kernel's queue: 64
// bans take half a millisecond, 4 pieces half a millisecond more (deploy/bench, -only unban).
const (
	unbanPiece = 64 // bans that are lifted while events wait
	unbanAhead = 4  // pieces that may wait for the kernel
	// unbanPause is between two pieces: sockets are looked at by a processor that has nothing else to do, or every 10
	// ms (runtime/proc.go: findRunnable, sysmon).
	unbanPause = 50 * time.Microsecond
)

// Unban does all of a Pardon, a piece at a time so that events need not wait for it, and tells each what ended. It
// returns when the kernel has let all of them go. When ctx ends first, what is left stays banned.
func (p *Pipeline) Unban(
	ctx context.Context, pardon *engine.Pardon, each func([]ban.Decision, []ban.Restriction),
) error {
	defer p.ReadEngine(func(*engine.Engine, time.Time) { pardon.Close() })
	committed := make(chan error, unbanAhead)
	open := 0
	var failed error
	await := func(most int) error {
		for open > most {
			select {
			case err := <-committed:
				open--
				failed = cmp.Or(failed, err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return failed
	}
	for more := true; more; {
		var ended []ban.Decision
		var restrictions []ban.Restriction
		ended, restrictions, more = p.unbanSome(pardon, func(err error) { committed <- err })
		open++
		each(ended, restrictions)
		if more {
			time.Sleep(unbanPause)
		}
		if err := await(unbanAhead - 1); err != nil {
			return err
		}
	}
	return await(0)
}

// unbanSome lifts a few bans, or what is cut and slow of a few sources, and has the graces saved.
func (p *Pipeline) unbanSome(
	pardon *engine.Pardon, committed func(error),
) (ended []ban.Decision, restrictions []ban.Restriction, more bool) {
	p.mu.Lock()
	ended, more = p.engine.UnbanSome(p.clock.Now(), pardon, unbanPiece)
	if p.store != nil {
		graces := make([]store.Change, 0, len(pardon.Graces))
		for _, g := range pardon.Graces {
			graces = append(graces, store.PutGrace(g))
		}
		p.SaveChanges(graces)
	}
	restrictions = slices.Clone(pardon.Restrictions)
	flush := p.submitLocked(ended, nil, nil, committed)
	p.mu.Unlock()
	flush()
	return ended, restrictions, more
}

// LetIn makes sure that a person's word counts for bans, too, that only the kernel knows until the bans of before are
// compared: those within a prefix, or with an invalid one all. It returns when those are out whose prefixes it can
// tell.
func (p *Pipeline) LetIn(ctx context.Context, within, source netip.Prefix) error {
	p.mu.Lock()
	if !p.restoring {
		p.mu.Unlock()
		return nil
	}
	var changes []firewall.Change
	if within.IsValid() && len(p.released.within) < maxWithin {
		p.released.within = append(p.released.within, within)
		for _, prefix := range []netip.Prefix{within, source} {
			if _, banned := p.engine.BanRemaining(p.clock.Now(), prefix); prefix.IsValid() && !banned {
				changes = append(changes, p.unbanChangesLocked(prefix)...)
			}
		}
	} else {
		p.released.all = true
	}
	committed := make(chan error, 1)
	flush := p.writer.Submit(changes, func(err error) { committed <- err })
	p.mu.Unlock()
	flush()
	select {
	case err := <-committed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
