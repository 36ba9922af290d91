package learn

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
)

const (
	contactPrefix = "/registrar/contact/"
	maxContacts   = 200_000
	maxJSON       = 64 << 10 // bytes of a contact
	maxName       = 256      // bytes of an object's name; Asterisk's own bound is 80 or 256 by release
	// expiredFor is how long after its expiry a contact still counts. Asterisk removes expired ones itself, within
	// seconds; the rest is for an Asterisk that does not say what time it has.
	expiredFor = 24 * time.Hour
)

// A contact, as far as it is kept: its URI can hold a password.
type contact struct {
	endpoint string
	address  target
	viaProxy bool  // it has a Path
	expires  int64 // Unix seconds by Asterisk's clock, 0: does not say
}

// isLongExpired reports whether the contact has been over for so long that it no longer counts.
func (c contact) isLongExpired(now time.Time) bool {
	return c.expires > 0 && time.Unix(c.expires, 0).Add(expiredFor).Before(now)
}

// askContacts reads the registered contacts, by the way that needs least.
func (l *Learner) askContacts(ctx context.Context) error {
	read := contactFromTree
	reply, err := l.askAction(ctx, "DBGetTree", ami.Header{Name: "Family", Value: "registrar"})
	if errors.Is(err, errRefused) {
		read = contactFromList
		reply, err = l.askAction(ctx, "PJSIPShowContacts")
	}
	if err != nil {
		return err
	}
	l.contacts, l.skipped = nil, Skipped{Malformed: len(reply.Malformed)}
	for _, m := range reply.Events {
		c, mine, ok := read(m)
		switch {
		case !mine:
		case !ok:
			l.skipped.Malformed++
		case len(l.contacts) >= maxContacts:
			l.skipped.Surplus++
		default:
			l.contacts = append(l.contacts, c)
		}
	}
	slices.SortFunc(l.contacts, func(a, b contact) int {
		if c := strings.Compare(a.endpoint, b.endpoint); c != 0 {
			return c
		}
		return a.address.addr.Compare(b.address.addr)
	})
	return l.askClock(ctx)
}

// askClock finds out how far Asterisk's clock is from ours, if contacts are out of date by ours: the clock of a PBX may
// be wrong by days or years, after a battery has died or where nothing sets it, and its phones are registered all the
// same. Nobody is denied Ping (main/manager.c: its class is 0), whose answer has the time since Asterisk 1.6.
func (l *Learner) askClock(ctx context.Context) error {
	l.clockAhead = 0
	now := l.cfg.Now()
	if !slices.ContainsFunc(l.contacts, func(c contact) bool { return c.isLongExpired(now) }) {
		return nil
	}
	reply, err := l.askAction(ctx, "Ping")
	if err != nil || reply.Response == nil {
		if errors.Is(err, errRoundOver) {
			return err
		}
		return nil // our clock must do, and staleAfter
	}
	text, ok := onlyValue(reply.Response, "Timestamp")
	seconds, _, _ := strings.Cut(text, ".")
	if at, err := strconv.ParseInt(seconds, 10, 64); ok && err == nil && at >= 0 && at < 1<<40 {
		l.clockAhead = time.Unix(at, 0).Sub(l.cfg.Now())
	}
	return nil
}

// contactFromTree reads an item of DBGetTree: Event, Key, Val, ActionID, in this order and nothing else (main/db.c,
// manager_db_tree_get()).
func contactFromTree(m *ami.Message) (c contact, mine, ok bool) {
	h := m.Headers
	if len(h) != 4 || !isEvent(m, "DBGetTreeResponse") || h[1].Name != "Key" || h[2].Name != "Val" ||
		h[3].Name != "ActionID" {
		return c, true, false
	}
	if !strings.HasPrefix(h[1].Value, contactPrefix) {
		return c, false, false
	}
	c, ok = parseContact(h[2].Value)
	return c, true, ok
}

func contactFromList(m *ami.Message) (c contact, mine, ok bool) {
	if !isEvent(m, "ContactList") {
		return c, true, false
	}
	// The administrator's own contacts are in the list too, with "@@" in their names and no expiry. They come to
	// Prefixes by way of their endpoint.
	if c, ok = readContactItem(m); ok && c.expires == 0 {
		return c, false, false
	}
	return c, true, ok
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
	return newContact(seen["endpoint"], seen["uri"], seen["path"], seen["expiration_time"])
}

// readContactItem reads an item of PJSIPShowContacts.
func readContactItem(m *ami.Message) (c contact, ok bool) {
	endpoint, ok1 := onlyValue(m, "Endpoint")
	uri, ok2 := onlyValue(m, "Uri")
	path, ok3 := onlyValue(m, "Path")
	expires, ok4 := onlyValue(m, "ExpirationTime")
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return c, false
	}
	return newContact(endpoint, uri, path, expires)
}

func newContact(endpoint, uri, path, expires string) (c contact, ok bool) {
	c = contact{endpoint: strings.Clone(endpoint), viaProxy: path != ""}
	c.expires, _ = strconv.ParseInt(expires, 10, 64)
	c.address, ok = parseURI(uri)
	c.address.name = strings.Clone(c.address.name)
	return c, ok && endpoint != "" && len(endpoint) <= maxName
}
