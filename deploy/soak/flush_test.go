package soak

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// Somebody flushes the ruleset ten times a second, under a flood of events and packets: each time every ban is back.
func TestFlushedAllTheTime(t *testing.T) {
	for _, bans := range []int{1_000, shortOrLong(10_000, 100_000)} {
		for _, owner := range []string{"off", "auto"} {
			t.Run(fmt.Sprintf("%d bans, owner %s", bans, owner), func(t *testing.T) { testFlush(t, bans, owner) })
		}
	}
}

func testFlush(t *testing.T, bans int, owner string) {
	length := shortOrLong(2*time.Second, 20*time.Second)
	h := newHost(t, "policy: {honeypots: [trap]}\nfirewall: {owner: "+owner+"}\n")
	outside := netnstest.New(t)
	netnstest.Connect(t, h.space, outside, []string{"10.98.0.1/24"}, []string{"10.98.0.66/24"})
	h.startAndAwait()
	s := newScript()
	s.addTrapped("TCP", netip.MustParseAddr("10.98.0.66"))
	for i := range bans {
		s.addTrapped("TCP", nthAddress(i))
	}
	h.server.Broadcast(s.takeText())
	h.waitUntil("all are banned", func() bool { return h.daemonStatus().Engine.Bans == bans+1 })
	h.awaitAllBans()

	flood := newPackets(t, h.space, outside)
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { h.floodEvents(ctx) })
	trial.WaitUntil(t, "the packets of the banned are dropped", func() bool {
		n := flood.countSent()
		time.Sleep(20 * time.Millisecond)
		return flood.countSent() > n && time.Since(flood.lastArrival()) > 10*time.Millisecond
	})

	var back, leaks, typed []time.Duration
	leaked := 0
	for end := time.Now().Add(length); time.Now().Before(end) || len(back) < 10; {
		next := time.After(100 * time.Millisecond)
		arrived := flood.countArrived()
		flushing := time.Now()
		h.flushRuleset()
		done := time.Now()
		typed = append(typed, done.Sub(flushing))
		h.waitUntil("the bans are back", func() bool { return h.kernelHasAll(h.sampleBans(bans)) })
		back = append(back, max(0, time.Since(done)))
		if n := flood.countArrived(); n > arrived {
			leaked += n - arrived
			leaks = append(leaks, flood.lastArrival().Sub(flushing))
		}
		if bans <= 1_000 || len(back)%10 == 0 {
			h.awaitAllBans()
		}
		sent := flood.countSent()
		<-next
		if n := flood.highestArrived(); n > sent {
			t.Errorf("packet %d of a banned source arrived, which was sent after the bans were back (%d)", n, sent)
		}
	}
	// Without waiting for anything:
	for range shortOrLong(10, 50) {
		h.flushRuleset()
		time.Sleep(100 * time.Millisecond)
	}
	h.awaitAllBans()
	stop() // nft begins again and again where somebody else changes the ruleset meanwhile
	work.Wait()
	out, err := h.space.Run(exec.Command("nft", "list", "chain", "inet", "ringwall", "prerouting"))
	if err != nil || !strings.Contains(out, "@ban4 counter") {
		t.Errorf("the chain: %v\n%s", err, out)
	}
	st := h.daemonStatus().Kernel
	slices.Sort(back)
	t.Logf("%d flushes, which took up to %v: all bans back after %v at the median, %v at the most; %d of %d packets of "+
		"a banned source passed, the last %v after a flush began; rebuilds %v",
		len(back), roundTo10us(slices.Max(typed)), roundTo10us(back[len(back)/2]), roundTo10us(back[len(back)-1]),
		leaked, flood.countSent(),
		roundTo10us(slices.Max(append(leaks, 0))), st.Rebuilds)
	if st.Owner && leaked > 0 {
		t.Error("a flush opened a table that is protected from it")
	}
	if st.Owner != (owner == "auto") {
		t.Logf("owner is %v: this kernel decides", st.Owner)
	}
	h.stopDaemon()
}

func roundTo10us(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// flushRuleset is what an administrator types, or a firewall's reload does. Where the table has an owner it is spared.
func (h *host) flushRuleset() {
	h.t.Helper()
	if out, err := h.space.Run(exec.Command("nft", "flush", "ruleset")); err != nil {
		h.t.Fatalf("nft flush ruleset: %v: %s", err, out)
	}
}

// sampleBans is some of the bans, the attacker's among them.
func (h *host) sampleBans(bans int) []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix("10.98.0.66/32"), singlePrefix(nthAddress(0)),
		singlePrefix(nthAddress(bans - 1))}
	for range 61 {
		list = append(list, singlePrefix(nthAddress(rand.N(bans))))
	}
	return list
}

// kernelHasAll says whether the kernel has them all.
func (h *host) kernelHasAll(list []netip.Prefix) bool {
	return !slices.ContainsFunc(list, func(p netip.Prefix) bool { return !h.inKernel(p) })
}

// awaitAllBans waits until every ban of the daemon is in the kernel. They are looked up one by one: a list that is made
// while others are added misses some.
func (h *host) awaitAllBans() {
	h.t.Helper()
	bans, err := h.client.Bans(h.t.Context(), api.BanFilter{})
	if err != nil {
		h.t.Fatal(err)
	}
	list := make([]netip.Prefix, len(bans))
	for i := range bans {
		list[i] = netip.MustParsePrefix(bans[i].Prefix.String())
	}
	h.waitUntil("every active ban is in the kernel", func() bool {
		list = slices.DeleteFunc(list, h.inKernel)
		return len(list) == 0
	})
}

// floodEvents is a flood of events, with new bans among them.
func (h *host) floodEvents(ctx context.Context) {
	s := newScript()
	for n := 0; pauseFor(ctx, 10*time.Millisecond); n++ {
		s.addTrapped("TCP", nthAddress(1<<22+n))
		for i := range 10 {
			s.addScan("UDP", nthAddress(1<<23+n*10+i))
		}
		h.server.Broadcast(s.takeText())
	}
}

// packets is a flood of packets from one address to the port of SIP, numbered, and what arrives of it.
type packets struct {
	mu      sync.Mutex
	out     int
	in      int
	highest int // number that arrived
	when    time.Time
}

// newPackets sends from 10.98.0.66 to 10.98.0.1 until the test ends.
func newPackets(t *testing.T, inside, outside *netns.Space) *packets {
	t.Helper()
	var server, client *net.UDPConn
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.98.0.1:5060"))
	err := inside.Do(func() (err error) { server, err = net.ListenUDP("udp", to); return err })
	if err == nil {
		err = outside.Do(func() (err error) { client, err = net.DialUDP("udp", nil, to); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &packets{}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for pauseFor(ctx, time.Millisecond) {
			for range 5 {
				p.mu.Lock()
				p.out++
				n := p.out
				p.mu.Unlock()
				_, _ = client.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
			}
		}
	})
	work.Go(func() {
		for b := make([]byte, 2048); ; {
			n, err := server.Read(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.in, p.when = p.in+1, time.Now()
			if n == 8 {
				p.highest = max(p.highest, int(binary.BigEndian.Uint64(b)))
			}
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = client.Close()
		_ = server.Close()
		work.Wait()
	})
	return p
}

func (p *packets) countSent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

func (p *packets) countArrived() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in
}

// highestArrived is the highest number that arrived.
func (p *packets) highestArrived() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.highest
}

// lastArrival is when the last one arrived.
func (p *packets) lastArrival() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.when
}
