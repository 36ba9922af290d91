package soak

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"
)

// eventTime is a time as EventTV has it.
func eventTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000-0700") }

// nthAddress is the n-th address from 32.0.0.0 on: nobody's here.
func nthAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 32<<24+uint32(n))))
}

func singlePrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// script writes events the way Asterisk does.
type script struct {
	b      []byte
	at     string // EventTV
	calls  int
	events int
}

func newScript() *script { return &script{at: eventTime(time.Now())} }

// takeText returns what was written, and begins anew.
func (s *script) takeText() []byte {
	b := s.b
	s.b, s.at = make([]byte, 0, cap(b)), eventTime(time.Now())
	return b
}

func (s *script) addEvent(name, account, transport string, from netip.Addr, own ...string) {
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

// addScan is a request for an account that does not exist.
func (s *script) addScan(transport string, from netip.Addr) {
	s.calls++
	s.addEvent("InvalidAccountID", "1"+strconv.Itoa(s.calls%1000), transport, from)
	s.addEvent("ChallengeSent", "<unknown>", transport, from, "Challenge: ")
}

// addTrapped is a request for the account of the honeypot, one event.
func (s *script) addTrapped(transport string, from netip.Addr) {
	s.calls++
	s.addEvent("InvalidAccountID", trap, transport, from)
}

// addGuess is a wrong password.
func (s *script) addGuess(transport string, from netip.Addr, account string) {
	s.calls++
	n := strconv.Itoa(s.calls)
	s.addEvent("ChallengeSent", account, transport, from, "Challenge: ")
	s.addEvent("ChallengeResponseFailed", account, transport, from, "Challenge: 1763812800/"+n, "Response: "+n,
		"ExpectedResponse: ")
}

// addLogin is a phone that registers.
func (s *script) addLogin(transport string, from netip.Addr, account string) {
	s.calls++
	s.addEvent("ChallengeSent", account, transport, from, "Challenge: ")
	s.addEvent("SuccessfulAuth", account, transport, from, "UsingPassword: 1")
}
