package engine

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	maxRecords       = 1 << 16 // pieces of evidence kept, of all sources together
	nameBytes        = 39      // of an account name kept, so that a record is 72 bytes; PJSIP sends 36 at most
	recordsPerBan    = 16      // pieces of evidence that a ban keeps
	recordsOfAllBans = 1 << 18 // pieces of evidence that all bans keep together
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
	noteDevice
	noteProxy
	noteCustomersMark
	noteCustomersMistake
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
	"one account at a device's pace: a device whose set-up is old, not a scan",
	"many customers log in through the source: a proxy is never banned as a whole",
	"a scanner's mark, but from a customer's address",
	"a customer's mistake: somebody logged in from there",
}

// record is one piece of evidence.
type record struct {
	at         int64
	points     float32
	score      float32
	multiplier multiplier
	typ        event.Type
	service    event.Service
	transport  event.Transport
	seenBy     event.Sensor
	reason     uint8 // index in reasonList
	note       note
	pbx        uint8
	proven     bool
	length     uint8 // of the account; over nameBytes where it was cut
	account    [nameBytes]byte
}

// reasonList gives the reasons a byte each, by which records keep them.
var reasonList = ban.Reasons()

// reasonIndex is where a reason is in reasonList.
func reasonIndex(r ban.Reason) uint8 { return uint8(max(0, slices.Index(reasonList, r))) }

// accountName is the account of a record, of a long name its beginning.
func (r *record) accountName() string {
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

// fillEvidence writes a record as evidence, into what may have room for it already: a ban.Evidence is too large to be
// copied for each event of each ban.
func (e *Engine) fillEvidence(r *record, v *ban.Evidence) {
	v.Time, v.Event, v.Service, v.Transport = utcTime(r.at), r.typ.String(), r.service.String(), r.transport.String()
	v.Account, v.Reason, v.SeenBy = r.accountName(), reasonList[r.reason], ""
	if r.seenBy != event.ByAMI {
		v.SeenBy = r.seenBy.String()
	}
	v.Points, v.Score = ban.Round(float64(r.points)), ban.Round(float64(r.score))
	v.Proven, v.PBX, v.Note, v.Country = r.proven, e.pbxName(r.pbx), noteTexts[r.note], ""
	r.multiplier.describe(v)
}

// recordEvidence keeps the event as evidence against its source, and in the active ban of the source, which it returns,
// or nil.
func (j *judgement) recordEvidence(s *source, points float64, reason ban.Reason, n note) (b *activeBan) {
	if s == nil {
		return nil
	}
	r, number := j.engine.evidence.Add(s.key, s.latestRecord)
	s.latestRecord = number
	r.at, r.points, r.score, r.multiplier = j.now, float32(points), s.observedScore, j.multiplied
	r.typ, r.service, r.transport = j.event.Type, j.event.Service, j.event.Remote.Transport
	r.seenBy = j.event.SeenBy
	r.reason, r.note, r.pbx, r.proven = reasonIndex(reason), n, j.pbx, j.proven
	r.length = uint8(min(len(j.account), nameBytes+1))
	copy(r.account[:], j.account)
	if s.banned {
		b = j.engine.activeBanOf(j.key)
	}
	if b != nil && j.engine.banRecords < recordsOfAllBans && len(b.evidence) < recordsPerBan {
		b.evidence = append(b.evidence, *r)
		j.engine.banRecords++
	}
	return b
}

// utcTime is a time of the engine for others.
func utcTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// utcOrZero is utc, but the zero time where there is none.
func utcOrZero(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return utcTime(at)
}
