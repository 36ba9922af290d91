package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watchGroup is NFNLGRP_NFTABLES as the bit of a group.
const watchGroup = 1 << (unix.NFNLGRP_NFTABLES - 1)

// newGeneration is the last notice of each transaction
// (nf_tables_gen_notify in net/netfilter/nf_tables_api.c).
const newGeneration = subsystem | unix.NFT_MSG_NEWGEN

// Watch calls changed each time that another process has changed a ruleset,
// whichever it was, until ctx ends; it then returns nil. The library's own
// monitor is not used: it drops kinds of messages and ends at ENOBUFS.
func (t *Table) Watch(ctx context.Context, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: watchGroup, NetNS: t.cfg.NetNS})
	if err != nil {
		return explain("listen for changes of the ruleset", err)
	}
	filter, err := generations()
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
			if m.Header.Type == newGeneration && m.Header.PID != t.Port() {
				changed()
				break
			}
		}
	}
}

// generations is a filter that passes only NEWGEN, so that 100,000 elements
// of another table are not copied to us. It sees the message from its netlink
// header on; BPF reads big endian, the header is the machine's.
func generations() ([]bpf.RawInstruction, error) {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], newGeneration)
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(b[:])), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
}
