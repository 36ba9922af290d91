package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/store"
)

const allowedHeading = "What ringwall allow has put on Ringwall's allow list: an address, a network or a host name, " +
	"when, until when if not for\never, and by whom.\n" +
	"It is read where the state file is of no use. To change the list, say: ringwall allow add ENTRY, " +
	"ringwall allow del ENTRY"

const untilWord = "until=" // before the end of an entry that has one

// allowFile is the allow list of commands in plain text, beside the state file: a state file that is of no use must not
// ban somebody whom a person has allowed.
type allowFile struct {
	path string // empty: there is no state, and no such file
	log  *slog.Logger
	now  func() time.Time

	mu       sync.Mutex
	entries  map[string]store.Allow
	lost     bool   // neither the state file nor the text says what commands allowed
	fault    string // why the list was read from the text, or could not be
	writeErr error  // why it cannot be written
}

func newAllowFile(state string, log *slog.Logger) *allowFile {
	return &allowFile{path: besideState(state, "allow"), log: log, now: time.Now, entries: make(map[string]store.Allow)}
}

// mergeStored takes the entries of the state file over and returns those that count: where the state file was of no
// use, which lost says, also those of the text.
func (a *allowFile) mergeStored(stored []store.Allow, lost string) []store.Allow {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range stored {
		a.entries[entryName(e)] = e
	}
	if a.path == "" {
		return stored // the end of what is over is the engine's matter
	}
	if lost != "" {
		a.readTextLocked(lost)
	}
	a.writeLocked() // and drop what is over
	out := make([]store.Allow, 0, len(a.entries))
	for _, name := range sortedKeys(a.entries) {
		e := a.entries[name]
		if e.By == byKernel {
			e.Note = byKernel // which the text does not hold
		}
		out = append(out, e)
	}
	return out
}

// listIsLost reports whether it is not known any more what commands allowed.
func (a *allowFile) listIsLost() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// readTextLocked reads the text.
func (a *allowFile) readTextLocked(lost string) {
	lines, from, err := store.ReadLines(a.path)
	a.lost = err != nil
	if errors.Is(err, fs.ErrNotExist) {
		return // nothing was ever allowed by a command, or the whole folder is gone
	}
	if err != nil {
		a.fault = lost + "; what ringwall allow added is lost: " + printable.String(err.Error())
		a.log.Error("the allow list of commands is lost", "err", err)
		return
	}
	n := 0
	for _, l := range lines {
		e, err := parseAllowed(l)
		if err != nil {
			a.log.Warn("a line of the allow list of commands is left out", "file", from, "line",
				printable.Limit(l, 200), "err",
				err)
			continue
		}
		if _, ok := a.entries[entryName(e)]; !ok {
			a.entries[entryName(e)] = e
			n++
		}
	}
	if n > 0 {
		a.fault = fmt.Sprintf("%s; %d of what ringwall allow added came from %s", lost, n, from)
		a.log.Warn("the allow list of commands came from its text", "file", from, "entries", n)
	}
}

// changeEntry adds an entry, or takes it away, and writes the list down.
func (a *allowFile) changeEntry(e store.Allow, remove bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries[entryName(e)] = e
	if remove {
		delete(a.entries, entryName(e))
	}
	if a.path != "" {
		a.writeLocked()
	}
}

// addFound adds what was found in the kernel.
func (a *allowFile) addFound(entries []store.Allow) {
	if len(entries) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		a.entries[entryName(e)] = e
	}
	a.writeLocked()
}

// foundEntries returns what was found in the kernel and neither confirmed nor taken off since.
func (a *allowFile) foundEntries() (list []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range sortedKeys(a.entries) {
		if e := a.entries[name]; e.By == byKernel && e.Prefix.IsValid() {
			list = append(list, e.Prefix)
		}
	}
	return list
}

// dropFound takes those off that were found in the kernel, but for those that a person has confirmed meanwhile.
func (a *allowFile) dropFound(list []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range list {
		if name := entryName(store.Allow{Prefix: p}); a.entries[name].By == byKernel {
			delete(a.entries, name)
		}
	}
	if len(list) > 0 {
		a.writeLocked()
	}
}

// writeLocked writes the list down, unless the file has it, and drops what is over.
func (a *allowFile) writeLocked() {
	now := a.now()
	maps.DeleteFunc(a.entries, func(_ string, e store.Allow) bool { return !e.Until.IsZero() && !e.Until.After(now) })
	var lines []string
	for _, name := range sortedKeys(a.entries) {
		e := a.entries[name]
		line := name + " " + e.Added.UTC().Format(time.RFC3339)
		if !e.Until.IsZero() {
			line += " " + untilWord + e.Until.UTC().Format(time.RFC3339)
		}
		lines = append(lines, strings.TrimSpace(line+" "+strings.ReplaceAll(printable.Line(e.By), "#", "?")))
	}
	have, from, err := store.ReadLines(a.path)
	if err == nil && from == a.path && slices.Equal(have, lines) || len(lines) == 0 && errors.Is(err, fs.ErrNotExist) {
		a.writeErr = nil
		return
	}
	if err := store.WriteLines(a.path, allowedHeading, lines); err != nil {
		if a.writeErr == nil {
			a.log.Warn("the allow list of commands is not saved as text", "err", err)
		}
		a.writeErr = err
		return
	}
	a.writeErr = nil
}

// listWarnings are what a person should know of the list.
func (a *allowFile) listWarnings() (out []api.Warning) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault != "" {
		out = append(out, api.Warning{Text: a.fault, Try: "ringwall list allow"})
	}
	return out
}

func entryName(e store.Allow) string {
	if e.Prefix.IsValid() {
		return e.Prefix.Masked().String()
	}
	return e.Host
}

// parseAllowed reads one line; a person may have written it.
func parseAllowed(line string) (e store.Allow, err error) {
	field := strings.Fields(line)
	if e.Prefix, err = netip.ParsePrefix(field[0]); err != nil {
		if addr, err := netip.ParseAddr(field[0]); err == nil && addr.Zone() == "" {
			e.Prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		} else if name, ok := hosts.NormalizeName(field[0]); ok {
			e.Host = name
		} else {
			return e, errors.New("neither an address, nor a network, nor a host name")
		}
	}
	e.Prefix = e.Prefix.Masked()
	if e.Prefix.IsValid() {
		if target, err := api.ParsePrefix(e.Prefix.String()); err != nil || target.Bits() < minBits(target.Addr()) {
			return e, errors.New("a network as wide as that is not allowed by a command")
		}
	}
	rest := field[1:]
	if len(rest) > 0 {
		if added, err := time.Parse(time.RFC3339, rest[0]); err == nil {
			e.Added, rest = added, rest[1:]
		}
	}
	if len(rest) > 0 {
		if end, ok := strings.CutPrefix(rest[0], untilWord); ok {
			// An end that nobody can read is not taken for none, nor its entry for one that is over.
			if e.Until, err = time.Parse(time.RFC3339, end); err != nil {
				return e, errors.New("until= needs a time such as 2026-01-02T15:04:05Z")
			}
			rest = rest[1:]
		}
	}
	if !e.Added.IsZero() {
		e.By = strings.Join(rest, " ")
	}
	return e, nil
}

func minBits(a netip.Addr) int {
	if a.Is4() {
		return api.MinBits4
	}
	return api.MinBits6
}
