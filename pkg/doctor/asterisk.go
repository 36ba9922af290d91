package doctor

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/asterisk/learn"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Names of the checks of one AMI session, in the order in which each needs the one before; then of those that need no
// session.
const (
	checkReach, checkTLS, checkGreeting, checkLogin, checkSecurity, checkEvents, checkLearning = "reach", "tls",
		"greeting", "login", "security",
		"events", "learning"
	checkBindAddress, checkHTTP, checkWriteTimeout = "bindaddr", "http", "writetimeout"
)

func (e *exam) examineAsterisks(ctx context.Context) {
	if !e.configLoaded {
		e.subjectNamed("").skip("asterisk", "", "needs a configuration without mistakes")
		return
	}
	for _, a := range e.cfg.Asterisk {
		if ctx.Err() != nil {
			return
		}
		s := e.subjectNamed(a.Name)
		e.examineSession(ctx, s, a)
		if ctx.Err() != nil {
			return
		}
		e.examineManagerExposure(ctx, s, a)
	}
}

// examineSession logs in and proves that events come.
func (e *exam) examineSession(ctx context.Context, s subject, a config.Asterisk) {
	cfg, err := e.sessionConfig(a)
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		s.fail(checkLogin, "", "%s", errorLine(err))
		return
	}
	h := listenTo(ctx, cfg)
	defer h.stop()
	st, ok := h.nextState(ctx, 4*e.Wait)
	switch {
	case !ok:
		s.fail(checkReach, "", "no word from %s within %s", printable.Line(a.Address), roughDuration(4*e.Wait))
		return
	case st.Kind != ami.Connected:
		e.reportBrokenLink(s, a, st.Err)
		return
	}
	s.ok(checkReach, "%s answers", printable.Line(a.Address))
	if a.TLS.Enabled {
		e.reportEncryption(s, a)
	}
	s.ok(checkGreeting, "%s", printable.String(st.Banner))
	s.ok(checkLogin, "as %q, %s", printable.String(a.Username), cfg.Auth)
	if e.proveSecurityPrivilege(ctx, s, h) {
		e.proveEventsArrive(ctx, s, h, cfg)
	} else {
		s.skipAll("needs read = security", checkEvents)
	}
	e.examineLearning(ctx, s, a, h)
}

// sessionConfig is the configuration of the session that the daemon would keep, with Options.Wait as its time limits.
func (e *exam) sessionConfig(a config.Asterisk) (ami.Config, error) {
	cfg, err := daemon.SessionConfig(a)
	cfg.DialTimeout, cfg.LoginTimeout, cfg.ProofTimeout = e.Wait, e.Wait, e.Wait
	return cfg, err
}

func (e *exam) reportEncryption(s subject, a config.Asterisk) {
	if a.TLS.Insecure {
		s.warn(checkTLS, "tls.ca_file: PATH of the certificate, and no tls.insecure",
			"encrypted, but anybody on the way can pose as Asterisk (tls.insecure)")
		return
	}
	s.ok(checkTLS, "encrypted, and the certificate is right")
}

// reportBrokenLink says which link broke, what holds up to there, and what could not be tried.
func (e *exam) reportBrokenLink(s subject, a config.Asterisk, err error) {
	links := []string{checkReach, checkTLS, checkGreeting, checkLogin, checkSecurity, checkEvents, checkLearning}
	if !a.TLS.Enabled {
		links = append(links[:1], links[2:]...)
	}
	broken := map[string]string{ami.StageTLS: checkTLS, ami.StageGreet: checkGreeting, ami.StageLogin: checkLogin}
	link := checkReach
	if fault, ok := errors.AsType[*ami.Error](err); ok && broken[fault.Stage] != "" {
		link = broken[fault.Stage]
	}
	if err == nil {
		err = errors.New("the connection ended without a reason")
	}
	before := true
	for _, name := range links {
		switch {
		case name == link && errors.Is(err, ami.ErrInUse) && e.pbxStatus(a.Name) != nil && e.pbxStatus(a.Name).Up:
			s.skip(name, "", "this user may be logged in once, and the daemon is: it hears this Asterisk")
			before = false
		case name == link:
			s.fail(name, e.remedyFor(err), "%s", errorLine(err))
			before = false
		case before:
			s.ok(name, "%s", map[string]string{checkReach: "something answers there", checkTLS: "encrypted",
				checkGreeting: "it is an Asterisk Manager Interface"}[name])
		default:
			s.skip(name, "", "not tried, since %s did not work", link)
		}
	}
}

// remedyFor says what mends an error of AMI, and, where a daemon runs, what makes it try again at once.
func (e *exam) remedyFor(err error) string {
	lines := daemon.Remedy(err)
	if e.daemon == nil {
		lines, _, _ = strings.Cut(lines, "\n"+daemon.TriesAgain)
	}
	return lines
}

// proveSecurityPrivilege waits for the event of the session's own login.
func (e *exam) proveSecurityPrivilege(ctx context.Context, s subject, h *sessionListener) bool {
	st, ok := h.nextState(ctx, 2*e.Wait)
	switch {
	case ok && st.Kind == ami.Granted:
		s.ok(checkSecurity, "read = security: Asterisk sends security events")
		return true
	case ok && st.Err != nil:
		s.fail(checkSecurity, e.remedyFor(st.Err), "%s", errorLine(st.Err))
	default:
		s.fail(checkSecurity, "put in manager.conf, in the user's section: read = security",
			"no security event came within %s", roughDuration(2*e.Wait))
	}
	return false
}

// proveEventsArrive causes one harmless event, a good login, and waits for it. A wrong login would look like an
// attack to whatever else watches.
func (e *exam) proveEventsArrive(ctx context.Context, s subject, h *sessionListener, cfg ami.Config) {
	h.dropLogins()
	cfg.EventMask = "off"
	began := time.Now()
	second := listenTo(ctx, cfg)
	st, ok := second.nextState(ctx, 4*e.Wait)
	second.stop()
	if !ok || st.Kind != ami.Connected {
		if errors.Is(st.Err, ami.ErrInUse) {
			s.ok(checkEvents, "the event of our own login came (the user may be logged in only once, so no second "+
				"one is caused)")
			return
		}
		why := "no answer"
		if st.Err != nil {
			why = errorLine(st.Err)
		}
		s.warn(checkEvents, hint.Of(st.Err), "no event could be caused: a second login did not work: %s", why)
		return
	}
	heard, ok := h.awaitLogin(ctx, st.Local, e.Wait)
	switch {
	case ok:
		s.ok(checkEvents, "caused one, a second login of our own: it came %s later",
			roughDuration(max(0, heard.received.Sub(began))))
		e.compareClocks(s, heard)
	case heard.err != nil:
		s.fail(checkEvents, "report it with Asterisk's version (core show version)",
			"the event of a login came, but is not as Asterisk writes it: %s", errorLine(heard.err))
	default:
		s.fail(checkEvents, "asterisk -rx \"manager show user "+printable.String(cfg.Username)+
			"\": is there an eventfilter? Is disabledevents set in manager.conf?",
			"the event of a second login did not come within %s", roughDuration(e.Wait))
	}
}

// compareClocks compares the time that Asterisk wrote into an event with ours at its arrival: more than 5 s of
// difference are late events, or clocks that disagree.
func (e *exam) compareClocks(s subject, l loginEvent) {
	off := l.received.Sub(l.asteriskTime)
	switch {
	case off.Abs() < 5*time.Second:
		s.ok("lag", "an event is %s old when it arrives", roughDuration(max(0, off)))
	case off > 0:
		s.warn("lag", "are both machines' clocks synchronised (timedatectl)? Is Asterisk overloaded?",
			"an event is %s old when it arrives", roughDuration(off))
	default:
		s.warn("lag", "synchronise both machines' clocks: timedatectl set-ntp true",
			"Asterisk's clock is %s ahead of ours", roughDuration(-off))
	}
}

// examineLearning finds out what Asterisk would tell about trunks and contacts. Where the daemon has asked already,
// it is not asked again: each denied question is a security event.
func (e *exam) examineLearning(ctx context.Context, s subject, a config.Asterisk, h *sessionListener) {
	if a.Learn == config.LearnOff {
		s.skip(checkLearning, "learn: auto", "turned off: trunks are only protected by policy.allow")
		return
	}
	if p := e.pbxStatus(a.Name); p != nil && p.Up {
		var k learn.Knowledge
		for _, d := range p.Denied {
			k.Denied = append(k.Denied, learn.Denied{Action: d.Action, ManagerConf: d.ManagerConf, For: d.For})
		}
		if p.Learned == 0 && len(k.Denied) == 0 {
			s.skip(checkLearning, "ringwall list protected",
				"the daemon knows of no trunks and contacts; it may not have asked yet, or there are none")
			return
		}
		e.reportLearned(s, k, p.Learned)
		return
	}
	known := make(chan learn.Knowledge, 1)
	l := learn.New(learn.Config{Name: a.Name, Session: h.session, ActionTimeout: e.Wait,
		OnKnowledge: func(k learn.Knowledge) {
			select {
			case known <- k:
			default:
			}
		}})
	asking, stop := context.WithTimeout(ctx, 6*e.Wait)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(asking) // nil when its context ends
	}()
	defer func() {
		stop()
		<-done
	}()
	l.Connected()
	select {
	case k := <-known:
		e.reportLearned(s, k, len(k.Prefixes)+len(k.Contacts))
	case <-asking.Done():
		s.warn(checkLearning, "asterisk -rx \"core show uptime\": does it hang?",
			"Asterisk did not answer questions about its trunks and contacts in time")
	}
}

func (e *exam) reportLearned(s subject, k learn.Knowledge, n int) {
	var what []string
	for _, d := range k.Denied {
		if d.Action != "Command" { // never advised: it runs any console command
			what = append(what, printable.Line(d.Action))
		}
	}
	if len(what) > 0 {
		// No warning: the user that we advise may not ask, and people would learn to overlook warnings.
		s.skip(checkLearning, k.Hint(), "optional: Asterisk does not tell Ringwall its trunks and contacts (%s), so "+
			"only policy.allow protects your providers",
			strings.Join(what, ", "))
		return
	}
	if len(k.Failed) > 0 {
		s.warn(checkLearning, "", "%s could not be asked: %s", printable.Line(k.Failed[0].What),
			printable.Line(k.Failed[0].Err))
		return
	}
	if n == 0 {
		s.ok(checkLearning, "Asterisk answers all questions, and knows no trunk and no contact now")
		return
	}
	s.ok(checkLearning, "%s", humanize.Plural(n, "trunk or contact is known and spared",
		"trunks and contacts are known and spared"))
}

// sessionListener is a session whose states and logins are kept for whoever waits.
type sessionListener struct {
	session *ami.Session
	states  chan ami.State
	logins  chan loginEvent
	stop    func() // logs off and waits for the end; may be called twice
}

// loginEvent is a SuccessfulAuth of our user, or an event that could not be read.
type loginEvent struct {
	from         netip.AddrPort
	asteriskTime time.Time // Asterisk's clock
	received     time.Time // ours
	err          error
}

func listenTo(ctx context.Context, cfg ami.Config) *sessionListener {
	h := &sessionListener{states: make(chan ami.State, 16), logins: make(chan loginEvent, 256)}
	cfg.OnState = func(st ami.State) {
		select {
		case h.states <- st:
		default: // nobody waits for that many
		}
	}
	cfg.OnFrames = func(frames []ami.Frame) {
		for _, f := range frames {
			if !strings.HasPrefix(f.Text, "Event: SuccessfulAuth\r\n") {
				continue
			}
			var ev event.Event
			l := loginEvent{received: f.Received, err: event.Decode(f.Text, &ev)}
			if l.err == nil && (ev.Service != event.AMI || ev.Account != cfg.Username) {
				continue
			}
			l.from, l.asteriskTime = ev.Remote.AddrPort, ev.Time
			select {
			case h.logins <- l:
			default:
			}
		}
	}
	h.session = ami.New(cfg)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.session.Run(ctx) // the configuration was checked before
	}()
	h.stop = func() {
		cancel()
		<-done
	}
	return h
}

// nextState waits for the next change of the session's state; false when none came in time.
func (listener *sessionListener) nextState(ctx context.Context, wait time.Duration) (ami.State, bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case st := <-listener.states:
		return st, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return ami.State{}, false
}

// dropLogins forgets the logins that came so far, so that awaitLogin sees later ones alone.
func (listener *sessionListener) dropLogins() {
	for {
		select {
		case <-listener.logins:
		default:
			return
		}
	}
}

// awaitLogin waits for the login from an address, or for any other of our user: a proxy on the way has its own address.
func (listener *sessionListener) awaitLogin(ctx context.Context, from netip.AddrPort, wait time.Duration) (loginEvent,
	bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var bad loginEvent
	for {
		select {
		case l := <-listener.logins:
			if l.err == nil && (l.from == from || !from.IsValid() || l.from.Addr() != from.Addr()) {
				return l, true
			}
			if l.err != nil {
				bad = l
			}
		case <-timer.C:
			return bad, false
		case <-ctx.Done():
			return bad, false
		}
	}
}
