package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/ban"
)

// phonesOfOffice is how many phones an office has, behind one address.
const phonesOfOffice = 40

// mostBesideOffice is how many guesses of an attacker behind the address of an office are judged at most, in ten minutes.
const mostBesideOffice = 30

// Forty phones behind one address, and an attacker beside them: no registration is lost, and he gets next to nothing.
// RINGWALL_NAT_FOR=10m has it last longer than some seconds.
func TestAnAttackerBesideFortyPhones(t *testing.T) {
	length, every := 20*time.Second, 3*time.Second
	if text := os.Getenv("RINGWALL_NAT_FOR"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		every = 20 * time.Second
	}
	r := newRigOn(t, lab.Start(t, lab.Options{Edit: addAccounts}), lab.Ringwall, "")
	var all sync.WaitGroup
	for i, transport := range []string{"udp", "tls"} {
		all.Go(func() {
			t.Run(transport, func(t *testing.T) { r.forSubtest(t).attackBeside(i, transport, length, every) })
		})
	}
	all.Wait()
	r.stopDaemon()
}

// attackBeside is one of the attacks, each with an address and accounts of its own.
func (r *rig) attackBeside(i int, transport string, length, every time.Duration) {
	a := ip4(160+i, 1)
	r.AddAddr(r.t, lab.Spare, a)
	o := r.openOffice(a, transport, firstAccount+phonesOfOffice*i, phonesOfOffice)
	target := fmt.Sprint(firstAccount + 100 + i)
	heard := r.countGuesses(a)
	ctx, cancel := context.WithTimeout(r.t.Context(), length)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { o.keepRegistering(ctx, every) })
	sent := r.guessBeside(ctx, a, transport, target)
	work.Wait()
	guesses := heard()
	r.t.Logf("figure: %d phones over %s, and an attacker beside them for %v: %d registrations, %d lost, the slowest "+
		"took %v; %d guesses sent, %d judged; told: %q", phonesOfOffice, transport, length, o.registered.Load(),
		o.lost.Load(), time.Duration(o.slowest.Load()).Round(time.Millisecond), sent, guesses,
		r.decisionsAbout(a, ban.ActionBan, ban.ActionCut, ban.ActionGuessing))
	if o.lost.Load() > 0 || o.registered.Load() < phonesOfOffice || guesses >= mostBesideOffice || guesses == 0 {
		r.t.Errorf("%d of %d registrations were lost, %d guesses were judged", o.lost.Load(), o.registered.Load(),
			guesses)
	}
}

// office is some phones behind one address.
type office struct {
	*rig
	phones   []*lab.Agent
	accounts []string

	registered, lost atomic.Int64
	slowest          atomic.Int64 // registration, ns
}

// openOffice registers n phones from one address of the spare node, each of an account of its own.
func (r *rig) openOffice(a netip.Addr, transport string, firstAccount, n int) *office {
	r.t.Helper()
	o := &office{rig: r}
	for i := range n {
		phone := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a, Timeout: 32 * time.Second,
			Retransmit: true})
		account := fmt.Sprint(firstAccount + i)
		if code, err := phone.Register(account, lab.Password(account)); err != nil || code != 200 {
			r.t.Fatalf("phone %d: %d, %v", i, code, err)
		}
		o.phones, o.accounts = append(o.phones, phone), append(o.accounts, account)
	}
	return o
}

// keepRegistering has each phone register again and again, from where it did before.
func (o *office) keepRegistering(ctx context.Context, every time.Duration) {
	var all sync.WaitGroup
	for i, phone := range o.phones {
		all.Go(func() {
			for pauseFor(ctx, every) {
				begin, local := time.Now(), phone.Local()
				code, err := phone.Register(o.accounts[i], lab.Password(o.accounts[i]))
				if err != nil || code != 200 || phone.Local() != local {
					o.t.Logf("%s registers from %v, before from %v: %d, %v", o.accounts[i], phone.Local(), local, code, err)
					o.lost.Add(1)
					phone.Close()
					continue
				}
				o.registered.Add(1)
				o.slowest.Store(max(o.slowest.Load(), int64(time.Since(begin))))
			}
		})
	}
	all.Wait()
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// guessBeside guesses an account from an address of the spare node, each time from a new port, until ctx ends. It
// returns how often it tried.
func (r *rig) guessBeside(ctx context.Context, a netip.Addr, transport, account string) (sent int) {
	var all sync.WaitGroup
	var tries atomic.Int64
	for range 8 {
		all.Go(func() {
			for pauseFor(ctx, 20*time.Millisecond) {
				bad := r.Agent(r.t, lab.Spare, lab.AgentOptions{Transport: transport, Local: a,
					Timeout: 200 * time.Millisecond})
				for tries.Add(1); ; tries.Add(1) { // in one connection, as many as are answered
					if _, err := bad.GuessAnew(account, fmt.Sprint("guess-", tries.Load())); err != nil || transport == "udp" {
						break
					}
				}
				bad.Close()
			}
		})
	}
	all.Wait()
	return int(tries.Load())
}

// countGuesses counts from now on the wrong passwords and names of which Asterisk tells from an address. The function
// that it returns ends that.
func (r *rig) countGuesses(a netip.Addr) func() int {
	r.t.Helper()
	ami := r.DialAMI(r.t, lab.Ringwall)
	ctx, cancel := context.WithCancel(r.t.Context())
	guesses := 0
	count := func() {
		for _, f := range ami.DrainFrames() {
			switch f.Event() {
			case "ChallengeResponseFailed", "InvalidAccountID", "InvalidPassword":
				if from := f.Get("RemoteAddress"); containsAddr(from, a) {
					guesses++
				}
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pauseFor(ctx, time.Second) {
			count()
		}
	}()
	return func() int {
		cancel()
		<-done
		count()
		return guesses
	}
}

// containsAddr says whether an address of Asterisk's, "IPV4/UDP/10.99.0.66/5060", is this one.
func containsAddr(text string, a netip.Addr) bool { return strings.Contains(text, "/"+a.String()+"/") }
