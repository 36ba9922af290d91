package witness_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/witness"
)

func strangers(random *rand.Rand) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], random.Uint32()|1<<24)
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(random.Uint32()))
}

// flood has so many forged requests come, from anywhere, of which Asterisk answers some.
func (w *world) flood(random *rand.Rand, n int, credentials string, answers func(int) bool) {
	p := newPair(asteriskAddr, credentials, 401)
	requestAt, answerAt := places(p.request.Payload), places(p.answer.Payload)
	for i := range n {
		from := strangers(random)
		p.request.Source, p.answer.Destination = from, from
		put(p.request.Payload, requestAt, random.Uint32())
		copyNumbers(p, requestAt, answerAt)
		w.now = w.now.Add(50 * time.Microsecond) // 20,000 a second
		w.w.Packet(w.now, true, &p.request)
		if answers(i) {
			w.w.Packet(w.now, false, &p.answer)
		}
		if i%2000 == 0 {
			w.findings = w.w.Due(w.now, w.findings)
		}
	}
}

func copyNumbers(p *pair, requestAt, answerAt []int) {
	for i, at := range answerAt {
		copy(p.answer.Payload[at:at+8], p.request.Payload[requestAt[min(i, len(requestAt)-1)]:])
	}
}

func TestFloodsPushOutNobody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		credentials string
		answers     func(int) bool
	}{
		"without answers":                {"", func(int) bool { return false }},
		"without credentials":            {"", func(int) bool { return true }},
		"with credentials, half answers": {answerOfPhone, func(i int) bool { return i%2 == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			w := newWorld(t, witness.Config{}).others()
			for i := range 5 {
				attacker, phone := w.peer(bad, "201", fmt.Sprint("\xff", i)), w.peer(office, "202", fmt.Sprint("phone", i))
				attacker.send(attacker.request("REGISTER", "", ""))
				phone.send(phone.request("REGISTER", "", ""))
				w.pass(20 * time.Millisecond)
				w.flood(random, 5000, c.credentials, c.answers) // what a quarter of a second brings, before the phone answers
				attacker.send(attacker.request("REGISTER", attacker.nonce, "guess"))
				phone.send(phone.request("REGISTER", phone.nonce, "right"))
				w.pass(100 * time.Millisecond)
				w.flood(random, 5000, c.credentials, c.answers)
			}
			w.others()
			guesses := 0
			for _, f := range w.findings {
				switch {
				case f.Event.Type == event.SilentLogin || f.Event.Remote.AddrPort.Addr() == netip.MustParseAddr(office):
					t.Fatalf("a customer: %+v", f.Event)
				case f.Event.Type == event.SilentGuess && f.Event.Account == "201" && f.Event.Session[0] == '\\':
					guesses++
					if !f.Event.Proven {
						t.Error("its challenge is forgotten")
					}
				}
			}
			if guesses != 5 {
				t.Errorf("%d of 5 guesses", guesses)
			}
		})
	}
}

// TestMemoryIsBounded has more come than there is room for, of everything.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	w := newWorld(t, witness.Config{})
	all := func(int) bool { return true }
	round := func() uint64 {
		w.flood(random, 30_000, "", all)
		w.flood(random, 30_000, answerOfPhone, all)
		for range 20_000 {
			ev := event.Event{
				Type: event.ChallengeSent, Service: event.PJSIP, Session: fmt.Sprint(random.Uint64()),
				Remote: event.Address{AddrPort: strangers(random), Transport: event.UDP},
			}
			w.w.Told(w.now, pbxName, &ev)
			ev.Type, ev.Response = event.ChallengeResponseFailed, "x"
			w.w.Told(w.now, pbxName, &ev)
		}
		w.findings = w.w.Due(w.now, w.findings[:0])
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round()
	round()
	s := w.w.Stats()
	if s.Transactions > 3*8<<10 || s.Dialogues > 24<<10 || s.Nonces > 48<<10 || s.Sources > 12<<10 || s.Waiting > 8<<10 {
		t.Errorf("%+v", s)
	}
	if s.Evicted == 0 {
		t.Error("nothing was forgotten: the test sends too little")
	}
}

func TestOrdinaryTrafficAllocatesNothing(t *testing.T) {
	w := witness.New(witness.Config{})
	p := newPair(netip.MustParseAddrPort(office+":5060"), answerOfPhone, 200)
	requestAt, answerAt := places(p.request.Payload), places(p.answer.Payload)
	now := time.Unix(1_800_000_000, 0)
	n := uint32(0)
	var out []witness.Finding
	pairs := func() {
		for range 100 {
			n++
			now = now.Add(time.Millisecond)
			put(p.request.Payload, requestAt, n)
			put(p.answer.Payload, answerAt, n)
			w.Packet(now, true, &p.request)
			w.Packet(now, false, &p.answer)
		}
		out = w.Due(now, out[:0])
	}
	for range 500 {
		pairs() // until all has its room
	}
	if n := testing.AllocsPerRun(100, pairs); n > 10 { // in a hundred pairs: maps grow at times
		t.Errorf("%v allocations", n)
	}
}

// TestAnyMixture has customers and attackers do anything, with sensors and events as late as they may be. What is hidden
// is found once; of what is told nothing is found.
func TestAnyMixture(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t, witness.Config{})
		w.eventDelay = time.Duration(random.IntN(400)) * time.Millisecond
		w.sensorDelay = time.Duration(random.IntN(15)) * time.Millisecond
		if random.IntN(2) == 0 {
			w.seenBy = []event.Sensor{event.ByTap, event.ByHEP}
		}
		if random.IntN(3) == 0 {
			w.transport, w.segments, w.seenBy = event.TCP, 1+random.IntN(700), []event.Sensor{event.ByTap}
		}
		w.others()
		var peers []*peer
		for i := range 12 {
			addr, id := fmt.Sprintf("198.51.100.%d", 20+random.IntN(4)), fmt.Sprint("call", i)
			p := w.peer(addr, fmt.Sprint(200+i), id)
			p.addr = netip.AddrPortFrom(p.addr.Addr(), uint16(5000+i))
			peers = append(peers, p)
		}
		want := map[event.Type]int{}
		hidden := map[netip.AddrPort]bool{}
		for range 80 {
			p := peers[random.IntN(len(peers))]
			method := []string{"REGISTER", "INVITE", "REGISTER", "SUBSCRIBE"}[random.IntN(4)]
			p.to = []string{"", "100", "999"}[random.IntN(3)]
			id := p.callID
			hides := random.IntN(6) == 0
			if hides {
				p.callID += "\xff"
				hidden[p.addr] = true
			}
			password := "right"
			if random.IntN(3) == 0 {
				password = fmt.Sprint("wrong", random.IntN(3))
			}
			status := p.dialogue(method, password)
			if random.IntN(3) == 0 { // and again, the same
				p.send(p.last)
				w.pass(10 * time.Millisecond)
			}
			if hides {
				if status == 401 {
					want[event.SilentGuess]++
				} else {
					want[event.SilentLogin]++
				}
			}
			p.callID = id
			w.pass(time.Duration(random.IntN(12000)) * time.Millisecond)
		}
		w.pass(10 * time.Second)
		got := map[event.Type]int{}
		for _, f := range w.findings {
			got[f.Event.Type]++
			if !hidden[f.Event.Remote.AddrPort] {
				t.Fatalf("seed %d: a customer: %+v", seed, f.Event)
			}
		}
		// A login may be found twice: its challenge was too old at first, and the password right.
		if got[event.SilentLogin] < want[event.SilentLogin] || got[event.SilentGuess] != want[event.SilentGuess] {
			t.Fatalf("seed %d: found %v, want %v", seed, got, want)
		}
		if t.Failed() {
			return
		}
	}
}
