package daemon

import (
	"context"
	"time"
)

const (
	briskTick = 200 * time.Millisecond // while events come: bans and challenges end on time
	slowTick  = time.Second            // while none do: an idle daemon uses next to no processor
	idleAfter = 5 * time.Second        // without an event
	// renewEvery is how often what people rely on for long is written down and told to the kernel again.
	renewEvery = 5 * time.Minute
	// explainEvery is how often it is looked whether what was found in the kernel is explained by now.
	explainEvery = 5 * time.Second
)

// tickPace says how soon the engine's time is due again.
type tickPace struct {
	events uint64    // so far
	last   time.Time // when there were fewer
}

func (p *tickPace) next(now time.Time, events uint64) time.Duration {
	if events != p.events {
		p.events, p.last = events, now
	}
	if now.Sub(p.last) < idleAfter {
		return briskTick
	}
	return slowTick
}

// events is how many events came from all Asterisks.
func (d *Daemon) events() (n uint64) {
	for _, p := range d.pbxs {
		n += p.events.Load()
	}
	return n
}

// tickLoop drives the engine's time and systemd's watchdog.
func (d *Daemon) tickLoop(ctx context.Context) error {
	pace := tickPace{last: time.Now()}
	tick := time.NewTimer(briskTick)
	defer tick.Stop()
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	explain := time.NewTicker(explainEvery)
	defer explain.Stop()
	watchdog := newWatchdog()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.pipeline.Tick()
			watchdog.notify(d)
			tick.Reset(pace.next(time.Now(), d.events()))
		case <-explain.C:
			d.dropExplained()
		case <-renew.C:
			for _, p := range d.pbxs {
				if p.session.Status().Up { // what Asterisk knew before it went away grows old
					d.pipeline.Vouch(p.name, p.learner.Knowledge().Contacts)
				}
			}
			d.pipeline.SaveTrusts()
			d.allowSources.kept.keep(d.allowSources.resolver.States(), false)
			d.pipeline.RefreshTrust()
		}
	}
}
