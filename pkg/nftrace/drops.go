package nftrace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// Bounds of one look: a machine with tens of thousands of rules must not keep anybody busy.
const (
	maxSources       = 64
	maxRulesFollowed = 2_000_000 // that all packets follow together: about a second
	maxChains        = 100       // that one packet comes through
)

// Question is what is asked of the rules.
type Question struct {
	NetNS   int            // descriptor of the network namespace; 0: that of this process
	Sources []netip.Prefix // the first 64 are looked at
	Ports   []Port         // to which they send
	Ignore  []string       // tables of family inet that are the asker's own
	Forward bool           // to another machine or a container: chains at the input hook do not see these packets
}

// Port is where packets go.
type Port struct {
	Protocol byte // unix.IPPROTO_UDP or unix.IPPROTO_TCP
	Number   uint16
}

// Drop is a source of which no first packet gets through a chain, to whichever of the ports.
type Drop struct {
	Source netip.Prefix
	Chain  string // at a hook, such as "inet filter input"
	// RuleChain is the chain of the rule that drops what goes to the last of the ports, such as "inet filter bad";
	// where none does but the policy, Chain.
	RuleChain string
	// RecentList is the list of iptables' extension recent for which it is dropped, "" for none.
	RecentList string
}

// FindDrops follows the first packet of each source to each port. Of a rule that it does not understand it believes
// that it lets the packet through, and of a network it says only what is so for all its addresses: whom it names is
// kept out. The rules of iptables-legacy are followed for root alone, whom the kernel tells of them.
func FindDrops(q Question) ([]Drop, error) {
	if len(q.Sources) == 0 || len(q.Ports) == 0 {
		return nil, nil
	}
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(q.NetNS))
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer func() { _ = lib.CloseLasting() }()
	chains, err := lib.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list the kernel's chains: %w", err)
	}
	r := &ruleset{lib: lib, netns: q.NetNS, forwarded: q.Forward, rules: make(map[chainKey][]*nftables.Rule),
		sets: make(map[chainKey]*nftables.Set)}
	return r.findDrops(q, append(chains, r.addLegacy()...)), nil
}

// findDrops is FindDrops with what is known of the rules.
func (r *ruleset) findDrops(q Question, chains []*nftables.Chain) (drops []Drop) {
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return !q.seesPackets(c) })
	slices.SortStableFunc(chains, func(a, b *nftables.Chain) int { // prerouting is before input
		return int(*a.Hooknum) - int(*b.Hooknum)
	})
	for _, source := range q.Sources[:min(len(q.Sources), maxSources)] {
		if c, last := r.droppingChain(chains, source, q.Ports); c != nil {
			drops = append(drops, Drop{source, FullName(c.Table, c.Name), FullName(c.Table, last.droppedIn),
				last.listed})
		}
	}
	return drops
}

// seesPackets reports whether a chain of somebody else's sees the packets.
func (q *Question) seesPackets(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Table == nil ||
		c.Table.Family == nftables.TableFamilyINet && slices.Contains(q.Ignore, c.Table.Name) {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, legacyIPv4, legacyIPv6:
		return *c.Hooknum == *nftables.ChainHookPrerouting || !q.Forward && *c.Hooknum == *nftables.ChainHookInput
	}
	return false
}

// droppingChain is the chain that drops what a source sends to each of the ports, or nil, and what it did to the last.
func (r *ruleset) droppingChain(
	chains []*nftables.Chain, source netip.Prefix, ports []Port,
) (*nftables.Chain, packet) {
	redirected := make(map[Port]bool) // by address translation, perhaps: then the input hook may not see it
	for _, c := range chains {
		dropped := 0
		var last packet
		for _, at := range ports {
			if redirected[at] && *c.Hooknum == *nftables.ChainHookInput {
				break
			}
			p := packet{ruleset: r, source: source.Masked(), to: at}
			switch p.fateAtHook(c) {
			case dropsPacket:
				dropped, last = dropped+1, p
				continue
			case passesPerhaps:
				redirected[at] = redirected[at] || c.Type == nftables.ChainTypeNAT
			}
			if c.Type != nftables.ChainTypeNAT { // of those, each port matters
				break
			}
		}
		if dropped == len(ports) {
			return c, last
		}
	}
	return nil, packet{}
}

// ruleset is what was asked of the kernel so far.
type ruleset struct {
	lib           *nftables.Conn
	netns         int                           // descriptor; 0: that of this process
	forwarded     bool                          // the packets are for another machine, perhaps
	rules         map[chainKey][]*nftables.Rule // nil where they cannot be had
	sets          map[chainKey]*nftables.Set    // the same
	recentLists   map[string]recentList         // of xt_recent, nil where they cannot be had
	rulesFollowed int

	hz, now uint64 // ticks a second, and ticks; 0 while nobody has asked
}

// chainKey names a chain or a set.
type chainKey struct {
	family      nftables.TableFamily
	table, name string
}

// rulesOf are the rules of a chain; ok is false where they cannot be had.
func (r *ruleset) rulesOf(table *nftables.Table, chain string) (rules []*nftables.Rule, ok bool) {
	k := chainKey{table.Family, table.Name, chain}
	rules, known := r.rules[k]
	if !known && !isLegacy(table.Family) { // of those all are known
		var err error
		if rules, err = r.lib.GetRules(table, &nftables.Chain{Name: chain, Table: table}); err != nil {
			rules = nil
		} else if rules == nil {
			rules = []*nftables.Rule{}
		}
		r.rules[k] = rules
	}
	return rules, rules != nil
}

// setNamed is the set of a name, or nil where it cannot be had.
func (r *ruleset) setNamed(table *nftables.Table, name string) *nftables.Set {
	k := chainKey{table.Family, table.Name, name}
	s, known := r.sets[k]
	if !known {
		var err error
		if s, err = r.lib.GetSetByName(table, name); err != nil {
			s = nil
		}
		r.sets[k] = s
	}
	return s
}

// FullName is how nft calls a chain, or whatever else is in a table: "inet filter input". Those of iptables-legacy have
// the program before them: "iptables-legacy filter INPUT".
func FullName(table *nftables.Table, name string) string {
	return familyName(table.Family) + " " + table.Name + " " + name
}

// familyName is how nft calls a family of tables, or the program that does.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyNetdev:
		return "netdev"
	case legacyIPv4:
		return "iptables-legacy"
	case legacyIPv6:
		return "ip6tables-legacy"
	}
	return fmt.Sprint("family ", f)
}
