package wording

import (
	"cmp"
	"fmt"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

const maxReason = 200 // columns of what a person wrote

// atNode says at which node of a fleet it was, if not at this one.
func atNode(origin string) string {
	if origin == "" {
		return ""
	}
	return " at " + printable.String(origin)
}

// VerdictSentence is the answer to "why" in one sentence. The function clock writes a time for the reader.
func VerdictSentence(ex engine.Explanation, clock func(time.Time) string) string {
	switch {
	case ex.Ban != nil && ex.Verdict == "banned":
		return fmt.Sprintf("%s is banned%s until %s, for another %s%s: %s.", ex.Address, withNetwork(ex),
			clock(ex.Ban.Until), humanize.Duration(humanize.FromSeconds(ex.Ban.Left)), closed(ex.Ban), BanCause(ex.Ban))
	case ex.Ban != nil && ex.Verdict == "observed":
		return fmt.Sprintf("%s would be banned until %s, but Ringwall only observes: %s.", ex.Address,
			clock(ex.Ban.Until), BanCause(ex.Ban))
	case ex.Trust != nil && ex.Verdict == "trusted":
		return fmt.Sprintf("%s is not banned, and trusted until %s: %s logged in from there with the right password%s.",
			ex.Address, clock(ex.Trust.Until), cmp.Or(humanize.Names(ex.Trust.Accounts, 5), "a user"),
			atNode(ex.Trust.Origin))
	case ex.Verdict == "allowed":
		return fmt.Sprintf("%s is never banned: it is on the allow list%s.", ex.Address, entryNote(ex.Allow))
	case ex.Verdict == "protected":
		return fmt.Sprintf("%s is never banned: Asterisk knows it%s.", ex.Address, entryNote(ex.Allow))
	case listedBy(ex) != "":
		return fmt.Sprintf("%s is kept out by the list %s.", ex.Address, listedBy(ex))
	case ex.Verdict == "unknown":
		return fmt.Sprintf("%s is not banned: Ringwall has seen nothing from it.", ex.Address)
	}
	return fmt.Sprintf("%s is not banned: its score is %s of %s points.", ex.Address, humanize.Score(ex.Score),
		humanize.Number(ex.Threshold))
}

// closed says what a ban closes, where that is not all of telephony.
func closed(b *ban.Ban) string {
	if only := ClosesOnly(b.Closes); only != "" {
		return " (" + only + ")"
	}
	return ""
}

// withNetwork names the network where more than the source itself is banned.
func withNetwork(ex engine.Explanation) string {
	if ex.Ban.Prefix == ex.Source || humanize.Prefix(ex.Ban.Prefix) == ex.Address.String() {
		return ""
	}
	return " with all of " + ex.Ban.Prefix.String()
}

// BanCause says what led to a ban.
func BanCause(b *ban.Ban) string {
	if b.Manual {
		if b.Comment != "" {
			return "by hand, \"" + printable.Limit(b.Comment, maxReason) + "\""
		}
		return "by hand"
	}
	if b.Origin != "" {
		s := humanize.Words(b.Reason) + ", seen by " + printable.String(b.Origin)
		if b.Comment != "" {
			s += " (" + printable.Limit(b.Comment, maxReason) + ")"
		}
		return s
	}
	s := humanize.Words(b.Reason) + ", " + humanize.Plural(b.Attempts, "attempt", "attempts")
	if n := len(b.Accounts); n > 0 {
		s += " on " + humanize.Plural(n, "account", "accounts") + " (" + humanize.Names(b.Accounts, 5) + ")"
	}
	return s
}

func entryNote(v *ban.Exemption) string {
	if v == nil {
		return ""
	}
	s := " (" + v.Prefix.String() + ", from " + printable.String(v.Origin)
	if v.Note != "" {
		s += ": " + printable.Line(v.Note)
	}
	return s + ")"
}

// EvidenceNote is one line of the table of evidence: who reported it and what it means.
func EvidenceNote(e ban.Evidence) (by, note string) {
	by = printable.String(e.Service)
	if e.Transport != "" {
		by += "/" + printable.String(e.Transport)
	}
	if note = printable.Line(e.Note); note == "" {
		note = humanize.Words(e.Reason)
	}
	if place := engine.PointsArithmetic(&e); place != "" {
		note += ": " + place
	}
	if e.SeenBy != "" {
		note += " (seen by: " + printable.String(e.SeenBy) + ")"
	}
	return by, note
}

// listedBy is a list that keeps an address out, with its entry.
func listedBy(ex engine.Explanation) string {
	for _, l := range ex.Listed {
		if l.Enforced && !l.LeftOut {
			return printable.String(l.List) + " (" + humanize.Prefix(l.Prefix) + ")"
		}
	}
	return ""
}
