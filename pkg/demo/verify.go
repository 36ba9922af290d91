package demo

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall"
)

// verify looks bans up in the kernel, and says what did not happen as claimed.
func (s *demonstration) verify() (failures []string, err error) {
	bystander := netip.PrefixFrom(bystander(), 32)
	harmed := false
	if !s.environment.dry {
		table, err := firewall.Open(firewall.Config{
			Table: s.cfg.Firewall.Table, Priority: s.cfg.Firewall.Priority, NetNS: s.network.netNS(),
			IPv6Prefix: s.cfg.Policy.IPv6Prefix,
		})
		if err != nil {
			return nil, fmt.Errorf("demo: look into the kernel: %w", err)
		}
		defer func() { _ = table.Close() }()
		if _, harmed, err = table.Has(firewall.Ban, bystander); err != nil {
			return nil, fmt.Errorf("demo: look into the kernel: %w", err)
		}
		for _, r := range s.tally.rows {
			_, there, err := table.Has(firewall.Ban, r.source())
			if err != nil {
				return nil, fmt.Errorf("demo: look into the kernel: %w", err)
			}
			s.tally.update(func() { r.inKernel = there })
		}
	}
	if harmed {
		failures = append(failures, bystander.Addr().String()+" is banned in the kernel, and sent nothing")
	}
	return append(failures, s.tally.snapshot(time.Now()).failures()...), nil
}

// failures compares what happened with what should have.
func (s snapshot) failures() []string {
	failures := append([]string{}, s.wrong...)
	fail := func(r *row, format string, args ...any) {
		failures = append(failures, fmt.Sprintf("%s (%s) ", r.name, r.label())+fmt.Sprintf(format, args...))
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
			case r.leaked > 0:
				fail(r, "was banned, but %d packets that it sent later arrived", r.leaked)
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
			if !r.reported {
				fail(r, "was not reported as tampering")
			}
		}
	}
	return failures
}
