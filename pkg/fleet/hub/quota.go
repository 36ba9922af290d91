package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// DefaultMaxRecords is how many records of one node a hub keeps: twice what nodes take of each other by default.
const DefaultMaxRecords = 100_000

// quota keeps any one node from filling the stream, whose oldest records would go then, whosever they are. JetStream
// itself bounds a stream and a subject, and nothing between.
type quota struct {
	nc    *nats.Conn
	fleet string
	keep  int // records of one node
	mu    sync.Mutex
	said  map[string]int // records of a node since it was looked at
}

// newQuota counts what nodes say from now on. What they said before is looked at once they say something.
func newQuota(nc *nats.Conn, fleetName string, keep int) (*quota, error) {
	q := &quota{nc: nc, fleet: fleetName, keep: keep, said: make(map[string]int)}
	_, err := nc.Subscribe(fleet.LiveSubjects(fleetName), func(m *nats.Msg) {
		parts := strings.SplitN(m.Subject, ".", 4)
		if len(parts) < 4 || !record.IsName(parts[2]) {
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if _, ok := q.said[parts[2]]; !ok {
			q.said[parts[2]] = q.step()
			return
		}
		q.said[parts[2]]++
	})
	return q, err
}

// step is after how many records a node is looked at.
func (q *quota) step() int { return max(q.keep/10, 1) }

// enforce drops the oldest records of nodes that have too many, and returns how many of which.
func (q *quota) enforce(ctx context.Context) (dropped map[string]int, err error) {
	q.mu.Lock()
	var due []string
	for node, n := range q.said {
		if n >= q.step() {
			due = append(due, node)
		}
	}
	q.mu.Unlock()
	dropped = make(map[string]int)
	for _, node := range due {
		q.mu.Lock()
		q.said[node] = 0
		q.mu.Unlock()
		n, purgeErr := q.purge(ctx, node)
		if purgeErr != nil {
			err = errors.Join(err, fmt.Errorf("node %s: %w", node, purgeErr))
			q.mu.Lock()
			q.said[node] = q.step() // so that it is tried again
			q.mu.Unlock()
		}
		if n > 0 {
			dropped[node] = n
		}
	}
	return dropped, err
}

// purge drops all but the latest records of a node (nats-server: server/jetstream_api.go, JSApiStreamPurgeRequest).
func (q *quota) purge(ctx context.Context, node string) (dropped int, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	request, err := json.Marshal(map[string]any{"filter": record.NodeSubjects(q.fleet, node), "keep": q.keep})
	if err != nil {
		return 0, err
	}
	m, err := q.nc.RequestWithContext(ctx, "$JS.API.STREAM.PURGE."+fleet.StreamName(q.fleet), request)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Purged int `json:"purged"`
		Error  *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return 0, err
	}
	if answer.Error != nil {
		return 0, errors.New(answer.Error.Description)
	}
	return answer.Purged, nil
}

// forget drops the counts of nodes that are not invited any more.
func (q *quota) forget(isInvited func(node string) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for node := range q.said {
		if !isInvited(node) {
			delete(q.said, node)
		}
	}
}
