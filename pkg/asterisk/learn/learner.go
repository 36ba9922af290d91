package learn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// An Asker asks Asterisk; *ami.Session is one.
type Asker interface {
	Action(ctx context.Context, name string, headers ...ami.Header) (*ami.Reply, error)
}

// Config describes a Learner. Session is needed; the zero value of everything else means the default.
type Config struct {
	Name    string // of the PBX
	Session Asker
	Off     bool // nothing is ever asked

	Interval      time.Duration // between two rounds of questions: 5 minutes, varied by a tenth; at least 10 s
	ActionTimeout time.Duration // for one answer: 20 s

	MaxPrefixes    int // in Prefixes and Contacts together: 100,000
	MaxPerEndpoint int // addresses of one endpoint's contacts: 32
	MaxEndpoints   int // endpoints that are read in one round, those never read before first: 1,000

	// Lookup finds the addresses of registration servers: hosts.LookupSIP by default. Its answers come to Prefixes.
	Lookup hosts.Lookup

	// OnKnowledge gets everything that is known whenever something of it has changed, from the goroutine of Run.
	// While Asterisk is away nothing changes.
	OnKnowledge func(Knowledge)
	Now         func() time.Time // this machine's clock: time.Now by default
	Log         *slog.Logger     // nil: none
}

// A Learner asks one Asterisk again and again.
type Learner struct {
	cfg      Config
	resolver *hosts.Resolver // of the names of registration servers
	wake     chan struct{}   // holds a token when the session has logged in
	resolved chan struct{}   // holds a token when names have other addresses

	mu        sync.Mutex
	logins    uint64 // of the session
	knowledge Knowledge

	// The rest belongs to the goroutine of Run.
	round      uint64                 // of questions
	askedLogin uint64                 // the login in which the present round began
	refusals   map[string]refusalKind // of actions, in that login
	failed     []Failure              // of the present round
	answeredAt time.Time              // when the last round ended

	// What was answered, until it is asked again.
	endpoints  map[string]*endpoint
	identifies []configured            // of "pjsip show identifies"
	servers    []configured            // with which Asterisk registers
	peers      map[string]channelPeers // by action
	contacts   []contact               // sorted by endpoint
	skipped    Skipped                 // of contacts, while they were read
	clockAhead time.Duration           // of Asterisk's clock, by which contacts expire, before ours; negative: behind

	loggedDenied string // the denials that were logged last
}

// A refusalKind is why an action is not tried again in this login.
type refusalKind int

const (
	denied      refusalKind = iota + 1 // the user lacks the class
	unsupported                        // the module is not loaded
)

// New returns a Learner that does nothing until Run.
func New(cfg Config) *Learner {
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Minute
	}
	cfg.Interval = max(cfg.Interval, 10*time.Second)
	if cfg.ActionTimeout <= 0 {
		cfg.ActionTimeout = 20 * time.Second
	}
	if cfg.MaxPrefixes <= 0 {
		cfg.MaxPrefixes = 100_000
	}
	if cfg.MaxPerEndpoint <= 0 {
		cfg.MaxPerEndpoint = 32
	}
	if cfg.MaxEndpoints <= 0 {
		cfg.MaxEndpoints = 1000
	}
	if cfg.Lookup == nil {
		cfg.Lookup = hosts.LookupSIP(net.DefaultResolver)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Learner{
		cfg: cfg, wake: make(chan struct{}, 1), resolved: make(chan struct{}, 1), knowledge: Knowledge{PBX: cfg.Name},
		refusals: map[string]refusalKind{}, endpoints: map[string]*endpoint{}, peers: map[string]channelPeers{},
	}
	l.resolver = hosts.NewResolver(hosts.Config{
		Lookup:   cfg.Lookup,
		Interval: cfg.Interval,
		// Providers answer with this or that part of their servers, and calls come from all of them.
		Linger:   time.Hour,
		OnChange: func(string, []netip.Prefix, []netip.Prefix) { mailbox.Signal(l.resolved) },
		OnError:  func(string, error) { mailbox.Signal(l.resolved) },
		Log:      cfg.Log,
	})
	return l
}

// String names the task.
func (l *Learner) String() string { return "learn " + l.cfg.Name }

// Connected says that the session has logged in: the learner asks at once, and tries anew what was denied. Call it for
// every ami.Connected. It does not wait.
func (l *Learner) Connected() {
	l.mu.Lock()
	l.logins++
	l.mu.Unlock()
	mailbox.Signal(l.wake)
}

// Knowledge returns what is known at this moment.
func (l *Learner) Knowledge() Knowledge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.knowledge.deepCopy()
}

// Run asks after each Connected and at intervals, until ctx ends; it returns nil then.
func (l *Learner) Run(ctx context.Context) error {
	if l.cfg.Off {
		<-ctx.Done()
		return nil
	}
	if l.cfg.Session == nil {
		return errors.New("learn: no session to ask")
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.resolver.Run(ctx) // nil when ctx ends
	}()
	defer func() {
		cancel()
		<-done
	}()
	timer := time.NewTimer(l.cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.resolved:
			l.publishKnowledge()
			continue
		case <-l.wake:
		case <-timer.C:
		}
		if l.currentLogin() > 0 { // before the first login there is nobody to ask
			l.askRound(ctx)
		}
		timer.Reset(l.cfg.Interval*9/10 + rand.N(l.cfg.Interval/5+1))
	}
}

func (l *Learner) currentLogin() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logins
}

// errRoundOver ends a round: the connection is gone or another one, or the daemon stops.
var errRoundOver = errors.New("learn: round over")

// errRefused stands for an action that is denied or unknown in this connection.
var errRefused = errors.New("learn: refused")

// askRound is one round of questions.
func (l *Learner) askRound(ctx context.Context) {
	if login := l.currentLogin(); login != l.askedLogin {
		l.askedLogin = login
		clear(l.refusals)
	}
	l.round++
	l.failed = nil
	for _, question := range []func(context.Context) error{l.askEndpoints, l.askContacts, l.askRegistrations,
		l.askPeers} {
		if err := question(ctx); errors.Is(err, errRoundOver) {
			l.cfg.Log.Debug("questions to Asterisk broken off", "pbx", l.cfg.Name)
			return
		}
	}
	l.answeredAt = l.cfg.Now()
	l.resolveHosts()
	l.publishKnowledge()
	l.logDenied()
}

// askAction asks one question. The error is errOver, errRefused, or a failure that has been noted.
func (l *Learner) askAction(ctx context.Context, name string, headers ...ami.Header) (*ami.Reply, error) {
	if l.refusals[name] != 0 {
		return nil, errRefused
	}
	if l.currentLogin() != l.askedLogin {
		return nil, errRoundOver
	}
	limited, cancel := context.WithTimeout(ctx, l.cfg.ActionTimeout)
	defer cancel()
	reply, err := l.cfg.Session.Action(limited, name, headers...)
	if err == nil && reply == nil {
		err = errors.New("learn: no reply")
	}
	refusal, isRefusal := errors.AsType[*ami.ActionError](err)
	_, isDenied := errors.AsType[*ami.DeniedError](err)
	switch {
	case err == nil:
		return reply, nil
	case ctx.Err() != nil, errors.Is(err, ami.ErrNotConnected), l.currentLogin() != l.askedLogin:
		return nil, errRoundOver
	case isDenied:
		l.refusals[name] = denied
		return nil, errRefused
	case isRefusal && isUnknownAction(refusal.Message):
		l.refusals[name] = unsupported
		return nil, errRefused
	case isRefusal && isEmptyAnswer(refusal.Message):
		return &ami.Reply{}, nil
	}
	l.addFailure(name, err)
	return nil, err
}

// addFailure adds to l.failed. Errors of ami quote what they show of the wire, and show no item of a list.
func (l *Learner) addFailure(what string, err error) {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = fmt.Sprintf("no answer within %v", l.cfg.ActionTimeout)
	}
	if f := (Failure{What: what, Err: text}); len(l.failed) < maxRefused && !slices.Contains(l.failed, f) {
		l.failed = append(l.failed, f)
	}
}

// publishKnowledge makes Knowledge of all answers and hands it on if it has changed.
func (l *Learner) publishKnowledge() {
	k := l.composeKnowledge()
	l.mu.Lock()
	changed := !k.equalTo(l.knowledge)
	l.knowledge = k
	l.mu.Unlock()
	if changed && l.cfg.OnKnowledge != nil {
		l.cfg.OnKnowledge(k.deepCopy())
	}
}

// logDenied logs which actions are denied, where they are others than those that were logged last.
func (l *Learner) logDenied() {
	text := ""
	for _, d := range l.knowledge.Denied {
		text += d.Action + " "
	}
	if text == l.loggedDenied {
		return
	}
	if l.loggedDenied = text; text == "" {
		l.cfg.Log.Info("Asterisk answers all questions", "pbx", l.cfg.Name)
		return
	}
	l.cfg.Log.Info("Asterisk does not tell all it knows", "pbx", l.cfg.Name, "denied", text, "try", l.knowledge.Hint())
}
