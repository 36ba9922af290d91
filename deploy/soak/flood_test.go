package soak

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// A flood of forged packets, from a million sources and in the customers' names: no customer is locked out, real
// attackers are, and the program's memory stays bounded.
func TestForgedFlood(t *testing.T) {
	const (
		phones    = 500
		rounds    = 20 // registrations of each phone during the flood
		attackers = 20
		guesses   = 8 // of each attacker
		most      = 400 << 20
		window    = 4 << 20 // bytes on the way to the program
	)
	pairs := either(100_000, 1_000_000) // requests, of two events each
	h := newHost(t, "policy: {half_life: 1h}\n")
	h.start()
	phone := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }
	attacker := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}) }
	s := newScript()
	pushed := h.line.count()
	push := func() {
		b := s.take()
		pushed += len(b)
		h.server.Broadcast(b)
		h.line.await(pushed - window)
	}
	for i := range phones * 9 / 10 { // the others are new customers, whose first call comes amid the flood
		s.login("UDP", phone(i), strconv.Itoa(1000+i))
	}
	push()
	h.until("the phones are trusted", func() bool { return h.status().Engine.Trusted == phones*9/10 })

	before, began, cpu := s.events, time.Now(), h.cpu()
	for n := range pairs {
		switch {
		case n%50 == 0: // in a customer's name
			s.guess("UDP", phone(n/50%phones), strconv.Itoa(1000+n/50%phones))
		case n%50 == 25:
			s.scan("UDP", phone(n/50%phones))
		case n%10 == 1: // a tenth of the sources is forged again and again, and banned
			s.scan("UDP", nth(n/10%(pairs/60)))
		default:
			s.scan("UDP", nth(1<<20+n))
		}
		if every := pairs / (phones * rounds); n%every == 0 {
			i := n / every % phones
			s.login("UDP", phone(i), strconv.Itoa(1000+i))
		}
		if every := pairs / (attackers * guesses); n%every == 0 {
			i := n / every
			s.guess("TCP", attacker(i%attackers), strconv.Itoa(1000+i))
		}
		if n%64 == 63 {
			push()
		}
	}
	push()
	h.until("the flood is handled", func() bool {
		p := h.status().PBXs[0]
		return p.QueueBytes == 0 && p.Events+p.DroppedFrames >= uint64(s.events)
	})
	took, cpu := time.Since(began), h.cpu()-cpu
	st := h.status()
	handled := int(st.PBXs[0].Events) - before
	t.Logf("%d events from %d sources in %v: %.0f a second were handled, %.2f µs of CPU each; %d dropped: %v; %d bans, %d trusted, limits %v",
		s.events-before, st.Engine.Sources, took.Round(time.Millisecond), float64(handled)/took.Seconds(),
		float64(cpu.Microseconds())/float64(handled), st.PBXs[0].DroppedFrames, st.PBXs[0].DroppedByEvent, st.Engine.Bans,
		st.Engine.Trusted, st.Engine.Limited)
	t.Logf("resident: %d MiB, at most %d MiB", h.memory("VmRSS")>>20, h.memory("VmHWM")>>20)
	if peak := h.memory("VmHWM"); peak > most {
		t.Errorf("%d MiB resident, want at most %d", peak>>20, most>>20)
	}
	for _, c := range st.PBXs[0].DroppedByEvent {
		if c.Name == "SuccessfulAuth" {
			t.Errorf("%d logins were dropped", c.Count)
		}
	}
	for i := range attackers {
		h.until(fmt.Sprintf("attacker %d is banned", i), func() bool { return h.inKernel(single(attacker(i))) })
	}

	// The customers' trust still works: what bans a stranger does not ban them.
	stranger := netip.MustParseAddr("203.0.113.77")
	for range 4 {
		for i := range phones {
			s.scan("UDP", phone(i))
		}
		s.scan("UDP", stranger)
	}
	push()
	h.until("a stranger is banned", func() bool { return h.inKernel(single(stranger)) })
	for i := range phones {
		x, err := h.client.Why(t.Context(), phone(i))
		if err != nil {
			t.Fatal(err)
		}
		if x.Verdict != "trusted" || x.Ban != nil || h.inKernel(single(phone(i))) {
			t.Fatalf("phone %d: %+v", i, x)
		}
	}
	h.daemon.stop(t)
}
