package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

// whyView says why an address is banned or not.
type whyView struct {
	Address  string
	Verdict  string // one word, also the class of its mark
	Sentence string
	Place    string
	Source   string // the network that it is judged as a part of
	Grace    string
	Evidence []evidenceRow
	Lost     string
	Lines    []string
	Narrow   []string // sentences about what of it is cut or slow, and about what passes
	Banned   bool     // unban would end a ban
	// Restricted says that an unban would end something else alone.
	Restricted bool
	Ban        netip.Prefix  // the prefix of that
	Never      bool          // it is on the allow list, or known to Asterisk
	Allow      *netip.Prefix // the prefix that somebody thinks of allowing
	Score      string
	Percent    int
}

// evidenceRow is one line of evidence.
type evidenceRow struct {
	At                                      time.Time
	Event, By, Account, Points, Score, Note string
	Proven                                  bool
}

// serveWhy answers for one address.
func (p *Page) serveWhy(w http.ResponseWriter, r *http.Request) {
	asked := strings.TrimSpace(r.URL.Query().Get("address"))
	about, err := api.ParseSubject(asked)
	f := p.newPageView(r, "Why? – Ringwall")
	f.Asked = printable.Limit(asked, 64)
	if err != nil {
		f.Problem = boundedLine(capitalized(err.Error())) + "."
		if try := hint.Of(err); try != "" {
			f.Hint = "Try: " + boundedLine(try)
		}
		p.writePage(w, r, http.StatusBadRequest, "why", f)
		return
	}
	addr := about.Addr
	if about.Host != "" {
		if addr, f.Note = p.resolveHost(r.Context(), about.Host); !addr.IsValid() {
			about.Account = about.Host
		}
	}
	if about.Account != "" {
		p.serveAccount(w, r, f, about.Account)
		return
	}
	ex, err := p.Source.Why(r.Context(), addr)
	if err != nil {
		p.writeFailure(w, r, err)
		return
	}
	f.Asked, f.Title = ex.Address.String(), "Why "+ex.Address.String()+"? – Ringwall"
	f.Why = p.viewWhy(ex)
	f.Why.Place = placeText(p.Source.Place(addr))
	f.Commands = commandsFor(f.Why, ex.Allow)
	if prefix, err := api.ParsePrefix(r.URL.Query().Get("allow")); err == nil && prefix.Contains(addr) &&
		!f.Why.Never {
		f.Why.Allow = &prefix
	}
	p.writePage(w, r, http.StatusOK, "why", f)
}

// resolveHost looks a host name up, and says in a sentence what came of it. The first of several addresses is what is
// answered.
func (p *Page) resolveHost(ctx context.Context, host string) (netip.Addr, string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return netip.Addr{}, boundedLine(host + " has no address, so this is about an account of that name.")
	}
	var texts []string
	for _, a := range found[:min(len(found), maxHostAddresses)] {
		texts = append(texts, a.Unmap().WithZone("").String())
	}
	note := host + " is " + strings.Join(texts, ", ") + "."
	if len(found) > 1 {
		note += " This is about the first; look the others up by themselves."
	}
	return found[0].Unmap().WithZone(""), boundedLine(note)
}

// serveAccount writes from which sources an account was tried.
func (p *Page) serveAccount(w http.ResponseWriter, r *http.Request, f pageView, name string) {
	res, err := p.Source.Account(r.Context(), name)
	if err != nil {
		p.writeFailure(w, r, err)
		return
	}
	f.Asked, f.Title = printable.Limit(name, 64), "Account "+printable.Limit(name, 64)+" – Ringwall"
	v := &accountView{Account: boundedLine(printable.String(name)), All: res.All, Command: "ringwall history " +
		printable.String(name)}
	for _, s := range res.Sources[:min(len(res.Sources), maxAccountSources)] {
		row := accountSourceRow{Bare: humanize.Prefix(s.Prefix), Address: s.Address.String(),
			Verdict: printable.String(s.Verdict),
			Place:   placeText(s.Place), Tries: s.Tries, Logins: s.Logins, Last: s.Last}
		if s.Trusted && s.Verdict != "trusted" {
			row.Verdict += ", logged in there"
		}
		v.Rows = append(v.Rows, row)
	}
	f.Tried = v
	p.writePage(w, r, http.StatusOK, "why", f)
}

// maxHostAddresses and maxAccountSources bound what is shown of a host's addresses and an account's sources.
const (
	maxHostAddresses  = 8
	maxAccountSources = 50
)

// accountView lists the sources from which an account was tried.
type accountView struct {
	Account string
	All     int
	Command string
	Rows    []accountSourceRow
}

type accountSourceRow struct {
	Bare, Address, Verdict, Place string
	Tries, Logins                 int
	Last                          time.Time
}

func (p *Page) viewWhy(ex engine.Explanation) *whyView {
	a := &whyView{Address: ex.Address.String(), Verdict: printable.String(ex.Verdict),
		Sentence: boundedLine(wording.VerdictSentence(ex, p.shortTime)),
		Never:    ex.Verdict == "allowed" || ex.Verdict == "protected", Score: humanize.Score(ex.Score) + " of " +
			humanize.Number(ex.Threshold)}
	if ex.Threshold > 0 {
		a.Percent = min(100, int(100*ex.Score/ex.Threshold))
	}
	if ex.Source.IsValid() && humanize.Prefix(ex.Source) != ex.Address.String() {
		a.Source = ex.Source.String()
	}
	if ex.Ban != nil && (ex.Verdict == "banned" || ex.Verdict == "observed") {
		a.Banned, a.Ban = ex.Verdict == "banned", ex.Ban.Prefix
	}
	for i, r := range ex.Restrictions {
		if i == maxRestricted {
			a.Narrow = append(a.Narrow, fmt.Sprintf("And %s.", humanize.Plural(len(ex.Restrictions)-i, "sender more",
				"senders more")))
			break
		}
		a.Narrow = append(a.Narrow, wording.RestrictionSentence(r, p.shortTime))
	}
	if len(ex.Restrictions) > 0 && !a.Banned {
		a.Restricted, a.Ban = true, ex.Source
	}
	if flows := wording.GoodFlowsSentence(ex); flows != "" {
		a.Narrow = append(a.Narrow, flows)
	}
	if ex.Grace != nil && ex.Grace.After(time.Now()) {
		a.Grace = "No automatic ban before " + p.shortTime(*ex.Grace) + ": somebody gave it grace."
	}
	if ex.Lost > 0 {
		a.Lost = humanize.Plural(ex.Lost, "older piece is", "older pieces are") + " no longer kept"
	}
	for _, e := range ex.Evidence {
		by, note := wording.EvidenceNote(e)
		a.Evidence = append(a.Evidence, evidenceRow{At: e.Time, Event: printable.String(e.Event), By: boundedLine(by),
			Account: printable.String(e.Account),
			Points:  humanize.Number(e.Points), Score: humanize.Score(e.Score), Note: boundedLine(note),
			Proven: e.Proven})
	}
	for _, l := range ex.Lines {
		a.Lines = append(a.Lines, boundedLine(wording.LocalTimes(l, p.shortTime)))
	}
	return a
}

// commandsFor lists commands of this machine that change or tell more of what was answered.
func commandsFor(a *whyView, allowed *ban.Exemption) []suggestedCommand {
	all := []suggestedCommand{{"The same on a terminal", "ringwall why " + a.Address}, {"What happened with it",
		"ringwall history " + a.Address}}
	if a.Never && allowed != nil && allowed.Origin == engine.OriginManual {
		return append([]suggestedCommand{{"Take that back, and judge it like everybody else", "ringwall allow del " +
			humanize.Prefix(allowed.Prefix)}}, all...)
	}
	if a.Never {
		return all
	}
	allow := suggestedCommand{"Never ban it, for a day or until you take it back",
		"ringwall allow add " + a.Address + " --for 1d"}
	if a.Restricted {
		return append([]suggestedCommand{{"Let go what is cut or slow there",
			"ringwall unban " + humanize.Prefix(a.Ban)},
			allow}, all...)
	}
	if a.Banned {
		return append([]suggestedCommand{
			{"Let it in now", "ringwall unban " + humanize.Prefix(a.Ban)},
			{"Let it in, and do not ban it for an hour, to mend its phone meanwhile", "ringwall unban " +
				humanize.Prefix(a.Ban) + " --grace 1h"}, allow}, all...)
	}
	return append([]suggestedCommand{allow}, all...)
}
