package learn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/printable"
)

// maxEndpoints bounds how many endpoints of one Asterisk are remembered.
const maxEndpoints = 100_000

// An endpoint of PJSIP, as far as PJSIPShowEndpoint told.
type endpoint struct {
	read    uint64 // the round in which it was read last; 0: never
	noAuth  bool   // asks for no password, as IP trunks do: read first
	known   bool   // rewrite is known
	rewrite bool
	fixed   []fixed
}

// askEndpoints lists the endpoints and reads some of them.
func (l *Learner) askEndpoints(ctx context.Context) error {
	reply, err := l.action(ctx, "PJSIPShowEndpoints")
	switch {
	case l.verdicts["PJSIPShowEndpoints"] == denied:
		return l.askIdentifies(ctx)
	case err != nil: // where Asterisk has no PJSIP, nothing is to be found
		return err
	}
	l.takeEndpoints(reply)
	names := make([]string, 0, len(l.endpoints))
	for name := range l.endpoints {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		x, y := l.endpoints[a], l.endpoints[b]
		if c := cmp.Compare(x.read, y.read); c != 0 {
			return c
		}
		if x.noAuth != y.noAuth {
			return map[bool]int{true: -1, false: 1}[x.noAuth]
		}
		return strings.Compare(a, b)
	})
	rest := len(names) - l.cfg.MaxEndpoints
	if rest > 0 {
		names = names[:l.cfg.MaxEndpoints]
	}
	for _, name := range names {
		reply, err := l.action(ctx, "PJSIPShowEndpoint", ami.Header{Name: "Endpoint", Value: name})
		switch {
		case err == nil:
			l.endpoints[name].take(name, l.round, reply.Events)
		case errors.Is(err, errRefused):
			return l.askIdentifies(ctx)
		case errors.Is(err, errOver), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ami.ErrBusy):
			return err
		default: // what was known of this one stays; its turn comes again after the others
			l.endpoints[name].read = l.round
		}
	}
	if rest > 0 {
		return l.askIdentifies(ctx) // has all of them in one answer, where it is allowed
	}
	l.listed = nil
	return nil
}

// takeEndpoints takes over the list of endpoints. Only a list that is sound to its end removes any.
func (l *Learner) takeEndpoints(reply *ami.Reply) {
	listed := make(map[string]bool, len(reply.Events))
	sound := reply.Response == nil || complete(reply, len(reply.Events))
	for _, m := range reply.Events {
		name, ok := field(m, "ObjectName")
		if !ok || !is(m, "EndpointList") || name == "" || len(name) > maxName {
			sound = false
			continue
		}
		listed[name] = true
		if l.endpoints[name] == nil && len(l.endpoints) < maxEndpoints {
			l.endpoints[strings.Clone(name)] = &endpoint{}
		}
		if e := l.endpoints[name]; e != nil {
			auths, ok := field(m, "Auths")
			e.noAuth = ok && auths == ""
		}
	}
	for name := range l.endpoints {
		if sound && !listed[name] {
			delete(l.endpoints, name)
		}
	}
}

// take reads the details of one endpoint. AuthDetail, which holds the password, is passed over.
func (e *endpoint) take(name string, round uint64, items []*ami.Message) {
	e.read, e.known, e.fixed = round, false, nil
	for _, m := range items {
		switch {
		case is(m, "EndpointDetail"):
			object, ok1 := field(m, "ObjectName")
			rewrite, ok2 := field(m, "RewriteContact")
			if ok1 && ok2 && object == name {
				e.known, e.rewrite = true, yes(rewrite)
			}
		case is(m, "IdentifyDetail"):
			if f, ok := identify(m, name); ok {
				e.fixed = append(e.fixed, f)
			}
		case is(m, "AorDetail"):
			if f, ok := fixedContacts(m, name); ok {
				e.fixed = append(e.fixed, f)
			}
		}
	}
}

func yes(s string) bool { return strings.EqualFold(s, "true") || strings.EqualFold(s, "yes") }

func identify(m *ami.Message, endpoint string) (f fixed, ok bool) {
	list, ok1 := field(m, "Match")
	owner, ok2 := field(m, "Endpoint")
	if !ok1 || !ok2 || owner != endpoint {
		return f, false
	}
	f.note = "trunk " + printable.String(endpoint)
	f.prefixes, f.refused = parseMatches(list)
	return f, true
}

// fixedContacts reads the contacts of an AOR into which nobody has registered: those are the administrator's. Where
// there are registrations, the list mixes both, so nothing of it counts.
func fixedContacts(m *ami.Message, endpoint string) (f fixed, ok bool) {
	list, ok1 := field(m, "Contacts")
	total, ok2 := field(m, "TotalContacts")
	registered, ok3 := field(m, "ContactsRegistered")
	aor, ok4 := field(m, "ObjectName")
	if !ok1 || !ok2 || !ok3 || !ok4 || registered != "0" || list == "" || aor == "" {
		return f, false
	}
	f.note = "trunk " + printable.String(endpoint)
	n := 0
	for entry := range strings.SplitSeq(strings.TrimSuffix(list, ","), ",") {
		uri, mine := strings.CutPrefix(entry, aor+"/")
		if !mine {
			return fixed{}, false
		}
		t, ok := parseURI(uri)
		f.put("contact", t, ok)
		n++
	}
	return f, total == fmt.Sprint(n)
}

// askIdentifies asks the console for all identify sections.
func (l *Learner) askIdentifies(ctx context.Context) error {
	reply, err := l.action(ctx, "Command", ami.Header{Name: "Command", Value: "pjsip show identifies"})
	if err != nil || reply.Response == nil {
		return err
	}
	var out []fixed
	parseIdentifies(reply.Response.Values("Output"), func(_, endpoint, match string) {
		if endpoint == "" || len(endpoint) > maxName || len(out) >= maxEndpoints {
			return
		}
		f := fixed{note: "trunk " + printable.String(endpoint)}
		f.prefixes, f.refused = parseMatches(match)
		out = append(out, f)
	})
	l.listed = out
	return nil
}
