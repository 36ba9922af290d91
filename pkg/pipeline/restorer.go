package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

const (
	// startPatience is how long the start waits for the bans of before. With more of them than that, they come back
	// while events are judged already: an attacker who comes first of all does not get in meanwhile.
	startPatience = 300 * time.Millisecond

	restoreAhead = 64 // pieces that may wait for the kernel
	maxRounds    = 2  // through the kernel's list, where it was changed meanwhile
	maxPause     = 100 * time.Millisecond
)

// Restorer brings the bans of before back: those that are stored, and then those that only the kernel knows. Bans that
// should not be there it takes out of the kernel.
type Restorer struct {
	pipeline *Pipeline
	fw       firewall.Firewall
	patience time.Duration

	storedKnown    chan struct{} // closed when all stored bans are known
	storedInKernel chan struct{} // closed when they are in the kernel, too
	done           chan struct{} // closed when the kernel's list has been read, too
	err            error         // once done
	cancel         context.CancelFunc

	adopted int // bans that only the kernel knew; once done, and of the goroutine before

	// Of the goroutine:
	commits     chan error
	uncommitted int                // pieces that wait for the kernel
	found       []firewall.Element // while the start waits: what the kernel holds
	firstAsked  time.Time          // when it was asked first
	lastPause   time.Time          // last
}

// NewRestorer returns the Restorer of a Pipeline that has its store and its writer. The start waits for patience, if
// that is not 0.
func NewRestorer(p *Pipeline, fw firewall.Firewall, patience time.Duration) *Restorer {
	return &Restorer{
		pipeline: p, fw: fw, patience: cmp.Or(patience, startPatience), storedKnown: make(chan struct{}),
		storedInKernel: make(chan struct{}),
		done:           make(chan struct{}), commits: make(chan error, restoreAhead),
	}
}

// Start begins, and returns when all is done or the start has waited for long enough.
func (r *Restorer) Start() error {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = r.restoreAll(ctx)
	}()
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	select {
	case <-r.done:
		r.pipeline.writer.SetFound(r.found, r.firstAsked)
		r.found = nil
		return r.err
	case <-patience.C:
	}
	r.pipeline.startJudging()
	return nil
}

// Close ends what Start began.
func (r *Restorer) Close() error {
	if r.cancel != nil {
		r.cancel()
		<-r.done
	}
	return nil
}

// String names the task.
func (r *Restorer) String() string { return "the bans of before" }

// Run waits for the rest.
func (r *Restorer) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return r.Close()
	case <-r.done:
		return r.err
	}
}

// StoredInKernel is closed when all stored bans are in the kernel.
func (r *Restorer) StoredInKernel() <-chan struct{} { return r.storedInKernel }

// Done is closed when all is done.
func (r *Restorer) Done() <-chan struct{} { return r.done }

// Adopted is how many bans only the kernel knew, 0 before all is done.
func (r *Restorer) Adopted() int {
	select {
	case <-r.done:
		return r.adopted
	default:
		return 0
	}
}

// AwaitStored returns when all stored bans are known: nobody can lift or list what is not.
func (r *Restorer) AwaitStored(ctx context.Context) error {
	select {
	case <-r.storedKnown:
		return nil
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Restorer) restoreAll(ctx context.Context) error {
	began, p := time.Now(), r.pipeline
	stored := 0
	if p.store != nil {
		var kernel error
		err := p.store.WalkBans(ctx, p.clock.Now(), func(bans []ban.Ban, offenders []ban.Offender) error {
			stored += len(bans)
			kernel = r.submitBounded(ctx, p.restoreStored(bans, offenders))
			return kernel
		})
		switch {
		case kernel != nil:
			return fmt.Errorf("the kernel's firewall: %w", kernel)
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("the state: %w", err)
		case err != nil: // what the kernel holds is adopted
			p.log.Error("the bans in the state file cannot be read; what the kernel holds is adopted", "err", err)
		}
	}
	close(r.storedKnown)
	if err := r.awaitCommits(ctx, 0); err != nil {
		return err
	}
	close(r.storedInKernel)
	restored := time.Since(began)
	if err := r.compareAll(ctx); err != nil {
		return fmt.Errorf("the kernel's firewall: %w", err)
	}
	if err := r.awaitCommits(ctx, 0); err != nil {
		return err
	}
	p.endRestoring()
	if stored+r.adopted > 0 {
		p.log.Info("bans of before stay in force", "bans", stored+r.adopted, "only_in_the_kernel", r.adopted,
			"restored_after", restored.Round(time.Millisecond), "compared_after",
			time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// submitBounded hands changes to the kernel's writer, not too far ahead of it.
func (r *Restorer) submitBounded(ctx context.Context, changes []firewall.Change) error {
	if len(changes) == 0 {
		return nil
	}
	r.uncommitted++
	r.pipeline.writer.Submit(changes, func(err error) { r.commits <- err })()
	return r.awaitCommits(ctx, restoreAhead-1)
}

// awaitCommits waits until no more than some of what was submitted is open. What the kernel refuses the writer logs,
// and makes up for.
func (r *Restorer) awaitCommits(ctx context.Context, most int) error {
	for r.uncommitted > most {
		select {
		case <-r.commits:
			r.uncommitted--
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// elementWalker is a firewall with a list that is read while others change it.
type elementWalker interface {
	WalkElements(ctx context.Context, k firewall.Kind, each func([]firewall.Element) error) (whole bool, err error)
}

// compareAll compares what the kernel has with what is known. While the list is read, bans are made and end, so that it
// may miss some: then once more, and also where it had something that was not known.
func (r *Restorer) compareAll(ctx context.Context) error {
	fw, ok := r.fw.(elementWalker)
	if !ok {
		list, err := r.fw.Elements(firewall.Ban)
		if err != nil {
			return err
		}
		return r.compareSome(ctx, list)
	}
	for range maxRounds {
		before := r.adopted
		r.found = nil
		whole, err := fw.WalkElements(ctx, firewall.Ban, func(some []firewall.Element) error {
			return r.compareSome(ctx,
				some)
		})
		if err != nil || whole && r.adopted == before {
			return err
		}
	}
	return nil
}

// compareSome takes over a piece of the kernel's list.
func (r *Restorer) compareSome(ctx context.Context, some []firewall.Element) error {
	if r.firstAsked.IsZero() {
		r.firstAsked = time.Now()
	}
	now := time.Now()
	changes, adopted, running := r.pipeline.adoptFromKernel(some)
	r.adopted += adopted
	if !running { // the writer has not begun
		for _, e := range some {
			e.Remaining += now.Sub(r.firstAsked) // as of then
			r.found = append(r.found, e)
		}
		return cmp.Or(ctx.Err(), r.fw.Apply(changes))
	}
	if err := r.submitBounded(ctx, changes); err != nil {
		return err
	}
	// The kernel takes long for each piece of a long list: leave the processor to others half of the time.
	if !r.lastPause.IsZero() {
		select {
		case <-time.After(min(maxPause, now.Sub(r.lastPause))):
		case <-ctx.Done():
		}
	}
	r.lastPause = time.Now()
	return ctx.Err()
}
