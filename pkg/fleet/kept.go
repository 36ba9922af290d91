package fleet

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/store"
)

// kept is what persons decided for this node alone: the fleet's servers know nothing of it.
type kept struct {
	Forgotten map[string]mark              `json:"forgotten,omitempty"`
	Lifted    map[netip.Prefix]record.Lift `json:"lifted,omitempty"`
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
	data, err := json.Marshal(kept{Forgotten: f.forgotten, Lifted: f.book.Lifts()})
	f.unsaved = false
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
}
