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
	err := runIn(ctx, o, environment{})
	var unfit *noKernelError
	if !errors.As(err, &unfit) {
		return err
	}
	err = runChild(ctx, o)
	var child *noKernelError
	if !errors.As(err, &child) {
		return err
	}
	return runIn(ctx, o, environment{dry: true, why: fmt.Sprintf("%v; in a user namespace: %v", unfit, child)})
}

// environment is what this system lets the demonstration have: namespaces of its own, as root or in a user namespace,
// or nothing.
type environment struct {
	userNS bool
	dry    bool   // nothing is banned in a kernel, packets travel over loopback
	why    string // it is dry
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
	o            Options
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

// runIn runs the demonstration in an environment, with Ringwall's defaults.
func runIn(ctx context.Context, o Options, p environment) error {
	cfg := offlineDefaults()
	return (&demonstration{o: o, environment: p, participants: allParticipants(), cfg: &cfg, patience: patience,
		log: &lastLines{max: 12}}).run(ctx)
}

func (s *demonstration) run(ctx context.Context) error {
	defer s.close()
	if err := s.build(ctx); err != nil {
		return err
	}
	story := newReporter(s.o, s.environment)
	story.start(s.tally.snapshot(time.Now()))

	services, stop := context.WithCancel(ctx)
	defer stop()
	group, services := errgroup.WithContext(services)
	group.Go(func() error { return s.pbx.serve(services, s.ami) })
	group.Go(func() error { return s.daemon.Run(services) })
	telling, told := context.WithCancel(context.WithoutCancel(ctx))
	var teller sync.WaitGroup
	teller.Go(func() { s.reportProgress(telling, story) })

	err := s.runAttack(services)
	var failures []string
	if err == nil {
		failures, err = s.verify()
	}
	stop()
	if broken := group.Wait(); broken != nil && ctx.Err() == nil {
		err = broken // the cause of whatever else failed
	}
	told()
	teller.Wait()
	switch {
	case ctx.Err() != nil:
		err = endedEarly(ctx)
	case err == nil && len(failures) > 0:
		err = fmt.Errorf("demo: not everything happened that should have: %s", strings.Join(failures, "; "))
	}
	if told := story.finish(s.tally.snapshot(time.Now()), failures, err); told != nil {
		err = errors.Join(err, fmt.Errorf("demo: write: %w", told))
	}
	if err != nil && ctx.Err() == nil {
		s.log.writeTo(s.o.Err)
	}
	return err
}

// build makes the network, the PBX and the daemon. The error is a [noKernelError] where another environment could do.
func (s *demonstration) build(ctx context.Context) (err error) {
	if s.environment.dry {
		s.network, err = newLoopbackNetwork(ctx, sourcesOf(s.participants))
	} else {
		s.network, err = newKernelNetwork(ctx, sourcesOf(s.participants))
		if err == nil && !s.network.ipv6 {
			s.participants = withoutIPv6(s.participants)
		}
		if err != nil && isDenied(err) {
			return &noKernelError{err}
		}
	}
	if err != nil {
		return err
	}
	s.tally = newTally(time.Now(), s.environment.dry, s.participants)
	secret := rand.Text()
	s.pbx = newPBX(s.network, secret, passwords(), s.tally.countArrived)
	var lc net.ListenConfig
	if s.ami, err = lc.Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("demo: a port for the built-in AMI server: %w", err)
	}
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "demo", s.ami.Addr().String(), managerUser, config.NewSecret(secret)
	a.Learn = config.LearnOff // this PBX has nothing to tell
	s.cfg.Asterisk = []config.Asterisk{a}
	s.daemon, err = daemon.New(daemon.Options{
		Config: s.cfg, NetNS: s.network.netNS(), DryRun: s.environment.dry, OnDecision: s.tally.recordDecision,
		Version: s.o.Version,
		Log:     slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
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

func (s *demonstration) close() {
	for _, p := range s.phones {
		_ = p.conn.Close()
	}
	if s.ami != nil {
		_ = s.ami.Close()
	}
	if s.network != nil {
		s.network.close()
	}
}

// runAttack lets customers log in first. Then everybody sends, until the time is over.
func (s *demonstration) runAttack(ctx context.Context) error {
	if err := s.registerCustomers(ctx); err != nil {
		return err
	}
	acting, cut := context.WithCancel(ctx)
	defer cut()
	group, acting := errgroup.WithContext(acting)
	for _, p := range s.phones {
		group.Go(func() error { return p.keepRegistering(acting) })
	}
	entrance := min(time.Second, s.o.For/6)
	for _, r := range s.tally.rows {
		if r.role == customer {
			continue
		}
		at := entrance
		entrance += min(2*time.Second, s.o.For/10)
		group.Go(func() error {
			if !sleep(acting, at) {
				return nil
			}
			return runAttacker(acting, s.network, s.tally, r)
		})
	}
	// On a slow machine it takes longer.
	if sleep(acting, s.o.For) {
		for end := time.Now().Add(s.patience); !s.allStopped() && time.Now().Before(end) &&
			sleep(acting, 50*time.Millisecond); {
		}
	}
	cut()
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.checkCustomersServed(ctx)
}

// registerCustomers lets each phone register once, and waits until that has earned trust. Phones with an old password
// come before others of the same table row or of later ones, so Ringwall has heard of them by then.
func (s *demonstration) registerCustomers(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.pbx.manager.WaitSubscribers(soon, 1); err != nil {
		return fmt.Errorf("demo: Ringwall did not log in to the built-in AMI server within %v: %w", patience, err)
	}
	for _, r := range s.tally.rows {
		for _, l := range r.phones {
			p, err := newPhone(s.network, s.tally, r, r.sources[0], l)
			if err != nil {
				return err
			}
			s.phones = append(s.phones, p)
			if _, err := p.register(ctx); err != nil {
				return fmt.Errorf("demo: before the attack: %w", err)
			}
		}
	}
	trusted := func() bool {
		return !slices.ContainsFunc(s.tally.rows, func(r *row) bool { return r.earnsTrust() && !r.trusted })
	}
	if !s.tally.waitUntil(soon.Done(), trusted) {
		return fmt.Errorf("demo: customers logged in with their passwords, but Ringwall did not trust them within %v",
			patience)
	}
	return nil
}

// allStopped says whether every attacker was stopped long enough for people to believe it.
func (s *demonstration) allStopped() bool {
	for _, r := range s.tally.snapshot(time.Now()).rows {
		switch {
		case r.role == attacker && (r.ban == nil || !s.environment.dry && r.stopped() < 3):
			return false
		case r.role == forger && !r.reported:
			return false
		}
	}
	return true
}

// checkCustomersServed asks, after the attack, whether customers are still answered.
func (s *demonstration) checkCustomersServed(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, r := range s.tally.rows {
		answered := len(r.phones) > 0
		for _, p := range s.phones {
			if p.row != r {
				continue
			}
			if _, err := p.register(soon); err != nil {
				answered = false
			}
		}
		s.tally.update(func() { r.answered = answered })
	}
	// Decisions about these last packets, and packets of attackers that are still on their way.
	sleep(ctx, 100*time.Millisecond)
	return ctx.Err()
}

// reportProgress reports what happens until ctx ends.
func (s *demonstration) reportProgress(ctx context.Context, story reporter) {
	for more := true; more; {
		more = sleep(ctx, 100*time.Millisecond)
		story.progress(s.tally.snapshot(time.Now()), s.tally.newDecisions())
	}
}
