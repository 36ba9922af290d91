package engine

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// maxEvidence is how many pieces of evidence an explanation holds.
const maxEvidence = 200

// Why explains what is known of an address, and what would change it. It changes nothing.
func (e *Engine) Why(now time.Time, a netip.Addr) Explanation {
	e.advanceTime(now)
	a = a.Unmap().WithZone("")
	k := e.keyOf(a)
	x := Explanation{
		Address: a, Source: e.prefixOf(k), Verdict: "unknown", Threshold: e.policy.Threshold,
		HalfLife: e.policy.HalfLife.Seconds(), Evidence: []ban.Evidence{}, Lines: []string{},
	}
	w := explainer{engine: e, Explanation: &x, addr: a, source: e.sources.get(k)}
	w.collectFacts(k)
	switch x.Verdict {
	case "protected", "allowed":
		w.explainExemption()
	case "banned", "observed":
		w.explainBan()
	case "trusted":
		w.explainTrust(e.trusts[k])
	case "suspicious":
		w.explainScore()
	default:
		w.addSentence("nothing is known of %v: no event named it lately, and nothing bans it", a)
	}
	w.explainHints()
	return x
}

// explainer is an explanation in the making.
type explainer struct {
	engine *Engine
	*Explanation
	addr         netip.Addr
	source       *source // nil if unknown
	enforcedLeft float64 // of the source's score, enforced evidence only, now
	opens        int64   // when the door of its ban does, ns
}

func (w *explainer) addSentence(format string, args ...any) {
	w.Lines = append(w.Lines, fmt.Sprintf(format, args...))
}

// collectFacts gathers the facts. Of several verdicts the strongest stays: exempt, banned, trusted, suspicious.
func (w *explainer) collectFacts(k sourceKey) {
	if s := w.source; s != nil {
		w.Verdict = "suspicious"
		fade := w.engine.decayFactor(w.engine.now - s.lastSeen)
		w.enforcedLeft = float64(s.score * fade)
		w.Score, w.Attempts, w.Bans = ban.Round(float64(s.observedScore*fade)), int(s.attempts), int(s.bans)
		records, more := w.engine.evidence.Chain(s.key, s.latestRecord, maxEvidence)
		for i := range records {
			w.Evidence = append(w.Evidence, ban.Evidence{})
			w.engine.fillEvidence(&records[i], &w.Evidence[i])
		}
		if more {
			w.Lost = max(1, w.Attempts-len(records))
		}
	}
	if t := w.engine.activeTrust(k); t != nil {
		v := w.engine.viewTrust(t)
		w.Trust, w.Verdict = &v, "trusted"
	}
	if b := w.engine.banCovering(w.addr); b != nil {
		v := w.engine.viewBan(b, true)
		w.Ban, w.Verdict, w.opens = &v, "banned", b.opens
		if b.observed {
			w.Verdict = "observed"
		}
		if len(w.Evidence) == 0 && v.Evidence != nil {
			w.Evidence = v.Evidence
		}
	}
	w.Restrictions = w.engine.appendRestrictions(k, nil)
	w.Proxy = w.engine.isProxy(w.engine.trusts[k], w.addr)
	if p, ok := w.engine.grace.Containing(w.engine.prefixOf(k)); ok && w.engine.grace.At(p) > w.engine.now {
		at := utcTime(w.engine.grace.At(p))
		w.Grace = &at
	}
	if p, ok := w.engine.allow.Covering(w.addr); ok {
		o := longestOrigin(w.engine.allow.At(p))
		v := viewOrigin(p, o)
		w.Allow, w.Verdict = &v, "allowed"
	}
	if p, ok := w.engine.protected.Covering(w.addr); ok {
		o := w.engine.protected.At(p)[0]
		v := viewOrigin(p, o)
		w.Allow, w.Verdict = &v, "protected"
	}
}

func (w *explainer) explainExemption() {
	note := ""
	if w.Allow.Note != "" {
		note = " (" + strconv.Quote(w.Allow.Note) + ")"
	}
	if w.Verdict == "protected" {
		w.addSentence("never banned: Asterisk %q knows %s as a trunk%s", w.Allow.Origin, w.Allow.Prefix, note)
	} else {
		w.addSentence("never banned: %s is on the allow list, by %q%s", w.Allow.Prefix, w.Allow.Origin, note)
		if w.Allow.Until != nil {
			w.addSentence("that ends at %s; to end it now: ringwall allow del %s", clockTime(*w.Allow.Until),
				w.Allow.Prefix)
		} else if w.Allow.Origin == OriginManual {
			w.addSentence("that is until somebody says: ringwall allow del %s", w.Allow.Prefix)
		}
	}
	if b := w.Ban; b != nil && !b.Observed {
		w.addSentence("the ban of %s does not reach it: the firewall lets it pass first", b.Prefix)
	}
	w.explainArithmetic()
}

func (w *explainer) explainBan() {
	b := w.Ban
	reason := string(b.Reason)
	if text := reasonText(b.Reason); text != "" {
		reason += ", " + text
	}
	if b.Comment != "" {
		reason += ", " + strconv.Quote(b.Comment)
	}
	until := time.Duration(b.Duration * float64(time.Second)).Round(time.Second)
	if b.Observed {
		w.addSentence("%s would be banned from %s until %s (%s): %s",
			b.Prefix, clockTime(b.Since), clockTime(b.Until), humanize.ExactDuration(until), reason)
		w.addSentence("nothing is in the firewall: policy.mode or policy.services says observe")
	} else {
		w.addSentence("%s is banned from %s until %s (%s): %s",
			b.Prefix, clockTime(b.Since), clockTime(b.Until), humanize.ExactDuration(until), reason)
	}
	w.explainClosed()
	if b.Leak != nil {
		w.addSentence("THE BAN DOES NOT KEEP IT OUT: %s since then got through to %s, the last at %s; ringwall "+
			"doctor looks why",
			humanize.Plural(b.Leak.Events, "event", "events"), b.Leak.Where(), clockTime(b.Leak.Last))
	}
	if b.Origin != "" {
		w.addSentence("node %s of the fleet saw it, and not this one", b.Origin)
	}
	own := !b.Manual && b.Origin == "" && b.Reason != ban.ReasonAdopted && b.Reason != ban.ReasonNetwork
	if own {
		whose := "its score"
		if b.Closes == ban.ClosesManager {
			whose = "its score as the manager's client"
		}
		w.addSentence("%s was %.1f then; the threshold is %g", whose, b.Score, w.Threshold)
	}
	if len(b.Accounts) > 0 {
		w.addSentence("%s tried: %s",
			humanize.Plural(len(b.Accounts), "account name", "account names"), humanize.List(b.Accounts, 8,
				strconv.Quote))
	}
	if b.Closes != ban.ClosesManager { // whose score is another
		w.explainArithmetic()
	}
	if own && !b.Proven {
		w.addSentence("the address could have been forged (UDP): such a ban lasts %s at most",
			humanize.ExactDuration(w.engine.policy.Ban.ForgeableMax))
	}
	if own && !b.Observed {
		w.addSentence("the next ban within %s after this one would last %s",
			humanize.ExactDuration(w.engine.policy.Ban.Memory),
			humanize.ExactDuration(w.engine.banDuration(b.Number, b.Proven)))
	}
	if !b.Observed {
		w.addSentence("to end it now: ringwall unban %s", b.Prefix)
	}
	if own {
		w.addSentence("to never ban it again: ringwall allow add %v", w.addr)
	}
}

// explainClosed says which ports a ban closes, unless it closes all.
func (w *explainer) explainClosed() {
	switch b := w.Ban; {
	case b.Closes == ban.ClosesManager && b.Observed:
		w.addSentence("the manager's ports (AMI) alone would be closed")
	case b.Closes == ban.ClosesManager:
		w.addSentence("closed: the manager's ports (AMI) only; phones there go on")
	case b.Closes == ban.ClosesSIP && b.Observed:
		w.addSentence("all but the manager's ports (AMI) would be closed")
	case b.Closes == ban.ClosesSIP:
		w.addSentence("closed: all but the manager's ports (AMI), of which there is no evidence")
	case b.Closes == ban.ClosesUDP && b.Observed:
		w.addSentence("UDP alone would be closed")
	case b.Closes == ban.ClosesUDP && b.DoorShut:
		w.addSentence("closed: UDP only, and nothing passes there; a login over TCP, TLS or WebSocket lifts the ban")
	case b.Closes == ban.ClosesUDP && w.opens > w.engine.now:
		w.addSentence("closed: UDP only, and nothing passes there before %s; then %s a minute from each port, so that "+
			"a phone can log in; its login lifts the ban", clockTime(utcTime(w.opens)),
			humanize.Plural(int(w.engine.policy.Ban.Knock), "packet", "packets"))
	case b.Closes == ban.ClosesUDP:
		w.addSentence("closed: UDP only; %s a minute from each port pass, so that a phone can log in; its login "+
			"lifts the ban",
			humanize.Plural(int(w.engine.policy.Ban.Knock), "packet", "packets"))
	}
}

func (w *explainer) explainTrust(t *trust) {
	if t.origin != "" {
		w.addSentence("trusted until %s: somebody logged in from there with a password at node %s of the fleet",
			clockTime(w.Trust.Until), t.origin)
	} else {
		w.addSentence("trusted until %s: %s logged in from there with a password: %s", clockTime(w.Trust.Until),
			humanize.Plural(len(w.Trust.Accounts), "account", "accounts"), humanize.List(w.Trust.Accounts, 8,
				strconv.Quote))
	}
	w.explainArithmetic()
	foreign := 0
	for _, f := range t.failures {
		if f.foreign && w.engine.now-f.leakedAt < int64(w.engine.policy.Trust.TTL) {
			foreign++
		}
	}
	if foreign > 0 {
		w.addSentence("%s that never logged in from there failed within %s",
			humanize.Plural(foreign, "account", "accounts"), humanize.ExactDuration(w.engine.policy.Trust.TTL))
	}
	if w.Proxy {
		return
	}
	w.addSentence("trust would end at %g points, or with more than %d failing accounts that never logged in from "+
		"there, over TCP, TLS or WebSocket",
		w.engine.policy.Threshold*w.engine.policy.Trust.Tolerance, w.engine.policy.Trust.Accounts)
}

func (w *explainer) explainScore() {
	if left := w.Threshold - w.enforcedLeft; left > 0 {
		udp := humanize.ExactDuration(w.engine.banDuration(w.Bans, false))
		proven := humanize.ExactDuration(w.engine.banDuration(w.Bans, true))
		if udp != proven {
			udp += ", or " + proven + " over TCP, TLS or WebSocket"
		}
		w.addSentence("not banned: %.1f points more would ban it for %s", left, udp)
	} else if w.Grace == nil {
		w.addSentence("not banned, though it has the points: the next piece of evidence decides")
	}
	w.explainArithmetic()
	if w.Score >= 0.1 {
		quiet := time.Duration(math.Log2(w.Score/0.1) * float64(w.engine.policy.HalfLife))
		w.addSentence("forgiven after about %s without another attempt",
			humanize.ExactDuration(max(quiet.Round(time.Minute), time.Minute)))
	}
	if w.source.openChallenges > 0 {
		w.addSentence("%s may wait up to %s for a login",
			humanize.Plural(int(w.source.openChallenges), "request", "requests"),
			humanize.ExactDuration(w.engine.policy.Challenges.AnswerWithin))
	}
}

// explainArithmetic says how the score came about: what the evidence gave, and what time has left of it.
func (w *explainer) explainArithmetic() {
	sum, n := 0.0, 0
	var first, last time.Time
	for _, ev := range w.Evidence {
		if ev.Points == 0 {
			continue
		}
		if sum, n, last = sum+ev.Points, n+1, ev.Time; n == 1 {
			first = ev.Time
		}
	}
	if n > 0 {
		w.addSentence("%s gave %.1f points within %s; half of what there is decays every %s: %.1f are left",
			humanize.Plural(n, "event", "events"), sum,
			humanize.ExactDuration(max(last.Sub(first).Round(time.Second), time.Second)),
			humanize.ExactDuration(w.engine.policy.HalfLife), w.Score)
	}
	w.explainMultipliers()
	if spared := len(w.Evidence) - n; spared > 0 {
		w.addSentence("%s gave no points, see the notes", humanize.Plural(spared, "event", "events"))
	}
	if w.Score-w.enforcedLeft >= 0.05 {
		w.addSentence("only %.1f of them count: the rest is observed, not enforced", w.enforcedLeft)
	}
	if w.Lost > 0 {
		w.addSentence("older evidence is no longer kept")
	}
}

// explainHints says what a person should do about the latest events.
func (w *explainer) explainHints() {
	const mend = "account %s has a wrong password, and tries no faster than a phone does: mend it in the phone"
	hints := map[string]string{
		noteTexts[notePace]:          mend,
		noteTexts[noteKnownHere]:     mend,
		noteTexts[noteRoaming]:       mend,
		noteTexts[noteDevice]:        "account %s fails again and again, no faster than a device does: mend its set-up",
		noteTexts[noteBreach]:        "account %s logged in right after guessing: change its password",
		noteTexts[noteMisconfigured]: "account %s: Asterisk refuses requests because of its set-up, see its log",
		noteTexts[noteTargeted]: "account %s is being guessed from many sources: make sure that its password " +
			"is strong",
	}
	last := make(map[string]string) // what the latest event says of an account
	for _, ev := range w.Evidence {
		switch format := hints[ev.Note]; {
		case format != "":
			last[ev.Account] = fmt.Sprintf(format, strconv.Quote(ev.Account))
		case ev.Points > 0:
			delete(last, ev.Account)
		}
	}
	for _, line := range slices.Sorted(maps.Values(last)) {
		w.addSentence("%s", line)
	}
	if _, named := w.engine.proxies.Covering(w.addr); named {
		w.addSentence("it is a proxy (policy.proxies), so it is never banned as a whole, and what is attacked " +
			"through it is reported")
	} else if w.Proxy && w.Allow == nil {
		w.addSentence("it looks like a proxy: many accounts log in through it, so it is never banned as a whole; "+
			"allow it (ringwall allow add %v), or name it in policy.proxies, and let a Ringwall at the proxy ban "+
			"who is behind it", w.addr)
	}
	if w.Grace != nil {
		w.addSentence("a person unbanned it: not banned again before %s", clockTime(*w.Grace))
	}
	if w.engine.inStorm() {
		w.addSentence("many known good sources fail at the moment: those are not banned")
	}
}

// reasonText says what bans a source, for a person.
func reasonText(r ban.Reason) string {
	switch r {
	case ban.ReasonUnknownAccount:
		return "requests for accounts that do not exist"
	case ban.ReasonWrongPassword:
		return "wrong passwords, faster than a phone retries or for several accounts"
	case ban.ReasonACL:
		return "an address that the account's ACL forbids"
	case ban.ReasonUnansweredChallenge:
		return "requests that no login followed"
	case ban.ReasonManager:
		return "failed logins to the manager interface (AMI)"
	case ban.ReasonHoneypot:
		return "an account name of policy.honeypots"
	case ban.ReasonSilentGuess:
		return "wrong passwords that Asterisk tells nobody of, by a program that hides"
	case ban.ReasonSilentLogin:
		return "a right password that Asterisk tells nobody of, by a program that hides"
	case ban.ReasonProbing:
		return "calls without a password to numbers that do not exist, or questions after many names"
	case ban.ReasonScanner:
		return "a request with the mark of a scanner's program"
	case ban.ReasonMalformedSIP:
		return "messages that Asterisk cannot read"
	case ban.ReasonIAX:
		return "wrong passwords over IAX2"
	case ban.ReasonHTTP:
		return "wrong credentials for ARI, or the manager over HTTP"
	case ban.ReasonDialplan:
		return "wrong numbers, as your dialplan says"
	case ban.ReasonDistributed:
		return "a wrong password for an account that many sources guess"
	case ban.ReasonAdopted:
		return "found in the firewall at the start"
	}
	return ""
}

// ClockFormat is how the lines of an Explanation write times, which are in UTC: whoever shows them may put in their
// place what the reader's clock says.
const ClockFormat = "2006-01-02 15:04:05 MST"

func clockTime(t time.Time) string { return t.UTC().Format(ClockFormat) }
