package firewall

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// trusted is how long an unchanged generation stands for a look at the table.
const trusted = time.Minute

// Generation is the number of the ruleset's latest transaction, whoever made
// it, in any table of the namespace (nf_tables_fill_gen_info in
// net/netfilter/nf_tables_api.c). While it stays the same nothing has changed
// but for elements whose time was over.
func (t *Table) Generation() (n uint32, err error) {
	err = t.read("ask for the ruleset's generation", func(s *socket) error {
		n, err = s.generation()
		return err
	})
	return n, err
}

func (s *socket) generation() (uint32, error) {
	replies, err := s.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: subsystem | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	for _, m := range replies {
		if m.Header.Type != newGeneration || len(m.Data) < 4 {
			continue
		}
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Type == unix.NFTA_GEN_ID && len(a.Data) == 4 {
				return binary.BigEndian.Uint32(a.Data), nil
			}
		}
	}
	return 0, fmt.Errorf("firewall: %d replies, none of them the ruleset's generation", len(replies))
}

// verified is what was found by the last look at the table that found nothing
// amiss.
type verified struct {
	generation uint32
	at         time.Time
}

// still reports whether a look at the table can be spared.
func (v verified) still(generation uint32) bool {
	return !v.at.IsZero() && v.generation == generation && time.Since(v.at) < trusted
}
