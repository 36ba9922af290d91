package demo

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall"
)

// findFailures looks bans up in the kernel, and says what did not happen as claimed.
func (d *demonstration) findFailures() (failures []string, err error) {
	bystander := netip.PrefixFrom(bystander(), 32)
	harmed := false
	if !d.environment.dryRun {
		table, err := firewall.Open(firewall.Config{
			Table: d.cfg.Firewall.Table, Priority: d.cfg.Firewall.Priority, NetNS: d.network.netNS(),
			IPv6Prefix: d.cfg.Policy.IPv6Prefix,
		})
		if err != nil {
			return nil, fmt.Errorf("demo: look into the kernel: %w", err)
		}
		defer func() { _ = table.Close() }()
		if _, harmed, err = table.LookUpPrefix(firewall.Ban, bystander); err != nil {
			return nil, fmt.Errorf("demo: look into the kernel: %w", err)
		}
		for _, r := range d.tally.rows {
			_, there, err := table.LookUpPrefix(firewall.Ban, r.judgedSource())
			if err != nil {
				return nil, fmt.Errorf("demo: look into the kernel: %w", err)
			}
			d.tally.updateRow(func() { r.inKernel = there })
		}
	}
	if harmed {
		failures = append(failures, bystander.Addr().String()+" is banned in the kernel, and sent nothing")
	}
	return append(failures, d.tally.takeSnapshot(time.Now()).failures()...), nil
}

// failures compares what happened with what should have.
func (s snapshot) failures() []string {
	failures := append([]string{}, s.unexpected...)
	fail := func(r *participantRow, format string, args ...any) {
		failures = append(failures, fmt.Sprintf("%s (%s) ", r.name, r.sourceLabel())+fmt.Sprintf(format, args...))
	}
	for i := range s.rows {
		r := &s.rows[i]
		switch r.role {
		case attacker:
			switch {
			case r.ban == nil:
				fail(r, "was not banned")
			case s.dry:
			case !r.inKernel:
				fail(r, "was banned, but the kernel does not have it")
			case r.leaked() > 0:
				fail(r, "was banned, but %d packets that it sent later arrived", r.arrivedAfterBan)
			case r.stopped() == 0:
				fail(r, "was banned, but no packet was stopped")
			}
		case customer:
			if r.inKernel {
				fail(r, "is banned in the kernel")
			}
			if !r.answered {
				fail(r, "had no answer after the attack")
			}
			if r.earnsTrust() && !r.trusted {
				fail(r, "logged in and was not trusted")
			}
		case forger:
			if r.inKernel {
				fail(r, "is banned in the kernel for one packet")
			}
			if !r.tamperingReported {
				fail(r, "was not reported as tampering")
			}
		}
	}
	return failures
}
