package record

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Kind is what a record says of its prefix.
type Kind string

// The kinds of records.
const (
	Ban   Kind = "ban"
	Unban Kind = "unban" // beats the bans of this very prefix that were made before it, whoever made them
	Grace Kind = "grace" // a person unbanned it: not banned until then
	Trust Kind = "trust" // somebody logged in from there with a password
	Allow Kind = "allow" // a person exempts it from every ban
)

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{Ban, Unban, Grace, Trust, Allow} }

// Key is what one node says one thing about: the latest record of a key counts.
type Key struct {
	Node   string // who says it
	Kind   Kind
	Prefix netip.Prefix // masked
}

// Record is one node's word about one prefix.
type Record struct {
	Key
	Made  time.Time // see Book.Stamp
	Until time.Time // the zero time, of what is allowed: no end

	// Withdrawn says that the node takes back its word, which would have held until then.
	Withdrawn bool

	// Of a ban.
	Reason   ban.Reason
	Closes   ban.Closes // all or UDP
	Proven   bool       // the sender could not have been forged
	Evidence string     // for a person: printable ASCII
}

// The bounds of a record.
const (
	MaxBytes    = 300 // of an encoded record, without its subject
	MaxEvidence = 120 // bytes
	maxName     = 32  // bytes of a fleet's or a node's name

	// MaxAhead is how far a node's clock may be ahead of ours. What is beyond could beat everything that others say.
	MaxAhead = 15 * time.Minute
	// MaxLife is how long a record may last.
	MaxLife = 10 * 366 * 24 * time.Hour
	// KeptAfter is how long a record is kept after its end, so that an older one of the same node, on its way for
	// longer, does not come to life in its place.
	KeptAfter = time.Hour
)

// isActive says whether what the record says holds at a time.
func (r *Record) isActive(now time.Time) bool {
	return !r.Withdrawn && (r.Until.IsZero() || r.Until.After(now))
}

// isOver says whether the record can be forgotten: nothing depends on it any more.
func (r *Record) isOver(now time.Time) bool {
	return !r.Until.IsZero() && !r.Until.Add(KeptAfter).After(now)
}

// compare orders the records of one key: the later one counts. It is a total order of all that a record can say, so
// that everybody keeps the same one of two that were made at the same time.
func compare(a, b *Record) int {
	if c := a.Made.Compare(b.Made); c != 0 {
		return c
	}
	if c := compareEnds(a.Until, b.Until); c != 0 {
		return c
	}
	return bytes.Compare(encode(a), encode(b))
}

// compareEnds orders ends; none is later than any.
func compareEnds(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

// IsShared says whether addresses of a prefix mean the same to every node. A private address (RFC 1918, RFC 4193,
// RFC 6598), one of a link, or one of the host itself is somebody else at each site.
func IsShared(p netip.Prefix) bool {
	a := p.Addr()
	if !p.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	for _, local := range localNetworks {
		if local.Overlaps(p) {
			return false
		}
	}
	return true
}

var localNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast and reserved
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}
