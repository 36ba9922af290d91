package pipeline

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	maxAnnouncements = 1 << 16 // decisions that wait for the log
	linesPerSecond   = 100     // in the log; the rest of a flood is counted
	lineBurst        = 500
)

// Announcer tells the log and the notifiers of decisions, without ever making those wait who decide.
type Announcer struct {
	log        *slog.Logger
	notify     func(ban.Decision) // may be nil
	queue      *mailbox.Mailbox[announcement]
	overflowed atomic.Int64 // decisions that found no place in the queue, and are counted alone
}

// announcement is what the kernel took together.
type announcement struct {
	decisions []ban.Decision
	err       error // why the kernel does not have them
}

// NewAnnouncer returns an Announcer that calls notify, if not nil, with each decision that finds a place in its queue.
func NewAnnouncer(log *slog.Logger, notify func(ban.Decision)) *Announcer {
	return &Announcer{log: log, notify: notify, queue: mailbox.New(mailbox.Options[announcement]{
		Limit: maxAnnouncements, Weight: func(n announcement) int { return len(n.decisions) },
	})}
}

// Push has decisions told soon. err is why the kernel does not have them. Nobody may change the decisions from then on.
func (a *Announcer) Push(err error, decisions []ban.Decision) {
	for _, n := range a.queue.Put(announcement{decisions, err}) {
		a.overflowed.Add(int64(len(n.decisions)))
	}
}

// String names the task.
func (a *Announcer) String() string { return "log" }

// Run tells of decisions until ctx ends and nothing is left.
func (a *Announcer) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, a.queue.Close)()
	limit := rate.NewLimiter(linesPerSecond, lineBurst)
	unlogged := 0
	for {
		batch, ended := a.queue.Take(0)
		unlogged += int(a.overflowed.Swap(0))
		for i := range batch {
			unlogged += a.announceCommit(&batch[i], limit)
		}
		if unlogged > 0 && (limit.Allow() || ended) {
			a.log.Warn("more decisions than are logged one by one; ringwall history and list have them", "decisions",
				unlogged)
			unlogged = 0
		}
		switch {
		case ended:
			return nil
		case len(batch) > 0:
			continue
		}
		var again <-chan time.Time // to say how many were not logged, also where no decision follows
		if unlogged > 0 {
			again = time.After(time.Second)
		}
		select {
		case <-a.queue.Ready():
		case <-again:
		}
	}
}

// announceCommit tells of what the kernel took together, and returns how many decisions were too many for the log.
func (a *Announcer) announceCommit(n *announcement, limit *rate.Limiter) (unlogged int) {
	now, allowed := time.Now(), true
	for i := range n.decisions {
		d := &n.decisions[i]
		if a.notify != nil {
			a.notify(*d)
		}
		allowed = allowed && limit.AllowN(now, 1)
		if !allowed && n.err == nil && (d.Action == ban.ActionBan || d.Action == ban.ActionUnban) {
			unlogged++
			continue
		}
		a.logDecision(d, n.err)
	}
	return unlogged
}

// maxDetail is how many characters of a decision's own text are logged: more than any has.
const maxDetail = 400

// logDecision logs one decision. Account is the only value that an attacker chose.
func (a *Announcer) logDecision(d *ban.Decision, kernelErr error) {
	attrs := make([]slog.Attr, 0, 12)
	if d.Prefix.IsValid() {
		attrs = append(attrs, slog.String("prefix", d.Prefix.String()))
	}
	attrs = append(attrs, slog.String("reason", string(d.Reason)))
	if d.Flow.IsValid() {
		attrs = append(attrs, slog.String("flow", d.Flow.String()))
	}
	if d.Closes != ban.ClosesAll {
		attrs = append(attrs, slog.String("closes", d.Closes.String()))
	}
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
		attrs = append(attrs, slog.String("service", d.Service.String()),
			slog.String("transport", d.Transport.String()))
	}
	if d.Score > 0 {
		attrs = append(attrs, slog.Float64("score", float64(int(d.Score*10+0.5))/10))
	}
	if d.PBX != "" {
		attrs = append(attrs, slog.String("pbx", d.PBX))
	}
	if d.Detail != "" {
		attrs = append(attrs, slog.String("detail", printable.Limit(d.Detail, maxDetail)))
	}
	level := slog.LevelInfo
	switch d.Action {
	case ban.ActionBreach, ban.ActionGuessing, ban.ActionLeak, ban.ActionBlind:
		level = slog.LevelError
	case ban.ActionTampering, ban.ActionTargeted, ban.ActionNewPlace, ban.ActionProxy,
		ban.ActionMisconfigured, ban.ActionObserve, ban.ActionReview:
		level = slog.LevelWarn
	case ban.ActionTrust, ban.ActionUntrust:
		if d.Reason == ban.ReasonLogin || d.Reason == ban.ReasonExpired {
			level = slog.LevelDebug
		}
	}
	if kernelErr != nil {
		level = slog.LevelError
		attrs = append(attrs, slog.String("not_in_the_kernel_yet", hint.Line(kernelErr)))
	}
	a.log.LogAttrs(context.Background(), level, string(d.Action), attrs...)
}
