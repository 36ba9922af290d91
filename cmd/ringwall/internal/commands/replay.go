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

func (c *commands) replay() *cobra.Command {
	return &cobra.Command{
		Use:   "replay FILE...",
		Short: "Try the policy on recorded events: who would be banned?",
		Long: `Play recorded events to the policy, in the time of the recording, and say who would have been banned, and which of
them ever logged in. Nothing is banned, and neither the daemon nor Asterisk is asked.

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
				return usagef(cmd.UseLine(), "stdin (-) can be read once only")
			}
			return takes(1, 1<<20, "at least one file")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := c.replayConfig(cmd)
			if err != nil {
				return err
			}
			return c.playFiles(cmd.Context(), cmd.InOrStdin(), config, args)
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

func (c *commands) playFiles(ctx context.Context, stdin io.Reader, config *config.Config, files []string) error {
	bar := newBar(c.Err)
	out := bufio.NewWriter(&besideBar{w: c.out, bar: bar})
	if f, ok := stdin.(*os.File); ok {
		stdin = &pollReader{ctx: ctx, f: f, idle: func() { _ = out.Flush() }}
	}
	o := replay.Options{Policy: config.Policy, Firewall: config.Firewall, Stdin: stdin, Empty: c.Now()}
	if !config.Geo.Multiply.IsZero() { // or else nothing that is shown depends on the files
		geoFiles, warnings := c.readGeo(config)
		for _, w := range warnings {
			fmt.Fprintln(c.Err, "warning: "+printable.Line(w.String()))
		}
		o.Multiply, o.Place = config.Geo.Multiply, locator(geoFiles)
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
			return lines.object(d)
		}
		if !head {
			head = true
			fmt.Fprintln(out, decisionLine("TIME", "ACTION", "SOURCE", "FOR", "SCORE", "WHY", "ACCOUNT", ""))
		}
		_, err := fmt.Fprintln(out, c.replayed(&d))
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
		err = lines.object(sum)
	} else {
		err = lines.sayReplay(sum, head)
	}
	err = errors.Join(err, out.Flush())
	bar.clear()
	if err != nil {
		return err
	}
	return unread(sum)
}

// unread names the files that could not be read to their end.
func unread(sum *replay.Summary) error {
	var errs []error
	for _, f := range sum.Files {
		if f.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", printable.Limit(f.Name, 500), printable.Line(f.Error)))
		}
	}
	return errors.Join(errs...)
}

func (c *commands) replayed(d *ban.Decision) string {
	source, length := "", ""
	switch {
	case d.Prefix.IsValid():
		source = humanize.Prefix(d.Prefix)
	case d.Source.IsValid():
		source = d.Source.String()
	}
	if d.Duration > 0 {
		length = short(d.Duration)
	}
	return decisionLine(c.moment(d.Time), string(d.Action), source, length, score(d.Score),
		words(d.Reason), printable.String(d.Account), d.Detail)
}

func decisionLine(cells ...any) string {
	line := fmt.Sprintf("%-19s  %-13s  %-18s  %7s  %6s  %-20s  %s  %s", cells...)
	return printable.Line(strings.TrimRight(line, " "))
}

// moment writes the date too: a recording is of any day.
func (c *commands) moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(c.Zone).Format("2006-01-02 15:04:05")
}

// besideBar takes the bar off the terminal before something else is written.
type besideBar struct {
	w   io.Writer
	bar *progressBar
}

func (b *besideBar) Write(p []byte) (int, error) {
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

// newBar returns nil unless w is a terminal.
func newBar(w io.Writer) *progressBar {
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
	text := fmt.Sprintf("%s  %d events  %d/s", size(p.Read), p.Events, rate)
	if !p.Unknown && p.Size > 0 {
		part := min(1, float64(p.Read)/float64(p.Size))
		text = fmt.Sprintf("%3.0f%%  %s of %s  %d events  %d/s", 100*part, size(p.Read), size(p.Size), p.Events, rate)
		if part > 0.01 && part < 1 && took > 2*time.Second {
			text += "  " + short(time.Duration(float64(took)*(1-part)/part).Round(time.Second)) + " left"
		}
		const width = 20
		if len(text)+width+3 <= columns {
			full := int(part * width)
			text = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
		}
	}
	return text[:max(0, min(len(text), columns))]
}

func size(n int64) string {
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
