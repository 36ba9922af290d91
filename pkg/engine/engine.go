package engine

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

const (
	minute = int64(time.Minute)

	// attemptTTL is how long one dialogue is one attempt: Timer B and F of RFC 3261 section 17.1 end a transaction
	// after 64×T1 = 32 s, and an answer may be retransmitted for as long again.
	attemptTTL = 64 * int64(time.Second)
	// maxRepeats is how often a request that gets no answer is sent again: 10 times in 32 s without INVITE,
	// 6 times with it (RFC 3261 sections 17.1.1.2 and 17.1.2.2). More is no retransmission.
	maxRepeats = 10

	reportTTL   = 60 * minute // one report an hour of the same thing
	maxAttempts = 1 << 18
	maxReports  = 1 << 16
	maxPending  = 1 << 16
)

// Engine judges sources. It is not safe for concurrent use.
type Engine struct {
	cfg     policy.Policy
	honey   map[string]bool
	now     int64
	started int64
	seed    maphash.Seed
	pbxs    []string

	sources  *tracker
	attempts *window[dialogue]
	reports  *window[struct{}]
	breached *window[struct{}]
	pending  []pending
	first    int // index in pending
	ring     ring

	bans      map[netip.Prefix]*ban
	networks  map[netip.Prefix]int
	timers    timers
	enforced  int     // bans
	forgeable int     // of them, on unproven evidence
	budget    float64 // of unproven bans
	budgetAt  int64
	kept      int // records that bans keep

	trusts    map[key]*trust
	accounts  map[uint64]*account
	failing   *window[struct{}] // known good sources that fail
	stormEnd  int64
	allow     *prefixes
	protected *prefixes
	grace     map[netip.Prefix]int64

	limited   map[string]int
	evicted   uint64
	suspended int
}

// dialogue is what is remembered of one attempt: a Call-ID of a source, or one distinct request or answer in it.
type dialogue struct {
	credit  float32 // points given that a wrong answer in the same dialogue does not earn again
	repeats uint8
}

// New makes an engine. The policy must be valid; see policy.Load.
func New(cfg policy.Policy) *Engine {
	e := &Engine{
		seed:      maphash.MakeSeed(),
		sources:   newTracker(cfg.MaxSources),
		attempts:  newWindow[dialogue](attemptTTL, maxAttempts),
		reports:   newWindow[struct{}](reportTTL, maxReports),
		breached:  newWindow[struct{}](int64(cfg.Ban.Memory), maxReports),
		bans:      make(map[netip.Prefix]*ban),
		networks:  make(map[netip.Prefix]int),
		trusts:    make(map[key]*trust),
		accounts:  make(map[uint64]*account),
		failing:   newWindow[struct{}](int64(cfg.Storm.Within), maxReports),
		allow:     newPrefixes(),
		protected: newPrefixes(),
		grace:     make(map[netip.Prefix]int64),
		limited:   make(map[string]int),
		budget:    float64(cfg.Limits.ForgeableBurst),
	}
	e.configure(cfg)
	return e
}

// Configure changes the policy without forgetting anything, as on SIGHUP. It returns the bans that the new allow list
// ends.
func (e *Engine) Configure(now time.Time, cfg policy.Policy) []Decision {
	e.advance(now)
	for prefix := range e.allow.entries {
		e.allow.remove(prefix, originConfig)
	}
	e.configure(cfg)
	var out []Decision
	for _, entry := range cfg.Allow {
		if entry.Prefix.IsValid() {
			out = append(out, e.pardon(e.spared(entry.Prefix), Allowed, "")...)
		}
	}
	return out
}

func (e *Engine) configure(cfg policy.Policy) {
	e.cfg = cfg
	e.sources.max = cfg.MaxSources
	e.failing.ttl = int64(cfg.Storm.Within)
	e.breached.ttl = int64(cfg.Ban.Memory)
	e.honey = make(map[string]bool, len(cfg.Honeypots))
	for _, name := range cfg.Honeypots {
		e.honey[name] = true
	}
	for _, entry := range cfg.Allow {
		if entry.Prefix.IsValid() {
			e.allow.add(entry.Prefix, origin{name: originConfig})
		}
	}
}

// advance moves the engine's time. It never goes back: a clock that was stepped back stops the engine's time until it has
// caught up.
func (e *Engine) advance(now time.Time) {
	t := now.UnixNano()
	if e.started == 0 {
		e.started = t
	}
	e.now = max(e.now, t)
}

// call is one event under judgement.
type call struct {
	*Engine
	ev     *security.Event
	rule   rule
	addr   netip.Addr
	key    key
	pbx    uint8
	proven bool
	points float64 // of the last charge
	score  float64 // after it
	out    []Decision
}

// Handle judges one event of the Asterisk named pbx, which came at now, and appends the decisions to out.
func (e *Engine) Handle(now time.Time, pbx string, ev *security.Event, out []Decision) []Decision {
	e.advance(now)
	out = e.settle(out, 64)
	addr := ev.Remote.AddrPort.Addr()
	if !addr.IsValid() || addr.IsUnspecified() {
		return out
	}
	c := call{
		Engine: e, ev: ev, rule: judge(ev), addr: addr, key: e.keyOf(addr), pbx: e.pbxIndex(pbx), out: out,
		proven: ev.Remote.Transport.Proven() && ev.Service != security.SIP,
	}
	switch c.rule.kind {
	case login:
		c.login()
	case challenge:
		c.challenge()
	case attempt:
		c.attempt()
	case guess:
		c.guess()
	case connection:
		c.charge(points(e.cfg.Points, c.rule.reason), c.rule.reason, noNote)
	case misconfigured:
		c.misconfigured(Configuration, "Asterisk refused the request for its set-up: "+configurationHint(ev))
	}
	return c.out
}

// Tick does what is due at now without an event: ends of bans and trust, challenges that nobody answered. Call it a few
// times a second; it does a bounded amount of work and says whether there is more.
func (e *Engine) Tick(now time.Time, out []Decision) ([]Decision, bool) {
	const most = 1000
	e.advance(now)
	out = e.settle(out, most)
	e.sweep(most)
	more := e.first < len(e.pending) && e.pending[e.first].due <= e.now || len(e.timers) > 0 && e.timers[0].at <= e.now
	return out, more
}

// settle does up to n things that are due.
func (e *Engine) settle(out []Decision, n int) []Decision {
	out = e.unanswered(out, n)
	for ; n > 0; n-- {
		t, ok := e.timers.due(e.now)
		if !ok {
			break
		}
		if t.trust {
			out = e.trustOver(t, out)
			continue
		}
		b := e.bans[t.prefix]
		switch {
		case b == nil:
		case b.until > e.now:
			e.timers.set(b.until, b.prefix, false)
		default:
			e.forget(b)
			if !b.observed {
				out = append(out, e.end(b, Expired))
			}
		}
	}
	for p, until := range e.grace {
		if until <= e.now {
			delete(e.grace, p)
		}
	}
	return out
}

// end is the decision that ends a ban.
func (e *Engine) end(b *ban, reason Reason) Decision {
	d := Decision{Time: stamp(e.now), Action: Unban, Source: b.source, Prefix: b.prefix, Reason: reason, Proven: b.proven,
		PBX: e.pbxName(b.pbx)}
	if k, ok := e.keyOfPrefix(b.prefix); ok {
		if s := e.sources.get(k); s != nil {
			s.decay(e.now, e)
			d.Score = float64(s.score)
		}
	}
	return d
}

// decide appends a decision about the event.
func (c *call) decide(a Action, r Reason, p netip.Prefix, d time.Duration, proven bool, detail string) {
	c.out = append(c.out, Decision{
		Time: stamp(c.now), Action: a, Source: c.addr, Prefix: p, Reason: r, Points: c.points, Score: c.score,
		Account: bounded(c.ev.Account), Service: c.ev.Service, Transport: c.ev.Remote.Transport, Proven: proven,
		Duration: d, PBX: c.pbxName(c.pbx), Detail: detail,
	})
}

// bounded is a copy of a name from the wire, no longer than evidence keeps it.
func bounded(name string) string {
	if len(name) > nameBytes {
		return name[:nameBytes] + "…"
	}
	return string([]byte(name))
}

// attempt judges a hostile request: once for each account in each dialogue.
func (c *call) attempt() {
	reason := c.rule.reason
	w := points(c.cfg.Points, reason)
	if reason == UnknownAccount && c.honey[c.ev.Account] {
		reason, w = Honeypot, c.cfg.Points.Honeypot
	}
	if !c.once(c.hash("attempt", c.dialogue(), string(c.rule.reason), c.ev.Account)) {
		return
	}
	if reason == UnknownAccount && c.hold(w) {
		return
	}
	c.credit(w)
	c.charge(w, reason, noNote)
}

// guess judges a wrong answer to a challenge: each distinct answer once.
func (c *call) guess() {
	reason := c.rule.reason
	w := points(c.cfg.Points, reason)
	if c.honey[c.ev.Account] {
		reason, w = Honeypot, c.cfg.Points.Honeypot
	}
	if !c.once(c.hash("guess", c.dialogue(), c.ev.Challenge, c.ev.Response)) {
		return
	}
	if d := c.attempts.get(c.now, c.hash("dialogue", c.dialogue())); d != nil && d.credit > 0 {
		used := min(w, float64(d.credit))
		d.credit -= float32(used)
		if w -= used; w == 0 {
			c.record(c.sources.get(c.key), 0, reason, noteCovered)
			return
		}
	}
	if reason != WrongPassword {
		c.charge(w, reason, noNote)
		return
	}
	c.wrongPassword(w)
}

// once is true for the first of a request and its retransmissions.
func (c *call) once(id uint64) bool {
	d := c.attempts.get(c.now, id)
	if d == nil {
		c.attempts.put(c.now, id)
		return true
	}
	d.repeats++
	if d.repeats > maxRepeats {
		d.repeats = 0
		return true
	}
	return false
}

// credit notes points that the dialogue has cost already.
func (c *call) credit(w float64) {
	id := c.hash("dialogue", c.dialogue())
	d := c.attempts.get(c.now, id)
	if d == nil {
		d = c.attempts.put(c.now, id)
	}
	d.credit += float32(w)
}

// dialogue identifies the attempt: the source and the SessionID. AMI's is a pointer that the next connection uses again,
// so the port counts there too.
func (c *call) dialogue() []byte {
	b := make([]byte, 0, 64)
	b = append(b, c.key[:]...)
	b = append(b, byte(c.ev.Service), c.pbx)
	if c.ev.Service == security.AMI {
		b = binary.BigEndian.AppendUint16(b, c.ev.Remote.AddrPort.Port())
	}
	return binary.BigEndian.AppendUint64(b, maphash.String(c.seed, c.ev.Session))
}

// charge adds points to the source and bans it when they are enough.
func (c *call) charge(w float64, reason Reason, n note) {
	enforce := c.mode(c.ev.Service.String()) == policy.Enforce
	if _, ok := c.allow.covering(c.addr); ok {
		w, n = 0, noteAllowed
	} else if _, ok := c.Engine.protected.covering(c.addr); ok {
		n = noteProtected
	}
	s := c.track(c.key)
	if s == nil {
		return
	}
	s.attempts++
	s.observed += float32(w)
	if enforce {
		s.score += float32(w)
		if c.proven {
			s.proven += float32(w)
		}
	} else if n == noNote {
		n = noteObserved
	}
	c.record(s, w, reason, n)
	c.points, c.score = w, float64(s.observed)
	if enforce {
		c.score = float64(s.score)
	}
	if b := c.banOf(c.key); b != nil {
		b.attempts++
	}
	c.known()
	if w > 0 {
		c.verdict(s, reason, enforce)
	}
	c.classify(s)
}

// verdict compares the source's numbers with the threshold.
func (c *call) verdict(s *source, reason Reason, enforce bool) {
	limit := c.cfg.Threshold
	if t := c.trusted(c.key); t != nil {
		limit *= c.cfg.Trust.Tolerance
		switch {
		case float64(s.proven) >= limit:
			c.distrust(t, Tolerance, "failed more than trust tolerates")
			limit = c.cfg.Threshold
		case float64(s.observed) >= limit:
			// Packets that can be forged must not take trust from a customer.
			if !c.reports.seen(c.now, c.hash("tolerance", c.key[:])) {
				c.decide(Observe, Tolerance, c.prefixOf(c.key), 0, false,
					"a trusted source fails more than is tolerated, but the evidence could be forged: not banned")
			}
			return
		default:
			return
		}
	}
	proven := float64(s.proven) >= limit
	switch {
	case enforce && float64(s.score) >= limit:
		c.condemn(c, s, reason, true, proven)
	case float64(s.observed) >= limit:
		c.condemn(c, s, reason, false, proven)
	}
}

// record keeps the event as evidence.
func (c *call) record(s *source, w float64, reason Reason, n note) {
	if s == nil {
		return
	}
	r := record{
		at: c.now, points: float32(w), score: s.observed, typ: c.ev.Type, service: c.ev.Service,
		transport: c.ev.Remote.Transport, reason: reasonIndex(reason), note: n, pbx: c.pbx, proven: c.proven,
	}
	r.length = uint8(min(len(c.ev.Account), nameBytes+1))
	copy(r.account[:], c.ev.Account)
	c.ring.add(s, r)
	if b := c.banOf(c.key); b != nil && len(b.evidence) < perBan && c.kept < banBudget {
		b.evidence = append(b.evidence, r)
		c.kept++
	}
}

// misconfigured reports an error of set-up once an hour.
func (c *call) misconfigured(reason Reason, detail string) {
	if !c.reports.seen(c.now, c.hash("misconfigured", c.key[:], string(reason), c.ev.Account)) {
		c.decide(Misconfigured, reason, c.prefixOf(c.key), 0, c.proven, detail)
	}
}

func configurationHint(ev *security.Event) string {
	switch ev.ACLName {
	case "registrar_attempt_exceeds_maximum_configured_contacts":
		return "more contacts than max_contacts of the AOR"
	case "registrar_attempt_without_configured_aors":
		return "the endpoint has no aors"
	case "registrar_invalid_contacts_provided":
		return "the phone sent an invalid Contact"
	case "registrar_invalid_uri_in_to_received":
		return "the phone sent an invalid To"
	case "peer_not_dynamic":
		return "the peer has no host=dynamic"
	}
	switch ev.Type {
	case security.RequestNotSupported:
		return "no such AOR for the endpoint"
	case security.RequestNotAllowed:
		return "a manager user lacks a privilege"
	case security.RequestBadFormat:
		return "a manager user sent an unknown action"
	case security.InvalidTransport:
		return "the peer may not use this transport"
	}
	return ev.Type.String()
}

// Tamper reports a frame that Asterisk does not write by itself; what is a constant text of the decoder's. There is
// one decision an hour for each text and Asterisk; count the frames yourself.
func (e *Engine) Tamper(now time.Time, pbx, what string, out []Decision) []Decision {
	e.advance(now)
	if e.reports.seen(e.now, e.hash("tamper", nil, pbx, what)) {
		return out
	}
	return append(out, Decision{Time: stamp(e.now), Action: Tampering, Reason: Malformed, PBX: pbx, Detail: what})
}

// hash mixes a purpose, a byte string and strings into one number, unpredictable to an attacker.
func (e *Engine) hash(purpose string, b []byte, parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	h.WriteString(purpose)
	h.Write(b)
	for _, p := range parts {
		h.WriteByte(0)
		h.WriteString(p)
	}
	return h.Sum64()
}

func (e *Engine) pbxIndex(name string) uint8 {
	if i := slices.Index(e.pbxs, name); i >= 0 {
		return uint8(i)
	}
	if len(e.pbxs) == 256 {
		return 255
	}
	e.pbxs = append(e.pbxs, name)
	return uint8(len(e.pbxs) - 1)
}

func (e *Engine) pbxName(i uint8) string {
	if int(i) < len(e.pbxs) {
		return e.pbxs[i]
	}
	return ""
}
