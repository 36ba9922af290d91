package setup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/ringwall/ringwall/pkg/hint"
)

// journalName is the journal, beside the configuration. Root alone may write there: whoever could write the journal
// would say what root removes.
const journalName = "setup.json"

// A kind is what was written.
type kind string

const (
	ofFolder kind = "folder"
	ofFile   kind = "file"  // one of its own
	ofBlock  kind = "block" // lines at the end of another's file
)

// An entry is one thing that was written. What was written is known by its checksum: the journal holds no secret.
type entry struct {
	Kind   kind   `json:"kind"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // of the file, or of the lines
	// LineEnd says that the file ended without one, so that one was put before the lines.
	LineEnd bool `json:"line_end,omitempty"`
}

// journal is what setup wrote, in order. An entry is there before what it tells of is.
type journal struct {
	Version int     `json:"version"`
	Entries []entry `json:"entries"`
}

const journalVersion = 1

func (j *journal) find(k kind, path string) *entry {
	i := slices.IndexFunc(j.Entries, func(e entry) bool { return e.Kind == k && e.Path == path })
	if i < 0 {
		return nil
	}
	return &j.Entries[i]
}

// note puts an entry into the journal, in the place of an older one of the same.
func (j *journal) note(e entry) {
	if old := j.find(e.Kind, e.Path); old != nil {
		*old = e
		return
	}
	j.Entries = append(j.Entries, e)
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// journalPath is where the journal of a configuration is.
func journalPath(config string) string { return path.Join(path.Dir(config), journalName) }

// readJournal returns an empty one where there is none.
func (t tree) readJournal(file string) (*journal, error) {
	j := &journal{Version: journalVersion}
	b, err := t.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(b, j)
	if err == nil && j.Version != journalVersion {
		err = fmt.Errorf("version %d, and this program knows %d", j.Version, journalVersion)
	}
	for _, e := range j.Entries {
		if err == nil && (!path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path) {
			err = fmt.Errorf("%q is no path", e.Path)
		}
	}
	if err != nil {
		return nil, hint.Errorf("look at it; without that file, what was written is not known any more",
			"%s says what setup wrote, and cannot be understood: %w", file, err)
	}
	return j, nil
}

func (t tree) writeJournal(file string, j *journal) error {
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	text := string(b) + "\n"
	if !t.exists(file) {
		return t.create(file, text, 0o600, owner{})
	}
	return t.replace(file, text)
}
