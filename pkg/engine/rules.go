package engine

import (
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
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
	kindRefused                // an error of set-up behind a right password; else an attempt where none is asked for

	// Of sensors:
	kindSilentGuess
	kindSilentLogin
	kindScanner
	kindProbe          // a customer's mistake, or a search
	kindRefusedAccount // wrong credentials; each distinct answer is one guess
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
	service event.Service
	typ     event.Type
	aclName string // empty fits every ACLName
	account string // empty fits every AccountID; see emptyAccount and someAccount
	kind    ruleKind
	reason  ban.Reason
}

// evidenceTable says what each event of Asterisk 16 to 22 is worth. An event without a row is worth nothing; it is
// counted by the metrics all the same.
func evidenceTable() []rule {
	return []rule{
		{event.PJSIP, event.SuccessfulAuth, "", "", kindLogin, ban.ReasonLogin},
		{event.PJSIP, event.ChallengeSent, "", "", kindChallenge, ban.ReasonUnansweredChallenge},
		{event.PJSIP, event.InvalidAccountID, "", "", kindAttempt, ban.ReasonUnknownAccount},
		{event.PJSIP, event.ChallengeResponseFailed, "", unknownAccount, kindGuess, ban.ReasonUnknownAccount},
		{event.PJSIP, event.ChallengeResponseFailed, "", "", kindGuess, ban.ReasonWrongPassword},
		{event.PJSIP, event.FailedACL, "not_match_endpoint_acl", "", kindAttempt, ban.ReasonACL},
		{event.PJSIP, event.FailedACL, "not_match_endpoint_contact_acl", "", kindAttempt, ban.ReasonACL},
		// registrar_*: after a right password, or from an endpoint without auth
		{event.PJSIP, event.FailedACL, "", "", kindRefused, ban.ReasonUnknownAccount},
		{event.PJSIP, event.RequestNotSupported, "", "", kindRefused, ban.ReasonUnknownAccount},

		// The address that chan_sip reports is the attacker's choice (Via with maddr): observed by default, never
		// proven.
		{event.SIP, event.SuccessfulAuth, "", "", kindLogin, ban.ReasonLogin},
		{event.SIP, event.InvalidAccountID, "", "", kindAttempt, ban.ReasonUnknownAccount},
		{event.SIP, event.ChallengeResponseFailed, "", "", kindGuess, ban.ReasonWrongPassword},
		{event.SIP, event.InvalidPassword, "", "", kindGuess, ban.ReasonWrongPassword},
		{event.SIP, event.FailedACL, "device_must_match_acl", "", kindAttempt, ban.ReasonACL},
		{event.SIP, event.FailedACL, "domain_must_match", "", kindAttempt, ban.ReasonACL},
		{event.SIP, event.FailedACL, "no_extension_match", "", kindNothing, ""}, // a good phone dialled a wrong number
		{event.SIP, event.FailedACL, "", "", kindMisconfigured, ban.ReasonConfiguration},
		{event.SIP, event.InvalidTransport, "", "", kindMisconfigured, ban.ReasonConfiguration},

		{event.AMI, event.InvalidAccountID, "", "", kindConnection, ban.ReasonManager},
		{event.AMI, event.InvalidPassword, "", "", kindConnection, ban.ReasonManager},
		{event.AMI, event.ChallengeResponseFailed, "", "", kindConnection, ban.ReasonManager},
		{event.AMI, event.FailedACL, "", "", kindConnection, ban.ReasonManager},
		{event.AMI, event.RequestNotAllowed, "", emptyAccount, kindAttempt, ban.ReasonManager}, // before login
		{event.AMI, event.RequestNotAllowed, "", someAccount, kindMisconfigured, ban.ReasonConfiguration},
		// an HTTP scan of the AMI port
		{event.AMI, event.RequestBadFormat, "", emptyAccount, kindAttempt, ban.ReasonManager},
		{event.AMI, event.RequestBadFormat, "", someAccount, kindMisconfigured, ban.ReasonConfiguration},

		// What no security event tells.
		{event.PJSIP, event.SilentGuess, "", "", kindSilentGuess, ban.ReasonSilentGuess},
		{event.PJSIP, event.SilentLogin, "", "", kindSilentLogin, ban.ReasonSilentLogin},
		{event.PJSIP, event.Probing, "", "", kindProbe, ban.ReasonProbing},
		{event.PJSIP, event.Scanner, "", "", kindScanner, ban.ReasonScanner},
		{event.PJSIP, event.MalformedRequest, "", "", kindProbe, ban.ReasonMalformedSIP},
		{event.PJSIP, event.DialplanReport, "", "", kindProbe, ban.ReasonDialplan},
		{event.SIP, event.SilentGuess, "", "", kindSilentGuess, ban.ReasonSilentGuess},
		{event.SIP, event.SilentLogin, "", "", kindSilentLogin, ban.ReasonSilentLogin},
		{event.SIP, event.Probing, "", "", kindProbe, ban.ReasonProbing},
		{event.SIP, event.Scanner, "", "", kindScanner, ban.ReasonScanner},
		{event.SIP, event.MalformedRequest, "", "", kindProbe, ban.ReasonMalformedSIP},
		{event.SIP, event.DialplanReport, "", "", kindProbe, ban.ReasonDialplan},
		{event.IAX2, event.IAXRefused, "", "", kindRefusedAccount, ban.ReasonIAX},
		{event.IAX2, event.DialplanReport, "", "", kindProbe, ban.ReasonDialplan},
		{event.HTTP, event.HTTPRefused, "", "", kindRefusedAccount, ban.ReasonHTTP},
	}
}

// ruleIndex holds the rows of the evidence table by service and type.
type ruleIndex [event.NumServices][event.NumTypes][]rule

func indexRules() (index ruleIndex) {
	for _, r := range evidenceTable() {
		index[r.service][r.typ] = append(index[r.service][r.typ], r)
	}
	return index
}

// find finds the row for an event, or nil.
func (x *ruleIndex) find(ev *event.Event) *rule {
	if int(ev.Service) >= event.NumServices || int(ev.Type) >= event.NumTypes {
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
func pointsFor(p *config.Points, r ban.Reason) float64 {
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
	case ban.ReasonSilentGuess:
		return p.SilentGuess
	case ban.ReasonProbing:
		return p.Probing
	case ban.ReasonScanner:
		return p.Scanner
	case ban.ReasonMalformedSIP:
		return p.MalformedSIP
	case ban.ReasonIAX:
		return p.IAX
	case ban.ReasonHTTP:
		return p.HTTP
	case ban.ReasonDialplan:
		return p.Dialplan
	}
	return 0
}
