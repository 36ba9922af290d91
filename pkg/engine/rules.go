package engine

import (
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

// kind is how an event is judged.
type kind uint8

const (
	nothing       kind = iota
	login              // a password was right
	challenge          // credentials were asked for; says something only when no answer comes
	attempt            // hostile by itself; repeats within one dialogue are retransmissions
	guess              // a wrong answer; each distinct answer is one guess
	connection         // hostile by itself, over TCP: there are no retransmissions
	misconfigured      // an error of set-up, reported and never scored
)

// unknown is the account that PJSIP names where it found no endpoint (res_pjsip/pjsip_distributor.c).
const unknown = "<unknown>"

// What an account may be in a rule, besides a name: texts with a NUL, which ends Asterisk's.
const (
	anonymous = "\x00"
	named     = "\x00\x00"
)

// rule is one row of the evidence table. The first row that fits an event decides.
type rule struct {
	service security.Service
	typ     security.Type
	name    string // ACLName; empty fits every name
	account string // empty fits every AccountID; anonymous and named fit an empty one and any other
	kind    kind
	reason  ban.Reason
}

// evidenceTable says what each event of Asterisk 16 to 22 is worth. An event without a row is worth nothing; it is
// counted by the metrics all the same.
func evidenceTable() []rule {
	return []rule{
		{security.PJSIP, security.SuccessfulAuth, "", "", login, ban.ReasonLogin},
		{security.PJSIP, security.ChallengeSent, "", "", challenge, ban.ReasonUnansweredChallenge},
		{security.PJSIP, security.InvalidAccountID, "", "", attempt, ban.ReasonUnknownAccount},
		{security.PJSIP, security.ChallengeResponseFailed, "", unknown, guess, ban.ReasonUnknownAccount},
		{security.PJSIP, security.ChallengeResponseFailed, "", "", guess, ban.ReasonWrongPassword},
		{security.PJSIP, security.FailedACL, "not_match_endpoint_acl", "", attempt, ban.ReasonACL},
		{security.PJSIP, security.FailedACL, "not_match_endpoint_contact_acl", "", attempt, ban.ReasonACL},
		{security.PJSIP, security.FailedACL, "", "", misconfigured, ban.ReasonConfiguration}, // registrar_*: after a right password
		{security.PJSIP, security.RequestNotSupported, "", "", misconfigured, ban.ReasonConfiguration},

		// The address that chan_sip reports is the attacker's choice (Via with maddr): observed by default, never proven.
		{security.SIP, security.InvalidAccountID, "", "", attempt, ban.ReasonUnknownAccount},
		{security.SIP, security.ChallengeResponseFailed, "", "", guess, ban.ReasonWrongPassword},
		{security.SIP, security.InvalidPassword, "", "", guess, ban.ReasonWrongPassword},
		{security.SIP, security.FailedACL, "device_must_match_acl", "", attempt, ban.ReasonACL},
		{security.SIP, security.FailedACL, "domain_must_match", "", attempt, ban.ReasonACL},
		{security.SIP, security.FailedACL, "no_extension_match", "", nothing, ""}, // a wrong number, dialled by a good phone
		{security.SIP, security.FailedACL, "", "", misconfigured, ban.ReasonConfiguration},
		{security.SIP, security.InvalidTransport, "", "", misconfigured, ban.ReasonConfiguration},

		{security.AMI, security.InvalidAccountID, "", "", connection, ban.ReasonManager},
		{security.AMI, security.InvalidPassword, "", "", connection, ban.ReasonManager},
		{security.AMI, security.ChallengeResponseFailed, "", "", connection, ban.ReasonManager},
		{security.AMI, security.FailedACL, "", "", connection, ban.ReasonManager},
		{security.AMI, security.RequestNotAllowed, "", anonymous, attempt, ban.ReasonManager}, // before login
		{security.AMI, security.RequestNotAllowed, "", named, misconfigured, ban.ReasonConfiguration},
		{security.AMI, security.RequestBadFormat, "", anonymous, attempt, ban.ReasonManager}, // an HTTP scan of the AMI port
		{security.AMI, security.RequestBadFormat, "", named, misconfigured, ban.ReasonConfiguration},
	}
}

const (
	services = int(security.IAX2) + 1
	types    = int(security.InvalidTransport) + 1
)

// ruleIndex holds the rows of the evidence table by service and type.
type ruleIndex [services][types][]rule

func indexRules() (index ruleIndex) {
	for _, r := range evidenceTable() {
		index[r.service][r.typ] = append(index[r.service][r.typ], r)
	}
	return index
}

// find finds the row for an event, or nil.
func (x *ruleIndex) find(ev *security.Event) *rule {
	if int(ev.Service) >= services || int(ev.Type) >= types {
		return nil
	}
	rows := x[ev.Service][ev.Type]
	for i := range rows {
		r := &rows[i]
		if r.name != "" && r.name != ev.ACLName {
			continue
		}
		if r.account == "" || r.account == ev.Account ||
			r.account == anonymous && ev.Account == "" || r.account == named && ev.Account != "" {
			return r
		}
	}
	return nil
}

// points is what the policy gives for a reason.
func points(p *policy.Points, r ban.Reason) float64 {
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
