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
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

const (
	maxWaiting          = 100              // messages that wait for a target
	maxWaitingWithout   = 1000             // the same, where the target has no rate
	failureLogInterval  = 10 * time.Second // between two log lines about messages that failed, after the first
	failureLogBurst     = 10               // so many
	droppedLogInterval  = time.Minute      // between two log lines about a full mailbox
	summaryAfter        = time.Minute      // from the first decision that is not told by itself
	firstPause          = time.Second      // after the first attempt; each further one is twice as long
	longestPause        = 5 * time.Minute  // between two attempts
	giveUpAfter         = time.Hour        // from the decision to the last attempt
	shutdownGracePeriod = 3 * time.Second  // for what is still to be told when the daemon ends
)

// The results that are counted.
const (
	Sent       = "sent"       // delivered, summaries included
	Failed     = "failed"     // given up
	Dropped    = "dropped"    // not kept, because too many waited or the daemon ended
	Suppressed = "suppressed" // beyond the rate, and so part of a summary
)

// Results are all of them.
func Results() []string { return []string{Sent, Failed, Dropped, Suppressed} }

const noTimeLeft = "there is no time to tell of the last decisions; ringwall history has them"

// messageSender delivers a message once. Its errors are of type *failure.
type messageSender interface {
	sendMessage(ctx context.Context, m message.Message) error
	close()
}

// pendingMessage waits to be delivered.
type pendingMessage struct {
	message message.Message
	since   time.Time // of the decision; of the first one, if it is a summary
}

// target is one receiver. It has a mailbox of its own, so that one that hangs delays no other.
type target struct {
	cfg        config.Notify
	notifier   *Notifier
	log        *slog.Logger
	sender     messageSender
	cancel     context.CancelFunc // ends Run; nil if it does not run
	failureLog *rate.Limiter

	mu         sync.Mutex
	waiting    *mailbox.Mailbox[pendingMessage]
	limits     map[ban.Action]*rate.Limiter // a bucket for each action
	unsent     summary                      // of what is not told one by one, because of the rate or a full mailbox
	dropped    int                          // messages since dropLogged
	dropLogged time.Time

	// A reload ends a target in whose place it puts another one, or none.
	ended     bool
	successor *target // has what waited for this one; nil: the configuration has no such target any more
}

func newTarget(cfg config.Notify, n *Notifier) (*target, error) {
	t := &target{
		cfg: cfg, notifier: n, log: n.log.With("target", cfg.Name),
		failureLog: rate.NewLimiter(rate.Every(failureLogInterval), failureLogBurst),
		waiting:    mailbox.New(mailbox.Options[pendingMessage]{Limit: waitingLimit(cfg.Rate)}),
		limits:     make(map[ban.Action]*rate.Limiter),
	}
	if len(cfg.Exec) > 0 {
		t.sender = &programSender{cfg: cfg, onOutput: func(output string) {
			t.log.Debug("the program wrote", "output",
				output)
		}}
		return t, nil
	}
	var err error
	if cfg.SMTP.Host != "" {
		t.sender, err = newMailSender(cfg, n.dial, n.host)
	} else {
		t.sender, err = newWebhook(cfg, n.dial)
	}
	if err != nil {
		return nil, fmt.Errorf("notify: %s: %w", cfg.Name, err)
	}
	return t, nil
}

func (t *target) wantsDecision(d ban.Decision) bool {
	return slices.Contains(t.cfg.Actions, string(d.Action)) &&
		(len(t.cfg.Reasons) == 0 || slices.Contains(t.cfg.Reasons, string(d.Reason))) &&
		(len(t.cfg.PBX) == 0 || slices.Contains(t.cfg.PBX, d.PBX))
}

func waitingLimit(r config.NotifyRate) int {
	if r.PerMinute <= 0 {
		return maxWaitingWithout
	}
	return maxWaiting
}

// pushDecision keeps a decision for later, by itself or as part of a summary. It never waits.
func (t *target) pushDecision(d ban.Decision, now time.Time) {
	if !t.wantsDecision(d) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.allowLocked(d.Action, now) {
		t.summarizeLocked(d, now)
		t.notifier.countResult(t.cfg.Name, Suppressed, 1)
		return
	}
	m := t.notifier.describeWithPlace(d)
	m.ID = t.notifier.nextID()
	if lost := t.waiting.Put(pendingMessage{m, now}); len(lost) > 0 {
		t.summarizeLocked(d, now)
		t.countDroppedLocked(now)
	}
}

// summarizeLocked makes a decision part of the next summary.
func (t *target) summarizeLocked(d ban.Decision, now time.Time) {
	t.unsent.addDecision(d, now)
	t.waiting.Wake() // to see when that is due
}

// allowLocked takes a token of the action's own bucket, so that a flood of bans hides no breach.
func (t *target) allowLocked(a ban.Action, now time.Time) bool {
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

// countDroppedLocked counts a message for which there is no room.
func (t *target) countDroppedLocked(now time.Time) {
	t.notifier.countResult(t.cfg.Name, Dropped, 1)
	t.dropped++
	if now.Sub(t.dropLogged) >= droppedLogInterval {
		t.log.Warn("notifications are dropped, since too many wait; a summary will count them", "dropped", t.dropped)
		t.dropLogged, t.dropped = now, 0
	}
}

// nextMessage takes what is to be delivered now. If there is nothing, it returns after which time a summary is due,
// negative if none is. stopping says that the daemon ends, and a summary is due at once.
func (t *target) nextMessage(now time.Time, stopping bool) (next pendingMessage, ok bool, summaryDue time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if messages, _ := t.waiting.Take(1); len(messages) > 0 {
		return messages[0], true, 0
	}
	if t.unsent.count == 0 {
		return next, false, -1
	}
	if summaryDue = t.unsent.since.Add(summaryAfter).Sub(now); summaryDue > 0 && !stopping {
		return next, false, summaryDue
	}
	m := t.unsent.toMessage(t.notifier.host, now)
	m.ID = t.notifier.nextID()
	next = pendingMessage{m, t.unsent.since}
	t.unsent = summary{}
	return next, true, 0
}

// Run delivers until ctx ends, and then what is left, within the grace period.
func (t *target) Run(ctx context.Context) {
	defer t.sender.close()
	attempts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(shutdownGracePeriod)
		defer timer.Stop()
		select {
		case <-timer.C:
			stop()
		case <-attempts.Done():
		}
	})()
	failing := false
	for {
		if t.hasEnded() {
			return
		}
		next, ok, summaryDue := t.nextMessage(time.Now(), ctx.Err() != nil)
		switch {
		case ok && attempts.Err() == nil:
			failing = t.deliverMessage(ctx, attempts, next, failing)
			continue
		case ok:
			t.putBack(next)
			t.abandonWaiting(noTimeLeft)
			return
		case ctx.Err() != nil:
			t.abandonWaiting(noTimeLeft)
			return
		}
		var timer <-chan time.Time
		if summaryDue > 0 {
			timer = time.After(summaryDue)
		}
		select {
		case <-t.waiting.Ready():
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// deliverMessage tries until it works, cannot work, or has taken too long. The context attempts bounds those, ctx the
// pauses between them. It says whether the target is failing now; failing is whether it was before.
func (t *target) deliverMessage(ctx, attempts context.Context, m pendingMessage, failing bool) bool {
	for attempt := 0; ; attempt++ {
		sending, cancel := context.WithTimeout(attempts, t.cfg.Timeout)
		err := t.sender.sendMessage(sending, m.message)
		cancel()
		if err == nil {
			t.notifier.countResult(t.cfg.Name, Sent, 1)
			if failing {
				t.log.Info("notifications get through again")
			}
			return false
		}
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{cause: fmt.Sprintf("%T", err), permanent: true}
		}
		attrs := []any{"action", m.message.Action, "err", f.cause}
		if f.output != "" {
			attrs = append(attrs, "output", f.output)
		}
		if f.permanent {
			t.notifier.countResult(t.cfg.Name, Failed, 1)
			if t.failureLog.Allow() {
				t.log.Error("a notification failed", attrs...)
			}
			return true
		}
		if t.hasEnded() || ctx.Err() != nil {
			t.putBack(m)
			if attempts.Err() == nil && ctx.Err() != nil && !t.hasEnded() {
				t.abandonWaiting(noTimeLeft) // the others would fail too, and there is no time
			}
			return true
		}
		pause := max(pauseAfter(attempt), f.retryAfter)
		if time.Since(m.since)+pause > giveUpAfter {
			t.notifier.countResult(t.cfg.Name, Failed, 1)
			t.log.Error("a notification failed for an hour, and is given up; a summary will count it", attrs...)
			t.mu.Lock()
			t.unsent.addMessage(m.message, time.Now())
			t.mu.Unlock()
			return true
		}
		if !failing {
			t.log.Warn("a notification failed, and is tried again", attrs...)
			failing = true
		} else {
			t.log.Debug("a notification failed again",
				append(attrs, "attempt", attempt+1, "pause", pause.Round(time.Second))...)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if t.hasEnded() {
			t.putBack(m)
			return true
		}
	}
}

// pauseAfter is how long to wait after an attempt, the first being 0: doubled each time, and anything from its half up,
// so that many daemons do not come back to a server in step.
func pauseAfter(attempt int) time.Duration {
	d := longestPause
	if attempt < 16 {
		d = min(d, firstPause<<attempt)
	}
	return d/2 + rand.N(d/2+1)
}

// putBack lets a message that was not delivered wait again, before the others; for the successor where there is one.
func (t *target) putBack(m pendingMessage) {
	t.mu.Lock()
	ended, successor := t.ended, t.successor
	if !ended {
		t.waiting.PutBack(m)
	}
	t.mu.Unlock()
	switch {
	case successor != nil:
		successor.putBack(m)
	case ended:
		t.notifier.countResult(t.cfg.Name, Dropped, 1)
	}
}

// hasEnded says whether a reload has put another target in the place of this one, or none.
func (t *target) hasEnded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// removeTarget ends a target that the configuration has no more.
func (t *target) removeTarget() {
	t.abandonWaiting("the configuration has this target no more; what waited for it is not told")
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.stopRun()
}

// replaceBy ends a target for which a reload has another one, which takes over what waits and, where they have the same
// rate, what is left of it. A message that is being delivered has the grace period.
func (t *target) replaceBy(successor *target) {
	t.mu.Lock()
	messages, _ := t.waiting.Take(0)
	unsent, limits := t.unsent, t.limits
	t.unsent, t.ended, t.successor = summary{}, true, successor
	t.mu.Unlock()

	successor.mu.Lock()
	successor.waiting.PutBack(messages...)
	successor.unsent.addSummary(unsent)
	if successor.cfg.Rate == t.cfg.Rate {
		successor.limits = limits
	}
	successor.waiting.Wake()
	successor.mu.Unlock()
	t.stopRun()
}

// stopRun ends Run; where it does not run, it closes the sender that Run would have closed.
func (t *target) stopRun() {
	if t.cancel != nil {
		t.cancel()
	} else {
		t.sender.close()
	}
}

// abandonWaiting gives up all that waits, and says why.
func (t *target) abandonWaiting(why string) {
	t.mu.Lock()
	messages, _ := t.waiting.Take(0)
	lost := len(messages) + t.unsent.count
	t.unsent = summary{}
	t.mu.Unlock()
	if len(messages) > 0 {
		t.notifier.countResult(t.cfg.Name, Dropped, len(messages))
	}
	if lost > 0 {
		t.log.Warn(why, "decisions", lost)
	}
}
