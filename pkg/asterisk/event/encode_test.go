package event

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// specs are the headers of each event as read from Asterisk's main/security_events.c, optional ones in brackets.
// They are written out apart from the decoder's tables, so that a slip in one is seen.
var specs = map[string]string{
	"FailedACL":            common + "[Module] [ACLName] [SessionTV]",
	"InvalidAccountID":     common + "[Module] [SessionTV]",
	"SessionLimit":         common + "[Module] [SessionTV]",
	"MemoryLimit":          common + "[Module] [SessionTV]",
	"LoadAverageLimit":     common + "[Module] [SessionTV]",
	"RequestNotSupported":  common + "RequestType [Module] [SessionTV]",
	"RequestNotAllowed":    common + "RequestType [Module] [SessionTV] [RequestParams]",
	"AuthMethodNotAllowed": common + "AuthMethod [Module] [SessionTV]",
	"RequestBadFormat": "EventTV Severity Service EventVersion SessionID LocalAddress RemoteAddress RequestType " +
		"[Module] [SessionTV] [AccountID] [RequestParams]",
	"SuccessfulAuth":          common + "UsingPassword [Module] [SessionTV]",
	"UnexpectedAddress":       common + "ExpectedAddress [Module] [SessionTV]",
	"ChallengeResponseFailed": common + "Challenge Response ExpectedResponse [Module] [SessionTV]",
	"InvalidPassword":         common + "[Module] [SessionTV] [Challenge] [ReceivedChallenge] [ReceivedHash]",
	"ChallengeSent":           common + "Challenge [Module] [SessionTV]",
	"InvalidTransport":        common + "AttemptedTransport [Module] [SessionTV]",
}

const common = "EventTV Severity Service EventVersion AccountID SessionID LocalAddress RemoteAddress "

// wire is an event as Asterisk holds it before it prints it.
type wire struct {
	name   string
	values map[string]string
	// leave says which of the optional headers are absent.
	leave map[string]bool
	// preamble is what stands between Privilege and EventTV, lines with their CRLF.
	preamble string
}

// headers lists the headers that w has, in Asterisk's order.
func (w wire) headers() []string {
	var keys []string
	for _, key := range strings.Fields(specs[w.name]) {
		if name := strings.Trim(key, "[]"); name == key || !w.leave[name] {
			keys = append(keys, name)
		}
	}
	return keys
}

// frame prints w as Asterisk's manager does, without the CRLFCRLF.
func (w wire) frame() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Event: %s\r\nPrivilege: security,all\r\n%s", w.name, w.preamble)
	for _, key := range w.headers() {
		fmt.Fprintf(&b, "%s: %s\r\n", key, w.values[key])
	}
	return strings.TrimSuffix(b.String(), "\r\n")
}

// message prints w as Asterisk's res_security_log does.
func (w wire) message() string {
	var b strings.Builder
	fmt.Fprintf(&b, `SecurityEvent="%s"`, w.name)
	for _, key := range w.headers() {
		fmt.Fprintf(&b, `,%s="%s"`, key, w.values[key])
	}
	return b.String()
}

// line prints w as a line of the security log.
func (w wire) line() string {
	return "[2026-11-22 21:48:57.667] SECURITY[23417] res_security_log.c: " + w.message()
}

// sample is a full event of a name, with every optional header.
func sample(name string) wire {
	return wire{name: name, values: map[string]string{
		"EventTV": "2026-11-22T21:48:57.667+0000", "Severity": "Error", "Service": "PJSIP", "EventVersion": "1",
		"AccountID": "6003", "SessionID": "13908c1bc6d5a1a0@lab", "LocalAddress": "IPV4/UDP/10.99.0.1/5060",
		"RemoteAddress": "IPV4/UDP/10.99.0.66/55467", "Module": "res_pjsip", "ACLName": "not_match_endpoint_acl",
		"SessionTV": "1970-01-01T00:00:00.000+0000", "RequestType": "REGISTER", "RequestParams": "x=y",
		"AuthMethod": "basic", "UsingPassword": "1", "ExpectedAddress": "IPV4/UDP/10.99.0.10/5060",
		"Challenge": "1795384137/5497", "Response": "b30ac730", "ExpectedResponse": "5ec4e7", "ReceivedChallenge": "rc",
		"ReceivedHash": "rh", "AttemptedTransport": "TCP",
	}, leave: map[string]bool{}}
}

// want is the event that sample(name) must decode to.
func want(name string) Event {
	ev := Event{
		Type: typeOf(name), Service: PJSIP, Time: time.Date(2026, 11, 22, 21, 48, 57, 667e6, time.UTC),
		Account: "6003", Session: "13908c1bc6d5a1a0@lab",
		Local:  Address{netip.MustParseAddrPort("10.99.0.1:5060"), UDP},
		Remote: Address{netip.MustParseAddrPort("10.99.0.66:55467"), UDP},
	}
	switch ev.Type {
	case FailedACL:
		ev.ACLName = "not_match_endpoint_acl"
	case RequestNotSupported, RequestNotAllowed, RequestBadFormat:
		ev.Detail = "REGISTER"
	case AuthMethodNotAllowed:
		ev.Detail = "basic"
	case SuccessfulAuth:
		ev.UsingPassword = true
	case UnexpectedAddress:
		ev.Detail = "IPV4/UDP/10.99.0.10/5060"
	case ChallengeResponseFailed:
		ev.Challenge, ev.Response = "1795384137/5497", "b30ac730"
	case InvalidPassword:
		ev.Challenge, ev.Response = "rc", "rh"
	case ChallengeSent:
		ev.Challenge = "1795384137/5497"
	case InvalidTransport:
		ev.Detail = "TCP"
	}
	return ev
}
