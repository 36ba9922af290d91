package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/policy"
)

// testTime is how long a test element lives if nobody takes it out.
const testTime = 5 * time.Second

// element puts a ban into the kernel and takes it out again: in the real table where there is one, and through the daemon
// where only that may change it.
func (e *exam) element(s subject, k *link) {
	real := &nftables.Table{Name: e.cfg.Firewall.Table, Family: nftables.TableFamilyINet}
	have, err := k.lib.ListTableOfFamily(real.Name, real.Family)
	switch {
	case errors.Is(err, unix.ENOENT) && e.daemon != nil && !e.daemon.Kernel.DryRun:
		s.fail(element, "systemctl restart ringwall", "the daemon runs, but its table inet %s is not here: is it in another network namespace?", real.Name)
	case errors.Is(err, unix.ENOENT):
		e.rehearse(s)
	case err != nil:
		s.fail(element, "nft list table inet "+real.Name, "table inet %s cannot be read: %s", real.Name, text(err))
	case have.Flags&nftables.TableFlagOwner != 0:
		e.throughDaemon(s, k, real, have.Owner)
	default:
		e.inTable(s, k, real)
	}
}

// rehearse builds the table under another name, since the daemon may start at this moment and want the real one.
func (e *exam) rehearse(s subject) {
	cfg := e.table()
	cfg.Table, cfg.Owner = e.scratch(), firewall.Off
	list, err := e.free(nil, nil)
	if err == nil {
		err = rehearse(cfg, list)
	}
	if err != nil {
		s.fail(element, cmp.Or(hint.Of(err), "nft list ruleset"), "the table cannot be built and used: %s", text(err))
		return
	}
	s.ok(element, "a table like the daemon's was built, banned and unbanned an IPv4 address and an IPv6 /64, and was removed")
}

func rehearse(cfg firewall.Config, list []trial) (err error) {
	t, err := firewall.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if _, err = t.Ensure(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Delete()) }()
	var in, out []firewall.Change
	for _, try := range list {
		in = append(in, firewall.Change{Kind: firewall.Ban, Prefix: try.prefix, Timeout: testTime})
		out = append(out, firewall.Change{Kind: firewall.Ban, Prefix: try.prefix, Remove: true})
	}
	for i, changes := range [][]firewall.Change{in, out} {
		if err := t.Apply(changes); err != nil {
			return err
		}
		for _, c := range changes {
			_, found, err := t.Has(c.Kind, c.Prefix)
			if err != nil {
				return err
			}
			if banned := i == 0; found != banned {
				return fmt.Errorf("after %q: in the kernel: %t", c.String(), found)
			}
		}
	}
	return t.Verify()
}

// inTable uses the real sets and touches nothing else of the table.
func (e *exam) inTable(s subject, k *link, table *nftables.Table) {
	const rebuild = "systemctl restart ringwall builds it again; bans stay"
	if why := unguarded(k, table); why != "" {
		if e.daemon != nil {
			s.fail(element, rebuild, "bans are not enforced: %s", why)
		} else {
			s.warn(element, "systemctl start ringwall builds it again", "table inet %s was left by an earlier run, and is not whole: %s", table.Name, why)
		}
		return
	}
	list, err := e.free(k, table)
	if err != nil {
		s.fail(element, allowedAll, "%s", text(err))
		return
	}
	for _, try := range list {
		if err := inAndOut(k, table, try); err != nil {
			s.fail(element, rebuild, "a ban did not get into set %s and out again: %s", try.set, text(err))
			return
		}
	}
	s.ok(element, "a test address was put into the sets ban4 and ban6_64 of table inet %s and taken out, and rules drop what is in them", table.Name)
}

// unguarded says why what is in the sets is not dropped, or "".
func unguarded(k *link, table *nftables.Table) string {
	if have, err := k.lib.ListTableOfFamily(table.Name, table.Family); err == nil && have.Flags&unix.NFT_TABLE_F_DORMANT != 0 {
		return "the table is dormant"
	}
	chain, err := k.lib.ListChain(table, "prerouting")
	if err != nil {
		return "the chain prerouting is missing"
	}
	if chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookPrerouting {
		return "the chain is not at the prerouting hook"
	}
	rules, err := k.lib.GetRules(table, chain)
	if err != nil {
		return "its rules cannot be read: " + text(err)
	}
	for _, try := range []trial{{set: set4}, {set: set6}} {
		if _, err := k.lib.GetSetByName(table, try.set); err != nil {
			return "the set " + try.set + " is missing"
		}
		if !slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return drops(r, try.set) }) {
			return "no rule drops what is in the set " + try.set
		}
	}
	return ""
}

func drops(r *nftables.Rule, set string) bool {
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

func has(k *link, table *nftables.Table, t trial) (bool, error) {
	set, err := k.lib.GetSetByName(table, t.set)
	if err != nil {
		return false, err
	}
	_, err = k.lib.FindSetElements(set, []nftables.SetElement{{Key: t.prefix.Addr().AsSlice()}})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func inAndOut(k *link, table *nftables.Table, t trial) error {
	set, err := k.lib.GetSetByName(table, t.set)
	if err != nil {
		return err
	}
	key := t.prefix.Addr().AsSlice()
	if err := k.lib.SetAddElements(set, []nftables.SetElement{{Key: key, Timeout: testTime}}); err != nil {
		return err
	}
	if err := k.lib.Flush(); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	found, err := has(k, table, t)
	if err == nil && !found {
		err = errors.New("the kernel took it and does not have it")
	}
	if err2 := k.lib.SetDeleteElements(set, []nftables.SetElement{{Key: key}}); err2 != nil {
		return errors.Join(err, err2)
	}
	if err2 := k.lib.Flush(); err2 != nil {
		return errors.Join(err, fmt.Errorf("delete: %w", err2))
	}
	if err != nil {
		return err
	}
	if found, err = has(k, table, t); err == nil && found {
		err = errors.New("it was deleted and is still there")
	}
	return err
}

// throughDaemon asks the process that owns the table to ban and unban.
func (e *exam) throughDaemon(s subject, k *link, table *nftables.Table, owner uint32) {
	switch {
	case e.daemon == nil:
		s.fail(element, "nft list tables; ringwall doctor --socket PATH, if a daemon has another socket; as a user who may ask it (sudo)",
			"table inet %s belongs to a running process (netlink port %d), and no daemon answers", table.Name, owner)
		return
	case e.daemon.Mode != string(policy.Enforce) || e.daemon.Kernel.DryRun:
		s.skip(element, "", "the daemon owns the table and bans nobody, so it is not asked to ban a test address")
		return
	}
	if why := unguarded(k, table); why != "" {
		s.fail(element, "systemctl restart ringwall", "bans are not enforced: %s", why)
		return
	}
	list, err := e.free(k, table)
	if err != nil {
		s.fail(element, allowedAll, "%s", text(err))
		return
	}
	try := list[0]
	if err := e.askedFor(k, table, try); err != nil {
		s.fail(element, "ringwall status", "the daemon did not ban and unban the test address %s: %s", try.prefix.Addr(), text(err))
		return
	}
	s.ok(element, "the daemon owns the table; asked over its socket it put the test address %s into set %s and took it out", try.prefix.Addr(), try.set)
}

func (e *exam) askedFor(k *link, table *nftables.Table, try trial) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*e.Wait) // an unban has to follow, whatever becomes of the command
	defer cancel()
	_, err := e.client.Ban(ctx, control.BanRequest{Prefix: try.prefix, For: testTime, Reason: control.DoctorTest})
	if err != nil {
		return err
	}
	found, err := has(k, table, try)
	if err == nil && !found {
		err = errors.New("it said yes, and the kernel does not have it")
	}
	if _, err2 := e.client.Unban(ctx, control.UnbanRequest{Prefix: try.prefix}); err2 != nil && !errors.Is(err2, control.ErrNotFound) {
		return errors.Join(err, err2)
	}
	if err != nil {
		return err
	}
	if found, err = has(k, table, try); err == nil && found {
		err = errors.New("it was unbanned and is still there")
	}
	return err
}
