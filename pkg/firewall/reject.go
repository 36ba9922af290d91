package firewall

import (
	"errors"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
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
	t.cfg.noReject = isUnknown(err)
}

func isUnknown(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// choosePacesLocked asks the kernel once whether it knows limits of elements, in a set that it has: an element is added
// and taken out again in one transaction. It reports whether the table has to be built again, without them.
func (t *Table) choosePacesLocked() (again bool) {
	if t.askedForPaces || t.cfg.noPaces {
		return false
	}
	t.askedForPaces = true
	try := []nfnl.SetElement{{Key: nfnl.Key{Addr: netip.IPv4Unspecified()}, Timeout: time.Second,
		Limit: PaceMinute.kernelLimit()}}
	b := t.beginTransactionLocked()
	b.Add(t.defs[slow4].name, try, false)
	b.Delete(t.defs[slow4].name, try)
	if !isUnknown(t.commitLocked(b)) {
		return false
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.cfg.noPaces = true
	return true
}
