package event

import (
	"errors"
	"net/netip"
	"strconv"
)

// ErrNotSecurity says that a frame or line holds no security event: another event, a reply, a log line of another
// kind, or an event that Asterisk could give no source address (it writes "(null)" then). It is no evidence against
// or for anybody.
var ErrNotSecurity = errors.New("security: not a security event")

// The reasons of a TamperError. The set is bounded, so that a reason may label a metric.
const (
	ReasonOrder     = "header missing, repeated or out of order"
	ReasonControl   = "line break in a value"
	ReasonEscape    = "terminal escape in a value of a log line"
	ReasonUTF8      = "invalid UTF-8 in a value"
	ReasonValue     = "value not as Asterisk writes it"
	ReasonTime      = "time not as Asterisk writes it"
	ReasonAddress   = "address not as Asterisk writes it"
	ReasonStray     = "security headers outside a security event"
	ReasonTruncated = "log line cut short"
	ReasonSender    = "the address is not that of the sender, whom a sensor saw"
)

// OtherSender is the error of an event whose address is not that of who sent the request.
func OtherSender(sender netip.Addr) *TamperError {
	return &TamperError{Reason: ReasonSender, Sources: []netip.Addr{sender}}
}

// TamperError reports a frame or line that carries parts of a security event, but not as Asterisk writes one.
// Neither a ban nor trust may follow from it; it should be counted and shown to the operator.
type TamperError struct {
	// Reason is one of the Reason constants, never bytes from the wire.
	Reason string
	// Line is the header's line within the frame, or the field's place within the log line, counted from 1.
	Line int
	// Sources are the different addresses that the frame names as RemoteAddress, or Address of a report, at most
	// three: at least one of two may be the attacker's invention. A log line has none.
	Sources []netip.Addr
}

const maxTamperSources = 3

// Error names the reason and the place. It holds no byte of what was decoded.
func (e *TamperError) Error() string {
	return "security: tampered event: " + e.Reason + " (line " + strconv.Itoa(e.Line) + ")"
}
