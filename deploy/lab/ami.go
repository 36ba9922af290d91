package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// waitTime bounds each wait for one frame.
const waitTime = 15 * time.Second

// Frame is one AMI frame as Asterisk sent it, without the empty line at its end.
type Frame string

// Get returns the first value of a key, or "".
func (f Frame) Get(key string) string {
	for line := range strings.SplitSeq(string(f), "\r\n") {
		if v, ok := strings.CutPrefix(line, key+": "); ok {
			return v
		}
	}
	return ""
}

// Event returns the event's name, or "" for a reply.
func (f Frame) Event() string { return f.Get("Event") }

// AMI is a plain manager session for tests: it keeps each frame until somebody takes it.
type AMI struct {
	conn net.Conn
	done chan struct{}

	mu           sync.Mutex
	frames       []Frame
	err          error
	frameArrived chan struct{} // closed and replaced when a frame arrives
	lastActionID int
}

// DialAMI logs in on the server, on loopback, as a daemon beside Asterisk would. The session ends with the test.
func (l *Lab) DialAMI(t testing.TB, u User) *AMI {
	t.Helper()
	a, err := l.LoginAMI(t, u, u.Secret())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// LoginAMI is DialAMI with a secret that may be wrong.
func (l *Lab) LoginAMI(t testing.TB, u User, secret string) (*AMI, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	conn, err := l.DialContext(ctx, Server, "tcp", AMIAddress)
	if err != nil {
		return nil, fmt.Errorf("lab: AMI: %w", err)
	}
	a := &AMI{conn: conn, done: make(chan struct{}), frameArrived: make(chan struct{})}
	t.Cleanup(a.Close)
	go a.readFrames()
	reply, err := a.Action("Login", "Username", string(u), "Secret", secret)
	if err != nil {
		return nil, fmt.Errorf("lab: AMI login of %s: %w", u, err)
	}
	if reply.Get("Response") != "Success" {
		return nil, fmt.Errorf("lab: AMI login of %s: %s", u, reply.Get("Message"))
	}
	return a, nil
}

// Close ends the session and waits for its reader.
func (a *AMI) Close() {
	_ = a.conn.Close()
	<-a.done
}

func (a *AMI) readFrames() {
	defer close(a.done)
	r := bufio.NewReader(a.conn)
	_, err := r.ReadString('\n') // the banner
	var frame strings.Builder
	for err == nil {
		var line string
		if line, err = r.ReadString('\n'); err != nil {
			break
		}
		if line != "\r\n" {
			frame.WriteString(line)
			continue
		}
		a.mu.Lock()
		a.frames = append(a.frames, Frame(strings.TrimSuffix(frame.String(), "\r\n")))
		close(a.frameArrived)
		a.frameArrived = make(chan struct{})
		a.mu.Unlock()
		frame.Reset()
	}
	a.mu.Lock()
	a.err = err
	close(a.frameArrived)
	a.mu.Unlock()
}

// TakeFrame waits for the first frame that match accepts and removes it; the others stay, in order.
func (a *AMI) TakeFrame(match func(Frame) bool) (Frame, error) {
	timer := time.NewTimer(waitTime)
	defer timer.Stop()
	seen := 0
	for {
		a.mu.Lock()
		for i := seen; i < len(a.frames); i++ {
			if f := a.frames[i]; match(f) {
				a.frames = append(a.frames[:i:i], a.frames[i+1:]...)
				a.mu.Unlock()
				return f, nil
			}
		}
		seen = len(a.frames)
		err, more := a.err, a.frameArrived
		a.mu.Unlock()
		if err != nil {
			return "", fmt.Errorf("lab: AMI session ended: %w", err)
		}
		select {
		case <-more:
		case <-timer.C:
			return "", errors.New("lab: AMI sent no such frame in " + waitTime.String())
		}
	}
}

// Event waits for an event by name whose values begin as given: key, prefix, key, prefix. It is removed; other frames
// stay.
//
//	session.Event(t, "SuccessfulAuth", "AccountID", "6001", "RemoteAddress", "IPV4/UDP/10.99.0.10/")
func (a *AMI) Event(t testing.TB, name string, want ...string) Frame {
	t.Helper()
	f, err := a.TakeFrame(func(f Frame) bool {
		if f.Event() != name {
			return false
		}
		for i := 0; i+1 < len(want); i += 2 {
			if !strings.HasPrefix(f.Get(want[i]), want[i+1]) {
				return false
			}
		}
		return true
	})
	if err != nil {
		t.Fatalf("event %s %q: %v; frames that arrived: %q", name, want, err, a.DrainFrames())
	}
	return f
}

// DrainFrames returns all frames not yet taken and forgets them.
func (a *AMI) DrainFrames() []Frame {
	a.mu.Lock()
	defer a.mu.Unlock()
	frames := a.frames
	a.frames = nil
	return frames
}

// Ping waits until Asterisk has answered a Ping. It is no barrier: security events take another way through Asterisk
// (stasis) and may arrive after the reply.
func (a *AMI) Ping(t testing.TB) {
	t.Helper()
	if f, err := a.Action("Ping"); err != nil || f.Get("Response") != "Success" {
		t.Fatalf("AMI Ping: %q, %v", f, err)
	}
}

// Action sends an action, with key, value, key, value, and returns its reply.
func (a *AMI) Action(name string, pairs ...string) (Frame, error) {
	a.mu.Lock()
	a.lastActionID++
	id := "lab-" + strconv.Itoa(a.lastActionID)
	a.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "Action: %s\r\nActionID: %s\r\n", name, id)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", pairs[i], pairs[i+1])
	}
	b.WriteString("\r\n")
	if _, err := a.conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	return a.TakeFrame(func(f Frame) bool { return f.Get("Response") != "" && f.Get("ActionID") == id })
}
