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
	numKinds
)

// String returns "ban", "allow" or "trust".
func (k Kind) String() string {
	switch k {
	case Ban:
		return "ban"
	case Allow:
		return "allow"
	case Trust:
		return "trust"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MinTimeout is the shortest time that a change may last. Below a millisecond the kernel would make the element
// permanent (nf_msecs_to_jiffies64 in net/netfilter/nf_tables_api.c, 0 is no timeout).
const MinTimeout = time.Second

// Change is one thing to be done to the table. The last Change of a prefix counts: its Timeout replaces what was
// left of an earlier one, longer or shorter.
type Change struct {
	Kind   Kind
	Prefix netip.Prefix
	// Timeout counts from the call. At least MinTimeout for Ban and Trust; 0 with Allow means for ever.
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

// String is the change in a log line.
func (c Change) String() string {
	switch {
	case c.Remove:
		return fmt.Sprintf("un%s %s", c.Kind, c.Prefix)
	case c.Timeout == 0:
		return fmt.Sprintf("%s %s", c.Kind, c.Prefix)
	}
	return fmt.Sprintf("%s %s for %s", c.Kind, c.Prefix, c.Timeout)
}

// end returns when the change is over, zero for never.
func (c *Change) end(now time.Time) time.Time {
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
	p, err := Normalize(c.Prefix)
	if err != nil {
		return fmt.Errorf("firewall: %s: %w", c.Kind, err)
	}
	c.Prefix = p
	switch {
	case c.Kind >= numKinds:
		return fmt.Errorf("%w: %s of %s", ErrChange, c.Kind, p)
	case c.Remove:
	case c.Kind != Allow && p.Bits() == 0:
		return fmt.Errorf("%w: %s of %s would be about every address there is", ErrChange, c.Kind, p)
	case c.Kind == Allow && c.Timeout == 0:
	case c.Timeout < MinTimeout:
		return fmt.Errorf("%w: %s of %s for %s: at least %s, or it would never end", ErrTimeout, c.Kind, p, c.Timeout,
			MinTimeout)
	}
	c.normal = true
	return nil
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

// Element is what the kernel holds of one prefix.
type Element struct {
	Kind   Kind
	Prefix netip.Prefix
	// Timeout is what the element was given, 0 for ever.
	Timeout time.Duration
	// Remaining is what is left of it, 0 for ever.
	Remaining time.Duration
}
