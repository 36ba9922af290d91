package event

import (
	"net/netip"
	"slices"
	"time"
)

// Type is the kind of a security event, as listed in Asterisk's include/asterisk/security_events_defs.h.
type Type uint8

// The fifteen events of enum ast_security_event_type, in its order, and what other senses than security events tell.
const (
	UnknownType Type = iota
	FailedACL
	InvalidAccountID
	SessionLimit
	MemoryLimit
	LoadAverageLimit
	RequestNotSupported
	RequestNotAllowed
	AuthMethodNotAllowed
	RequestBadFormat
	SuccessfulAuth
	UnexpectedAddress
	ChallengeResponseFailed
	InvalidPassword
	ChallengeSent
	InvalidTransport
	// What no event of Asterisk's tells, and another sense does.
	SilentGuess      // a wrong password
	SilentLogin      // a right password
	Probing          // a call of a guest to a number that does not exist, or the like
	Scanner          // a request that bears the mark of a scanner's program
	MalformedRequest // what pjproject refuses before any module of Asterisk's sees it
	IAXRefused       // wrong credentials over IAX2
	HTTPRefused      // wrong credentials for ARI, or the manager over HTTP
	DialplanReport   // the administrator's own dialplan says so: UserEvent(Ringwall,…)
	numTypes
)

// How many types, services and transports there are, for tables by them.
const (
	NumTypes      = int(numTypes)
	NumServices   = int(numServices)
	NumTransports = int(numTransports)
)

var typeNames = [numTypes]string{
	"Unknown", "FailedACL", "InvalidAccountID", "SessionLimit", "MemoryLimit", "LoadAverageLimit",
	"RequestNotSupported", "RequestNotAllowed", "AuthMethodNotAllowed", "RequestBadFormat", "SuccessfulAuth",
	"UnexpectedAddress", "ChallengeResponseFailed", "InvalidPassword", "ChallengeSent", "InvalidTransport",
	"SilentGuess", "SilentLogin", "Probing", "Scanner", "MalformedRequest", "IAXRefused", "HTTPRefused",
	"DialplanReport",
}

// IsSecurityEvent says whether Asterisk's security events have the type, and not other senses alone.
func (t Type) IsSecurityEvent() bool { return t > UnknownType && t <= InvalidTransport }

// String returns Asterisk's name of the event.
func (t Type) String() string {
	if t >= numTypes {
		return typeNames[UnknownType]
	}
	return typeNames[t]
}

// TypeNamed returns the type of a name that String returned, UnknownType where there is none.
func TypeNamed(name string) Type { return Type(max(0, slices.Index(typeNames[:], name))) }

// Service is the part of Asterisk that reports: the value of the Service header.
type Service uint8

// The services that are told apart. Another name than these decodes to OtherService.
const (
	OtherService Service = iota
	PJSIP
	SIP
	AMI
	IAX2
	HTTP // Asterisk's HTTP server: ARI, the manager over HTTP; no event names it, but a sensor
	numServices
)

var serviceNames = [numServices]string{"other", "PJSIP", "SIP", "AMI", "IAX2", "HTTP"}

// String returns Asterisk's name of the service, or "other".
func (s Service) String() string {
	if s >= numServices {
		return serviceNames[OtherService]
	}
	return serviceNames[s]
}

// ServiceNamed returns the service of a name that String returned, OtherService where there is none.
func ServiceNamed(name string) Service { return Service(max(0, slices.Index(serviceNames[:], name))) }

// Transport is the transport part of an address, as Asterisk's main/security_events.c prints it.
type Transport uint8

// The transports of enum ast_transport. NoTransport is an address of three parts, which has none.
const (
	NoTransport Transport = iota
	UDP
	TCP
	TLS
	WS
	WSS
	numTransports
)

var transportNames = [numTransports]string{"", "UDP", "TCP", "TLS", "WS", "WSS"}

// String returns Asterisk's name of the transport; it is empty for NoTransport.
func (t Transport) String() string {
	if t >= numTransports {
		return ""
	}
	return transportNames[t]
}

// TransportNamed returns the transport of a name that String returned, NoTransport where there is none.
func TransportNamed(name string) Transport {
	return Transport(max(0, slices.Index(transportNames[:], name)))
}

// Proven says whether the transport's handshake proves that the source address receives what is sent to it.
func (t Transport) Proven() bool { return t == TCP || t == TLS || t == WS || t == WSS }

// Sensor is a sense that an event came by.
type Sensor uint8

// The sensors.
const (
	ByAMI Sensor = iota // Asterisk's own events
	ByTap               // packets
	ByHEP               // Asterisk's copies of SIP messages
	ByDialplan
	numSensors
)

var sensorNames = [numSensors]string{"ami", "tap", "hep", "dialplan"}

// String returns "ami", "tap", "hep" or "dialplan".
func (s Sensor) String() string {
	if s >= numSensors {
		return sensorNames[ByAMI]
	}
	return sensorNames[s]
}

// SensorNamed returns the sensor of a name that String returned, ByAMI where there is none.
func SensorNamed(name string) Sensor { return Sensor(max(0, slices.Index(sensorNames[:], name))) }

// Address is one end of a request: address, port, transport. IPv4-mapped IPv6 addresses are unmapped and zones are
// removed, so that equal hosts compare equal.
type Address struct {
	AddrPort  netip.AddrPort
	Transport Transport
}

// Event is one security event. Its strings carry whatever a peer chose, control characters too, but are valid UTF-8 and
// hold no LF.
type Event struct {
	Type    Type
	Service Service
	// Time is the EventTV header: Asterisk's clock, millisecond resolution. A DialplanReport has none, so that whoever
	// decodes it says when it came.
	Time time.Time
	// Account is AccountID: the endpoint, "<unknown>", or for InvalidAccountID the From user, cut to 36 bytes.
	Account string
	// Session is SessionID: the Call-ID for PJSIP, a pointer for AMI and chan_sip.
	Session string
	Local   Address // its AddrPort is the zero value where Asterisk did not know it
	Remote  Address // the source; its AddrPort is always valid

	UsingPassword bool   // SuccessfulAuth
	Challenge     string // ChallengeSent, ChallengeResponseFailed; ReceivedChallenge of InvalidPassword
	Response      string // ChallengeResponseFailed; ReceivedHash of InvalidPassword
	ACLName       string // FailedACL
	// Hostile says that SessionID, Challenge or Response has a control character, or any text a CR: those come from a
	// program, not from a person who types, and RFC 3261 section 25.1 allows none there, so no phone sends one.
	Hostile bool
	// SeenBy is who told.
	SeenBy Sensor
	// Proven says that a sensor saw the sender receive what was sent to its address, so that it is not forged, although
	// the transport alone does not say so: it answers a challenge that was sent there.
	Proven bool
	// Report is what a DialplanReport says.
	Report Report
	// Detail is RequestType, AttemptedTransport, AuthMethod or ExpectedAddress (as written), where the event has one;
	// of a DialplanReport it is Exten, the number that was dialled.
	Detail string
}

// AddressIsClaimed says whether the sender chose the address that the event names: chan_sip reports the one of the Via
// header, with maddr, and no sensor confirmed it.
func (ev *Event) AddressIsClaimed() bool {
	return ev.Service == SIP && !ev.Proven && (ev.SeenBy == ByAMI || ev.SeenBy == ByDialplan)
}
