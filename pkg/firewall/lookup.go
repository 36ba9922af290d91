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
// about 0.4 s): for start-up, not for every ban; see WalkElements. A network that a longer-lasting one covers is not in
// the kernel and not listed. While changes are made, the list may miss some or have them twice.
func (t *Table) Elements(k Kind) ([]Element, error) {
	var list []Element
	_, err := t.WalkElements(context.Background(), k, func(some []Element) error {
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

// listedElement is a listed element of a hash set.
func (d setDef) listedElement(e *nfnl.Listed) Element {
	t := d.targetOf(e.Key)
	return Element{Kind: t.kind, Prefix: t.prefix, Flow: t.flow, Closes: t.closes, Pace: paceOf(e.Limit),
		Timeout: e.Timeout, Remaining: e.Left}
}

// networksOfSpans gives the spans of an interval set as the networks that they were made of.
func (d setDef) networksOfSpans(spans []span, now time.Time) []Element {
	r := rangesFromKernel(spans)
	list := make([]Element, 0, len(r.entries))
	for _, e := range r.entries {
		el := Element{Kind: d.kind, Prefix: e.prefix, Closes: d.closes, manual: d.manual}
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
			all = append(all, d.networksOfSpans(spans, now)...)
			continue
		}
		err := t.writeConn.List(context.Background(), t.cfg.Table, s.Name, func(list []nfnl.Listed) error {
			for i := range list {
				all = append(all, d.listedElement(&list[i]))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// LookUpPrefix looks one prefix up in the kernel, a ban whatever it closes; see LookUp.
func (t *Table) LookUpPrefix(k Kind, p netip.Prefix) (Element, bool, error) {
	if k != Ban {
		return t.LookUp(Change{Kind: k, Prefix: p})
	}
	for closes := range numCloses {
		if el, ok, err := t.LookUp(Change{Kind: k, Prefix: p, Closes: closes}); ok || err != nil {
			return el, ok, err
		}
	}
	return Element{}, false, nil
}

// LookUp looks up in the kernel what a change is about, in about 20 µs whatever else is there. A network is there if
// all its addresses are covered, by itself or by a wider one, and Remaining is that of the piece that ends first.
func (t *Table) LookUp(c Change) (Element, bool, error) {
	var err error
	if c.Prefix, c.Flow, err = normalizeTarget(c.Kind, c.Prefix, c.Flow); err != nil {
		return Element{}, false, err
	}
	cfg := t.currentConfig()
	id, p, key, ok := c.target().setAndKey(cfg.IPv6Prefix)
	if !ok || !cfg.hasSet(id) {
		return Element{}, false, nil
	}
	keys := []nfnl.Key{key}
	if t.defs[id].shape == interval {
		if keys = t.keysOfRange(id, p); len(keys) == 0 {
			return Element{}, false, nil
		}
	}
	el := Element{Kind: c.Kind, Prefix: p, Flow: c.Flow, Closes: c.Closes}
	if c.Flow != (Flow{}) {
		el.Prefix = netip.Prefix{}
	}
	err = t.useReadConn("look "+c.target().String()+" up", func(s *nfnl.Conn) error {
		for i, a := range keys {
			e, err := t.getElement(s, id, a)
			if err != nil {
				return err
			}
			if i == 0 || e.Timeout > 0 && (el.Timeout == 0 || e.Expires < el.Remaining) {
				el.Timeout, el.Remaining = e.Timeout, e.Expires
			}
		}
		if c.Manual { // beyond maxManual it is in the one set only
			for _, a := range t.keysOfRange(manualSet(p), p) {
				if _, err := t.getElement(s, manualSet(p), a); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return Element{}, false, nil
	}
	return el, err == nil, err
}

// keysOfRange are the elements that make up a prefix in an interval set; none where they do not cover it.
func (t *Table) keysOfRange(id setID, p netip.Prefix) (keys []nfnl.Key) {
	t.stateMu.Lock()
	spans, whole := t.ranges[id].spansTouching(p)
	t.stateMu.Unlock()
	if !whole {
		return nil
	}
	for _, s := range spans {
		keys = append(keys, nfnl.Key{Addr: s.from})
	}
	return keys
}

// getElement asks for one element; ENOENT if it is not there.
func (t *Table) getElement(s *nfnl.Conn, id setID, key nfnl.Key) (e nftables.SetElement, err error) {
	got, err := s.Nftables.FindSetElements(t.setRef(t.defs[id]), []nftables.SetElement{{Key: key.Bytes()}})
	if err != nil {
		return e, err
	}
	if len(got) == 0 {
		return e, unix.ENOENT
	}
	return got[0], nil
}

// DroppedPackets returns the packets that were dropped for each set, by its name, since the table was created.
func (t *Table) DroppedPackets() (map[string]uint64, error) {
	drops := make(map[string]uint64)
	err := t.useReadConn("read the counters", func(s *nfnl.Conn) error {
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
