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

// testTime is how long a test element lives if nobody takes it out.
const testTime = 5 * time.Second

// element puts a ban into the kernel and takes it out again: in the real table where there is one, and through the
// daemon where only that may change it.
func (e *exam) element(s subject) {
	real := e.cfg.Firewall.Table
	check, err := firewall.NewCheck(e.table())
	var state firewall.TableState
	if err == nil {
		defer func() { _ = check.Close() }()
		state, err = check.State()
	}
	switch {
	case err != nil:
		s.fail(element, "nft list table inet "+real, "table inet %s cannot be read: %s", real, text(err))
	case !state.Exists && e.daemon != nil && !e.daemon.Kernel.DryRun:
		s.fail(element, "systemctl restart ringwall",
			"the daemon runs, but its table inet %s is not here: is it in another network namespace?", real)
	case !state.Exists:
		e.rehearse(s)
	case state.Owned:
		e.throughDaemon(s, check, state.Owner)
	default:
		e.inTable(s, check)
	}
}

// rehearse builds the table under another name, since the daemon may start at this moment and want the real one.
func (e *exam) rehearse(s subject) {
	cfg := e.table()
	cfg.Table, cfg.Owner = e.scratch(), firewall.Off
	list, err := e.free(nil)
	if err == nil {
		err = rehearse(cfg, list)
	}
	if err != nil {
		s.fail(element, cmp.Or(hint.Of(err), "nft list ruleset"), "the table cannot be built and used: %s", text(err))
		return
	}
	s.ok(element, "a table like the daemon's was built, banned and unbanned an IPv4 address and an IPv6 /64, and was removed")
}

func rehearse(cfg firewall.Config, list []netip.Prefix) (err error) {
	t, err := firewall.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if _, err = t.Ensure(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Delete()) }()
	var in, out []firewall.Change
	for _, try := range list {
		in = append(in, firewall.Change{Kind: firewall.Ban, Prefix: try, Timeout: testTime})
		out = append(out, firewall.Change{Kind: firewall.Ban, Prefix: try, Remove: true})
	}
	for i, changes := range [][]firewall.Change{in, out} {
		if err := t.Apply(changes); err != nil {
			return err
		}
		for _, c := range changes {
			_, found, err := t.Has(c.Kind, c.Prefix)
			if err != nil {
				return err
			}
			if banned := i == 0; found != banned {
				return fmt.Errorf("after %q: in the kernel: %t", c.String(), found)
			}
		}
	}
	return t.Verify()
}

// inTable uses the real sets and touches nothing else of the table.
func (e *exam) inTable(s subject, check *firewall.Check) {
	const rebuild = "systemctl restart ringwall builds it again; bans stay"
	table := e.cfg.Firewall.Table
	if why := check.Unenforced(); why != "" {
		if e.daemon != nil {
			s.fail(element, rebuild, "bans are not enforced: %s", printable.Line(why))
		} else {
			s.warn(element, "systemctl start ringwall builds it again",
				"table inet %s was left by an earlier run, and is not whole: %s",
				table, printable.Line(why))
		}
		return
	}
	list, err := e.free(check)
	if err != nil {
		s.fail(element, allowedAll, "%s", text(err))
		return
	}
	var names []string
	for _, try := range list {
		set := firewall.BanSet(try)
		if err := check.BanAndUnban(try, testTime); err != nil {
			s.fail(element, rebuild, "a ban did not get into set %s and out again: %s", set, text(err))
			return
		}
		names = append(names, set)
	}
	s.ok(element, "a test address was put into the sets %s of table inet %s and taken out, and rules drop what is in them",
		strings.Join(names, " and "), table)
}

// throughDaemon asks the process that owns the table to ban and unban.
func (e *exam) throughDaemon(s subject, check *firewall.Check, owner uint32) {
	switch {
	case e.daemon == nil:
		s.fail(element, "nft list tables; ringwall doctor --socket PATH, if a daemon has another socket; as a user who may ask it (sudo)",
			"table inet %s belongs to a running process (netlink port %d), and no daemon answers", e.cfg.Firewall.Table,
			owner)
		return
	case e.daemon.Mode != string(config.Enforce) || e.daemon.Kernel.DryRun:
		s.skip(element, "", "the daemon owns the table and bans nobody, so it is not asked to ban a test address")
		return
	}
	if why := check.Unenforced(); why != "" {
		s.fail(element, "systemctl restart ringwall", "bans are not enforced: %s", printable.Line(why))
		return
	}
	list, err := e.free(check)
	if err != nil {
		s.fail(element, allowedAll, "%s", text(err))
		return
	}
	try := list[0]
	if err := e.askedFor(check, try); err != nil {
		s.fail(element, "ringwall status", "the daemon did not ban and unban the test address %s: %s", try.Addr(),
			text(err))
		return
	}
	s.ok(element, "the daemon owns the table; asked over its socket it put the test address %s into set %s and took it out", try.Addr(), firewall.BanSet(try))
}

func (e *exam) askedFor(check *firewall.Check, try netip.Prefix) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*e.Wait) // an unban has to follow, whatever becomes of the command
	defer cancel()
	_, err := e.client.Ban(ctx, api.BanRequest{Prefix: try, For: testTime, Reason: api.DoctorTest})
	if err != nil {
		return err
	}
	found, err := check.HasBan(try)
	if err == nil && !found {
		err = errors.New("it said yes, and the kernel does not have it")
	}
	if _, err2 := e.client.Unban(ctx, api.UnbanRequest{Prefix: try}); err2 != nil &&
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
