package learn

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ami"
)

// is reports whether an item of a list is an event of that name: the name stands in the first line, and no other line
// claims to be one.
func is(m *ami.Message, event string) bool {
	h := m.Headers
	if len(h) == 0 || h[0].Name != "Event" || h[0].Value != event {
		return false
	}
	_, once := field(m, "Event")
	return once
}

// field returns the value of a field that the item has exactly once, letter case aside: the first of several may be an
// injected line.
func field(m *ami.Message, name string) (string, bool) {
	value, n := "", 0
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			value = h.Value
			n++
		}
	}
	return strings.TrimSpace(value), n == 1
}

// complete reports whether a list has as many items as its end says.
func complete(r *ami.Reply, items int) bool {
	if r.Complete == nil || len(r.Malformed) > 0 {
		return false
	}
	s, ok := field(r.Complete, "ListItems")
	n, err := strconv.Atoi(s)
	return ok && err == nil && n == items
}

const (
	maxJSON = 64 << 10
	maxName = 256 // bytes of an object's name; Asterisk's own bound is 80 or 256 by release
)

// A contact, as far as it is kept: its URI can hold a password.
type contact struct {
	endpoint string
	host     target
	proxied  bool  // it has a Path
	expires  int64 // Unix seconds by Asterisk's clock, 0: does not say
}

// stale reports whether the contact has been over for so long that it no longer counts.
func (c contact) stale(now time.Time) bool {
	return c.expires > 0 && time.Unix(c.expires, 0).Add(staleAfter).Before(now)
}

// parseContact reads a contact of the registrar's tree: one JSON object of strings, each key once. encoding/json alone
// would take the last of two equal keys, and any letter case.
func parseContact(val string) (c contact, ok bool) {
	if len(val) > maxJSON {
		return c, false
	}
	d := json.NewDecoder(strings.NewReader(val))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return c, false
	}
	seen := make(map[string]string, 16)
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return c, false
		}
		value, err := d.Token()
		k, isKey := key.(string)
		v, isText := value.(string)
		if _, twice := seen[k]; err != nil || !isKey || !isText || twice {
			return c, false
		}
		seen[k] = v
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return c, false
	}
	if _, err := d.Token(); err != io.EOF {
		return c, false
	}
	return makeContact(seen["endpoint"], seen["uri"], seen["path"], seen["expiration_time"])
}

// contactOf reads an item of PJSIPShowContacts.
func contactOf(m *ami.Message) (c contact, ok bool) {
	endpoint, ok1 := field(m, "Endpoint")
	uri, ok2 := field(m, "Uri")
	path, ok3 := field(m, "Path")
	expires, ok4 := field(m, "ExpirationTime")
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return c, false
	}
	return makeContact(endpoint, uri, path, expires)
}

func makeContact(endpoint, uri, path, expires string) (c contact, ok bool) {
	c = contact{endpoint: strings.Clone(endpoint), proxied: path != ""}
	c.expires, _ = strconv.ParseInt(expires, 10, 64)
	c.host, ok = parseURI(uri)
	c.host.name = strings.Clone(c.host.name)
	return c, ok && endpoint != "" && len(endpoint) <= maxName
}
