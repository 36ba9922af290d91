package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	maxAnnouncements = 1 << 16 // decisions that wait for the log
	linesPerSecond   = 100     // in the log; the rest of a flood is counted
	lineBurst        = 500
)

// announcer tells the log and the hooks of decisions, without ever making those wait who decide.
type announcer struct {
	feed *control.Feed
	log  *slog.Logger
	hook func(ban.Decision) // may be nil

	mu      sync.Mutex
	queue   []announcement
	waiting int // decisions in it
	lost    int
	wake    chan struct{}
}

// announcement is what the kernel took together.
type announcement struct {
	decisions []ban.Decision
	err       error // why the kernel does not have them
}

func newAnnouncer(feed *control.Feed, log *slog.Logger, hook func(ban.Decision)) *announcer {
	return &announcer{feed: feed, log: log, hook: hook, wake: make(chan struct{}, 1)}
}

// push remembers decisions for history at once, and tells of them soon. err is why the kernel does not have them. Feed and
// announcer keep the slice: nobody may change it from then on.
func (a *announcer) push(err error, decisions []ban.Decision) {
	if len(decisions) == 0 {
		return
	}
	mark(err, decisions)
	a.feed.Publish(decisions...)
	a.mu.Lock()
	room := min(len(decisions), maxAnnouncements-a.waiting)
	if room > 0 {
		a.queue = append(a.queue, announcement{decisions[:room], err})
	}
	a.waiting += room
	a.lost += len(decisions) - room
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// mark says what the kernel does not have: history must not say that what is not in force is.
func mark(err error, decisions []ban.Decision) {
	if err == nil {
		return
	}
	for i := range decisions {
		decisions[i].Detail = "not in the kernel yet: " + err.Error()
	}
}

// String names the task.
func (a *announcer) String() string { return "log" }

// Run tells of decisions until ctx ends and nothing is left.
func (a *announcer) Run(ctx context.Context) error {
	limit := rate.NewLimiter(linesPerSecond, lineBurst)
	quiet := 0
	for {
		a.mu.Lock()
		batch, lost := a.queue, a.lost
		a.queue, a.waiting, a.lost = nil, 0, 0
		a.mu.Unlock()
		quiet += lost
		for _, n := range batch {
			quiet += a.tell(n, limit)
		}
		if quiet > 0 && (limit.Allow() || ctx.Err() != nil) {
			a.log.Warn("more decisions than are logged one by one; ringwall history and list have them", "decisions", quiet)
			quiet = 0
		}
		if len(batch) > 0 {
			continue
		}
		var again <-chan time.Time // to say how many were not logged, also where no decision follows
		if quiet > 0 {
			again = time.After(time.Second)
		}
		select {
		case <-a.wake:
		case <-again:
		case <-ctx.Done():
			a.mu.Lock()
			left := len(a.queue)
			a.mu.Unlock()
			if left == 0 && quiet == 0 {
				return nil
			}
		}
	}
}

// tell tells of decisions, and returns how many of them were too many for the log.
func (a *announcer) tell(n announcement, limit *rate.Limiter) (quiet int) {
	now, allowed := time.Now(), true
	for i := range n.decisions {
		d := &n.decisions[i]
		if a.hook != nil {
			a.hook(*d)
		}
		if allowed = allowed && limit.AllowN(now, 1); !allowed && n.err == nil && (d.Action == ban.ActionBan || d.Action == ban.ActionUnban) {
			quiet++
			continue
		}
		a.line(d, n.err)
	}
	return quiet
}

// line logs one decision. Account is the only value that an attacker chose.
func (a *announcer) line(d *ban.Decision, fault error) {
	attrs := make([]slog.Attr, 0, 12)
	if d.Prefix.IsValid() {
		attrs = append(attrs, slog.String("prefix", d.Prefix.String()))
	}
	attrs = append(attrs, slog.String("reason", string(d.Reason)))
	if d.Duration > 0 {
		attrs = append(attrs, slog.Duration("for", d.Duration.Round(time.Second)))
	}
	if d.Account != "" {
		attrs = append(attrs, slog.String("account", printable.String(d.Account)))
	}
	if d.Source.IsValid() && (!d.Prefix.IsValid() || d.Source != d.Prefix.Addr()) {
		attrs = append(attrs, slog.String("source", d.Source.String()))
	}
	if d.Transport != 0 {
		attrs = append(attrs, slog.String("service", d.Service.String()), slog.String("transport", d.Transport.String()))
	}
	if d.Score > 0 {
		attrs = append(attrs, slog.Float64("score", float64(int(d.Score*10+0.5))/10))
	}
	if d.PBX != "" {
		attrs = append(attrs, slog.String("pbx", d.PBX))
	}
	if d.Detail != "" {
		attrs = append(attrs, slog.String("detail", printable.String(d.Detail)))
	}
	level := slog.LevelInfo
	switch d.Action {
	case ban.ActionBreach, ban.ActionGuessing, ban.ActionLeak:
		level = slog.LevelError
	case ban.ActionTampering, ban.ActionTargeted, ban.ActionMisconfigured, ban.ActionObserve:
		level = slog.LevelWarn
	case ban.ActionTrust, ban.ActionUntrust:
		if d.Reason == ban.ReasonLogin || d.Reason == ban.ReasonExpired {
			level = slog.LevelDebug
		}
	}
	if fault != nil {
		level = slog.LevelError
		attrs = append(attrs, slog.String("not_in_the_kernel_yet", fault.Error()))
	}
	a.log.LogAttrs(context.Background(), level, string(d.Action), attrs...)
}
