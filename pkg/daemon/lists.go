package daemon

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/lists/fetch"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	// listsCheck is how often it is looked whether the kernel still has the lists.
	listsCheck = 10 * time.Second
	// listsSample is how many of their addresses are looked up there.
	listsSample = 16
	// listsRenewal is when elements are written again, long before they end.
	listsRenewal = firewall.ListTimeout / 4
	// listsPause is between a list that changed and its exchange, since more of them may change at the same time.
	listsPause = 500 * time.Millisecond
	// maxListedCustomers is how many customers on a list are named.
	maxListedCustomers = 16
	// staleFactor is after how many times of refresh a list is stale.
	staleFactor = 3
)

// listTable is a Firewall that holds lists of attackers.
type listTable interface {
	SetLists(ctx context.Context, all []firewall.List, listed iter.Seq[firewall.Listed]) error
	ListsFilled() bool
	ListPackets() (map[string]uint64, error)
	OnList(firewall.Listed) (bool, error)
}

// attackerLists keeps lists of known attackers in the kernel.
type attackerLists struct {
	daemon *Daemon
	keeper *fetch.Keeper
	table  listTable // nil in a dry run
	wanted chan struct{}
	// exemptions are all whom no list may touch.
	exemptions func(context.Context) ([]lists.Exemption, error)

	writing sync.Mutex // held by who writes them into the kernel

	mu        sync.Mutex
	merged    *lists.Merged
	mergedOf  []string  // the names of the lists in it
	written   time.Time // zero: the kernel has not got them
	err       error     // why not
	packets   map[string]uint64
	packetsAt time.Time
	customers map[string][]netip.Addr // by list
}

// openLists begins to keep the lists of a configuration.
func (d *Daemon) openLists(cfg *config.Config) {
	l := &attackerLists{daemon: d, wanted: make(chan struct{}, 1), customers: make(map[string][]netip.Addr)}
	l.table, _ = d.fw.(listTable)
	l.exemptions = d.listExemptions
	folder := filepath.Join(filepath.Dir(cfg.State.Path), "lists")
	l.keeper = fetch.NewKeeper(listSources(cfg.Lists), folder, d.log, l.want)
	d.lists = l
	d.tasks = append(d.tasks, l)
}

// listSources are the lists of a configuration for those who fetch them.
func listSources(all []config.List) []fetch.Source {
	sources := make([]fetch.Source, len(all))
	for i, l := range all {
		sources[i] = fetch.Source{
			Name: l.Name, From: l.From(), URL: l.Address(), File: l.File, Format: l.Format, Key: l.Key.Reveal(),
			Refresh: l.Refresh, TTL: l.TTL, MaxEntries: l.MaxEntries, MaxPrefix: l.MaxPrefix,
			Enforce: l.Mode == config.Enforce,
		}
	}
	return sources
}

// kernelLists are lists for the kernel's table. Where the policy observes, all lists do.
func kernelLists(list []lists.List, mode config.Mode) []firewall.List {
	var all []firewall.List
	for _, l := range list {
		all = append(all, firewall.List{Name: l.Name, Enforce: l.Enforce && mode == config.Enforce})
	}
	return all
}

// tableLists are the lists of a configuration for the kernel's table.
func tableLists(cfg *config.Config) []firewall.List {
	var all []lists.List
	for _, s := range listSources(cfg.Lists) {
		all = append(all, lists.List{Name: s.Name, Enforce: s.Enforce})
	}
	return kernelLists(all, cfg.Policy.Mode)
}

// String names the task.
func (*attackerLists) String() string { return "lists" }

// configure keeps the lists of another configuration, of which the kernel's table knows already. Those that did not
// change stay in force meanwhile.
func (l *attackerLists) configure(cfg *config.Config) {
	l.keeper.Configure(listSources(cfg.Lists))
	l.mu.Lock()
	for name := range l.customers {
		if !slices.ContainsFunc(cfg.Lists, func(c config.List) bool { return c.Name == name }) {
			delete(l.customers, name)
		}
	}
	l.mu.Unlock()
	l.want()
}

// want has the lists written.
func (l *attackerLists) want() {
	mailbox.Signal(l.wanted)
}

// Run keeps the lists until ctx ends.
func (l *attackerLists) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = l.keeper.Run(ctx) })
	select { // bans come first
	case <-l.daemon.tableBuilt:
	case <-ctx.Done():
		return nil
	}
	retry := partRetry
	l.writeAndTell(ctx)
	tick := time.NewTicker(listsCheck)
	defer tick.Stop()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wanted:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(listsPause):
			}
		case <-again:
		case <-tick.C:
			if l.inKernel() {
				continue
			}
		}
		again = nil
		if l.writeAndTell(ctx) {
			retry = partRetry
		} else {
			again = time.After(retry)
			retry = min(2*retry, partRetryMax)
		}
	}
}

// writeAndTell writes the lists, and reports whether the kernel has them.
func (l *attackerLists) writeAndTell(ctx context.Context) bool {
	select { // what was wanted until now is in what is written now
	case <-l.wanted:
	default:
	}
	err := l.write(ctx)
	if ctx.Err() != nil {
		return true
	}
	l.daemon.faults.setFault("lists", kernelHint(err), err)
	return err == nil
}

// write puts together what the lists say now and exchanges it for what the kernel has.
func (l *attackerLists) write(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	began := time.Now()
	exempt, err := l.exemptions(ctx)
	if err != nil {
		return err
	}
	all := l.keeper.Lists()
	if len(all) == 0 { // the kernel's table has nothing for them
		l.mu.Lock()
		defer l.mu.Unlock()
		l.merged, l.mergedOf, l.written, l.err = nil, nil, time.Time{}, nil
		return nil
	}
	merged := lists.Merge(all, exempt, began)
	if l.table != nil {
		err = l.table.SetLists(ctx, kernelLists(all, l.daemon.config.currentConfig().Policy.Mode), elementsOf(merged))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err != nil {
		return err
	}
	l.merged, l.mergedOf, l.written = merged, nil, time.Now()
	for _, a := range all {
		l.mergedOf = append(l.mergedOf, a.Name)
	}
	l.daemon.log.Info("lists of attackers are in force", "elements", merged.Len(), "took",
		time.Since(began).Round(time.Millisecond))
	return nil
}

// elementsOf yields what the kernel is to hold.
func elementsOf(m *lists.Merged) iter.Seq[firewall.Listed] {
	return func(yield func(firewall.Listed) bool) {
		for e := range m.Elements() {
			if !yield(firewall.Listed(e)) {
				return
			}
		}
	}
}

// listExemptions are all whom no list may touch. What comes to be trusted later is let in by the kernel's own order.
func (d *Daemon) listExemptions(ctx context.Context) (exempt []lists.Exemption, err error) {
	add := func(all []ban.Exemption, of string) {
		for _, e := range all {
			exempt = append(exempt, lists.Exemption{Prefix: e.Prefix, Of: of + ", by " + printable.String(e.Origin)})
		}
	}
	b := backend{d}
	var allowed, protected []ban.Exemption
	b.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { allowed, protected = e.Allowed(), e.Protected() })
	add(allowed, "allowed")
	add(protected, "a trunk")
	err = b.Trusted(ctx, func(some []ban.Trust) error {
		for _, t := range some {
			exempt = append(exempt, lists.Exemption{Prefix: t.Prefix, Of: "trusted"})
		}
		return nil
	})
	return exempt, err
}

// inKernel reports whether the kernel has the lists, as far as a look at some addresses tells.
func (l *attackerLists) inKernel() bool {
	l.mu.Lock()
	merged, written, failed := l.merged, l.written, l.err != nil
	l.mu.Unlock()
	switch {
	case failed, len(l.keeper.States()) == 0: // it is tried again by itself; there is nothing
		return true
	case merged == nil || time.Since(written) > listsRenewal:
		return false
	case l.table == nil:
		return true
	case !l.table.ListsFilled():
		return false
	}
	for range min(listsSample, merged.Len()) {
		e := merged.Element(rand.IntN(merged.Len()))
		if !e.Ends.IsZero() && time.Until(e.Ends) < listsCheck {
			continue
		}
		if there, err := l.table.OnList(firewall.Listed(e)); err == nil && !there {
			l.daemon.log.Warn("addresses of lists are missing in the kernel, they are put back")
			return false
		}
	}
	return true
}

// listPackets returns what was counted for each list, asked of the kernel once a second at most.
func (l *attackerLists) listPackets() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table != nil && time.Since(l.packetsAt) >= time.Second {
		if packets, err := l.table.ListPackets(); err == nil {
			l.packets = packets
		}
		l.packetsAt = time.Now()
	}
	return l.packets
}

// noteDecision tells of a customer whom a list names.
func (l *attackerLists) noteDecision(decision ban.Decision) {
	if decision.Action != ban.ActionTrust {
		return
	}
	var names []string
	for _, n := range l.naming(decision.Source) {
		l.mu.Lock()
		known := l.customers[n.List]
		told := slices.Contains(known, decision.Source)
		if !told {
			if len(known) >= maxListedCustomers {
				known = known[1:]
			}
			l.customers[n.List] = append(slices.Clone(known), decision.Source)
		}
		l.mu.Unlock()
		if !told {
			names = append(names, fmt.Sprintf("%s (%s)", n.List, humanize.Prefix(n.Prefix)))
		}
	}
	if len(names) == 0 {
		return
	}
	report := decision
	report.Action, report.Reason, report.Proven, report.Duration = ban.ActionNewPlace, ban.ReasonList, true, 0
	report.Points, report.Score, report.Scope, report.Detail = 0, 0, "", fmt.Sprintf("this account logged in from an "+
		"address that a list of attackers names, %s: it is let in while it is trusted; for good: ringwall allow add %s",
		strings.Join(names, ", "), decision.Source)
	l.daemon.pipeline.AnnounceReports([]ban.Decision{report})
}

// naming returns the lists that name an address.
func (l *attackerLists) naming(a netip.Addr) (all []ban.Listing) {
	enforcing := l.daemon.config.currentConfig().Policy.Mode == config.Enforce
	for _, n := range l.keeper.Naming(a) {
		all = append(all, ban.Listing{List: n.Name, Prefix: n.Prefix, Enforced: n.Enforce && enforcing})
	}
	return all
}

// explain says what lists have to do with an address.
func (l *attackerLists) explain(x *engine.Explanation) {
	x.Listed = l.naming(x.Address)
	if len(x.Listed) == 0 {
		return
	}
	l.mu.Lock()
	merged := l.merged
	l.mu.Unlock()
	left := merged != nil
	if left {
		_, there := merged.Find(x.Address)
		left = !there
	}
	for i := range x.Listed {
		n := &x.Listed[i]
		n.LeftOut = left
		s := fmt.Sprintf("the list %s names it (%s)", n.List, humanize.Prefix(n.Prefix))
		switch {
		case x.Verdict == "allowed" || x.Verdict == "protected":
			s += ", which counts for nothing with whom you allow or Asterisk knows"
		case x.Verdict == "trusted":
			s += ", which counts for nothing while it is trusted"
		case left:
			s += ", but that entry is left out, since it touches somebody who is allowed or trusted: ringwall lists"
		case !n.Enforced:
			s += ", whose packets are only counted (mode: observe)"
		default:
			s += ": its packets are dropped. Over UDP a phone that tries for some seconds gets in by its password; " +
				"to let it in for good: ringwall allow add " + x.Address.String()
		}
		x.Lines = append(x.Lines, s)
	}
}

// statuses are those of all lists.
func (l *attackerLists) statuses() []api.ListStatus {
	packets := l.listPackets()
	l.mu.Lock()
	merged, mergedOf := l.merged, l.mergedOf
	customers := make(map[string][]netip.Addr)
	for name, all := range l.customers {
		customers[name] = slices.Clone(all)
	}
	l.mu.Unlock()
	var all []api.ListStatus
	for _, s := range l.keeper.States() {
		left := s.LeftOut
		if i := slices.Index(mergedOf, s.Name); i >= 0 {
			left = left.With(merged.LeftOut(i))
		}
		out := api.ListStatus{
			Name: s.Name, Mode: string(config.Observe), Entries: s.Entries, Packets: packets[s.Name],
			Fetched: timeOrNil(s.Fetched), Changed: timeOrNil(s.Changed), Tried: timeOrNil(s.Tried),
			Next: timeOrNil(s.Next), Held: s.Held, Over: s.Over, LeftOut: left.Count, Omissions: left.Sample,
			Bad: s.Bad, BadSample: s.Sample,
			Credit: s.Credit, Customers: customers[s.Name],
			Stale: !s.Fetched.IsZero() && time.Since(s.Fetched) > staleFactor*s.Refresh,
		}
		if s.Enforce && l.daemon.config.currentConfig().Policy.Mode == config.Enforce {
			out.Mode = string(config.Enforce)
		}
		if s.Err != nil {
			out.Error, out.Try = printable.Line(s.Err.Error()), hint.Of(s.Err)
		}
		all = append(all, out)
	}
	return all
}

// presentLists are the lists for a scrape.
func (l *attackerLists) presentLists() (all []metrics.ListPresent) {
	for _, s := range l.statuses() {
		out := metrics.ListPresent{Name: s.Name, Entries: s.Entries, Packets: s.Packets, Stale: s.Stale || s.Over ||
			s.Fetched == nil && s.Error != "", Held: s.Held, LeftOut: make(map[string]int)}
		if s.Fetched != nil {
			out.Fetched = float64(s.Fetched.Unix())
		}
		for why, n := range s.LeftOut {
			out.LeftOut[strings.ReplaceAll(string(why), " ", "_")] = n
		}
		all = append(all, out)
	}
	return all
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// listWarnings warn of lists that are not as they should be.
func listWarnings(all []api.ListStatus) (warnings []api.Warning) {
	for _, l := range all {
		name := "the list " + l.Name
		switch {
		case l.Held:
			warnings = append(warnings, api.Warning{Text: name + " is not taken over: " + l.Error,
				Try: "look at it; where it is right: ringwall lists refresh " + l.Name + " --accept"})
		case l.Over:
			warnings = append(warnings, api.Warning{Text: name +
				" no longer counts, since it could not be fetched for too long: " + l.Error, Try: l.Try})
		case l.Stale:
			warnings = append(warnings, api.Warning{Text: name + " is old: it was last fetched at " +
				l.Fetched.Format("2006-01-02 15:04 MST") + ": " + l.Error, Try: l.Try})
		case l.Fetched == nil && l.Error != "":
			warnings = append(warnings, api.Warning{Text: name + " was never fetched: " + l.Error, Try: l.Try})
		}
		if n := len(l.Customers); n > 0 && l.Mode == string(config.Enforce) {
			warnings = append(warnings, api.Warning{Text: name + " names " +
				humanize.Plural(n, "address", "addresses") + " from which customers logged in: " +
				joinedAddresses(l.Customers),
				Try: "ringwall allow add " + l.Customers[n-1].String()})
		}
	}
	return warnings
}

func joinedAddresses(all []netip.Addr) string {
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.String()
	}
	return strings.Join(names, ", ")
}

// RefreshList implements api.Backend.
func (b backend) RefreshList(ctx context.Context, req api.ListRefreshRequest) (api.ListStatus, error) {
	l := b.lists
	known := l != nil && slices.ContainsFunc(l.keeper.States(), func(s fetch.State) bool { return s.Name == req.Name })
	if !known {
		return api.ListStatus{}, api.NotFound("ringwall lists names those that there are", "there is no list %s",
			printable.Quote(req.Name))
	}
	if err := l.keeper.Refresh(ctx, req.Name, req.Accept); err != nil {
		return api.ListStatus{}, &api.Error{Message: fmt.Sprintf("the list %s stays as it was: %v", req.Name, err),
			Try: hint.Of(err), Err: err}
	}
	if err := l.write(ctx); err != nil {
		return api.ListStatus{}, b.kernelError("the list is not in the kernel yet", err)
	}
	for _, s := range l.statuses() {
		if s.Name == req.Name {
			return s, nil
		}
	}
	return api.ListStatus{}, nil
}
