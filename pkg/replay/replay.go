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

	// settleTime is for how long nothing happens after a recording's end.
	settleTime = minute
	// maxOwn bounds the addresses of the PBX that are learned from LocalAddress.
	maxOwn = 64
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
		p.note("points were multiplied by where addresses are registered today, which need not be where they were then")
	}
	m := &meter{ctx: ctx, report: o.Progress, events: &p.events, last: time.Now()}
	streams := make([]*stream, len(names))
	defer func() {
		for _, s := range streams {
			if s != nil {
				s.close()
			}
		}
	}()
	for i, name := range names {
		streams[i] = open(name, o.Stdin, m)
		if !streams[i].done {
			streams[i].counts.From = streams[i].ev.Time
		}
	}
	p.allow(streams)
	if err := p.play(ctx, p.order(streams)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.finish(streams)
	if m.report != nil {
		m.p.Events = p.events
		m.report(m.p)
	}
	return p.tally.sum, nil
}

// player plays the events of all files to one engine.
type player struct {
	Options
	engine *engine.Engine
	tally  *tally
	now    int64 // time of the engine, ns
	tick   int64 // when it was last ticked
	from   int64
	events int64
	out    []ban.Decision
	own    []netip.Addr // addresses of the PBX
	local  netip.Addr   // of the event before
	merged bool
}

// alwaysAllowed is what no policy bans.
var alwaysAllowed = [...]string{"127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"}

// allow names to the engine what the daemon would always allow, and notes what it does not know.
func (p *player) allow(streams []*stream) {
	at := p.Empty
	for _, s := range streams {
		if !s.done && (p.from == 0 || s.at < p.from) {
			p.from, at = s.at, s.ev.Time
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
		p.note("host names of policy.allow are not looked up, since they stood for other addresses then: %s",
			strings.Join(hosts, ", "))
	}
}

// order puts files in the order of their first events, those without any first.
func (p *player) order(streams []*stream) []*stream {
	byTime := func(a, b *stream) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	}
	if !slices.IsSortedFunc(slices.DeleteFunc(slices.Clone(streams), func(s *stream) bool { return s.done }), byTime) {
		sorted := slices.Clone(streams)
		slices.SortStableFunc(sorted, byTime)
		copy(streams, sorted)
		p.note("the files were put in the order of their first events")
	}
	return slices.Clone(streams)
}

func (p *player) note(format string, args ...any) {
	p.tally.sum.Notes = append(p.tally.sum.Notes, fmt.Sprintf(format, args...))
}

// play takes the oldest event of all files until there is none.
func (p *player) play(ctx context.Context, queue []*stream) error {
	for len(queue) > 0 {
		s := queue[0]
		for _, bad := range s.bad {
			if err := p.tampered(bad); err != nil {
				return err
			}
		}
		if s.done {
			queue = queue[1:]
			continue
		}
		for range min(s.times, maxRepeats) {
			if err := p.event(s); err != nil {
				return err
			}
		}
		s.advance()
		if s.err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		for i := 1; i < len(queue) && !s.done && queue[i].at < s.at; i++ {
			queue[i-1], queue[i] = queue[i], s
			p.overlap(queue[i-1], s)
		}
	}
	if p.now == math.MinInt64 {
		return nil
	}
	return p.advance(p.now + settleTime)
}

func (p *player) overlap(a, b *stream) {
	if !p.merged {
		p.merged = true
		p.note("%s and %s overlap in time: events of several files were merged by their time", b.name, a.name)
	}
}

func (p *player) event(s *stream) error {
	if p.now == math.MinInt64 {
		p.now, p.tick = s.at, s.at
	}
	if err := p.advance(s.at); err != nil {
		return err
	}
	p.events++
	if !p.tally.event(&s.ev, p.now) {
		return nil
	}
	p.out = p.out[:0]
	if l := s.ev.Local.AddrPort.Addr(); l != p.local {
		p.local = l
		p.learn(l)
	}
	p.out = p.engine.Handle(time.Unix(0, p.now).UTC(), p.PBX, &s.ev, p.out)
	return p.decide()
}

// learn allows an address of the PBX itself: the one at which a request came in.
func (p *player) learn(a netip.Addr) {
	if !a.IsValid() || a.IsUnspecified() || len(p.own) >= maxOwn || slices.Contains(p.own, a) {
		return
	}
	p.own = append(p.own, a)
	p.out = p.engine.Allow(time.Unix(0, p.now).UTC(), netip.PrefixFrom(a, a.BitLen()), "host", "")
}

// tampered judges what has no time of its own: it happened after the last event.
func (p *player) tampered(bad tampered) error {
	now := p.Empty
	switch {
	case p.now != math.MinInt64:
		now = time.Unix(0, p.now).UTC()
	case p.from != 0:
		now = time.Unix(0, p.from).UTC()
	}
	p.events += bad.n
	p.tally.sum.Reasons[bad.reason] += bad.n
	p.out = p.engine.ReportTampering(now, p.PBX, bad.reason, nil, p.out[:0])
	return p.decide()
}

// advance moves the time to at. The engine is ticked as the daemon would, once a second; but in a silence of hours,
// where little can become due, more seldom.
func (p *player) advance(at int64) error {
	const most = 1000
	if at-p.tick < second {
		p.now = max(p.now, at)
		return nil
	}
	step := second
	for n := 0; at-p.tick >= step; n++ {
		p.tick += step
		for more := true; more; {
			p.out, more = p.engine.Tick(time.Unix(0, p.tick).UTC(), p.out[:0])
			if err := p.decide(); err != nil {
				return err
			}
		}
		if n == 90 {
			step = max(minute, (at-p.tick)/most)
		}
	}
	p.now = max(p.now, at)
	return nil
}

func (p *player) decide() error {
	for i := range p.out {
		p.tally.decision(&p.out[i])
		if p.Decide != nil {
			if err := p.Decide(p.out[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish adds up the files.
func (p *player) finish(streams []*stream) {
	sum := p.tally.sum
	var silent []string // files without any event
	for _, s := range streams {
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
			p.note("%s has lost the CR of its line ends: an injected LF looks like a line's end in it, so trust it less", s.name)
		}
		if f, ok := s.recs.(*frames); ok && f.mended {
			p.note("%s has lost the blanks at the ends of its lines, which editors cut; they were put back", s.name)
		}
		if s.back > time.Minute {
			p.note("the clock of %s went back by up to %s: the engine's time stood still until it had caught up",
				s.name, s.back.Round(time.Second))
		}
	}
	if n := len(silent); n > 0 {
		const most = 5
		more := ""
		if n > most {
			more = fmt.Sprintf(" and %d more", n-most)
		}
		p.note("no security event in %s%s; expected are a log with \"security\" in logger.conf, or AMI recorded with read=security",
			strings.Join(silent[:min(n, most)], ", "), more)
	}
	sum.Events = sum.Decoded + sum.Repeated + sum.Tampered
	if sum.Decoded > 0 {
		sum.From = time.Unix(0, p.from).UTC()
		for _, s := range streams {
			if s.counts.Decoded > 0 {
				sum.To = later(sum.To, time.Unix(0, s.at).UTC())
			}
		}
	}
	limited := p.engine.Stats(time.Unix(0, max(p.now, p.from)).UTC()).Limited
	for _, name := range slices.Sorted(maps.Keys(limited)) {
		p.note("the bound %s of the policy was hit %d times", name, limited[name])
	}
	p.tally.finish()
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
