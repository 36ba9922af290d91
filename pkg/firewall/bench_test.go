package firewall

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
)

// benchTable is a table in a namespace of its own.
func benchTable(b *testing.B) *Table {
	cfg := testConfig(newSpace(b))
	cfg.MaxElements = 1 << 20
	fw, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fw.Close() })
	if _, err := fw.EnsureTable(); err != nil {
		b.Fatal(err)
	}
	return fw
}

// fresh returns n IPv4 bans of which none was returned before.
func fresh(n int, next *uint32) []Change {
	c := make([]Change, n)
	for i := range c {
		*next++
		a := netip.AddrFrom4([4]byte{20 + byte(*next>>24), byte(*next >> 16), byte(*next >> 8), byte(*next)})
		c[i] = Change{Kind: Ban, Prefix: netip.PrefixFrom(a, 32), Timeout: time.Hour}
	}
	return c
}

// sweep empties the set before it is full.
func sweep(b *testing.B, fw *Table, next *uint32, n int) {
	if int(*next)%(1<<20)+n < 1<<19 {
		return
	}
	b.StopTimer()
	fw.writeConn.Nftables.FlushSet(fw.setRef(fw.defs[ban4]))
	if err := fw.writeConn.Nftables.Flush(); err != nil {
		b.Fatal(err)
	}
	*next = (*next>>20 + 1) << 20
	b.StartTimer()
}

// bareWriter returns what writes bans with nothing but google/nftables.
func bareWriter(b *testing.B, fw *Table) func([]Change) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(fw.cfg.NetNS))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.CloseLasting() })
	set := fw.setRef(fw.defs[ban4])
	return func(bans []Change) {
		elems := make([]nftables.SetElement, 0, len(bans))
		for _, c := range bans {
			elems = append(elems, nftables.SetElement{Key: c.Prefix.Addr().AsSlice(), Timeout: c.Timeout})
		}
		if err := conn.SetAddElements(set, elems); err != nil {
			b.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply bans addresses that are new, in one call; "bare" is the same with nothing but google/nftables. The
// figure to look at is ns/element.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("table/%d", n), func(b *testing.B) {
			fw := benchTable(b)
			var next uint32
			for b.Loop() {
				sweep(b, fw, &next, n)
				if err := fw.Apply(fresh(n, &next)); err != nil {
					b.Fatal(err)
				}
			}
			perElement(b, n)
		})
		b.Run(fmt.Sprintf("bare/%d", n), func(b *testing.B) {
			fw := benchTable(b)
			write := bareWriter(b, fw)
			var next uint32
			for b.Loop() {
				sweep(b, fw, &next, n)
				write(fresh(n, &next))
			}
			perElement(b, n)
		})
	}
}

// BenchmarkRefresh bans again what is banned.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fw := benchTable(b)
			var next uint32
			c := fresh(n, &next)
			for b.Loop() {
				if err := fw.Apply(c); err != nil {
					b.Fatal(err)
				}
			}
			perElement(b, n)
		})
	}
}

func perElement(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/element")
}

// BenchmarkWriter is a stream of single bans through the Writer.
func BenchmarkWriter(b *testing.B) {
	fw := benchTable(b)
	w := NewWriter(fw, nil, WriterConfig{VerifyInterval: -1})
	stop := start(b, w)
	var next uint32
	left := make(chan struct{}, 1024)
	for b.Loop() {
		sweep(b, fw, &next, 1<<12)
		left <- struct{}{}
		w.Submit(fresh(1, &next), func(err error) {
			if err != nil {
				b.Error(err)
			}
			<-left
		})()
	}
	stop()
}

// BenchmarkFlood is 100,000 bans, a thousand at a time, through the Writer; "bare" is the same with nothing but
// google/nftables.
func BenchmarkFlood(b *testing.B) {
	const flood, part = 100_000, 1000
	b.Run("writer", func(b *testing.B) {
		fw := benchTable(b)
		w := NewWriter(fw, nil, WriterConfig{VerifyInterval: -1})
		stop := start(b, w)
		var next uint32
		for b.Loop() {
			sweep(b, fw, &next, flood)
			done := make(chan error, flood/part)
			for range flood / part {
				w.Submit(fresh(part, &next), func(err error) { done <- err })()
			}
			for range flood / part {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		}
		perElement(b, flood)
		stop()
	})
	b.Run("bare", func(b *testing.B) {
		fw := benchTable(b)
		write := bareWriter(b, fw)
		var next uint32
		for b.Loop() {
			sweep(b, fw, &next, flood)
			for range flood / part {
				write(fresh(part, &next))
			}
		}
		perElement(b, flood)
	})
}

func BenchmarkVerify(b *testing.B) {
	fw := benchTable(b)
	for b.Loop() {
		if err := fw.VerifyTable(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHas(b *testing.B) {
	fw := benchTable(b)
	if err := fw.Apply(many(10_000, time.Hour)); err != nil {
		b.Fatal(err)
	}
	p := many(2, time.Hour)[1].Prefix
	for b.Loop() {
		if _, ok, err := fw.LookUpPrefix(Ban, p); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
