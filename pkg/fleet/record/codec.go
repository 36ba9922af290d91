package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// format is the number of this encoding. Nodes of a later one are told apart from nonsense.
const format = 1

// Why a record is not taken. Each is counted by its text.
var (
	ErrSubject   = errors.New("not a subject of the fleet")
	ErrSize      = errors.New("too large")
	ErrFormat    = errors.New("written by another version of Ringwall")
	ErrMalformed = errors.New("malformed")
	ErrLocal     = errors.New("an address that is somebody else at each site")
)

// IsName says whether a text can be the name of a fleet or a node: letters, digits, - and _, at most 32.
func IsName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// Subject is where a fleet's servers keep the record of a key: ringwall.FLEET.NODE.KIND.PREFIX. What a node may publish
// to is up to the server's permissions, so the node in it is true where those are set.
func (k Key) Subject(fleet string) string {
	prefix := strings.ReplaceAll(k.Prefix.String(), ".", "-") // a dot separates the parts
	return "ringwall." + fleet + "." + k.Node + "." + string(k.Kind) + "." + prefix
}

// ParseSubject is the inverse of Key.Subject: what Subject does not write is not read.
func ParseSubject(fleet, subject string) (Key, error) {
	if len(subject) > 200 {
		return Key{}, ErrSubject
	}
	parts := strings.Split(subject, ".")
	if len(parts) != 5 || parts[0] != "ringwall" || parts[1] != fleet || !IsName(parts[2]) ||
		!slices.Contains(Kinds(), Kind(parts[3])) {
		return Key{}, ErrSubject
	}
	p, err := netip.ParsePrefix(strings.ReplaceAll(parts[4], "-", "."))
	if err != nil {
		return Key{}, ErrSubject
	}
	k := Key{Node: strings.Clone(parts[2]), Kind: Kind(strings.Clone(parts[3])), Prefix: p.Masked()}
	if k.Subject(fleet) != subject {
		return Key{}, ErrSubject
	}
	return k, nil
}

// operator is in place of a node where the operator of the fleet speaks: no node can be called that, and none may
// publish there.
const operator = "@operator"

// ForgetSubject is where a fleet's servers keep the operator's word that what a node said before it is void. It is in
// the same stream as all that nodes say, so that everybody knows what was said before.
func ForgetSubject(fleet, node string) string {
	return "ringwall." + fleet + "." + operator + ".forget." + node
}

// ParseForget is the inverse of ForgetSubject.
func ParseForget(fleet, subject string) (node string, ok bool) {
	node, ok = strings.CutPrefix(subject, ForgetSubject(fleet, ""))
	return strings.Clone(node), ok && IsName(node)
}

// NodeSubjects are all subjects in which a node speaks.
func NodeSubjects(fleet, node string) string { return "ringwall." + fleet + "." + node + ".>" }

// body is the encoded form; the key is in the subject. Times are in ns since 1970.
type body struct {
	Format    int        `json:"format"`
	Made      int64      `json:"made"`
	Until     int64      `json:"until"` // 0: no end
	Withdrawn bool       `json:"withdrawn,omitempty"`
	Reason    ban.Reason `json:"reason,omitempty"`
	Closes    string     `json:"closes,omitempty"`
	Proven    bool       `json:"proven,omitempty"`
	Evidence  string     `json:"evidence,omitempty"`
}

// Encode writes a record, but for its key. What others would refuse is an error.
func Encode(r Record) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	data := encode(&r)
	if len(data) > MaxBytes {
		return nil, ErrSize
	}
	return data, nil
}

func encode(r *Record) []byte {
	b := body{Format: format, Made: r.Made.UnixNano(), Reason: r.Reason, Proven: r.Proven, Evidence: r.Evidence,
		Withdrawn: r.Withdrawn}
	if !r.Until.IsZero() {
		b.Until = r.Until.UnixNano()
	}
	if r.Kind == Ban {
		b.Closes = r.Closes.String()
	}
	data, err := json.Marshal(b)
	if err != nil { // of numbers and texts there is none
		panic(err)
	}
	return data
}

// Decode reads a record that another node wrote. Only what Encode writes is read: there are no two ways to say a thing,
// and nothing that one version of Ringwall sees and another one does not.
func Decode(k Key, data []byte) (Record, error) {
	if len(data) > MaxBytes {
		return Record{}, ErrSize
	}
	var f struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return Record{}, ErrMalformed
	}
	if f.Format != format {
		return Record{}, ErrFormat
	}
	var b body
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return Record{}, ErrMalformed
	}
	r := Record{Key: k, Made: time.Unix(0, b.Made).UTC(), Reason: b.Reason, Proven: b.Proven, Evidence: b.Evidence,
		Withdrawn: b.Withdrawn}
	if b.Until != 0 {
		r.Until = time.Unix(0, b.Until).UTC()
	}
	if err := r.Closes.UnmarshalText([]byte(b.Closes)); err != nil {
		return Record{}, ErrMalformed
	}
	if !bytes.Equal(encode(&r), data) {
		return Record{}, ErrMalformed
	}
	return r, r.check()
}

// check says what is wrong with a record by itself.
func (r *Record) check() error {
	switch {
	case !IsName(r.Node), !slices.Contains(Kinds(), r.Kind), !r.Prefix.IsValid(), r.Prefix != r.Prefix.Masked():
		return ErrMalformed
	case !IsShared(r.Prefix):
		return ErrLocal
	case r.Made.UnixNano() <= 0, r.Until.IsZero() && r.Kind != Allow, r.Withdrawn && r.Kind == Unban:
		return ErrMalformed
	case !r.Until.IsZero() && (r.Until.UnixNano() <= 0 || r.Until.Sub(r.Made) > MaxLife):
		return ErrMalformed
	case r.Kind != Ban && (r.Reason != "" || r.Closes != ban.ClosesAll || r.Proven || r.Evidence != ""):
		return ErrMalformed
	case r.Kind == Ban && (!slices.Contains(ban.Reasons(), r.Reason) || r.Closes.IsOfService()):
		return ErrMalformed
	case r.Kind == Ban && !r.Proven && r.Closes != ban.ClosesUDP: // what could be forged closes UDP alone
		return ErrMalformed
	case len(r.Evidence) > MaxEvidence:
		return ErrMalformed
	}
	for i := range len(r.Evidence) {
		if c := r.Evidence[i]; c < ' ' || c > '~' {
			return ErrMalformed
		}
	}
	return nil
}

// String is a record for a log.
func (r *Record) String() string { return fmt.Sprintf("%s of %v by %s", r.Kind, r.Prefix, r.Node) }
