package daemon

import (
	"context"
	"time"
)

const (
	briskTick = 200 * time.Millisecond // while events come: bans and challenges end on time
	slowTick  = time.Second            // while none do: an idle daemon uses next to no processor
	idleAfter = 5 * time.Second        // without an event
	// renewInterval is how often what people rely on for long is written down and told to the kernel again.
	renewInterval = 5 * time.Minute
	// explainInterval is how often it is looked whether what was found in the kernel is explained by now.
	explainInterval = 5 * time.Second
)

// tickPace chooses how often the engine is ticked.
type tickPace struct {
	events uint64    // so far
	last   time.Time // when events last came
}

func (p *tickPace) nextPause(now time.Time, events uint64) time.Duration {
	if events != p.events {
		p.events, p.last = events, now
	}
	if now.Sub(p.last) < idleAfter {
		return briskTick
	}
	return slowTick
}

// eventCount is how many events came from all Asterisks.
func (d *Daemon) eventCount() (n uint64) {
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
	renew := time.NewTicker(renewInterval)
	defer renew.Stop()
	explain := time.NewTicker(explainInterval)
	defer explain.Stop()
	watchdog := newWatchdog()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.pipeline.Tick()
			watchdog.notifyOnTick(d)
			tick.Reset(pace.nextPause(time.Now(), d.eventCount()))
		case <-explain.C:
			d.dropExplained()
		case <-renew.C:
			for _, p := range d.pbxs {
				if p.session.Status().Up { // what Asterisk knew before it went away grows old
					d.pipeline.TrustContacts(p.name, p.learner.Knowledge().ThroughOnePort)
				}
			}
			d.pipeline.SaveTrusts()
			d.allowSources.keptAddresses.writeAddresses(d.allowSources.resolver.States(), false)
			d.pipeline.RefreshTrust()
		}
	}
}
