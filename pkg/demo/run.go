package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
)

// How long the demonstration goes on.
const (
	DefaultFor = 30 * time.Second
	MinFor     = 3 * time.Second
)

// Options say how to show it.
type Options struct {
	For      time.Duration // of the attack, at least [MinFor]; 0 is [DefaultFor]
	JSON     bool          // decisions and a summary, an object a line
	Out, Err io.Writer     // nil: nowhere
	Terminal bool          // Out is one: draw a table and draw it again
	Width    int           // columns of the terminal; 0 is 80
	Version  string        // of Ringwall
}

// patience bounds every wait for something that takes milliseconds on an idle machine.
const patience = 30 * time.Second

// Run runs the demonstration. The error is nil only if what Out claims did happen: each attacker is banned in the
// kernel and none of its packets arrived after that, and each customer was answered to the end. Where the kernel lets
// this process make no namespaces, not even as a user of its own, it says so and claims only what Ringwall decided.
//
// The end of ctx ends it early; the error wraps ctx's then. Nothing stays behind: the namespaces have no names and end
// with Run.
//
// In a user namespace, Run is called a second time, by a child process with the same command line.
func Run(ctx context.Context, o Options) error {
	if o.For == 0 {
		o.For = DefaultFor
	}
	if o.For < MinFor {
		return fmt.Errorf("demo: %v is too short to show anything: %v or more", o.For, MinFor)
	}
	if o.Width <= 0 {
		o.Width = 80
	}
	for _, w := range []*io.Writer{&o.Out, &o.Err} {
		if *w == nil {
			*w = io.Discard
		}
	}
	if os.Getenv(childVariable) != "" {
		return runAsChild(ctx, o)
	}
	err := runInEnvironment(ctx, o, environment{})
	var unfit *noKernelError
	if !errors.As(err, &unfit) {
		return err
	}
	err = runChild(ctx, o)
	var child *noKernelError
	if !errors.As(err, &child) {
		return err
	}
	return runInEnvironment(ctx, o, environment{dryRun: true,
		dryRunReason: fmt.Sprintf("%v; in a user namespace: %v", unfit, child)})
}

// environment is what this system lets the demonstration have: namespaces of its own, as root or in a user namespace,
// or nothing.
type environment struct {
	userNS       bool
	dryRun       bool   // nothing is banned in a kernel, packets travel over loopback
	dryRunReason string // why it is a dry run
}

// noKernelError means that this process cannot ban in the kernel.
type noKernelError struct{ err error }

func (e *noKernelError) Error() string { return strings.TrimPrefix(hint.Line(e.err), "demo: ") }
func (e *noKernelError) Unwrap() error { return e.err }

// earlyError means that ctx ended first.
type earlyError struct{ err, cause error }

func endedEarly(ctx context.Context) error { return &earlyError{ctx.Err(), context.Cause(ctx)} }

func (e *earlyError) Error() string {
	return fmt.Sprintf("demo: ended before everything was shown: %v", e.cause)
}
func (e *earlyError) Unwrap() []error { return []error{e.err, e.cause} }

// demonstration is one run of it, in one environment.
type demonstration struct {
	options      Options
	environment  environment
	participants []participant
	network      *testNetwork
	tally        *tally
	pbx          *pbx
	ami          net.Listener // for the daemon, on the loopback interface of the process
	cfg          *config.Config
	daemon       *daemon.Daemon
	log          *lastLines
	phones       []*phone

	patience time.Duration // for what should have happened when the time is over
}

// runInEnvironment runs the demonstration in an environment, with Ringwall's defaults.
func runInEnvironment(ctx context.Context, o Options, p environment) error {
	cfg := offlineDefaults()
	return (&demonstration{options: o, environment: p, participants: allParticipants(), cfg: &cfg, patience: patience,
		log: &lastLines{max: 12}}).runThrough(ctx)
}

func (d *demonstration) runThrough(ctx context.Context) error {
	defer d.tearDown()
	if err := d.setUp(ctx); err != nil {
		return err
	}
	reports := newReporter(d.options, d.environment)
	reports.start(d.tally.takeSnapshot(time.Now()))

	services, stop := context.WithCancel(ctx)
	defer stop()
	group, services := errgroup.WithContext(services)
	group.Go(func() error { return d.pbx.serve(services, d.ami) })
	group.Go(func() error { return d.daemon.Run(services) })
	reportCtx, stopReporting := context.WithCancel(context.WithoutCancel(ctx))
	var reporting sync.WaitGroup
	reporting.Go(func() { d.reportProgress(reportCtx, reports) })

	err := d.runAttack(services)
	var failures []string
	if err == nil {
		failures, err = d.findFailures()
	}
	stop()
	if broken := group.Wait(); broken != nil && ctx.Err() == nil {
		err = broken // the cause of whatever else failed
	}
	stopReporting()
	reporting.Wait()
	switch {
	case ctx.Err() != nil:
		err = endedEarly(ctx)
	case err == nil && len(failures) > 0:
		err = fmt.Errorf("demo: not everything happened that should have: %s", strings.Join(failures, "; "))
	}
	if stopReporting := reports.finish(d.tally.takeSnapshot(time.Now()), failures, err); stopReporting != nil {
		err = errors.Join(err, fmt.Errorf("demo: write: %w", stopReporting))
	}
	if err != nil && ctx.Err() == nil {
		d.log.writeTo(d.options.Err)
	}
	return err
}

// setUp makes the network, the PBX and the daemon. The error is a [noKernelError] where another environment could do.
func (d *demonstration) setUp(ctx context.Context) (err error) {
	if d.environment.dryRun {
		d.network, err = newLoopbackNetwork(ctx, sourcesOf(d.participants))
	} else {
		d.network, err = newKernelNetwork(ctx, sourcesOf(d.participants))
		if err == nil && !d.network.ipv6 {
			d.participants = withoutIPv6(d.participants)
		}
		if err != nil && isDenied(err) {
			return &noKernelError{err}
		}
	}
	if err != nil {
		return err
	}
	d.tally = newTally(time.Now(), d.environment.dryRun, d.participants)
	secret := rand.Text()
	d.pbx = newPBX(d.network, secret, pbxPasswords(), d.tally.countArrived)
	var lc net.ListenConfig
	if d.ami, err = lc.Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("demo: a port for the built-in AMI server: %w", err)
	}
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "demo", d.ami.Addr().String(), managerUser, config.NewSecret(secret)
	a.Learn = config.LearnOff // this PBX has nothing to tell
	d.cfg.Asterisk = []config.Asterisk{a}
	d.daemon, err = daemon.New(daemon.Options{
		Config: d.cfg, NetNS: d.network.netNS(), DryRun: d.environment.dryRun, OnDecision: d.tally.recordDecision,
		Version: d.options.Version,
		Log:     slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if errors.Is(err, firewall.ErrPermission) || errors.Is(err, firewall.ErrUnsupported) {
		return &noKernelError{err}
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// offlineDefaults is Ringwall's configuration as it comes, without what would reach outside of the demonstration.
func offlineDefaults() config.Config {
	cfg := config.Default()
	cfg.Metrics.Listen, cfg.Control.Socket, cfg.State.Path = "", "", ""
	return cfg
}

func (d *demonstration) tearDown() {
	for _, p := range d.phones {
		_ = p.conn.Close()
	}
	if d.ami != nil {
		_ = d.ami.Close()
	}
	if d.network != nil {
		d.network.close()
	}
}

// runAttack lets customers log in first. Then everybody sends, until the time is over.
func (d *demonstration) runAttack(ctx context.Context) error {
	if err := d.registerCustomers(ctx); err != nil {
		return err
	}
	attackCtx, stopAttack := context.WithCancel(ctx)
	defer stopAttack()
	group, attackCtx := errgroup.WithContext(attackCtx)
	for _, p := range d.phones {
		group.Go(func() error { return p.keepRegistering(attackCtx) })
	}
	entersAfter := min(time.Second, d.options.For/6)
	for _, r := range d.tally.rows {
		if r.role == customer {
			continue
		}
		at := entersAfter
		entersAfter += min(2*time.Second, d.options.For/10)
		group.Go(func() error {
			if !sleepFor(attackCtx, at) {
				return nil
			}
			return runAttacker(attackCtx, d.network, d.tally, r)
		})
	}
	// On a slow machine it takes longer.
	if sleepFor(attackCtx, d.options.For) {
		for end := time.Now().Add(d.patience); !d.allStopped() && time.Now().Before(end) &&
			sleepFor(attackCtx, 50*time.Millisecond); {
		}
	}
	stopAttack()
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.checkCustomersServed(ctx)
}

// registerCustomers lets each phone register once, and waits until that has earned trust. Phones with an old password
// come before others of the same table row or of later ones, so Ringwall has heard of them by then.
func (d *demonstration) registerCustomers(ctx context.Context) error {
	waitCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.pbx.manager.WaitSubscribers(waitCtx, 1); err != nil {
		return fmt.Errorf("demo: Ringwall did not log in to the built-in AMI server within %v: %w", patience, err)
	}
	for _, r := range d.tally.rows {
		for _, l := range r.phones {
			p, err := newPhone(d.network, d.tally, r, r.sources[0], l)
			if err != nil {
				return err
			}
			d.phones = append(d.phones, p)
			if err := p.register(ctx); err != nil {
				return fmt.Errorf("demo: before the attack: %w", err)
			}
		}
	}
	trusted := func() bool {
		return !slices.ContainsFunc(d.tally.rows, func(r *participantRow) bool { return r.earnsTrust() && !r.trusted })
	}
	if !d.tally.waitUntil(waitCtx.Done(), trusted) {
		return fmt.Errorf("demo: customers logged in with their passwords, but Ringwall did not trust them within %v",
			patience)
	}
	return nil
}

// allStopped says whether every attacker was stopped long enough for people to believe it.
func (d *demonstration) allStopped() bool {
	for _, r := range d.tally.takeSnapshot(time.Now()).rows {
		switch {
		case r.role == attacker && (r.ban == nil || !d.environment.dryRun && r.stopped() < 3):
			return false
		case r.role == forger && !r.tamperingReported:
			return false
		}
	}
	return true
}

// checkCustomersServed asks, after the attack, whether customers are still answered.
func (d *demonstration) checkCustomersServed(ctx context.Context) error {
	waitCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, r := range d.tally.rows {
		answered := len(r.phones) > 0
		for _, p := range d.phones {
			if p.row != r {
				continue
			}
			if err := p.register(waitCtx); err != nil {
				answered = false
			}
		}
		d.tally.updateRow(func() { r.answered = answered })
	}
	// Decisions about these last packets, and packets of attackers that are still on their way.
	sleepFor(ctx, 100*time.Millisecond)
	return ctx.Err()
}

// reportProgress reports what happens until ctx ends.
func (d *demonstration) reportProgress(ctx context.Context, reports reporter) {
	for more := true; more; {
		more = sleepFor(ctx, 100*time.Millisecond)
		reports.progress(d.tally.takeSnapshot(time.Now()), d.tally.newDecisions())
	}
}
