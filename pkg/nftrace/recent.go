package nftrace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// recentFolder is where the kernel shows the lists of iptables' extension recent, those of the thread's network
// namespace (linux/net/netfilter/xt_recent.c).
const recentFolder = "/proc/thread-self/net/xt_recent/"

// maxRecentList is how much of a list is read, in bytes. The kernel keeps 100 addresses in one, unless it is told to
// keep more (ip_list_tot).
const maxRecentList = 4 << 20

// recentList is what the kernel has in a list: for each address the jiffies at which a packet of it was seen. nil is a
// list that cannot be read.
type recentList map[netip.Addr][]uint64

// recentCondition is what a rule asks of a list (linux/netfilter/xt_recent.h, struct xt_recent_mtinfo_v1).
type recentCondition struct {
	seconds, hits uint32
	flags         byte
	invert        bool
	name          string
}

// The flags of a condition, and the most of what it looks at: the source.
const (
	recentCheck  = 1 << 0
	recentSet    = 1 << 1
	recentUpdate = 1 << 2
	recentRemove = 1 << 3

	recentBySource = 0
)

// recentConditionOf reads the condition out of a match; ok is false where it asks for more than is known here.
func recentConditionOf(x *expr.Match) (c recentCondition, ok bool) {
	const flagsAt, invertAt, nameAt, sideAt, maskAt, size = 8, 9, 10, 210, 212, 228
	info, isRaw := x.Info.(*xt.Unknown)
	if !isRaw || x.Rev > 1 || len(*info) <= sideAt {
		return c, false
	}
	b := *info
	name, _, _ := bytes.Cut(b[nameAt:sideAt], []byte{0})
	c = recentCondition{seconds: binary.NativeEndian.Uint32(b), hits: binary.NativeEndian.Uint32(b[4:]),
		flags: b[flagsAt], invert: b[invertAt] != 0, name: string(name)}
	wholeMask := true
	if x.Rev == 1 && len(b) >= size {
		wholeMask = bytes.Count(b[maskAt:maskAt+4], []byte{0xff}) == 4
	}
	known := c.flags&^(recentCheck|recentSet|recentUpdate|recentRemove) == 0 && b[sideAt] == recentBySource &&
		wholeMask && c.name != "" && !strings.ContainsAny(c.name, "/") && c.name != ".." && c.name != "."
	return c, known
}

// matchRecent answers whether the source of the packet is in a list of xt_recent as a rule asks for. A rule that puts
// it into a list counts for the rules behind it.
func (p *packet) matchRecent(x *expr.Match) answer {
	c, ok := recentConditionOf(x)
	if !ok || !p.source.IsSingleIP() {
		return perhaps
	}
	p.foundInList = ""
	if c.flags&recentSet != 0 {
		if p.recentlySet == nil {
			p.recentlySet = make(map[string]int)
		}
		p.recentlySet[c.name]++
		return answerOf(!c.invert)
	}
	list := p.recentListNamed(c.name)
	if list == nil {
		return perhaps
	}
	stamps, listed := list[p.source.Addr()]
	set := p.recentlySet[c.name]
	if !listed && set == 0 {
		return answerOf(c.invert)
	}
	if c.flags&recentRemove != 0 {
		return answerOf(!c.invert)
	}
	hits := set
	for _, at := range stamps {
		if c.seconds == 0 || at >= p.jiffies()-min(p.jiffies(), uint64(c.seconds)*p.ticksPerSecond()) {
			hits++
		}
	}
	found := hits >= max(1, int(c.hits))
	if found && !c.invert {
		p.foundInList = c.name
	}
	return answerOf(found != c.invert)
}

// recentListNamed is a list of the network namespace that was asked about, read once.
func (r *ruleset) recentListNamed(name string) recentList {
	list, known := r.recentLists[name]
	if known {
		return list
	}
	var text []byte
	err := inNamespace(r.netns, func() (err error) {
		text, err = readUpTo(recentFolder+name, maxRecentList)
		return err
	})
	if err == nil {
		list = parseRecent(text)
	}
	if r.recentLists == nil {
		r.recentLists = make(map[string]recentList)
	}
	r.recentLists[name] = list
	return list
}

func readUpTo(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s: longer than %d bytes", name, most)
	}
	return b, err
}

// parseRecent reads lines such as "src=192.0.2.7 ttl: 64 last_seen: 4296048893 oldest_pkt: 2 4296048833, 4296048893".
func parseRecent(text []byte) recentList {
	list := make(recentList)
	for line := range strings.Lines(string(text)) {
		source, rest, _ := strings.Cut(strings.TrimPrefix(line, "src="), " ")
		addr, err := netip.ParseAddr(source)
		_, stamps, ok := strings.Cut(rest, "oldest_pkt: ")
		if err != nil || !ok {
			continue
		}
		_, stamps, _ = strings.Cut(strings.TrimSpace(stamps), " ") // the first is an index
		times := []uint64{}
		for stamp := range strings.SplitSeq(stamps, ",") {
			if n, err := strconv.ParseUint(strings.TrimSpace(stamp), 10, 64); err == nil {
				times = append(times, n)
			}
		}
		list[addr] = times
	}
	return list
}

// ticksPerSecond is the kernel's HZ: the coarse clock goes on by one tick at a time.
func (r *ruleset) ticksPerSecond() uint64 {
	if r.hz == 0 {
		var tick unix.Timespec
		if unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick) != nil || tick.Nano() <= 0 {
			return 1
		}
		r.hz = uint64(math.Round(float64(time.Second) / float64(tick.Nano())))
	}
	return r.hz
}

// jiffies is the kernel's count of ticks now. It begins five minutes before 2³² (linux/jiffies.h, INITIAL_JIFFIES), and
// of longs of 32 bits it is what those have.
func (r *ruleset) jiffies() uint64 {
	if r.now == 0 {
		var up unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &up) != nil {
			return 0
		}
		hz := r.ticksPerSecond()
		r.now = 1<<32 - 300*hz + uint64(up.Nano())*hz/uint64(time.Second)
		if math.MaxUint == math.MaxUint32 {
			r.now &= math.MaxUint32
		}
	}
	return r.now
}

// inNamespace runs f in a network namespace, 0 for that of the process, on a thread that ends with it.
func inNamespace(netns int, f func() error) error {
	if netns == 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
