package security

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
	switch key {
	case "EventTV":
		return fEventTV
	case "Severity":
		return fSeverity
	case "Service":
		return fService
	case "EventVersion":
		return fEventVersion
	case "AccountID":
		return fAccountID
	case "SessionID":
		return fSessionID
	case "LocalAddress":
		return fLocalAddress
	case "RemoteAddress":
		return fRemoteAddress
	case "ACLName":
		return fACLName
	case "RequestType":
		return fRequestType
	case "RequestParams":
		return fRequestParams
	case "AuthMethod":
		return fAuthMethod
	case "UsingPassword":
		return fUsingPassword
	case "ExpectedAddress":
		return fExpectedAddress
	case "Challenge":
		return fChallenge
	case "Response":
		return fResponse
	case "ExpectedResponse":
		return fExpectedResponse
	case "ReceivedChallenge":
		return fReceivedChallenge
	case "ReceivedHash":
		return fReceivedHash
	case "AttemptedTransport":
		return fAttemptedTransport
	case "Module":
		return fModule
	case "SessionTV":
		return fSessionTV
	}
	return numFields
}

// stray says whether a header of this name is found in security events only: no other event or reply of Asterisk 16
// to 22 has it. Challenge, Response, Service, Severity and Module are too common.
func (f field) stray() bool {
	switch f {
	case fService, fSeverity, fChallenge, fResponse, fModule, numFields:
		return false
	}
	return true
}

// slot is a place in the order of an event's headers.
type slot struct {
	field field
	need  need
}

type need uint8

const (
	required need = iota
	optional
	requiredInFrame // Asterisk 1.8, which has no security events on AMI, leaves it out of its log
)

// order builds the headers of an event: those that all have, its own, and the optional ones.
func order(own ...slot) []slot {
	return append([]slot{
		{fEventTV, required}, {fSeverity, required}, {fService, required}, {fEventVersion, required},
		{fAccountID, required}, {fSessionID, required}, {fLocalAddress, required}, {fRemoteAddress, required},
	}, own...)
}

// orders is the order of headers of each type: required_ies, then optional_ies, of sec_events in Asterisk's
// main/security_events.c. They are the same in the branches 11, 13, 16, 18, 20 and 22.
var orders = [numTypes][]slot{
	FailedACL:        order(slot{fModule, optional}, slot{fACLName, optional}, slot{fSessionTV, optional}),
	InvalidAccountID: order(slot{fModule, optional}, slot{fSessionTV, optional}),
	SessionLimit:     order(slot{fModule, optional}, slot{fSessionTV, optional}),
	MemoryLimit:      order(slot{fModule, optional}, slot{fSessionTV, optional}),
	LoadAverageLimit: order(slot{fModule, optional}, slot{fSessionTV, optional}),
	RequestNotSupported: order(slot{fRequestType, required},
		slot{fModule, optional}, slot{fSessionTV, optional}),
	RequestNotAllowed: order(slot{fRequestType, required},
		slot{fModule, optional}, slot{fSessionTV, optional}, slot{fRequestParams, optional}),
	AuthMethodNotAllowed: order(slot{fAuthMethod, required},
		slot{fModule, optional}, slot{fSessionTV, optional}),
	RequestBadFormat: { // the one event whose account is optional, and therefore among the last
		{fEventTV, required}, {fSeverity, required}, {fService, required}, {fEventVersion, required},
		{fSessionID, required}, {fLocalAddress, required}, {fRemoteAddress, required}, {fRequestType, required},
		{fModule, optional}, {fSessionTV, optional}, {fAccountID, optional}, {fRequestParams, optional},
	},
	SuccessfulAuth: order(slot{fUsingPassword, requiredInFrame},
		slot{fModule, optional}, slot{fSessionTV, optional}),
	UnexpectedAddress: order(slot{fExpectedAddress, required},
		slot{fModule, optional}, slot{fSessionTV, optional}),
	ChallengeResponseFailed: order(slot{fChallenge, required}, slot{fResponse, required},
		slot{fExpectedResponse, required}, slot{fModule, optional}, slot{fSessionTV, optional}),
	InvalidPassword: order(slot{fModule, optional}, slot{fSessionTV, optional},
		slot{fChallenge, optional}, slot{fReceivedChallenge, optional}, slot{fReceivedHash, optional}),
	ChallengeSent: order(slot{fChallenge, required},
		slot{fModule, optional}, slot{fSessionTV, optional}),
	InvalidTransport: order(slot{fAttemptedTransport, required},
		slot{fModule, optional}, slot{fSessionTV, optional}),
}

// typeOf returns the type of an event's name, or UnknownType.
func typeOf(name string) Type {
	switch name {
	case "FailedACL":
		return FailedACL
	case "InvalidAccountID":
		return InvalidAccountID
	case "SessionLimit":
		return SessionLimit
	case "MemoryLimit":
		return MemoryLimit
	case "LoadAverageLimit":
		return LoadAverageLimit
	case "RequestNotSupported":
		return RequestNotSupported
	case "RequestNotAllowed":
		return RequestNotAllowed
	case "AuthMethodNotAllowed":
		return AuthMethodNotAllowed
	case "RequestBadFormat":
		return RequestBadFormat
	case "SuccessfulAuth":
		return SuccessfulAuth
	case "UnexpectedAddress":
		return UnexpectedAddress
	case "ChallengeResponseFailed":
		return ChallengeResponseFailed
	case "InvalidPassword":
		return InvalidPassword
	case "ChallengeSent":
		return ChallengeSent
	case "InvalidTransport":
		return InvalidTransport
	}
	return UnknownType
}
