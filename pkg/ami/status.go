package ami

import (
	"maps"
	"net/netip"
	"time"
)

// A Security says whether this session's user has read=security.
type Security int

const (
	SecurityUnknown Security = iota // just logged in, or not connected
	SecurityGranted                 // a security event has come
	SecurityMissing                 // none has, not even that of the login itself
)

func (s Security) String() string {
	return [...]string{"unknown", "granted", "missing"}[s]
}

// A StateKind is what happened to a session.
type StateKind int

const (
	Connected    StateKind = iota // logged in
	Disconnected                  // was connected; Err says why no longer
	Failed                        // could not connect; Err says why
	Granted                       // read=security is proved
	Unproven                      // no security event came within ProofTimeout; Err says what to do
)

func (k StateKind) String() string {
	return [...]string{"connected", "disconnected", "failed", "granted", "unproven"}[k]
}

// A State is one change of a session's state.
type State struct {
	Kind   StateKind
	At     time.Time
	Banner string         // of Connected, raw: "Asterisk Call Manager/11.0.0"
	Local  netip.AddrPort // of Connected: this end of the socket, IPv4 unmapped. Asterisk names it in events about this session
	First  bool           // Connected for the first time since Run began
	Blind  time.Duration  // Connected: from the last sign of life of the connection before (or from Run's beginning) to now. Nothing of that time is ever delivered
	Err    error          // of Disconnected, Failed, Unproven; of Connected after a loss: the loss's cause
	Retry  time.Duration  // of Disconnected and Failed: the pause before the next attempt
}

// A Status is a session's state at one moment.
type Status struct {
	Up          bool
	Since       time.Time // Up: of the login; else: of the last sign of life, or of Run's beginning
	Banner      string    // raw, of the last connection
	Security    Security
	Reconnects  uint64 // logins after the first
	LastError   string // one line; "" if there has been none. It stays when things go well again
	LastErrorAt time.Time
	Err         error          // that LastError and LastHint are the texts of
	LastHint    string         // what to do about it, several lines or ""
	Local       netip.AddrPort // this end of the socket while Up, IPv4 unmapped
	RTT         time.Duration  // of the last Ping, 0 before the first

	QueueBytes int // event frames queued or being handled
	QueuePeak  int
	Received   uint64            // event frames
	Oversize   uint64            // frames skipped because of their size
	Dropped    map[string]uint64 // event frames given up for want of room; keys are Asterisk's event names, "other" and "fragment", never bytes of the wire
	Denied     map[string]uint64 // actions denied, by name as given to Action
}

// Status returns the session's state. It may be called at any time.
func (s *Session) Status() Status {
	s.mu.Lock()
	st := s.status
	st.Denied = maps.Clone(s.status.Denied)
	s.mu.Unlock()
	s.queue.fill(&st)
	return st
}
