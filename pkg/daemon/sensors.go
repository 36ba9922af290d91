package daemon

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/witness"
)

const (
	// findingsInterval is how often the witness is asked what no event has told in time.
	findingsInterval = 100 * time.Millisecond
	// lateEvents is from when on events of an Asterisk come too late to say that it keeps silent.
	lateEvents = 250 * time.Millisecond
)

// sensors are the senses besides Asterisk's events, and the witness that makes one list of attempts of what all of them
// tell. Each sensor is a part: the others go on without it.
type sensors struct {
	daemon *Daemon
	tap    sensor
	hep    sensor
	marks  marks

	mu       sync.Mutex // of what follows
	witness  *witness.Witness
	findings []witness.Finding
	told     map[event.Sensor]map[string]uint64 // what no event of Asterisk's told, by its type
	unseen   int                                // events in a row that a sensor should have seen, and did not
	unseenAt time.Time                          // of the first of them
	seenAny  bool                               // a sensor saw what an event told of
}

// A sensor is silent where so many events in a row, over so long a time at least, tell of what it should have seen.
const (
	unseenEvents = 20
	unseenFor    = time.Minute
)

// noteSeen notes whether a sensor saw what an event tells of.
func (s *sensors) noteSeen(now time.Time, ev *event.Event, seen bool) {
	switch {
	case seen:
		s.seenAny, s.unseen = true, 0
	case ev.Remote.Transport == event.UDP && ev.Service == event.PJSIP && ev.Type != event.ChallengeSent &&
		ev.Type != event.SuccessfulAuth && !s.isCustomers(ev.Remote.AddrPort.Addr()):
		if s.unseen++; s.unseen == 1 {
			s.unseenAt = now
		}
	}
}

// isCustomers says whether an address is a customer's, or allowed: the tap looks at no flow from which somebody logged
// in.
func (s *sensors) isCustomers(addr netip.Addr) (customers bool) {
	s.daemon.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { customers = e.IsCustomers(addr) })
	return customers
}

// silence says that sensors see nothing of what Asterisk tells, nil where they do. Where none ever saw anything,
// Asterisk is on another machine.
func (s *sensors) silence() (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.working() || !s.seenAny || s.unseen < unseenEvents ||
		s.daemon.pipeline.Clock().Now().Sub(s.unseenAt) < unseenFor {
		return time.Time{}, nil
	}
	return time.Time{}, hint.Errorf("ringwall doctor", "sensors have seen nothing of the last %d attempts that "+
		"Asterisk tells of",
		s.unseen)
}

// sensor is one of them, as status and metrics show it.
type sensor struct {
	by     event.Sensor
	counts atomic.Pointer[func() sensorCounts] // nil while the sensor does not work
	lag    atomic.Int64                        // from the last packet to its judgement, ns
	absent atomic.Pointer[string]              // why it does not work although nothing failed
	lost   uint64                              // at the last look, of tellLosses alone
}

// sensorCounts is what a sensor counts.
type sensorCounts struct {
	heard, lost uint64
	lastHeard   time.Time
}

// openSensors adds the sensors to the parts of a daemon.
func (d *Daemon) openSensors() {
	d.sensors = &sensors{daemon: d, tap: sensor{by: event.ByTap}, hep: sensor{by: event.ByHEP},
		told: make(map[event.Sensor]map[string]uint64)}
	d.sensors.witness = witness.New(witness.Config{Signature: d.sensors.marks.match})
	d.addPart("policy.signatures", "mend the file that it names, then: systemctl reload ringwall", d.sensors.openMarks)
	d.addPart("sensors.tap", "ringwall doctor; sensors.tap: off to go without", d.sensors.openTap)
	d.addPart("sensors.hep", "mend sensors.hep, then: systemctl reload ringwall; this shows who has the port: ss -lunp",
		d.sensors.openHEP)
	d.tasks = append(d.tasks, d.sensors)
}

// String names the task.
func (*sensors) String() string { return "sensors" }

// Run has judged what no event told in time, until ctx ends.
func (s *sensors) Run(ctx context.Context) error {
	tick := time.NewTicker(findingsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.tellLosses()
			s.judgeFindings(s.collect(nil))
		}
	}
}

// working says whether any sensor works, so that it makes sense to match events with what it saw.
func (s *sensors) working() bool {
	return s != nil && (s.tap.counts.Load() != nil || s.hep.counts.Load() != nil)
}

// collect lets the witness see something, and returns what is to be judged now.
func (s *sensors) collect(see func(now time.Time, w *witness.Witness)) []witness.Finding {
	now := s.daemon.pipeline.Clock().Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if see != nil {
		see(now, s.witness)
	}
	s.findings = s.witness.Due(now, s.findings[:0])
	if len(s.findings) == 0 {
		return nil
	}
	found := slices.Clone(s.findings)
	for i := range found {
		by := found[i].Event.SeenBy
		if s.told[by] == nil {
			s.told[by] = make(map[string]uint64)
		}
		s.told[by][found[i].Event.Type.String()]++
	}
	return found
}

// judgeFindings has judged what sensors saw and no event told, like events of the Asterisk that was called.
func (s *sensors) judgeFindings(found []witness.Finding) {
	for _, f := range found {
		if f.Event.Type == event.Scanner {
			s.countHit(f.Event.Detail, f.Event.Remote.AddrPort.Addr())
		}
		input := pipeline.Input{Received: time.Now(), Event: f.Event}
		s.daemon.pipeline.Judge(cmp.Or(f.PBX, s.daemon.firstPBX()), []pipeline.Input{input},
			s.daemon.pipeline.Clock().Now())
	}
}

// match compares events of an Asterisk with what sensors saw, before they are judged. An attempt that a sensor has told
// already is left out. An event that names somebody else than the sender is tampering, and what it tells is the
// sender's.
func (s *sensors) match(pbx string, inputs []pipeline.Input, now time.Time) []pipeline.Input {
	if !s.working() {
		return inputs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make([]pipeline.Input, 0, len(inputs))
	for i := range inputs {
		in := &inputs[i]
		if in.Tampered == nil && in.Event.SeenBy == event.ByAMI {
			m := s.witness.Told(now, pbx, &in.Event)
			s.noteSeen(now, &in.Event, m.Seen)
			if m.Repeated {
				continue
			}
			if m.Sender.AddrPort.IsValid() {
				told := *in
				told.Event.Remote, told.Event.Proven, told.Event.SeenBy = m.Sender, m.IsSenderProven, event.ByTap
				kept = append(kept, told)
				in.Tampered = event.OtherSender(m.Sender.AddrPort.Addr())
			}
		}
		kept = append(kept, *in)
	}
	return kept
}

// maxSessions is how many Call-IDs of one frame are looked up.
const maxSessions = 4

// senderOf finds out who sent the request of an event whose lines are broken: it names nobody that can be believed, but
// a sensor saw who used its Call-ID. Where several did, nobody is named.
func (s *sensors) senderOf(frame string) (sender event.Address, ok bool) {
	if !s.working() {
		return event.Address{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	looked := 0
	for line := range strings.SplitSeq(frame, "\n") {
		id, isSession := strings.CutPrefix(line, "SessionID: ")
		if !isSession {
			continue
		}
		if looked++; looked > maxSessions {
			return event.Address{}, false
		}
		// The break stands in the value: what a sensor knows is the whole, and what the frame has its beginning.
		found, known := s.witness.Sender(strings.TrimSuffix(id, "\r"))
		if !known {
			continue
		}
		if ok && found.AddrPort.Addr() != sender.AddrPort.Addr() {
			return event.Address{}, false
		}
		sender, ok = found, true
	}
	return sender, ok
}

// injected is the event of a request by which somebody wrote lines of his own among Asterisk's events.
func injected(sender event.Address, now time.Time) event.Event {
	return event.Event{Type: event.MalformedRequest, Service: event.PJSIP, Time: now, Remote: sender,
		SeenBy:  event.ByTap,
		Hostile: true}
}

// setBlind tells the witness whether events of an Asterisk come, and come in time.
func (s *sensors) setBlind(pbx string, blind bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.witness.Blind(s.daemon.pipeline.Clock().Now(), pbx, blind)
}

// tellLosses tells the witness what was lost, so that it does not take for silence what nobody could hear.
func (s *sensors) tellLosses() {
	now := s.daemon.pipeline.Clock().Now()
	for _, one := range []*sensor{&s.tap, &s.hep} {
		if counts := one.counts.Load(); counts != nil {
			if lost := (*counts)().lost; lost != one.lost {
				one.lost = lost
				s.mu.Lock()
				s.witness.PacketsLost(now)
				s.mu.Unlock()
			}
		}
	}
	for _, p := range s.daemon.pbxs {
		if p.framesLostSince() {
			s.mu.Lock()
			s.witness.FramesLost(now, p.name)
			s.mu.Unlock()
		}
	}
}

// hasAsterisk says whether anybody answers here whose answers could be seen.
func (s *sensors) hasAsterisk() bool { return len(s.daemon.config.currentConfig().Asterisk) > 0 }

// sensorStatus is the sensors at a glance.
func (s *sensors) sensorStatus(cfg config.Sensors) []api.Sensor {
	if s == nil {
		return []api.Sensor{}
	}
	list := []api.Sensor{}
	for _, one := range []*sensor{&s.tap, &s.hep} {
		v := api.Sensor{Name: one.by.String(), Lag: time.Duration(one.lag.Load()).Seconds()}
		v.Off = one.by == event.ByTap && (cfg.Tap == config.TapOff || !s.hasAsterisk()) ||
			one.by == event.ByHEP && cfg.HEP.Listen == ""
		if counts := one.counts.Load(); counts != nil {
			c := (*counts)()
			v.Alive, v.Heard, v.Lost = true, c.heard, c.lost
			if !c.lastHeard.IsZero() {
				at := c.lastHeard.UTC()
				v.LastHeard = &at
			}
		} else if !v.Off {
			v.Error = s.daemon.faults.faultText("sensors." + v.Name)
			if why := one.absent.Load(); why != nil {
				v.Error = *why
			}
		}
		list = append(list, v)
	}
	return list
}

// presentSensors is the sensors in the metrics.
func (s *sensors) presentSensors(cfg config.Sensors) (list []metrics.SensorPresent) {
	for _, v := range s.sensorStatus(cfg) {
		if v.Off {
			continue
		}
		p := metrics.SensorPresent{Name: v.Name, Up: v.Alive, Heard: v.Heard, Lost: v.Lost, Lag: v.Lag}
		if v.LastHeard != nil {
			p.LastHeard = float64(v.LastHeard.UnixNano()) / 1e9
		}
		s.mu.Lock()
		p.Told = make(map[string]uint64)
		for typ := event.SilentGuess; typ <= event.HTTPRefused; typ++ {
			p.Told[typ.String()] = 0 // a counter that is not there yet has no increase
		}
		maps.Copy(p.Told, s.told[event.SensorNamed(v.Name)])
		s.mu.Unlock()
		list = append(list, p)
	}
	return list
}
