package record

import (
	"container/heap"
	"errors"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Why a record that is well-formed is not taken.
var (
	ErrWide    = errors.New("a wider prefix than fleet.max_prefix allows")
	ErrClock   = errors.New("made later than it is here")
	ErrRate    = errors.New("more records than fleet.rate allows")
	ErrRecords = errors.New("more records of one node than are kept")
	ErrTotal   = errors.New("more records of all nodes together than are kept")
	ErrNodes   = errors.New("more nodes than are kept")
)

// maxShares is how many times Limits.Records all other nodes together may have: whoever has a hub in his hands can
// invent nodes.
const maxShares = 20

// Limits bound what a Book takes from others.
type Limits struct {
	Quorum   int     // nodes that must have seen what could be forged
	IPv4Bits int     // of the widest prefix
	IPv6Bits int     // of the widest prefix
	Rate     float64 // records a minute of one node, once it has used up Records; of bans, and of the others
	Records  int     // bans of one node that are kept, and as many others: so an unban finds room where a ban does not
	Nodes    int     // that are kept
}

// Book holds the latest word of each node about each prefix.
type Book struct {
	self    string
	limits  Limits
	entries map[netip.Prefix][]Record // of one prefix: one of each node and kind
	nodes   map[string]*node
	ends    ends
	total   int // records in entries
	lifts   map[netip.Prefix]Lift
}

// Lift is a person's word that whoever was banned is let in at this node alone: it beats the bans that were made before
// it, and nobody else is told.
type Lift struct {
	Made  time.Time `json:"made"`
	Until time.Time `json:"until"` // when it can be forgotten
}

// node is what is known of a node.
type node struct {
	records int       // all of them
	bans    int       // among them
	budgets [2]Budget // of bans, and of the others
	heard   time.Time
	refused map[string]uint64 // by the error's text

	boundAt   time.Time // when something was refused because it had said so much
	alive     time.Time // when its latest heartbeat was heard
	heartbeat Heartbeat
	behind    uint64
	said      float64 // records of about the last saidTime: older ones count for less
	saidAt    time.Time
}

func (n *node) add(k Kind, count int) {
	n.records += count
	if k == Ban {
		n.bans += count
	}
}

// count is how many records there are that Limits.Records bounds together with those of a kind.
func (n *node) count(k Kind) int {
	if k == Ban {
		return n.bans
	}
	return n.records - n.bans
}

// New returns a Book of the node named self.
func New(self string, l Limits) *Book {
	return &Book{self: self, limits: l, entries: make(map[netip.Prefix][]Record), nodes: make(map[string]*node),
		lifts: make(map[netip.Prefix]Lift)}
}

// Self is this node.
func (b *Book) Self() string { return b.self }

// nodeNamed returns a node; nil where there are too many.
func (b *Book) nodeNamed(name string) *node {
	n := b.nodes[name]
	if n == nil {
		if len(b.nodes) >= b.limits.Nodes && name != b.self {
			return nil
		}
		share := Budget{Most: float64(b.limits.Records), Rate: b.limits.Rate}
		n = &node{budgets: [2]Budget{share, share}}
		b.nodes[name] = n
	}
	return n
}

// Put merges a record that Decode read: of another node, or what a server still has of this one. It says whether
// anything may follow from it that did not before: it is not older than what the same node said, and not long over. The
// error says why it is not taken.
func (b *Book) Put(now time.Time, r Record) (changed bool, err error) {
	n := b.nodeNamed(r.Node)
	if n == nil {
		return false, ErrNodes
	}
	i := b.indexOf(r.Key)
	if i >= 0 && compare(&r, &b.entries[r.Prefix][i]) <= 0 { // that is no news, whoever sends it again
		return false, nil
	}
	if now.After(n.heard) {
		n.heard = now
	}
	n.said, n.saidAt = n.saidBy(now)+1, now
	if err := n.charge(now, r.Kind); err != nil {
		n.refuse(now, err)
		return false, err
	}
	if err := b.admit(now, n, &r, i < 0); err != nil {
		n.refuse(now, err)
		return false, err
	}
	return b.put(now, n, r, i), nil
}

// PutOwn merges a record that this node makes now. The error says why others would not take it.
func (b *Book) PutOwn(now time.Time, r Record) (changed bool, err error) {
	r.Node = b.self
	n := b.nodeNamed(r.Node)
	i := b.indexOf(r.Key)
	if i >= 0 && compare(&r, &b.entries[r.Prefix][i]) <= 0 {
		return false, nil
	}
	if err := b.admit(r.Made, n, &r, i < 0); err != nil {
		return false, err
	}
	n.said, n.saidAt = n.saidBy(now)+1, now
	return b.put(now, n, r, i), nil
}

// put enters a record in place of the i-th about its prefix, or with a negative i beside them.
func (b *Book) put(now time.Time, n *node, r Record, i int) (changed bool) {
	if r.isOver(now) && i < 0 {
		return false
	}
	if i >= 0 {
		b.entries[r.Prefix][i] = r
	} else {
		b.entries[r.Prefix] = append(b.entries[r.Prefix], r)
		n.add(r.Kind, 1)
		b.total++
	}
	if !r.Until.IsZero() {
		b.addEnd(r.Until, r.Prefix)
	}
	return true
}

// Refuse counts a record that Decode refused.
func (b *Book) Refuse(now time.Time, name string, err error) {
	if n := b.nodeNamed(name); n != nil {
		n.refuse(now, err)
	}
}

func (n *node) refuse(now time.Time, err error) {
	if errors.Is(err, ErrRate) || errors.Is(err, ErrRecords) {
		n.boundAt = now
	}
	if n.refused == nil {
		n.refused = make(map[string]uint64)
	}
	n.refused[err.Error()]++
}

// saidTime is over how long the rate of a node is measured.
const saidTime = 5 * time.Minute

// saidBy returns how much a node has said of late.
func (n *node) saidBy(now time.Time) float64 {
	elapsed := max(0, now.Sub(n.saidAt))
	return n.said * math.Exp(-float64(elapsed)/float64(saidTime))
}

// heartbeatLeast is the least time between two heartbeats of a node; what comes sooner is not looked at.
const heartbeatLeast = 10 * time.Second

// Hear takes a heartbeat of a node, at a time when this one knows the stream up to last.
func (b *Book) Hear(now time.Time, name string, data []byte, last uint64) {
	if name == b.self {
		return
	}
	n := b.nodeNamed(name)
	if n == nil || now.Sub(n.alive) < heartbeatLeast && !now.Before(n.alive) {
		return
	}
	h, err := DecodeHeartbeat(data)
	if err != nil {
		n.refuse(now, err)
		return
	}
	n.alive, n.heartbeat, n.behind = now, h, last-min(last, h.Sequence)
}

// DropIdle forgets nodes of which nothing is known any more, and nothing was heard since a time.
func (b *Book) DropIdle(since time.Time) {
	maps.DeleteFunc(b.nodes, func(name string, n *node) bool {
		return n.records == 0 && n.heard.Before(since) && n.alive.Before(since) && name != b.self
	})
}

// charge takes one record from a node's budget: what is refused costs as much as what is taken.
func (n *node) charge(now time.Time, k Kind) error {
	budget := &n.budgets[1]
	if k == Ban {
		budget = &n.budgets[0]
	}
	if budget.Left(now) < 1 {
		return ErrRate
	}
	budget.Take()
	return nil
}

// admit says why a record is not taken.
func (b *Book) admit(now time.Time, n *node, r *Record, isNew bool) error {
	bits := b.limits.IPv4Bits
	if r.Prefix.Addr().Is6() {
		bits = b.limits.IPv6Bits
	}
	if r.Kind == Trust && r.Prefix.Addr().Is4() { // of a source, never of a network
		bits = 32
	}
	switch {
	case r.Prefix.Bits() < bits:
		return ErrWide
	case r.Made.Sub(now) > MaxAhead:
		return ErrClock
	case isNew && !r.isOver(now) && n.count(r.Kind) >= b.limits.Records:
		return ErrRecords
	case isNew && !r.isOver(now) && r.Node != b.self && b.total >= maxShares*b.limits.Records:
		return ErrTotal
	}
	return nil
}

// Stamp returns the time at which this node makes a record about a prefix: now, or right after all that it has heard of
// it. So a word that was spoken with another one known beats it, whatever the two clocks say.
func (b *Book) Stamp(now time.Time, p netip.Prefix) time.Time {
	at := now.UTC().Round(0)
	for _, r := range b.entries[p] {
		if !r.Made.Before(at) {
			at = r.Made.Add(1)
		}
	}
	return at
}

// Get returns the record of a key.
func (b *Book) Get(k Key) (Record, bool) {
	if i := b.indexOf(k); i >= 0 {
		return b.entries[k.Prefix][i], true
	}
	return Record{}, false
}

// indexOf is where the record of a key is among those about its prefix, negative for nowhere.
func (b *Book) indexOf(k Key) int {
	return slices.IndexFunc(b.entries[k.Prefix], func(have Record) bool { return have.Key == k })
}

// Verdict is what the fleet says of a prefix that it bans.
type Verdict struct {
	Until    time.Time
	Node     string // whose record counts: of the end
	Nodes    int    // that saw it on their own
	Reason   ban.Reason
	Closes   ban.Closes
	Proven   bool
	Evidence string
	Made     time.Time
}

// Ban says whether the fleet bans a prefix: one node that has proof is enough, of what could be forged as many as the
// quorum must have seen it, and the ban lasts as long as so many say so. An unban beats what was made before it.
func (b *Book) Ban(now time.Time, p netip.Prefix) (Verdict, bool) {
	list := b.entries[p]
	lifted := lastUnban(list)
	if here := b.lifts[p].Made; here.After(lifted) {
		lifted = here
	}
	var seen []*Record
	for i := range list {
		switch r := &list[i]; {
		case r.Kind == Grace && r.isActive(now):
			return Verdict{}, false
		case r.Kind == Ban && r.isActive(now) && r.Made.After(lifted):
			seen = append(seen, r)
		}
	}
	if len(seen) == 0 {
		return Verdict{}, false
	}
	slices.SortFunc(seen, longestFirst)
	at := slices.IndexFunc(seen, func(r *Record) bool { return r.Proven })
	if at < 0 {
		if at = max(b.limits.Quorum, 1) - 1; at >= len(seen) {
			return Verdict{}, false
		}
	}
	r := seen[at]
	return Verdict{Until: r.Until, Node: r.Node, Nodes: len(seen), Reason: r.Reason, Closes: r.Closes, Proven: r.Proven,
		Evidence: r.Evidence, Made: r.Made}, true
}

// longestFirst orders bans by their ends, and those that end together in an order that is the same everywhere.
func longestFirst(a, b *Record) int {
	if c := compareEnds(b.Until, a.Until); c != 0 {
		return c
	}
	return strings.Compare(a.Node, b.Node)
}

// lastUnban is when the last of some records that unbans was made. One beats a ban of the same time.
func lastUnban(list []Record) (at time.Time) {
	for i := range list {
		if r := &list[i]; r.Kind == Unban && r.Made.After(at) {
			at = r.Made
		}
	}
	return at
}

// Unbanned returns the latest unban of a prefix.
func (b *Book) Unbanned(p netip.Prefix) (latest Record, ok bool) {
	for _, r := range b.entries[p] {
		if r.Kind == Unban && (!ok || isLaterUnban(&r, &latest)) {
			latest, ok = r, true
		}
	}
	return latest, ok
}

// isLaterUnban says whether a was made after b, or by a node of an earlier name at the same time.
func isLaterUnban(a, b *Record) bool {
	if c := a.Made.Compare(b.Made); c != 0 {
		return c > 0
	}
	return a.Node < b.Node
}

// LiftHere lets in whoever is banned as exactly this prefix, at this node alone.
func (b *Book) LiftHere(p netip.Prefix, l Lift) {
	b.lifts[p] = l
	b.addEnd(l.Until, p)
}

// Lifts returns what LiftHere was told and still holds.
func (b *Book) Lifts() map[netip.Prefix]Lift { return maps.Clone(b.lifts) }

// LastEnd is when the last ban of a prefix ends, counted or not: an unban must last until then.
func (b *Book) LastEnd(p netip.Prefix) (at time.Time) {
	for _, r := range b.entries[p] {
		if r.Kind == Ban && r.Until.After(at) {
			at = r.Until
		}
	}
	return at
}

// Others returns the record of a kind about a prefix that holds for the longest, of nodes other than this one.
func (b *Book) Others(now time.Time, kind Kind, p netip.Prefix) (longest Record, ok bool) {
	for _, r := range b.entries[p] {
		if r.Kind != kind || r.Node == b.self || !r.isActive(now) {
			continue
		}
		if !ok || longestFirst(&r, &longest) < 0 {
			longest, ok = r, true
		}
	}
	return longest, ok
}

// Own returns what this node said and that still means something, for a server that has lost it.
func (b *Book) Own(now time.Time) (own []Record) {
	for _, list := range b.entries {
		lifted := lastUnban(list)
		for _, r := range list {
			if r.Node == b.self && !r.isOver(now) && (r.Kind != Ban || r.Made.After(lifted)) {
				own = append(own, r)
			}
		}
	}
	slices.SortFunc(own, func(a, b Record) int {
		if c := a.Made.Compare(b.Made); c != 0 {
			return c
		}
		return strings.Compare(a.Subject(""), b.Subject(""))
	})
	return own
}

// OwnBans returns the bans that this node made, that hold, and that nobody has lifted.
func (b *Book) OwnBans(now time.Time) (own []Record) {
	for _, r := range b.Own(now) {
		if r.Kind != Ban || !r.isActive(now) || !r.Made.After(b.lifts[r.Prefix].Made) {
			continue
		}
		isGrace := func(g Record) bool { return g.Kind == Grace && g.isActive(now) }
		if !slices.ContainsFunc(b.entries[r.Prefix], isGrace) {
			own = append(own, r)
		}
	}
	return own
}

// Prefixes returns all that anybody says something about, in order.
func (b *Book) Prefixes() []netip.Prefix {
	list := make([]netip.Prefix, 0, len(b.entries))
	for p := range b.entries {
		list = append(list, p)
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}

// Len is how many records there are.
func (b *Book) Len() int { return b.total }

// About returns all records about a prefix, in order.
func (b *Book) About(p netip.Prefix) []Record {
	list := slices.Clone(b.entries[p])
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.Subject(""), b.Subject("")) })
	return list
}

// Forget forgets all that a node said, and returns what it said something about.
func (b *Book) Forget(name string) (about []netip.Prefix) {
	for p := range b.entries {
		if b.remove(p, func(r *Record) bool { return r.Node == name }) {
			about = append(about, p)
		}
	}
	slices.SortFunc(about, netip.Prefix.Compare)
	delete(b.nodes, name)
	return about
}

// remove takes records about a prefix out, and says whether there were any.
func (b *Book) remove(p netip.Prefix, unwanted func(*Record) bool) bool {
	list := b.entries[p]
	left := slices.DeleteFunc(list, func(r Record) bool {
		if !unwanted(&r) {
			return false
		}
		b.total--
		b.nodes[r.Node].add(r.Kind, -1)
		return true
	})
	if len(left) == len(list) {
		return false
	}
	if len(left) == 0 {
		delete(b.entries, p)
	} else {
		b.entries[p] = left
	}
	return true
}

// Expire does up to n things that are due: it forgets records that are long over, and returns the prefixes about which
// somebody's word ends, which may be judged otherwise now. It says whether there is more to do.
func (b *Book) Expire(now time.Time, n int) (about []netip.Prefix, more bool) {
	for ; n > 0 && len(b.ends) > 0 && !b.ends[0].at.After(now); n-- {
		p := heap.Pop(&b.ends).(end).prefix
		if l, ok := b.lifts[p]; ok && !l.Until.After(now) {
			delete(b.lifts, p)
		}
		if !b.remove(p, func(r *Record) bool { return r.isOver(now) }) {
			about = append(about, p)
		}
	}
	return about, len(b.ends) > 0 && !b.ends[0].at.After(now)
}

// addEnd remembers that something about a prefix ends. Ends of records that others have replaced are left over,
// until there are many.
func (b *Book) addEnd(at time.Time, p netip.Prefix) {
	if len(b.ends) > 4*(b.total+len(b.lifts))+1024 {
		b.ends = b.ends[:0]
		for p, l := range b.lifts {
			b.ends = append(b.ends, end{l.Until, p})
		}
		for p, list := range b.entries {
			for _, r := range list {
				if !r.Until.IsZero() {
					b.ends = append(b.ends, end{r.Until, p}, end{r.Until.Add(KeptAfter), p})
				}
			}
		}
		heap.Init(&b.ends)
		return // the new one is among them
	}
	heap.Push(&b.ends, end{at, p})
	heap.Push(&b.ends, end{at.Add(KeptAfter), p})
}

type end struct {
	at     time.Time
	prefix netip.Prefix
}

// ends is a heap, the earliest first.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(end)) }
func (e *ends) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// Node is what is known of a node.
type Node struct {
	Name    string            `json:"node"`
	Records int               `json:"records"`
	Heard   time.Time         `json:"heard"` // the last news of it
	Refused map[string]uint64 `json:"refused,omitempty"`

	// Of its heartbeats.
	Alive   time.Time `json:"alive,omitzero"`    // the last one
	Behind  uint64    `json:"behind,omitempty"`  // how much of the stream it did not know by then
	Waiting int       `json:"waiting,omitempty"` // of its records that the server has not confirmed
	Ahead   float64   `json:"clock_ahead_seconds,omitempty"`

	PerMinute float64 `json:"per_minute,omitempty"` // records, over the last minutes
	Silent    bool    `json:"silent,omitempty"`
	AtBound   bool    `json:"at_bound,omitempty"` // more of it was refused a short time ago, for its rate or number
}

// boundFor is how long a node is said to be at its bound after something was refused.
const boundFor = 5 * time.Minute

// LastHeard is when anything of it was heard.
func (n *Node) LastHeard() time.Time {
	if n.Alive.After(n.Heard) {
		return n.Alive
	}
	return n.Heard
}

// RefusedCount is how many of its records were refused.
func (n *Node) RefusedCount() (count uint64) {
	for _, some := range n.Refused {
		count += some
	}
	return count
}

// CountNodes is how many nodes are known.
func (b *Book) CountNodes() int { return len(b.nodes) }

// Nodes returns all nodes, in order. Who is silent is not known here.
func (b *Book) Nodes(now time.Time) []Node {
	list := make([]Node, 0, len(b.nodes))
	for name, n := range b.nodes {
		v := Node{Name: name, Records: n.records, Heard: n.heard, Alive: n.alive, Behind: n.behind,
			Waiting: n.heartbeat.Waiting, PerMinute: math.Round(n.saidBy(now)/saidTime.Minutes()*10) / 10,
			AtBound: !n.boundAt.IsZero() && now.Sub(n.boundAt) < boundFor}
		if !n.alive.IsZero() {
			v.Ahead = math.Round(n.heartbeat.Sent.Sub(n.alive).Seconds()*1000)/1000 + 0 // and not -0
		}
		for what, count := range n.refused {
			if v.Refused == nil {
				v.Refused = make(map[string]uint64)
			}
			v.Refused[what] = count
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return list
}
