package soak

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall"
)

const (
	phones    = 500
	attackers = 20
	mostBytes = 400 << 20 // resident
)

// A flood of forged packets, from a million sources and in the customers' names: no customer is locked out, real
// attackers are, and the program's memory stays bounded.
func TestForgedFlood(t *testing.T) {
	t.Run("as fast as it is handled", func(t *testing.T) { testForgedFlood(t, true) })
	t.Run("faster than it is handled", func(t *testing.T) { testForgedFlood(t, false) })
}

func phoneAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

func guesserAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}) }

func testForgedFlood(t *testing.T, bounded bool) {
	const (
		rounds  = 20      // registrations of each phone during the flood
		guesses = 40      // of each attacker
		window  = 4 << 20 // bytes on the way to the program
		ahead   = 100_000 // events that wait in the program, where that is bounded
	)
	pairs := shortOrLong(100_000, 1_000_000) // requests, of two events each
	h := newHost(t, "policy: {half_life: 1h}\n")
	h.startAndAwait()
	s := newScript()
	pushed := h.line.byteCount()
	push := func() {
		b := s.takeText()
		pushed += len(b)
		h.server.Broadcast(b)
		h.line.awaitBytes(pushed - window)
	}
	settled := func(left int) {
		push()
		h.waitUntil("what was sent is handled", func() bool {
			p := h.daemonStatus().PBXs[0]
			return int(p.Events+p.DroppedFrames) >= s.events-left && (left > 0 || p.QueueBytes == 0)
		})
	}
	for i := range phones * 9 / 10 { // the others are new customers, whose first call comes amid the flood
		s.addLogin("UDP", phoneAddress(i), strconv.Itoa(1000+i))
	}
	settled(0)
	h.waitUntil("the phones are trusted", func() bool { return h.daemonStatus().Engine.Trusted == phones*9/10 })

	before, began, cpu := s.events, time.Now(), h.cpuTime()
	for n := range pairs {
		switch {
		case n%50 == 0: // in a customer's name
			s.addGuess("UDP", phoneAddress(n/50%phones), strconv.Itoa(1000+n/50%phones))
		case n%50 == 25:
			s.addScan("UDP", phoneAddress(n/50%phones))
		case n%10 == 1: // some sources are forged again and again, and banned
			s.addScan("UDP", nthAddress(n/10%(pairs/60)))
		default:
			s.addScan("UDP", nthAddress(1<<20+n))
		}
		if every := pairs / (phones * rounds); n%every == 0 {
			i := n / every % phones
			s.addLogin("UDP", phoneAddress(i), strconv.Itoa(1000+i))
		}
		if every := pairs / (attackers * guesses); n%every == 0 {
			i := n / every
			s.addGuess("TCP", guesserAddress(i%attackers), strconv.Itoa(1000+i))
		}
		if n%64 == 63 {
			push()
		}
		if bounded && n%16384 == 16383 {
			settled(ahead)
		}
	}
	settled(0)
	took, cpu := time.Since(began), h.cpuTime()-cpu
	st := h.daemonStatus()
	sent, handled := s.events-before, int(st.PBXs[0].Events)-before
	t.Logf("%d events from %d sources in %v: %.0f a second came, %.0f were handled, at %.2f µs of CPU for each that "+
		"came; dropped %v; %d bans, %d trusted, limits %v",
		sent, st.Engine.Sources, took.Round(time.Millisecond), float64(sent)/took.Seconds(),
		float64(handled)/took.Seconds(),
		float64(cpu.Nanoseconds())/1000/float64(sent), st.PBXs[0].DroppedByEvent, st.Engine.Bans, st.Engine.Trusted,
		st.Engine.Limited)
	t.Logf("resident: %d MiB, at most %d MiB", h.memoryBytes("VmRSS")>>20, h.memoryBytes("VmHWM")>>20)
	if peak := h.memoryBytes("VmHWM"); peak > mostBytes {
		t.Errorf("%d MiB resident, want at most %d", peak>>20, mostBytes>>20)
	}
	if bounded && st.PBXs[0].DroppedFrames > 0 {
		t.Error("frames were dropped")
	}
	for _, c := range st.PBXs[0].DroppedByEvent {
		if c.Name == "SuccessfulAuth" {
			t.Errorf("%d logins were dropped", c.Count)
		}
	}
	h.attackersAreBanned(s, !bounded, push)
	h.phonesAreNot(s, push)
	h.stopDaemon()
}

// attackersAreBanned waits until they are. Where evidence was dropped they may go on for a while.
func (h *host) attackersAreBanned(s *script, goOn bool, push func()) {
	h.t.Helper()
	late := 0
	for i := range attackers {
		if goOn && !h.inKernel(singlePrefix(guesserAddress(i))) {
			late++
			for n := range 10 {
				s.addGuess("TCP", guesserAddress(i), strconv.Itoa(2000+n))
			}
			push()
		}
		h.waitUntil(fmt.Sprintf("attacker %d is banned", i),
			func() bool { return h.inKernel(singlePrefix(guesserAddress(i))) })
	}
	h.t.Logf("%d of %d real attackers were banned amid the flood, %d by what they did after it", attackers-late,
		attackers,
		late)
}

// phonesAreNot shows that the customers' trust still works: what bans a stranger does not ban them.
func (h *host) phonesAreNot(s *script, push func()) {
	h.t.Helper()
	stranger := netip.MustParseAddr("203.0.113.77")
	for range 4 {
		for i := range phones {
			s.addScan("UDP", phoneAddress(i))
		}
		s.addScan("UDP", stranger)
	}
	push()
	h.waitUntil("a stranger is banned", func() bool { return h.inKernel(singlePrefix(stranger)) })
	for i := range phones {
		x, err := h.client.Why(h.t.Context(), phoneAddress(i))
		if err != nil {
			h.t.Fatal(err)
		}
		// What is forged in its name slows who has not logged in from there, and closes nothing to anybody.
		el, slow, err := h.table.LookUpPrefix(firewall.Ban, singlePrefix(phoneAddress(i)))
		if err != nil {
			h.t.Fatal(err)
		}
		if x.Verdict != "trusted" || x.Ban != nil || slow && el.Closes != firewall.CloseUDPKnock || len(x.GoodFlows) == 0 {
			h.t.Fatalf("phone %d: %+v, in the kernel %+v", i, x, el)
		}
	}
}
