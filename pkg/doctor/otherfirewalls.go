package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/pkg/nftrace"
)

// inetIngress is NF_INET_INGRESS, the ingress hook of the family inet (include/uapi/linux/netfilter.h, from 5.10 on).
const inetIngress = nftables.ChainHook(5)

// examineOtherFirewalls looks who handles a packet before Ringwall. An accept there is harmless: it ends that base
// chain only, the next one at the hook still sees the packet (nft_do_chain() returns NF_ACCEPT to nf_hook_slow(),
// net/netfilter/core.c). So what matters is who drops, diverts or queues packets before they are judged, and
// flowtables, which carry established flows past every hook.
func (e *exam) examineOtherFirewalls(s subject, k *netlinkConn) {
	chains, err := k.lib.ListChains()
	if err != nil {
		s.warn(checkOthers, "nft list ruleset", "other firewalls cannot be seen: %s", errorLine(err))
		return
	}
	var before, dropping []string
	for _, c := range chains {
		if !e.mayPrecedeUs(c) {
			continue
		}
		name := nftrace.FullName(c.Table, c.Name)
		if c.Priority != nil {
			name += fmt.Sprintf(" (priority %d)", *c.Priority)
		}
		before = append(before, name)
		if chainMayDrop(k, c) {
			dropping = append(dropping, name)
		}
	}
	slices.Sort(before)
	slices.Sort(dropping)
	warned := false
	if len(dropping) > 0 {
		warned = true
		s.warn(checkOthers, "nft list ruleset: if a customer is locked out and ringwall why knows nothing, look "+
			"there; a firewall.priority below theirs puts Ringwall first",
			"before Ringwall, packets can be dropped by: %s", strings.Join(dropping, ", "))
	}
	if list := flowtableNames(k); len(list) > 0 {
		warned = true
		s.warn(checkOthers, "no SIP in rules with \"flow add\"",
			"flowtables carry forwarded calls past all chains, so a ban does not end them: %s",
			strings.Join(list, ", "))
	}
	later := ""
	if list := e.legacyTables(); slices.Contains(list, "raw") {
		warned = true
		s.warn(checkOthers, "iptables-legacy -t raw -S; better iptables-nft",
			"iptables-legacy has a table raw, which runs at priority -300 as Ringwall does")
	} else if len(list) > 0 {
		later = "; iptables-legacy comes later (" + strings.Join(list, ", ") + ")"
	}
	switch {
	case warned:
	case len(before) == 0:
		s.ok(checkOthers, "nobody handles packets before Ringwall; what other chains accept or drop comes later%s",
			later)
	default:
		s.ok(checkOthers, "before Ringwall and without dropping: %s%s", strings.Join(before, ", "), later)
	}
}

// mayPrecedeUs reports whether a chain sees incoming packets before ours, or at the same priority and perhaps before.
func (e *exam) mayPrecedeUs(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Table == nil || c.Table.Family == nftables.TableFamilyINet &&
		(c.Table.Name == e.cfg.Firewall.Table || c.Table.Name == e.scratchTableName()) {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyNetdev: // hook 0 is ingress there
		return *c.Hooknum == *nftables.ChainHookIngress
	case nftables.TableFamilyBridge, nftables.TableFamilyARP:
		return false
	case nftables.TableFamilyINet:
		if *c.Hooknum == inetIngress {
			return true
		}
	}
	return *c.Hooknum == *nftables.ChainHookPrerouting &&
		(c.Priority == nil || int(*c.Priority) <= e.cfg.Firewall.Priority)
}

// chainMayDrop reports whether a chain, or one that it jumps to, may keep packets from going on.
func chainMayDrop(k *netlinkConn, c *nftables.Chain) bool {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true
	}
	seen := map[string]bool{}
	var mayDrop func(name string) bool
	mayDrop = func(name string) bool {
		if seen[name] || len(seen) > 1000 {
			return false
		}
		seen[name] = true
		rules, err := k.lib.GetRules(c.Table, &nftables.Chain{Name: name, Table: c.Table})
		if err != nil {
			return false
		}
		return slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return ruleMayDrop(r, mayDrop) })
	}
	return mayDrop(c.Name)
}

// ruleMayDrop reports whether a rule may keep a packet; jump asks about another chain.
func ruleMayDrop(r *nftables.Rule, jump func(chain string) bool) bool {
	for _, x := range r.Exprs {
		switch x := x.(type) {
		case *expr.Verdict:
			if x.Kind == expr.VerdictDrop || (x.Kind == expr.VerdictJump || x.Kind == expr.VerdictGoto) &&
				jump(x.Chain) {
				return true
			}
		case *expr.Queue, *expr.Reject, *expr.TProxy:
			return true
		}
	}
	return false
}

func flowtableNames(k *netlinkConn) []string {
	all, err := k.lib.ListTables()
	if err != nil {
		return nil
	}
	var list []string
	for _, t := range all {
		flows, err := k.lib.ListFlowtables(t)
		if err != nil {
			continue
		}
		for _, f := range flows {
			list = append(list, nftrace.FullName(t, f.Name))
		}
	}
	return list
}

// legacyTables lists the tables of iptables-legacy and ip6tables-legacy that are in use.
func (e *exam) legacyTables() []string {
	var list []string
	for _, file := range []string{"net/ip_tables_names", "net/ip6_tables_names"} {
		b, err := os.ReadFile(filepath.Join(e.procFolder, file))
		if err != nil {
			continue // the module is not loaded
		}
		for name := range strings.FieldsSeq(string(b)) {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return list
}
