package store

import (
	"encoding/json"
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
	MaxDecision = 8192 // bytes of a decision's line; a longer one is refused

	maxName = 256  // bytes of an account, a PBX, a reason and the like
	maxText = 1024 // bytes of a comment or a note
	maxHost = 253  // bytes of a host name, RFC 1035 section 2.3.4
)

// Allow is an entry of the allow list that was added at run time: a prefix or, where that is not valid, a host name.
type Allow struct {
	Prefix   netip.Prefix
	Host     string
	Added    time.Time
	By, Note string
	Until    time.Time // zero: until it is taken off
}

// Decision is one line of history.
type Decision struct {
	Time   time.Time
	Source netip.Addr      // not valid where no single address did it
	Prefix netip.Prefix    // not valid where it applies to none
	Raw    json.RawMessage // the line, one JSON value
}

// kind says what a record is of: it is the name of the record's bucket, too.
type kind byte

const (
	kindBan kind = 1 + iota
	kindOffender
	kindTrust
	kindAllow
	kindGrace
	kindDecision
)

// kinds are those whose records have keys of their own.
var kinds = [...]kind{kindBan, kindOffender, kindTrust, kindAllow, kindGrace}

func (k kind) String() string {
	return [...]string{"", "bans", "offenders", "trust", "allow", "grace", "history"}[k]
}

func (k kind) bucket() []byte { return []byte(k.String()) }

// ErrRecord is a record that cannot be kept: without a valid key, or a decision that is too long or no JSON.
var ErrRecord = errors.New("cannot be kept")

// Change is one record that is new or different, or gone. It holds a copy of all that it was made from.
type Change struct {
	item
	err error
}

// PutBan keeps a ban, in place of any other of its prefix.
func PutBan(b ban.Ban) Change {
	var room [1024]byte // more than most bans take
	e := begin(room[:0], kindBan, b.Prefix)
	return e.ban(&b).change(kindBan, len(e))
}

// DropBan forgets the ban of a prefix. What the ban alone said of its source is to be kept by PutOffender, in the same
// Put: see Options.Counts.
func DropBan(p netip.Prefix) Change { return drop(kindBan, p) }

// PutOffender keeps an offender.
func PutOffender(o ban.Offender) Change {
	var room [smallRoom]byte
	e := begin(room[:0], kindOffender, o.Prefix)
	return e.offender(&o).change(kindOffender, len(e))
}

// DropOffender forgets an offender.
func DropOffender(p netip.Prefix) Change { return drop(kindOffender, p) }

// PutTrust keeps a trusted source.
func PutTrust(t ban.Trust) Change {
	var room [smallRoom]byte
	e := begin(room[:0], kindTrust, t.Prefix)
	return e.trust(&t).change(kindTrust, len(e))
}

// DropTrust forgets a trusted source.
func DropTrust(p netip.Prefix) Change { return drop(kindTrust, p) }

// PutAllow keeps an allow entry.
func PutAllow(a Allow) Change {
	var room [smallRoom]byte
	e := beginAllow(room[:0], a.Prefix, a.Host)
	return e.allow(&a).change(kindAllow, len(e))
}

// DropAllow forgets the allow entry of a prefix or, where that is not valid, of a host name.
func DropAllow(p netip.Prefix, host string) Change {
	var room [smallRoom]byte
	return beginAllow(room[:0], p, host).gone(kindAllow)
}

// PutGrace keeps a grace.
func PutGrace(g ban.Grace) Change {
	var room [smallRoom]byte
	e := begin(room[:0], kindGrace, g.Prefix)
	return e.grace(&g).change(kindGrace, len(e))
}

// DropGrace forgets a grace.
func DropGrace(p netip.Prefix) Change { return drop(kindGrace, p) }

// AddDecision appends a line to the history.
func AddDecision(d Decision) Change {
	if !json.Valid(d.Raw) {
		return Change{err: fmt.Errorf("a decision that is no JSON %w", ErrRecord)}
	}
	return AddLine(d)
}

// AddLine is AddDecision of a line that is known to be JSON, because an encoder of JSON has just written it.
func AddLine(d Decision) Change {
	if len(d.Raw) > MaxDecision {
		return Change{err: fmt.Errorf("a decision of %d bytes %w: the bound is %d", len(d.Raw), ErrRecord, MaxDecision)}
	}
	var room [smallRoom]byte
	e := encoder(append(room[:0], byte(kindDecision)))
	return Change{item: e.decision(&d).seal(len(e), d.Raw)}
}

// smallRoom is what a record other than a ban takes, but for long strings.
const smallRoom = 128

func drop(k kind, p netip.Prefix) Change {
	var room [smallRoom]byte
	return begin(room[:0], k, p).gone(k)
}

// begin begins a record with its name: the kind alone where it has none.
func begin(room []byte, k kind, p netip.Prefix) encoder {
	return appendPrefix(append(room, byte(k)), p.Masked())
}

// beginAllow tells prefixes and host names apart by the first byte of their keys.
func beginAllow(room []byte, p netip.Prefix, host string) encoder {
	b := append(room, byte(kindAllow))
	switch {
	case p.IsValid():
		return appendPrefix(append(b, 'p'), p.Masked())
	case host != "" && len(host) <= maxHost:
		return append(append(b, 'h'), host...)
	}
	return b
}

// change is the change to what was encoded, of which so many bytes are the name.
func (e encoder) change(k kind, named int) Change {
	if named == 1 {
		return unnamed(k)
	}
	return Change{item: e.seal(named, nil)}
}

// gone is the change to no record, of this name.
func (e encoder) gone(k kind) Change {
	if len(e) == 1 {
		return unnamed(k)
	}
	return Change{item: item{record: append([]byte(nil), e...), named: len(e)}}
}

func unnamed(k kind) Change {
	return Change{err: fmt.Errorf("an entry of %s without a valid prefix or host name %w", k, ErrRecord)}
}

const maxKey = 17 // bytes of a prefix

// appendPrefix appends the address and the length, 5 bytes or 17, and nothing for a prefix that is not valid.
func appendPrefix(b []byte, p netip.Prefix) []byte {
	switch a := p.Addr(); {
	case !p.IsValid():
		return b
	case a.Is4():
		four := a.As4()
		b = append(b, four[:]...)
	default:
		sixteen := a.As16()
		b = append(b, sixteen[:]...)
	}
	return append(b, byte(p.Bits()))
}

func prefixOf(key string) (netip.Prefix, bool) {
	if len(key) != 5 && len(key) != 17 {
		return netip.Prefix{}, false
	}
	last := len(key) - 1
	a, _ := netip.AddrFromSlice([]byte(key[:last]))
	p := netip.PrefixFrom(a, int(key[last]))
	return p, p.IsValid() && p == p.Masked()
}

// cut shortens a string to n bytes at most, and never within a character.
func cut(s string, n int) string {
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
