package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

const (
	victimVariable = "RINGWALL_TEST_STORE_VICTIM"
	victimFirst    = "RINGWALL_TEST_STORE_FIRST"
	roundsVariable = "RINGWALL_TEST_KILLS" // 20 rounds unless it says otherwise
	victimKeeps    = 300                   // bans that stay; each step drops one that is older
)

// victim saves bans as fast as it can, and prints each step once it is durable, until it is killed.
func victim(path string) int {
	first, err := strconv.Atoi(os.Getenv(victimFirst))
	if err != nil {
		return 2
	}
	s, _, err := Open(path, Options{Interval: time.Millisecond, History: 500})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	go func() { _ = s.Run(ctx) }()
	for i := first; ; i++ {
		gone := sampleBan(i-victimKeeps, 0)
		changes := []Change{PutBan(sampleBan(i, 4)), DropBan(gone.Prefix),
			PutOffender(ban.Offender{Prefix: gone.Prefix, Bans: gone.Number, Last: gone.Until}),
			AddDecision(sampleDecision(i, time.Now()))}
		if err := s.Put(changes...); err != nil {
			return 1
		}
		if i%7 == 0 { // what nobody waits for lands in the same transactions
			_ = s.Put(PutGrace(ban.Grace{Prefix: host(i), Since: start, Until: start.Add(time.Hour)}))
		}
		if err := s.Flush(ctx); err != nil {
			return 1
		}
		fmt.Println(i)
	}
}

func TestNothingDurableIsLostByKill9(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		rounds = n
	}
	path := statePath(t)
	next, confirmed := victimKeeps, 0
	r := random(1)
	for round := range rounds {
		last := killVictim(t, path, next, time.Duration(r.IntN(60_000))*time.Microsecond)
		s, rec := mustOpen(t, path, Options{Counts: countsInTests})
		if rec.SetAside != "" || rec.Unavailable != nil || rec.Fresh {
			t.Fatalf("round %d: the file does not open: %+v", round, rec)
		}
		bans := make(map[string]ban.Ban)
		state := mustLoad(t, s, start)
		for _, b := range state.Bans {
			bans[b.Prefix.String()] = b
		}
		// The step after the last may have been saved, too, and dropped one more.
		for i := max(victimKeeps, last-victimKeeps+2); i <= last; i++ {
			b, ok := bans[host(i).String()]
			if want := sampleBan(i, 4); !ok || !b.Until.Equal(want.Until) || len(b.Evidence) != 4 {
				t.Fatalf("round %d: ban %d was durable; now %v %+v", round, i, ok, b)
			}
		}
		for i := 0; i <= last-victimKeeps; i++ {
			if _, ok := bans[host(i).String()]; ok {
				t.Fatalf("round %d: the end of ban %d was durable; now it is back", round, i)
			}
		}
		known := worst(state.Offenders)
		for i := 0; i <= last; i++ {
			if want := sampleBan(i, 0); i >= victimKeeps || i <= last-victimKeeps {
				if got := known[want.Prefix]; got.Bans != want.Number || !got.Last.Equal(want.Until) {
					t.Fatalf("round %d: it was durable that %d was banned; now %+v", round, i, got)
				}
			}
		}
		lines, err := s.History(t.Context(), time.Time{}, host(last).Addr())
		if err != nil || len(lines) == 0 {
			t.Fatalf("round %d: the decision of step %d was durable; now %v, %v", round, last, lines, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		confirmed += last - next + 1
		next = last + 1
	}
	t.Logf("%d rounds, %d steps confirmed and found again", rounds, confirmed)
}

// runVictim starts a victim and calls step with each that it confirms.
func runVictim(t *testing.T, path string, first int, step func(cmd *exec.Cmd, n int)) (cmd *exec.Cmd,
	done <-chan struct{}) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+path, victimFirst+"="+strconv.Itoa(first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if err != nil { // the kill may cut a line in two
				break
			}
			if n, err := strconv.Atoi(line[:len(line)-1]); err == nil {
				step(cmd, n)
			}
		}
		_ = cmd.Wait()
	}()
	return cmd, end
}

// startVictim returns once a victim has the file.
func startVictim(t *testing.T, path string, first int) (pid int, end func()) {
	t.Helper()
	begun := make(chan struct{}, 1)
	cmd, done := runVictim(t, path, first, func(*exec.Cmd, int) { mailbox.Signal(begun) })
	end = func() {
		_ = cmd.Process.Kill()
		<-done
	}
	select {
	case <-begun:
	case <-done:
		t.Fatal("the process saved nothing")
	}
	return cmd.Process.Pid, end
}

// killVictim starts a victim, kills it some time after its first step, and returns the last step that it confirmed.
func killVictim(t *testing.T, path string, first int, after time.Duration) int {
	t.Helper()
	last := -1
	var kill *time.Timer
	_, done := runVictim(t, path, first, func(cmd *exec.Cmd, n int) {
		if last = n; kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	})
	<-done
	if kill == nil {
		t.Fatal("the process saved nothing")
	}
	kill.Stop()
	return last
}
