package ban

import (
	"fmt"
	"net/netip"
	"strings"
)

// Scope is how much a verdict is about: the smallest that stops what the evidence shows.
type Scope string

// The scopes, the smallest first.
const (
	ScopeFlow    Scope = "flow"    // one sender: address, port and protocol
	ScopeService Scope = "service" // one service at a source
	ScopeSource  Scope = "source"
	ScopeNetwork Scope = "network"
)

// Scopes returns all of them.
func Scopes() []Scope { return []Scope{ScopeFlow, ScopeService, ScopeSource, ScopeNetwork} }

// Closes is which ports a ban closes to those it is about.
type Closes uint8

// What a ban closes.
const (
	ClosesAll     Closes = iota // every telephony port
	ClosesUDP                   // UDP: such evidence could be forged, and says nothing about whoever speaks TCP or TLS
	ClosesManager               // the manager's ports
	ClosesSIP                   // every telephony port but the manager's, UDP and TCP
)

var closesNames = [...]string{"all", "udp", "manager", "sip"}

// String returns "all", "udp", "manager" or "sip".
func (c Closes) String() string {
	if int(c) < len(closesNames) {
		return closesNames[c]
	}
	return fmt.Sprintf("closes %d", uint8(c))
}

// MarshalText writes the name.
func (c Closes) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name; one that is not known closes all.
func (c *Closes) UnmarshalText(text []byte) error {
	*c = ClosesAll
	for i, name := range closesNames {
		if name == string(text) {
			*c = Closes(i)
		}
	}
	return nil
}

// Covers says whether a ban that closes c leaves nothing open that one which closes other would close.
func (c Closes) Covers(other Closes) bool {
	return c == ClosesAll || c == other || c == ClosesSIP && other == ClosesUDP
}

// ClosesBoth is what two bans close between them. One that closes UDP, which could be forged, and one that closes the
// manager's ports have no name for what they close together; it is everything.
func ClosesBoth(a, b Closes) Closes {
	switch {
	case a.Covers(b):
		return a
	case b.Covers(a):
		return b
	}
	return ClosesAll
}

// IsOfService says whether one service is closed alone.
func (c Closes) IsOfService() bool { return c == ClosesManager || c == ClosesSIP }

// Flow is one sender: nobody else's packets come from there, unless they are forged. TCP is what TLS and WebSocket run
// over, too.
type Flow struct {
	UDP    bool
	Source netip.AddrPort
}

// IsValid says whether the flow is one.
func (f Flow) IsValid() bool { return f.Source.IsValid() && f.Source.Port() != 0 }

// String is the flow for a person: "tcp 192.0.2.1:5060".
func (f Flow) String() string {
	if f.UDP {
		return "udp " + f.Source.String()
	}
	return "tcp " + f.Source.String()
}

// MarshalText writes what String returns, nothing for no flow.
func (f Flow) MarshalText() ([]byte, error) {
	if !f.IsValid() {
		return nil, nil
	}
	return []byte(f.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (f *Flow) UnmarshalText(text []byte) error {
	*f = Flow{}
	if len(text) == 0 {
		return nil
	}
	protocol, source, _ := strings.Cut(string(text), " ")
	if protocol != "udp" && protocol != "tcp" {
		return fmt.Errorf("flow %q: neither udp nor tcp", text)
	}
	at, err := netip.ParseAddrPort(source)
	if err != nil {
		return fmt.Errorf("flow %q: %w", text, err)
	}
	*f = Flow{UDP: protocol == "udp", Source: at}
	return nil
}
