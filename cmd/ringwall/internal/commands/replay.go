package commands

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/replay"
)

func (c *commands) replayCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replay FILE...",
		Short: "Try the policy on recorded events: who would be banned?",
		Long: `Play recorded events to the policy, in the time of the recording, and say who would have been banned, and
which of them ever logged in. Nothing is banned, and neither the daemon nor Asterisk is asked.

A FILE is Asterisk's security log, also with what syslog, the journal (any -o of journalctl), a container, grep or a
log collector (JSON, GELF, Loki, CSV) put around it, or a recording of AMI; rotated and .gz ones too, and - is stdin.
What is in it is found out by itself. Lines that have an event and are not understood are counted, and the first of
each file is shown with what to try; they count neither for nor against anybody.`,
		Example: `  ringwall replay /var/log/asterisk/security*
  ringwall replay --config new-policy.yaml --json security.log.1.gz | tail -1
  journalctl -u asterisk -o json --since yesterday | ringwall replay -`,
		Args: func(cmd *cobra.Command, args []string) error {
			stdin := 0
			for _, name := range args {
				if name == "-" {
					stdin++
				}
			}
			if stdin > 1 {
				return usageErrorf(cmd.UseLine(), "stdin (-) can be read once only")
			}
			return takesArgs(1, 1<<20, "at least one file")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := c.replayConfig(cmd)
			if err != nil {
				return err
			}
			return c.replayFiles(cmd.Context(), cmd.InOrStdin(), config, args)
		},
	}
}

// replayConfig is the configuration, or where there is none the defaults.
func (c *commands) replayConfig(cmd *cobra.Command) (*config.Config, error) {
	if _, err := os.Stat(c.config); errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		fmt.Fprintf(c.Err, "There is no %s: this is what the default policy would do.\n", c.config)
		config := config.Default()
		return &config, nil
	}
	env := c.Env
	env.WithoutSecrets = true
	config, warnings, err := config.Load(c.config, env)
	for _, w := range warnings {
		fmt.Fprintln(c.Err, "warning: "+printable.Line(w.String()))
	}
	return config, err
}

func (c *commands) replayFiles(ctx context.Context, stdin io.Reader, config *config.Config, files []string) error {
	bar := newProgressBar(c.Err)
	out := bufio.NewWriter(&barClearingWriter{w: c.out, bar: bar})
	if f, ok := stdin.(*os.File); ok {
		stdin = &pollReader{ctx: ctx, f: f, idle: func() { _ = out.Flush() }}
	}
	o := replay.Options{Policy: config.Policy, Firewall: config.Firewall, Stdin: stdin, Empty: c.Now()}
	if !config.Geo.Multiply.IsZero() { // or else nothing that is shown depends on the files
		geoFiles, warnings := c.readGeo(config)
		for _, w := range warnings {
			fmt.Fprintln(c.Err, "warning: "+printable.Line(w.String()))
		}
		o.Multiply, o.Place = config.Geo.Multiply, placeLookup(geoFiles)
	}
	if len(config.Asterisk) == 1 {
		o.PBX = config.Asterisk[0].Name
	}
	lines := *c
	lines.out = out
	if bar != nil {
		o.Progress = func(p replay.Progress) {
			_ = out.Flush()
			bar.draw(p)
		}
	}
	head := false
	o.Decide = func(d ban.Decision) error {
		if c.json {
			return lines.writeJSON(d)
		}
		if !head {
			head = true
			fmt.Fprintln(out, decisionLine("TIME", "ACTION", "SOURCE", "FOR", "SCORE", "WHY", "ACCOUNT", ""))
		}
		_, err := fmt.Fprintln(out, decisionLine(c.decisionCells(d, c.dateAndTime)...))
		return err
	}
	sum, err := replay.Run(ctx, files, o)
	if err != nil {
		err = errors.Join(err, out.Flush())
		bar.clear()
		if ctx.Err() != nil {
			return errors.New("interrupted: there is no summary")
		}
		return err
	}
	if c.json {
		err = lines.writeJSON(sum)
	} else {
		err = lines.sayReplay(sum, head)
	}
	err = errors.Join(err, out.Flush())
	bar.clear()
	if err != nil {
		return err
	}
	return unreadFiles(sum)
}

// unreadFiles is an error that names the files that could not be read to their end.
func unreadFiles(sum *replay.Summary) error {
	var errs []error
	for _, f := range sum.Files {
		if f.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", printable.Limit(f.Name, 500), printable.Line(f.Error)))
		}
	}
	return errors.Join(errs...)
}

// dateAndTime writes a time in the reader's zone, with its date: a recording is of any day.
func (c *commands) dateAndTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(c.Zone).Format("2006-01-02 15:04:05")
}

// barClearingWriter takes the progress bar off the terminal before each write.
type barClearingWriter struct {
	w   io.Writer
	bar *progressBar
}

func (b *barClearingWriter) Write(p []byte) (int, error) {
	b.bar.clear()
	return b.w.Write(p)
}

// progressBar is the last line of a terminal. A nil one draws nothing.
type progressBar struct {
	w       io.Writer
	columns func() int // asked each time, since windows change
	began   time.Time
	shown   bool
}

// newProgressBar returns nil unless w is a terminal.
func newProgressBar(w io.Writer) *progressBar {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	columns := func() int {
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0
		}
		return int(size.Col)
	}
	if columns() == 0 {
		return nil
	}
	return &progressBar{w: f, columns: columns, began: time.Now()}
}

func (b *progressBar) clear() {
	if b != nil && b.shown {
		b.shown = false
		_, _ = io.WriteString(b.w, "\r\x1b[K")
	}
}

func (b *progressBar) draw(p replay.Progress) {
	b.shown = true
	_, _ = io.WriteString(b.w, "\r\x1b[K"+progressLine(p, time.Since(b.began), b.columns()-1))
}

// progressLine fits into columns.
func progressLine(p replay.Progress, took time.Duration, columns int) string {
	rate := int64(0)
	if took > 0 {
		rate = int64(float64(p.Events) / took.Seconds())
	}
	text := fmt.Sprintf("%s  %d events  %d/s", byteSize(p.Read), p.Events, rate)
	if !p.Unknown && p.Size > 0 {
		part := min(1, float64(p.Read)/float64(p.Size))
		text = fmt.Sprintf("%3.0f%%  %s of %s  %d events  %d/s", 100*part, byteSize(p.Read), byteSize(p.Size), p.Events,
			rate)
		if part > 0.01 && part < 1 && took > 2*time.Second {
			text += "  " + humanize.Duration(time.Duration(float64(took)*(1-part)/part).Round(time.Second)) + " left"
		}
		const width = 20
		if len(text)+width+3 <= columns {
			full := int(part * width)
			text = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
		}
	}
	return text[:max(0, min(len(text), columns))]
}

func byteSize(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	i := -1
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTP"[i])
}

// pollReader reads a file that may never end, such as a terminal, and yet ends with ctx. What was decided is shown
// while there is nothing to read.
type pollReader struct {
	ctx  context.Context
	f    *os.File
	idle func()
}

func (r *pollReader) Read(p []byte) (int, error) {
	const wait = 200 // ms
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, wait)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n > 0:
			return r.f.Read(p)
		default:
			r.idle()
		}
	}
}
