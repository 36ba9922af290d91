package engine

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// maxEvidence is how many pieces of evidence an explanation holds.
const maxEvidence = 200

// Bans returns the active bans in order of their prefixes.
func (e *Engine) Bans(now time.Time) []ban.Ban {
	e.advance(now)
	bans := e.sortedBans()
	out := make([]ban.Ban, 0, len(bans))
	for _, b := range bans {
		out = append(out, e.viewBan(b, false))
	}
	return out
}

// viewBan is what is shown of a ban: the names that were tried, too.
func (e *Engine) viewBan(b *activeBan, evidence bool) ban.Ban {
	v := e.describeBan(b, evidence)
	v.Accounts = []string{}
	for i := range b.evidence {
		r := &b.evidence[i]
		if r.points <= 0 {
			continue
		}
		if name := r.name(); !slices.Contains(v.Accounts, name) {
			v.Accounts = append(v.Accounts, name)
		}
	}
	return v
}

// Trusted returns the trusted sources in order.
func (e *Engine) Trusted(now time.Time) []ban.Trust {
	e.advance(now)
	out := []ban.Trust{}
	for _, c := range e.TrustedSources(now) {
		k, _ := e.keyOfPrefix(c.Prefix)
		out = append(out, e.viewTrust(e.trusts[k]))
	}
	return out
}

// viewTrust is what is shown of a trusted source: what is left of its trust, and its score, too.
func (e *Engine) viewTrust(t *trust) ban.Trust {
	v := e.describeTrust(t)
	v.Left = ban.Round(time.Duration(t.until - e.now).Seconds())
	if s := e.sources.get(t.key); s != nil {
		v.Score = ban.Round(float64(s.observed * e.decayFactor(e.now-s.seen)))
	}
	return v
}

// Allowed returns the allow list in order.
func (e *Engine) Allowed() []ban.Exemption { return viewPrefixes(&e.allow) }

// Protected returns what Asterisk knows as trunks and contacts.
func (e *Engine) Protected() []ban.Exemption { return viewPrefixes(&e.protected) }

func viewPrefixes(p *table.Prefixes[[]origin]) []ban.Exemption {
	out := []ban.Exemption{}
	for _, prefix := range p.Sorted() {
		for _, o := range p.At(prefix) {
			out = append(out, viewOrigin(prefix, o))
		}
	}
	return out
}

func viewOrigin(p netip.Prefix, o origin) ban.Exemption {
	v := ban.Exemption{Prefix: p, Origin: o.name, Note: o.note}
	if o.until != 0 {
		at := stamp(o.until)
		v.Until = &at
	}
	return v
}

// Stats counts at now.
func (e *Engine) Stats(now time.Time) Stats {
	e.advance(now)
	s := Stats{Sources: e.sources.len(), Bans: e.enforced, Bans6: e.enforced6, Observed: len(e.bans) - e.enforced, Evicted: e.evicted,
		Limited: make(map[string]int, len(e.limited)), Suspended: e.suspended}
	for _, t := range e.trusts {
		if t.until > e.now {
			s.Trusted++
		}
	}
	for k, n := range e.limited {
		s.Limited[k] = n
	}
	e.leakStats(&s)
	return s
}

// Why explains what is known of an address, and what would change it. It changes nothing.
func (e *Engine) Why(now time.Time, a netip.Addr) Explanation {
	e.advance(now)
	a = a.Unmap().WithZone("")
	k := e.keyOf(a)
	x := Explanation{
		Address: a, Source: e.prefixOf(k), Verdict: "unknown", Threshold: e.cfg.Threshold,
		HalfLife: e.cfg.HalfLife.Seconds(), Evidence: []ban.Evidence{}, Lines: []string{},
	}
	w := why{e: e, Explanation: &x, addr: a, source: e.sources.get(k)}
	w.collect(k)
	switch x.Verdict {
	case "protected", "allowed":
		w.exempt()
	case "banned", "observed":
		w.banned()
	case "trusted":
		w.trusted(e.trusts[k])
	case "suspicious":
		w.suspicious()
	default:
		w.say("nothing is known of %v: no event named it lately, and nothing bans it", a)
	}
	w.hints()
	return x
}

// why is an explanation in the making.
type why struct {
	e *Engine
	*Explanation
	addr   netip.Addr
	source *source // nil if unknown
	left   float64 // of the source's score, enforced evidence only, now
}

func (w *why) say(format string, args ...any) {
	w.Lines = append(w.Lines, fmt.Sprintf(format, args...))
}

// collect gathers the facts. Of several verdicts the strongest stays: exempt, banned, trusted, suspicious.
func (w *why) collect(k key) {
	if s := w.source; s != nil {
		w.Verdict = "suspicious"
		fade := w.e.decayFactor(w.e.now - s.seen)
		w.left = float64(s.score * fade)
		w.Score, w.Attempts, w.Bans = ban.Round(float64(s.observed*fade)), int(s.attempts), int(s.bans)
		records, more := w.e.evidence.Chain(s.key, s.evidence, maxEvidence)
		for i := range records {
			w.Evidence = append(w.Evidence, ban.Evidence{})
			w.e.fillEvidence(&records[i], &w.Evidence[i])
		}
		if more {
			w.Lost = max(1, w.Attempts-len(records))
		}
	}
	if t := w.e.trusted(k); t != nil {
		v := w.e.viewTrust(t)
		w.Trust, w.Verdict = &v, "trusted"
	}
	if b := w.e.banCovering(w.addr); b != nil {
		v := w.e.viewBan(b, true)
		w.Ban, w.Verdict = &v, "banned"
		if b.observed {
			w.Verdict = "observed"
		}
		if len(w.Evidence) == 0 && v.Evidence != nil {
			w.Evidence = v.Evidence
		}
	}
	if p, ok := w.e.grace.Containing(w.e.prefixOf(k)); ok && w.e.grace.At(p) > w.e.now {
		at := stamp(w.e.grace.At(p))
		w.Grace = &at
	}
	if p, ok := w.e.allow.Covering(w.addr); ok {
		o := longestOrigin(w.e.allow.At(p))
		v := viewOrigin(p, o)
		w.Allow, w.Verdict = &v, "allowed"
	}
	if p, ok := w.e.protected.Covering(w.addr); ok {
		o := w.e.protected.At(p)[0]
		v := viewOrigin(p, o)
		w.Allow, w.Verdict = &v, "protected"
	}
}

func (w *why) exempt() {
	note := ""
	if w.Allow.Note != "" {
		note = " (" + strconv.Quote(w.Allow.Note) + ")"
	}
	if w.Verdict == "protected" {
		w.say("never banned: Asterisk %q knows %s as a trunk%s", w.Allow.Origin, w.Allow.Prefix, note)
	} else {
		w.say("never banned: %s is on the allow list, by %q%s", w.Allow.Prefix, w.Allow.Origin, note)
		if w.Allow.Until != nil {
			w.say("that ends at %s; to end it now: ringwall allow del %s", clock(*w.Allow.Until), w.Allow.Prefix)
		} else if w.Allow.Origin == OriginManual {
			w.say("that is until somebody says: ringwall allow del %s", w.Allow.Prefix)
		}
	}
	if b := w.Ban; b != nil && !b.Observed {
		w.say("the ban of %s does not reach it: the firewall lets it pass first", b.Prefix)
	}
	w.arithmetic()
}

func (w *why) banned() {
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
		w.say("%s would be banned from %s until %s (%s): %s", b.Prefix, clock(b.Since), clock(b.Until), span(until), reason)
		w.say("nothing is in the firewall: policy.mode or policy.services says observe")
	} else {
		w.say("%s is banned from %s until %s (%s): %s", b.Prefix, clock(b.Since), clock(b.Until), span(until), reason)
	}
	if b.Leak != nil {
		w.say("THE BAN DOES NOT KEEP IT OUT: %s since then got through to %s, the last at %s; ringwall doctor looks why",
			plural(b.Leak.Events, "event"), b.Leak.Where(), clock(b.Leak.Last))
	}
	own := !b.Manual && b.Reason != ban.ReasonAdopted && b.Reason != ban.ReasonNetwork
	if own {
		w.say("its score was %.1f then; the threshold is %g", b.Score, w.Threshold)
	}
	if len(b.Accounts) > 0 {
		w.say("%s tried: %s", plural(len(b.Accounts), "account name"), quoted(b.Accounts, 8))
	}
	w.arithmetic()
	if own && !b.Proven {
		w.say("the address could have been forged (UDP): such a ban lasts %s at most", span(w.e.cfg.Ban.ForgeableMax))
	}
	if own && !b.Observed {
		w.say("the next ban within %s after this one would last %s", span(w.e.cfg.Ban.Memory), span(w.e.duration(b.Number, b.Proven)))
	}
	if !b.Observed {
		w.say("to end it now: ringwall unban %s", b.Prefix)
	}
	if own {
		w.say("to never ban it again: ringwall allow add %v", w.addr)
	}
}

func (w *why) trusted(t *trust) {
	w.say("trusted until %s: %s logged in from there with a password: %s", clock(w.Trust.Until),
		plural(len(w.Trust.Accounts), "account"), quoted(w.Trust.Accounts, 8))
	w.arithmetic()
	foreign := 0
	for _, f := range t.fails {
		if f.foreign && w.e.now-f.at < int64(w.e.cfg.Trust.TTL) {
			foreign++
		}
	}
	if foreign > 0 {
		w.say("%s that never logged in from there failed within %s", plural(foreign, "account"), span(w.e.cfg.Trust.TTL))
	}
	w.say("trust would end at %g points, or with more than %d failing accounts that never logged in from there, over TCP, TLS or WebSocket",
		w.e.cfg.Threshold*w.e.cfg.Trust.Tolerance, w.e.cfg.Trust.Accounts)
}

func (w *why) suspicious() {
	if left := w.Threshold - w.left; left > 0 {
		udp, proven := span(w.e.duration(w.Bans, false)), span(w.e.duration(w.Bans, true))
		if udp != proven {
			udp += ", or " + proven + " over TCP, TLS or WebSocket"
		}
		w.say("not banned: %.1f points more would ban it for %s", left, udp)
	} else if w.Grace == nil {
		w.say("not banned, though it has the points: the next piece of evidence decides")
	}
	w.arithmetic()
	if w.Score >= 0.1 {
		quiet := time.Duration(math.Log2(w.Score/0.1) * float64(w.e.cfg.HalfLife))
		w.say("forgiven after about %s without another attempt", span(max(quiet.Round(time.Minute), time.Minute)))
	}
	if w.source.open > 0 {
		w.say("%s may wait up to %s for a login", plural(int(w.source.open), "request"), span(w.e.cfg.Challenges.AnswerWithin))
	}
}

// arithmetic says how the score came about: what the evidence gave, and what time has left of it.
func (w *why) arithmetic() {
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
		w.say("%s gave %.1f points within %s; half of what there is decays every %s: %.1f are left", plural(n, "event"), sum,
			span(max(last.Sub(first).Round(time.Second), time.Second)), span(w.e.cfg.HalfLife), w.Score)
	}
	w.places()
	if spared := len(w.Evidence) - n; spared > 0 {
		w.say("%s gave no points, see the notes", plural(spared, "event"))
	}
	if w.Score-w.left >= 0.05 {
		w.say("only %.1f of them count: the rest is observed, not enforced", w.left)
	}
	if w.Lost > 0 {
		w.say("older evidence is no longer kept")
	}
}

// hints says what a person should do about the latest events.
func (w *why) hints() {
	const mend = "account %s has a wrong password, and tries no faster than a phone does: mend it in the phone"
	hints := map[string]string{
		noteTexts[notePace]:          mend,
		noteTexts[noteKnownHere]:     mend,
		noteTexts[noteRoaming]:       mend,
		noteTexts[noteBreach]:        "account %s logged in right after guessing: change its password",
		noteTexts[noteMisconfigured]: "account %s: Asterisk refuses requests because of its set-up, see its log",
		noteTexts[noteTargeted]:      "account %s is being guessed from many sources: make sure that its password is strong",
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
		w.say("%s", line)
	}
	if w.Grace != nil {
		w.say("a person unbanned it: not banned again before %s", clock(*w.Grace))
	}
	if w.e.stormy() {
		w.say("many known good sources fail at the moment: those are not banned")
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
	case ban.ReasonDistributed:
		return "a wrong password for an account that many sources guess"
	case ban.ReasonAdopted:
		return "found in the firewall at the start"
	}
	return ""
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// quoted lists up to n names from the wire.
func quoted(names []string, n int) string {
	var b strings.Builder
	for i, name := range names {
		if i == n {
			fmt.Fprintf(&b, " and %d more", len(names)-n)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(name))
	}
	return b.String()
}

// span writes a duration without the zeros at its end: 24h, not 24h0m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ClockFormat is how the lines of an Explanation write times, which are in UTC: whoever shows them may put in their place what
// the reader's clock says.
const ClockFormat = "2006-01-02 15:04:05 MST"

func clock(t time.Time) string { return t.UTC().Format(ClockFormat) }
