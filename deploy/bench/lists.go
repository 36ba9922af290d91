package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
)

// What is listed: addresses and networks of five lists, a million together.
const (
	listedAddresses = 950_000
	listedNetworks  = 50_000
	listCount       = 5
)

// The first octets of what no list of this benchmark names but as networks, as attackers do, and at all.
const (
	networksOctet = 60
	goodOctet     = 20
)

// isNobodys says whether an address is one that no list may name, and some more.
func isNobodys(a netip.Addr) bool {
	switch b := a.As4(); b[0] {
	case 0, 10, 100, 127, 169, 172, 192, 198, 203:
		return true
	default:
		return b[0] >= 224
	}
}

// listEntries yields a million of them, the addresses all over.
func listEntries(yield func(firewall.Listed) bool) {
	for i, n := uint32(0), 0; n < listedAddresses; i++ {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], i*2654435761) // odd, so that none comes twice
		a := netip.AddrFrom4(b)
		if b[0] == networksOctet || b[0] == goodOctet || isNobodys(a) {
			continue
		}
		if !yield(firewall.Listed{From: a, To: a, List: n % listCount}) {
			return
		}
		n++
	}
	for i := range listedNetworks {
		from := [4]byte{networksOctet, byte(i >> 8), byte(i), 0}
		to := from
		to[3] = 31
		if !yield(firewall.Listed{From: netip.AddrFrom4(from), To: netip.AddrFrom4(to), List: i % listCount}) {
			return
		}
	}
}

// gate is a machine with a table, and a cable to it.
type gate struct {
	inside, outside *netns.Space
	table           *firewall.Table
	out, in         int
}

func benchLists(n int) (all []firewall.List) {
	for i := range n {
		all = append(all, firewall.List{Name: fmt.Sprint("list", i), Enforce: true})
	}
	return all
}

// newGate makes one, with so many lists.
func newGate(lists int) (g *gate, err error) {
	g = &gate{out: -1, in: -1}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.inside, err = netns.New(); err != nil {
		return g, err
	}
	if g.outside, err = netns.New(); err != nil {
		return g, err
	}
	if err := connectSpaces(g.inside, g.outside); err != nil {
		return g, err
	}
	err = g.inside.Do(func() (err error) {
		for _, name := range []string{"all", "eth0"} { // packets come from everywhere
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0); err != nil {
				return err
			}
		}
		if err := netns.AddDefaultRoute("eth0", netip.IPv4Unspecified()); err != nil {
			return err
		}
		g.in, err = udpSocket(target, 5060)
		return err
	})
	if err != nil {
		return g, err
	}
	err = g.outside.Do(func() (err error) {
		g.out, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return g, err
	}
	cfg := config.Default()
	table := daemon.TableConfig(&cfg, g.inside.FD())
	table.UDPPorts, table.TCPPorts = []uint16{5060}, []uint16{5060}
	table.Lists = benchLists(lists)
	if g.table, err = firewall.Open(table); err != nil {
		return g, err
	}
	_, err = g.table.EnsureTable()
	return g, err
}

func (g *gate) close() {
	if g.table != nil {
		_ = g.table.Close()
	}
	for _, fd := range []int{g.out, g.in} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	for _, s := range []*netns.Space{g.inside, g.outside} {
		if s != nil {
			_ = s.Close()
		}
	}
}

// datagram is a packet of an address to port 5060 (RFC 791, RFC 768); the kernel writes the checksum of its head.
func datagram(source [4]byte) []byte {
	b := make([]byte, 36)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	to := target.As4()
	copy(b[12:], source[:])
	copy(b[16:], to[:])
	binary.BigEndian.PutUint16(b[20:], 5060)
	binary.BigEndian.PutUint16(b[22:], 5060)
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	return b
}

// passes sends a packet and reports whether it arrives.
func (g *gate) passes(source [4]byte) (bool, error) {
	var b [64]byte
	for { // what is left of before
		if _, _, err := unix.Recvfrom(g.in, b[:], 0); err != nil {
			break
		}
	}
	if err := unix.Sendto(g.out, datagram(source), 0, &unix.SockaddrInet4{Addr: target.As4()}); err != nil {
		return false, err
	}
	for began := time.Now(); time.Since(began) < packetTimeout; {
		if _, _, err := unix.Recvfrom(g.in, b[:], 0); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// timeOf is how long packets take on their way through the rules, and all else that the kernel does with them: it
// delivers one before sendto returns.
func (g *gate) timeOf(packets [][]byte) (time.Duration, error) {
	to := &unix.SockaddrInet4{Addr: target.As4()}
	began := time.Now()
	for _, p := range packets {
		if err := unix.Sendto(g.out, p, 0, to); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// measureLists measures what lists of a million addresses and networks cost: the exchange, the memory, and a packet of
// somebody whom none of them names.
func measureLists(ctx context.Context, o *options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	without, err := newGate(0)
	if err != nil {
		return err
	}
	defer without.close()
	with, err := newGate(listCount)
	if err != nil {
		return err
	}
	defer with.close()
	before, err := settledMemory(ctx)
	if err != nil {
		return err
	}
	for n := range o.rounds {
		began := time.Now()
		if err := with.table.SetLists(ctx, benchLists(listCount), listEntries); err != nil {
			return err
		}
		took := time.Since(began).Round(time.Millisecond)
		if n == 0 {
			now, err := settledMemory(ctx)
			if err != nil {
				return err
			}
			const entries = listedAddresses + listedNetworks
			fmt.Printf("  %d addresses and %d networks of %d lists: %.0f MB in the kernel, %d B each\n",
				listedAddresses,
				listedNetworks, listCount, float64(now-before)/(1<<20), (now-before)/entries)
		}
		fmt.Printf("  exchange %d: %v\n", n+1, took)
	}
	if err := comparePackets(ctx, o, without, with); err != nil {
		return err
	}
	return measureListsOfProgram(ctx, o)
}

// measureListsOfProgram measures the same with the program itself, which reads its lists from files.
func measureListsOfProgram(ctx context.Context, o *options) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	dir := filepath.Dir(h.config)
	if err := writeLists(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(h.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, "lists:")
	for i := range listCount {
		_, e := fmt.Fprintf(f, "  - {name: list%d, file: %q}\n", i, listFile(dir, i))
		err = errors.Join(err, e)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	took := regexp.MustCompile(fmt.Sprintf(`elements=%d took=(\S+)`, listedAddresses+listedNetworks))
	if err := h.startDaemon(ctx, o); err != nil {
		return err
	}
	err = waitUntil(ctx, "all is in force", func() bool { return took.MatchString(h.daemon.Output()) })
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, h.daemon.Output())
	}
	fmt.Printf("  the program: %.0f MB resident, at most %.0f", h.memoryMB("VmRSS"), h.memoryMB("VmHWM"))
	for range o.rounds {
		now := time.Now()
		if err := os.Chtimes(listFile(dir, 0), now, now); err != nil { // so that it is read anew
			return err
		}
		if _, err := h.client.RefreshList(ctx, api.ListRefreshRequest{Name: "list0"}); err != nil {
			return err
		}
	}
	var all []string
	for _, m := range took.FindAllStringSubmatch(h.daemon.Output(), -1) {
		all = append(all, m[1])
	}
	fmt.Printf("; after %d exchanges, which took %s: %.0f and %.0f\n", len(all), strings.Join(all, ", "),
		h.memoryMB("VmRSS"), h.memoryMB("VmHWM"))
	return nil
}

func listFile(dir string, list int) string {
	return filepath.Join(dir, fmt.Sprintf("list%d.txt", list))
}

// writeLists writes the lists into a folder, without what no list may name.
func writeLists(dir string) error {
	var text [listCount]bytes.Buffer
	for l := range listEntries {
		p := netip.PrefixFrom(l.From, 32)
		if l.From != l.To {
			p = netip.PrefixFrom(l.From, 27)
		}
		fmt.Fprintln(&text[l.List], p)
	}
	for i := range text {
		if err := os.WriteFile(listFile(dir, i), text[i].Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// comparePackets sends the same packets through both, a few at a time in turn.
func comparePackets(ctx context.Context, o *options, without, with *gate) error {
	listed := [4]byte{networksOctet, 1, 2, 3}
	for _, g := range []*gate{without, with} {
		for source, want := range map[[4]byte]bool{{goodOctet, 1, 2, 3}: true, listed: g == without} {
			if passes, err := g.passes(source); err != nil || passes != want {
				return errors.Join(err, fmt.Errorf("a packet of %v passes: %v", source, passes))
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	const packets, batch = 1 << 16, 1 << 10
	for _, kind := range []string{"nobody knows", "is trusted"} {
		all := make([][]byte, packets)
		var trust []firewall.Change
		for i := range all {
			source := [4]byte{goodOctet, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}
			if kind == "is trusted" {
				source = [4]byte{goodOctet, 0, byte(i >> 8 & 31), byte(i)}
				if i < 1<<13 {
					trust = append(trust, firewall.Change{Kind: firewall.Trust, Prefix: netip.PrefixFrom(
						netip.AddrFrom4(source), 32), Timeout: time.Hour})
				}
			}
			all[i] = datagram(source)
		}
		for _, g := range []*gate{without, with} {
			if len(trust) > 0 {
				if err := g.table.Apply(trust); err != nil {
					return err
				}
			}
		}
		var each [2][]float64 // ns a packet
		var ratios []float64
		for range 5 * o.rounds {
			for some := range slices.Chunk(all, batch) {
				var took [2]float64
				for i, g := range []*gate{without, with} {
					d, err := g.timeOf(some)
					if err != nil {
						return err
					}
					took[i] = float64(d.Nanoseconds()) / batch
					each[i] = append(each[i], took[i])
				}
				ratios = append(ratios, took[1]/took[0])
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		for i := range each {
			slices.Sort(each[i])
		}
		slices.Sort(ratios)
		at := func(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }
		fmt.Printf("  a packet of a source that %s, from sendto to the socket: %.0f ns without lists, %.0f with "+
			"(medians of %d); ratio of pairs: median %.2f, quartiles %.2f and %.2f\n", kind, at(each[0], .5),
			at(each[1], .5), len(ratios), at(ratios, .5), at(ratios, .25), at(ratios, .75))
	}
	return nil
}

// settledMemory is kernelMemory once it stands still: what is given back is so some time later.
func settledMemory(ctx context.Context) (int64, error) {
	for last := int64(-1 << 60); ; {
		now, err := kernelMemory()
		if err != nil || max(now-last, last-now) < 1<<20 {
			return now, err
		}
		last = now
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// kernelMemory is what the kernel has for itself (proc(5), /proc/meminfo), in bytes.
func kernelMemory() (bytes int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for in := bufio.NewScanner(f); in.Scan(); {
		name, text, _ := strings.Cut(in.Text(), ":")
		if name != "Slab" && name != "VmallocUsed" {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
		if err != nil {
			return 0, err
		}
		bytes += kb << 10
	}
	return bytes, nil
}
