package fleet

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/store"
)

// kept is what persons decided of which the fleet's servers know nothing: for this node alone, or not yet.
type kept struct {
	Forgotten map[string]mark              `json:"forgotten,omitempty"`
	Lifted    map[netip.Prefix]record.Lift `json:"lifted,omitempty"`
	Unsent    map[string]string            `json:"unsent,omitempty"` // encoded records by their subjects
}

// isOfPerson says whether nobody knows any more what a record says, once it is lost. Bans and trust are in the state.
func isOfPerson(k record.Kind) bool {
	return k == record.Unban || k == record.Grace || k == record.Allow
}

// SaveKept writes Config.KeptFile where something in it has changed.
func (f *Fleet) SaveKept() error {
	if f.cfg.KeptFile == "" {
		return nil
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	f.mu.Lock()
	if !f.unsaved {
		f.mu.Unlock()
		return nil
	}
	unsent := f.unsentLocked()
	data, err := json.Marshal(kept{Forgotten: f.forgotten, Lifted: f.book.Lifts(), Unsent: unsent})
	f.unsaved, f.keepsUnsent = false, len(unsent) > 0
	f.mu.Unlock()
	if err == nil {
		err = store.WriteFile(f.cfg.KeptFile, append(data, '\n'), false)
	}
	if err != nil {
		f.mu.Lock()
		f.unsaved = true
		f.mu.Unlock()
	}
	return err
}

// trySaveKept is SaveKept where nobody waits for it; it is tried again.
func (f *Fleet) trySaveKept() {
	if err := f.SaveKept(); err != nil {
		f.log.Debug("what persons decided for this node alone is not kept yet", "err", err)
	}
}

// unsentLocked is what persons said that no server has confirmed.
func (f *Fleet) unsentLocked() map[string]string {
	unsent := make(map[string]string)
	for _, r := range f.outbox.others.records {
		if !isOfPerson(r.Kind) {
			continue
		}
		if data, err := record.Encode(r); err == nil {
			unsent[r.Subject(f.cfg.Name)] = string(data)
		}
	}
	return unsent
}

// readKept reads what was decided before this node was started.
func (f *Fleet) readKept() {
	if f.cfg.KeptFile == "" {
		return
	}
	data, err := os.ReadFile(f.cfg.KeptFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var before kept
	if err == nil {
		err = json.Unmarshal(data, &before)
	}
	if err != nil {
		f.log.Warn("what persons decided for this node alone cannot be read", "file", f.cfg.KeptFile, "err", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for node, m := range before.Forgotten {
		if _, ok := f.forgotten[node]; !ok && record.IsName(node) {
			f.forgotten[node] = m
		}
	}
	now, since := f.cfg.Now(), f.book.Lifts()
	for p, l := range before.Lifted {
		if _, ok := since[p]; !ok && p.IsValid() && p == p.Masked() && l.Until.After(now) {
			f.book.LiftHere(p, l)
		}
	}
	f.keepsUnsent = len(before.Unsent) > 0
	for subject, data := range before.Unsent {
		k, err := record.ParseSubject(f.cfg.Name, subject)
		if err != nil || k.Node != f.cfg.Node || !isOfPerson(k.Kind) || !slices.Contains(f.cfg.Share, k.Kind) {
			continue
		}
		r, err := record.Decode(k, []byte(data))
		if err != nil {
			continue
		}
		if changed, err := f.book.PutOwn(now, r); changed && err == nil {
			f.outbox.put(r)
		}
	}
}
