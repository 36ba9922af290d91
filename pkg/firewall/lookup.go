package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// Elements lists what the kernel holds of a kind. The kernel takes time with the square of the number (100,000 in
// about 0.4 s): for start-up, not for every ban; see Walk. A network that a longer-lasting one covers is not in the
// kernel and not listed. While changes are made, the list may miss some or have them twice.
func (t *Table) Elements(k Kind) ([]Element, error) {
	var list []Element
	_, err := t.Walk(context.Background(), k, func(some []Element) error {
		list = append(list, some...)
		return nil
	})
	return list, err
}

func (t *Table) setRef(d setDef) *nftables.Set {
	return &nftables.Set{
		Table: &nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet},
		Name:  d.name, HasTimeout: true, Interval: d.shape == interval,
	}
}

// listSpans reads the ranges of an interval set.
func (t *Table) listSpans(s *nfnl.Conn, id setID) ([]span, error) {
	return readSpans(s, t.setRef(t.defs[id]))
}

func readSpans(s *nfnl.Conn, set *nftables.Set) ([]span, error) {
	got, err := s.Nftables.GetSetElements(set)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	type bound struct {
		addr netip.Addr
		nftables.SetElement
	}
	bounds := make([]bound, 0, len(got))
	for _, e := range got {
		a, ok := netip.AddrFromSlice(e.Key)
		if !ok {
			return nil, fmt.Errorf("firewall: set %s has a key of %d bytes", set.Name, len(e.Key))
		}
		bounds = append(bounds, bound{a, e})
	}
	// An end and a start at one address: the end comes first.
	slices.SortFunc(bounds, func(a, b bound) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		switch {
		case a.IntervalEnd == b.IntervalEnd:
			return 0
		case a.IntervalEnd:
			return -1
		}
		return 1
	})
	var spans []span
	for i, b := range bounds {
		if b.IntervalEnd {
			continue
		}
		sp := span{from: b.addr}
		if i+1 < len(bounds) {
			sp.to = bounds[i+1].addr.Prev()
		} else {
			sp.to = netipx.PrefixLastIP(netip.PrefixFrom(b.addr, 0))
		}
		if b.Timeout > 0 {
			sp.until = now.Add(b.Expires)
		}
		if p, err := netip.ParsePrefix(b.Comment); err == nil && p == p.Masked() {
			sp.origin = p
		}
		spans = append(spans, sp)
	}
	return spans, nil
}

// networksOfSpans gives spans as the networks that they were made of.
func networksOfSpans(k Kind, spans []span, now time.Time) []Element {
	r := rangesFromKernel(spans)
	list := make([]Element, 0, len(r.entries))
	for _, e := range r.entries {
		el := Element{Kind: k, Prefix: e.prefix}
		if !e.until.IsZero() {
			el.Remaining = max(time.Millisecond, e.until.Sub(now))
			el.Timeout = el.Remaining
		}
		list = append(list, el)
	}
	return list
}

// readOldElementsLocked reads the elements of an older table, whatever its sets look like.
func (t *Table) readOldElementsLocked(f existingTable) ([]Element, error) {
	now := time.Now()
	t.writeConn.PrimeLargeDumps()
	var all []Element
	for _, d := range t.defs {
		s := f.sets[d.name]
		if s == nil || d.shape == dynamic {
			continue
		}
		s.Table = t.tableRef()
		if s.Interval {
			spans, err := readSpans(t.writeConn, s)
			if err != nil {
				return nil, err
			}
			all = append(all, networksOfSpans(d.kind, spans, now)...)
			continue
		}
		err := t.writeConn.List(context.Background(), t.cfg.Table, s.Name, func(list []nfnl.Listed) error {
			for _, e := range list {
				bits := d.bits
				if d.shape == interval {
					bits = e.Key.BitLen()
				}
				all = append(all, Element{Kind: d.kind, Prefix: netip.PrefixFrom(e.Key, bits), Timeout: e.Timeout,
					Remaining: e.Left})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Has looks one prefix up in the kernel, in about 20 µs whatever else is there. A network is there if all its
// addresses are covered, by itself or by a wider one, and Remaining is that of the piece that ends first.
func (t *Table) Has(k Kind, p netip.Prefix) (Element, bool, error) {
	p, err := Normalize(p)
	if err != nil {
		return Element{}, false, err
	}
	cfg := t.config()
	id, p, ok := setFor(k, p, cfg.IPv6Prefix)
	if !ok || !cfg.hasSet(id) {
		return Element{}, false, nil
	}
	keys := []netip.Addr{p.Addr()}
	if t.defs[id].shape == interval {
		t.stateMu.Lock()
		spans, whole := t.ranges[id].touching(p)
		t.stateMu.Unlock()
		if !whole {
			return Element{}, false, nil
		}
		keys = keys[:0]
		for _, s := range spans {
			keys = append(keys, s.from)
		}
	}
	el := Element{Kind: k, Prefix: p}
	err = t.read("look "+p.String()+" up", func(s *nfnl.Conn) error {
		for i, a := range keys {
			got, err := s.Nftables.FindSetElements(t.setRef(t.defs[id]), []nftables.SetElement{{Key: a.AsSlice()}})
			if err != nil {
				return err
			}
			if len(got) == 0 {
				return unix.ENOENT
			}
			if e := got[0]; i == 0 || e.Timeout > 0 && (el.Timeout == 0 || e.Expires < el.Remaining) {
				el.Timeout, el.Remaining = e.Timeout, e.Expires
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return Element{}, false, nil
	}
	return el, err == nil, err
}

// Drops returns the packets that were dropped for each set, by its name, since the table was created.
func (t *Table) Drops() (map[string]uint64, error) {
	drops := make(map[string]uint64)
	err := t.read("read the counters", func(s *nfnl.Conn) error {
		table := &nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet}
		rules, err := s.Nftables.GetRules(table, &nftables.Chain{Name: chainName})
		if err != nil {
			return err
		}
		for _, r := range rules {
			if id, n := t.dropCounter(r); n != nil {
				drops[t.defs[id].name] += n.Packets
			}
		}
		return nil
	})
	return drops, err
}
