package daemon

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/crowdsec"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/store"
)

// originCrowdSec is by what a prefix is allowed that is on an allow list of CrowdSec's.
const originCrowdSec = "crowdsec"

// crowdSec is the LAPI that is told of our bans, if there is one.
type crowdSec struct {
	daemon *Daemon

	mu       sync.Mutex
	reporter *crowdsec.Reporter // nil: there is none

	recall   sync.Once
	allowing sync.Mutex
	allowed  map[netip.Prefix]string // by its allow lists, and by which
}

const crowdSecHeading = "Whom CrowdSec's allow lists name, as they were read last, and which list it is.\n" +
	"Ringwall uses it after a start, until the LAPI answers. It may be removed."

// keptFile keeps over a restart whom the allow lists name: a LAPI that is away then must lock out nobody.
func (c *crowdSec) keptFile() string {
	return besideState(c.daemon.config.currentConfig().State.Path, "crowdsec-allowed")
}

// recallAllowed has those allowed whom the allow lists named before the start, during the start.
func (c *crowdSec) recallAllowed() {
	file := c.keptFile()
	if file == "" {
		return
	}
	lines, _, err := store.ReadLines(file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.daemon.log.Warn("whom CrowdSec's allow lists named before is not known", "err", err)
		}
		return
	}
	c.allowing.Lock()
	defer c.allowing.Unlock()
	c.allowed = make(map[netip.Prefix]string, len(lines))
	for _, l := range lines {
		text, name, _ := strings.Cut(l, " ")
		p, err := netip.ParsePrefix(text)
		if name, quoted := strconv.Unquote(name); err == nil && quoted == nil {
			c.allowed[p.Masked()] = name
		}
	}
	c.daemon.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for p, name := range c.allowed {
			e.Allow(now, p, originCrowdSec, "on the allow list "+name)
		}
	})
}

// keepAllowed writes down whom the allow lists name. allowing is held.
func (c *crowdSec) keepAllowed() {
	file := c.keptFile()
	if file == "" {
		return
	}
	lines := make([]string, 0, len(c.allowed))
	for p, name := range c.allowed {
		lines = append(lines, p.String()+" "+strconv.QuoteToASCII(name))
	}
	slices.Sort(lines)
	if err := store.WriteLines(file, crowdSecHeading, lines); err != nil {
		c.daemon.log.Warn("whom CrowdSec's allow lists name is not saved", "err", err)
	}
}

// open begins to tell the LAPI of the configuration.
func (c *crowdSec) open() (opened, error) {
	cfg := c.daemon.config.currentConfig().CrowdSec
	if cfg.CredentialsFile == "" {
		c.allow(nil)
		return opened{}, nil
	}
	c.recall.Do(c.recallAllowed)
	if cfg.Password.IsZero() {
		return opened{}, errors.New("the password cannot be read from " + cfg.CredentialsFile)
	}
	o := crowdsec.Options{
		Account: crowdsec.Account{URL: cfg.URL, Login: cfg.Login, Password: cfg.Password.Reveal()},
		Bans:    func(ctx context.Context) ([]crowdsec.Ban, error) { return c.bans(ctx, cfg.ProvenOnly) },
		Allow:   c.allow,
		Log:     c.daemon.log,
		Fault: func(err error) {
			c.daemon.faults.setFault("crowdsec", try(err), err)
		},
	}
	if cfg.CAFile != "" {
		roots, err := config.CertPool(cfg.CAFile)
		if err != nil {
			return opened{}, err
		}
		o.Roots = roots
	}
	r, err := crowdsec.NewReporter(o)
	if err != nil {
		return opened{}, err
	}
	c.mu.Lock()
	c.reporter = r
	c.mu.Unlock()
	return opened{
		tasks: []Task{startAfterTask{r, c.daemon.allBuilt}}, // else what is not back yet would be taken back there
		close: func() error {
			c.mu.Lock()
			c.reporter = nil
			c.mu.Unlock()
			return nil
		},
	}, nil
}

func try(err error) string {
	if h := hint.Of(err); h != "" {
		return h
	}
	return "look at the LAPI: cscli lapi status, on its machine"
}

// bans are those that the LAPI is to have. Of one that another node made, that node tells.
func (c *crowdSec) bans(ctx context.Context, provenOnly bool) (bans []crowdsec.Ban, err error) {
	err = backend{c.daemon}.Bans(ctx, api.BanFilter{}, func(some []ban.Ban) error {
		for i := range some {
			if b := &some[i]; b.Origin == "" && isExported(b, provenOnly) {
				bans = append(bans, crowdsec.Ban{Prefix: b.Prefix, Reason: string(b.Reason), Since: b.Since,
					Until: b.Until, Attempts: b.Attempts})
			}
		}
		return nil
	})
	return bans, err
}

// allow honours what the LAPI's allow lists hold now, and no more what they held.
func (c *crowdSec) allow(list []crowdsec.Allowed) {
	c.allowing.Lock()
	defer c.allowing.Unlock()
	before := c.allowed
	if len(before)+len(list) == 0 {
		return
	}
	c.allowed = make(map[netip.Prefix]string, len(list))
	for _, a := range list {
		c.allowed[a.Prefix] = a.List
	}
	if maps.Equal(before, c.allowed) {
		return
	}
	c.keepAllowed()
	c.daemon.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
		for p := range before {
			if _, ok := c.allowed[p]; !ok {
				e.Disallow(p, originCrowdSec)
			}
		}
		for p, name := range c.allowed {
			if old, ok := before[p]; !ok || old != name {
				out = append(out, e.Allow(now, p, originCrowdSec, "on the allow list "+name)...)
			}
		}
		return out
	})
}

// noteDecision has the LAPI told soon.
func (c *crowdSec) noteDecision(decision ban.Decision) {
	switch decision.Action {
	case ban.ActionBan, ban.ActionExtend, ban.ActionUnban:
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reporter != nil {
		c.reporter.Changed()
	}
}

// status is how the LAPI is, nil where there is none.
func (c *crowdSec) status() *crowdsec.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reporter == nil {
		return nil
	}
	s := c.reporter.Status()
	return &s
}

// present is the same for a scrape.
func (c *crowdSec) present() *metrics.CrowdSecPresent {
	s := c.status()
	if s == nil {
		return nil
	}
	return &metrics.CrowdSecPresent{Up: s.Up, Told: s.Told, Waiting: s.Waiting, LeftOut: s.LeftOut,
		OnAllowList: s.OnAllowList, Alerts: s.Sent, Failures: s.Failures}
}
