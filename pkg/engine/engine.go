package engine

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	second = int64(time.Second)
	minute = int64(time.Minute)

	// reportTTL is how long the same thing is not reported again.
	reportTTL = 60 * minute
	// loginFlowTTL is how long a login is remembered with its exact sender: at least half of this after the latest one.
	loginFlowTTL = 24 * 60 * minute

	// How much is remembered of things that attackers can invent, by table.
	maxDialogues        = 1 << 18
	maxReports          = 1 << 16
	maxStrangerFailures = 1 << 16
	maxVouched          = 1 << 18 // a person may unban many sources with one word
	maxPending          = 1 << 16
	maxLoginFlows       = 1 << 18
	maxDialogueNames    = 1 << 13
	maxChallenged       = 1 << 17
)

// Engine judges sources: it takes events, times and commands, and returns decisions. It is the rules of policy, what it
// remembers of sources, accounts and customers, and who is banned, trusted and exempt. Times are Unix times in ns,
// unless a name or a comment says otherwise. It is not safe for concurrent use.
type Engine struct {
	// The rules.
	policy     config.Policy
	ipv6Prefix int             // bits of an IPv6 source: policy.ipv6_prefix as it was in New
	honeypots  map[string]bool // accounts of policy.honeypots
	enforces   [event.NumServices]bool
	rules      ruleIndex

	// Time, and whose events these are.
	now     int64    // the time of the latest call; it never goes back
	started int64    // the time of the first call, 0 before it
	pbxs    []string // the Asterisks, by the index that records and bans have of them
	timers  *table.Heap[timer]

	// What is remembered of sources and accounts. The keys of windows are hashes, which keyedHash makes.
	keyedHash
	sources          *sources
	evidence         *table.Chains[sourceKey, record]
	dialogues        *table.Window[dialogue]            // what each began with, to know retransmissions
	dialogueNames    *table.Chains[uint64, accountName] // that each named first, where Asterisk has no such account
	challenged       *table.Window[challengedAccount]   // of known accounts that do not answer, by source and account
	pending          table.FIFO[pendingEvent]           // what waits for a login: what is due first is first
	strangerFailures *table.Window[failures]            // by source without trust and account
	strangerAttempts *table.Window[failures]            // the same of what is no wrong password: see judgeAccount
	accounts         map[uint64]*account                // by hashAccount
	accountsSweptAt  int64                              // when accounts were last gone through
	guessedLogins    *table.Window[guessedLogin]        // logins after guessing, by source and account
	loginFlows       *table.Window[struct{}]            // see loginFlow
	flowAccounts     *table.Window[table.DistinctFew]   // that logged in through a flow; see detectProxy
	vouchedFor       *table.Window[int64]               // sources that a person unbanned, and when the last time, ns
	widerNetworks    *table.Window[widerNetwork]        // IPv6 networks of several sources that attack
	activity         activity                           // what attackers did within the last day, for people

	// Who is a customer, and who fails of them.
	trusts           map[sourceKey]*trust
	trustsByOwner    map[sourceKey]int // how many of trusts are in each ownerNetwork
	failingCustomers failingCustomers
	stormUntil       int64

	// Bans, enforced and observed, and their limits.
	bans                 map[netip.Prefix]*activeBan
	newestBan            *activeBan // the first of a list through all of bans: activeBan.older
	networkBans          map[netip.Prefix]networkBans
	banRecords           int // records that all bans keep together
	enforcedBans         int // of bans
	bansOfKind           map[banKind]int
	fleetBans            int                       // of enforcedBans, those on the word of other nodes
	forgeableBans        int                       // of enforcedBans, those on evidence that could be forged
	forgeableBudget      float64                   // how many such bans may begin at once, as of forgeableBudgetAt
	forgeableBudgetAt    int64                     // when that was filled up
	forgeableHeldUntil   int64                     // until then nobody is banned on evidence that could be forged
	manualBans, rareBans map[netip.Prefix]struct{} // see noteRareBan
	oneShotBans          []*activeBan              // that may give way to others, the oldest first; some are over
	leaks                leaks                     // banned sources that are heard all the same

	// What spares those behind an address that is not theirs alone.
	goodFlows                     map[ban.Flow]goodFlow
	lanes                         map[sourceKey]*lane
	lanesWithCuts, lanesWithFlows map[sourceKey]struct{} // of lanes; see recountLane
	// laneCounts are of all lanes.
	laneCounts laneCounts
	changed    []Element // see TakeChanged

	// Whom no ban may hit.
	allow        table.Prefixes[[]origin] // by a person, the configuration, or the host itself
	protected    table.Prefixes[[]origin] // by an Asterisk, which knows them as trunks
	proxies      table.Prefixes[struct{}] // policy.proxies: never banned as a whole
	grace        table.Prefixes[int64]    // unbanned by a person: not banned again until then
	lapsedAllows []netip.Prefix           // see TakeLapsedAllows

	// Points by the place of a source.
	multipliers config.Multiply
	placeOf     func(netip.Addr) ban.Place // nil: nothing is multiplied
	locate      func(netip.Addr) ban.Place // see SetLocate; nil: nobody knows

	// What was reported, so that it is not reported again, and what is counted for Stats.
	reports        *table.Window[struct{}] // by purpose, source and a third thing
	slowGuessers   *table.Window[struct{}] // by source and account; for a day
	hitLimits      map[string]int          // bans and more that were left out, by the limit that was hit
	leftOut        int64                   // when a limit last kept somebody from being banned; 0 is never
	evictedSources uint64                  // forgotten to make room
	suspendedBans  int                     // left out because of a storm or of grace
}

// New makes an engine. The policy must be valid; see config.Load.
func New(p config.Policy) *Engine { return newEngine(p, newKeyedHash(rand.Uint64())) }

// NewRepeatable makes an engine that decides the same about the same events each time. Whoever knows how it counts
// accounts can choose some that look like fewer, so it is for recordings, not for attackers who are there.
func NewRepeatable(p config.Policy) *Engine { return newEngine(p, newKeyedHash(0)) }

func newEngine(p config.Policy, hash keyedHash) *Engine {
	e := &Engine{
		keyedHash:        hash,
		ipv6Prefix:       p.IPv6Prefix,
		rules:            indexRules(),
		sources:          newSources(p.MaxSources, uint32(quietFor(&p)/second)),
		dialogues:        table.NewWindow[dialogue](dialogueTTL, maxDialogues),
		strangerFailures: table.NewWindow[failures](2*idleResetSeconds*second, maxStrangerFailures),
		strangerAttempts: table.NewWindow[failures](2*idleResetSeconds*second, maxStrangerFailures),
		dialogueNames:    table.NewChains[uint64, accountName](maxDialogueNames),
		challenged:       table.NewWindow[challengedAccount](2*dialogueTTL, maxChallenged),
		reports:          table.NewWindow[struct{}](reportTTL, maxReports),
		guessedLogins:    table.NewWindow[guessedLogin](int64(p.Ban.Memory), maxReports),
		slowGuessers:     table.NewWindow[struct{}](24*60*minute, maxReports),
		flowAccounts:     table.NewWindow[table.DistinctFew](proxyTTL, maxReports),
		vouchedFor:       table.NewWindow[int64](24*60*minute, maxVouched),
		loginFlows:       table.NewWindow[struct{}](loginFlowTTL, maxLoginFlows),
		widerNetworks:    table.NewWindow[widerNetwork](idleResetSeconds*second, maxReports),
		evidence:         table.NewChains[sourceKey, record](maxRecords),
		timers:           table.NewHeap((*timer).less),
		bans:             make(map[netip.Prefix]*activeBan),
		networkBans:      make(map[netip.Prefix]networkBans),
		trusts:           make(map[sourceKey]*trust),
		trustsByOwner:    make(map[sourceKey]int),
		goodFlows:        make(map[ban.Flow]goodFlow),
		lanes:            make(map[sourceKey]*lane),
		lanesWithCuts:    make(map[sourceKey]struct{}),
		lanesWithFlows:   make(map[sourceKey]struct{}),
		manualBans:       make(map[netip.Prefix]struct{}),
		rareBans:         make(map[netip.Prefix]struct{}),
		bansOfKind:       make(map[banKind]int),
		accounts:         make(map[uint64]*account),
		failingCustomers: newFailingCustomers(int64(p.Storm.Within)),
		hitLimits:        make(map[string]int),
		forgeableBudget:  float64(p.Limits.ForgeableBurst),
	}
	e.leaks.reported = table.NewWindow[struct{}](reportTTL, maxLeaking)
	e.applyPolicy(p)
	return e
}

// Configure changes the policy without forgetting anything, as on SIGHUP. It returns the bans that the new allow list
// ends. Two keys are special: ipv6_prefix stays what it was in New, since it says what a source is, and mode: observe
// makes no new bans but leaves those that are there.
func (e *Engine) Configure(now time.Time, p config.Policy) []ban.Decision {
	e.advanceTime(now)
	for _, prefix := range e.allow.Sorted() {
		removeOrigin(&e.allow, prefix, originConfig)
	}
	e.applyPolicy(p)
	var out []ban.Decision
	for _, entry := range p.Allow {
		if entry.Prefix.IsValid() {
			out = append(out, e.endBans(e.bansWithinExemption(canonicalPrefix(entry.Prefix)), ban.ReasonAllowed, "")...)
		}
	}
	return out
}

// applyPolicy takes over a policy and counts what depends on it.
func (e *Engine) applyPolicy(p config.Policy) {
	e.policy = p
	e.sources.max = p.MaxSources
	e.failingCustomers.setTTL(int64(p.Storm.Within))
	e.guessedLogins.SetTTL(int64(p.Ban.Memory))
	e.configureProxies()
	e.honeypots = make(map[string]bool, len(p.Honeypots))
	for _, name := range p.Honeypots {
		e.honeypots[name] = true
	}
	for s := range e.enforces {
		e.enforces[s] = p.Services[event.Service(s).String()] == config.Enforce
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

// advanceTime moves the engine's time. It never goes back: a clock that was stepped back stops the engine's time until
// it has caught up.
func (e *Engine) advanceTime(now time.Time) {
	t := now.UnixNano()
	if e.started == 0 {
		e.started = t
	}
	e.now = max(e.now, t)
}

const (
	// dueAtOnce is how many things that are due one call does: ends of bans that lie all over the memory take a
	// millisecond.
	dueAtOnce = 256
	// sweptAtOnce is how many sources one call looks at, to forget them.
	sweptAtOnce = 1000
)

// Handle judges one event of the Asterisk named pbx, which came at now, and appends the decisions to out.
func (e *Engine) Handle(now time.Time, pbx string, ev *event.Event, out []ban.Decision) []ban.Decision {
	out = e.runDue(now, out, dueAtOnce)
	from := ev.Remote.AddrPort.Addr().Unmap()
	if !from.IsValid() || from.IsUnspecified() {
		return out
	}
	j := e.newJudgement(ev, from, e.pbxIndex(pbx), out)
	if j.rule = e.rules.find(ev); j.rule == nil { // worth nothing, but a banned source should be silent
		j.reportLeak()
		return j.out
	}
	j.nameAccount()
	if ev.Hostile && j.judgeHostile() {
		return j.finish()
	}
	switch j.rule.kind {
	case kindLogin:
		j.judgeLogin()
	case kindChallenge:
		j.judgeChallenge()
	case kindAttempt:
		j.judgeAttempt()
	case kindGuess:
		j.judgeGuess()
	case kindConnection:
		j.judgeAccount(pointsFor(&e.policy.Points, j.rule.reason), j.rule.reason)
	case kindMisconfigured:
		j.reportRefusal()
	case kindRefused:
		j.judgeRefusal()
	case kindSilentGuess:
		j.judgeSilentGuess()
	case kindSilentLogin:
		j.judgeSilentLogin()
	case kindScanner:
		j.judgeScanner()
	case kindProbe:
		j.judgeProbe()
	case kindRefusedAccount:
		j.judgeRefusedAccount()
	}
	j.reportLeak()
	return j.finish()
}

// Tick does what is due at now without an event: ends of bans and trust, challenges that nobody answered. Call it a few
// times a second; it does a bounded amount of work and says whether there is more.
func (e *Engine) Tick(now time.Time, out []ban.Decision) ([]ban.Decision, bool) {
	out = e.runDue(now, out, dueAtOnce)
	e.sweepSources(sweptAtOnce)
	e.sweepFlows()
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

// runDue moves the time to now and does up to n things that are due by then, in their order and each at its own time,
// so that decisions do not depend on how often anybody asks.
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
		case endOfLane:
			e.endDueLane(t)
		}
	}
	e.advanceTime(now)
	return out
}

// firstReport says whether a report is the first of its purpose, about a source and one more thing, within an hour.
func (e *Engine) firstReport(p purpose, k sourceKey, detail uint64) bool {
	return !e.reports.PutOnce(e.now, e.hash(p, k, detail))
}

// ReportTampering reports a frame that Asterisk does not write by itself. What is wrong with it is one of the decoder's
// constant texts, and sources are the addresses that the frame names. There is one decision an hour for each text and
// Asterisk, however many frames there are.
func (e *Engine) ReportTampering(
	now time.Time, pbx, what string, sources []netip.Addr, out []ban.Decision,
) []ban.Decision {
	e.advanceTime(now)
	if !e.firstReport(forTampering, sourceKey{}, e.combine(e.hashText(pbx), e.hashText(what))) {
		return out
	}
	if len(sources) > 0 { // texts of addresses without a zone: digits, letters and colons
		what += "; the frame names " + joinAddresses(sources)
		if len(sources) > 1 {
			what += ": one of them is the sender, the others are invented"
		}
	}
	return append(out, ban.Decision{Time: utcTime(e.now), Action: ban.ActionTampering, Reason: ban.ReasonMalformed,
		PBX: pbx, Detail: what})
}

// joinAddresses lists addresses without their zones, which come from the wire.
func joinAddresses(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.WithZone("").String()
	}
	return strings.Join(texts, ", ")
}

// pbxIndex returns the index that an Asterisk has in records and bans. Beyond 256 of them, they share the last one.
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

// pbxName is the inverse of pbxIndex.
func (e *Engine) pbxName(i uint8) string {
	if int(i) < len(e.pbxs) {
		return e.pbxs[i]
	}
	return ""
}
