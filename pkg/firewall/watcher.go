package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// watchGroup is NFNLGRP_NFTABLES as the bit of a group.
const nftablesGroup = 1 << (unix.NFNLGRP_NFTABLES - 1)

// WatchRulesets calls changed each time that another process has changed a ruleset, whichever it was, until ctx ends;
// it then returns nil. The library's own monitor is not used: it drops kinds of messages and ends at ENOBUFS.
func (t *Table) WatchRulesets(ctx context.Context, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: nftablesGroup, NetNS: t.cfg.NetNS})
	if err != nil {
		return explainErrno("listen for changes of the ruleset", err)
	}
	filter, err := newGenerationFilter()
	if err == nil {
		err = c.SetBPF(filter)
	}
	if err != nil {
		_ = c.Close()
		return fmt.Errorf("firewall: filter for changes of the ruleset: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if stop() {
			_ = c.Close()
		}
	}()
	t.notices.open(c, changed)
	defer t.notices.open(nil, nil)
	for {
		msgs, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // notices were lost; one was enough
			changed()
			continue
		case err != nil:
			return fmt.Errorf("firewall: listen for changes of the ruleset: %w", err)
		}
		for _, m := range msgs {
			// The header carries the port of whoever made the change.
			if m.Header.Type == nfnl.NewGeneration && m.Header.PID != t.NetlinkPort() {
				changed()
				break
			}
		}
	}
}

// newGenerationFilter is a filter that passes only NEWGEN, so that 100,000 elements of another table are not copied
// to us. It sees the message from its netlink header on; BPF reads big endian, the header is the machine's.
func newGenerationFilter() ([]bpf.RawInstruction, error) {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], nfnl.NewGeneration)
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(b[:])), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
}

// deafFrom is how many elements are worth not listening to.
const pauseNoticesFrom = 256

// subscription is the connection of WatchRulesets. While anybody listens, the kernel makes a notice of each element
// (nf_tables_setelem_notify), which costs as much as the element; most of a flood's are of our own making and
// thrown away.
type subscription struct {
	mu      sync.Mutex
	conn    *netlink.Conn
	changed func()
}

func (e *subscription) open(c *netlink.Conn, changed func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn, e.changed = c, changed
}

// pauseNotices stops listening while many elements are written through s. The function that it returns listens
// again. What others changed meanwhile is known by the number of transactions and told then.
func (t *Table) pauseNotices(s *nfnl.Conn) (listen func()) {
	e := &t.notices
	e.mu.Lock()
	defer e.mu.Unlock()
	c, changed, own := e.conn, e.changed, s.Commits
	if c == nil {
		return func() {}
	}
	before, err := s.Generation()
	if err != nil || c.LeaveGroup(unix.NFNLGRP_NFTABLES) != nil {
		return func() {}
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.conn != c {
			return
		}
		if c.JoinGroup(unix.NFNLGRP_NFTABLES) != nil {
			_ = c.Close() // WatchRulesets ends, and is begun again
		}
		if after, err := s.Generation(); err != nil || after-before != s.Commits-own {
			changed()
		}
	}
}
