package soak

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"
)

// eventTime is a time as EventTV has it.
func eventTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000-0700") }

// nth is the n-th address from 32.0.0.0 on: nobody's here.
func nth(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 32<<24+uint32(n))))
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// script writes events the way Asterisk does.
type script struct {
	b      []byte
	at     string // EventTV
	calls  int
	events int
}

func newScript() *script { return &script{at: eventTime(time.Now())} }

// take returns what was written, and begins anew.
func (s *script) take() []byte {
	b := s.b
	s.b, s.at = make([]byte, 0, cap(b)), eventTime(time.Now())
	return b
}

func (s *script) event(name, account, transport string, from netip.Addr, own ...string) {
	severity := "Error"
	if name == "ChallengeSent" || name == "SuccessfulAuth" {
		severity = "Informational"
	}
	s.events++
	s.b = append(s.b, "Event: "...)
	s.b = append(s.b, name...)
	s.b = append(s.b, "\r\nPrivilege: security,all\r\nEventTV: "...)
	s.b = append(s.b, s.at...)
	s.b = append(s.b, "\r\nSeverity: "...)
	s.b = append(s.b, severity...)
	s.b = append(s.b, "\r\nService: PJSIP\r\nEventVersion: 1\r\nAccountID: "...)
	s.b = append(s.b, account...)
	s.b = append(s.b, "\r\nSessionID: 5f1a9c3e-call-"...)
	s.b = strconv.AppendInt(s.b, int64(s.calls), 10)
	s.b = append(s.b, "\r\nLocalAddress: IPV4/"...)
	s.b = append(s.b, transport...)
	s.b = append(s.b, "/192.0.2.1/5060\r\nRemoteAddress: IPV4/"...)
	s.b = append(s.b, transport...)
	s.b = append(s.b, '/')
	s.b = from.AppendTo(s.b)
	s.b = append(s.b, "/5060\r\n"...)
	for _, line := range own {
		s.b = append(append(s.b, line...), "\r\n"...)
	}
	s.b = append(s.b, "\r\n"...)
}

// scan is a request for an account that does not exist.
func (s *script) scan(transport string, from netip.Addr) {
	s.calls++
	s.event("InvalidAccountID", "1"+strconv.Itoa(s.calls%1000), transport, from)
	s.event("ChallengeSent", "<unknown>", transport, from, "Challenge: ")
}

// trapped is a request for the account of the honeypot, one event.
func (s *script) trapped(transport string, from netip.Addr) {
	s.calls++
	s.event("InvalidAccountID", trap, transport, from)
}

// guess is a wrong password.
func (s *script) guess(transport string, from netip.Addr, account string) {
	s.calls++
	n := strconv.Itoa(s.calls)
	s.event("ChallengeSent", account, transport, from, "Challenge: ")
	s.event("ChallengeResponseFailed", account, transport, from, "Challenge: 1763812800/"+n, "Response: "+n,
		"ExpectedResponse: ")
}

// login is a phone that registers.
func (s *script) login(transport string, from netip.Addr, account string) {
	s.calls++
	s.event("ChallengeSent", account, transport, from, "Challenge: ")
	s.event("SuccessfulAuth", account, transport, from, "UsingPassword: 1")
}
