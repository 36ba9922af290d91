package event

import "strings"

// field is an information element of a security event: a header of an AMI frame, a key of a log line.
type field uint8

const (
	fEventTV field = iota
	fSeverity
	fService
	fEventVersion
	fAccountID
	fSessionID
	fLocalAddress
	fRemoteAddress
	fACLName
	fRequestType
	fRequestParams
	fAuthMethod
	fUsingPassword
	fExpectedAddress
	fChallenge
	fResponse
	fExpectedResponse
	fReceivedChallenge
	fReceivedHash
	fAttemptedTransport
	fModule
	fSessionTV
	numFields
)

// fieldHeaders are the names of Asterisk's main/event.c, with the separator of an AMI header.
var fieldHeaders = [numFields]string{
	"EventTV: ", "Severity: ", "Service: ", "EventVersion: ", "AccountID: ", "SessionID: ", "LocalAddress: ",
	"RemoteAddress: ", "ACLName: ", "RequestType: ", "RequestParams: ", "AuthMethod: ", "UsingPassword: ",
	"ExpectedAddress: ", "Challenge: ", "Response: ", "ExpectedResponse: ", "ReceivedChallenge: ", "ReceivedHash: ",
	"AttemptedTransport: ", "Module: ", "SessionTV: ",
}

// fieldOf returns the field of a key, or numFields.
func fieldOf(key string) field {
	for f, header := range fieldHeaders {
		if len(header) == len(key)+len(": ") && strings.HasPrefix(header, key) {
			return field(f)
		}
	}
	return numFields
}

// onlyInSecurityEvents says whether a header of this name is found in security events only: no other event or reply of
// Asterisk 16 to 22 has it. Challenge, Response, Service, Severity and Module are too common.
func (f field) onlyInSecurityEvents() bool {
	switch f {
	case fService, fSeverity, fChallenge, fResponse, fModule, numFields:
		return false
	}
	return true
}

// headerRule says that a header comes next in an event, and whether it may be left out.
type headerRule struct {
	field    field
	presence presence
}

type presence uint8

const (
	required presence = iota
	optional
	requiredInFrame // Asterisk 1.8, which has no security events on AMI, leaves it out of its log
)

// headersWith returns the headers of an event: those that all have, then its own.
func headersWith(own ...headerRule) []headerRule {
	return append([]headerRule{
		{fEventTV, required}, {fSeverity, required}, {fService, required}, {fEventVersion, required},
		{fAccountID, required}, {fSessionID, required}, {fLocalAddress, required}, {fRemoteAddress, required},
	}, own...)
}

// headersOf are the headers of each type in their order: required_ies, then optional_ies, of sec_events in Asterisk's
// main/security_events.c. They are the same in the branches 11, 13, 16, 18, 20 and 22.
var headersOf = [numTypes][]headerRule{
	FailedACL: headersWith(headerRule{fModule, optional}, headerRule{fACLName, optional},
		headerRule{fSessionTV, optional}),
	InvalidAccountID: headersWith(headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	SessionLimit:     headersWith(headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	MemoryLimit:      headersWith(headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	LoadAverageLimit: headersWith(headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	RequestNotSupported: headersWith(headerRule{fRequestType, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	RequestNotAllowed: headersWith(headerRule{fRequestType, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}, headerRule{fRequestParams, optional}),
	AuthMethodNotAllowed: headersWith(headerRule{fAuthMethod, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	RequestBadFormat: { // the one event whose account is optional, and therefore among the last
		{fEventTV, required}, {fSeverity, required}, {fService, required}, {fEventVersion, required},
		{fSessionID, required}, {fLocalAddress, required}, {fRemoteAddress, required}, {fRequestType, required},
		{fModule, optional}, {fSessionTV, optional}, {fAccountID, optional}, {fRequestParams, optional},
	},
	SuccessfulAuth: headersWith(headerRule{fUsingPassword, requiredInFrame},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	UnexpectedAddress: headersWith(headerRule{fExpectedAddress, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	ChallengeResponseFailed: headersWith(headerRule{fChallenge, required}, headerRule{fResponse, required},
		headerRule{fExpectedResponse, required}, headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	InvalidPassword: headersWith(headerRule{fModule, optional}, headerRule{fSessionTV, optional},
		headerRule{fChallenge, optional}, headerRule{fReceivedChallenge, optional},
		headerRule{fReceivedHash, optional}),
	ChallengeSent: headersWith(headerRule{fChallenge, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
	InvalidTransport: headersWith(headerRule{fAttemptedTransport, required},
		headerRule{fModule, optional}, headerRule{fSessionTV, optional}),
}

// typeOf returns the type of a security event's name, or UnknownType: Asterisk writes no event for what other senses
// tell.
func typeOf(name string) Type {
	for t := UnknownType + 1; t.IsSecurityEvent(); t++ {
		if typeNames[t] == name {
			return t
		}
	}
	return UnknownType
}
