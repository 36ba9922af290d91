package flows

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Config says where and which flows are ended.
type Config struct {
	// NetNS is a file descriptor of the network namespace to work in, needed
	// only until New returns. 0 means that of the thread which calls New.
	NetNS int
	Log   *slog.Logger
	// All ends every flow of a source. Without it only flows to these ports
	// are ended, so that a person who is logged in by SSH stays logged in.
	All      bool
	UDPPorts []uint16
	TCPPorts []uint16
	// Spare says that a source keeps its flows although it lies in a prefix
	// that was given to End, for example one that is always let in. It is
	// called by Run's goroutine for each flow in question. Loopback is spared
	// in any case.
	Spare func(netip.Addr) bool
	// Ended is called by Run's goroutine with the number of flows that it has
	// just deleted, if there were any.
	Ended func(flows int)
	// Interval is the least time between two looks through the kernel's
	// table, 1 s if 0. After a look that took long, ten times as long.
	Interval time.Duration
	// MaxPending bounds the prefixes that wait, 65536 if 0.
	MaxPending int
}

const (
	defaultInterval = time.Second
	defaultPending  = 1 << 16
	duty            = 10          // a look takes at most one part in so many of the time
	failPause       = time.Minute // before the next try after an error
	lostQuiet       = time.Minute // between two log lines about a full queue
	minRoom         = 64          // prefixes
	maxRoom         = 4096        // the same, while none wait
)

// tracker is the kernel's table of flows.
type tracker interface {
	// end deletes what the selection takes and returns how many flows that
	// were, even with an error.
	end(ctx context.Context, s *selection) (int, error)
	close()
}

// Ender ends the flows of banned sources. A nil Ender ends none.
type Ender struct {
	cfg   Config
	table tracker
	wake  chan struct{}

	mu      sync.Mutex
	pending []netip.Prefix
	spare   []netip.Prefix // room of a batch that was looked for
	lost    uint64
	over    bool

	// Of Run alone:
	saidLost time.Time
	fault    string // the error that was said last
}

// New opens a netlink socket in the namespace. That conntrack is missing or
// not permitted is no error here: Run says so once, and all else goes on.
func New(cfg Config) (*Ender, error) {
	table, err := openTable(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	return newEnder(cfg, table), nil
}

func newEnder(cfg Config, table tracker) *Ender {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultPending
	}
	if cfg.Ended == nil {
		cfg.Ended = func(int) {}
	}
	return &Ender{
		cfg: cfg, table: table,
		wake: make(chan struct{}, 1),
	}
}

// End asks for the flows of these prefixes to be ended. It never waits. It is
// best called when the kernel has taken the ban: a packet that slips through
// between End and the ban would begin the flow anew. Prefixes that are not
// valid are passed over; where the queue is full, flows are left to time out
// and Run says so. The slice stays the caller's.
func (e *Ender) End(prefixes ...netip.Prefix) {
	if e == nil || len(prefixes) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	for _, p := range prefixes {
		p, ok := normal(p)
		if !ok {
			continue
		}
		n := len(e.pending)
		switch {
		case n > 0 && e.pending[n-1] == p:
			continue
		case n >= e.cfg.MaxPending:
			e.lost++
			continue
		case n == cap(e.pending): // append would copy more often
			e.pending = slices.Grow(e.pending, max(n, minRoom))
		}
		e.pending = append(e.pending, p)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// normal returns the prefix as it is looked up: masked, and IPv4 as IPv4.
func normal(p netip.Prefix) (netip.Prefix, bool) {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	p = netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()).Masked()
	return p, p.IsValid()
}

// SetPorts replaces UDPPorts and TCPPorts, from the next look on. The lists must not change any more.
func (e *Ender) SetPorts(udp, tcp []uint16) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cfg.UDPPorts, e.cfg.TCPPorts = udp, tcp
}

// config is the Config of the next look.
func (e *Ender) config() *Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cfg
	return &c
}

func (e *Ender) take() (batch []netip.Prefix, lost uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch, lost = e.pending, e.lost
	e.pending, e.spare, e.lost = e.spare, nil, 0
	return batch, lost
}

// give gives the room of a batch back, unless a flood of bans left too much of it.
func (e *Ender) give(batch []netip.Prefix) {
	if cap(batch) > maxRoom {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.spare = batch[:0]
}

// Run ends flows until ctx does; then it closes the socket and returns nil. It
// is to be called once.
func (e *Ender) Run(ctx context.Context) error {
	defer e.table.close()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.over, e.pending, e.spare = true, nil, nil
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		}
		if ctx.Err() != nil {
			return nil
		}
		batch, lost := e.take()
		e.sayLost(lost)
		if len(batch) == 0 {
			continue
		}
		rest := e.look(ctx, batch)
		e.give(batch)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
	}
}

// look ends the flows of one batch and returns the time until the next may
// follow.
func (e *Ender) look(ctx context.Context, batch []netip.Prefix) time.Duration {
	began := time.Now()
	n, err := e.table.end(ctx, newSelection(e.config(), batch))
	took := time.Since(began)
	if n > 0 {
		e.cfg.Ended(n)
	}
	if ctx.Err() != nil {
		return 0
	}
	e.cfg.Log.Debug("looked for flows of banned sources", "prefixes", len(batch), "ended", n, "took", took)
	if err != nil {
		e.sayFault(err)
		return max(e.cfg.Interval, failPause)
	}
	if e.fault != "" {
		e.fault = ""
		e.cfg.Log.Info("flows of banned sources can be ended again")
	}
	return max(e.cfg.Interval, (duty-1)*took)
}

// sayFault logs an error once; the bans do not depend on it.
func (e *Ender) sayFault(err error) {
	said := e.fault
	e.fault = err.Error()
	if said == e.fault {
		return
	}
	e.cfg.Log.Warn("flows of banned sources cannot be ended, they are left to time out; bans work all the same",
		"error", err, "try", advice(err))
}

func advice(err error) string {
	switch {
	case errors.Is(err, ErrPermission):
		return "give the process the capability CAP_NET_ADMIN in this network namespace"
	case errors.Is(err, ErrMissing):
		return "modprobe nf_conntrack_netlink, or leave it: without connection tracking there are no flows to end"
	}
	return "conntrack -L"
}

func (e *Ender) sayLost(n uint64) {
	if n == 0 || time.Since(e.saidLost) < lostQuiet {
		return
	}
	e.saidLost = time.Now()
	e.cfg.Log.Warn("more bans at a time than flows can be looked for; the flows of some sources are left to time out",
		"sources", n, "limit", e.cfg.MaxPending)
}
