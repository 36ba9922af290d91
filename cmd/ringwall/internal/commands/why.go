package commands

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why ADDR|HOST|EXTENSION",
		Short: "Tell why an address is banned or not, and what would change it",
		Long: `Tell why an address is banned or not, and what would change it. A port behind the address is left out. Of
a host name each address is told; of an extension, from where it was tried or logged in.`,
		Example:           "  ringwall why 203.0.113.5\n  ringwall why 201",
		Args:              takesArgs(1, 1, "one address, host name or extension"),
		ValidArgsFunction: c.completeBans,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, err := api.ParseSubject(args[0])
			if err != nil {
				return asUsage(err)
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			addrs, account, err := c.resolveSubject(cmd.Context(), about)
			if err != nil {
				return err
			}
			if account != "" {
				return c.whyAccount(cmd.Context(), client, account)
			}
			for i, addr := range addrs {
				ex, err := client.Why(cmd.Context(), addr)
				if err != nil {
					return err
				}
				switch {
				case c.json:
					err = c.writeJSON(ex)
				case i > 0:
					c.sayf("")
					fallthrough
				default:
					err = c.sayWhy(ex)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// maxRestrictions is how many senders are named that are cut or slow.
const maxRestrictions = 5

// maxHostAddresses is how many addresses of a host name are asked about.
const maxHostAddresses = 8

// resolveSubject finds the addresses of a subject, or the account that it is. A name with a dot that nobody can
// resolve may still be the name of an account.
func (c *commands) resolveSubject(ctx context.Context, s api.Subject) ([]netip.Addr, string, error) {
	switch {
	case s.Account != "":
		return nil, s.Account, nil
	case s.Host == "":
		return []netip.Addr{s.Addr}, "", nil
	}
	lookup := c.Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := lookup(limited, s.Host)
	if len(found) == 0 {
		var dns *net.DNSError
		if err == nil || errors.As(err, &dns) && dns.IsNotFound {
			c.sayRemarkf("%s has no address, so this is about an account of that name.", s.Host)
			return nil, s.Host, nil
		}
		return nil, "", hint.Errorf("ringwall why ADDRESS; is DNS all right? getent ahosts "+s.Host,
			"%s cannot be looked up: %w", s.Host, err)
	}
	var addrs []netip.Addr
	var texts []string
	for _, a := range found {
		if a = a.Unmap().WithZone(""); !slices.Contains(addrs, a) && len(addrs) < maxHostAddresses {
			addrs, texts = append(addrs, a), append(texts, a.String())
		}
	}
	c.sayRemarkf("%s is %s.", s.Host, strings.Join(texts, ", "))
	return addrs, "", nil
}

// sayRemarkf says how a question was understood, unless a program asks.
func (c *commands) sayRemarkf(format string, args ...any) {
	if !c.json {
		c.sayWrappedf("", format, args...)
		c.sayf("")
	}
}

// whyAccount says from where an account was tried or logged in.
func (c *commands) whyAccount(ctx context.Context, client *api.Client, account string) error {
	res, err := client.Account(ctx, account)
	if err != nil {
		return err
	}
	if c.json {
		return c.writeJSON(res)
	}
	name := printable.String(account)
	if len(res.Sources) == 0 {
		c.sayWrappedf("", "Nobody has tried the account %s or logged in with it, as far as this daemon remembers.",
			name)
		c.sayWrappedf("", "What was decided about it before: ringwall history %s --since 30d", name)
		return nil
	}
	c.sayWrappedf("", "The account %s was tried or logged in from %s:", name,
		humanize.Plural(res.All, "source", "sources"))
	t := table{header: []string{"SOURCE", "NOW", "TRIES", "LOGINS", "LAST", "PLACE"},
		rightAligned: map[int]bool{2: true, 3: true},
		cutOrder:     []int{0}, lastOptional: true}
	for _, s := range res.Sources {
		verdict := printable.String(s.Verdict)
		if s.Trusted && s.Verdict != "trusted" {
			verdict += ", logged in there"
		}
		t.addRow(humanize.Prefix(s.Prefix), verdict, strconv.Itoa(s.Tries), strconv.Itoa(s.Logins), c.shortTime(s.Last),
			wording.PlaceText(s.Place))
	}
	if err := t.flushTo(c.out, c.Columns); err != nil {
		return err
	}
	if res.All > len(res.Sources) {
		c.sayf("and %s more.", strconv.Itoa(res.All-len(res.Sources)))
	}
	c.sayWrappedf("", "ringwall why SOURCE tells the reasons. Times are %s.", c.zoneName())
	return nil
}

func (c *commands) sayWhy(ex engine.Explanation) error {
	c.sayWrappedf("", "%s", wording.VerdictSentence(ex, c.shortTime))
	if place := wording.PlaceText(ex.Place); place != "" {
		c.sayf("It is registered in %s.", place)
	}
	if ex.Source.IsValid() && humanize.Prefix(ex.Source) != ex.Address.String() {
		c.sayf("It is judged as a part of %s.", ex.Source)
	}
	for i, r := range ex.Restrictions {
		if i == maxRestrictions {
			c.sayf("And %s: ringwall list restricted", humanize.Plural(len(ex.Restrictions)-i, "sender more",
				"senders more"))
			break
		}
		c.sayWrappedf("", "%s", wording.RestrictionSentence(r, c.shortTime))
	}
	if flows := wording.GoodFlowsSentence(ex); flows != "" {
		c.sayWrappedf("", "%s", flows)
	}
	if ex.Grace != nil && ex.Grace.After(c.Now()) {
		c.sayf("No automatic ban before %s: somebody gave it grace.", c.shortTime(*ex.Grace))
	}
	if len(ex.Evidence) > 0 {
		c.sayf("")
		title := "Evidence, oldest first"
		if ex.Lost > 0 {
			title += fmt.Sprintf(" (%s no longer kept)", humanize.Plural(ex.Lost, "older piece is", "older pieces are"))
		}
		c.sayf("%s:", title)
		if err := c.sayEvidence(ex.Evidence); err != nil {
			return err
		}
	}
	if len(ex.Lines) > 0 {
		c.sayf("")
		for _, line := range ex.Lines {
			c.sayWrappedf("  ", "- %s", wording.LocalTimes(line, c.shortTime))
		}
	}
	c.sayNextSteps(ex)
	if ex.Ban != nil || ex.Trust != nil || ex.Grace != nil || len(ex.Restrictions) > 0 || len(ex.Evidence) > 0 {
		c.sayf("")
		c.sayf("Times are %s.", c.zoneName())
	}
	return nil
}

func (c *commands) sayEvidence(list []ban.Evidence) error {
	t := table{
		header:       []string{"TIME", "EVENT", "BY", "ACCOUNT", "POINTS", "SCORE", "PROVEN", "NOTE"},
		rightAligned: map[int]bool{4: true, 5: true}, cutOrder: []int{7, 3, 1},
	}
	at := c.shortTime
	if c.Columns > 0 && c.Columns < 100 {
		at = c.narrowTime
	}
	for _, e := range list {
		by, note := wording.EvidenceNote(e)
		t.addRow(at(e.Time), printable.String(e.Event), by, printable.String(e.Account), humanize.Number(e.Points),
			humanize.Score(e.Score),
			yesOrNo(e.Proven), note)
	}
	return t.flushTo(c.out, c.Columns)
}

// sayNextSteps names commands that change what was told, where the explanation's own lines name none.
func (c *commands) sayNextSteps(ex engine.Explanation) {
	switch {
	case ex.Verdict == "suspicious":
		c.sayf("")
		c.sayf("To keep it out:  ringwall ban %s", ex.Address)
	case ex.Allow != nil && ex.Allow.Origin == engine.OriginManual:
		c.sayf("")
		c.sayf("To judge it again:  ringwall allow del %s", humanize.Prefix(ex.Allow.Prefix))
	}
}
