package daemon

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// How long a part that does not work is left alone before it is tried again: at first, and at most.
const (
	partRetry    = time.Second
	partRetryMax = 30 * time.Second
)

// part is something without which attackers are kept out all the same: the metrics, the control socket, the targets of
// notify. Where it does not work the daemon starts and goes on without it, says so, and tries again.
type part struct {
	name   string // the key of the configuration that people would change
	try    string // what would mend it
	open   func() (opened, error)
	faults *faults

	mu     sync.Mutex
	isOpen bool
	opened opened
	reopen chan struct{} // it is to be opened anew, or tried at once
}

// opened is a part that works: what has to run for it, and what gives back what open took. Either may be missing.
type opened struct {
	tasks []Task
	close func() error
}

// addPart tries a part for the first time, and has it run, and tried again, with the daemon.
func (d *Daemon) addPart(name, try string, open func() (opened, error)) {
	p := &part{name: name, try: try, open: open, faults: &d.faults, reopen: make(chan struct{}, 1)}
	d.closers = append(d.closers, p.closePart)
	d.tasks = append(d.tasks, p)
	d.parts = append(d.parts, p)
	p.ensureOpen()
}

// reopenParts has the parts taken from a new configuration where it changes them, and tries at once what does not work.
func (d *Daemon) reopenParts(old, new *config.Config) {
	for _, p := range d.parts {
		switch {
		case p.name == "notify":
			_ = p.closePart()
			if !p.ensureOpen() {
				p.openAnew()
			}
		case p.name == "metrics.listen" && old.Metrics != new.Metrics,
			p.name == "sensors.tap" &&
				(old.Sensors.Tap != new.Sensors.Tap || old.Sensors.TapGroup != new.Sensors.TapGroup),
			p.name == "sensors.hep" && old.Sensors.HEP != new.Sensors.HEP,
			p.name == "fleet" && !reflect.DeepEqual(old.Fleet, new.Fleet),
			p.name == "export" && old.Export != new.Export,
			p.name == "crowdsec" && old.CrowdSec != new.CrowdSec,
			p.name == "policy.signatures": // its files may have changed
			p.openAnew()
		default:
			p.retryNow()
		}
	}
}

// String names the task.
func (p *part) String() string { return p.name }

// ensureOpen opens the part, unless it is, and reports whether it is.
func (p *part) ensureOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isOpen {
		var err error
		p.opened, err = p.open()
		p.isOpen = err == nil
		p.faults.setFault(p.name, p.try, err)
	}
	return p.isOpen
}

// closePart gives back what the part took.
func (p *part) closePart() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isOpen && p.opened.close != nil {
		err = p.opened.close()
	}
	p.isOpen, p.opened = false, opened{}
	return err
}

// openAnew has Run open the part anew, or tries at once one that does not work.
func (p *part) openAnew() {
	mailbox.Signal(p.reopen)
}

// retryNow tries at once whatever does not work.
func (p *part) retryNow() {
	p.mu.Lock()
	up := p.isOpen
	p.mu.Unlock()
	if !up {
		p.openAnew()
	}
}

// Run has the part work until ctx ends.
func (p *part) Run(ctx context.Context) error {
	for wait := partRetry; ; wait = min(2*wait, partRetryMax) {
		if p.ensureOpen() {
			wait = partRetry
			anew, err := p.runOpened(ctx)
			if ctx.Err() != nil {
				return nil
			}
			_ = p.closePart()
			if anew {
				continue
			}
			if err != nil {
				p.faults.setFault(p.name, p.try, err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.reopen:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// runOpened runs what has to run until ctx ends, a task fails, or the part is to be opened anew, even where that was
// asked before it ran.
func (p *part) runOpened(ctx context.Context) (anew bool, err error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, each := errgroup.WithContext(running)
	p.mu.Lock()
	tasks := p.opened.tasks
	p.mu.Unlock()
	for _, t := range tasks {
		group.Go(func() error { return t.Run(each) })
	}
	group.Go(func() error { // a part without tasks works until then, too
		select {
		case <-p.reopen:
			anew = true
			stop()
		case <-each.Done():
		}
		return nil
	})
	if err = group.Wait(); anew {
		err = nil
	}
	return anew, err
}

// startAfterTask is a task that begins when something else is done.
type startAfterTask struct {
	Task
	after <-chan struct{}
}

// Run implements Task.
func (s startAfterTask) Run(ctx context.Context) error {
	select {
	case <-s.after:
	case <-ctx.Done(): // it cleans up all the same
	}
	return s.Task.Run(ctx)
}

// faults are the parts that do not work at present, and why.
type faults struct {
	mu      sync.Mutex
	log     *slog.Logger
	failing map[string]api.Warning
}

// setFault remembers why a part does not work, or with nil that it does. The log hears of each change once, however
// often a part is tried.
func (f *faults) setFault(name, try string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	have, failing := f.failing[name]
	if err == nil {
		if failing {
			delete(f.failing, name)
			f.log.Info("works again", "part", name)
		}
		return
	}
	w := api.Warning{Text: name + " does not work: " + err.Error() +
		"; attackers are kept out without it, and it is tried again", Try: try}
	if w == have {
		return
	}
	if f.failing == nil {
		f.failing = make(map[string]api.Warning)
	}
	f.failing[name] = w
	f.log.Error("a part does not work; attackers are kept out without it, and it is tried again", "part", name, "err",
		err,
		"try", try)
}

// hasFault says whether a part does not work.
func (f *faults) hasFault(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failing := f.failing[name]
	return failing
}

// faultText says why a part does not work; empty where it does.
func (f *faults) faultText(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing[name].Text
}

// faultWarnings are the faults in status.
func (f *faults) faultWarnings() (out []api.Warning) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range sortedKeys(f.failing) {
		out = append(out, f.failing[name])
	}
	return out
}

// faultNames lists the parts that do not work in one line.
func (f *faults) faultNames() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(f.failing)), ", ")
}
