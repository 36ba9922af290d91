package event

import (
	"net/netip"
	"slices"
	"strings"
)

// Report is what the dialplan says of a caller: the Reason header of a UserEvent that is named Ringwall.
type Report uint8

// The reports, which is all that examples/asterisk/extensions_ringwall.conf sends. NoReport is every other event's.
const (
	NoReport       Report = iota
	WrongNumber           // a guest dialled what leads nowhere
	HoneypotNumber        // a number that nobody who knows the PBX dials
	numReports
)

var reportNames = [numReports]string{"", "wrong-number", "honeypot-number"}

// String returns the Reason header; it is empty for NoReport.
func (r Report) String() string {
	if r >= numReports {
		return ""
	}
	return reportNames[r]
}

// ReportNamed returns the report of a name that String returned, NoReport where there is none.
func ReportNamed(name string) Report { return Report(max(0, slices.Index(reportNames[:], name))) }

const (
	userEventName   = "UserEvent"
	reportUserEvent = "UserEvent: Ringwall" // of the application UserEvent(Ringwall,…)
	reportAddress   = "Address: "
	reportReason    = "Reason: "
)

// channelHeaders are what Asterisk tells of the channel in each event of one, in its order
// (ast_manager_build_channel_state_string_prefix in main/manager_channels.c, 16 to 22). Behind them stands a line
// ChanVariable for each of channelvars in manager.conf.
var channelHeaders = [...]string{
	headerChannel: "Channel: ", headerState: "ChannelState: ", "ChannelStateDesc: ", "CallerIDNum: ", "CallerIDName: ",
	"ConnectedLineNum: ", "ConnectedLineName: ", "Language: ", "AccountCode: ", "Context: ", headerExten: "Exten: ",
	headerPriority: "Priority: ", "Uniqueid: ", "Linkedid: ",
}

const (
	headerChannel  = 0
	headerState    = 1
	headerExten    = 10
	headerPriority = 11

	headerChannelVariable = "ChanVariable: "

	longestExten = 79 // bytes; AST_MAX_EXTENSION of include/asterisk/channel.h counts a NUL
)

// decodeUserEvent decodes a frame whose first line says UserEvent. It is ErrNotSecurity unless a line of it names
// Ringwall, since anybody's dialplan may send what it likes under another name.
//
// Everything in such a frame but its last two lines is of use to an attacker: the number that he dials and the one that
// he calls from may have line breaks (pjproject unescapes %0d%0a in the user of a URI), 80 bytes each, which is enough
// for a whole report about somebody else, but not for the lines between. So nothing may be missing, come twice or be
// added: what the dialplan adds could hold a comma, behind which another header begins, and of two that have one name
// app_userevent.c keeps the value of the last.
func decodeUserEvent(frame string, l *frameLines, ev *Event) error {
	if !strings.Contains(frame, "\r\n"+reportUserEvent+"\r\n") && !strings.HasSuffix(frame, "\r\n"+reportUserEvent) {
		return ErrNotSecurity
	}
	reason := decodePreamble(l, "user,all", channelHeaders[headerChannel])
	if reason == "" {
		reason = decodeChannel(l, ev)
	}
	if reason == "" {
		reason = decodeReport(l, ev)
	}
	if reason != "" {
		*ev = Event{}
		return &TamperError{Reason: reason, Line: l.number, Sources: sourcesOf(frame)}
	}
	ev.Type, ev.SeenBy = DialplanReport, ByDialplan
	return nil
}

// decodeChannel reads the channel's headers. It returns a Reason, or "".
func decodeChannel(l *frameLines, ev *Event) string {
	for i, header := range channelHeaders {
		v, ok := strings.CutPrefix(l.line, header)
		if !ok {
			return ReasonOrder
		}
		if reason, _ := inspectText(v); reason != "" {
			return reason
		}
		switch i {
		case headerChannel:
			technology, _, ok := strings.Cut(v, "/")
			if !ok {
				return ReasonValue
			}
			ev.Service = serviceOf(technology)
		case headerState, headerPriority:
			if _, ok := parseDigits(v); !ok {
				return ReasonValue
			}
		case headerExten:
			if len(v) > longestExten {
				return ReasonValue
			}
			ev.Detail = v
		}
		l.nextLine()
	}
	for strings.HasPrefix(l.line, headerChannelVariable) {
		if reason, _ := inspectText(l.line); reason != "" {
			return reason
		}
		l.nextLine()
	}
	return ""
}

// serviceOf returns the service that calls of a channel technology come by.
func serviceOf(technology string) Service {
	switch technology {
	case "PJSIP":
		return PJSIP
	case "SIP":
		return SIP
	case "IAX2":
		return IAX2
	}
	return OtherService
}

// decodeReport reads what the dialplan has put into the frame, to its end. It returns a Reason, or "".
func decodeReport(l *frameLines, ev *Event) string {
	if l.line != reportUserEvent {
		return ReasonOrder
	}
	l.nextLine()
	v, ok := strings.CutPrefix(l.line, reportAddress)
	if !ok {
		return ReasonOrder
	}
	if ev.Remote.AddrPort, ok = parseHostPort(v); !ok {
		return ReasonAddress
	}
	l.nextLine()
	if v, ok = strings.CutPrefix(l.line, reportReason); !ok {
		return ReasonOrder
	}
	if ev.Report = ReportNamed(v); ev.Report == NoReport {
		return ReasonValue
	}
	if l.nextLine(); !l.pastEnd {
		return ReasonOrder
	}
	return ""
}

// parseHostPort reads 192.0.2.1:5060 and [2001:db8::1]:5060, as CHANNEL(pjsip,remote_addr) is, and the address alone,
// as CHANNEL(recvip) of chan_sip and CHANNEL(peerip) of chan_iax2 are; the port is 0 then. A channel that has no
// address leaves the header empty.
func parseHostPort(s string) (netip.AddrPort, bool) {
	if len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535") || strings.Contains(s, "%") {
		return netip.AddrPort{}, false
	}
	if strings.Count(s, ":") == 1 || strings.HasPrefix(s, "[") {
		a, err := netip.ParseAddrPort(s)
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
	}
	a, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(a.Unmap(), 0), err == nil
}
