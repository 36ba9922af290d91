package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// mark is up to where what a node said is void here: in the stream that was made at a time, up to a number. Without a
// stream it is the next one that is heard of, up to all that it has by then.
type mark struct {
	Stream   time.Time `json:"stream,omitzero"`
	Sequence uint64    `json:"sequence,omitempty"`
}

// Forget forgets all that a node has said so far, here alone and for good; what it says from now on is heard. It says
// about how many prefixes there was something. The error is of the file that keeps it over a restart.
func (f *Fleet) Forget(node string) (prefixes int, err error) {
	f.mu.Lock()
	f.forgotten[node] = mark{}
	if f.status.CaughtUp {
		f.forgotten[node] = mark{Stream: f.stream, Sequence: f.status.Sequence}
	}
	about := f.book.Forget(node)
	f.changedLocked(about)
	f.unsaved = true
	f.mu.Unlock()
	return len(about), f.SaveKept()
}

// void takes the operator's word that what a node has said so far is void, everywhere. It says whether it is news. Of
// this node nothing is: what it saw itself it saw, and what waits to be told will be told after that word.
func (f *Fleet) void(node string) (isNews bool) {
	if node == f.cfg.Node {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	about := f.book.Forget(node)
	f.changedLocked(about)
	f.voided[node] = struct{}{}
	if f.status.CaughtUp {
		mailbox.Signal(f.hasChange)
	}
	return len(about) > 0
}

// TakeForgotten returns the nodes whose words the operator voided since they were returned the last time, once all that
// they said since then is known. What came of those words and is not in the book, as after a restart, is void as well.
func (f *Fleet) TakeForgotten() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.status.CaughtUp {
		return nil
	}
	nodes := slices.Sorted(maps.Keys(f.voided))
	clear(f.voided)
	return nodes
}

// isForgottenLocked says whether this node was told to forget what another one said with a number in the stream.
func (f *Fleet) isForgottenLocked(node string, seq uint64) bool {
	m, ok := f.forgotten[node]
	return ok && (m.Stream.IsZero() || m.Stream.Equal(f.stream) && seq <= m.Sequence)
}

// resolveForgotten notes which stream is fetched now, with all that it has, and until where words are void of which it
// was not known.
func (f *Fleet) resolveForgotten(stream time.Time, last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream = stream
	for node, m := range f.forgotten {
		if m.Stream.IsZero() {
			f.forgotten[node] = mark{Stream: stream, Sequence: last}
			f.unsaved = true
		}
	}
}

// ForgetEverywhere has all nodes of a fleet forget what a node has said so far, those that are away as well, and takes
// it out of the stream. The configuration is of who may speak as the fleet's operator: no node may.
func ForgetEverywhere(ctx context.Context, cfg Config, node string) error {
	nc, err := connect(cfg, nats.Name("ringwall fleet forget"), nats.Timeout(answerTime))
	if err != nil {
		return err
	}
	defer nc.Close()
	return ForgetBy(ctx, nc, cfg.Name, node)
}

// ForgetBy is ForgetEverywhere by a connection that is there.
func ForgetBy(ctx context.Context, nc *nats.Conn, fleet, node string) error {
	if !record.IsName(fleet) || !record.IsName(node) {
		return fmt.Errorf("%q is not a name for a node", node)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	// First the word, by whose number everybody knows what was said before it; that is what is taken out then.
	ack, err := js.Publish(ctx, record.ForgetSubject(fleet, node), []byte("{}"),
		jetstream.WithExpectStream(StreamName(fleet)))
	if err != nil {
		return fmt.Errorf("the operator's word is not taken: %w", err)
	}
	s, err := js.Stream(ctx, StreamName(fleet))
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(record.NodeSubjects(fleet, node)),
			jetstream.WithPurgeSequence(ack.Sequence))
	}
	if err != nil {
		return fmt.Errorf("all nodes forget it, but it is still in the stream %s: %w", StreamName(fleet), err)
	}
	return nil
}
