package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// Config is what a Fleet is made of.
type Config struct {
	Servers         []string // nats://HOST:PORT or tls://HOST:PORT
	CredentialsFile string   // as nsc writes it; empty: none
	TLS             *tls.Config
	RootCAs         func() (*x509.CertPool, error) // that each connection asks for; nil: those of TLS
	Name            string                         // of the fleet
	Node            string                         // of this one
	Limits          record.Limits
	Share, Accept   []record.Kind
	Watch           Watch
	Passive         bool   // nobody is told that this node is there
	KeptFile        string // keeps over a restart what persons decided, and no server knows; empty: nothing does

	Log *slog.Logger
	Now func() time.Time // nil: time.Now
}

// Fleet is one node's part in a fleet: what all of them said, and what is still to be said. Its methods do not wait for
// the network.
type Fleet struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // of all below
	book    *record.Book
	outbox  outbox
	changed map[netip.Prefix]struct{} // see TakeChanged
	unsaid  uint64                    // records that Limits kept back
	status  Status
	stream  time.Time // when the stream was made that status.Sequence is about

	nextBeat    time.Time
	connectedAt time.Time // zero while it is not
	watchedAt   time.Time // since when heartbeats are heard; zero while they are not

	forgotten   map[string]mark     // see Forget
	voided      map[string]struct{} // see TakeForgotten
	unsaved     bool                // what is to be kept has changed
	keepsUnsent bool                // in the file is what no server had confirmed
	saving      sync.Mutex          // of who writes KeptFile

	toSend    chan struct{} // something is in the outbox, or it is time to try again
	hasChange chan struct{} // something is in changed
	fetch     chan struct{} // something may have been missed
}

// New returns a Fleet that knows nothing yet. Run it.
func New(cfg Config) *Fleet {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Fleet{cfg: cfg, log: cfg.Log, book: record.New(cfg.Node, cfg.Limits), forgotten: make(map[string]mark),
		voided: make(map[string]struct{}),
		outbox: newOutbox(cfg.Limits), changed: make(map[netip.Prefix]struct{}),
		toSend: make(chan struct{}, 1), hasChange: make(chan struct{}, 1), fetch: make(chan struct{}, 1)}
}

// Node is the name of this node.
func (f *Fleet) Node() string { return f.cfg.Node }

// String names the task.
func (f *Fleet) String() string { return "fleet" }

// Say tells the fleet something, if it is shared; node and time are filled in. What could not be said is counted:
// others would not take it.
func (f *Fleet) Say(list ...record.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	for _, r := range list {
		if !slices.Contains(f.cfg.Share, r.Kind) || !record.IsShared(r.Prefix) {
			continue
		}
		r.Node = f.cfg.Node
		r.Prefix = r.Prefix.Masked()
		r.Made = f.book.Stamp(now, r.Prefix)
		_, err := record.Encode(r)
		changed := false
		if err == nil {
			changed, err = f.book.PutOwn(now, r)
		}
		if err != nil {
			f.unsaid++
			f.log.Debug("not told to the fleet", "record", r.String(), "err", err)
		}
		if changed {
			f.outbox.put(r)
			f.unsaved = f.unsaved || isOfPerson(r.Kind)
		}
	}
	if f.outbox.len() > 0 {
		mailbox.Signal(f.toSend)
	}
}

// Withdraw takes back what this node said of a prefix, if it did.
func (f *Fleet) Withdraw(kind record.Kind, p netip.Prefix) {
	f.mu.Lock()
	own, ok := f.book.Get(record.Key{Node: f.cfg.Node, Kind: kind, Prefix: p.Masked()})
	f.mu.Unlock()
	if ok && !own.Withdrawn {
		own.Withdrawn = true
		f.Say(own)
	}
}

// Unban has the fleet's bans of exactly this prefix lifted: everywhere, where bans are shared, else here. until is how
// long whoever was unbanned is to be left in peace; the zero time where he is judged anew.
func (f *Fleet) Unban(p netip.Prefix, until time.Time) {
	if !f.SharesBans() {
		f.UnbanHere(p)
		return
	}
	f.mu.Lock()
	now := f.cfg.Now()
	end := f.book.LastEnd(p)
	if least := now.Add(leastUnban); end.Before(least) {
		end = least
	}
	f.mu.Unlock()
	f.Say(record.Record{Key: record.Key{Kind: record.Unban, Prefix: p}, Until: end})
	if until.After(now) {
		f.Say(record.Record{Key: record.Key{Kind: record.Grace, Prefix: p}, Until: until})
	}
}

// SharesBans says whether the others are told of bans and unbans.
func (f *Fleet) SharesBans() bool { return slices.Contains(f.cfg.Share, record.Ban) }

// UnbanHere has the fleet's bans of exactly this prefix lifted at this node alone, until something new is said.
func (f *Fleet) UnbanHere(p netip.Prefix) {
	p = p.Masked()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	end := f.book.LastEnd(p)
	if f.status.CaughtUp && end.IsZero() { // nobody bans it
		return
	}
	if least := now.Add(leastUnban); end.Before(least) {
		end = least
	}
	f.book.LiftHere(p, record.Lift{Made: f.book.Stamp(now, p), Until: end.UTC().Round(0)})
	f.unsaved = true
	f.changed[p] = struct{}{}
	mailbox.Signal(f.hasChange)
}

// leastUnban is how long an unban lasts at least, for bans that are on their way.
const leastUnban = 24 * time.Hour

// Read lets g look at what is known, at a time of the fleet's clock. It must be quick, and must not keep the book.
func (f *Fleet) Read(g func(b *record.Book, now time.Time)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g(f.book, f.cfg.Now())
}

// HasChange returns the channel on which whoever acts on the fleet's word waits for TakeChanged.
func (f *Fleet) HasChange() <-chan struct{} { return f.hasChange }

// TakeChanged returns up to n prefixes about which something was said, or is no longer true, since they were returned
// the last time.
func (f *Fleet) TakeChanged(n int) []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]netip.Prefix, 0, min(n, len(f.changed)))
	for p := range f.changed {
		if len(list) == n {
			mailbox.Signal(f.hasChange)
			break
		}
		delete(f.changed, p)
		list = append(list, p)
	}
	return list
}

// JudgeAll has everything returned by TakeChanged about which anybody says something.
func (f *Fleet) JudgeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changedLocked(f.book.Prefixes())
}

func (f *Fleet) changedLocked(list []netip.Prefix) {
	for _, p := range list {
		f.changed[p] = struct{}{}
	}
	if len(list) > 0 {
		mailbox.Signal(f.hasChange)
	}
}

// Status is a fleet at a glance.
type Status struct {
	Node      string `json:"node"` // this one
	Connected bool   `json:"connected"`
	Server    string `json:"server,omitempty"`
	// all that the server had was taken at least once since it is connected
	CaughtUp bool          `json:"caught_up"`
	Error    string        `json:"error,omitempty"` // the last one since then
	Records  int           `json:"records"`
	Waiting  int           `json:"waiting"` // records that the server has not confirmed
	Unsaid   uint64        `json:"unsaid"`  // records that were not shared, since others would not take them
	Sequence uint64        `json:"sequence"`
	Watching bool          `json:"watching"`         // heartbeats of others are heard
	Unseen   string        `json:"unseen,omitempty"` // why this node's own are not sent
	Nodes    []record.Node `json:"nodes"`
}

// Status returns the fleet at a glance.
func (f *Fleet) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	now := f.cfg.Now()
	s.Records, s.Waiting, s.Unsaid, s.Nodes = f.book.Len(), f.outbox.len(), f.unsaid, f.book.Nodes(now)
	s.Node, s.Watching = f.cfg.Node, !f.watchedAt.IsZero()
	for i := range s.Nodes {
		n := &s.Nodes[i]
		n.Silent = n.Name != f.cfg.Node && f.isSilentLocked(now, n)
	}
	return s
}

func (f *Fleet) setStatus(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}
