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

// left counts the bans that the kernel holds while no daemon is there to tell of them: they still drop packets, a
// customer's too.
func (e *exam) left(s subject, k *link) {
	if e.daemon != nil {
		e.compared(s)
		return
	}
	if _, err := k.lib.ListTableOfFamily(e.cfg.Firewall.Table, nftables.TableFamilyINet); err != nil {
		return // no table, no bans
	}
	fix := "systemctl start ringwall takes them over\nto end them all without it: nft delete table inet " +
		e.cfg.Firewall.Table
	bans, err := e.standing()
	switch {
	case err != nil:
		s.warn("bans", fix, "what an earlier run left in the kernel cannot be counted: %s", text(err))
	case len(bans) > 0:
		s.warn("bans", fix, "%s of an earlier run still drop packets, and end by themselves; nobody new is banned",
			humanize.Plural(len(bans), "ban", "bans"))
	default:
		s.warn("bans", fix, "an earlier run left its table without a ban; nobody new is banned")
	}
}

// standing lists the bans that are in the kernel.
func (e *exam) standing() ([]firewall.Element, error) {
	t, err := firewall.Open(e.table())
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }()
	return t.Elements(firewall.Ban)
}

// compared looks for what the daemon calls banned in the kernel itself. What is missing is asked for twice, since a
// ban may just have begun or ended.
func (e *exam) compared(s subject) {
	if e.daemon.Mode != string(config.Enforce) || e.daemon.Kernel.DryRun || !e.daemon.Kernel.OK || e.client == nil {
		return // said elsewhere
	}
	missing, err := e.missing()
	for try := 0; err == nil && len(missing) > 0 && try < settleTries; try++ {
		time.Sleep(settleTime)
		missing, err = e.missing()
	}
	switch {
	case err != nil:
		s.warn("bans", "ringwall list bans", "they could not be compared with the kernel: %s", text(err))
	case len(missing) > 0:
		s.fail("bans", "systemctl restart ringwall; bans stay", "%s in force for the daemon and not in the kernel: %s",
			humanize.Plural(len(missing), "ban is", "bans are"), strings.Join(missing[:min(len(missing), 5)], ", "))
	}
}

// missing names bans, of those that were compared, that the kernel does not have.
func (e *exam) missing() ([]string, error) {
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
	t, err := firewall.Open(e.table())
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }()
	var list []string
	for _, b := range bans {
		if there, err := held(t, b); err != nil {
			return nil, err
		} else if !there {
			list = append(list, b.Prefix.String())
		}
	}
	return list, nil
}

// held says whether a ban is in the kernel, if it should be. Networks of odd lengths lie there in pieces, merged with
// others; only who wrote them knows which, so they are passed over.
func held(t *firewall.Table, b ban.Ban) (bool, error) {
	p := b.Prefix
	if b.Observed || p.Addr().Is4() && p.Bits() != 32 && p.Bits() != 24 ||
		p.Addr().Is6() && p.Bits() != 64 && p.Bits() != 128 {
		return true, nil
	}
	_, found, err := t.Has(firewall.Ban, p)
	return found, err
}
