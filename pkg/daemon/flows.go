package daemon

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/flows"
	"github.com/ringwall/ringwall/pkg/policy"
)

// openFlows prepares to end the tracked flows of who is banned.
func (d *Daemon) openFlows() {
	if d.opts.DryRun {
		return
	}
	d.part("connection tracking", "modprobe nf_conntrack_netlink", d.newFlows)
}

func (d *Daemon) newFlows() (opened, error) {
	cfg := d.config.current()
	udp, tcp := d.ports.wanted()
	ender, err := flows.New(flows.Config{
		NetNS: d.opts.NetNS, Log: d.log, All: cfg.Firewall.Scope == policy.ScopeAll,
		UDPPorts: udp, TCPPorts: tcp,
		Spare: func(a netip.Addr) (spared bool) {
			d.judge.ask(func(e *engine.Engine, _ time.Time) { spared = e.Spares(a) })
			return spared
		},
		Ended: func(n int) { d.log.Debug("tracked flows of banned sources were ended", "flows", n) },
	})
	if err != nil {
		return opened{}, err
	}
	d.judge.flows.Store(ender)
	return opened{tasks: []Task{flowTask{ender}}}, nil
}

type flowTask struct{ *flows.Ender }

// String names the task.
func (flowTask) String() string { return "conntrack" }
