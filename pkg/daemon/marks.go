package daemon

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/signature"
	"github.com/ringwall/ringwall/pkg/sip"
)

// maxCustomersMarks bounds the warnings of lines that hit customers.
const maxCustomersMarks = 5

// marks are the marks of scanners' programs, as policy.signatures says.
type marks struct {
	list atomic.Pointer[signature.List] // nil: none
}

// openMarks reads the lists. What was counted of lines that are still there is kept.
func (s *sensors) openMarks() (opened, error) {
	cfg := s.daemon.config.currentConfig().Policy.Signatures
	list, err := signature.Load(cfg.Builtin, cfg.Files, time.Now())
	if err != nil {
		return opened{}, err // the list of before, if there is one, stays in force
	}
	if old := s.marks.list.Load(); old != nil {
		list.Restore(old.Counts())
	}
	s.marks.list.Store(list)
	return opened{}, nil
}

// match is what the witness asks of each request.
func (m *marks) match(request *sip.Message) (line string, ok bool) {
	return m.list.Load().Match(request)
}

// countHit counts a request that bore a mark.
func (s *sensors) countHit(line string, from netip.Addr) {
	s.marks.list.Load().Hit(line, s.isCustomers(from), time.Now())
}

// hits are the lines that hit anybody.
func (m *marks) hits() (list []api.Signature) {
	for _, c := range m.counts() {
		if c.Hits > 0 {
			at := c.Last.UTC()
			list = append(list, api.Signature{Line: printable.Limit(c.Line, 200), List: printable.String(c.File),
				Hits:    c.Hits,
				LastHit: &at, OnCustomers: c.CustomerHits})
		}
	}
	return list
}

func (m *marks) counts() []signature.Count {
	if list := m.list.Load(); list != nil {
		return list.Counts()
	}
	return nil
}

// hitsByList are the hits of each list in the metrics: of the one that Ringwall brings, and of all others together.
func (m *marks) hitsByList() map[string]uint64 {
	hits := map[string]uint64{signature.BuiltinName: 0}
	for _, c := range m.counts() {
		if c.File == signature.BuiltinName {
			hits[signature.BuiltinName] += c.Hits
		} else {
			hits["files"] += c.Hits
		}
	}
	return hits
}

// warnings tell of lines that hit customers, and of lines of the administrator's own that never hit anybody.
func (m *marks) warnings(now time.Time) (out []api.Warning) {
	list := m.list.Load()
	if list == nil {
		return nil
	}
	for i, c := range list.CustomerLines() {
		if i == maxCustomersMarks {
			break
		}
		out = append(out, api.Warning{
			Text: fmt.Sprintf("the signature %q fits requests from customers' addresses, %s so far: nobody there "+
				"was banned for it",
				printable.Limit(c.Line, 200), humanize.Plural(int(c.CustomerHits), "request", "requests")),
			Try: "ringwall history, to see whose they are; a line that fits a phone has to go: policy.signatures",
		})
	}
	unused := 0
	for _, c := range list.Unused(now) {
		if c.File != signature.BuiltinName {
			unused++
		}
	}
	if unused > 0 {
		out = append(out, api.Warning{
			Text: fmt.Sprintf("%s of your own lists fitted nobody for 30 days", humanize.Plural(unused, "signature",
				"signatures")),
			Try: "ringwall status --json names those that did; take the others out",
		})
	}
	return out
}
