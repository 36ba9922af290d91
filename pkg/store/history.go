package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
)

// writeHistory appends lines and removes those that are too many or too old.
func (s *Store) writeHistory(tx *bbolt.Tx, lines [][]byte, now time.Time) error {
	if len(lines) == 0 {
		return nil
	}
	b, err := bucketOf(tx, kindDecision)
	if err != nil {
		return err
	}
	b.FillPercent = historyFill
	var seq uint64
	var key []byte // bbolt copies keys
	var others othersFirst
	for _, line := range lines {
		others.letOthersFirst()
		if seq, err = b.NextSequence(); err != nil {
			return err
		}
		key = binary.BigEndian.AppendUint64(key[:0], seq)
		if err := b.Put(key, line); err != nil {
			return err
		}
	}
	oldest := now.Add(-s.o.HistoryAge)
	var gone [][]byte
	c := b.Cursor()
	for key, value := c.First(); key != nil && len(gone) < 2*chunkRecords; key, value = c.Next() {
		others.letOthersFirst()
		if len(key) == 8 && seq-binary.BigEndian.Uint64(key) < uint64(s.o.History) {
			if d, err := decodeDecision(value); err == nil && !d.Time.Before(oldest) {
				break
			}
		}
		gone = append(gone, bytes.Clone(key))
	}
	for _, key := range gone {
		others.letOthersFirst()
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// History returns the decisions since a time, oldest first: those about one address or, where it is not valid, all.
// Decisions about a network that holds the address are among them, and so are those that are not saved yet.
func (s *Store) History(ctx context.Context, since time.Time, about netip.Addr) (out []ban.Decision, err error) {
	err = s.WalkHistory(ctx, since, about, func(some []ban.Decision) error {
		out = append(out, some...)
		return nil
	})
	return out, err
}

// Pieces of history: what is handed over at once, and for how long the file is read at a time.
const (
	pieceLines = 128
	pieceBytes = 64 << 10
	pieceLooks = 4096
)

// WalkHistory calls each with what History returns, a piece at a time, so that a long history takes no more memory than
// a short one. Nothing is locked meanwhile. An error of each ends it.
func (s *Store) WalkHistory(ctx context.Context, since time.Time, about netip.Addr,
	each func([]ban.Decision) error) error {
	var next uint64 // number of the line to go on with
	for {
		var p historyPiece
		var waiting [][]byte
		s.batchMu.RLock() // between two batches a line either waits or is in the file
		end, err := s.readHistory(since, about, &next, &p)
		if end {
			s.mu.Lock()
			waiting = slices.Clone(s.queue.lines)
			s.mu.Unlock()
		}
		s.batchMu.RUnlock()
		if err != nil {
			return err
		}
		for {
			if len(p.decisions) > 0 {
				if err := errors.Join(ctx.Err(), each(p.decisions)); err != nil {
					return err
				}
			}
			if p = (historyPiece{}); len(waiting) == 0 {
				break
			}
			for len(waiting) > 0 && !p.isFull() {
				p.addDecision(waiting[0], since, about)
				waiting = waiting[1:]
			}
		}
		if end {
			return ctx.Err()
		}
	}
}

// readHistory reads one piece of the file, and says whether it has come to the file's end.
func (s *Store) readHistory(since time.Time, about netip.Addr, next *uint64, p *historyPiece) (end bool, err error) {
	err = s.runRead(func(tx *bbolt.Tx) error {
		b, err := bucketOf(tx, kindDecision)
		if err != nil {
			return err
		}
		c := b.Cursor()
		looks := 0
		for key, value := c.Seek(binary.BigEndian.AppendUint64(nil, *next)); key != nil; key, value = c.Next() {
			if looks++; p.isFull() || looks > pieceLooks {
				return nil
			}
			if len(key) == 8 {
				*next = binary.BigEndian.Uint64(key) + 1
			}
			p.addDecision(value, since, about)
		}
		end = true
		return nil
	})
	return end || s.hasNoFile(), err
}

// hasNoFile says that there is no file.
func (s *Store) hasNoFile() bool {
	s.fileMu.RLock()
	defer s.fileMu.RUnlock()
	return s.file == nil
}

// historyPiece is a part of history.
type historyPiece struct {
	decisions []ban.Decision
	bytes     int
}

func (p *historyPiece) isFull() bool { return len(p.decisions) >= pieceLines || p.bytes >= pieceBytes }

// addDecision takes a decision, if it is one that is asked for. What cannot be read is left out.
func (p *historyPiece) addDecision(value []byte, since time.Time, about netip.Addr) {
	d, err := decodeDecision(value)
	if err != nil || d.Time.Before(since) || about.IsValid() && d.Source != about && !d.Prefix.Contains(about) {
		return
	}
	p.decisions, p.bytes = append(p.decisions, d), p.bytes+len(value)
}
