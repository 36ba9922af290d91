package engine

import (
	"encoding/binary"
	"math"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/security"
)

const (
	ringSize  = 1 << 16 // pieces of evidence kept, of all sources together
	nameBytes = 40      // of an account name kept; PJSIP sends 36 at most
	ringPage  = 1 << 8  // of them in one piece of memory
	perBan    = 16      // pieces of evidence that a ban keeps
	banBudget = 1 << 18 // pieces of evidence that all bans keep together
)

// note says why a piece of evidence gave no points.
type note uint8

const (
	noNote note = iota
	noteAllowed
	noteProtected
	notePace
	noteRoaming
	noteCovered
	noteKnownHere
	noteObserved
	noteTargeted
	noteWithheld
	noteLogin
	noteUnanswered
	noteEnumeration
	noteMisconfigured
	noteBreach
	noteHostile
	notePossibleBreach
	noteCopies
	noteSuspected
)

var noteTexts = [...]string{
	"",
	"the allow list covers the source",
	"Asterisk knows the source as a trunk",
	"one account at a phone's pace: a phone with an old password, not a guesser",
	"the account logged in elsewhere within a day: allowance for a roaming user",
	"part of an attempt that was scored already",
	"the account has logged in from here before",
	"observed only, not enforced",
	"the account is being guessed from many sources: one failure is enough",
	"faster than a phone retries: the guesses before count too",
	"a right password",
	"no login answered the challenge in time",
	"challenges for many known accounts, none answered",
	"an error of set-up, not an attack",
	"a right password, but guessed: no trust",
	"bytes that no phone sends: a program that hides",
	"a right password for an account that is being guessed, from where it never was: no trust yet",
	"copies of one answer, more than a network makes: guesses",
	"the account may be under distributed guessing: no allowance for a phone's pace",
}

// record is one piece of evidence in the ring.
type record struct {
	at        int64
	before    uint32 // sequence number of the record before of the same source
	owner     uint32 // checksum of the source
	points    float32
	score     float32
	scaled    scaled
	typ       security.Type
	service   security.Service
	transport security.Transport
	reason    uint8 // index in reasonList
	note      note
	pbx       uint8
	proven    bool
	length    uint8 // of the account; over nameBytes where it was cut
	account   [nameBytes]byte
}

// reasonList gives reasons a byte each in records.
var reasonList = [...]ban.Reason{
	ban.ReasonUnknownAccount, ban.ReasonWrongPassword, ban.ReasonACL, ban.ReasonUnansweredChallenge, ban.ReasonManager, ban.ReasonHoneypot, ban.ReasonLogin, ban.ReasonDistributed, ban.ReasonConfiguration, ban.ReasonPace,
	ban.ReasonMalformed,
}

func reasonIndex(r ban.Reason) uint8 {
	for i, have := range reasonList {
		if have == r {
			return uint8(i)
		}
	}
	return 0
}

func (r *record) name() string {
	if int(r.length) > nameBytes {
		return trimPartialRune(string(r.account[:])) + "…"
	}
	return string(r.account[:r.length])
}

// trimPartialRune takes off the part of a character that a cut left at the end.
func trimPartialRune(name string) string {
	for range utf8.UTFMax - 1 {
		if r, n := utf8.DecodeLastRuneInString(name); r != utf8.RuneError || n != 1 {
			break
		}
		name = name[:len(name)-1]
	}
	return name
}

// fillEvidence writes a record as evidence, field by field: a whole ban.Evidence is too large to be copied for each event
// of each ban.
func (e *Engine) fillEvidence(r *record, v *ban.Evidence) {
	v.Time, v.Event, v.Service, v.Transport = stamp(r.at), r.typ.String(), r.service.String(), r.transport.String()
	v.Account, v.Reason = r.name(), reasonList[r.reason]
	v.Points, v.Score = ban.Round(float64(r.points)), ban.Round(float64(r.score))
	v.Proven, v.PBX, v.Note, v.Country = r.proven, e.pbxName(r.pbx), noteTexts[r.note], ""
	r.scaled.describe(v)
}

// record keeps the event as evidence, and returns the ban of the source where there is one.
func (j *judgement) record(s *source, w float64, reason ban.Reason, n note) (b *activeBan) {
	if s == nil {
		return nil
	}
	r := j.engine.ring.add(s)
	r.at, r.points, r.score, r.scaled = j.engine.now, float32(w), s.observed, j.scaled
	r.typ, r.service, r.transport = j.ev.Type, j.ev.Service, j.ev.Remote.Transport
	r.reason, r.note, r.pbx, r.proven = reasonIndex(reason), n, j.pbx, j.proven
	r.length = uint8(min(len(j.ev.Account), nameBytes+1))
	clear(r.account[copy(r.account[:], j.ev.Account):])
	if s.banned {
		b = j.engine.banOf(j.key)
	}
	if b != nil && j.engine.kept < banBudget && len(b.evidence) < perBan {
		b.evidence = append(b.evidence, *r)
		j.engine.kept++
	}
	return b
}

// ring holds the latest evidence of all sources, each source's as a chain from the latest back, in pages that come as they
// are needed and are never copied.
type ring struct {
	pages [ringSize / ringPage]*[ringPage]record
	seq   uint32 // of the latest; 0 for none
}

// at returns the place of a sequence number.
func (r *ring) at(seq uint32) *record {
	i := (seq - 1) % ringSize
	return &r.pages[i/ringPage][i%ringPage]
}

// add takes the place of the oldest record for a new one, to be filled in, and chains it to its source.
func (r *ring) add(s *source) *record {
	if r.seq == math.MaxUint32 { // the numbers are used up: start again, and let every chain end
		r.seq = 0
	}
	r.seq++
	if page := &r.pages[(r.seq-1)%ringSize/ringPage]; *page == nil {
		*page = new([ringPage]record)
	}
	rec := r.at(r.seq)
	rec.before, rec.owner = s.evidence, checksum(s.key)
	s.evidence = r.seq
	return rec
}

// chain returns up to n records of a source, oldest first, and whether there were older ones.
func (r *ring) chain(s *source, n int) (records []record, more bool) {
	owner := checksum(s.key)
	var found [maxEvidence]uint32 // sequence numbers, the latest first
	have := 0
	for seq := s.evidence; seq != 0; seq = r.at(seq).before {
		if have == min(n, len(found)) || seq > r.seq || r.seq-seq >= ringSize || r.at(seq).owner != owner {
			more = true
			break
		}
		found[have] = seq
		have++
	}
	if have == 0 {
		return nil, more
	}
	records = make([]record, have)
	for i, seq := range found[:have] {
		records[have-1-i] = *r.at(seq)
	}
	return records, more
}

// checksum folds a key: enough to notice that a slot of the ring belongs to another source by now.
func checksum(k key) uint32 {
	h := binary.LittleEndian.Uint64(k[:8]) ^ binary.LittleEndian.Uint64(k[8:])*0x9e3779b97f4a7c15
	return uint32(h>>32) ^ uint32(h)
}

func stamp(ns int64) time.Time { return time.Unix(0, ns).UTC() }
