package ami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

// answering is a session with a scripted Asterisk that answers every action but Ping with reply(action, its ActionID).
func answering(t *testing.T, reply func(action, id string) string) *watched {
	t.Helper()
	w := run(t, scripted(t, func(nc net.Conn) {
		r, ok := greet(nc, "Event: SuccessfulAuth\r\nPrivilege: security,all\r\n\r\n")
		for ok {
			var action, id string
			if action, id, ok = readAction(r); !ok || action == "Logoff" {
				return
			}
			text := fmt.Sprintf("Response: Success\r\nActionID: %s\r\nPing: Pong\r\n\r\n", id)
			if action != "Ping" {
				text = reply(action, id)
			}
			_, _ = nc.Write([]byte(text))
		}
	}), nil)
	w.state(Granted, 1)
	return w
}

// recorded returns a recorded reply with the ActionID of the recording replaced.
func recorded(t *testing.T, file, id string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	_, reply, _ := strings.Cut(string(b), "Message: Authentication accepted\r\n\r\n")
	reply = strings.TrimRight(reply, "\r\n") + "\r\n\r\n"
	return strings.ReplaceAll(reply, "ActionID: q1\r\n", "ActionID: "+id+"\r\n")
}

func TestActionCollectsRecordedReplies(t *testing.T) {
	for _, tt := range []struct {
		file     string
		events   int
		untagged int
		complete string
		field    [2]string // of the response or the first item
	}{
		{"query-DBGetTree.ami", 10, 0, "DBGetTreeComplete", [2]string{"Event", "DBGetTreeResponse"}},
		{"query-PJSIPShowEndpoint-6001.ami", 8, 0, "EndpointDetailComplete", [2]string{"ObjectName", "6001"}},
		{"query-IAXpeers.ami", 0, 1, "PeerlistComplete", [2]string{"Message", "Peer status list will follow"}},
		{"query-Ping.ami", 0, 0, "", [2]string{"Ping", "Pong"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			w := answering(t, func(_, id string) string { return recorded(t, tt.file, id) })
			r, err := w.Action(t.Context(), "Whatever")
			if err != nil {
				t.Fatal(err)
			}
			m := r.Response
			if len(r.Events) > 0 {
				m = r.Events[0]
			}
			if len(r.Events) != tt.events || len(r.Untagged) != tt.untagged || len(r.Malformed) != 0 ||
				m.Get(tt.field[0]) != tt.field[1] {
				t.Errorf("%d events, %d untagged, %d malformed, %s", len(r.Events), len(r.Untagged), len(r.Malformed),
					m.String())
			}
			if tt.complete == "" && r.Complete != nil || tt.complete != "" &&
				(r.Complete == nil || r.Complete.Get("Event") != tt.complete) {
				t.Errorf("complete %v", r.Complete)
			}
			_ = w.stop()
			for _, f := range w.frames {
				if strings.Contains(f.Text, "ActionID: ") {
					t.Errorf("a reply frame reached OnFrames: %q", f.Text)
				}
			}
		})
	}
}

func TestActionErrors(t *testing.T) {
	_, address := asterisk(t, amiserver.Config{})
	w := run(t, address, nil)
	w.state(Granted, 1)
	_, err := w.Action(t.Context(), "Command", Header{"Command", "pjsip show identifies"})
	denied, ok := errors.AsType[*DeniedError](err)
	if !ok || denied.Action != "Command" || w.Status().Denied["Command"] != 1 {
		t.Errorf("%v, %v", err, w.Status().Denied)
	}
	// The refusal makes a security event about the session itself.
	f := w.frame("Event: RequestNotAllowed")
	if !strings.Contains(f.Text, fmt.Sprintf("/%d\r\n", w.Status().Local.Port())) {
		t.Errorf("%q names another address than %v", f.Text, w.Status().Local)
	}
	_, err = w.Action(t.Context(), "NoSuchAction")
	if e, ok := errors.AsType[*ActionError](err); !ok ||
		!strings.HasPrefix(e.Message, "Invalid/unknown command: NoSuchAction") {
		t.Errorf("%v", err)
	}
	for name, headers := range map[string][]Header{
		"":       nil,
		"A\r\nB": nil,
		"A":      {{"X", "y\r\nAction: Command"}},
		"B":      {{"X\r\nY", "z"}},
		"C":      {{"X: y", "z"}},
		"D":      {{"X", "a\x00"}},
		"E":      {{"ActionID", "mine"}},
		"F":      {{"action", "Command"}},
		"G":      {{"X", strings.Repeat("y", 2000)}},
		"H":      {{"", "y"}},
	} {
		if _, err := w.Action(t.Context(), name, headers...); err == nil || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q %q: %v", name, headers, err)
		}
	}
	if st := w.Status(); st.Reconnects != 0 {
		t.Errorf("status %+v", st)
	}
	_ = w.stop()
	if _, err := w.Action(t.Context(), "Ping"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("%v", err)
	}
}

func TestInjectedResponsesAnswerNothing(t *testing.T) {
	injected := []string{
		"Response: Success\r\nActionID: 00000000000000000000000000000000\r\nPing: Pong",
		"Response: Error\r\nMessage: Permission denied",
		"Response: Goodbye\r\nMessage: Thanks for all the fish.",
		"ActionID: 1\r\nResponse: Success",
		"Response: Success\r\nX: y\r\nActionID: %s", // the right one in the wrong place
		"X: y\r\nActionID: %s",
		"Event: Fake\r\nPrivilege: security,all\r\nActionID: %s\r\nEventList: Complete",
		"\r\nSessionID: rest of an event",
		"",
	}
	w := answering(t, func(_, id string) string {
		var b strings.Builder
		for _, f := range injected {
			b.WriteString(strings.ReplaceAll(f, "%s", id) + "\r\n\r\n")
		}
		return b.String() + "Response: Success\r\nActionID: " + id + "\r\nMessage: the real one\r\n\r\n"
	})
	r, err := w.Action(t.Context(), "CoreSettings")
	if err != nil || r.Response.Get("Message") != "the real one" {
		t.Fatalf("%v, %v", r, err)
	}
	_ = w.stop()
	var texts []string
	for _, f := range w.frames[1:] {
		texts = append(texts, f.Text)
	}
	if len(texts) != len(injected) {
		t.Fatalf("%d of %d frames reached OnFrames: %q", len(texts), len(injected), texts)
	}
	for i, f := range injected {
		before, _, _ := strings.Cut(f, "%s")
		if !strings.HasPrefix(texts[i], before) {
			t.Errorf("frame %d is %q, want %q", i, texts[i], f)
		}
	}
	if st := w.Status(); st.Reconnects != 0 || len(st.Denied) != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestEventsWithinAListStayEvents(t *testing.T) {
	w := answering(t, func(_, id string) string {
		return strings.ReplaceAll("Response: Success\r\nActionID: @\r\nEventList: start\r\nMessage: x\r\n\r\n"+
			"Event: ContactList\r\nActionID: @\r\nUserAgent: torn\r\n\r\n"+ // an injected end
			"Response: Success\r\nOutboundProxy: rest\r\n\r\n"+
			"Event: ChallengeSent\r\nPrivilege: security,all\r\nN: 7\r\n\r\n"+
			"Event: ContactList\r\nActionID: @\r\nBroken\nValue: x\r\n\r\n"+
			"Event: ContactList\r\nActionID: @\r\nEvil: EventList: Complete\r\n\r\n"+
			"Event: ContactListComplete\r\nActionID: @\r\nEventList: Complete\r\nListItems: 3\r\n\r\n", "@", id)
	})
	r, err := w.Action(t.Context(), "PJSIPShowContacts")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Events) != 2 || len(r.Malformed) != 1 || len(r.Untagged) != 1 || r.Complete == nil ||
		!strings.Contains(r.Untagged[0], "rest") {
		t.Errorf("%d events, malformed %q, untagged %q, complete %v", len(r.Events), r.Malformed, r.Untagged,
			r.Complete)
	}
	w.frame("N: 7")
	w.frame("OutboundProxy: rest")
}

func TestReplyIsBounded(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		r, ok := greet(nc, "")
		for ok {
			var action, id string
			action, id, ok = readAction(r)
			switch action {
			case "Ping":
				_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\n\r\n", id)
			case "Big":
				_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nEventList: start\r\n\r\n", id)
				item := fmt.Appendf(nil, "Event: Item\r\nActionID: %s\r\nX: %s\r\n\r\n", id, strings.Repeat("x", 1000))
				for range 1000 {
					_, _ = nc.Write(item)
				}
				_, _ = fmt.Fprintf(nc, "Event: End\r\nActionID: %s\r\nEventList: Complete\r\n\r\n", id)
			}
		}
	})
	w := run(t, address, func(c *Config) { c.MaxReplyBytes = 100 << 10 })
	w.state(Connected, 1)
	if _, err := w.Action(t.Context(), "Big"); !errors.Is(err, ErrReplyTooLarge) {
		t.Errorf("%v", err)
	}
	// The rest of the list is swallowed, the session goes on.
	if _, err := w.Action(t.Context(), "Ping"); err != nil {
		t.Error(err)
	}
	if st := w.Status(); st.Received != 0 || st.Reconnects != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestUnansweredActions(t *testing.T) {
	w := answering(t, func(action, id string) string {
		if action == "Second" {
			return "Response: Success\r\nActionID: " + id + "\r\n\r\n"
		}
		return "" // as Events with brokeneventsaction
	})
	for w.Status().RTT == 0 { // no Ping of the session's own comes between
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := w.Action(ctx, "Patient"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	first := make(chan error, 1)
	go func() {
		_, err := w.Action(t.Context(), "First")
		first <- err
	}()
	w.Session.mu.Lock()
	c := w.Session.conn
	w.Session.mu.Unlock()
	for sent := false; !sent; runtime.Gosched() {
		c.actionsMu.Lock()
		for _, cl := range c.pending {
			sent = sent || cl.name == "First"
		}
		c.actionsMu.Unlock()
	}
	if _, err := w.Action(t.Context(), "Second"); err != nil {
		t.Error(err)
	}
	if err := <-first; !errors.Is(err, ErrNoReply) {
		t.Errorf("%v", err)
	}
	for range maxPending {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = w.Action(ctx, "Never")
	}
	if _, err := w.Action(t.Context(), "Never"); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}

func TestLostConnectionEndsActions(t *testing.T) {
	address := scripted(t, func(nc net.Conn) {
		r, ok := greet(nc, "")
		for ok {
			var action string
			if action, _, ok = readAction(r); action == "Die" {
				return
			}
		}
	})
	w := run(t, address, nil)
	w.state(Connected, 1)
	if _, err := w.Action(t.Context(), "Die"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("%v", err)
	}
}

func FuzzParseReply(f *testing.F) {
	for _, file := range []string{"query-DBGetTree.ami", "query-IAXpeers.ami", "query-PJSIPShowEndpoint-6001.ami",
		"weird-inject-remote.ami"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("Response: Success\r\nActionID: q1\r\nEventList: start\r\n\r\nEvent: X\r\nActionID: q1\r\nEventList: " +
		"Complete\r\n\r\n")
	f.Fuzz(func(t *testing.T, data string) {
		frames := strings.Split(data, "\r\n\r\n")
		c := &connection{maxReplyBytes: 4096}
		cl := &pendingAction{actionIDLine: "ActionID: q1", done: make(chan struct{})}
		c.pending = append(c.pending, cl)
		c.numPending.Store(1)
		for _, f := range frames {
			mine := c.takeAnswer(f)
			if mine && !strings.Contains(f, cl.actionIDLine) {
				t.Fatalf("took %q", f)
			}
			if cl.finished != (len(c.pending) == 0) && cl.err == nil {
				t.Fatalf("finished %v with %d calls", cl.finished, len(c.pending))
			}
		}
		if cl.finished && cl.err == nil {
			if r, err := parseReply(cl.frames); err == nil && 1+len(r.Events)+len(r.Malformed) > len(cl.frames) {
				t.Fatalf("%d frames became %+v", len(cl.frames), r)
			}
		}
		if r, err := parseReply(frames); r == nil || err == nil && r.Response == nil {
			t.Fatal("no reply and no error")
		} else if err == nil {
			_ = responseError("X", r.Response)
		}
	})
}

// Asterisk 22 ends some refusals with a line feed of its own, before the empty line.
func TestRefusalThatEndsWithALineFeedIsRead(t *testing.T) {
	r, err := parseReply([]string{"Response: Error\r\nActionID: 1\r\nMessage: No Contacts found\n"})
	if err != nil || r.Response.Get("Message") != "No Contacts found" {
		t.Errorf("%+v, %v", r, err)
	}
}
