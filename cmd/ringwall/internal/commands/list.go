package commands

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/ringwall/ringwall/pkg/hint"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) listCommand() *cobra.Command {
	kinds := []string{"bans", "trust", "allow", "protected", "restricted"}
	return &cobra.Command{
		Use:   "list [bans|trust|allow|protected|restricted]",
		Short: "List who is banned, trusted, allowed, protected or restricted",
		Long: `List who is banned, trusted, allowed, protected or restricted. Restricted is what Ringwall cuts or slows
of an address while the others there go on: one connection that guesses, a phone with an old password that keeps
trying.`,
		ValidArgs: kinds,
		Args:      takesArgs(0, 1, "one of bans, trust, allow, protected, restricted"),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := "bans"
			if len(args) == 1 {
				kind = args[0]
			}
			if !slices.Contains(kinds, kind) {
				try := usageLine(cmd)
				if near := hint.Nearest(kind, kinds); near != "" {
					try = "ringwall list " + near
				}
				return usageErrorf(try, "there is no list %q", printable.String(kind))
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			switch kind {
			case "trust":
				return c.listTrust(cmd, client)
			case "allow":
				return c.listAllow(cmd, client)
			case "protected":
				return c.listProtected(cmd, client)
			case "restricted":
				return c.listRestricted(cmd, client)
			}
			return c.listBans(cmd, client)
		},
	}
}

func (c *commands) listBans(cmd *cobra.Command, client *api.Client) error {
	t := &table{header: []string{"SOURCE", "LEFT", "SINCE", "BANS", "TRIES", "WHY", "ACCOUNTS", "PLACE"},
		rightAligned: map[int]bool{1: true, 3: true, 4: true}, cutOrder: []int{6, 5}, lastOptional: true}
	observed, leaking := 0, 0
	n, err := writeRows(c, t, func(each func(ban.Ban) error) error {
		return client.EachBan(cmd.Context(), api.BanFilter{}, each)
	}, func(a, b ban.Ban) int {
		return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Compare(b.Prefix))
	}, func(b ban.Ban) {
		why := humanize.Words(b.Reason)
		if b.Comment != "" {
			why += ": " + printable.String(b.Comment)
		}
		if b.Origin != "" {
			why += ", seen by " + printable.String(b.Origin)
		}
		if only := wording.ClosesOnly(b.Closes); only != "" {
			why = only + ": " + why
		}
		if b.Observed {
			observed++
			why += " (observed)"
		}
		if b.Leak != nil {
			leaking++
			why = fmt.Sprintf("GETS THROUGH (%s): %s", b.Leak.Where(), why)
		}
		t.addRow(humanize.Prefix(b.Prefix), humanize.Duration(humanize.FromSeconds(b.Left)), c.shortTime(b.Since),
			strconv.Itoa(b.Number),
			strconv.Itoa(b.Attempts), why,
			humanize.Names(b.Accounts, 5), wording.PlaceText(b.Place))
	})
	if err != nil || c.json {
		return err
	}
	if n == 0 {
		c.sayf("Nobody is banned.")
		return c.sayRestricted(cmd, client)
	}
	c.sayf("%s. ringwall why SOURCE tells the reasons.", humanize.Plural(n, "ban", "bans"))
	if observed > 0 {
		c.sayf("%d of them observed only: packets still pass.", observed)
	}
	if leaking > 0 {
		c.sayf("%d of them got through to Asterisk all the same: ringwall doctor.", leaking)
	}
	return c.sayRestricted(cmd, client)
}

// sayRestricted adds to a list of bans how much is cut or slow besides. A daemon of the version before has no such
// list.
func (c *commands) sayRestricted(cmd *cobra.Command, client *api.Client) error {
	n := 0
	err := client.EachRestricted(cmd.Context(), netip.Prefix{}, func(ban.Restriction) error {
		n++
		return nil
	})
	if err == nil && n > 0 {
		c.sayf("Besides, %s cut or slow while others of the same address go on: ringwall list restricted.",
			humanize.Plural(n, "sender is", "senders are"))
	}
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	return err
}

func (c *commands) listRestricted(cmd *cobra.Command, client *api.Client) error {
	t := &table{header: []string{"WHO", "LEFT", "HOW", "PASSES", "PLACE"}, rightAligned: map[int]bool{1: true},
		lastOptional: true}
	n, err := writeRows(c, t, func(each func(ban.Restriction) error) error {
		return client.EachRestricted(cmd.Context(), netip.Prefix{}, each)
	}, func(a, b ban.Restriction) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Flow.Source.Compare(b.Flow.Source))
	}, func(r ban.Restriction) {
		t.addRow(wording.RestrictedWho(r), humanize.Duration(humanize.FromSeconds(r.Left)), wording.RestrictionKind(r),
			wording.Passes(r), wording.PlaceText(r.Place))
	})
	if err != nil || c.json {
		return err
	}
	if n == 0 {
		c.sayf("Nobody is cut or slow.")
		return nil
	}
	c.sayf("%s. ringwall why ADDRESS tells the reasons, ringwall unban ADDRESS ends it.",
		humanize.Plural(n, "restriction", "restrictions"))
	return nil
}

func (c *commands) listTrust(cmd *cobra.Command, client *api.Client) error {
	t := &table{header: []string{"SOURCE", "LEFT", "SINCE", "SCORE", "ACCOUNTS", "PLACE"},
		rightAligned: map[int]bool{1: true, 3: true},
		cutOrder:     []int{4}, lastOptional: true}
	n, err := writeRows(c, t, func(each func(ban.Trust) error) error {
		return client.EachTrusted(cmd.Context(), each)
	}, func(a, b ban.Trust) int {
		return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Compare(b.Prefix))
	}, func(v ban.Trust) {
		accounts := humanize.Names(v.Accounts, 5)
		if v.Origin != "" {
			accounts = "logged in at " + printable.String(v.Origin)
		}
		t.addRow(humanize.Prefix(v.Prefix), humanize.Duration(humanize.FromSeconds(v.Left)), c.shortTime(v.Since),
			humanize.Score(v.Score), accounts,
			wording.PlaceText(v.Place))
	})
	if err != nil || c.json {
		return err
	}
	if n == 0 {
		c.sayf("Nobody is trusted yet: that comes with the first login by password.")
		return nil
	}
	c.sayf("%s.", humanize.Plural(n, "trusted source", "trusted sources"))
	return nil
}

func (c *commands) listAllow(cmd *cobra.Command, client *api.Client) error {
	allowed, err := client.Allowed(cmd.Context())
	if err != nil {
		return err
	}
	return c.listExemptions(allowed, "Nothing is allowed by name.")
}

func (c *commands) listProtected(cmd *cobra.Command, client *api.Client) error {
	protected, err := client.Protected(cmd.Context())
	if err != nil {
		return err
	}
	return c.listExemptions(protected, "Nothing is protected: Asterisk has named no trunk and no contact (see "+
		"ringwall status).")
}

func (c *commands) listExemptions(list []ban.Exemption, empty string) error {
	t := &table{header: []string{"ENTRY", "FROM", "NOTE"}, cutOrder: []int{2}}
	ends := slices.ContainsFunc(list, func(v ban.Exemption) bool { return v.Until != nil })
	if ends {
		t.header = append(t.header, "UNTIL")
	}
	n, err := writeRows(c, t, func(each func(ban.Exemption) error) error {
		for _, v := range list {
			if err := each(v); err != nil {
				return err
			}
		}
		return nil
	}, nil, func(v ban.Exemption) {
		entry := humanize.Prefix(v.Prefix)
		if entry == "" { // a host name without one
			entry = "no address"
		}
		cells := []string{entry, printable.String(v.Origin), printable.Line(v.Note)}
		switch {
		case v.Until != nil:
			cells = append(cells, c.shortTime(*v.Until))
		case ends:
			cells = append(cells, "")
		}
		t.addRow(cells...)
	})
	if err == nil && n == 0 && !c.json {
		c.sayf("%s", empty)
	}
	return err
}
