package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	// maxFleetNodes is how many nodes are heard.
	maxFleetNodes = 20_000
	// fleetPiece is how many prefixes are judged while events wait.
	fleetPiece = 128
	// fleetInterval is how often trust is told anew, which each login prolongs, and all that others say is judged anew.
	fleetInterval = 5 * time.Minute
	// fleetFirst is how often it is looked whether what this node knew before can be told.
	fleetFirst = time.Second
	// fleetFile is in the folder of the state.
	fleetFile = "fleet.json"
)

// fleetNode is this node's part in a fleet, if it has one.
type fleetNode struct {
	daemon  *Daemon
	current atomic.Pointer[fleet.Fleet] // nil: there is none
}

// fleetKinds are the kinds of records behind the words of fleet.share and fleet.accept.
func fleetKinds(words []config.Shared) (kinds []record.Kind) {
	for _, word := range words {
		switch word {
		case config.SharedBans:
			kinds = append(kinds, record.Ban, record.Unban, record.Grace)
		case config.SharedTrust:
			kinds = append(kinds, record.Trust)
		case config.SharedAllow:
			kinds = append(kinds, record.Allow)
		}
	}
	return kinds
}

// FleetConfig is the fleet that a part of the configuration asks for.
func FleetConfig(cfg config.Fleet, log *slog.Logger) (fleet.Config, error) {
	node, err := cfg.NodeName()
	if err != nil {
		return fleet.Config{}, err
	}
	c := fleet.Config{Servers: cfg.Servers, CredentialsFile: cfg.CredentialsFile, Name: cfg.Name, Node: node, Log: log,
		Watch: fleet.Watch(cfg.Watch), Share: fleetKinds(cfg.Share), Accept: fleetKinds(cfg.Accept),
		Limits: record.Limits{Quorum: cfg.Quorum, IPv4Bits: cfg.MaxPrefix.IPv4, IPv6Bits: cfg.MaxPrefix.IPv6,
			Rate: float64(cfg.Rate), Records: cfg.MaxRecords, Nodes: maxFleetNodes}}
	if cfg.TLS.CAFile == "" && cfg.TLS.ServerName == "" {
		return c, nil
	}
	c.TLS = &tls.Config{ServerName: cfg.TLS.ServerName, MinVersion: tls.VersionTLS12}
	if cfg.TLS.CAFile != "" {
		c.RootCAs = func() (*x509.CertPool, error) {
			pool, err := config.CertPool(cfg.TLS.CAFile)
			if err != nil {
				return nil, fmt.Errorf("fleet.tls.ca_file: %w", err)
			}
			return pool, nil
		}
		_, err = c.RootCAs()
	}
	return c, err
}

// open joins the fleet of the configuration, if there is one.
func (n *fleetNode) open() (opened, error) {
	cfg := n.daemon.config.currentConfig().Fleet
	if !cfg.Enabled() || n.daemon.opts.DryRun {
		return opened{}, nil
	}
	c, err := FleetConfig(cfg, n.daemon.log)
	if err != nil {
		return opened{}, err
	}
	if cfg.CredentialsFile != "" {
		if _, err := os.Stat(cfg.CredentialsFile); err != nil {
			return opened{}, fmt.Errorf("fleet.credentials_file: %w", err)
		}
	}
	if state := n.daemon.config.currentConfig().State.Path; state != "" {
		c.KeptFile = filepath.Join(filepath.Dir(state), fleetFile)
	}
	f := fleet.New(c)
	n.current.Store(f)
	return opened{tasks: []Task{f, &fleetJudge{fleet: f, daemon: n.daemon}}, close: func() error {
		n.current.Store(nil)
		return nil
	}}, nil
}

// tell tells the fleet what was decided here. It is quick: the engine's lock may be held.
func (n *fleetNode) tell(decisions []ban.Decision) {
	f := n.current.Load()
	if f == nil {
		return
	}
	for i := range decisions {
		d := &decisions[i]
		if d.Origin != "" || !d.Prefix.IsValid() { // what others said is no news to them
			continue
		}
		switch d.Action {
		case ban.ActionBan, ban.ActionExtend:
			if d.Scope == ban.ScopeSource || d.Scope == ban.ScopeNetwork {
				f.Say(banRecord(d.Prefix, d.Time.Add(d.Duration), d.Reason, d.Closes, d.Proven, evidenceText(d)))
			}
		case ban.ActionUnban:
			tellUnban(f, d)
		case ban.ActionTrust:
			f.Say(trustRecord(d.Prefix, d.Time.Add(d.Duration)))
		case ban.ActionUntrust:
			if d.Reason != ban.ReasonExpired {
				f.Withdraw(record.Trust, d.Prefix)
			}
		}
	}
}

// tellUnban tells the fleet of the end of a ban: a person's word is everybody's, and what only this node knows of takes
// back its own word alone.
func tellUnban(f *fleet.Fleet, d *ban.Decision) {
	switch d.Reason {
	case ban.ReasonExpired, ban.ReasonLimit:
	case ban.ReasonManual:
		grace := time.Time{}
		if d.Duration > 0 {
			grace = d.Time.Add(d.Duration)
		}
		if d.Here {
			f.UnbanHere(d.Prefix)
		} else {
			f.Unban(d.Prefix, grace)
		}
	default:
		f.Withdraw(record.Ban, d.Prefix)
	}
}

// unbansHere says whether a person's unban is for this node alone: as asked for, or as the configuration says. All bans
// at once are lifted elsewhere only where that is asked for.
func (n *fleetNode) unbansHere(req *api.UnbanRequest) bool {
	f := n.current.Load()
	switch {
	case f == nil || !f.SharesBans() || req.Here:
		return true
	case req.Fleet:
		return false
	}
	return req.All || n.daemon.config.currentConfig().Fleet.Unban == config.UnbanHere
}

// unban tells the fleet that a person unbanned prefixes, whether or not anything banned them here, and says in the
// result whom that reaches.
func (n *fleetNode) unban(
	req *api.UnbanRequest, result *api.UnbanResult, unsaidBefore uint64, here bool, prefixes ...netip.Prefix,
) {
	f := n.current.Load()
	switch {
	case f == nil && req.Fleet:
		result.FleetNote = "this node is in no fleet"
		return
	case f == nil:
		return
	case req.Fleet && here:
		result.FleetNote = "fleet.share leaves bans out: the other nodes are not told"
	}
	grace := time.Time{}
	if result.Grace != nil {
		grace = *result.Grace
	}
	for _, p := range prefixes {
		switch {
		case !p.IsValid():
		case here:
			f.UnbanHere(p)
		default:
			f.Unban(p, grace)
		}
	}
	if here {
		result.Reach = api.ReachHere
		if err := f.SaveKept(); err != nil {
			result.FleetNote = "that it is let in here is known until the daemon ends: " + err.Error()
		}
		return
	}
	result.Reach = api.ReachFleet
	s := f.Status()
	switch {
	case s.Unsaid > unsaidBefore:
		most := n.daemon.config.currentConfig().Fleet.MaxRecords
		result.FleetNote = fmt.Sprintf("%d were not told to the fleet, which takes no more than fleet.max_records "+
			"(%d) of one node; the other nodes keep those bans", s.Unsaid-unsaidBefore, most)
	case !s.Connected:
		result.FleetNote = "the fleet's servers cannot be reached: other nodes let it in once they can"
	}
}

// unsaid is how much was not told to the fleet so far.
func (n *fleetNode) unsaid() uint64 {
	if f := n.current.Load(); f != nil {
		return f.Status().Unsaid
	}
	return 0
}

// allow tells the fleet what a person allows until a time, without one for good, or does no more.
func (n *fleetNode) allow(p netip.Prefix, until time.Time, remove bool) {
	f := n.current.Load()
	switch {
	case f == nil:
	case remove:
		f.Withdraw(record.Allow, p)
	default:
		f.Say(record.Record{Key: record.Key{Kind: record.Allow, Prefix: p}, Until: until})
	}
}

func banRecord(
	p netip.Prefix, until time.Time, reason ban.Reason, closes ban.Closes, proven bool, evidence string,
) record.Record {
	return record.Record{Key: record.Key{Kind: record.Ban, Prefix: p}, Until: until, Reason: reason, Closes: closes,
		Proven: proven, Evidence: evidence}
}

func trustRecord(p netip.Prefix, until time.Time) record.Record {
	return record.Record{Key: record.Key{Kind: record.Trust, Prefix: p}, Until: until}
}

// evidenceText is what others are shown of a ban. It names no account: those are this site's alone.
func evidenceText(d *ban.Decision) string {
	if d.Reason == ban.ReasonManual {
		return "by hand"
	}
	return fmt.Sprintf("%s over %s, %.1f points", d.Service, d.Transport, d.Score)
}

// fleetJudge brings what the fleet says into the engine.
type fleetJudge struct {
	fleet  *fleet.Fleet
	daemon *Daemon
}

// String names the task.
func (j *fleetJudge) String() string { return "fleet" }

// Run implements Task.
func (j *fleetJudge) Run(ctx context.Context) error {
	if err := j.daemon.restorer.AwaitStored(ctx); err != nil { // what is not known yet cannot be extended, or lifted
		return nil
	}
	again := time.NewTicker(fleetInterval)
	defer again.Stop()
	first := time.NewTicker(fleetFirst)
	defer first.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.fleet.HasChange():
			j.judgeForgotten(j.fleet.TakeForgotten())
			j.judgeChanged()
		case <-first.C:
			if j.fleet.Status().CaughtUp { // before, an unban of others may not be known
				j.judgeChanged()
				j.tellTrust()
				j.tellBans()
				first.Stop()
			}
		case <-again.C:
			j.tellTrust()
			j.fleet.JudgeAll()
			j.judgeChanged()
		}
	}
}

// fleetWord is what the fleet says of one prefix.
type fleetWord struct {
	prefix           netip.Prefix
	unban            record.Record
	isUnbanned       bool
	ban              engine.FleetBan
	isBanned         bool
	trust, allow     record.Record
	trusted, allowed bool
}

// judgeChanged has all judged about whom something was said.
func (j *fleetJudge) judgeChanged() {
	for list := j.fleet.TakeChanged(fleetPiece); len(list) > 0; list = j.fleet.TakeChanged(fleetPiece) {
		words := j.wordsAbout(list)
		j.daemon.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
			for i := range words {
				out = append(out, words[i].apply(e, now)...)
			}
			return out
		})
	}
}

// wordsAbout is what others say of some prefixes.
func (j *fleetJudge) wordsAbout(list []netip.Prefix) []fleetWord {
	words := make([]fleetWord, 0, len(list))
	j.fleet.Read(func(b *record.Book, now time.Time) {
		for _, p := range list {
			words = append(words, wordOf(b, now, p))
		}
	})
	return words
}

// wordOf is what others say of a prefix.
func wordOf(b *record.Book, now time.Time, p netip.Prefix) fleetWord {
	w := fleetWord{prefix: p}
	if w.unban, w.isUnbanned = b.Unbanned(p); w.isUnbanned {
		own, _ := b.Get(record.Key{Node: b.Self(), Kind: record.Ban, Prefix: p})
		w.isUnbanned = !own.Made.After(w.unban.Made) // else this node saw it again since then
	}
	if v, ok := b.Ban(now, p); ok {
		origin := v.Node
		if origin == b.Self() {
			other, is := b.Others(now, record.Ban, p)
			origin, ok = other.Node, is // what this node said itself is in force without the fleet
		}
		w.isBanned = ok
		w.ban = engine.FleetBan{Prefix: p, Until: v.Until, Origin: origin, Nodes: v.Nodes, Reason: v.Reason,
			Closes: v.Closes, Proven: v.Proven, Evidence: v.Evidence}
	}
	w.trust, w.trusted = b.Others(now, record.Trust, p)
	w.allow, w.allowed = b.Others(now, record.Allow, p)
	return w
}

// apply tells the engine. Trust comes first: it spares from a ban.
func (w *fleetWord) apply(e *engine.Engine, now time.Time) (out []ban.Decision) {
	isAllowed := slices.Contains(e.AllowedBy(w.prefix), engine.OriginFleet)
	switch {
	case w.allowed && !isAllowed:
		where := "allowed at " + w.allow.Node
		out = append(out, e.Allow(now, w.prefix, engine.OriginFleet, where)...)
		for i := range out {
			out[i].Detail = where // and no origin: what this node said itself it takes back
		}
	case !w.allowed && isAllowed:
		e.Disallow(w.prefix, engine.OriginFleet)
	}
	if w.trusted {
		out = append(out, e.TrustForFleet(now, w.prefix, w.trust.Until, w.trust.Node)...)
	} else {
		out = append(out, e.DistrustForFleet(now, w.prefix)...)
	}
	if w.isUnbanned {
		out = append(out, e.LiftForFleet(now, w.prefix, w.unban.Made, w.unban.Node)...)
	}
	if w.isBanned {
		return append(out, e.BanForFleet(now, w.ban)...)
	}
	return append(out, e.EndForFleet(now, w.prefix)...)
}

// judgeForgotten ends what is in force on the word of nodes that are forgotten, and has what others say in its place.
// It looks at all that is in force: after a restart nothing else may know what a node said.
func (j *fleetJudge) judgeForgotten(nodes []string) {
	if len(nodes) == 0 {
		return
	}
	list := j.wordsOf(nodes)
	for piece := range slices.Chunk(list, fleetPiece) {
		words := j.wordsAbout(piece)
		j.daemon.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
			for i := range words {
				out = append(out, e.ForgetOrigin(now, words[i].prefix, nodes)...)
				out = append(out, words[i].apply(e, now)...)
			}
			return out
		})
	}
	j.daemon.log.Info("what nodes of the fleet said is forgotten", "nodes", nodes, "prefixes", len(list))
	j.restoreOwn()
}

// restoreOwn has the bans of this node in force again that only a word that is void now has lifted.
func (j *fleetJudge) restoreOwn() {
	var own []record.Record
	j.fleet.Read(func(b *record.Book, now time.Time) { own = b.OwnBans(now) })
	for piece := range slices.Chunk(own, fleetPiece) {
		j.daemon.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
			for i := range piece {
				r := &piece[i]
				out = append(out, e.BanForFleet(now, engine.FleetBan{Prefix: r.Prefix, Until: r.Until, Reason: r.Reason,
					Closes: r.Closes, Proven: r.Proven, Evidence: r.Evidence})...)
			}
			return out
		})
	}
}

// wordsOf lists who is banned or trusted here on the word of nodes.
func (j *fleetJudge) wordsOf(nodes []string) (list []netip.Prefix) {
	j.eachBan(func(b *ban.Ban) {
		if slices.Contains(nodes, b.Origin) {
			list = append(list, b.Prefix)
		}
	})
	var trusts engine.TrustWalk
	defer j.daemon.pipeline.ReadEngine(func(*engine.Engine, time.Time) { trusts.Close() })
	for more := true; more; {
		var some []ban.Trust
		j.daemon.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			some, more = e.WalkTrust(now, &trusts, fleetPiece, nil)
		})
		for i := range some {
			if slices.Contains(nodes, some[i].Origin) {
				list = append(list, some[i].Prefix)
			}
		}
	}
	return list
}

// forget forgets what a node said, here alone.
func (n *fleetNode) forget(req api.ForgetRequest) (api.ForgetResult, error) {
	f := n.current.Load()
	result := api.ForgetResult{Node: req.Node}
	switch {
	case f == nil:
		return result, api.NotFound("fleet in the configuration", "this node is in no fleet")
	case f.Node() == req.Node:
		return result, api.Refused("ringwall unban", "%s is this node", req.Node)
	}
	nodes := []string{req.Node}
	j := &fleetJudge{fleet: f, daemon: n.daemon}
	result.InForce = len(j.wordsOf(nodes))
	var err error
	if result.Prefixes, err = f.Forget(req.Node); err != nil {
		result.Note = "it is not kept over a restart: " + err.Error()
	}
	j.judgeForgotten(nodes)
	j.judgeChanged()
	return result, nil
}

// eachBan calls a function for each ban in force. Events wait no longer than for fleetPiece of them.
func (j *fleetJudge) eachBan(each func(*ban.Ban)) {
	var walk engine.BanWalk
	for more := true; more; {
		var some []ban.Ban
		j.daemon.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			some, more = e.WalkBans(now, &walk, fleetPiece, netip.Prefix{}, false, nil)
		})
		for i := range some {
			each(&some[i])
		}
	}
}

// tellBans tells the fleet of the bans that were made before this node was connected to it.
func (j *fleetJudge) tellBans() {
	j.eachBan(func(b *ban.Ban) {
		if b.Observed || b.Origin != "" || b.Reason == ban.ReasonAdopted || b.Reason == ban.ReasonTest ||
			b.Scope != ban.ScopeSource && b.Scope != ban.ScopeNetwork {
			return
		}
		if own, ok := j.own(record.Ban, b.Prefix); !ok || own.Until.Before(b.Until.Add(-time.Second)) {
			j.fleet.Say(banRecord(b.Prefix, b.Until, b.Reason, b.Closes, b.Proven,
				humanize.Plural(b.Attempts, "attempt", "attempts")))
		}
	})
}

// tellTrust tells the fleet of logins since the last time, and of those of before.
func (j *fleetJudge) tellTrust() {
	ttl := j.daemon.config.currentConfig().Policy.Trust.TTL
	var walk engine.TrustWalk
	defer j.daemon.pipeline.ReadEngine(func(*engine.Engine, time.Time) { walk.Close() })
	for more := true; more; {
		var some []ban.Trust
		var now time.Time
		j.daemon.pipeline.ReadEngine(func(e *engine.Engine, at time.Time) {
			now = at
			some, more = e.ExportSomeTrusts(at, &walk, fleetPiece, nil)
		})
		for i := range some {
			t := &some[i]
			if !t.Until.After(now) || now.Sub(t.Last) > ttl { // over, or another node's word
				continue
			}
			own, ok := j.own(record.Trust, t.Prefix)
			if !ok || own.Withdrawn || own.Until.Sub(now) < t.Until.Sub(now)*3/4 { // rather seldom than to the minute
				j.fleet.Say(trustRecord(t.Prefix, t.Until))
			}
		}
	}
}

// own is what this node said of a prefix.
func (j *fleetJudge) own(kind record.Kind, p netip.Prefix) (r record.Record, ok bool) {
	j.fleet.Read(func(b *record.Book, _ time.Time) {
		r, ok = b.Get(record.Key{Node: b.Self(), Kind: kind, Prefix: p})
	})
	return r, ok
}

// status is the fleet at a glance, if there is one, and what a person should look at.
func (n *fleetNode) status() (*fleet.Status, []api.Warning) {
	f := n.current.Load()
	if f == nil {
		return nil, nil
	}
	s := f.Status()
	var warnings []api.Warning
	switch {
	case !s.Connected:
		warnings = append(warnings, api.Warning{Text: "the fleet's servers cannot be reached: " +
			printable.Line(cmp.Or(s.Error, "no answer yet")) + "; what was known stays in force, and this node goes " +
			"on alone",
			Try: "look at the servers, and at fleet.servers and fleet.credentials_file"})
	case s.Error != "":
		warnings = append(warnings, api.Warning{Text: "the fleet's servers do not answer as they should: " +
			printable.Line(s.Error), Try: "look at the servers' log, and at what this node may do there"})
	}
	for _, node := range s.Nodes {
		if refused := node.RefusedCount(); refused > 0 {
			warnings = append(warnings, api.Warning{Text: fmt.Sprintf("of what node %s of the fleet says, %d records "+
				"are refused: %s", node.Name, refused, joinRefused(node.Refused)),
				Try: "look at that node; where it is not yours any more, revoke its credentials"})
		}
	}
	return &s, append(warnings[:min(len(warnings), maxFleetWarnings)], silenceWarnings(&s)...)
}

// silenceWarnings say who is not heard.
func silenceWarnings(s *fleet.Status) (warnings []api.Warning) {
	var silent []string
	for i := range s.Nodes {
		if s.Nodes[i].Silent {
			silent = append(silent, s.Nodes[i].Name)
		}
	}
	if len(silent) > 0 {
		warnings = append(warnings, api.Warning{Text: humanize.Plural(len(silent), "node of the fleet is",
			"nodes of the fleet are") + " not heard: " + humanize.Names(silent, 10),
			Try: "look at that machine and its connection; one that is gone for good: ringwall hub revoke, then " +
				"ringwall hub forget"})
	}
	if s.Unseen != "" {
		warnings = append(warnings, api.Warning{Text: "the fleet's servers do not let this node say that it is " +
			"there: " +
			printable.Line(s.Unseen), Try: "deploy/docs/fleet.md: what a node must be allowed to do at the servers"})
	}
	return warnings
}

// present is the fleet in the metrics.
func (n *fleetNode) present() *metrics.FleetPresent {
	f := n.current.Load()
	if f == nil {
		return nil
	}
	s := f.Status()
	p := &metrics.FleetPresent{Connected: s.Connected && s.CaughtUp, Nodes: len(s.Nodes), Records: s.Records,
		Waiting: s.Waiting}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		p.Refused += n.RefusedCount()
		if n.Silent {
			p.Silent++
		}
		if n.AtBound {
			p.AtBound++
		}
	}
	return p
}

// maxFleetWarnings is how many of them are shown.
const maxFleetWarnings = 20

// joinRefused lists why records were refused.
func joinRefused(refused map[string]uint64) (text string) {
	for i, why := range sortedKeys(refused) {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%s (%d)", why, refused[why])
	}
	return text
}
