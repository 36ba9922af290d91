package amiserver

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// reportEvent emits a security event about this session, with the name under which it has logged in. values are those
// of the headers that only this event has.
func (ses *session) reportEvent(event string, values ...string) {
	ses.server.Broadcast(ses.encodeEvent(event, ses.username, values...))
}

// reportEventOf emits a security event about a user who has not logged in.
func (ses *session) reportEventOf(event, user string) {
	ses.server.Broadcast(ses.encodeEvent(event, user))
}

// encodeEvent writes an event as Asterisk does: the common headers of main/security_events.c, the event's own,
// SessionTV. RequestBadFormat has AccountID at its end.
func (ses *session) encodeEvent(event, account string, values ...string) []byte {
	var (
		version  = "1"
		severity = "Error"
		names    []string
	)
	switch event {
	case "SuccessfulAuth":
		severity, names = "Informational", []string{"UsingPassword"}
	case "ChallengeResponseFailed":
		names = []string{"Challenge", "Response", "ExpectedResponse"}
	case "RequestNotAllowed", "RequestBadFormat":
		names = []string{"RequestType"}
	case "InvalidPassword":
		version = "2"
	}
	var b strings.Builder
	header := func(name, value string) {
		b.WriteString(name)
		b.WriteString(": ")
		b.WriteString(value)
		b.WriteString("\r\n")
	}
	header("Event", event)
	header("Privilege", "security,all")
	if ses.server.cfg.SystemName != "" {
		header("SystemName", ses.server.cfg.SystemName)
	}
	header("EventTV", eventTime(time.Now()))
	header("Severity", severity)
	header("Service", "AMI")
	header("EventVersion", version)
	if event != "RequestBadFormat" {
		header("AccountID", account)
	}
	header("SessionID", fmt.Sprintf("0x7f57%08x", ses.id*0x1c0)) // a pointer in Asterisk
	header("LocalAddress", ses.formatAddress(ses.local))
	header("RemoteAddress", ses.formatAddress(ses.remote))
	for i, name := range names {
		header(name, values[i])
	}
	started := ses.started
	if started.IsZero() {
		started = time.Unix(0, 0)
	}
	header("SessionTV", eventTime(started))
	if event == "RequestBadFormat" {
		header("AccountID", account)
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

func (ses *session) formatAddress(a netip.AddrPort) string {
	family, transport := "IPV4", "TCP"
	if a.Addr().Is6() {
		family = "IPV6"
	}
	if ses.server.cfg.TLS != nil {
		transport = "TLS"
	}
	return fmt.Sprintf("%s/%s/%s/%d", family, transport, a.Addr(), a.Port())
}

// eventTime formats a time as EventTV has it: in UTC, with milliseconds.
func eventTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000-0700") }
