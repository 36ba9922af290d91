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
	elements [numKinds]map[netip.Prefix]dryElement
	sweepAt  int // size at which expired elements are thrown out next
}

type dryElement struct {
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

// Ensure says that it would create the table.
func (d *DryRun) Ensure() (Outcome, error) {
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
		if _, _, ok := setFor(c.Kind, c.Prefix, d.cfg.IPv6Prefix); !ok {
			return fmt.Errorf("%w: trust of %s", ErrChange, c.Prefix)
		}
	}
	var refused []*FullError
	for _, c := range clean {
		id, p, _ := setFor(c.Kind, c.Prefix, d.cfg.IPv6Prefix)
		def := defs[id]
		held := &d.elements[c.Kind]
		if *held == nil {
			*held = make(map[netip.Prefix]dryElement)
		}
		end := c.end(now)
		key := p.String()
		if def.shape != interval {
			key = p.Addr().String()
		}
		_, there := (*held)[p]
		switch {
		case c.Remove || isOver(end, now):
			if there {
				delete(*held, p)
				d.say(fmt.Sprintf("delete element inet %s %s { %s }", d.cfg.Table, def.name, key))
			}
			continue
		case !there && d.isFullLocked(now):
			refused = append(refused, &FullError{Set: def.name, Size: d.cfg.MaxElements, Refused: []netip.Prefix{p}})
			continue
		case end.IsZero():
			d.say(fmt.Sprintf("add element inet %s %s { %s }", d.cfg.Table, def.name, key))
		default:
			d.say(fmt.Sprintf("add element inet %s %s { %s timeout %s }", d.cfg.Table, def.name, key,
				nftTime(c.Timeout)))
		}
		(*held)[p] = dryElement{timeout: c.Timeout, until: end}
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
	for p := range d.elements[k] {
		if e, ok := d.lookUpLocked(k, p, now); ok {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Element) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	})
	return list, nil
}

func (d *DryRun) lookUpLocked(k Kind, p netip.Prefix, now time.Time) (Element, bool) {
	e, ok := d.elements[k][p]
	if !ok || isOver(e.until, now) {
		return Element{}, false
	}
	el := Element{Kind: k, Prefix: p, Timeout: e.timeout}
	if !e.until.IsZero() {
		el.Remaining = e.until.Sub(now)
	}
	return el, true
}

// Has looks one prefix up.
func (d *DryRun) Has(k Kind, p netip.Prefix) (Element, bool, error) {
	p, err := Normalize(p)
	if err != nil || k >= numKinds {
		return Element{}, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, p, _ = setFor(k, p, d.cfg.IPv6Prefix)
	e, ok := d.lookUpLocked(k, p, d.now())
	return e, ok, nil
}

// Drops is empty: no packet is dropped.
func (d *DryRun) Drops() (map[string]uint64, error) { return map[string]uint64{}, nil }

// Verify finds nothing amiss.
func (d *DryRun) Verify() error { return nil }

// Delete forgets everything.
func (d *DryRun) Delete() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exists {
		d.say("delete table inet " + d.cfg.Table)
	}
	d.exists, d.elements = false, [numKinds]map[netip.Prefix]dryElement{}
	return nil
}

// Close does nothing.
func (d *DryRun) Close() error { return nil }
