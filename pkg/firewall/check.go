package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// Check looks at a table from outside of the process that keeps it, and tries it. It changes nothing but the
// elements that it is told to try.
type Check struct {
	cfg  Config
	defs [numSets]setDef
	conn *nfnl.Conn
}

// NewCheck opens a connection to look at the table of a configuration.
func NewCheck(cfg Config) (*Check, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	conn, err := dialNetns(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	return &Check{cfg: cfg, defs: allSets(cfg.IPv6Prefix), conn: conn}, nil
}

// Close ends the connection.
func (c *Check) Close() error { return c.conn.Close() }

// TableState is what is to be known of a table before it is tried.
type TableState struct {
	Exists bool
	Owned  bool   // only the process that made it may change it
	Owner  uint32 // that process's netlink port
}

// TableState looks whether the table is there.
func (c *Check) TableState() (TableState, error) {
	table := c.table()
	have, err := c.conn.Nftables.ListTableOfFamily(table.Name, table.Family)
	if errors.Is(err, unix.ENOENT) {
		return TableState{}, nil
	}
	if err != nil {
		return TableState{}, explainErrno("look at table "+table.Name, err)
	}
	return TableState{Exists: true, Owned: have.Flags&nftables.TableFlagOwner != 0, Owner: have.Owner}, nil
}

// WhyUnenforced says why a ban of a single source, an address or an IPv6 /64, is not enforced, "" if it is.
func (c *Check) WhyUnenforced() string {
	lib, table := c.conn.Nftables, c.table()
	if have, err := lib.ListTableOfFamily(table.Name, table.Family); err == nil && have.Flags&tableDormant != 0 {
		return "the table is dormant"
	}
	chain, err := lib.ListChain(table, chainName)
	if err != nil {
		return "the chain " + chainName + " is missing"
	}
	if chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookPrerouting {
		return "the chain is not at the prerouting hook"
	}
	rules, err := lib.GetRules(table, chain)
	if err != nil {
		return "its rules cannot be read: " + err.Error()
	}
	for _, id := range []setID{ban4, ban6Net64} {
		set := c.defs[id].name
		if _, err := lib.GetSetByName(table, set); err != nil {
			return "the set " + set + " is missing"
		}
		if !slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return dropsMembers(r, set) }) {
			return "no rule drops what is in the set " + set
		}
	}
	return ""
}

// dropsMembers reports whether a rule drops the packets whose source is in a set.
func dropsMembers(r *nftables.Rule, set string) bool {
	looks := false
	for _, x := range r.Exprs {
		switch x := x.(type) {
		case *expr.Lookup:
			looks = looks || x.SetName == set && !x.Invert
		case *expr.Verdict:
			if looks && x.Kind == expr.VerdictDrop {
				return true
			}
		}
	}
	return false
}

// HasBan reports whether the kernel holds a ban of one address, or of an IPv4 /24 or IPv6 /64.
func (c *Check) HasBan(p netip.Prefix) (bool, error) {
	set, elements, err := c.banElements(p, 0)
	if err != nil {
		return false, err
	}
	_, err = c.conn.Nftables.FindSetElements(set, elements)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, explainErrno("look "+p.String()+" up", err)
}

// BanAndUnban puts such a ban into the kernel and takes it out again, and looks each time whether that is so. If
// nobody takes it out it ends after a time.
func (c *Check) BanAndUnban(p netip.Prefix, ends time.Duration) error {
	set, elements, err := c.banElements(p, ends)
	if err != nil {
		return err
	}
	lib := c.conn.Nftables
	if err := lib.SetAddElements(set, elements); err != nil {
		return err
	}
	if err := lib.Flush(); err != nil {
		return explainErrno("add to set "+set.Name, err)
	}
	found, err := c.HasBan(p)
	if err == nil && !found {
		err = errors.New("the kernel took it and does not have it")
	}
	if err2 := lib.SetDeleteElements(set, elements); err2 != nil {
		return errors.Join(err, err2)
	}
	if err2 := lib.Flush(); err2 != nil {
		return errors.Join(err, explainErrno("delete from set "+set.Name, err2))
	}
	if err != nil {
		return err
	}
	if found, err = c.HasBan(p); err == nil && found {
		err = errors.New("it was deleted and is still there")
	}
	return err
}

// banElements is a ban of a prefix as an element of its set in the kernel.
func (c *Check) banElements(p netip.Prefix, timeout time.Duration) (*nftables.Set, []nftables.SetElement, error) {
	p, err := Normalize(p)
	if err != nil {
		return nil, nil, err
	}
	id, p, _ := setFor(Ban, p, c.cfg.IPv6Prefix)
	d := c.defs[id]
	if d.shape != hashed {
		return nil, nil, fmt.Errorf("%w: %s is in a set of ranges", ErrChange, p)
	}
	set, err := c.conn.Nftables.GetSetByName(c.table(), d.name)
	if err != nil {
		return nil, nil, explainErrno("look at set "+d.name, err)
	}
	return set, []nftables.SetElement{{Key: p.Addr().AsSlice(), Timeout: timeout}}, nil
}

// CanProtect asks whether the kernel knows the table flags owner and persist, which protect a table from others. It
// makes and deletes a table of a name of its own in one transaction, so nobody ever sees it.
func (c *Check) CanProtect() error {
	return probeOwner(c.conn, c.cfg.Table)
}

func (c *Check) table() *nftables.Table {
	return &nftables.Table{Name: c.cfg.Table, Family: nftables.TableFamilyINet}
}

// BanSet is the name of the set that a ban of a prefix goes to.
func BanSet(p netip.Prefix) string {
	id, _, _ := setFor(Ban, p, DefaultIPv6Prefix)
	return allSets(DefaultIPv6Prefix)[id].name
}
