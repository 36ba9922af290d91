package ami

import "strings"

// Kinds of frames, as far as the queue must tell them apart. The order of the
// classes is the order in which frames are given up.
const (
	classLittle    = iota // neither points nor trust come from it alone
	classUnknown          // not a security event: other classes, fragments
	classForgeable        // evidence that one UDP packet with a forged source can make, as many as it likes
	classAttack           // the evidence against attackers
	classTrust            // losing it can lock a customer out
	classes
)

// kinds names what a dropped frame can be counted as, and its class.
var kinds = [...]struct {
	name  string
	class int
}{
	otherEvent: {"other", classUnknown}, // an event of another name
	fragment:   {"fragment", classUnknown},
	{"ChallengeSent", classLittle},
	{"SuccessfulAuth", classTrust},
	{"InvalidAccountID", classAttack},
	{"ChallengeResponseFailed", classAttack},
	{"InvalidPassword", classAttack},
	{"FailedACL", classAttack},
	{"RequestNotSupported", classAttack},
	{"RequestNotAllowed", classAttack},
	{"RequestBadFormat", classAttack},
	{"SessionLimit", classLittle},
	{"InvalidTransport", classLittle},
	{"MemoryLimit", classLittle},
	{"LoadAverageLimit", classLittle},
	{"AuthMethodNotAllowed", classAttack},
	{"UnexpectedAddress", classAttack},
}

// Of the kinds, those that are no security event.
const (
	otherEvent = iota
	fragment
)

// forgeable marks an index in kinds: the same event, over UDP.
const forgeable = 0x80

// classOf returns the class of an index in kinds, which may be marked.
func classOf(kind uint8) int {
	class := kinds[kind&^forgeable].class
	if class == classAttack && kind&forgeable != 0 {
		return classForgeable
	}
	return class
}

// overUDP says whether an event names a source that may be forged. It is asked only while the queue fills up, and what an
// attacker writes into it can only cost him his own event. Few bytes of an event are a slash, hence the way of searching.
func overUDP(text string) bool {
	for {
		i := strings.IndexByte(text, '/')
		if i < 0 {
			return false
		}
		head := text[:i]
		text = text[i+1:]
		if strings.HasPrefix(text, "UDP/") &&
			(strings.HasSuffix(head, "\r\nRemoteAddress: IPV4") || strings.HasSuffix(head, "\r\nRemoteAddress: IPV6")) {
			return true
		}
	}
}

const eventPrefix = "Event: "

// kindOf returns the index in kinds. It looks at the first line only.
func kindOf(text string) uint8 {
	if !strings.HasPrefix(text, eventPrefix) {
		return fragment
	}
	name := text[len(eventPrefix):]
	if i := strings.IndexByte(name[:min(len(name), 32)], '\r'); i >= 0 {
		name = name[:i]
	}
	for i := fragment + 1; i < len(kinds); i++ {
		if kinds[i].name == name {
			return uint8(i)
		}
	}
	return otherEvent
}
