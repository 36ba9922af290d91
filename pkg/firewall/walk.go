package firewall

import (
	"context"
	"fmt"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// WalkElements calls each with what the kernel holds of a kind, some hundred at a time, as the kernel hands them out.
// The kernel takes time with the square of their number (437,000 in 10 to 25 s), but other changes go on meanwhile, and
// no more than a piece of them is held in memory. whole is false where a ruleset was changed during the walk, whichever
// it was: then some may have been missed, and some given twice. So it may be while the kernel, in the background,
// resizes a hash table after thousands have come or gone, which nothing tells. An error of each ends the walk.
func (t *Table) WalkElements(ctx context.Context, k Kind, each func([]Element) error) (whole bool, err error) {
	if t.isClosed() {
		return false, ErrClosed
	}
	// A connection of its own, so that VerifyTable and LookUpPrefix need not wait.
	cfg := t.currentConfig()
	s, err := dialNetns(cfg.NetNS)
	if err != nil {
		return false, err
	}
	defer func() { _ = s.Close() }()
	s.PrimeLargeDumps()
	before, err := s.Generation()
	if err != nil {
		return false, explainErrno("list "+k.String()+"s", err)
	}
	for i, d := range t.defs {
		if d.kind != k || d.manual || !cfg.hasSet(setID(i)) {
			continue
		}
		if err := t.walkSet(ctx, s, setID(i), each); err != nil {
			return false, explainErrno("list set "+d.name, err)
		}
	}
	// The kernel marks no list of elements as interrupted.
	after, err := s.Generation()
	if err != nil {
		return false, explainErrno("list "+k.String()+"s", err)
	}
	return after == before, nil
}

// walkSet is WalkElements for one set.
func (t *Table) walkSet(ctx context.Context, s *nfnl.Conn, id setID, each func([]Element) error) error {
	d := t.defs[id]
	if d.shape == interval {
		spans, err := t.listSpans(s, id)
		if err != nil {
			return err
		}
		list := d.networksOfSpans(spans, time.Now())
		if len(list) == 0 {
			return nil
		}
		return each(list)
	}
	return s.List(ctx, t.cfg.Table, d.name, func(list []nfnl.Listed) error {
		elements := make([]Element, 0, len(list))
		for i := range list {
			if a := list[i].Key.Addr; d.bits > a.BitLen() {
				return fmt.Errorf("firewall: set %s has a key of %d bits", d.name, a.BitLen())
			}
			elements = append(elements, d.listedElement(&list[i]))
		}
		return each(elements)
	})
}
