package ami

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// piped runs a session in a synctest bubble against script, which gets every connection in turn (and its number), until
// ends has passed.
func piped(t *testing.T, ends time.Duration, change func(*Config), script func(n int, nc net.Conn)) (states []State,
	s *Session) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Address: "127.0.0.1:5038", Username: "ringwall", Secret: secret,
			OnState: func(st State) { states = append(states, st) }}
		if change != nil {
			change(&cfg)
		}
		s = New(cfg)
		n := 0
		var scripts sync.WaitGroup
		defer scripts.Wait()
		s.dial = func(context.Context, string, string) (net.Conn, error) {
			n++
			if script == nil {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			here, there := net.Pipe()
			number := n
			scripts.Go(func() {
				defer there.Close()
				script(number, there)
			})
			return here, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), ends)
		defer cancel()
		began := time.Now()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if late := time.Since(began) - ends; late > 200*time.Millisecond && cfg.OnFrames == nil {
			t.Errorf("Run returned %v after its context", late)
		}
	})
	return states, s
}

const proofEvent = "Event: SuccessfulAuth\r\nPrivilege: security,all\r\n\r\n"

func only(states []State, kind StateKind) (out []State) {
	for _, st := range states {
		if st.Kind == kind {
			out = append(out, st)
		}
	}
	return out
}

func TestUnansweredPingEndsTheConnection(t *testing.T) {
	states, _ := piped(t, 40*time.Second, nil, func(n int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		if !ok || n > 1 {
			pong(nc, r)
			return
		}
		silent(nc) // reads, and answers nothing
	})
	down := only(states, Disconnected)
	if len(down) != 1 || !errors.Is(down[0].Err, ErrPing) {
		t.Fatalf("states %+v", states)
	}
	if up := only(states, Connected); len(up) != 2 || down[0].At.Sub(up[0].At) != 10*time.Second ||
		up[1].Blind < 10*time.Second || up[1].Blind > 12*time.Second {
		t.Errorf("states %+v", states)
	}
}

func TestAnsweredPingsKeepAQuietLine(t *testing.T) {
	pings := 0
	states, s := piped(t, 10*time.Minute+time.Second, nil, func(_ int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		for ok {
			var action, id string
			if action, id, ok = readAction(r); ok && action == "Ping" {
				pings++
				time.Sleep(20 * time.Millisecond)
				_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nPing: Pong\r\n\r\n", id)
			}
		}
	})
	if len(only(states, Connected)) != 1 || len(only(states, Disconnected)) != 0 {
		t.Errorf("states %+v", states)
	}
	if pings < 140 || pings > 155 {
		t.Errorf("%d pings in ten minutes", pings)
	}
	if rtt := s.Status().RTT; rtt != 20*time.Millisecond {
		t.Errorf("round trip %v", rtt)
	}
}

// An Asterisk that hangs is told of within 15 s, at whichever moment it begins to, on a line that was idle for minutes.
func TestAHungAsteriskIsToldWithinFifteenSeconds(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 3 * time.Minute, 3*time.Minute + 1900*time.Millisecond} {
		var hung time.Time
		states, _ := piped(t, 5*time.Minute, nil, func(n int, nc net.Conn) {
			r, ok := greet(nc, proofEvent)
			if !ok || n > 1 {
				pong(nc, r)
				return
			}
			hung = time.Now().Add(after)
			for {
				action, id, ok := readAction(r)
				if !ok || time.Now().After(hung) {
					break
				}
				if action == "Ping" {
					_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nPing: Pong\r\n\r\n", id)
				}
			}
			silent(nc)
		})
		down := only(states, Disconnected)
		if len(down) != 1 || !errors.Is(down[0].Err, ErrPing) {
			t.Fatalf("hung after %v: states %+v", after, states)
		}
		if told := down[0].At.Sub(hung); told < 9*time.Second || told > 15*time.Second {
			t.Errorf("hung after %v: told after %v", after, told)
		}
	}
}

// A reload that keeps Asterisk from answering for nearly ten seconds, again and again, costs no connection.
func TestAnAsteriskThatReloadsIsNotTakenForHung(t *testing.T) {
	answers := 0
	states, _ := piped(t, 5*time.Minute, nil, func(_ int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		for ok {
			var action, id string
			if action, id, ok = readAction(r); ok && action == "Ping" {
				time.Sleep(9900 * time.Millisecond)
				answers++
				_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\nPing: Pong\r\n\r\n", id)
			}
		}
	})
	if len(only(states, Connected)) != 1 || len(only(states, Disconnected)) != 0 || answers < 20 {
		t.Errorf("%d answers, states %+v", answers, states)
	}
}

// That read=security is missing is told 5 s after the login, while all else goes on.
func TestMissingPrivilegeIsToldWithinFifteenSeconds(t *testing.T) {
	states, s := piped(t, time.Minute, nil, func(_ int, nc net.Conn) {
		if r, ok := greet(nc, ""); ok {
			pong(nc, r)
		}
	})
	told := only(states, Unproven)
	if len(told) != 1 || !errors.Is(told[0].Err, ErrNoPrivilege) || told[0].At.Sub(states[0].At) != 5*time.Second {
		t.Errorf("states %+v", states)
	}
	if len(only(states, Failed)) != 0 || s.Status().Reconnects != 0 {
		t.Errorf("states %+v", states)
	}
}

func TestBusyLineMayAnswerPingLate(t *testing.T) {
	flow := func(nc net.Conn, until time.Duration) {
		r, ok := greet(nc, proofEvent)
		if !ok {
			return
		}
		ids := make(chan string, 100)
		go func() {
			defer close(ids)
			for {
				action, id, ok := readAction(r)
				if !ok {
					return
				}
				if action == "Ping" {
					ids <- id
				}
			}
		}()
		for range int(until / time.Second) {
			time.Sleep(time.Second)
			if _, err := nc.Write([]byte("Event: ChallengeSent\r\nPrivilege: security,all\r\n\r\n")); err != nil {
				return
			}
		}
		for id := range ids {
			_, _ = fmt.Fprintf(nc, "Response: Success\r\nActionID: %s\r\n\r\n", id)
		}
	}
	states, _ := piped(t, 45*time.Second, nil, func(_ int, nc net.Conn) { flow(nc, 30*time.Second) })
	if len(only(states, Disconnected)) != 0 {
		t.Errorf("a line that was busy for 30 s was cut: %+v", states)
	}
	states, _ = piped(t, 45*time.Second, nil, func(_ int, nc net.Conn) { flow(nc, time.Hour) })
	if down := only(states, Disconnected); len(down) != 1 || !errors.Is(down[0].Err, ErrPing) ||
		down[0].At.Sub(states[0].At) != 40*time.Second {
		t.Errorf("a line that never answers: %+v", states)
	}
}

func TestStreamWithoutFrameEndsIsNoLife(t *testing.T) {
	states, s := piped(t, 11*time.Second, nil, func(_ int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		if !ok {
			return
		}
		go func() {
			for {
				if _, _, ok := readAction(r); !ok {
					return
				}
			}
		}()
		junk := []byte(strings.Repeat("x", 1<<20))
		for range 100_000 {
			if _, err := nc.Write(junk); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	if down := only(states, Disconnected); len(down) != 1 || !errors.Is(down[0].Err, ErrPing) {
		t.Errorf("states %+v", states)
	}
	if st := s.Status(); st.QueuePeak > 1<<20 {
		t.Errorf("status %+v", st)
	}
}

func TestOneByteASecondTimesTheLoginOut(t *testing.T) {
	states, _ := piped(t, 10500*time.Millisecond, nil, func(_ int, nc net.Conn) {
		for _, b := range []byte("Asterisk Call Manager/11.0.0\r\n") {
			if _, err := nc.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	})
	if failed := only(states, Failed); len(failed) != 1 || !errors.Is(failed[0].Err, ErrTimeout) {
		t.Errorf("states %+v", states)
	}
}

func TestPausesGrowAndAreCapped(t *testing.T) {
	states, _ := piped(t, 10*time.Minute, nil, nil)
	want := time.Second
	for i, st := range states {
		if st.Kind != Failed || st.Retry < want*3/4 || st.Retry > want*5/4 {
			t.Fatalf("attempt %d: pause %v, want about %v", i, st.Retry, want)
		}
		want = min(2*want, 30*time.Second)
	}
	if len(states) < 15 || len(states) > 35 {
		t.Errorf("%d attempts in ten minutes", len(states))
	}
}

func TestOnlyALongLifeResetsThePause(t *testing.T) {
	lives := []time.Duration{time.Second, time.Second, time.Second, time.Minute, time.Second, 0}
	states, _ := piped(t, 3*time.Minute, nil, func(n int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		if !ok || n > len(lives) {
			silent(nc)
			return
		}
		time.AfterFunc(lives[n-1], func() { _ = nc.Close() })
		pong(nc, r)
	})
	for i, want := range []time.Duration{1, 2, 4, 1, 2, 4} {
		down := only(states, Disconnected)
		if i >= len(down) {
			t.Fatalf("%d connections ended", len(down))
		}
		if got := down[i].Retry; got < want*time.Second*3/4 || got > want*time.Second*5/4 {
			t.Errorf("after connection %d: pause %v, want about %d s", i+1, got, want)
		}
	}
}

func TestRefusedLoginIsNotRepeatedFast(t *testing.T) {
	states, _ := piped(t, 5*time.Minute, nil, func(_ int, nc net.Conn) {
		_, _ = nc.Write([]byte("Asterisk Call Manager/11.0.0\r\n"))
		r := bufio.NewReader(nc)
		for {
			action, id, ok := readAction(r)
			if !ok {
				return
			}
			text := "Response: Success\r\nActionID: " + id + "\r\nChallenge: 1\r\n\r\n"
			if action == "Login" {
				time.Sleep(time.Second)
				text = "Response: Error\r\nActionID: " + id + "\r\nMessage: Authentication failed\r\n\r\n"
			}
			_, _ = nc.Write([]byte(text))
		}
	})
	if len(states) > 14 {
		t.Errorf("%d attempts in five minutes", len(states))
	}
	for _, st := range states {
		if !errors.Is(st.Err, ErrLogin) {
			t.Errorf("%+v", st)
		}
	}
}

// A refused login is tried again after half a minute, or as soon as somebody says that it was mended.
func TestRetryEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := make(chan time.Time, 16)
		s := New(Config{Address: "127.0.0.1:5038", Username: "ringwall", Secret: secret, BackoffMin: time.Hour,
			BackoffMax: time.Hour})
		s.dial = func(context.Context, string, string) (net.Conn, error) {
			tried <- time.Now()
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		first := <-tried
		synctest.Wait()
		s.Retry()
		s.Retry() // twice is once
		if again := (<-tried).Sub(first); again != 0 {
			t.Errorf("tried after %v", again)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestEndOfContextEndsEveryStage(t *testing.T) {
	stages := map[string]func(n int, nc net.Conn){
		"banner": func(_ int, nc net.Conn) { silent(nc) },
		"login": func(_ int, nc net.Conn) {
			_, _ = nc.Write([]byte("Asterisk Call Manager/11.0.0\r\n"))
			silent(nc)
		},
		"stuck write": func(_ int, nc net.Conn) {
			_, _ = greet(nc, proofEvent)
			time.Sleep(time.Minute)
		},
		"pause": nil,
	}
	for name, script := range stages {
		t.Run(name, func(t *testing.T) {
			states, s := piped(t, 2*time.Second, nil, script)
			if st := s.Status(); st.Up {
				t.Errorf("up at the end; states %+v", states)
			}
		})
	}
}

func TestQueuedFramesAreDeliveredAtTheEnd(t *testing.T) {
	got := 0
	_, s := piped(t, 5*time.Second, func(c *Config) {
		c.OnFrames = func(f []Frame) {
			got += len(f)
			time.Sleep(10 * time.Second)
		}
	}, func(_ int, nc net.Conn) {
		r, ok := greet(nc, proofEvent)
		if !ok {
			return
		}
		time.Sleep(time.Second)
		for range 1000 {
			_, _ = nc.Write([]byte("Event: ChallengeSent\r\nPrivilege: security,all\r\n\r\n"))
		}
		pong(nc, r)
	})
	if st := s.Status(); got != 1001 || st.Received != 1001 || st.QueueBytes != 0 {
		t.Errorf("%d delivered, status %+v", got, st)
	}
}
