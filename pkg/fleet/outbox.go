package fleet

import (
	"time"

	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// outbox is what the server has not confirmed: the latest word of each key.
type outbox struct {
	bans   part
	others part // what lets somebody in, which goes first
}

// part is one part of an outbox, and how much of it others take now: what they refuse for its rate they do not hear
// again soon.
type part struct {
	records map[record.Key]record.Record
	budget  record.Budget
}

// paced is less than what others grant: they hear what is sent later, and some of it together.
const paced = 0.9

func newOutbox(l record.Limits) outbox {
	newPart := func() part {
		return part{records: make(map[record.Key]record.Record),
			budget: record.Budget{Most: paced * float64(l.Records), Rate: paced * l.Rate}}
	}
	return outbox{bans: newPart(), others: newPart()}
}

func (o *outbox) part(k record.Kind) *part {
	if k == record.Ban {
		return &o.bans
	}
	return &o.others
}

func (o *outbox) put(r record.Record) { o.part(r.Kind).records[r.Key] = r }

func (o *outbox) len() int { return len(o.bans.records) + len(o.others.records) }

// confirm takes out what the server has, unless there is a later word.
func (o *outbox) confirm(r record.Record) {
	p := o.part(r.Kind)
	if p.records[r.Key].Made.Equal(r.Made) {
		delete(p.records, r.Key)
	}
	p.budget.Take()
}

// next returns up to n of them that others take now, and drops what is over.
func (o *outbox) next(now time.Time, n int) []record.Record {
	batch := make([]record.Record, 0, min(n, o.len()))
	for _, p := range []*part{&o.others, &o.bans} {
		most := min(n, len(batch)+int(p.budget.Left(now)))
		for key, r := range p.records {
			if len(batch) == most {
				break
			}
			if !r.Until.IsZero() && now.After(r.Until) {
				delete(p.records, key)
				continue
			}
			batch = append(batch, r)
		}
	}
	return batch
}
