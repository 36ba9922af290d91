package notify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Options say where a Notifier reports to.
type Options struct {
	Log   *slog.Logger                       // nil: nowhere
	Count func(target, result string, n int) // counts messages by one of [Results]; may be nil, must not block
	// Place says where an address is registered; may be nil, must not block.
	Place func(netip.Addr) ban.Place
}

// Notifier tells the targets of the configuration of decisions.
type Notifier struct {
	log      *slog.Logger
	onCount  func(target, result string, n int)
	placeOf  func(netip.Addr) ban.Place // nil: nobody knows
	dial     dialFunc
	host     string        // this machine's name
	idPrefix string        // of every message's ID, so that two runs of the daemon share none
	lastID   atomic.Uint64 // the number after it

	mu      sync.Mutex
	targets []*target
	ctx     context.Context // of Run, once it runs
	ended   bool            // a reload starts no target any more
	tasks   sync.WaitGroup  // that deliver
}

// New makes a Notifier. It fails for a target that config.Load would refuse, or whose ca_file has gone. Nothing is sent
// before Run.
func New(targets []config.Notify, o Options) (*Notifier, error) {
	n := &Notifier{log: o.Log, onCount: o.Count, placeOf: o.Place, dial: (&net.Dialer{}).DialContext}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	name, err := os.Hostname()
	if err != nil {
		name = "this machine"
	}
	n.host = printable.String(name)
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	n.idPrefix = hex.EncodeToString(b[:])
	return n, n.Configure(targets)
}

// String names the task.
func (n *Notifier) String() string { return "notify" }

// Push tells every target that wants to know of d. It never waits for any of them.
func (n *Notifier) Push(d ban.Decision) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.targets) == 0 {
		return
	}
	now := time.Now()
	for _, t := range n.targets {
		t.pushDecision(d, now)
	}
}

// Run delivers until ctx ends. It returns nil some seconds later at most, when the last messages are delivered or given
// up.
func (n *Notifier) Run(ctx context.Context) error {
	n.mu.Lock()
	n.ctx = ctx
	for _, t := range n.targets {
		n.launchLocked(t)
	}
	n.mu.Unlock()
	<-ctx.Done()
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	n.tasks.Wait()
	return nil
}

// launchLocked starts a target.
func (n *Notifier) launchLocked(t *target) {
	ctx, cancel := context.WithCancel(n.ctx)
	t.cancel = cancel
	n.tasks.Go(func() { defer cancel(); t.Run(ctx) })
}

// Configure puts other targets in force. Those that did not change go on; what waits for one that did goes to the one
// of the same name. A target that cannot be used is in the error, and as it was before, if it was: the others need not
// wait for it.
func (n *Notifier) Configure(targets []config.Notify) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return nil
	}
	old := make(map[string]*target, len(n.targets))
	for _, t := range n.targets {
		old[t.cfg.Name] = t
	}
	var errs []error
	list := make([]*target, 0, len(targets))
	for _, cfg := range targets {
		if t := old[cfg.Name]; t != nil && reflect.DeepEqual(t.cfg, cfg) && cfg.CAFile == "" {
			list = append(list, t)
			continue
		}
		t, err := newTarget(cfg, n)
		if err != nil {
			errs = append(errs, err)
			if t = old[cfg.Name]; t == nil {
				continue
			}
		}
		list = append(list, t)
	}
	n.targets = list
	for _, t := range list {
		before := old[t.cfg.Name]
		delete(old, t.cfg.Name)
		if before == t {
			continue
		}
		for _, result := range Results() {
			n.countResult(t.cfg.Name, result, 0)
		}
		if before != nil {
			before.replaceBy(t)
		}
		if n.ctx != nil {
			n.launchLocked(t)
		}
	}
	for _, t := range old { // which no target of the new list has taken the place of
		t.removeTarget()
	}
	return errors.Join(errs...)
}

func (n *Notifier) nextID() string { return n.idPrefix + "-" + strconv.FormatUint(n.lastID.Add(1), 10) }

func (n *Notifier) countResult(target, result string, number int) {
	if n.onCount != nil {
		n.onCount(target, result, number)
	}
}
