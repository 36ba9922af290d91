package doctor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/nftables"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// maxCompared bounds how many bans are looked for in the kernel: each is a question.
const maxCompared = 256

var errEnough = errors.New("doctor: enough bans to compare")

// examineBans compares the daemon's bans with the kernel. Where no daemon runs it counts those that are in the
// kernel: they still drop packets, a customer's too, and nobody tells of them.
func (e *exam) examineBans(s subject, k *netlinkConn) {
	if e.daemon != nil {
		e.compareBans(s)
		return
	}
	if _, err := k.lib.ListTableOfFamily(e.cfg.Firewall.Table, nftables.TableFamilyINet); err != nil {
		return // no table, no bans
	}
	fix := "systemctl start ringwall takes them over\nto end them all without it: nft delete table inet " +
		e.cfg.Firewall.Table
	bans, err := e.bansInKernel()
	switch {
	case err != nil:
		s.warn("bans", fix, "what an earlier run left in the kernel cannot be counted: %s", errorLine(err))
	case len(bans) > 0:
		s.warn("bans", fix, "%s of an earlier run still drop packets, and end by themselves; nobody new is banned",
			humanize.Plural(len(bans), "ban", "bans"))
	default:
		s.warn("bans", fix, "an earlier run left its table without a ban; nobody new is banned")
	}
}

// bansInKernel lists the bans that are in the kernel.
func (e *exam) bansInKernel() ([]firewall.Element, error) {
	t, err := firewall.Open(e.tableConfig())
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }()
	return t.Elements(firewall.Ban)
}

// compareBans looks up in the kernel what the daemon calls banned. It asks again while one is missing, since a ban
// may just have begun or ended.
func (e *exam) compareBans(s subject) {
	if e.daemon.Mode != string(config.Enforce) || e.daemon.Kernel.DryRun || !e.daemon.Kernel.OK || e.client == nil {
		return // said elsewhere
	}
	missing, err := e.bansNotInKernel()
	for try := 0; err == nil && len(missing) > 0 && try < settleTries; try++ {
		time.Sleep(settleTime)
		missing, err = e.bansNotInKernel()
	}
	switch {
	case err != nil:
		s.warn("bans", "ringwall list bans", "they could not be compared with the kernel: %s", errorLine(err))
	case len(missing) > 0:
		s.fail("bans", "systemctl restart ringwall; bans stay", "%s in force for the daemon and not in the kernel: %s",
			humanize.Plural(len(missing), "ban is", "bans are"), strings.Join(missing[:min(len(missing), 5)], ", "))
	}
}

// bansNotInKernel lists which of the daemon's first maxCompared bans the kernel does not have.
func (e *exam) bansNotInKernel() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*e.Wait)
	defer cancel()
	var bans []ban.Ban
	err := e.client.EachBan(ctx, api.BanFilter{}, func(b ban.Ban) error {
		if len(bans) == maxCompared { // there may be a million
			return errEnough
		}
		bans = append(bans, b)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	t, err := firewall.Open(e.tableConfig())
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }()
	var list []string
	for _, b := range bans {
		if there, err := hasBan(t, b); err != nil {
			return nil, err
		} else if !there {
			list = append(list, b.Prefix.String())
		}
	}
	return list, nil
}

// hasBan reports whether a ban is in the kernel. It says yes for an observed ban, which should not be, and for
// networks of other lengths than a source has: the kernel holds them in pieces, merged with others, and only who
// wrote them knows which.
func hasBan(t *firewall.Table, b ban.Ban) (bool, error) {
	p := b.Prefix
	if b.Observed || p.Addr().Is4() && p.Bits() != 32 && p.Bits() != 24 ||
		p.Addr().Is6() && p.Bits() != 64 && p.Bits() != 128 {
		return true, nil
	}
	_, found, err := t.LookUpPrefix(firewall.Ban, p)
	return found, err
}
