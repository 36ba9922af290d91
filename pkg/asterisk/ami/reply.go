package ami

import (
	"errors"
	"fmt"
	"strings"
)

// A Reply is what Asterisk answered one action with. Everything in it is as hostile as an event: a phone's User-Agent
// can hold line breaks.
type Reply struct {
	Response *Message
	Events   []*Message // the items of a list, in order
	Complete *Message   // the end of a list; nil if there is none
	// Untagged are the frames between the beginning and the end of a list that carry neither this action's ActionID nor
	// a Privilege line. Asterisk sends such items itself (PeerEntry of IAXpeers); otherwise they are the pieces of an
	// item that was torn up by injected line breaks, and the whole reply deserves no trust. They have gone to OnFrames
	// as well.
	Untagged []string
	// Malformed are the items that are no well-formed AMI message.
	Malformed []string
}

// parseReply reads the frames of one reply, the response first.
func parseReply(frames []string) (*Reply, error) {
	r := &Reply{Response: &Message{}}
	if len(frames) == 0 {
		return r, errors.New("empty reply")
	}
	// Asterisk 22 ends some refusals with a line feed: "No Contacts found\n" (res_pjsip_registrar.c).
	response, err := ParseMessage(strings.TrimSuffix(frames[0], "\n"))
	if err != nil {
		return r, fmt.Errorf("unreadable reply that begins with %q", firstBytes([]byte(frames[0])))
	}
	r.Response = response
	for i, frame := range frames[1:] {
		m, err := ParseMessage(frame)
		switch {
		case err != nil:
			r.Malformed = append(r.Malformed, frame)
		case i == len(frames)-2 && isListEnd("EventList: "+m.Get("EventList")):
			r.Complete = m
		default:
			r.Events = append(r.Events, m)
		}
	}
	return r, nil
}

// responseError returns the error that a response stands for, or nil.
func responseError(action string, response *Message) error {
	if !strings.EqualFold(response.Get("Response"), "Error") {
		return nil
	}
	message := response.Get("Message")
	if message == permissionDenied {
		return &DeniedError{Action: action}
	}
	return &ActionError{Action: action, Message: message}
}
