package firewall

import (
	"time"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// trusted is how long an unchanged generation stands for a look at the table.
const maxVerifyAge = time.Minute

// Generation is the number of the ruleset's latest transaction, whoever made it, in any table of the namespace
// (nf_tables_fill_gen_info in net/netfilter/nf_tables_api.c). While it stays the same nothing has changed but for
// elements whose time was over.
func (t *Table) Generation() (n uint32, err error) {
	err = t.useReadConn("ask for the ruleset's generation", func(s *nfnl.Conn) error {
		n, err = s.Generation()
		return err
	})
	return n, err
}

// verification is what was found by the last look at the table that found nothing amiss.
type verification struct {
	generation uint32
	at         time.Time
}

// unchanged reports whether a look at the table can be spared.
func (v verification) unchanged(generation uint32) bool {
	return !v.at.IsZero() && v.generation == generation && time.Since(v.at) < maxVerifyAge
}
