package ami

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxPending        = 64
	maxUntaggedFrames = 1000
	defaultTimeout    = 30 * time.Second
	permissionDenied  = "Permission denied" // main/manager.c, process_message()
	responsePrefix    = "Response: "
	actionIDPrefix    = "ActionID: "
)

// A Reply is what Asterisk answered one action with. Everything in it is as
// hostile as an event: a phone's User-Agent can hold line breaks.
type Reply struct {
	Response *Message
	Events   []*Message // the items of a list, in order
	Complete *Message   // the end of a list
	// Untagged are the frames between the beginning and the end of a list that
	// carry neither this action's ActionID nor a Privilege line. Asterisk sends
	// such items itself (PeerEntry of IAXpeers); otherwise they are the pieces
	// of an item that was torn up by injected line breaks, and the whole reply
	// deserves no trust. They have gone to OnFrames as well.
	Untagged []string
	// Malformed are the items that are no well-formed AMI message.
	Malformed []string
}

// A pendingAction is an action that waits for its reply.
type pendingAction struct {
	action       string
	actionIDLine string // the line "ActionID: …"
	listBegan    bool   // the list has begun
	bytes        int
	frames       []string
	untagged     []string
	err          error
	done         chan struct{}
	finished     bool
}

// finishLocked ends the wait, once; conn.cmu is held.
func (c *pendingAction) finishLocked(err error) {
	if !c.finished {
		c.finished, c.err = true, err
		if err != nil {
			c.frames, c.untagged = nil, nil
		}
		close(c.done)
	}
}

// Action sends one action and returns its reply; a list is collected to its
// end. The error is a [DeniedError] when the user lacks the privilege, an
// [ActionError] when Asterisk answers with any other error, [ErrNotConnected],
// [ErrBusy] (more than 64 actions without a reply), [ErrNoReply],
// [ErrReplyTooLarge] (more than Config.MaxReplyBytes), or the context's. Without
// a deadline of its own it waits 30 s. Control characters in headers are
// refused, and so are lines that Asterisk would not read (1,024 bytes).
func (s *Session) Action(ctx context.Context, name string, headers ...Header) (*Reply, error) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return nil, ErrNotConnected
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	reply, err := c.roundTrip(ctx, name, headers...)
	if _, ok := errors.AsType[*DeniedError](err); ok {
		s.mu.Lock()
		if s.status.Denied == nil {
			s.status.Denied = make(map[string]uint64)
		}
		s.status.Denied[name]++
		s.mu.Unlock()
	}
	return reply, err
}

// roundTrip writes an action and waits for the reply that carries its ActionID.
func (c *connection) roundTrip(ctx context.Context, name string, headers ...Header) (*Reply, error) {
	text, tag, err := encodeAction(name, headers)
	if err != nil {
		return nil, err
	}
	cl := &pendingAction{action: name, actionIDLine: tag, done: make(chan struct{})}
	if err := c.sendAction(cl, text); err != nil {
		return nil, err
	}
	select {
	case <-cl.done:
	case <-ctx.Done():
		// The call stays pending, so that its late reply is recognised.
		c.actionsMu.Lock()
		cl.finishLocked(context.Cause(ctx))
		c.actionsMu.Unlock()
	}
	if cl.err != nil {
		return nil, fmt.Errorf("action %q: %w", name, cl.err)
	}
	reply, err := parseReply(cl.frames)
	if err != nil {
		return reply, fmt.Errorf("ami: action %q: %w", name, err)
	}
	reply.Untagged = cl.untagged
	return reply, responseError(name, reply.Response)
}

// responseError turns a refusing response into an error.
func responseError(action string, m *Message) error {
	if !strings.EqualFold(m.Get("Response"), "Error") {
		return nil
	}
	message := m.Get("Message")
	if message == permissionDenied {
		return &DeniedError{Action: action}
	}
	return &ActionError{Action: action, Message: message}
}

// encodeAction builds an action with an unguessable ActionID.
func encodeAction(name string, headers []Header) (text, tag string, err error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	actionID := fmt.Sprintf("%x", id)
	m := Message{Headers: []Header{{"Action", name}, {"ActionID", actionID}}}
	for _, h := range headers {
		if strings.EqualFold(h.Name, "Action") || strings.EqualFold(h.Name, "ActionID") {
			return "", "", fmt.Errorf("ami: action %q: header %q is set by the session", name, h.Name)
		}
		m.Headers = append(m.Headers, h)
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	for _, h := range m.Headers {
		switch {
		case h.Name == "" || h.Value == "" && h.Name == "Action":
			return "", "", fmt.Errorf("ami: action %q has an empty name", name)
		case strings.ContainsFunc(h.Name, control), strings.ContainsAny(h.Name, ": "), strings.ContainsFunc(h.Value, control):
			// The value may be a secret and is not shown.
			return "", "", fmt.Errorf("ami: action %q: header %q holds a character that AMI cannot carry", name, h.Name)
		case len(h.Name)+len(h.Value) > maxHeaderBytes+64:
			return "", "", fmt.Errorf("ami: action %q: header %q is longer than Asterisk reads", name, h.Name)
		}
	}
	return m.String(), actionIDPrefix + actionID, nil
}

// sendAction registers a call and writes its action, both in one order: Asterisk
// answers the actions of a session one after the other.
func (c *connection) sendAction(cl *pendingAction, text string) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.sendActionLocked(cl, text, c.writeTimeout)
}

// sendActionLocked is send with wmu held.
func (c *connection) sendActionLocked(cl *pendingAction, text string, timeout time.Duration) error {
	c.actionsMu.Lock()
	switch {
	case c.endCause != nil:
		c.actionsMu.Unlock()
		return fmt.Errorf("%w: %w", ErrNotConnected, c.endCause)
	case len(c.pending) >= maxPending:
		c.actionsMu.Unlock()
		return ErrBusy
	}
	c.pending = append(c.pending, cl)
	c.numPending.Store(int32(len(c.pending)))
	c.actionsMu.Unlock()
	_ = c.socket.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.socket.Write([]byte(text)); err != nil {
		// Part of the action may be out: the line is of no more use.
		c.closeBecause(err)
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return nil
}

// sendLogoff says good-bye; nobody waits for the answer.
func (c *connection) sendLogoff() {
	if text, tag, err := encodeAction("Logoff", nil); err == nil && c.writeMu.TryLock() {
		_ = c.sendActionLocked(&pendingAction{action: "Logoff", actionIDLine: tag, done: make(chan struct{})}, text, 100*time.Millisecond)
		c.writeMu.Unlock()
	}
}

// closeBecause closes the connection because of err.
func (c *connection) closeBecause(err error) {
	c.failPending(err)
	_ = c.socket.Close()
}

// closeCause returns why this side closed the connection, or nil.
func (c *connection) closeCause() error {
	c.actionsMu.Lock()
	defer c.actionsMu.Unlock()
	return c.endCause
}

// failPending ends all calls of a connection that has ended.
func (c *connection) failPending(err error) {
	c.actionsMu.Lock()
	defer c.actionsMu.Unlock()
	if c.endCause == nil {
		c.endCause = err
	}
	for _, cl := range c.pending {
		cl.finishLocked(fmt.Errorf("%w: %w", ErrNotConnected, err))
	}
	c.pending = nil
	c.numPending.Store(0)
}

// takeAnswer reports whether a frame answers a pending call, and hands a copy to it.
func (c *connection) takeAnswer(text string) bool {
	if c.numPending.Load() == 0 || !c.inList && !strings.HasPrefix(text, responsePrefix) {
		return false
	}
	c.actionsMu.Lock()
	defer c.actionsMu.Unlock()
	defer func() {
		c.numPending.Store(int32(len(c.pending)))
		c.inList = slices.ContainsFunc(c.pending, func(cl *pendingAction) bool { return cl.listBegan })
	}()
	if strings.HasPrefix(text, responsePrefix) {
		// Asterisk writes the ActionID in the second line and EventList in the
		// third (main/manager.c, astman_send_response_full()).
		second, rest := cutLine(skipFirstLine(text))
		for i, cl := range c.pending {
			if cl.listBegan || second != cl.actionIDLine {
				continue
			}
			third, _ := cutLine(rest)
			cl.listBegan = strings.EqualFold(third, "EventList: start")
			c.addToReply(cl, text)
			// Whoever was sent before and has had no word yet gets none.
			kept := c.pending[:0]
			for j, other := range c.pending {
				switch {
				case j < i && !other.listBegan:
					other.finishLocked(ErrNoReply)
				case j == i && !cl.listBegan:
					cl.finishLocked(nil)
				default:
					kept = append(kept, other)
				}
			}
			clear(c.pending[len(kept):])
			c.pending = kept
			return true
		}
	}
	var open *pendingAction // the oldest list that has not ended
	for i, cl := range c.pending {
		if !cl.listBegan {
			continue
		}
		if open == nil {
			open = cl
		}
		if strings.HasPrefix(text, eventPrefix) && hasLine(text, cl.actionIDLine) {
			c.addToReply(cl, text)
			second, rest := cutLine(skipFirstLine(text))
			if third, _ := cutLine(rest); second == cl.actionIDLine && endsList(third) {
				cl.finishLocked(nil)
				c.pending = append(c.pending[:i], c.pending[i+1:]...)
			}
			return true
		}
	}
	if open != nil && !open.finished && !strings.HasPrefix(skipFirstLine(text), "Privilege: ") &&
		len(open.untagged) < maxUntaggedFrames && open.bytes+len(text) <= c.maxReplyBytes {
		open.bytes += len(text)
		open.untagged = append(open.untagged, text)
	}
	return false
}

// endsList reports whether the third line of an event ends a list
// (main/manager.c, astman_send_list_complete_start_common()).
func endsList(third string) bool {
	return strings.EqualFold(third, "EventList: Complete") || strings.EqualFold(third, "EventList: cancelled")
}

func (c *connection) addToReply(cl *pendingAction, text string) {
	cl.bytes += len(text) + frameCost
	if cl.bytes > c.maxReplyBytes {
		// It stays pending until the list ends, so that the rest is swallowed.
		cl.finishLocked(ErrReplyTooLarge)
	}
	if !cl.finished {
		cl.frames = append(cl.frames, text)
	}
}

// skipFirstLine returns what follows the first line.
func skipFirstLine(text string) string {
	_, rest := cutLine(text)
	return rest
}

func cutLine(text string) (first, rest string) {
	first, rest, _ = strings.Cut(text, "\r\n")
	return first, rest
}

// hasLine reports whether one of the lines is tag. DBGetTree has it last.
func hasLine(text, tag string) bool {
	for {
		i := strings.Index(text, tag)
		if i < 0 {
			return false
		}
		rest := text[i+len(tag):]
		if i >= 2 && text[i-2:i] == "\r\n" && (rest == "" || strings.HasPrefix(rest, "\r\n")) {
			return true
		}
		text = rest
	}
}

// parseReply parses the frames of one reply, the response first.
func parseReply(frames []string) (*Reply, error) {
	r := &Reply{Response: &Message{}}
	for i, f := range frames {
		if i == 0 { // Asterisk 22 ends some refusals with a line feed: "No Contacts found\n" (res_pjsip_registrar.c)
			f = strings.TrimSuffix(f, "\n")
		}
		m, err := ParseMessage(f)
		switch {
		case err != nil && i == 0:
			return r, fmt.Errorf("unreadable reply that begins with %q", firstBytes([]byte(f)))
		case err != nil:
			r.Malformed = append(r.Malformed, f)
		case i == 0:
			r.Response = m
		case i == len(frames)-1 && (strings.EqualFold(m.Get("EventList"), "Complete") || strings.EqualFold(m.Get("EventList"), "cancelled")):
			r.Complete = m
		default:
			r.Events = append(r.Events, m)
		}
	}
	if len(frames) == 0 {
		return r, errors.New("empty reply")
	}
	return r, nil
}
