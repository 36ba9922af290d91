package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/nftrace"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	// dropsInterval is how often the kernel is asked whether rules have changed, which takes 20 µs.
	dropsInterval = 5 * time.Second
	// dropsDutyFactor is how many times as long as the last look at the rules took the next one waits at least.
	dropsDutyFactor = 100
	// maxTrustedLooked is how many trusted sources are followed.
	maxTrustedLooked = 32
)

// othersDrops watches what other firewalls do to those whom Ringwall lets in: fail2ban, a rule by hand, a policy.
type othersDrops struct {
	daemon     *Daemon
	generation func() (uint32, error)
	traceDrops func(nftrace.Question) ([]nftrace.Drop, error)
	lookWanted chan struct{} // a look is due, whether rules have changed or not

	mu      sync.Mutex
	dropped []api.Dropped
	err     error
}

// newOthersDrops returns nil where there is no kernel to look at.
func newOthersDrops(d *Daemon) *othersDrops {
	fw, ok := d.fw.(interface{ Generation() (uint32, error) })
	if !ok {
		return nil
	}
	return &othersDrops{daemon: d, generation: fw.Generation, traceDrops: nftrace.FindDrops,
		lookWanted: make(chan struct{}, 1)}
}

// String names the task.
func (*othersDrops) String() string { return "rules of other firewalls" }

// Run looks until ctx ends: at the start, when it is asked to, and where a ruleset has changed. After a look comes a
// rest that keeps the work below a hundredth of a processor, however many rules there are and however often they
// change.
func (o *othersDrops) Run(ctx context.Context) error {
	var seen uint32
	looked, rest := time.Time{}, time.Duration(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	asked := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.lookWanted:
			asked = true
		case <-timer.C:
		}
		if g, err := o.generation(); err == nil && (asked || g != seen && time.Since(looked) >= rest) {
			began := time.Now()
			o.lookAtRules()
			looked, seen, asked = time.Now(), g, false
			rest = dropsDutyFactor * looked.Sub(began)
		}
		timer.Reset(dropsInterval)
	}
}

// lookAtRules follows the packets of those who are let in through the rules of others.
func (o *othersDrops) lookAtRules() {
	cfg := o.daemon.config.currentConfig()
	sources, as := o.sourcesLetIn()
	own, _ := hosts.OwnPrefixes() // what is not known is taken for another machine's
	drops, err := o.traceDrops(nftrace.Question{
		NetNS: o.daemon.opts.NetNS, Sources: sources, Ports: o.daemon.ports.portsToTrace(),
		Ignore:  []string{cfg.Firewall.Table},
		Forward: !AsteriskIsHere(cfg, own),
	})
	var list []api.Dropped
	for _, d := range drops {
		list = append(list, api.Dropped{Prefix: d.Source, As: as[d.Source], Chain: d.Chain, Try: TryDropped(d)})
	}
	o.mu.Lock()
	before, failed := o.dropped, o.err
	o.err = err
	if err == nil {
		o.dropped = list
	}
	o.mu.Unlock()
	switch {
	case err != nil && failed == nil:
		o.daemon.log.Warn("whether other firewalls let in whom Ringwall allows cannot be seen", hint.Attr(err))
	case err == nil && !slices.Equal(before, list):
		for _, d := range list {
			if !slices.Contains(before, d) {
				o.daemon.log.Warn(d.Text(), "try", d.Try)
			}
		}
		if len(list) == 0 {
			o.daemon.log.Info("other firewalls let in again whom Ringwall lets in")
		}
	}
}

// sourcesLetIn are those who are let in, the most certain first, and what each is.
func (o *othersDrops) sourcesLetIn() (list []netip.Prefix, as map[netip.Prefix]string) {
	as = make(map[netip.Prefix]string)
	add := func(p netip.Prefix, what string) {
		if _, ok := as[p]; !ok {
			as[p], list = what, append(list, p)
		}
	}
	o.daemon.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, x := range e.Allowed() {
			if LetsIn(x) {
				add(x.Prefix, api.DroppedAllowed)
			}
		}
		for _, x := range e.Protected() {
			add(x.Prefix, api.DroppedTrunk)
		}
		for _, t := range e.NewestTrusted(now, maxTrustedLooked) {
			add(t.Prefix, api.DroppedTrusted)
		}
	})
	return list, as
}

// latestDrops is what the last look at the rules found.
func (o *othersDrops) latestDrops() []api.Dropped {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.dropped)
}

// lookSoon has the rules looked at again.
func (o *othersDrops) lookSoon() {
	if o == nil {
		return
	}
	mailbox.Signal(o.lookWanted)
}

// LetsIn reports whether an entry of the allow list is there for somebody else than this machine and its network's
// gateways, of which firewalls drop forged packets, and than who is logged in on it.
func LetsIn(x ban.Exemption) bool {
	return x.Prefix.IsValid() && x.Origin != engine.OriginHost && x.Origin != originLogin
}

// TryDropped is the command that has another firewall let somebody in whom it drops, where it is known whose rule that
// is.
func TryDropped(d nftrace.Drop) string {
	who := humanize.Prefix(d.Source)
	family, table, chain := splitChain(cmp.Or(d.RuleChain, d.Chain))
	of := func(prefix string) bool { return strings.HasPrefix(chain, prefix) }
	switch {
	case of("f2b-"):
		return "fail2ban-client unban " + who
	case of("fpbx") || of("zone-"):
		trust := "fwconsole firewall trust " + who
		if d.RecentList != "" {
			return takeOffRecent(d.RecentList, who) + "; " + trust
		}
		return trust
	case d.RecentList != "":
		return takeOffRecent(d.RecentList, who)
	case of("ufw-"), of("ufw6-"):
		// It inserts no rule that it has with another action.
		return "ufw delete deny from " + who + "; ufw prepend allow from " + who
	case table == "firewalld":
		return "firewall-cmd --zone=trusted --change-source=" + who + "; the same with --permanent keeps it so"
	case (family == "ip" || family == "ip6") && table == "filter":
		program := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[family]
		return acceptBefore(program, table, d.Chain, chain, who)
	case strings.HasSuffix(family, "tables-legacy"):
		return acceptBefore(family, table, d.Chain, chain, who)
	}
	return "nft list chain " + cmp.Or(d.RuleChain, d.Chain) + "; take the rule out there, or fail2ban-client unban " +
		"" + who
}

// acceptBefore is the command that has a program of iptables let somebody in before all rules at the hook of a chain.
func acceptBefore(program, table, hookChain, ruleChain, who string) string {
	if table != "filter" {
		program += " -t " + table
	}
	_, _, hook := splitChain(hookChain)
	return fmt.Sprintf("%s -I %s -s %s -j ACCEPT; %s -S %s shows the rule that drops it", program, hook, who, program,
		ruleChain)
}

// takeOffRecent is the command that takes an address off a list of iptables' extension recent (linux/net/netfilter/
// xt_recent.c, recent_mt_proc_write).
func takeOffRecent(list, who string) string {
	return "echo -" + who + " >/proc/net/xt_recent/" + printable.String(list)
}

// splitChain splits what nftrace calls a chain.
func splitChain(name string) (family, table, chain string) {
	f := append(strings.SplitN(name, " ", 3), "", "", "")
	return f[0], f[1], f[2]
}

// AsteriskIsHere reports whether an Asterisk of the configuration is on this machine, whose own prefixes these are:
// else what is sent to it passes through, and chains for packets to this machine do not matter.
func AsteriskIsHere(cfg *config.Config, own map[netip.Prefix]string) bool {
	for _, a := range cfg.Asterisk {
		if isLoopbackAddress(a.Address) {
			return true
		}
		host, _, _ := net.SplitHostPort(a.Address)
		if addr, err := netip.ParseAddr(host); err == nil {
			if _, ok := own[netip.PrefixFrom(addr, addr.BitLen())]; ok {
				return true
			}
		}
	}
	return len(cfg.Asterisk) == 0
}

// portsToTrace are the ports at which Asterisk was found, and where it was at none those that are closed to the banned.
func (p *asteriskPorts) portsToTrace() (list []nftrace.Port) {
	udp, tcp := p.portsToClose()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.sortedLocked() {
		list = append(list, at.forTrace())
	}
	if len(list) > 0 {
		return list
	}
	for _, n := range udp {
		list = append(list, port{n, true}.forTrace())
	}
	for _, n := range tcp {
		list = append(list, port{n, false}.forTrace())
	}
	return list
}

func (p port) forTrace() nftrace.Port {
	if p.udp {
		return nftrace.Port{Protocol: unix.IPPROTO_UDP, Number: p.number}
	}
	return nftrace.Port{Protocol: unix.IPPROTO_TCP, Number: p.number}
}
