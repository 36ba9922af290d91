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
	maxPending        = 64   // actions without a reply
	maxUntaggedFrames = 1000 // of one reply
	defaultTimeout    = 30 * time.Second
	logoffTimeout     = 100 * time.Millisecond // to write it, when the connection is given up anyway
	permissionDenied  = "Permission denied"    // main/manager.c, process_message()
	responsePrefix    = "Response: "
	actionIDPrefix    = "ActionID: "
)

// A pendingAction waits for its reply. Apart from name and actionIDLine, connection.actionsMu is held for it.
type pendingAction struct {
	name         string
	actionIDLine string // "ActionID: …", by which its reply is known
	listBegan    bool   // the response has come, and items follow
	replyBytes   int
	frames       []string // the response, and the items of the list
	untagged     []string // see Reply.Untagged
	finished     bool
	err          error         // of an action that is finished
	done         chan struct{} // closed when it is finished
}

func newPendingAction(name, actionIDLine string) *pendingAction {
	return &pendingAction{name: name, actionIDLine: actionIDLine, done: make(chan struct{})}
}

// finishLocked ends the wait, once.
func (a *pendingAction) finishLocked(err error) {
	if a.finished {
		return
	}
	a.finished, a.err = true, err
	if err != nil {
		a.frames, a.untagged = nil, nil
	}
	close(a.done)
}

// addFrameLocked adds a frame to the reply, or gives the reply up where it becomes too large. The action stays pending
// then until its list ends, so that the rest of it is recognised.
func (a *pendingAction) addFrameLocked(text string, maxReplyBytes int) {
	if a.replyBytes += len(text) + frameCost; a.replyBytes > maxReplyBytes {
		a.finishLocked(ErrReplyTooLarge)
	}
	if !a.finished {
		a.frames = append(a.frames, text)
	}
}

// Action sends one action and returns its reply; a list is collected to its end. The error is a [DeniedError] when the
// user lacks the privilege, an [ActionError] when Asterisk answers with any other error, [ErrNotConnected], [ErrBusy]
// (more than 64 actions without a reply), [ErrNoReply], [ErrReplyTooLarge] (more than Config.MaxReplyBytes), or the
// context's. Without a deadline of its own it waits 30 s. Control characters in headers are refused, and so are lines
// that Asterisk would not read (1,024 bytes).
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

// roundTrip sends an action and waits for its reply.
func (c *connection) roundTrip(ctx context.Context, name string, headers ...Header) (*Reply, error) {
	text, actionIDLine, err := encodeAction(name, headers)
	if err != nil {
		return nil, err
	}
	action := newPendingAction(name, actionIDLine)
	if err := c.sendAction(action, text); err != nil {
		return nil, err
	}
	select {
	case <-action.done:
	case <-ctx.Done():
		c.actionsMu.Lock()
		action.finishLocked(context.Cause(ctx)) // it stays pending, so that its late reply is recognised
		c.actionsMu.Unlock()
	}
	if action.err != nil {
		return nil, fmt.Errorf("action %q: %w", name, action.err)
	}
	reply, err := parseReply(action.frames)
	if err != nil {
		return reply, fmt.Errorf("ami: action %q: %w", name, err)
	}
	reply.Untagged = action.untagged
	return reply, responseError(name, reply.Response)
}

// encodeAction writes an action with an ActionID that nobody can guess.
func encodeAction(name string, headers []Header) (text, actionIDLine string, err error) {
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
		case strings.ContainsFunc(h.Name, control), strings.ContainsAny(h.Name, ": "),
			strings.ContainsFunc(h.Value, control):
			// The value may be a secret and is not shown.
			return "", "", fmt.Errorf("ami: action %q: header %q holds a character that AMI cannot carry", name, h.Name)
		case len(h.Name)+len(h.Value) > maxHeaderBytes+64:
			return "", "", fmt.Errorf("ami: action %q: header %q is longer than Asterisk reads", name, h.Name)
		}
	}
	return m.String(), actionIDPrefix + actionID, nil
}

// sendAction makes an action pending and writes it. Both happen in one order, since Asterisk answers the actions of a
// session one after the other.
func (c *connection) sendAction(action *pendingAction, text string) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.sendActionLocked(action, text, c.writeTimeout)
}

func (c *connection) sendActionLocked(action *pendingAction, text string, timeout time.Duration) error {
	c.actionsMu.Lock()
	switch {
	case c.endCause != nil:
		c.actionsMu.Unlock()
		return fmt.Errorf("%w: %w", ErrNotConnected, c.endCause)
	case len(c.pending) >= maxPending:
		c.actionsMu.Unlock()
		return ErrBusy
	}
	c.pending = append(c.pending, action)
	c.numPending.Store(int32(len(c.pending)))
	c.actionsMu.Unlock()
	_ = c.socket.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.socket.Write([]byte(text)); err != nil {
		c.closeBecause(err) // part of the action may be out: what follows would be read as its rest
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return nil
}

// sendLogoff says good-bye, unless somebody is writing. Nobody waits for the answer.
func (c *connection) sendLogoff() {
	text, actionIDLine, err := encodeAction("Logoff", nil)
	if err != nil || !c.writeMu.TryLock() {
		return
	}
	defer c.writeMu.Unlock()
	_ = c.sendActionLocked(newPendingAction("Logoff", actionIDLine), text, logoffTimeout)
}

// closeBecause closes the connection from this side.
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

// failPending ends all actions of a connection that has ended.
func (c *connection) failPending(err error) {
	c.actionsMu.Lock()
	defer c.actionsMu.Unlock()
	if c.endCause == nil {
		c.endCause = err
	}
	for _, action := range c.pending {
		action.finishLocked(fmt.Errorf("%w: %w", ErrNotConnected, err))
	}
	c.pending = nil
	c.numPending.Store(0)
}

// takeAnswer takes a frame if it answers a pending action, and says whether it did.
func (c *connection) takeAnswer(text string) bool {
	isResponse := strings.HasPrefix(text, responsePrefix)
	if c.numPending.Load() == 0 || !c.inList && !isResponse {
		return false
	}
	c.actionsMu.Lock()
	defer c.actionsMu.Unlock()
	taken := isResponse && c.takeResponseLocked(text) || c.takeListItemLocked(text)
	c.numPending.Store(int32(len(c.pending)))
	c.inList = slices.ContainsFunc(c.pending, func(a *pendingAction) bool { return a.listBegan })
	return taken
}

// takeResponseLocked takes a response that carries the ActionID of a pending action. Asterisk writes that in the second
// line, and EventList in the third (main/manager.c, astman_send_response_full()).
func (c *connection) takeResponseLocked(text string) bool {
	second, rest := cutLine(skipFirstLine(text))
	third, _ := cutLine(rest)
	i := slices.IndexFunc(c.pending, func(a *pendingAction) bool { return !a.listBegan && a.actionIDLine == second })
	if i < 0 {
		return false
	}
	action := c.pending[i]
	action.listBegan = strings.EqualFold(third, "EventList: start")
	action.addFrameLocked(text, c.maxReplyBytes)
	if !action.listBegan {
		action.finishLocked(nil)
	}
	// What was sent before and has had no response yet gets none any more.
	passedOver := func(a *pendingAction) bool { return !a.listBegan }
	for _, a := range c.pending[:i] {
		if passedOver(a) {
			a.finishLocked(ErrNoReply)
		}
	}
	later := slices.Clone(c.pending[i+1:])
	c.pending = slices.DeleteFunc(c.pending[:i+1], passedOver)
	c.pending = append(c.pending, later...)
	return true
}

// takeListItemLocked takes an event that carries the ActionID of a pending list. One that carries none, while a list is
// open, may belong to it all the same: it is remembered, and not taken.
func (c *connection) takeListItemLocked(text string) bool {
	isEvent := strings.HasPrefix(text, eventPrefix)
	for i, action := range c.pending {
		if !action.listBegan || !isEvent || !hasLine(text, action.actionIDLine) {
			continue
		}
		action.addFrameLocked(text, c.maxReplyBytes)
		second, rest := cutLine(skipFirstLine(text))
		if third, _ := cutLine(rest); second == action.actionIDLine && isListEnd(third) {
			action.finishLocked(nil)
			c.pending = slices.Delete(c.pending, i, i+1)
		}
		return true
	}
	oldest := slices.IndexFunc(c.pending, func(a *pendingAction) bool { return a.listBegan })
	if oldest < 0 || strings.HasPrefix(skipFirstLine(text), "Privilege: ") {
		return false
	}
	if a := c.pending[oldest]; !a.finished && len(a.untagged) < maxUntaggedFrames &&
		a.replyBytes+len(text) <= c.maxReplyBytes {
		a.replyBytes += len(text)
		a.untagged = append(a.untagged, text)
	}
	return false
}

// isListEnd reports whether the third line of an event ends a list (main/manager.c,
// astman_send_list_complete_start_common()).
func isListEnd(line string) bool {
	return strings.EqualFold(line, "EventList: Complete") || strings.EqualFold(line, "EventList: cancelled")
}

func skipFirstLine(text string) string {
	_, rest := cutLine(text)
	return rest
}

func cutLine(text string) (first, rest string) {
	first, rest, _ = strings.Cut(text, "\r\n")
	return first, rest
}

// hasLine reports whether one of the lines is that one: an item of DBGetTree has its ActionID in the last.
func hasLine(text, line string) bool {
	for l := range strings.SplitSeq(text, "\r\n") {
		if l == line {
			return true
		}
	}
	return false
}
