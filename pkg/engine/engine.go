package engine

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

const (
	second = int64(time.Second)
	minute = int64(time.Minute)

	reportTTL           = 60 * minute // one report an hour of the same thing
	maxDialogues        = 1 << 18
	maxReports          = 1 << 16
	maxStrangerFailures = 1 << 16
	maxPending          = 1 << 16
	maxLoginFlows       = 1 << 18
	loginFlowTTL        = 24 * 60 * minute // of a flow after its latest login, or half of it longer
)

// Engine judges sources. It is not safe for concurrent use.
type Engine struct {
	keyedHash
	policy     policy.Policy
	ipv6Prefix int
	honeypots  map[string]bool
	enforces   [numServices]bool
	rules      ruleIndex
	now        int64
	started    int64
	pbxs       []string

	sources          *sources
	dialogues        *table.Window[dialogue]
	strangerFailures *table.Window[strangerFailures] // of a source and an account that fails from it, where a trust has no place for it; for a spell of silence
	reports          *table.Window[struct{}]
	guessedLogins    *table.Window[guessedLogin] // logins after guessing, by source and account
	slowGuessers     *table.Window[struct{}]     // who was reported as guessing slowly, by source and account
	vouchedFor       *table.Window[struct{}]     // sources for which a person vouched by an unban
	loginFlows       *table.Window[struct{}]     // from which accounts logged in: source, port, transport and account
	widerNetworks    *table.Window[widerNetwork] // networks of several sources of IPv6 that attack
	pending          table.FIFO[pendingEvent]    // events that wait for a login, in the order in which their time is over
	evidence         *table.Chains[sourceKey, record]

	bans              map[netip.Prefix]*activeBan
	newestBan         *activeBan
	networkBans       map[netip.Prefix]networkBans
	timers            *table.Heap[timer]
	enforcedBans      int     // bans
	enforcedBans6     int     // of them, those of IPv6
	forgeableBans     int     // of them, on unproven evidence
	forgeableBudget   float64 // of unproven bans
	forgeableBudgetAt int64
	banRecords        int          // records that bans keep
	oneShotBans       []*activeBan // that may give way to others, the oldest first; some are over

	trusts           map[sourceKey]*trust
	trustsByOwner    map[sourceKey]int // how many of trusts each customer's network has, see ownerOf
	accounts         map[uint64]*account
	accountsSweptAt  int64 // when accounts were last gone through, ns
	failingCustomers failingCustomers
	stormUntil       int64
	allow            table.Prefixes[[]origin]
	protected        table.Prefixes[[]origin]
	grace            table.Prefixes[int64] // until when, ns
	lapsedAllows     []netip.Prefix        // see Lapsed

	activity    activity
	multipliers policy.Multiply            // see Weigh
	placeOf     func(netip.Addr) ban.Place // nil: nothing is multiplied

	leaks              leaks
	hitLimits          map[string]int
	evictedSources     uint64
	suspendedBans      int
	forgeableHeldUntil int64 // until then nobody is banned by evidence that could be forged
}

// New makes an engine. The policy must be valid; see policy.Load.
func New(p policy.Policy) *Engine { return newEngine(p, newKeyedHash(rand.Uint64())) }

// NewRepeatable makes an engine that decides the same about the same events each time. Whoever knows how it counts accounts
// can choose such that look like fewer, so it is for recordings, not for attackers who are there.
func NewRepeatable(p policy.Policy) *Engine { return newEngine(p, newKeyedHash(0)) }

func newEngine(p policy.Policy, hash keyedHash) *Engine {
	e := &Engine{
		keyedHash:        hash,
		ipv6Prefix:       p.IPv6Prefix,
		rules:            indexRules(),
		sources:          newSources(p.MaxSources, uint32(quietFor(&p)/second)),
		dialogues:        table.NewWindow[dialogue](dialogueTTL, maxDialogues),
		strangerFailures: table.NewWindow[strangerFailures](2*idleResetSeconds*second, maxStrangerFailures),
		reports:          table.NewWindow[struct{}](reportTTL, maxReports),
		guessedLogins:    table.NewWindow[guessedLogin](int64(p.Ban.Memory), maxReports),
		slowGuessers:     table.NewWindow[struct{}](24*60*minute, maxReports),
		vouchedFor:       table.NewWindow[struct{}](24*60*minute, maxReports),
		loginFlows:       table.NewWindow[struct{}](loginFlowTTL, maxLoginFlows),
		widerNetworks:    table.NewWindow[widerNetwork](idleResetSeconds*second, maxReports),
		evidence:         table.NewChains[sourceKey, record](maxRecords),
		timers:           table.NewHeap((*timer).less),
		bans:             make(map[netip.Prefix]*activeBan),
		networkBans:      make(map[netip.Prefix]networkBans),
		trusts:           make(map[sourceKey]*trust),
		trustsByOwner:    make(map[sourceKey]int),
		accounts:         make(map[uint64]*account),
		failingCustomers: newFailingCustomers(int64(p.Storm.Within)),
		hitLimits:        make(map[string]int),
		forgeableBudget:  float64(p.Limits.ForgeableBurst),
	}
	e.leaks.reported = table.NewWindow[struct{}](reportTTL, maxLeaking)
	e.configure(p)
	return e
}

// Configure changes the policy without forgetting anything, as on SIGHUP. It returns the bans that the new allow list
// ends. Two keys are different: ipv6_prefix stays what it was in New, since it is what a source is, and mode: observe
// makes no new bans but leaves those that are there.
func (e *Engine) Configure(now time.Time, p policy.Policy) []ban.Decision {
	e.advance(now)
	for _, prefix := range e.allow.Sorted() {
		removeOrigin(&e.allow, prefix, originConfig)
	}
	e.configure(p)
	var out []ban.Decision
	for _, entry := range p.Allow {
		if entry.Prefix.IsValid() {
			out = append(out, e.endBans(e.bansWithinExemption(canonicalPrefix(entry.Prefix)), ban.ReasonAllowed, "")...)
		}
	}
	return out
}

func (e *Engine) configure(p policy.Policy) {
	e.policy = p
	e.sources.max = p.MaxSources
	e.failingCustomers.setTTL(int64(p.Storm.Within))
	e.guessedLogins.SetTTL(int64(p.Ban.Memory))
	e.honeypots = make(map[string]bool, len(p.Honeypots))
	for _, name := range p.Honeypots {
		e.honeypots[name] = true
	}
	for s := range e.enforces {
		e.enforces[s] = p.Services[security.Service(s).String()] == policy.Enforce
	}
	for _, entry := range p.Allow {
		if entry.Prefix.IsValid() {
			addOrigin(&e.allow, canonicalPrefix(entry.Prefix), origin{name: originConfig})
		}
	}
	clear(e.networkBans)
	for _, b := range e.bans {
		e.countInNetwork(b, 1)
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

// Handle judges one event of the Asterisk named pbx, which came at now, and appends the decisions to out.
func (e *Engine) Handle(now time.Time, pbx string, ev *security.Event, out []ban.Decision) []ban.Decision {
	out = e.runDue(now, out, 256)
	from := ev.Remote.AddrPort.Addr().Unmap()
	if !from.IsValid() || from.IsUnspecified() {
		return out
	}
	c := e.newJudgement(ev, from, e.pbxIndex(pbx), out)
	if c.rule = e.rules.find(ev); c.rule == nil { // even so, a banned source should be silent
		c.reportLeak()
		return c.out
	}
	if ev.Hostile && c.judgeHostile() {
		return c.finish()
	}
	switch c.rule.kind {
	case kindLogin:
		c.judgeLogin()
	case kindChallenge:
		c.judgeChallenge()
	case kindAttempt:
		c.judgeAttempt()
	case kindGuess:
		c.judgeGuess()
	case kindConnection:
		c.charge(pointsFor(&e.policy.Points, c.rule.reason), c.rule.reason, noNote)
	case kindMisconfigured:
		c.record(c.source(), 0, ban.ReasonConfiguration, noteMisconfigured)
		c.reportMisconfigured(ban.ReasonConfiguration, "Asterisk refused the request for its set-up: "+configurationHint(ev))
	}
	c.reportLeak()
	return c.finish()
}

// Tick does what is due at now without an event: ends of bans and trust, challenges that nobody answered. Call it a few
// times a second; it does a bounded amount of work and says whether there is more.
func (e *Engine) Tick(now time.Time, out []ban.Decision) ([]ban.Decision, bool) {
	out = e.runDue(now, out, 256) // the ends of bans that lie all over the memory: a millisecond or so
	e.sweepSources(1000)
	_, more := e.nextDue(e.now)
	return out, more
}

// nextDue returns when the next thing is due, if that is not after now.
func (e *Engine) nextDue(now int64) (at int64, due bool) {
	if p := e.pending.First(); p != nil {
		at, due = p.due, true
	}
	if t := e.timers.First(); t != nil && (!due || t.at < at) {
		at, due = t.at, true
	}
	return at, due && at <= now
}

// runDue moves the time to now and does up to n things that are due by then, in their order and each at its own time, so
// that decisions do not depend on how often anybody asks.
func (e *Engine) runDue(now time.Time, out []ban.Decision, n int) []ban.Decision {
	for ; n > 0; n-- {
		at, ok := e.nextDue(now.UnixNano())
		if !ok {
			break
		}
		e.now = max(e.now, at)
		if p := e.pending.First(); p != nil && p.due == at {
			p := e.pending.Pop()
			out = e.settlePending(&p, out)
			continue
		}
		switch t := e.timers.Pop(); t.kind {
		case endOfBan:
			out = e.endDueBan(t, out)
		case endOfTrust:
			out = e.endDueTrust(t, out)
		case endOfGrace:
			if until, ok := e.grace.Get(t.prefix); ok && until <= e.now {
				e.grace.Delete(t.prefix)
			}
		case endOfAllow:
			e.endDueAllow(t.prefix)
		}
	}
	e.advance(now)
	return out
}

// firstReport says whether a report is the first of its purpose, about a source and one more thing, within an hour.
func (e *Engine) firstReport(p purpose, k sourceKey, detail uint64) bool {
	return !e.reports.Seen(e.now, e.hash(p, k, detail))
}

// ReportTampering reports a frame that Asterisk does not write by itself; what is a constant text of the decoder's, and sources
// are the addresses that the frame names. There is one decision an hour for each text and Asterisk; count the frames
// yourself.
func (e *Engine) ReportTampering(now time.Time, pbx, what string, sources []netip.Addr, out []ban.Decision) []ban.Decision {
	e.advance(now)
	if !e.firstReport(forTampering, sourceKey{}, e.combine(e.hashText(pbx), e.hashText(what))) {
		return out
	}
	if len(sources) > 0 { // texts of addresses without a zone: digits, letters and colons
		what += "; the frame names " + joinAddresses(sources)
		if len(sources) > 1 {
			what += ": one of them is the sender, the others are invented"
		}
	}
	return append(out, ban.Decision{Time: utc(e.now), Action: ban.ActionTampering, Reason: ban.ReasonMalformed, PBX: pbx, Detail: what})
}

func joinAddresses(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.WithZone("").String()
	}
	return strings.Join(texts, ", ")
}

func (e *Engine) pbxIndex(name string) uint8 {
	if len(e.pbxs) > 0 && e.pbxs[0] == name {
		return 0
	}
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
