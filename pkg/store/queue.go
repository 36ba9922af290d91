package store

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// queue is what waits for the disk: of each record the last value, nil where it is to be removed, and lines of history.
// It is no mailbox, which keeps every item: of two values of one record only the later one is written.
type queue struct {
	records map[recordID][]byte
	lines   [][]byte
}

func newQueue() queue { return queue{records: make(map[recordID][]byte)} }

func (q *queue) len() int { return len(q.records) + len(q.lines) }

// putRecord adds a change, or replaces the one of the same record. Removals have twice the room: one that is lost
// would bring a ban back that a person ended.
func (q *queue) putRecord(r record, limit int) bool {
	if r.value == nil {
		limit *= 2
	}
	if _, ok := q.records[r.recordID]; !ok && len(q.records) >= limit {
		return false
	}
	q.records[r.recordID] = r.value
	return true
}

// appendLine adds a line and drops the oldest beyond limit. It returns how many.
func (q *queue) appendLine(line []byte, limit int) (dropped int) {
	q.lines = append(q.lines, line)
	return q.trimLines(limit)
}

func (q *queue) trimLines(limit int) (dropped int) {
	dropped = max(0, len(q.lines)-limit)
	clear(q.lines[:dropped])
	q.lines = q.lines[dropped:]
	return dropped
}

// batch is what was taken from the queue to be written, in the order in which it is: records by rank and key.
type batch struct {
	records []record
	lines   [][]byte
}

func (b *batch) len() int { return len(b.records) + len(b.lines) }

// writeOrder is the place of a kind's records in the order of a batch. A batch may need several transactions, and a
// crash may leave the later ones out: offenders come before bans, so that no ban that alone said how often its source
// was banned is dropped, or overwritten by one that does not say it, before that is written down elsewhere. The other
// way round both are in the file for a while, which say the same.
func (k kind) writeOrder() byte {
	if k == kindOffender {
		return 0
	}
	return byte(k)
}

// How long a loop of the store's works before it pauses, and for how long.
const (
	workFor  = 500 * time.Microsecond
	pauseFor = 50 * time.Microsecond
)

// othersFirst pauses long loops now and then: what is saved can wait, a ban cannot. A loop that does not block has an
// event wait 10 ms where all processors are busy, by Go's scheduler for each turn, and in the socket: it is looked at
// only by who has nothing else to do, or every 10 ms (runtime/proc.go: findRunnable, sysmon). So runtime.Gosched is not
// enough.
type othersFirst struct {
	steps int
	since time.Time
}

// letOthersFirst is called for each round of a loop.
func (o *othersFirst) letOthersFirst() {
	if o.steps++; o.steps%64 != 0 {
		return
	}
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	if now.Sub(o.since) >= workFor {
		time.Sleep(pauseFor)
		o.since = time.Now()
	}
}

func sortRecords(list []record) {
	var others othersFirst
	slices.SortFunc(list, func(a, b record) int {
		others.letOthersFirst()
		return cmp.Or(cmp.Compare(a.kind.writeOrder(), b.kind.writeOrder()), strings.Compare(a.key, b.key))
	})
}

// allWaiting returns what is in the queue, in the order in which it is to be written.
func (q queue) allWaiting() batch {
	b := batch{make([]record, 0, len(q.records)), q.lines}
	var others othersFirst
	for id, value := range q.records {
		others.letOthersFirst()
		b.records = append(b.records, record{id, value})
	}
	sortRecords(b.records)
	return b
}

// putBack puts back what could not be saved; what came later counts. It returns how many lines found no room.
func (q *queue) putBack(old batch, limit int) (dropped int) {
	for _, r := range old.records {
		if _, ok := q.records[r.recordID]; !ok {
			q.putRecord(r, math.MaxInt32)
		}
	}
	q.lines = append(old.lines, q.lines...)
	return q.trimLines(limit)
}

// forgetRecords drops the changes, not the lines.
func (q *queue) forgetRecords() { q.records = make(map[recordID][]byte) }

// nextChunk is how many records and lines of the batch the next transaction takes.
func (b *batch) nextChunk() (records, lines int) {
	bytes := 0
	for records < min(len(b.records), chunkRecords) && bytes < chunkBytes {
		bytes += len(b.records[records].key) + len(b.records[records].value)
		records++
	}
	for lines < min(len(b.lines), chunkRecords) && bytes < chunkBytes {
		bytes += len(b.lines[lines])
		lines++
	}
	return records, lines
}
