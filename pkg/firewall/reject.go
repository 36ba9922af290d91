package firewall

import (
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chooseRejectLocked asks the kernel once whether it can end TCP connections before routing (Linux 5.9, with
// nft_reject_inet). A container may lack the module: then what is cut is dropped, and a table there is in any case.
func (t *Table) chooseRejectLocked() {
	if t.askedForReject {
		return
	}
	lib := t.writeConn.Nftables
	probe := lib.AddTable(probeTable(t.cfg.Table))
	accept := nftables.ChainPolicyAccept
	chain := lib.AddChain(&nftables.Chain{
		Name: chainName, Table: probe, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(t.cfg.Priority)),
	})
	lib.AddRule(&nftables.Rule{Table: probe, Chain: chain,
		Exprs: append(isProtocol(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})})
	lib.DelTable(probe)
	err := lib.Flush()
	t.askedForReject = true
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.cfg.noReject = errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}
