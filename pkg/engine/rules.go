package engine

import (
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

// ruleKind is how an event is judged.
type ruleKind uint8

const (
	kindNothing       ruleKind = iota
	kindLogin                  // a password was right
	kindChallenge              // credentials were asked for; says something only when no answer comes
	kindAttempt                // hostile by itself; the same in one dialogue again is a retransmission
	kindGuess                  // a wrong answer; each distinct answer is one guess
	kindConnection             // hostile by itself, over TCP: there are no retransmissions
	kindMisconfigured          // an error of set-up, reported and never scored
)

// unknownAccount is the account that PJSIP names where it found no endpoint (res_pjsip/pjsip_distributor.c).
const unknownAccount = "<unknown>"

// What an account may be in a rule, besides a name: texts with a NUL, which no text of Asterisk's has.
const (
	emptyAccount = "\x00"
	someAccount  = "\x00\x00" // any but an empty one
)

// rule is one row of the evidence table. The first row that fits an event decides.
type rule struct {
	service security.Service
	typ     security.Type
	aclName string // empty fits every ACLName
	account string // empty fits every AccountID; see emptyAccount and someAccount
	kind    ruleKind
	reason  ban.Reason
}

// evidenceTable says what each event of Asterisk 16 to 22 is worth. An event without a row is worth nothing; it is
// counted by the metrics all the same.
func evidenceTable() []rule {
	return []rule{
		{security.PJSIP, security.SuccessfulAuth, "", "", kindLogin, ban.ReasonLogin},
		{security.PJSIP, security.ChallengeSent, "", "", kindChallenge, ban.ReasonUnansweredChallenge},
		{security.PJSIP, security.InvalidAccountID, "", "", kindAttempt, ban.ReasonUnknownAccount},
		{security.PJSIP, security.ChallengeResponseFailed, "", unknownAccount, kindGuess, ban.ReasonUnknownAccount},
		{security.PJSIP, security.ChallengeResponseFailed, "", "", kindGuess, ban.ReasonWrongPassword},
		{security.PJSIP, security.FailedACL, "not_match_endpoint_acl", "", kindAttempt, ban.ReasonACL},
		{security.PJSIP, security.FailedACL, "not_match_endpoint_contact_acl", "", kindAttempt, ban.ReasonACL},
		// registrar_*: after a right password
		{security.PJSIP, security.FailedACL, "", "", kindMisconfigured, ban.ReasonConfiguration},
		{security.PJSIP, security.RequestNotSupported, "", "", kindMisconfigured, ban.ReasonConfiguration},

		// The address that chan_sip reports is the attacker's choice (Via with maddr): observed by default, never
		// proven.
		{security.SIP, security.InvalidAccountID, "", "", kindAttempt, ban.ReasonUnknownAccount},
		{security.SIP, security.ChallengeResponseFailed, "", "", kindGuess, ban.ReasonWrongPassword},
		{security.SIP, security.InvalidPassword, "", "", kindGuess, ban.ReasonWrongPassword},
		{security.SIP, security.FailedACL, "device_must_match_acl", "", kindAttempt, ban.ReasonACL},
		{security.SIP, security.FailedACL, "domain_must_match", "", kindAttempt, ban.ReasonACL},
		{security.SIP, security.FailedACL, "no_extension_match", "", kindNothing, ""}, // a good phone dialled a wrong number
		{security.SIP, security.FailedACL, "", "", kindMisconfigured, ban.ReasonConfiguration},
		{security.SIP, security.InvalidTransport, "", "", kindMisconfigured, ban.ReasonConfiguration},

		{security.AMI, security.InvalidAccountID, "", "", kindConnection, ban.ReasonManager},
		{security.AMI, security.InvalidPassword, "", "", kindConnection, ban.ReasonManager},
		{security.AMI, security.ChallengeResponseFailed, "", "", kindConnection, ban.ReasonManager},
		{security.AMI, security.FailedACL, "", "", kindConnection, ban.ReasonManager},
		{security.AMI, security.RequestNotAllowed, "", emptyAccount, kindAttempt, ban.ReasonManager}, // before login
		{security.AMI, security.RequestNotAllowed, "", someAccount, kindMisconfigured, ban.ReasonConfiguration},
		// an HTTP scan of the AMI port
		{security.AMI, security.RequestBadFormat, "", emptyAccount, kindAttempt, ban.ReasonManager},
		{security.AMI, security.RequestBadFormat, "", someAccount, kindMisconfigured, ban.ReasonConfiguration},
	}
}

// ruleIndex holds the rows of the evidence table by service and type.
type ruleIndex [security.NumServices][security.NumTypes][]rule

func indexRules() (index ruleIndex) {
	for _, r := range evidenceTable() {
		index[r.service][r.typ] = append(index[r.service][r.typ], r)
	}
	return index
}

// find finds the row for an event, or nil.
func (x *ruleIndex) find(ev *security.Event) *rule {
	if int(ev.Service) >= security.NumServices || int(ev.Type) >= security.NumTypes {
		return nil
	}
	rows := x[ev.Service][ev.Type]
	for i := range rows {
		r := &rows[i]
		if r.aclName != "" && r.aclName != ev.ACLName {
			continue
		}
		if r.account == "" || r.account == ev.Account ||
			r.account == emptyAccount && ev.Account == "" || r.account == someAccount && ev.Account != "" {
			return r
		}
	}
	return nil
}

// pointsFor is what the policy gives for a reason.
func pointsFor(p *policy.Points, r ban.Reason) float64 {
	switch r {
	case ban.ReasonUnknownAccount:
		return p.UnknownAccount
	case ban.ReasonWrongPassword:
		return p.WrongPassword
	case ban.ReasonACL:
		return p.ACL
	case ban.ReasonUnansweredChallenge:
		return p.UnansweredChallenge
	case ban.ReasonManager:
		return p.Manager
	case ban.ReasonHoneypot:
		return p.Honeypot
	}
	return 0
}
