package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// DryRun is a Firewall that changes nothing: it says, in the words of nft, what a Table would do, and remembers it
// so that lists are right.
type DryRun struct {
	say func(string)
	now func() time.Time

	mu       sync.Mutex
	cfg      Config
	exists   bool
	elements [numKinds]map[target]dryElement
	sweepAt  int // size at which expired elements are thrown out next
}

type dryElement struct {
	pace    Pace
	timeout time.Duration
	until   time.Time
}

// sweepMin is where looking for expired elements begins to pay.
const sweepMin = 1024

// NewDryRun returns a DryRun which says each command with w, one at a time and without a line end. w may be nil.
func NewDryRun(w func(string)) *DryRun {
	if w == nil {
		w = func(string) {}
	}
	cfg, _ := Config{}.withDefaults()
	cfg.Meter.Enabled = true // so that trust is remembered too
	return &DryRun{say: w, now: time.Now, cfg: cfg, sweepAt: sweepMin}
}

// EnsureTable says that it would create the table.
func (d *DryRun) EnsureTable() (Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exists {
		return Adopted, nil
	}
	d.exists = true
	d.say("add table inet " + d.cfg.Table)
	return Created, nil
}

// Apply says and remembers the changes.
func (d *DryRun) Apply(changes []Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defs, now := allSets(d.cfg.IPv6Prefix), d.now()
	clean, err := normalizeAll(changes)
	if err != nil {
		return err
	}
	for _, c := range clean {
		if _, _, _, ok := c.target().setAndKey(d.cfg.IPv6Prefix); !ok {
			return fmt.Errorf("%w: %s", ErrChange, c.target())
		}
	}
	var refused []*FullError
	for _, c := range clean {
		id, p, k, _ := c.target().setAndKey(d.cfg.IPv6Prefix)
		def := defs[id]
		held := &d.elements[c.Kind]
		if *held == nil {
			*held = make(map[target]dryElement)
		}
		key, what := p.String(), c.target()
		if def.shape != interval {
			key = p.Addr().String()
		}
		if c.Flow != (Flow{}) {
			key = c.Flow.String()
		} else {
			what.prefix = p
		}
		if def.key == byTransport {
			key += " . " + Transport(k.Protocol).String()
		}
		end := c.endsAt(now)
		_, there := (*held)[what]
		switch {
		case c.Remove || isOver(end, now):
			if there {
				delete(*held, what)
				d.say(fmt.Sprintf("delete element inet %s %s { %s }", d.cfg.Table, def.name, key))
			}
			continue
		case !there && d.isFullLocked(now):
			refused = append(refused, &FullError{Set: def.name, Size: d.cfg.MaxElements, Refused: []netip.Prefix{p},
				targets: []target{what}})
			continue
		}
		said := []string{def.name}
		if c.Manual {
			said = append(said, defs[manualSet(p)].name)
		}
		if c.Kind == Slow {
			key += fmt.Sprintf(" limit rate over %s burst %d packets", c.Pace, paceBurst)
		}
		if !end.IsZero() {
			key += " timeout " + nftTime(c.Timeout)
		}
		for _, set := range said {
			d.say(fmt.Sprintf("add element inet %s %s { %s }", d.cfg.Table, set, key))
		}
		(*held)[what] = dryElement{timeout: c.Timeout, until: end, pace: c.Pace}
	}
	return joinFull(refused)
}

// isFullLocked throws expired elements out when there are many, and reports whether there still are too many:
// memory is bounded like the kernel's.
func (d *DryRun) isFullLocked(now time.Time) bool {
	if d.countLocked() < min(d.sweepAt, int(d.cfg.MaxElements)) {
		return false
	}
	for _, m := range d.elements {
		for p, e := range m {
			if isOver(e.until, now) {
				delete(m, p)
			}
		}
	}
	d.sweepAt = max(sweepMin, 2*d.countLocked())
	return d.countLocked() >= int(d.cfg.MaxElements)
}

func (d *DryRun) countLocked() int {
	n := 0
	for _, m := range d.elements {
		n += len(m)
	}
	return n
}

// nftTime writes a duration as nft does: 1d2h3m4s.
func nftTime(t time.Duration) string {
	if t < time.Second {
		return fmt.Sprintf("%dms", max(1, t.Milliseconds()))
	}
	s := ""
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := t / u.unit; n > 0 {
			s += fmt.Sprintf("%d%s", n, u.name)
			t -= n * u.unit
		}
	}
	return s
}

// Elements lists what would be in the kernel, by address.
func (d *DryRun) Elements(k Kind) ([]Element, error) {
	if k >= numKinds {
		return nil, fmt.Errorf("%w: %s", ErrChange, k)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	var list []Element
	for what := range d.elements[k] {
		if e, ok := d.lookUpLocked(what, now); ok {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Element) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits(),
			a.Flow.Source.Compare(b.Flow.Source), int(a.Flow.Transport)-int(b.Flow.Transport),
			int(a.Closes)-int(b.Closes))
	})
	return list, nil
}

func (d *DryRun) lookUpLocked(what target, now time.Time) (Element, bool) {
	e, ok := d.elements[what.kind][what]
	if !ok || isOver(e.until, now) {
		return Element{}, false
	}
	el := Element{Kind: what.kind, Prefix: what.prefix, Flow: what.flow, Closes: what.closes, Pace: e.pace,
		Timeout: e.timeout}
	if !e.until.IsZero() {
		el.Remaining = e.until.Sub(now)
	}
	return el, true
}

// LookUpPrefix looks one prefix up, a ban among those that close all ports.
func (d *DryRun) LookUpPrefix(k Kind, p netip.Prefix) (Element, bool, error) {
	return d.LookUp(Change{Kind: k, Prefix: p})
}

// LookUp looks up what a change is about.
func (d *DryRun) LookUp(c Change) (Element, bool, error) {
	var err error
	c.Prefix, c.Flow, err = normalizeTarget(c.Kind, c.Prefix, c.Flow)
	if err != nil || c.Kind >= numKinds {
		return Element{}, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	what := c.target()
	if what.flow == (Flow{}) {
		_, what.prefix, _, _ = what.setAndKey(d.cfg.IPv6Prefix)
	}
	e, ok := d.lookUpLocked(what, d.now())
	return e, ok, nil
}

// DroppedPackets is empty: no packet is dropped.
func (d *DryRun) DroppedPackets() (map[string]uint64, error) { return map[string]uint64{}, nil }

// VerifyTable finds nothing amiss.
func (d *DryRun) VerifyTable() error { return nil }

// DeleteTable forgets everything.
func (d *DryRun) DeleteTable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exists {
		d.say("delete table inet " + d.cfg.Table)
	}
	d.exists, d.elements = false, [numKinds]map[target]dryElement{}
	return nil
}

// Close does nothing.
func (d *DryRun) Close() error { return nil }
