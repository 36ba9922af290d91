package learn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/printable"
)

// maxEndpoints bounds how many endpoints of one Asterisk are remembered.
const maxEndpoints = 100_000

// An endpoint of PJSIP, as far as PJSIPShowEndpoint told.
type endpoint struct {
	lastRound      uint64 // in which it was read; 0: never
	hasNoAuth      bool   // it asks for no password, as IP trunks do: read first
	rewriteKnown   bool   // whether rewriteContact is known
	rewriteContact bool   // rewrite_contact=yes
	configured     []configured
}

// askEndpoints lists the endpoints and reads some of them.
func (l *Learner) askEndpoints(ctx context.Context) error {
	reply, err := l.askAction(ctx, "PJSIPShowEndpoints")
	switch {
	case l.refusals["PJSIPShowEndpoints"] == denied:
		return l.askIdentifies(ctx)
	case err != nil: // where Asterisk has no PJSIP, nothing is to be found
		return err
	}
	l.updateEndpoints(reply)
	names := make([]string, 0, len(l.endpoints))
	for name := range l.endpoints {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		x, y := l.endpoints[a], l.endpoints[b]
		if c := cmp.Compare(x.lastRound, y.lastRound); c != 0 {
			return c
		}
		if x.hasNoAuth != y.hasNoAuth {
			return map[bool]int{true: -1, false: 1}[x.hasNoAuth]
		}
		return strings.Compare(a, b)
	})
	rest := len(names) - l.cfg.MaxEndpoints
	if rest > 0 {
		names = names[:l.cfg.MaxEndpoints]
	}
	for _, name := range names {
		reply, err := l.askAction(ctx, "PJSIPShowEndpoint", ami.Header{Name: "Endpoint", Value: name})
		switch {
		case err == nil:
			l.endpoints[name].readDetails(name, l.round, reply.Events)
		case errors.Is(err, errRefused):
			return l.askIdentifies(ctx)
		case errors.Is(err, errRoundOver), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ami.ErrBusy):
			return err
		default: // what was known of this one stays; its turn comes again after the others
			l.endpoints[name].lastRound = l.round
		}
	}
	if rest > 0 {
		return l.askIdentifies(ctx) // has all of them in one answer, where it is allowed
	}
	l.identifies = nil
	return nil
}

// updateEndpoints takes over the list of endpoints. Only a list that is sound to its end removes any.
func (l *Learner) updateEndpoints(reply *ami.Reply) {
	listed := make(map[string]bool, len(reply.Events))
	sound := reply.Response == nil || isComplete(reply, len(reply.Events))
	for _, m := range reply.Events {
		name, ok := onlyValue(m, "ObjectName")
		if !ok || !isEvent(m, "EndpointList") || name == "" || len(name) > maxName {
			sound = false
			continue
		}
		listed[name] = true
		if l.endpoints[name] == nil && len(l.endpoints) < maxEndpoints {
			l.endpoints[strings.Clone(name)] = &endpoint{}
		}
		if e := l.endpoints[name]; e != nil {
			auths, ok := onlyValue(m, "Auths")
			e.hasNoAuth = ok && auths == ""
		}
	}
	for name := range l.endpoints {
		if sound && !listed[name] {
			delete(l.endpoints, name)
		}
	}
}

// readDetails takes over the items that PJSIPShowEndpoint has of one endpoint. AuthDetail, which holds the password, is
// passed over.
func (e *endpoint) readDetails(name string, round uint64, items []*ami.Message) {
	e.lastRound, e.rewriteKnown, e.configured = round, false, nil
	for _, m := range items {
		switch {
		case isEvent(m, "EndpointDetail"):
			object, ok1 := onlyValue(m, "ObjectName")
			rewrite, ok2 := onlyValue(m, "RewriteContact")
			if ok1 && ok2 && object == name {
				e.rewriteKnown, e.rewriteContact = true, isYes(rewrite)
			}
		case isEvent(m, "IdentifyDetail"):
			if f, ok := readIdentify(m, name); ok {
				e.configured = append(e.configured, f)
			}
		case isEvent(m, "AorDetail"):
			if f, ok := readStaticContacts(m, name); ok {
				e.configured = append(e.configured, f)
			}
		}
	}
}

func isYes(s string) bool { return strings.EqualFold(s, "true") || strings.EqualFold(s, "yes") }

func readIdentify(m *ami.Message, endpoint string) (f configured, ok bool) {
	list, ok1 := onlyValue(m, "Match")
	owner, ok2 := onlyValue(m, "Endpoint")
	if !ok1 || !ok2 || owner != endpoint {
		return f, false
	}
	f.origin = "trunk " + printable.String(endpoint)
	f.prefixes, f.refused = parseMatches(list)
	return f, true
}

// readStaticContacts reads the contacts of an AOR into which nobody has registered: those are the administrator's.
// Where there are registrations, the list mixes both, so nothing of it counts.
func readStaticContacts(m *ami.Message, endpoint string) (f configured, ok bool) {
	list, ok1 := onlyValue(m, "Contacts")
	total, ok2 := onlyValue(m, "TotalContacts")
	registered, ok3 := onlyValue(m, "ContactsRegistered")
	aor, ok4 := onlyValue(m, "ObjectName")
	if !ok1 || !ok2 || !ok3 || !ok4 || registered != "0" || list == "" || aor == "" {
		return f, false
	}
	f.origin = "trunk " + printable.String(endpoint)
	n := 0
	for entry := range strings.SplitSeq(strings.TrimSuffix(list, ","), ",") {
		uri, mine := strings.CutPrefix(entry, aor+"/")
		if !mine {
			return configured{}, false
		}
		t, ok := parseURI(uri)
		f.addTarget("contact", t, ok)
		n++
	}
	return f, total == fmt.Sprint(n)
}

// askIdentifies asks the console for all identify sections.
func (l *Learner) askIdentifies(ctx context.Context) error {
	reply, err := l.askAction(ctx, "Command", ami.Header{Name: "Command", Value: "pjsip show identifies"})
	if err != nil || reply.Response == nil {
		return err
	}
	var out []configured
	parseIdentifies(reply.Response.Values("Output"), func(_, endpoint, match string) {
		if endpoint == "" || len(endpoint) > maxName || len(out) >= maxEndpoints {
			return
		}
		f := configured{origin: "trunk " + printable.String(endpoint)}
		f.prefixes, f.refused = parseMatches(match)
		out = append(out, f)
	})
	l.identifies = out
	return nil
}
