package engine

import (
	"github.com/ringwall/ringwall/pkg/security"
)

// dialogueEntry returns what is remembered of the attempt under a number: the dialogue's own entry, or another one where
// that has something else already.
func (j *judgement) dialogueEntry(id uint64) *dialogue {
	if !j.stateLoaded || j.state == nil {
		j.state, _ = j.engine.dialogues.Put(j.now, j.dialogueKey())
		j.stateLoaded = true
	}
	mark := uint32(id>>32) | 1
	d := j.state
	if d.firstMark != 0 && d.firstMark != mark { // another one in this Call-ID: it has an entry of its own
		if d, _ = j.engine.dialogues.Put(j.now, id); d.firstMark == 0 {
			j.stateLoaded = false // the new entry may have taken the other's place
		}
	}
	return d
}

// dialogue is what is remembered of one attempt: a Call-ID of a source and the first request or answer in it, or
// another one in the same Call-ID.
type dialogue struct {
	creditedPoints float32 // points given that a wrong answer in the same dialogue does not earn again
	firstMark      uint32  // mark of the first request or answer, 0 for none

	firstAnswerAt, lastAnswerAt uint32 // of an answer: when it came first, and the latest time, in milliseconds around 2³²
	repeats                     uint8  // of a request, or of an answer when a retransmission was due

	onlyChallenged bool // the first was a ChallengeSent for "<unknown>" alone
}

// dialogueKey identifies the attempt: the source and the SessionID. AMI's is a pointer that the next connection uses again,
// so the port counts there too.
func (j *judgement) dialogueKey() uint64 {
	if j.dialogueHash == 0 {
		j.dialogueHash = j.engine.hashDialogue(j.event, j.key, j.pbx)
	}
	return j.dialogueHash
}

func (e *Engine) hashDialogue(ev *security.Event, from sourceKey, pbx uint8) uint64 {
	x := uint64(ev.Service)<<8 | uint64(pbx)
	if ev.Service == security.AMI {
		x |= uint64(ev.Remote.AddrPort.Port()) << 16
	}
	return e.hash(forDialogue, from, e.combine(e.hashText(ev.Session), x))
}

// dialogueState returns what is remembered of the attempt, or nil. It is looked up once.
func (j *judgement) dialogueState() *dialogue {
	if !j.stateLoaded {
		j.state, j.stateLoaded = j.engine.dialogues.Get(j.now, j.dialogueKey()), true
	}
	return j.state
}

// firstSighting is true for the first of a request and its retransmissions.
func (j *judgement) firstSighting(id uint64) bool {
	mark := uint32(id>>32) | 1
	d := j.dialogueEntry(id)
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

// creditDialogue notes points that the dialogue has cost already.
func (j *judgement) creditDialogue(points float64) {
	if j.dialogueState() == nil {
		j.state, _ = j.engine.dialogues.Put(j.now, j.dialogueKey())
	}
	j.state.creditedPoints += float32(points)
}
