package replay

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

const (
	progressEvery = 200 * time.Millisecond
	second        = int64(time.Second)
	minute        = int64(time.Minute)

	// quietAfterEnd is for how long the engine is ticked after the end of a recording, so that what is due comes out.
	quietAfterEnd = minute
	// maxLocalAddresses bounds the addresses of the PBX that are learned from LocalAddress.
	maxLocalAddresses = 64
)

// Options are what a replay plays by and tells.
type Options struct {
	Policy   config.Policy
	Firewall config.Firewall // says which packets a ban stops
	Multiply config.Multiply // of points, by the place of their source
	// Place says where an address is registered: today, since no file knows how it was then. May be nil without
	// Multiply.
	Place func(netip.Addr) ban.Place
	PBX   string    // name of the Asterisk, for the decisions
	Stdin io.Reader // the file "-"
	// Empty stands for the time of what is tampered with in a recording that has no event, and so no time.
	Empty time.Time
	// Decide is called with each decision, in order; its error ends the replay.
	Decide func(ban.Decision) error
	// Progress, if not nil, is called at most five times a second, and at the end, while Run reads.
	Progress func(Progress)
}

// Progress is how far a replay is.
type Progress struct {
	Read    int64 // bytes, before decompression
	Size    int64 // bytes of all files
	Unknown bool  // the size of one of them, such as stdin
	Events  int64 // so far
}

// Run plays files, of which "-" is Options.Stdin, in the order of their events: files whose times overlap, such as the
// logs of two servers, are merged. A file that cannot be read does not stop the others; see [Summary.Failed]. The
// error is that of ctx or of Options.Decide. Memory is bounded, except for some 200 kB for each file.
func Run(ctx context.Context, names []string, o Options) (*Summary, error) {
	p := &player{Options: o, engine: engine.NewRepeatable(o.Policy), tally: newTally(o.Policy, o.Firewall),
		now: math.MinInt64}
	p.engine.SetLocate(o.Place)
	if p.engine.SetMultipliers(o.Multiply, o.Place); !o.Multiply.IsZero() {
		p.addNote("points were multiplied by where addresses are registered today, which need not be where they were " +
			"then")
	}
	m := &progressMeter{ctx: ctx, report: o.Progress, events: &p.events, last: time.Now()}
	recordings := make([]*recording, len(names))
	defer func() {
		for _, s := range recordings {
			if s != nil {
				s.close()
			}
		}
	}()
	for i, name := range names {
		recordings[i] = openRecording(name, o.Stdin, m)
		if !recordings[i].done {
			recordings[i].counts.From = recordings[i].ev.Time
		}
	}
	p.allowAlways(recordings)
	if err := p.playAll(ctx, p.orderRecordings(recordings)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.finishSummary(recordings)
	if m.report != nil {
		m.progress.Events = p.events
		m.report(m.progress)
	}
	return p.tally.sum, nil
}

// player plays the events of all files to one engine.
type player struct {
	Options
	engine    *engine.Engine
	tally     *tally
	now       int64          // time of the engine, ns; math.MinInt64 before the first event
	lastTick  int64          // when the engine was last ticked, ns
	firstTime int64          // of the first event of all files, ns; 0 where there is none
	events    int64          // so far
	decisions []ban.Decision // of the latest call of the engine

	localAddresses []netip.Addr // of the PBX, that were allowed
	lastLocal      netip.Addr   // LocalAddress of the event before
	overlapNoted   bool
}

// alwaysAllowed are the prefixes that the daemon bans under no policy.
var alwaysAllowed = [...]string{"127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"}

// allowAlways allows what the daemon would always allow, and adds a note on host names, which are not looked up.
func (p *player) allowAlways(recordings []*recording) {
	at := p.Empty
	for _, s := range recordings {
		if !s.done && (p.firstTime == 0 || s.timeNS < p.firstTime) {
			p.firstTime, at = s.timeNS, s.ev.Time
		}
	}
	for _, a := range alwaysAllowed {
		p.engine.Allow(at, netip.MustParsePrefix(a), "host", "")
	}
	var hosts []string
	for _, a := range p.Policy.Allow {
		if a.Host != "" {
			hosts = append(hosts, a.Host)
		}
	}
	if len(hosts) > 0 {
		p.addNote("host names of policy.allow are not looked up, since they stood for other addresses then: %s",
			strings.Join(hosts, ", "))
	}
}

// orderRecordings puts files in the order of their first events, those without any first.
func (p *player) orderRecordings(recordings []*recording) []*recording {
	byTime := func(a, b *recording) int {
		switch {
		case a.timeNS < b.timeNS:
			return -1
		case a.timeNS > b.timeNS:
			return 1
		}
		return 0
	}
	if !slices.IsSortedFunc(slices.DeleteFunc(slices.Clone(recordings), func(s *recording) bool { return s.done }),
		byTime) {
		sorted := slices.Clone(recordings)
		slices.SortStableFunc(sorted, byTime)
		copy(recordings, sorted)
		p.addNote("the files were put in the order of their first events")
	}
	return slices.Clone(recordings)
}

func (p *player) addNote(format string, args ...any) {
	p.tally.sum.Notes = append(p.tally.sum.Notes, fmt.Sprintf(format, args...))
}

// playAll takes the oldest event of all files until there is none.
func (p *player) playAll(ctx context.Context, queue []*recording) error {
	for len(queue) > 0 {
		s := queue[0]
		for _, bad := range s.tamperedBefore {
			if err := p.playTampering(bad); err != nil {
				return err
			}
		}
		if s.done {
			queue = queue[1:]
			continue
		}
		for range min(s.repeats, maxRepeats) {
			if err := p.playEvent(s); err != nil {
				return err
			}
		}
		s.readNext()
		if s.err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		for i := 1; i < len(queue) && !s.done && queue[i].timeNS < s.timeNS; i++ {
			queue[i-1], queue[i] = queue[i], s
			p.noteOverlap(queue[i-1], s)
		}
	}
	if p.now == math.MinInt64 {
		return nil
	}
	return p.advanceTo(p.now + quietAfterEnd)
}

func (p *player) noteOverlap(a, b *recording) {
	if !p.overlapNoted {
		p.overlapNoted = true
		p.addNote("%s and %s overlap in time: events of several files were merged by their time", b.name, a.name)
	}
}

func (p *player) playEvent(s *recording) error {
	if p.now == math.MinInt64 {
		p.now, p.lastTick = s.timeNS, s.timeNS
	}
	if err := p.advanceTo(s.timeNS); err != nil {
		return err
	}
	p.events++
	if !p.tally.countEvent(&s.ev, p.now) {
		return nil
	}
	p.decisions = p.decisions[:0]
	if l := s.ev.Local.AddrPort.Addr(); l != p.lastLocal {
		p.lastLocal = l
		p.allowLocalAddress(l)
	}
	p.decisions = p.engine.Handle(time.Unix(0, p.now).UTC(), p.PBX, &s.ev, p.decisions)
	return p.reportDecisions()
}

// allowLocalAddress allows an address of the PBX itself: the one at which a request came in.
func (p *player) allowLocalAddress(a netip.Addr) {
	if !a.IsValid() || a.IsUnspecified() || len(p.localAddresses) >= maxLocalAddresses ||
		slices.Contains(p.localAddresses, a) {
		return
	}
	p.localAddresses = append(p.localAddresses, a)
	p.decisions = p.engine.Allow(time.Unix(0, p.now).UTC(), netip.PrefixFrom(a, a.BitLen()), "host", "")
}

// playTampering reports tampering, which has no time of its own, at the time of the last event.
func (p *player) playTampering(bad tamperCount) error {
	now := p.Empty
	switch {
	case p.now != math.MinInt64:
		now = time.Unix(0, p.now).UTC()
	case p.firstTime != 0:
		now = time.Unix(0, p.firstTime).UTC()
	}
	p.events += bad.count
	p.tally.sum.Reasons[bad.reason] += bad.count
	p.decisions = p.engine.ReportTampering(now, p.PBX, bad.reason, nil, p.decisions[:0])
	return p.reportDecisions()
}

// advanceTo moves the time to at. The engine is ticked as the daemon would, once a second; but in a silence of hours,
// where little can become due, more seldom.
func (p *player) advanceTo(at int64) error {
	const most = 1000
	if at-p.lastTick < second {
		p.now = max(p.now, at)
		return nil
	}
	step := second
	for n := 0; at-p.lastTick >= step; n++ {
		p.lastTick += step
		for more := true; more; {
			p.decisions, more = p.engine.Tick(time.Unix(0, p.lastTick).UTC(), p.decisions[:0])
			if err := p.reportDecisions(); err != nil {
				return err
			}
		}
		if n == 90 {
			step = max(minute, (at-p.lastTick)/most)
		}
	}
	p.now = max(p.now, at)
	return nil
}

func (p *player) reportDecisions() error {
	p.tally.passage.take(p.engine.TakeChanged(), max(p.now, p.lastTick))
	for i := range p.decisions {
		p.tally.countDecision(&p.decisions[i])
		if p.Decide != nil {
			if err := p.Decide(p.decisions[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishSummary adds up the files and writes the notes.
func (p *player) finishSummary(recordings []*recording) {
	sum := p.tally.sum
	var silent []string // files without any event
	for _, s := range recordings {
		f := s.counts
		if s.err != nil {
			f.Error = s.err.Error()
		}
		sum.Decoded += f.Decoded
		sum.Repeated += f.Repeated
		sum.NotUnderstood += f.NotUnderstood
		sum.Tampered += f.Tampered
		sum.Skipped += f.Skipped
		sum.Truncated += f.Truncated
		sum.Files = append(sum.Files, f)
		switch {
		case f.Error == "" && f.Decoded == 0:
			silent = append(silent, f.Name)
		case f.Format == AMILF:
			p.addNote("%s has lost the CR of its line ends: an injected LF looks like a line's end in it, so trust "+
				"it less", s.name)
		}
		if f, ok := s.records.(*amiFrames); ok && f.blanksMended {
			p.addNote("%s has lost the blanks at the ends of its lines, which editors cut; they were put back", s.name)
		}
		if s.clockStepBack > time.Minute {
			p.addNote("the clock of %s went back by up to %s: the engine's time stood still until it had caught up",
				s.name, s.clockStepBack.Round(time.Second))
		}
	}
	if n := len(silent); n > 0 {
		const most = 5
		more := ""
		if n > most {
			more = fmt.Sprintf(" and %d more", n-most)
		}
		p.addNote("no security event in %s%s; expected are a log with \"security\" in logger.conf, or AMI recorded "+
			"with read=security",
			strings.Join(silent[:min(n, most)], ", "), more)
	}
	sum.Events = sum.Decoded + sum.Repeated + sum.Tampered
	if sum.Decoded > 0 {
		sum.From = time.Unix(0, p.firstTime).UTC()
		for _, s := range recordings {
			if s.counts.Decoded > 0 {
				sum.To = laterOf(sum.To, time.Unix(0, s.timeNS).UTC())
			}
		}
	}
	limited := p.engine.Stats(time.Unix(0, max(p.now, p.firstTime)).UTC()).Limited
	for _, name := range slices.Sorted(maps.Keys(limited)) {
		p.addNote("the bound %s of the policy was hit %d times", name, limited[name])
	}
	p.tally.finishLists()
}

func laterOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
