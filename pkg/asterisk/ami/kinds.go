package ami

import "strings"

// The worth of a frame, from the least: in this order frames are given up where a queue is full.
const (
	worthLittle    = iota // an event that neither points nor trust come from
	worthUnknown          // no security event: of another class, or a fragment
	worthForgeable        // evidence that one UDP packet with a forged source makes, as many as anybody likes
	worthEvidence         // evidence against attackers
	worthTrust            // a login, without which a customer can be locked out
	worthState            // no frame but a change of state: never given up for a frame
)

// kinds are what frames are told apart by: the name that a frame which is given up is counted under, and its worth. All
// but the first two are security events of Asterisk (main/security_events.c).
var kinds = [...]struct {
	name  string
	worth int
}{
	{"other", worthUnknown},    // an event of any other name
	{"fragment", worthUnknown}, // no event at all, such as what an injected line break has torn off
	{"ChallengeSent", worthLittle},
	{"SuccessfulAuth", worthTrust},
	{"InvalidAccountID", worthEvidence},
	{"ChallengeResponseFailed", worthEvidence},
	{"InvalidPassword", worthEvidence},
	{"FailedACL", worthEvidence},
	{"RequestNotSupported", worthEvidence},
	{"RequestNotAllowed", worthEvidence},
	{"RequestBadFormat", worthEvidence},
	{"SessionLimit", worthLittle},
	{"InvalidTransport", worthLittle},
	{"MemoryLimit", worthLittle},
	{"LoadAverageLimit", worthLittle},
	{"AuthMethodNotAllowed", worthEvidence},
	{"UnexpectedAddress", worthEvidence},
}

// The rows of kinds that are no security events.
const (
	kindOther = iota
	kindFragment
	firstSecurityKind
)

const (
	eventPrefix   = "Event: "
	longestEvent  = len("ChallengeResponseFailed")
	remoteAddress = "\r\nRemoteAddress: "
)

// kindOf returns the row of kinds that a frame is of. Its first line alone decides.
func kindOf(text string) int {
	if !strings.HasPrefix(text, eventPrefix) {
		return kindFragment
	}
	name := text[len(eventPrefix):]
	if end := strings.IndexByte(name[:min(len(name), longestEvent+1)], '\r'); end >= 0 {
		name = name[:end]
	}
	for i := firstSecurityKind; i < len(kinds); i++ {
		if kinds[i].name == name {
			return i
		}
	}
	return kindOther
}

// worthOf returns the worth of a frame of that kind.
func worthOf(kind int, text string) int {
	if worth := kinds[kind].worth; worth != worthEvidence || !overUDP(text) {
		return worth
	}
	return worthForgeable
}

// overUDP says whether an event names a source that may be forged. What an attacker writes into it can only cost him
// his own event.
func overUDP(text string) bool {
	for {
		before, after, found := strings.Cut(text, "/UDP/")
		switch {
		case !found:
			return false
		case strings.HasSuffix(before, remoteAddress+"IPV4"), strings.HasSuffix(before, remoteAddress+"IPV6"):
			return true
		}
		text = after
	}
}
