package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/store"
)

// Backend returns what the control socket asks; it may be used without one.
func (d *Daemon) Backend() api.Backend { return backend{d} }

type backend struct{ *Daemon }

// How many bans and trusted sources are read under one lock, while events wait: a fraction of a millisecond's work.
const (
	banPiece      = 128
	evidencePiece = 16
	trustPiece    = 64
	lanePiece     = 32   // sources, of which each may have a hundred restrictions
	flowPiece     = 1024 // good flows that are passed over
)

// Bans implements api.Backend.
func (b backend) Bans(ctx context.Context, f api.BanFilter, each func([]ban.Ban) error) error {
	if err := b.restorer.AwaitStored(ctx); err != nil {
		return err
	}
	var walk engine.BanWalk
	n := banPiece
	if f.Evidence {
		n = evidencePiece
	}
	for more := true; more; {
		var some []ban.Ban
		b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			some, more = e.WalkBans(now, &walk, n, f.Within, f.Evidence, nil)
		})
		for i := range some { // without the engine's lock
			some[i].Place = b.placeOf(some[i].Prefix.Addr())
		}
		if err := sendPiece(ctx, some, each); err != nil {
			return err
		}
	}
	return nil
}

// sendPiece gives a piece of a list to whoever asked, if anything is in it.
func sendPiece[T any](ctx context.Context, some []T, each func([]T) error) error {
	if err := ctx.Err(); err != nil || len(some) == 0 {
		return err
	}
	return each(some)
}

// Trusted implements api.Backend.
func (b backend) Trusted(ctx context.Context, each func([]ban.Trust) error) error {
	var walk engine.TrustWalk
	defer b.pipeline.ReadEngine(func(*engine.Engine, time.Time) { walk.Close() })
	for more := true; more; {
		var some []ban.Trust
		b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			some, more = e.WalkTrust(now, &walk, trustPiece, nil)
		})
		for i := range some {
			some[i].Place = b.placeOf(some[i].Prefix.Addr())
		}
		if err := sendPiece(ctx, some, each); err != nil {
			return err
		}
	}
	return nil
}

// Restricted implements api.Backend.
func (b backend) Restricted(ctx context.Context, within netip.Prefix, each func([]ban.Restriction) error) error {
	var walk engine.RestrictionWalk
	defer b.pipeline.ReadEngine(func(*engine.Engine, time.Time) { walk.Close() })
	for more := true; more; {
		var some []ban.Restriction
		b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			some, more = e.WalkRestrictions(now, &walk, lanePiece, within, nil)
		})
		for i := range some {
			some[i].Place = b.placeOf(some[i].Prefix.Addr())
		}
		if err := sendPiece(ctx, some, each); err != nil {
			return err
		}
	}
	return nil
}

// goodFlows returns the good flows of a prefix in order.
func (b backend) goodFlows(ctx context.Context, within netip.Prefix) (flows []ban.GoodFlow, err error) {
	var walk engine.FlowWalk
	defer b.pipeline.ReadEngine(func(*engine.Engine, time.Time) { walk.Close() })
	for more := true; more && err == nil; err = ctx.Err() {
		b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
			flows, more = e.WalkGoodFlows(now, &walk, flowPiece, within, flows)
		})
	}
	slices.SortFunc(flows, func(a, b ban.GoodFlow) int {
		return cmp.Or(a.Flow.Source.Compare(b.Flow.Source), cmp.Compare(a.Flow.String(), b.Flow.String()))
	})
	return flows, err
}

// Allowed implements api.Backend.
func (b backend) Allowed(context.Context) (out []ban.Exemption, _ error) {
	b.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { out = e.Allowed() })
	return b.allowSources.describeHosts(out), nil
}

// Protected implements api.Backend.
func (b backend) Protected(context.Context) (out []ban.Exemption, _ error) {
	b.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { out = e.Protected() })
	return out, nil
}

// Why implements api.Backend.
func (b backend) Why(ctx context.Context, a netip.Addr) (x engine.Explanation, _ error) {
	if err := b.restorer.AwaitStored(ctx); err != nil {
		return x, err
	}
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { x = e.Why(now, a) })
	if x.Place = b.placeOf(a); x.Ban != nil {
		x.Ban.Place = b.placeOf(x.Ban.Prefix.Addr())
	}
	if x.Trust != nil {
		x.Trust.Place = b.placeOf(x.Trust.Prefix.Addr())
	}
	b.lists.explain(&x)
	flows, err := b.goodFlows(ctx, x.Source)
	x.GoodFlows, x.AllGoodFlows = flows[:min(len(flows), api.MaxNamed)], len(flows)
	return x, err
}

// Account implements api.Backend.
func (b backend) Account(_ context.Context, name string) (api.AccountResult, error) {
	res := api.AccountResult{Account: name}
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		res.Sources, res.All = e.AccountSources(now, name,
			api.MaxNamed)
	})
	for i := range res.Sources {
		res.Sources[i].Place = b.placeOf(res.Sources[i].Prefix.Addr())
	}
	return res, nil
}

// Place implements api.Backend.
func (b backend) Place(addr netip.Addr) ban.Place { return b.placeOf(addr) }

// History implements api.Backend.
func (b backend) History(ctx context.Context, since time.Time, addr netip.Addr, each func([]ban.Decision) error) error {
	if b.store == nil {
		return sendPiece(ctx, b.feed.Recent(since, addr), each)
	}
	begun := false
	var refused error // by each
	err := b.store.WalkHistory(ctx, since, addr, func(some []ban.Decision) error {
		begun = true
		refused = sendPiece(ctx, some, each)
		return refused
	})
	if err == nil || refused != nil || begun || ctx.Err() != nil {
		return err
	}
	// The latest of them; status says what is wrong with the disk.
	return sendPiece(ctx, b.feed.Recent(since, addr), each)
}

// Ban implements api.Backend.
func (b backend) Ban(ctx context.Context, req api.BanRequest) (api.BanResult, error) {
	if a := req.Session.WithZone("").Unmap(); a.IsValid() && req.Prefix.Contains(a) && !req.Force {
		return api.BanResult{},
			api.Refused(
				"if that is meant, say so: --force; to be safe from it for good: ringwall allow add "+a.String(),
				"%v holds %v, from where you are logged in", req.Prefix, a)
	}
	if err := b.restorer.AwaitStored(ctx); err != nil {
		return api.BanResult{}, err
	}
	length := req.For
	if length == 0 {
		length = b.config.currentConfig().Policy.Ban.First
	}
	var view ban.Ban
	decisions, err := b.pipeline.UpdateEngineAndWait(ctx, func(
		e *engine.Engine, now time.Time,
	) ([]ban.Decision, error) {
		ban := e.Ban
		if req.Reason == api.DoctorTest && length <= api.MaxDoctorTest {
			ban = e.BanForTest
		}
		out, err := ban(now, req.Prefix, length, req.Reason)
		if err != nil {
			return nil, err
		}
		view, _ = e.ActiveBan(now, req.Prefix)
		return out, nil
	})
	if errors.Is(err, engine.ErrRefused) {
		return api.BanResult{}, api.Refused("see: ringwall list allow, ringwall list protected", "%v", err)
	}
	if err != nil {
		return api.BanResult{}, b.kernelError("the ban is not in the kernel yet", err)
	}
	note := b.awaitDisk(ctx)
	result := api.BanResult{
		Note: note, Prefix: view.Prefix, Source: b.sourceOf(req.Prefix), Since: view.Since, Until: view.Until,
		Duration: view.Duration,
		Enforced: !b.opts.DryRun,
	}
	switch {
	case len(decisions) == 0:
		result.Renewed = true
		result.Note = "it was banned for longer already: that stays"
	case decisions[0].Action == ban.ActionExtend:
		result.Renewed = true
	}
	return result, nil
}

// Unban implements api.Backend.
func (b backend) Unban(ctx context.Context, req api.UnbanRequest) (api.UnbanResult, error) {
	if err := b.restorer.AwaitStored(ctx); err != nil {
		return api.UnbanResult{}, err
	}
	if req.Flow.IsValid() {
		return b.uncut(ctx, req.Flow)
	}
	within, source := req.Prefix, netip.Prefix{}
	if req.All {
		within = netip.Prefix{}
	} else if p := b.sourceOf(within); p != within {
		source = p
	}
	at := b.pipeline.Clock().Now()
	pardon := engine.NewPardon(within, req.Grace)
	pardon.Here = b.fleet.unbansHere(&req)
	unsaid := b.fleet.unsaid()
	result := api.UnbanResult{Removed: []netip.Prefix{}}
	unsaved := 0
	// first: what is taken over from now on is let in as well
	if err := b.pipeline.LetIn(ctx, within, source); err != nil {
		return api.UnbanResult{}, b.kernelError("the kernel has not let it go yet", err)
	}
	err := b.pipeline.Unban(ctx, pardon, func(decisions []ban.Decision, restrictions []ban.Restriction) {
		result.RestrictionCount += len(restrictions)
		result.Restrictions = append(result.Restrictions,
			restrictions[:min(len(restrictions), api.MaxNamed-len(result.Restrictions))]...)
		for i := range decisions {
			if len(result.Removed) < api.MaxNamed {
				result.Removed = append(result.Removed, decisions[i].Prefix)
			}
		}
		result.Count += len(decisions)
		if unsaved += len(decisions); unsaved >= maxUnsaved { // what waits for the disk takes memory
			b.awaitDisk(ctx)
			unsaved = 0
		}
	})
	if err != nil {
		return api.UnbanResult{}, b.kernelError("the kernel has not let it go yet", err)
	}
	slices.SortFunc(result.Removed, func(a, b netip.Prefix) int { return cmp.Compare(a.String(), b.String()) })
	result.Note = b.awaitDisk(ctx)
	if req.Grace > 0 {
		graceEnd := at.Add(req.Grace)
		result.Grace = &graceEnd
	}
	result.Origins = pardon.Origins
	b.fleet.unban(&req, &result, unsaid, pardon.Here, within, source)
	if result.Count == 0 && result.RestrictionCount == 0 && !req.All {
		result.Note = "nothing banned it"
		if pardon.Observed {
			result.Note = "it was not banned, only observed; its score is forgotten"
		}
	}
	return result, nil
}

// ForgetNode implements api.Backend.
func (b backend) ForgetNode(ctx context.Context, req api.ForgetRequest) (api.ForgetResult, error) {
	if err := b.restorer.AwaitStored(ctx); err != nil {
		return api.ForgetResult{}, err
	}
	return b.fleet.forget(req)
}

// uncut lets one flow go on.
func (b backend) uncut(ctx context.Context, f ban.Flow) (api.UnbanResult, error) {
	result := api.UnbanResult{Removed: []netip.Prefix{}}
	_, err := b.pipeline.UpdateEngineAndWait(ctx, func(e *engine.Engine, now time.Time) ([]ban.Decision, error) {
		result.Restrictions = e.LiftFlow(now, f)
		return nil, nil
	})
	if err != nil {
		return api.UnbanResult{}, b.kernelError("the kernel has not let it go yet", err)
	}
	if result.RestrictionCount = len(result.Restrictions); result.RestrictionCount == 0 {
		result.Note = "this flow is neither cut nor slow; of the whole address: ringwall unban " +
			f.Source.Addr().String()
	}
	return result, nil
}

// maxUnsaved is how many bans are lifted before the disk has to keep up.
const maxUnsaved = 1 << 15

// Allow implements api.Backend.
func (b backend) Allow(ctx context.Context, req api.AllowRequest) (api.AllowResult, error) {
	prefixes := []netip.Prefix{req.Prefix}
	origin := engine.OriginManual
	result := api.AllowResult{Entry: req.Prefix.String()}
	if req.Host != "" {
		origin, result.Entry = req.Host, req.Host
		var err error
		if prefixes, err = b.resolveHost(ctx, req); err != nil {
			return result, err
		}
		for _, p := range prefixes {
			result.Addresses = append(result.Addresses, p.Addr())
		}
	}
	var by []string
	var until time.Time // the end that counts
	later := false      // than what was asked for
	decisions, err := b.pipeline.UpdateEngineAndWait(ctx, func(
		e *engine.Engine, now time.Time,
	) ([]ban.Decision, error) {
		var out []ban.Decision
		for _, p := range prefixes {
			if req.Remove {
				if !slices.Contains(e.AllowedBy(p), origin) {
					by = append(by, e.AllowedBy(p)...)
					continue
				}
				e.Disallow(p, origin)
				result.Removed = true
				by = append(by, e.AllowedBy(p)...)
				continue
			}
			result.Added = result.Added || !slices.Contains(e.AllowedBy(p), origin)
			if req.Host != "" {
				out = append(out, e.Allow(now, p, origin, "")...)
				continue
			}
			if req.For > 0 {
				until = now.Add(req.For)
			}
			wanted := until
			var ended []ban.Decision
			until, ended = e.AllowUntil(now, p, until, "")
			later = !until.Equal(wanted)
			out = append(out, ended...)
		}
		return out, nil
	})
	if err != nil {
		return result, b.kernelError("the kernel has not taken the allow list yet", err)
	}
	for _, d := range decisions {
		result.Unbanned = append(result.Unbanned, d.Prefix)
	}
	if !until.IsZero() {
		result.Until = &until
	}
	unsaved := b.saveAllow(ctx, req, until)
	if req.Host == "" && (result.Removed || !req.Remove) {
		b.fleet.allow(req.Prefix, until, req.Remove)
	}
	result.Lasting = unsaved == ""
	if req.Host != "" && !req.Remove {
		b.allowSources.addHost(req.Host)
	} else if req.Host != "" && b.allowSources.removeHost(req.Host) {
		result.Removed = true
	}
	switch {
	case req.Remove && !result.Removed && len(by) > 0:
		return result, api.Refused("change policy.allow and: systemctl reload ringwall",
			"%s is allowed by %s, not by hand", result.Entry, by[0])
	case req.Remove && !result.Removed:
		return result, api.NotFound("see: ringwall list allow", "%s is not on the allow list", result.Entry)
	case req.Remove && len(by) > 0:
		result.Note = "it is still allowed by " + by[0]
	case later:
		result.Note = "it was allowed for longer already: that stays; to end it: ringwall allow del " + result.Entry
	case !req.Remove && !result.Added:
		result.Note = "it was allowed already"
	default:
		result.Note = unsaved
	}
	return result, nil
}

// saveAllow stores a change of the allow list, and returns a sentence where it cannot.
func (b backend) saveAllow(ctx context.Context, req api.AllowRequest, until time.Time) string {
	entry := store.Allow{Prefix: req.Prefix, Host: req.Host, Added: b.pipeline.Clock().Now(), By: req.By.String(),
		Until: until}
	change := store.DropAllow(req.Prefix, req.Host)
	if !req.Remove {
		change = store.PutAllow(entry)
	}
	b.allowed.changeEntry(entry, req.Remove)
	b.pipeline.SaveChanges([]store.Change{change})
	return b.awaitDisk(ctx)
}

// resolveHost looks up the addresses of a host name; of one that is to be removed, those that it put on the allow list.
func (b backend) resolveHost(ctx context.Context, req api.AllowRequest) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	if req.Remove {
		b.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) {
			for _, v := range e.Allowed() {
				if v.Origin == req.Host {
					prefixes = append(prefixes, v.Prefix)
				}
			}
		})
		return prefixes, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", req.Host)
	if err != nil {
		return nil, api.Invalid("check the name, or allow the address", "%s has no address: %v", req.Host, err)
	}
	for _, a := range addrs {
		a = a.Unmap()
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return prefixes, nil
}

// sourceOf is the prefix that the engine judges as one.
func (b backend) sourceOf(p netip.Prefix) netip.Prefix {
	if p.Addr().Is6() && p.IsSingleIP() {
		if wide, err := p.Addr().Prefix(b.config.currentConfig().Policy.IPv6Prefix); err == nil {
			return wide
		}
	}
	return p
}

func (b backend) kernelError(what string, err error) error {
	return &api.Error{Message: fmt.Sprintf("%s: %v", what, err), Try: kernelHint(err), Err: err}
}
