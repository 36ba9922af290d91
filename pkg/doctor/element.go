package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

// testBanTime is the timeout of a test element, after which the kernel removes it by itself if nobody did.
const testBanTime = 5 * time.Second

// proveElement puts a ban into the kernel and takes it out again: in the real table where there is one, and through the
// daemon where only that may change it.
func (e *exam) proveElement(s subject) {
	tableName := e.cfg.Firewall.Table
	check, err := firewall.NewCheck(e.tableConfig())
	var state firewall.TableState
	if err == nil {
		defer func() { _ = check.Close() }()
		state, err = check.TableState()
	}
	switch {
	case err != nil:
		s.fail(checkElement, "nft list table inet "+tableName, "table inet %s cannot be read: %s", tableName,
			errorLine(err))
	case !state.Exists && e.daemon != nil && !e.daemon.Kernel.DryRun:
		s.fail(checkElement, "systemctl restart ringwall",
			"the daemon runs, but its table inet %s is not here: is it in another network namespace?", tableName)
	case !state.Exists:
		e.proveInScratchTable(s)
	case state.Owned:
		e.proveThroughDaemon(s, check, state.Owner)
	default:
		e.proveInTable(s, check)
	}
}

// proveInScratchTable builds the table under another name, since the daemon may start at this moment and want the
// real one.
func (e *exam) proveInScratchTable(s subject) {
	cfg := e.tableConfig()
	cfg.Table, cfg.Owner = e.scratchTableName(), firewall.Off
	list, err := e.chooseTestSources(nil)
	if err == nil {
		err = banInScratchTable(cfg, list)
	}
	if err != nil {
		s.fail(checkElement, cmp.Or(hint.Of(err), "nft list ruleset"), "the table cannot be built and used: %s",
			errorLine(err))
		return
	}
	s.ok(checkElement, "a table like the daemon's was built, banned and unbanned an IPv4 address and an IPv6 /64, "+
		"and was removed")
}

func banInScratchTable(cfg firewall.Config, list []netip.Prefix) (err error) {
	t, err := firewall.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if _, err = t.EnsureTable(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.DeleteTable()) }()
	var in, out []firewall.Change
	for _, try := range list {
		in = append(in, firewall.Change{Kind: firewall.Ban, Prefix: try, Timeout: testBanTime})
		out = append(out, firewall.Change{Kind: firewall.Ban, Prefix: try, Remove: true})
	}
	for i, changes := range [][]firewall.Change{in, out} {
		if err := t.Apply(changes); err != nil {
			return err
		}
		for _, c := range changes {
			_, found, err := t.LookUpPrefix(c.Kind, c.Prefix)
			if err != nil {
				return err
			}
			if banned := i == 0; found != banned {
				return fmt.Errorf("after %q: in the kernel: %t", c.String(), found)
			}
		}
	}
	return t.VerifyTable()
}

// proveInTable bans test addresses in the sets of a table that no process owns, and touches nothing else of it.
func (e *exam) proveInTable(s subject, check *firewall.Check) {
	const rebuild = "systemctl restart ringwall builds it again; bans stay"
	table := e.cfg.Firewall.Table
	if why := check.WhyUnenforced(); why != "" {
		if e.daemon != nil {
			s.fail(checkElement, rebuild, "bans are not enforced: %s", printable.Line(why))
		} else {
			s.warn(checkElement, "systemctl start ringwall builds it again",
				"table inet %s was left by an earlier run, and is not whole: %s",
				table, printable.Line(why))
		}
		return
	}
	list, err := e.chooseTestSources(check)
	if err != nil {
		s.fail(checkElement, fixAllAllowed, "%s", errorLine(err))
		return
	}
	var names []string
	for _, try := range list {
		set := firewall.BanSet(try)
		if err := check.BanAndUnban(try, testBanTime); err != nil {
			s.fail(checkElement, rebuild, "a ban did not get into set %s and out again: %s", set, errorLine(err))
			return
		}
		names = append(names, set)
	}
	s.ok(checkElement, "a test address was put into the sets %s of table inet %s and taken out, and rules drop what "+
		"is in them",
		strings.Join(names, " and "), table)
}

// proveThroughDaemon asks the process that owns the table to ban and unban.
func (e *exam) proveThroughDaemon(s subject, check *firewall.Check, owner uint32) {
	switch {
	case e.daemon == nil:
		s.fail(checkElement, "nft list tables; ringwall doctor --socket PATH, if a daemon has another socket; as a "+
			"user who may ask it (sudo)",
			"table inet %s belongs to a running process (netlink port %d), and no daemon answers", e.cfg.Firewall.Table,
			owner)
		return
	case e.daemon.Mode != string(config.Enforce) || e.daemon.Kernel.DryRun:
		s.skip(checkElement, "", "the daemon owns the table and bans nobody, so it is not asked to ban a test address")
		return
	}
	if why := check.WhyUnenforced(); why != "" {
		s.fail(checkElement, "systemctl restart ringwall", "bans are not enforced: %s", printable.Line(why))
		return
	}
	list, err := e.chooseTestSources(check)
	if err != nil {
		s.fail(checkElement, fixAllAllowed, "%s", errorLine(err))
		return
	}
	try := list[0]
	if err := e.banThroughDaemon(check, try); err != nil {
		s.fail(checkElement, "ringwall status", "the daemon did not ban and unban the test address %s: %s", try.Addr(),
			errorLine(err))
		return
	}
	s.ok(checkElement, "the daemon owns the table; asked over its socket it put the test address %s into set %s and "+
		"took it out", try.Addr(), firewall.BanSet(try))
}

func (e *exam) banThroughDaemon(check *firewall.Check, try netip.Prefix) error {
	// Not the examination's context: when that ends, the unban still has to follow the ban.
	ctx, cancel := context.WithTimeout(context.Background(), 4*e.Wait)
	defer cancel()
	_, err := e.client.Ban(ctx, api.BanRequest{Prefix: try, For: testBanTime, Reason: api.DoctorTest})
	if err != nil {
		return err
	}
	found, err := check.HasBan(try)
	if err == nil && !found {
		err = errors.New("it said yes, and the kernel does not have it")
	}
	if _, err2 := e.client.Unban(ctx, api.UnbanRequest{Prefix: try, Here: true}); err2 != nil &&
		!errors.Is(err2, api.ErrNotFound) {
		return errors.Join(err, err2)
	}
	if err != nil {
		return err
	}
	if found, err = check.HasBan(try); err == nil && found {
		err = errors.New("it was unbanned and is still there")
	}
	return err
}
