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
	Kind StateKind
	At   time.Time
	// Banner is what Asterisk greeted with, raw: "Asterisk Call Manager/11.0.0". Of Connected.
	Banner string
	// Local is this end of the socket, IPv4 unmapped: Asterisk names it in events about this session. Of Connected.
	Local netip.AddrPort
	// First says that it is the first connection since Run began. Of Connected.
	First bool
	// Blind is the time from the last sign of life of the connection before, or from Run's beginning, to now. Nothing
	// of that time is ever delivered. Of Connected.
	Blind time.Duration
	// Err says why; of Connected it is the cause of the loss before.
	Err error
	// Retry is the pause before the next attempt. Of Disconnected and Failed.
	Retry time.Duration
}

// A Status is a session's state at one moment.
type Status struct {
	Up         bool
	Since      time.Time      // Up: of the login; else of the last sign of life, or of Run's beginning
	Banner     string         // raw, of the last connection
	Security   Security       // whether read=security is granted
	Local      netip.AddrPort // this end of the socket while Up, IPv4 unmapped
	RTT        time.Duration  // of the last Ping, 0 before the first
	Reconnects uint64         // logins after the first

	// The last error. It stays when things go well again.
	Err         error
	LastError   string // the text of Err, one line; "" if there has been none
	LastErrorAt time.Time

	// Frames of events.
	QueueBytes int    // queued or being handled
	QueuePeak  int    // the most that QueueBytes ever was
	Received   uint64 // frames
	Oversize   uint64 // frames that were skipped because of their size
	// Dropped are the frames that were given up for want of room, by Asterisk's name of the event, "other" or
	// "fragment": never bytes of the wire.
	Dropped map[string]uint64

	Denied map[string]uint64 // actions that Asterisk denied, by their name as given to Action
}

// Status returns the session's state. It may be called at any time.
func (s *Session) Status() Status {
	s.mu.Lock()
	st := s.status
	st.Denied = maps.Clone(s.status.Denied)
	s.mu.Unlock()
	s.queue.addToStatus(&st)
	return st
}
