package fail2ban

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// Bounds of what is read from a database.
const (
	maxRows       = 1_000_000
	maxText       = 255     // characters of a name or an address; a longer one is no address
	maxCopy       = 1 << 30 // bytes of a database that is copied, journals included
	readLimit     = time.Minute
	writerTimeout = 3 * time.Second // how long a program that is writing is waited for
)

// banRow is a ban as fail2ban has it.
type banRow struct {
	ip, jail string
	since    int64 // seconds since 1970
	length   int64 // seconds; below zero for ever; unknownLength where fail2ban does not know
}

// unknownLength is the bantime of rows that came from a database without one (server/database.py).
const unknownLength = -2

// banRecords are what a database tells, or the running fail2ban.
type banRecords struct {
	version int64
	rows    []banRow
	past    map[string][]string // the jails that have ever banned an address, of those that a jail like recidive bans
	more    bool                // there are more rows than maxRows
	note    string              // how they were read, where that is special
}

// ErrSchema is a database that is not fail2ban's, or of a version that this package does not know.
var ErrSchema = errors.New("not a database of fail2ban 0.11 to 1.1")

// ErrNoPython is a machine without the interpreter that fail2ban itself needs.
var ErrNoPython = errors.New("reading the database takes python3, which fail2ban has with it: there is none here")

// databaseReader is run by Python, whose sqlite3 module fail2ban itself uses: a database engine is linked into no
// program for the one day on which somebody comes from fail2ban.
//
//go:embed database.py
var databaseReader string

// readDatabase reads the bans of fail2ban 0.11 to 1.1 (schema 4): those that end after now.
func readDatabase(ctx context.Context, path string, now time.Time) (_ *banRecords, err error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	if err := checkDatabase(path); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "ringwall-import-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	cmd, err := databaseCommand(ctx, path, folder, now)
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var trouble limitedBuffer
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	records, err := parseRecords(out)
	_, drained := io.Copy(io.Discard, out)
	if failed := cmd.Wait(); failed != nil {
		err = fmt.Errorf("it cannot be read: %s", lastLine(trouble.String(), failed))
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it cannot be read: %w", context.Cause(ctx))
	case err != nil:
		return nil, err
	case drained != nil:
		return nil, drained
	}
	return records.records, records.check()
}

// checkDatabase refuses what would keep its reader waiting, or is no SQLite database.
func checkDatabase(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	}
	magic := []byte("SQLite format 3\x00") // https://sqlite.org/fileformat.html#magic_header_string
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(f, start); err != nil || !bytes.Equal(start, magic) {
		return &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no SQLite database")}
	}
	return nil
}

// databaseCommand reads a database, with a folder for copies of it. It changes nothing outside of that.
func databaseCommand(ctx context.Context, path, folder string, now time.Time) (*exec.Cmd, error) {
	python, err := findPython()
	if err != nil {
		return nil, err
	}
	seconds := strconv.FormatFloat(float64(now.UnixMilli())/1000, 'f', 3, 64)
	// -I: neither the caller's environment nor the folder that he is in adds modules; -S: nor does the machine, which
	// saves time; -B: no compiled modules are left behind.
	cmd := exec.CommandContext(ctx, python, "-I", "-S", "-B", "-c", databaseReader, path, folder, seconds,
		fmt.Sprint(writerTimeout.Seconds()), fmt.Sprint(maxRows), fmt.Sprint(maxText), fmt.Sprint(maxCopy))
	cmd.WaitDelay = writerTimeout
	return cmd, nil
}

// findPython prefers the interpreter of fail2ban's own first line to another one on the caller's path.
func findPython() (string, error) {
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoPython
}

// databaseContents is what was read, and whether it is a database of fail2ban's.
type databaseContents struct {
	records *banRecords
	tables  map[string]bool
	version bool // it tells one
}

// parseRecords reads what databaseReader prints.
func parseRecords(r io.Reader) (*databaseContents, error) {
	c := &databaseContents{records: &banRecords{past: map[string][]string{}}, tables: map[string]bool{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if err := c.addLine(strings.Split(lines.Text(), "\t")); err != nil {
			return nil, fmt.Errorf("its reader printed %q: %w", printable.Limit(lines.Text(), 100), err)
		}
	}
	return c, lines.Err()
}

// addLine takes one line. Where there are more rows than maxRows, the rest is dropped.
func (c *databaseContents) addLine(fields []string) error {
	r := c.records
	kind, fields := fields[0], fields[1:]
	want := map[string]int{"note": 1, "table": 1, "version": 1, "ban": 4, "past": 2}[kind]
	if want == 0 || len(fields) != want {
		return errors.New("of another kind than expected")
	}
	switch kind {
	case "note":
		r.note = fields[0]
		return nil
	case "table":
		c.tables[fields[0]] = true
		return nil
	case "version":
		c.version = true
		return parseInts(fields, &r.version)
	}
	ip, err := hex.DecodeString(fields[0])
	if err != nil {
		return err
	}
	jail, err := hex.DecodeString(fields[1])
	if err != nil {
		return err
	}
	if kind == "past" {
		r.past[string(ip)] = append(r.past[string(ip)], string(jail))
		return nil
	}
	row := banRow{ip: string(ip), jail: string(jail)}
	if err := parseInts(fields[2:], &row.since, &row.length); err != nil {
		return err
	}
	if r.more = r.more || len(r.rows) == maxRows; !r.more {
		r.rows = append(r.rows, row)
	}
	return nil
}

func parseInts(fields []string, to ...*int64) (err error) {
	for i, p := range to {
		if *p, err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return err
		}
	}
	return nil
}

// check says what is missing in a database that is not fail2ban's, or an old one.
func (c *databaseContents) check() error {
	switch {
	case !c.tables["fail2banDb"]:
		return fmt.Errorf("%w: it has no table fail2banDb", ErrSchema)
	case !c.version:
		return fmt.Errorf("%w: it does not tell its version", ErrSchema)
	case !c.tables["bips"]:
		return fmt.Errorf("%w: its version is %d, without the table bips; start a newer fail2ban once, which "+
			"converts it",
			ErrSchema, c.records.version)
	case !c.tables["bans"]:
		return fmt.Errorf("%w: it has no table bans", ErrSchema)
	}
	return nil
}

// limitedBuffer keeps the end of what a program says.
type limitedBuffer struct{ text []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	const most = 4096
	b.text = append(b.text, p[max(0, len(p)-most):]...)
	b.text = append([]byte(nil), b.text[max(0, len(b.text)-most):]...)
	return len(p), nil
}

func (b *limitedBuffer) String() string { return string(b.text) }

// lastLine is what a program said last, fit for a terminal, or how it ended where it said nothing.
func lastLine(text string, err error) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return printable.Limit(last, 200)
	}
	return err.Error()
}
