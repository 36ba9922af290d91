package engine

import "github.com/ringwall/ringwall/pkg/asterisk/event"

// dialogueTTL is how long one dialogue is one attempt: Timer B and F of RFC 3261 section 17.1 end a transaction after
// 64×T1 = 32 s, and an answer may be retransmitted for as long again.
const dialogueTTL = 64 * second

// dialogue is what is remembered of what one source sent with one SessionID, which is the Call-ID of PJSIP and
// chan_sip: of the first request or answer in it. Another one with the same SessionID has an entry of its own.
type dialogue struct {
	creditedPoints float32 // of a request, which a wrong answer in the same dialogue does not cost again
	name           uint32  // of an account that Asterisk does not have: number in Engine.dialogueNames, 0 for none
	firstMark      uint32  // of the hash of the first request or answer, 0 for none
	firstAnswerAt  uint32  // of an answer that is a guess: milliseconds
	lastAnswerAt   uint32  // the latest copy of it: milliseconds
	challenges     uint8   // for an account that Asterisk knows
	repeats        uint8   // copies of a request, or those of an answer that came when a retransmission was due
	onlyChallenged bool    // it began with a ChallengeSent for "<unknown>", and no InvalidAccountID or FailedACL before
}

// dialogueKey identifies the dialogue of the event in Engine.dialogues.
func (j *judgement) dialogueKey() uint64 {
	if j.dialogueHash == 0 {
		j.dialogueHash = j.engine.hashDialogue(j.event, j.key, j.pbx)
	}
	return j.dialogueHash
}

// hashDialogue makes a hash of a source and a SessionID. That of AMI is the address of a structure, which the next
// connection may have again, so the sender's port counts too.
func (e *Engine) hashDialogue(ev *event.Event, from sourceKey, pbx uint8) uint64 {
	x := uint64(ev.Service)<<8 | uint64(pbx)
	if ev.Service == event.AMI {
		x |= uint64(ev.Remote.AddrPort.Port()) << 16
	}
	return e.hash(forDialogue, from, e.combine(e.hashText(ev.Session), x))
}

// attemptHash identifies the request of the event within its dialogue: a scanner may try many accounts with one
// Call-ID.
func (j *judgement) attemptHash() uint64 {
	purpose := uint64(forAttempt)<<8 | uint64(reasonIndex(j.rule.reason))
	return j.engine.combine(j.dialogueKey()^purpose, j.accountNameHash())
}

// answerHash identifies the answer of the event within its dialogue.
func (j *judgement) answerHash() uint64 {
	e := j.engine
	answer := e.combine(e.hashText(j.event.Challenge), e.hashText(j.event.Response))
	return e.combine(j.dialogueKey()^uint64(forGuess)<<8, e.combine(answer, j.accountNameHash()))
}

// dialogueState returns what is remembered of the dialogue of the event, or nil. It is looked up once.
func (j *judgement) dialogueState() *dialogue {
	if !j.stateLoaded {
		j.state, j.stateLoaded = j.engine.dialogues.Get(j.now, j.dialogueKey()), true
	}
	return j.state
}

// ownDialogue is dialogueState, made if need be.
func (j *judgement) ownDialogue() *dialogue {
	if !j.stateLoaded || j.state == nil {
		j.state, _ = j.engine.dialogues.Put(j.now, j.dialogueKey())
		j.stateLoaded = true
	}
	return j.state
}

// dialogueEntry returns what is remembered of a request or an answer, by its hash: the dialogue's own entry, or another
// one where that is about something else already.
func (j *judgement) dialogueEntry(hash uint64) *dialogue {
	mark := uint32(hash>>32) | 1
	d := j.ownDialogue()
	if d.firstMark != 0 && d.firstMark != mark { // the dialogue began with something else
		if d, _ = j.engine.dialogues.Put(j.now, hash); d.firstMark == 0 {
			j.stateLoaded = false // the new entry may have taken the room of j.state
		}
	}
	return d
}

// firstSighting says whether a request, by its attemptHash or the like, is not a retransmission. A phone retransmits so
// often, and no more.
func (j *judgement) firstSighting(hash uint64) bool {
	mark := uint32(hash>>32) | 1
	d := j.dialogueEntry(hash)
	if d.firstMark == 0 {
		d.firstMark = mark
		return true
	}
	if d.repeats++; d.repeats > maxRetransmissions {
		d.repeats = 0
		return true
	}
	return false
}

// isNewChallenge counts a challenge, and says whether it is none for a retransmission.
func (d *dialogue) isNewChallenge() bool {
	d.challenges++
	return d.challenges%(maxRetransmissions+1) == 1
}

// creditDialogue notes points that the dialogue has cost by a request, for the answer that follows.
func (j *judgement) creditDialogue(points float64) {
	j.ownDialogue().creditedPoints += float32(points)
}
