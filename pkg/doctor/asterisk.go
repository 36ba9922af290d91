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

// The links of one session, in order, and those that need none.
const (
	reach, encryption, greeting, logins, privilege, arrival, learning = "reach", "tls", "greeting", "login", "security",
		"events", "learning"
	bound, web, writing = "bindaddr", "http", "writetimeout"
)

func (e *exam) asterisks(ctx context.Context) {
	if !e.loaded {
		e.on("").skip("asterisk", "", "needs a configuration without mistakes")
		return
	}
	for _, a := range e.cfg.Asterisk {
		if ctx.Err() != nil {
			return
		}
		s := e.on(a.Name)
		e.session(ctx, s, a)
		if ctx.Err() != nil {
			return
		}
		e.surroundings(ctx, s, a)
	}
}

// session logs in and proves that events come.
func (e *exam) session(ctx context.Context, s subject, a config.Asterisk) {
	cfg, err := e.dialect(a)
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		s.fail(logins, "", "%s", text(err))
		return
	}
	h := listen(ctx, cfg)
	defer h.stop()
	st, ok := h.state(ctx, 4*e.Wait)
	switch {
	case !ok:
		s.fail(reach, "", "no word from %s within %s", printable.Line(a.Address), short(4*e.Wait))
		return
	case st.Kind != ami.Connected:
		e.refused(s, a, st.Err)
		return
	}
	s.ok(reach, "%s answers", printable.Line(a.Address))
	if a.TLS.Enabled {
		e.encrypted(s, a)
	}
	s.ok(greeting, "%s", printable.String(st.Banner))
	s.ok(logins, "as %q, %s", printable.String(a.Username), cfg.Auth)
	if e.secure(ctx, s, h) {
		e.arriving(ctx, s, h, cfg)
	} else {
		s.skipAll("needs read = security", arrival)
	}
	e.learn(ctx, s, a, h)
}

// dialect is the session that the daemon would keep, with less patience.
func (e *exam) dialect(a config.Asterisk) (ami.Config, error) {
	cfg, err := daemon.SessionConfig(a)
	cfg.DialTimeout, cfg.LoginTimeout, cfg.ProofTimeout = e.Wait, e.Wait, e.Wait
	return cfg, err
}

func (e *exam) encrypted(s subject, a config.Asterisk) {
	if a.TLS.Insecure {
		s.warn(encryption, "tls.ca_file: PATH of the certificate, and no tls.insecure",
			"encrypted, but anybody on the way can pose as Asterisk (tls.insecure)")
		return
	}
	s.ok(encryption, "encrypted, and the certificate is right")
}

// refused says which link broke, what holds up to there, and what could not be tried.
func (e *exam) refused(s subject, a config.Asterisk, err error) {
	links := []string{reach, encryption, greeting, logins, privilege, arrival, learning}
	if !a.TLS.Enabled {
		links = append(links[:1], links[2:]...)
	}
	broken := map[string]string{ami.StageTLS: encryption, ami.StageGreet: greeting, ami.StageLogin: logins}
	link := reach
	if fault, ok := errors.AsType[*ami.Error](err); ok && broken[fault.Stage] != "" {
		link = broken[fault.Stage]
	}
	if err == nil {
		err = errors.New("the connection ended without a reason")
	}
	before := true
	for _, name := range links {
		switch {
		case name == link && errors.Is(err, ami.ErrInUse) && e.pbx(a.Name) != nil && e.pbx(a.Name).Up:
			s.skip(name, "", "this user may be logged in once, and the daemon is: it hears this Asterisk")
			before = false
		case name == link:
			s.fail(name, e.remedy(err), "%s", text(err))
			before = false
		case before:
			s.ok(name, "%s", map[string]string{reach: "something answers there", encryption: "encrypted",
				greeting: "it is an Asterisk Manager Interface"}[name])
		default:
			s.skip(name, "", "not tried, since %s did not work", link)
		}
	}
}

// remedy is what mends it, and what makes a running daemon try at once.
func (e *exam) remedy(err error) string {
	lines := daemon.Remedy(err)
	if e.daemon == nil {
		lines, _, _ = strings.Cut(lines, "\n"+daemon.TriesAgain)
	}
	return lines
}

// secure waits for the event of the session's own login.
func (e *exam) secure(ctx context.Context, s subject, h *hearing) bool {
	st, ok := h.state(ctx, 2*e.Wait)
	switch {
	case ok && st.Kind == ami.Granted:
		s.ok(privilege, "read = security: Asterisk sends security events")
		return true
	case ok && st.Err != nil:
		s.fail(privilege, e.remedy(st.Err), "%s", text(st.Err))
	default:
		s.fail(privilege, "put in manager.conf, in the user's section: read = security",
			"no security event came within %s", short(2*e.Wait))
	}
	return false
}

// arriving causes one harmless event, a good login, and waits for it. A wrong login would look like an attack to
// whatever else watches.
func (e *exam) arriving(ctx context.Context, s subject, h *hearing, cfg ami.Config) {
	h.forget()
	cfg.EventMask = "off"
	began := time.Now()
	second := listen(ctx, cfg)
	st, ok := second.state(ctx, 4*e.Wait)
	second.stop()
	if !ok || st.Kind != ami.Connected {
		if errors.Is(st.Err, ami.ErrInUse) {
			s.ok(arrival, "the event of our own login came (the user may be logged in only once, so no second one is caused)")
			return
		}
		why := "no answer"
		if st.Err != nil {
			why = text(st.Err)
		}
		s.warn(arrival, hint.Of(st.Err), "no event could be caused: a second login did not work: %s", why)
		return
	}
	heard, ok := h.login(ctx, st.Local, e.Wait)
	switch {
	case ok:
		s.ok(arrival, "caused one, a second login of our own: it came %s later",
			short(max(0, heard.received.Sub(began))))
		e.ticking(s, heard)
	case heard.err != nil:
		s.fail(arrival, "report it with Asterisk's version (core show version)",
			"the event of a login came, but is not as Asterisk writes it: %s", text(heard.err))
	default:
		s.fail(arrival, "asterisk -rx \"manager show user "+printable.String(cfg.Username)+"\": is there an eventfilter? Is disabledevents set in manager.conf?",
			"the event of a second login did not come within %s", short(e.Wait))
	}
}

// ticking compares Asterisk's clock with ours.
func (e *exam) ticking(s subject, l login) {
	off := l.received.Sub(l.at)
	switch {
	case off.Abs() < 5*time.Second:
		s.ok("lag", "an event is %s old when it arrives", short(max(0, off)))
	case off > 0:
		s.warn("lag", "are both machines' clocks synchronised (timedatectl)? Is Asterisk overloaded?",
			"an event is %s old when it arrives", short(off))
	default:
		s.warn("lag", "synchronise both machines' clocks: timedatectl set-ntp true",
			"Asterisk's clock is %s ahead of ours", short(-off))
	}
}

// learn finds out what Asterisk would tell about trunks and contacts. Where the daemon has asked already, it is not
// asked again: each denied question is a security event.
func (e *exam) learn(ctx context.Context, s subject, a config.Asterisk, h *hearing) {
	if a.Learn == config.LearnOff {
		s.skip(learning, "learn: auto", "turned off: trunks are only protected by policy.allow")
		return
	}
	if p := e.pbx(a.Name); p != nil && p.Up {
		var k learn.Knowledge
		for _, d := range p.Denied {
			k.Denied = append(k.Denied, learn.Denied{Action: d.Action, ManagerConf: d.ManagerConf, For: d.For})
		}
		if p.Learned == 0 && len(k.Denied) == 0 {
			s.skip(learning, "ringwall list protected",
				"the daemon knows of no trunks and contacts; it may not have asked yet, or there are none")
			return
		}
		e.learned(s, k, p.Learned)
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
		e.learned(s, k, len(k.Prefixes)+len(k.Contacts))
	case <-asking.Done():
		s.warn(learning, "asterisk -rx \"core show uptime\": does it hang?",
			"Asterisk did not answer questions about its trunks and contacts in time")
	}
}

func (e *exam) learned(s subject, k learn.Knowledge, n int) {
	var what []string
	for _, d := range k.Denied {
		if d.Action != "Command" { // never advised: it runs any console command
			what = append(what, printable.Line(d.Action))
		}
	}
	if len(what) > 0 {
		// No warning: the user that we advise may not ask, and people would learn to overlook warnings.
		s.skip(learning, k.Hint(), "optional: Asterisk does not tell Ringwall its trunks and contacts (%s), so only policy.allow protects your providers",
			strings.Join(what, ", "))
		return
	}
	if len(k.Failed) > 0 {
		s.warn(learning, "", "%s could not be asked: %s", printable.Line(k.Failed[0].What),
			printable.Line(k.Failed[0].Err))
		return
	}
	if n == 0 {
		s.ok(learning, "Asterisk answers all questions, and knows no trunk and no contact now")
		return
	}
	s.ok(learning, "%s", humanize.Plural(n, "trunk or contact is known and spared",
		"trunks and contacts are known and spared"))
}

// hearing is a session whose states and logins are kept for whoever waits.
type hearing struct {
	session *ami.Session
	states  chan ami.State
	logins  chan login
	stop    func() // logs off and waits for the end; may be called twice
}

// login is a SuccessfulAuth of our user, or an event that could not be read.
type login struct {
	from     netip.AddrPort
	at       time.Time // Asterisk's clock
	received time.Time // ours
	err      error
}

func listen(ctx context.Context, cfg ami.Config) *hearing {
	h := &hearing{states: make(chan ami.State, 16), logins: make(chan login, 256)}
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
			l := login{received: f.Received, err: event.Decode(f.Text, &ev)}
			if l.err == nil && (ev.Service != event.AMI || ev.Account != cfg.Username) {
				continue
			}
			l.from, l.at = ev.Remote.AddrPort, ev.Time
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

// state waits for the next change of state.
func (h *hearing) state(ctx context.Context, wait time.Duration) (ami.State, bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case st := <-h.states:
		return st, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return ami.State{}, false
}

// forget drops the logins that were heard so far.
func (h *hearing) forget() {
	for {
		select {
		case <-h.logins:
		default:
			return
		}
	}
}

// login waits for the login from an address, or for any other of our user: a proxy on the way has its own address.
func (h *hearing) login(ctx context.Context, from netip.AddrPort, wait time.Duration) (login, bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var bad login
	for {
		select {
		case l := <-h.logins:
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
