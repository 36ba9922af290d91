package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An Undone is what became of one thing that setup wrote.
type Undone struct {
	Path    string `json:"path"`
	Removed bool   `json:"removed"`       // or, before it is done: will be
	What    string `json:"what"`          // the folder, the file, or lines of it
	Why     string `json:"why,omitempty"` // it stays
}

// An Undo takes away what setup wrote.
type Undo struct {
	Things []Undone `json:"things"`

	options Options
	journal *journal
}

// PrepareUndo says what Undo would remove. What was changed since stays: that is somebody else's now.
func PrepareUndo(o Options) (*Undo, error) {
	j, err := o.tree().readJournal(journalPath(o.Config))
	if err != nil {
		return nil, unreadable(err)
	}
	u := &Undo{Things: []Undone{}, options: o, journal: j}
	return u, u.each(true)
}

// Apply removes it, and forgets what stays.
func (u *Undo) Apply() error {
	u.Things = u.Things[:0]
	return u.each(false)
}

// each goes from the last to the first; the journal goes when only folders are left.
func (u *Undo) each(only bool) error {
	keptIncluded := false // lines stay that name a file that stays
	var folders []entry
	blocks := []entry{}
	for _, e := range slices.Backward(u.journal.Entries) {
		switch e.Kind {
		case ofFolder:
			folders = append(folders, e)
		case ofBlock:
			blocks = append(blocks, e)
		case ofFile:
			done, err := u.removeFile(e, only)
			if err != nil {
				return err
			}
			keptIncluded = keptIncluded || !done.Removed && path.Ext(e.Path) == ".conf" && done.Why == changedSince
			u.Things = append(u.Things, done)
		}
	}
	for _, e := range blocks {
		done := Undone{Path: e.Path, What: linesOfIt, Why: "they include a file that stays"}
		if !keptIncluded || path.Ext(e.Path) != ".conf" {
			var err error
			if done, err = u.removeBlock(e, only); err != nil {
				return err
			}
		}
		u.Things = append(u.Things, done)
	}
	if !only {
		err := os.Remove(u.options.tree().real(journalPath(u.options.Config)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unreadable(err)
		}
	}
	for _, e := range folders {
		done, err := u.removeFolder(e, only)
		if err != nil {
			return err
		}
		u.Things = append(u.Things, done)
	}
	return nil
}

const (
	changedSince = "it was changed since"
	goneAlready  = "it is gone already"
	linesOfIt    = "lines"
)

func (u *Undo) removeFile(e entry, only bool) (Undone, error) {
	done := Undone{Path: e.Path, What: "file"}
	b, err := u.options.tree().read(e.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		done.Why = goneAlready
		return done, nil
	case err != nil:
		return done, unreadable(err)
	case checksum(string(b)) != e.SHA256:
		done.Why = changedSince
		return done, nil
	}
	done.Removed = true
	if !only {
		err = os.Remove(u.options.tree().real(e.Path))
	}
	return done, unreadable(err)
}

// removeBlock takes lines out of a file of somebody else. What follows them stays where it is.
func (u *Undo) removeBlock(e entry, only bool) (Undone, error) {
	t := u.options.tree()
	done := Undone{Path: e.Path, What: linesOfIt}
	b, err := t.read(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		done.Why = goneAlready
		return done, nil
	}
	if err != nil {
		return done, unreadable(err)
	}
	text := string(b)
	beginMark, endMark := marksOf(e.Path)
	begin := strings.Index(text, beginMark)
	if begin < 0 {
		done.Why = "they are gone already"
		return done, nil
	}
	_, after, ok := strings.Cut(text[begin:], endMark+"\n")
	end := len(text) - len(after)
	if !ok || checksum(text[begin:end]) != e.SHA256 {
		done.Why = "they were changed since"
		return done, nil
	}
	done.Removed = true
	if only {
		return done, nil
	}
	if end < len(text) { // what was written behind them begins a line
		return done, unreadable(t.replace(e.Path, text[:begin]+text[end:]))
	}
	if e.LineEnd && begin > 0 && text[begin-1] == '\n' {
		begin--
	}
	return done, unreadable(t.cutTail(e.Path, begin))
}

// removeFolder removes a folder that nothing is in.
func (u *Undo) removeFolder(e entry, only bool) (Undone, error) {
	t := u.options.tree()
	done := Undone{Path: e.Path, What: "folder"}
	list, err := os.ReadDir(t.real(e.Path))
	if errors.Is(err, fs.ErrNotExist) {
		done.Why = goneAlready
		return done, nil
	}
	if err != nil {
		return done, unreadable(err)
	}
	for _, f := range list {
		if !only || !u.willGo(e.Path+"/"+f.Name()) {
			done.Why = fmt.Sprintf("%s is in it", f.Name())
			return done, nil
		}
	}
	done.Removed = true
	if !only {
		err = unix.Rmdir(t.real(e.Path))
	}
	return done, unreadable(err)
}

// willGo says whether an undo that has not been made yet removes a file.
func (u *Undo) willGo(file string) bool {
	return file == journalPath(u.options.Config) ||
		slices.ContainsFunc(u.Things, func(d Undone) bool { return d.Path == file && d.What == "file" && d.Removed })
}
