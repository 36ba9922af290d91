package fetch

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/lists"
)

// Source is a list, and where it comes from.
type Source struct {
	Name    string
	From    string // where it is, as the configuration says: a copy of another place is not used
	URL     string // or File; {key} in it is the key
	File    string
	Format  lists.Format
	Key     string // APIBAN's, a LAPI's, or user:password
	Refresh time.Duration
	// TTL is how long an address of APIBAN's lives, and how long any other list counts that cannot be fetched.
	TTL        time.Duration
	MaxEntries int
	MaxPrefix  int // bits of the widest IPv4 network; IPv6 twice as many
	Enforce    bool
}

// KeyPlace is where a URL has the key.
const KeyPlace = "{key}"

// limits are those of the list's text: 64 bytes an entry, and a MB for what stands beside it.
func (s *Source) limits() lists.Limits {
	l := lists.DefaultLimits()
	l.Entries = s.MaxEntries
	l.Bytes = min(l.Bytes, 1<<20+256*int64(s.MaxEntries))
	return l
}

// identity tells whether a copy is of this list: of another address it is not.
func (s *Source) identity() string {
	sum := sha256.Sum256([]byte(cmp.Or(s.From, s.URL, s.File) + "\x00" + string(s.Format)))
	return hex.EncodeToString(sum[:8])
}

// address is where the list is, with the key.
func (s *Source) address() (*url.URL, error) {
	u, err := url.Parse(strings.ReplaceAll(s.URL, KeyPlace, url.PathEscape(s.Key)))
	if err != nil {
		return nil, errors.New("the url cannot be read") // its error would show the key
	}
	return u, CheckURL(u)
}

// CheckURL refuses what anybody on the way could change: http, but from this machine itself.
func CheckURL(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return errors.New("no host in the url")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return errors.New("http can be changed on the way: https")
	}
	return fmt.Errorf("%s is no scheme of a list: https", u.Scheme)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
