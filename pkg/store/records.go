package store

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Bounds of what one record holds. Longer strings and lists are cut, never refused.
const (
	MaxEvidence = 16   // pieces of a ban; the latest are kept
	MaxAccounts = 1024 // names of a trusted source

	maxName     = 256  // bytes of an account, a PBX, a reason and the like
	maxText     = 1024 // bytes of a comment or a note
	maxDetail   = 4096 // bytes of what a decision says for a person
	maxDecision = 8192 // bytes of a decision in JSON, as records of before have it
	maxHost     = 253  // bytes of a host name, RFC 1035 section 2.3.4
)

// Allow is an entry of the allow list that was added at run time: a prefix or, where that is not valid, a host name.
type Allow struct {
	Prefix   netip.Prefix
	Host     string
	Added    time.Time
	By, Note string
	Until    time.Time // zero: until it is taken off
}

// kind says what a record is of.
type kind byte

const (
	kindBan kind = 1 + iota
	kindOffender
	kindTrust
	kindAllow
	kindGrace
	kindDecision
)

// keyedKinds are those whose records have keys of their own: all but the lines of history.
var keyedKinds = [...]kind{kindBan, kindOffender, kindTrust, kindAllow, kindGrace}

// String is the name of the kind's bucket.
func (k kind) String() string {
	return [...]string{"", "bans", "offenders", "trust", "allow", "grace", "history"}[k]
}

func (k kind) bucketName() []byte { return []byte(k.String()) }

// recordID names a record.
type recordID struct {
	kind kind
	key  string
}

// record is what the file holds under a name; its value is nil where it is to be removed.
type record struct {
	recordID
	value []byte
}

// ErrRecord is a record that cannot be kept: without a valid key, or a decision that is too long or no JSON.
var ErrRecord = errors.New("cannot be kept")

// Change is one record that is new or different, or gone. It holds a copy of all that it was made from.
type Change struct {
	record
	err error
}

// PutBan keeps a ban, in place of any other of its prefix.
func PutBan(b ban.Ban) Change {
	return putChange(kindBan, prefixKey(b.Prefix), usualBan*(1+len(b.Evidence)), func(c *codec) { c.ban(&b) })
}

// DropBan forgets the ban of a prefix. What the ban alone said of its source is to be kept by PutOffender, in the same
// Put: see Options.Counts.
func DropBan(p netip.Prefix) Change { return dropChange(kindBan, prefixKey(p)) }

// PutOffender keeps an offender.
func PutOffender(o ban.Offender) Change {
	return putChange(kindOffender, prefixKey(o.Prefix), usualSize, func(c *codec) { c.offender(&o) })
}

// PutTrust keeps a trusted source.
func PutTrust(t ban.Trust) Change {
	return putChange(kindTrust, prefixKey(t.Prefix), usualSize, func(c *codec) { c.trust(&t) })
}

// PutAllow keeps an allow entry.
func PutAllow(a Allow) Change {
	return putChange(kindAllow, allowKey(a.Prefix, a.Host), usualSize, func(c *codec) { c.allow(&a) })
}

// DropAllow forgets the allow entry of a prefix or, where that is not valid, of a host name.
func DropAllow(p netip.Prefix, host string) Change { return dropChange(kindAllow, allowKey(p, host)) }

// PutGrace keeps a grace.
func PutGrace(g ban.Grace) Change {
	return putChange(kindGrace, prefixKey(g.Prefix), usualSize, func(c *codec) { c.grace(&g) })
}

// AddDecision appends a decision to the history. Its Place is not kept.
func AddDecision(d ban.Decision) Change {
	value := encodeRecord(kindDecision, "", usualDecision, func(c *codec) { c.decision(&d) })
	return Change{record: record{recordID{kind: kindDecision}, value}}
}

// putChange is the change that puts a record with these fields, which take about size bytes.
func putChange(k kind, key string, size int, fields func(*codec)) Change {
	if key == "" {
		return withoutKey(k)
	}
	return Change{record: record{recordID{k, key}, encodeRecord(k, key, size, fields)}}
}

// dropChange is the change that drops a record.
func dropChange(k kind, key string) Change {
	if key == "" {
		return withoutKey(k)
	}
	return Change{record: record{recordID{k, key}, nil}}
}

func withoutKey(k kind) Change {
	return Change{err: fmt.Errorf("an entry of %s without a valid prefix or host name %w", k, ErrRecord)}
}

// prefixKey is the address and the length, 5 bytes or 17, and nothing for a prefix that is not valid.
func prefixKey(p netip.Prefix) string {
	return string(appendPrefix(make([]byte, 0, maxPrefix), p.Masked()))
}

const maxPrefix = 17 // bytes

// allowKey tells prefixes and host names apart by its first byte.
func allowKey(p netip.Prefix, host string) string {
	switch {
	case p.IsValid():
		return "p" + prefixKey(p)
	case host != "" && len(host) <= maxHost:
		return "h" + host
	}
	return ""
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return b
	}
	b, _ = p.Addr().AppendBinary(b) // never fails
	return append(b, byte(p.Bits()))
}

func prefixOf(key string) (netip.Prefix, error) {
	if len(key) == 5 || len(key) == 17 {
		last := len(key) - 1
		a, _ := netip.AddrFromSlice([]byte(key[:last]))
		if p := netip.PrefixFrom(a, int(key[last])); p.IsValid() && p == p.Masked() {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: key", errRecord)
}

// cutBytes shortens a string to n bytes at most, and never within a character.
func cutBytes[T ~string](s T, n int) T {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}
