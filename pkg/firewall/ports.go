package firewall

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// SetPorts replaces the ports that are closed to the banned in scope VoIP; see [Table.Reconfigure].
func (t *Table) SetPorts(udp, tcp []uint16) error {
	cfg := t.currentConfig()
	cfg.UDPPorts, cfg.TCPPorts = udp, tcp
	return t.Reconfigure(cfg)
}

// ClosedPorts returns the ports that the kernel's table closes to the banned, as an earlier process left them; none
// where there is no such table, or its scope is All.
func (t *Table) ClosedPorts() (udp, tcp []uint16, err error) {
	err = t.useReadConn("read the ports", func(s *nfnl.Conn) error {
		table := t.tableRef()
		rules, err := s.Nftables.GetRules(table, &nftables.Chain{Name: chainName, Table: table})
		if err != nil {
			return err
		}
		for _, r := range rules {
			proto, set := portRule(r)
			if set == "" {
				continue
			}
			elems, err := s.Nftables.GetSetElements(&nftables.Set{Table: table, Name: set,
				KeyType: nftables.TypeInetService})
			if err != nil {
				return err
			}
			list := &udp
			if proto == unix.IPPROTO_TCP {
				list = &tcp
			}
			for _, e := range elems {
				if len(e.Key) == 2 {
					*list = append(*list, binaryutil.BigEndian.Uint16(e.Key))
				}
			}
			slices.Sort(*list)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, nil
	}
	return udp, tcp, err
}

// portRule returns the protocol and the anonymous set of ports of a rule that lets all other ports pass.
func portRule(r *nftables.Rule) (proto byte, set string) {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Cmp:
			if len(e.Data) == 1 {
				proto = e.Data[0]
			}
		case *expr.Lookup:
			if e.Invert {
				set = e.SetName
			}
		case *expr.Verdict:
			if e.Kind == expr.VerdictAccept {
				return proto, set
			}
		}
	}
	return 0, ""
}

// portSetter is a Firewall whose ports can change while it is in use.
type portSetter interface {
	SetPorts(udp, tcp []uint16) error
}

// SetPorts replaces the ports that are closed to the banned; see [Table.SetPorts]. It waits for its turn, and then
// for the kernel.
func (w *Writer) SetPorts(udp, tcp []uint16) error {
	fw, ok := w.fw.(portSetter)
	if !ok {
		return nil
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := fw.SetPorts(udp, tcp); err != nil {
		return fmt.Errorf("firewall: the ports are not changed: %w", err)
	}
	return nil
}
