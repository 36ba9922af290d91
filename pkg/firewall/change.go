package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Kind says what a Change is about.
type Kind uint8

const (
	// Ban drops a prefix until its time is over.
	Ban Kind = iota
	// Allow lets a prefix in whatever is banned; without a timeout for ever.
	Allow
	// Trust spares a source the meter. Where the meter is off it does nothing.
	Trust
	// Cut drops a flow on evidence that is proven. A TCP connection is ended, too: its sender is told so.
	Cut
	// Good lets a flow pass before every ban, but for a manual one, and for what is cut or slow.
	Good
	// Slow lets a flow over UDP, or a source that has no good flow, through at a Pace. Of a source's TCP it counts
	// connections and not packets.
	Slow
	numKinds
)

// String returns "ban", "allow", "trust", "cut", "good" or "slow".
func (k Kind) String() string {
	switch k {
	case Ban:
		return "ban"
	case Allow:
		return "allow"
	case Trust:
		return "trust"
	case Cut:
		return "cut"
	case Good:
		return "good"
	case Slow:
		return "slow"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MinTimeout is the shortest time that a change may last. Below a millisecond the kernel would make the element
// permanent (nf_msecs_to_jiffies64 in net/netfilter/nf_tables_api.c, 0 is no timeout).
const MinTimeout = time.Second

// Change is one thing to be done to the table. It is about what Kind, Prefix, Flow and Closes say together: of two
// Changes about the same thing the last counts, its Timeout replaces what was left of an earlier one, longer or
// shorter.
type Change struct {
	Kind   Kind
	Prefix netip.Prefix // of Ban, Allow, Trust, and of Slow if it is about a source
	Flow   Flow         // of Cut, Good, and of Slow if Prefix is none
	Closes Closes       // of Ban
	// Manual says of a Ban with CloseAll that a person made it: good flows do not pass it. Beyond maxManual of them it
	// is a ban as any other.
	Manual bool
	Pace   Pace // of Slow
	// Timeout counts from the call. At least MinTimeout; 0 with Allow means for ever.
	Timeout time.Duration
	// Remove takes the prefix out. Taking out what is not there is no error.
	Remove bool
	// Known says that the kernel most likely has the prefix already, as after a restart: it is written in the way
	// that does not fail then.
	Known bool

	// until is when the change ends, set by the Writer, so that waiting in its queue makes no ban longer.
	until        time.Time
	normal       bool // normalize has been here
	alreadyThere bool // the kernel has it: it is to be remembered only
}

// target is what a normalized Change is about, and what an Element is of.
type target struct {
	kind   Kind
	prefix netip.Prefix
	flow   Flow
	closes Closes
}

func (c *Change) target() target { return target{c.Kind, c.Prefix, c.Flow, c.Closes} }

// String is the target in a log line.
func (t target) String() string {
	switch {
	case t.flow != Flow{}:
		return fmt.Sprintf("%s %s", t.kind, t.flow)
	case t.closes != CloseAll:
		return fmt.Sprintf("%s %s (%s)", t.kind, t.prefix, t.closes)
	}
	return fmt.Sprintf("%s %s", t.kind, t.prefix)
}

// String is the change in a log line.
func (c Change) String() string {
	switch {
	case c.Remove:
		return "un" + c.target().String()
	case c.Timeout == 0:
		return c.target().String()
	}
	return fmt.Sprintf("%s for %s", c.target(), c.Timeout)
}

// endsAt returns when the change is over, zero for never.
func (c *Change) endsAt(now time.Time) time.Time {
	switch {
	case !c.until.IsZero():
		return c.until
	case c.Timeout == 0:
		return time.Time{}
	}
	return now.Add(c.Timeout)
}

// normalize masks the prefix and makes IPv4 of IPv4-mapped IPv6, or says why the change cannot be done.
func (c *Change) normalize() error {
	if c.normal {
		return nil
	}
	var err error
	c.Prefix, c.Flow, err = normalizeTarget(c.Kind, c.Prefix, c.Flow)
	if err != nil {
		return fmt.Errorf("firewall: %s: %w", c.Kind, err)
	}
	switch {
	case c.Kind >= numKinds || c.Closes >= numCloses || c.Closes != CloseAll && c.Kind != Ban || c.Pace >= numPaces ||
		c.Manual && (c.Kind != Ban || c.Closes != CloseAll):
		return fmt.Errorf("%w: %s", ErrChange, c.target())
	case c.Remove:
	case c.Kind == Slow && c.Flow.Transport == TCP:
		return fmt.Errorf("%w: %s: over TCP a flow is cut, not slowed", ErrChange, c.target())
	case c.Kind != Allow && c.Flow == Flow{} && c.Prefix.Bits() == 0:
		return fmt.Errorf("%w: %s would be about every address there is", ErrChange, c.target())
	case c.Kind == Allow && c.Timeout == 0:
	case c.Timeout < MinTimeout:
		return fmt.Errorf("%w: %s for %s: at least %s, or it would never end", ErrTimeout, c.target(), c.Timeout,
			MinTimeout)
	}
	c.normal = true
	return nil
}

// normalizeTarget normalizes that of prefix and flow which a kind is about; the other must be none.
func normalizeTarget(k Kind, p netip.Prefix, f Flow) (netip.Prefix, Flow, error) {
	ofFlow := k == Cut || k == Good || k == Slow && !p.IsValid()
	if !ofFlow && f == (Flow{}) {
		p, err := Normalize(p)
		return p, f, err
	}
	if !ofFlow || p.IsValid() {
		return p, f, fmt.Errorf("%w: either a prefix or a flow", ErrChange)
	}
	f, err := f.normalize()
	return p, f, err
}

// fixEnd fixes when the change ends.
func (c *Change) fixEnd(now time.Time) {
	if c.Timeout > 0 && !c.Remove {
		c.until = now.Add(c.Timeout)
	}
}

// normalizeAll returns copies of changes after normalize. Nothing is returned if one of them cannot be done.
func normalizeAll(changes []Change) ([]Change, error) {
	clean := slices.Clone(changes)
	for i := range clean {
		if err := clean[i].normalize(); err != nil {
			return nil, err
		}
	}
	return clean, nil
}

func (e *Element) target() target { return target{e.Kind, e.Prefix, e.Flow, e.Closes} }

// Normalize returns the prefix as the table keeps it: host bits cleared, no zone, IPv4-mapped IPv6 (RFC 4291
// section 2.5.5.2) as IPv4.
func Normalize(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("%w: not an address or network", ErrChange)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Element is what the kernel holds of one prefix or flow; see Change.
type Element struct {
	Kind   Kind
	Prefix netip.Prefix
	Flow   Flow
	Closes Closes
	Pace   Pace
	// Timeout is what the element was given, 0 for ever.
	Timeout time.Duration
	// Remaining is what is left of it, 0 for ever.
	Remaining time.Duration

	manual bool // of the set of manual bans
}
