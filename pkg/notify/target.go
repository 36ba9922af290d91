package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/notify/message"
	"github.com/ringwall/ringwall/pkg/policy"
)

const (
	maxQueue     = 100              // messages that wait for a target
	maxUnbounded = 1000             // the same, where the target has no rate
	linesEvery   = 10 * time.Second // between two log lines about messages that failed, after the first ten
	summaryAfter = time.Minute      // from the first decision that is not told by itself
	firstPause   = time.Second      // after the first attempt; each further one is twice as long
	longestPause = 5 * time.Minute  // between two attempts
	giveUpAfter  = time.Hour        // from the decision to the last attempt
	farewell     = 3 * time.Second  // for what is still to be told when the daemon ends
	dropsLogged  = time.Minute      // between two log lines about a full queue
)

// The results that are counted.
const (
	Sent       = "sent"       // delivered, summaries included
	Failed     = "failed"     // given up
	Dropped    = "dropped"    // not kept, because the queue was full or the daemon ended
	Suppressed = "suppressed" // beyond the rate, and so part of a summary
)

// Results are all of them.
func Results() []string { return []string{Sent, Failed, Dropped, Suppressed} }

const noTime = "there is no time to tell of the last decisions; ringwall history has them"

// sender delivers a message once. Its errors are of type *failure.
type sender interface {
	send(ctx context.Context, m message.Message) error
	close()
}

// item is a message that waits to be delivered.
type item struct {
	message message.Message
	born    time.Time
}

// target is one receiver with its own queue, so that one that hangs delays no other.
type target struct {
	cfg    policy.Notify
	n      *Notifier
	log    *slog.Logger
	sender sender
	wake   chan struct{}
	cancel context.CancelFunc // ends Run; nil if it does not run
	lines  *rate.Limiter

	mu      sync.Mutex
	limits  map[ban.Action]*rate.Limiter
	queue   []item
	rest    summary // what is not told one by one
	heir    *target // takes over after a reload
	dropped int     // since the last line about it
	told    time.Time
	gone    bool // the configuration has no such target any more
}

func newTarget(cfg policy.Notify, n *Notifier) (*target, error) {
	t := &target{cfg: cfg, n: n, log: n.log.With("target", cfg.Name), wake: make(chan struct{}, 1),
		limits: make(map[ban.Action]*rate.Limiter), lines: rate.NewLimiter(rate.Every(linesEvery), 10)}
	if len(cfg.Exec) > 0 {
		t.sender = &program{cfg: cfg, out: func(output string) { t.log.Debug("the program wrote", "output", output) }}
		return t, nil
	}
	w, err := newWebhook(cfg, n.dial)
	if err != nil {
		return nil, fmt.Errorf("notify: %s: %w", cfg.Name, err)
	}
	t.sender = w
	return t, nil
}

func (t *target) wants(d ban.Decision) bool {
	return slices.Contains(t.cfg.Actions, string(d.Action)) &&
		(len(t.cfg.Reasons) == 0 || slices.Contains(t.cfg.Reasons, string(d.Reason))) &&
		(len(t.cfg.PBX) == 0 || slices.Contains(t.cfg.PBX, d.PBX))
}

// push keeps a decision for later, by itself or as part of a summary. It never waits.
func (t *target) push(d ban.Decision, now time.Time) {
	if !t.wants(d) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.allow(d.Action, now):
		t.rest.add(d, now)
		t.n.count(t.cfg.Name, Suppressed, 1)
	case len(t.queue) >= t.room():
		t.rest.add(d, now)
		t.drop(1, now)
	default:
		m := t.n.describe(d)
		m.ID = t.n.id()
		t.queue = append(t.queue, item{m, now})
	}
	t.rouse()
}

func (t *target) room() int {
	if t.cfg.Rate.PerMinute <= 0 {
		return maxUnbounded
	}
	return maxQueue
}

func (t *target) rouse() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// allow takes a token of the action's own bucket, so that a flood of bans hides no breach.
func (t *target) allow(a ban.Action, now time.Time) bool {
	if t.cfg.Rate.PerMinute <= 0 {
		return true
	}
	l := t.limits[a]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(t.cfg.Rate.PerMinute/60), t.cfg.Rate.Burst)
		t.limits[a] = l
	}
	return l.AllowN(now, 1)
}

// drop counts what a full queue does not take. The lock is held.
func (t *target) drop(n int, now time.Time) {
	t.n.count(t.cfg.Name, Dropped, n)
	t.dropped += n
	if now.Sub(t.told) >= dropsLogged {
		t.log.Warn("notifications are dropped, since too many wait; a summary will count them", "dropped", t.dropped)
		t.told, t.dropped = now, 0
	}
}

// next takes what is to be delivered now. Without anything it returns when a summary is due, if one is.
func (t *target) next(now time.Time, last bool) (it item, ok bool, due time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.queue) > 0:
		it = t.queue[0]
		t.queue = slices.Delete(t.queue, 0, 1)
		return it, true, 0
	case t.rest.count == 0:
		return item{}, false, -1
	}
	if due = t.rest.since.Add(summaryAfter).Sub(now); due > 0 && !last {
		return item{}, false, due
	}
	m := t.rest.message(t.n.host, now)
	m.ID = t.n.id()
	it = item{m, t.rest.since}
	t.rest = summary{}
	return it, true, 0
}

// Run delivers until ctx ends, and then what is left within the farewell.
func (t *target) Run(ctx context.Context) {
	defer t.sender.close()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(farewell)
		defer timer.Stop()
		select {
		case <-timer.C:
			stop()
		case <-life.Done():
		}
	})()
	failing := false
	for {
		if t.retired() {
			return
		}
		it, ok, due := t.next(time.Now(), ctx.Err() != nil)
		switch {
		case ok && life.Err() == nil:
			failing = t.deliver(ctx, life, it, failing)
			continue
		case ok:
			t.giveBack(it)
			t.abandon(noTime)
			return
		case ctx.Err() != nil:
			t.abandon(noTime)
			return
		}
		var timer <-chan time.Time
		if due > 0 {
			timer = time.After(due)
		}
		select {
		case <-t.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// deliver tries until it works, cannot work, or has taken too long. life bounds the attempts, ctx the pauses. It says
// whether the target is failing now; failing is whether it was before.
func (t *target) deliver(ctx, life context.Context, it item, failing bool) bool {
	for attempt := 0; ; attempt++ {
		once, cancel := context.WithTimeout(life, t.cfg.Timeout)
		err := t.sender.send(once, it.message)
		cancel()
		if err == nil {
			t.n.count(t.cfg.Name, Sent, 1)
			if failing {
				t.log.Info("notifications get through again")
			}
			return false
		}
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{what: fmt.Sprintf("%T", err), final: true}
		}
		attrs := []any{"action", it.message.Action, "err", f.what}
		if f.output != "" {
			attrs = append(attrs, "output", f.output)
		}
		if f.final {
			t.n.count(t.cfg.Name, Failed, 1)
			if t.lines.Allow() {
				t.log.Error("a notification failed", attrs...)
			}
			return true
		}
		if t.retired() || ctx.Err() != nil {
			t.giveBack(it)
			if life.Err() == nil && ctx.Err() != nil && !t.retired() {
				t.abandon(noTime) // the others would fail too, and there is no time
			}
			return true
		}
		pause := max(pause(attempt), f.after)
		if time.Since(it.born)+pause > giveUpAfter {
			t.n.count(t.cfg.Name, Failed, 1)
			t.log.Error("a notification failed for an hour, and is given up; a summary will count it", attrs...)
			t.mu.Lock()
			t.rest.again(it.message, time.Now())
			t.mu.Unlock()
			return true
		}
		if !failing {
			t.log.Warn("a notification failed, and is tried again", attrs...)
			failing = true
		} else {
			t.log.Debug("a notification failed again", append(attrs, "attempt", attempt+1, "pause", pause.Round(time.Second))...)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if t.retired() {
			t.giveBack(it)
			return true
		}
	}
}

// pause is how long to wait after an attempt, the first being 0: doubled each time, and anything from its half up, so
// that many daemons do not come back to a server in step.
func pause(attempt int) time.Duration {
	d := longestPause
	if attempt < 16 {
		d = min(d, firstPause<<attempt)
	}
	return d/2 + rand.N(d/2+1)
}

// giveBack puts a message in front of the queue again, the successor's if there is one.
func (t *target) giveBack(it item) {
	t.mu.Lock()
	heir := t.heir
	switch {
	case t.gone:
		t.n.count(t.cfg.Name, Dropped, 1)
	case heir == nil:
		t.queue = slices.Insert(t.queue, 0, it)
	}
	t.mu.Unlock()
	if heir != nil {
		heir.giveBack(it)
		heir.rouse()
	}
}

// retired says whether a reload has put another target in the place of this one, or nothing.
func (t *target) retired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heir != nil
}

// retire hands everything that waits to heir. What is on its way has the farewell.
func (t *target) retire(heir *target) {
	t.mu.Lock()
	queue, rest, limits := t.queue, t.rest, t.limits
	t.queue, t.rest, t.heir = nil, summary{}, heir
	t.mu.Unlock()
	heir.mu.Lock()
	heir.queue = append(queue, heir.queue...)
	heir.rest.join(rest)
	if heir.cfg.Rate == t.cfg.Rate && limits != nil {
		heir.limits = limits
	}
	heir.mu.Unlock()
	heir.rouse()
	if t.cancel != nil {
		t.cancel()
	} else {
		t.sender.close()
	}
}

// abandon gives up all that waits, and says why.
func (t *target) abandon(why string) {
	t.mu.Lock()
	n := len(t.queue)
	lost := n + t.rest.count
	t.queue, t.rest = nil, summary{}
	t.mu.Unlock()
	if n > 0 {
		t.n.count(t.cfg.Name, Dropped, n)
	}
	if lost > 0 {
		t.log.Warn(why, "decisions", lost)
	}
}
