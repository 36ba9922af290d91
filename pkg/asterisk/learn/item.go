package learn

import (
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
)

// isEvent reports whether an item of a list is an event of that name: the name stands in the first line, and no other
// line claims to be one.
func isEvent(m *ami.Message, event string) bool {
	h := m.Headers
	if len(h) == 0 || h[0].Name != "Event" || h[0].Value != event {
		return false
	}
	_, once := onlyValue(m, "Event")
	return once
}

// onlyValue returns the value of a field that the item has exactly once, letter case aside: the first of several may be
// an injected line.
func onlyValue(m *ami.Message, name string) (string, bool) {
	value, n := "", 0
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			value = h.Value
			n++
		}
	}
	return strings.TrimSpace(value), n == 1
}

// isComplete reports whether a list has as many items as its end says.
func isComplete(r *ami.Reply, items int) bool {
	if r.Complete == nil || len(r.Malformed) > 0 {
		return false
	}
	s, ok := onlyValue(r.Complete, "ListItems")
	n, err := strconv.Atoi(s)
	return ok && err == nil && n == items
}
