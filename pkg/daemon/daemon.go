package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/geo"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/notify"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/store"
	"github.com/ringwall/ringwall/pkg/web"
)

// historySize is how many decisions history holds.
const historySize = 20000

// Options say what to run.
type Options struct {
	// ConfigPath is the file to read, again on SIGHUP. With Config instead, as in the demo and in tests, there is no
	// file and no SIGHUP; an empty control.socket or metrics.listen in it means none.
	ConfigPath string
	Config     *config.Config
	// Socket, if not empty, replaces control.socket.
	Socket string

	Log        *slog.Logger // nil: as the configuration says, to stderr
	NetNS      int          // file descriptor of the namespace whose table is kept; 0 is the process's own
	DryRun     bool         // say what the kernel would be told, and tell it nothing
	Lookup     hosts.Lookup // of the allow list's host names; nil: DNS
	OnDecision func(ban.Decision)
	Ready      func() // called once everything listens
	Version    string
	// MemoryBudget takes the bytes of Go's memory that the daemon works with, at the start and after a reload; may be
	// nil.
	MemoryBudget func(bytes int64)

	patience time.Duration  // of the start for the bans of before; 0: the usual one
	clock    pipeline.Clock // of the engine; the zero one: from now on
}

// Task is a part of the daemon that runs until its context ends.
type Task interface {
	Run(ctx context.Context) error
	String() string
}

// Daemon is Ringwall at work: it makes the parts, gives them to each other, runs them, and ends them in order. What
// happens between an event and a ban is the pipeline's.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	level   *slog.LevelVar // of log, where it is the daemon's own
	started time.Time
	config  *configuration

	// What judges and bans.
	pipeline *pipeline.Pipeline
	fw       firewall.Firewall // the kernel's table; writer alone changes it
	writer   *firewall.Writer
	kernel   *kernelState
	pbxs     []*pbx // in the order of the configuration
	ports    *asteriskPorts
	drops    *othersDrops // nil in a dry run
	sensors  *sensors
	fleet    *fleetNode
	lists    *attackerLists

	// Who must not be banned.
	allowSources *allowSources
	allowed      *allowFile // what persons allowed with a command

	// What is kept and brought back.
	store     *store.Store // nil: nothing is kept
	stateLost string       // why the state file was of no use, if it was not
	listLost  bool         // the state file does not say any more whom commands allowed
	restorer  *pipeline.Restorer
	// foundAny says that the start took allowed prefixes over from the kernel, since the list of them was lost.
	foundAny bool

	// Who is told.
	feed      *api.Feed // history, and those who follow it
	announcer *pipeline.Announcer
	notifier  *notify.Notifier
	crowdSec  crowdSec
	metrics   *metrics.Metrics
	page      atomic.Pointer[web.Page] // nil: there is none
	geoFiles  *geo.Databases

	tableBuilt <-chan struct{} // closed when the table is there, with what was known first
	allBuilt   chan struct{}   // closed when everything desired is in the kernel

	tasks   []Task  // what Run runs and begins again where it fails, but for the pipeline's
	parts   []*part // those of the tasks without which the daemon works
	faults  faults
	closers []func() error // of what New opened, in its order
}

// New reads the configuration and sets everything up that can fail. Only the configuration, the kernel's table and
// another daemon fail it: without the rest attackers are kept out all the same (see part). Nothing runs yet; call Run,
// or Close.
func New(o Options) (_ *Daemon, err error) {
	d := &Daemon{opts: o, started: time.Now(), level: new(slog.LevelVar)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.config, err = loadConfiguration(o); err != nil {
		return nil, err
	}
	cfg := d.config.currentConfig()
	d.log = o.Log
	if d.log == nil {
		d.log = newLogger(cfg.Log, os.Stderr, d.level)
	}
	d.faults.log = d.log
	for _, w := range d.config.warnings {
		d.log.Warn("configuration", "warning", w.String())
	}
	d.feed = api.NewFeed(historySize)
	d.announcer = pipeline.NewAnnouncer(d.log, d.notifyOf)
	d.metrics = metrics.New(o.Version, d)
	if err := d.config.err; err != nil {
		d.metrics.SetReloaded(false)
		d.log.Error("the configuration is not in force as it is; attackers are kept out with "+d.config.inForce, "file",
			d.config.path, "err", err)
	}
	d.ports = newPorts(cfg, o.NetNS, d.log)
	d.fleet = &fleetNode{daemon: d}
	judge := engine.New(cfg.Policy)
	if !o.DryRun {
		judge.WatchLeaks()
	}
	d.pipeline = pipeline.New(pipeline.Config{
		Clock: cmp.Or(o.clock, pipeline.NewClock(d.started)), Engine: judge, Metrics: d.metrics, History: d.feed,
		Announcer: d.announcer,
		Tell:      d.fleet.tell,
		Log:       d.log, Meter: d.needsTrust(cfg), Decided: d.ports.eventDecided,
	})
	d.allowed = newAllowFile(cfg.State.Path, d.log)
	d.allowSources = d.newAllowSources(cfg)
	if err := d.openKernel(cfg); err != nil {
		return nil, err
	}
	// Before the first event: this machine or its gateway is never banned, not even for a moment.
	if err := d.allowSources.watcher.ReportOnce(); err != nil {
		return nil, err
	}
	if d.opts.ConfigPath != "" { // of the demo and of tests nobody is in danger
		l := &remoteLoginAllower{Daemon: d, folder: loginFolder, interval: loginsInterval}
		l.updateAllowed()
		d.tasks = append(d.tasks, l)
	}
	d.ports.setKernelPorts = d.closePorts
	d.tasks = append(d.tasks, d.ports)
	if d.drops = newOthersDrops(d); d.drops != nil {
		d.tasks = append(d.tasks, d.drops)
	}
	// From here on nothing keeps the daemon from its work, but an Asterisk that cannot be one.
	d.openGeo(cfg)
	d.openNotify()
	d.openSensors()
	d.addPart("fleet", "mend what it says, then: systemctl reload ringwall", d.fleet.open)
	d.openLists(cfg)
	d.crowdSec.daemon = d
	d.addPart("crowdsec", "mend the file that it names, then: systemctl reload ringwall", d.crowdSec.open)
	for _, a := range cfg.Asterisk {
		p, err := d.newPBX(a)
		if err != nil {
			return nil, err
		}
		d.pbxs = append(d.pbxs, p)
	}
	if err := d.openListeners(cfg); err != nil {
		return nil, err
	}
	d.tasks = append(d.tasks, newBlindness(d), review{d})
	d.setMemoryBudget()
	return d, nil
}

// setMemoryBudget tells of the bytes of Go's memory within which everything fits that the configuration allows:
// sources at their bound, a full queue for each Asterisk, and a collector that works harder near it instead of
// doubling the heap.
func (d *Daemon) setMemoryBudget() {
	if d.opts.MemoryBudget == nil {
		return
	}
	cfg := d.config.currentConfig()
	const base, source, queue, listed = 20 << 20, 250, 64 << 20, 120
	entries := 0
	for _, l := range cfg.Lists {
		entries += l.MaxEntries
	}
	d.opts.MemoryBudget(base + int64(entries)*listed + int64(cfg.Policy.MaxSources)*source +
		int64(max(1, len(cfg.Asterisk)))*queue)
}

// Close gives back what New took, of a daemon that was not run.
func (d *Daemon) Close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// Run runs everything until ctx ends, and returns nil then. The kernel's table stays.
func (d *Daemon) Run(ctx context.Context) error {
	// What the others still decide at the end reaches the kernel and the log, so these end last, in this order.
	lastCtx, stopLast := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLast()
	var lastTasks sync.WaitGroup
	written := make(chan struct{})
	lastTasks.Go(func() { d.runAnnouncer(contextUntil(lastCtx, written)) })
	lastTasks.Go(func() {
		defer close(written)
		_ = d.writer.Run(lastCtx)
	})
	if d.store != nil {
		lastTasks.Go(func() {
			if err := d.store.Run(contextUntil(lastCtx, written)); err != nil {
				d.log.Error("not everything could be saved", "err", err)
			}
		})
	}

	group, ctx := errgroup.WithContext(ctx)
	for _, t := range d.tasks {
		group.Go(func() error { return d.keepRunning(ctx, t) })
	}
	group.Go(func() error { return d.runTask(ctx, d.restorer) })
	for _, p := range d.pbxs {
		group.Go(func() error { return d.runTask(ctx, p) })
	}
	group.Go(func() error { return d.tickLoop(ctx) })
	if d.opts.ConfigPath != "" {
		group.Go(func() error { return d.reloadOnSIGHUP(ctx) })
	}
	group.Go(func() error {
		for _, step := range []<-chan struct{}{d.tableBuilt, d.restorer.StoredInKernel()} {
			select {
			case <-ctx.Done():
				return nil
			case <-step:
			}
		}
		close(d.allBuilt)
		return nil
	})
	group.Go(func() error { // ready is who keeps attackers out: after a reboot, with every ban in the kernel again
		select {
		case <-ctx.Done():
		case <-d.allBuilt:
			if d.opts.Ready != nil {
				d.opts.Ready()
			}
			d.notifyReady()
			d.keepConfiguration() // it has done its work
			debug.FreeOSMemory()  // reading a hundred thousand bans leaves a heap of several times what stays in use
		}
		return nil
	})
	err := group.Wait()
	d.notifyStopping()
	d.pipeline.SaveTrusts()
	d.allowSources.keptAddresses.writeAddresses(d.allowSources.resolver.States(), true)
	stopLast()
	lastTasks.Wait()
	return errors.Join(err, d.Close())
}

// contextUntil ends when ctx has ended and then done is closed.
func contextUntil(ctx context.Context, done <-chan struct{}) context.Context {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		<-done
		cancel()
	})
	return late
}

func (d *Daemon) runTask(ctx context.Context, t Task) error {
	if err := t.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

// keepRunning runs a task that the daemon can do without until ctx ends: one that fails is begun again.
func (d *Daemon) keepRunning(ctx context.Context, t Task) error {
	for wait := partRetry; ; wait = min(2*wait, partRetryMax) {
		err := t.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		d.faults.setFault(t.String(), "journalctl -u ringwall", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// reloadOnSIGHUP reads the configuration again on SIGHUP.
func (d *Daemon) reloadOnSIGHUP(ctx context.Context) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c:
			d.Reload(ctx)
		}
	}
}
