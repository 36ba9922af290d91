package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/config"
)

// newLogger makes the logger of the configuration. The journal adds the time, so text carries none there, and reads the
// priority of a line from its beginning.
func newLogger(cfg config.Log, w io.Writer, level *slog.LevelVar) *slog.Logger {
	setLevel(level, cfg.Level)
	journal := isJournal(w, os.Getenv("JOURNAL_STREAM"))
	p := &priorityWriter{w: w}
	if journal {
		w = p
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch {
	case cfg.Format == "json":
		h = slog.NewJSONHandler(w, o)
	case cfg.Format == "auto" && os.Getenv("JOURNAL_STREAM") != "":
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
		h = slog.NewTextHandler(w, o)
	default:
		h = slog.NewTextHandler(w, o)
	}
	if journal {
		h = levelHandler{h, p}
	}
	return slog.New(h)
}

func setLevel(level *slog.LevelVar, name string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err == nil {
		level.Set(l)
	}
}

// isJournal compares a file with what systemd calls the journal's stream, "DEVICE:INODE" in decimal (systemd.exec(5)).
// The variable alone is no proof: children with another stderr inherit it.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// OnJournal says whether stderr goes to systemd's journal, which reads a priority such as <3> at the beginning of a
// line (sd-daemon(3)).
func OnJournal() bool { return isJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) }

// levelHandler tells a priorityWriter the level of each record that it writes.
type levelHandler struct {
	slog.Handler
	p *priorityWriter
}

func (l levelHandler) Handle(ctx context.Context, r slog.Record) error {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.level = r.Level
	return l.Handler.Handle(ctx, r)
}

func (l levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{l.Handler.WithAttrs(attrs), l.p}
}

func (l levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{l.Handler.WithGroup(name), l.p}
}

// priorityWriter puts the priority of syslog(3) before each line: <3> an error, <4> a warning, <6> information, <7> the
// rest.
type priorityWriter struct {
	w  io.Writer
	mu sync.Mutex // held by whoever sets the level, until the line is written

	level slog.Level
	line  bytes.Buffer
}

func (p *priorityWriter) Write(text []byte) (int, error) {
	priority := 7
	switch {
	case p.level >= slog.LevelError:
		priority = 3
	case p.level >= slog.LevelWarn:
		priority = 4
	case p.level >= slog.LevelInfo:
		priority = 6
	}
	p.line.Reset()
	fmt.Fprintf(&p.line, "<%d>", priority)
	p.line.Write(text)
	if _, err := p.w.Write(p.line.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}
