package demo

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// reporter tells what happens. One goroutine calls it; the error of finish is the first that writing met.
type reporter interface {
	start(snapshot)
	progress(snapshot, []ban.Decision)
	finish(s snapshot, failures []string, err error) error
}

func newReporter(o Options, p environment) reporter {
	w := &errorWriter{w: o.Out}
	switch {
	case o.JSON:
		return &jsonReporter{errorWriter: w, environment: p}
	case o.Terminal:
		return &tableReporter{textReporter: textReporter{errorWriter: w, environment: p}, width: o.Width}
	}
	return &textReporter{errorWriter: w, environment: p}
}

// errorWriter writes until the first error, which it keeps.
type errorWriter struct {
	w   io.Writer
	err error
}

func (w *errorWriter) write(s string) {
	if w.err == nil {
		_, w.err = io.WriteString(w.w, s)
	}
}

func (w *errorWriter) printf(format string, args ...any) { w.write(fmt.Sprintf(format, args...)) }

// textReporter reports in plain text, a line an event.
type textReporter struct {
	*errorWriter
	environment environment
}

func (l *textReporter) start(snapshot) {
	l.write("Ringwall demo: a PBX, customers and attackers, all inside this process.\n")
	switch {
	case l.environment.dryRun:
		l.printf("DRY RUN: this system lets Ringwall make no network of its own, so nothing is banned in a kernel "+
			"and no packet is\n"+
			"stopped; below is what Ringwall decides. Try: sudo ringwall demo\n(%s)\n",
			printable.Line(l.environment.dryRunReason))
	case l.environment.userNS:
		l.write("You are not root, so it all happens in a user namespace: the kernel and the bans are real all the " +
			"same.\n")
	default:
		l.write("They are in network namespaces of their own: the kernel, the packets and the bans are real, your " +
			"firewall is not touched.\n")
	}
	l.write("\n")
}

func (l *textReporter) progress(s snapshot, news []ban.Decision) {
	for _, d := range news {
		l.printf("%s\n", s.decisionLine(d))
	}
}

func (l *textReporter) finish(s snapshot, failures []string, err error) error {
	l.write("\n")
	for _, text := range s.tableLines(100) {
		l.printf("%s\n", text)
	}
	l.writeSummary(s, failures, err)
	return l.err
}

// decisionLine is a decision on one line.
func (s snapshot) decisionLine(d ban.Decision) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6.2fs %-9s %-18s %s", d.Time.Sub(s.start).Seconds(), d.Action, s.subjectOf(d), d.Reason)
	if d.Account != "" {
		b.WriteString(" " + printable.Limit(d.Account, 24))
	}
	if d.Score > 0 {
		fmt.Fprintf(&b, ", %.3g points", d.Score)
	}
	if d.Duration > 0 {
		fmt.Fprintf(&b, ", for %s", humanize.DurationToSecond(d.Duration))
	}
	if d.Detail != "" {
		b.WriteString("; " + printable.Line(d.Detail))
	}
	return b.String()
}

// subjectOf names who a decision is about.
func (s snapshot) subjectOf(d ban.Decision) string {
	switch {
	case d.Prefix.IsValid() && d.Prefix.IsSingleIP():
		return d.Prefix.Addr().String()
	case d.Prefix.IsValid():
		return d.Prefix.String()
	case d.Action == ban.ActionTampering:
		return "nobody"
	}
	return ""
}

// tableLines is the table, no wider than width columns.
func (s snapshot) tableLines(width int) []string {
	format := "%-18s %-12s %5s %7s %7s %8s  %s"
	out := []string{cutAtWord(fmt.Sprintf(format, "source", "who", "sent", "arrived", "stopped", "last at", "verdict"),
		width)}
	for i := range s.rows {
		r := &s.rows[i]
		stopped, after := "", ""
		if r.ban != nil && !s.dry {
			stopped, after = fmt.Sprint(r.stopped()), fmt.Sprintf("+%d ms", r.lastArrivalAfter().Milliseconds())
		}
		text := fmt.Sprintf(format, r.sourceLabel(), r.name, fmt.Sprint(r.sent), fmt.Sprint(r.arrived), stopped, after,
			s.verdictOn(r))
		out = append(out, cutAtWord(text, width))
	}
	return out
}

// cutAtWord shortens a line of visible characters to width columns, at the end of a word.
func cutAtWord(text string, width int) string {
	text = strings.TrimRight(text, " ")
	if printable.Width(text) <= width {
		return text
	}
	for printable.Width(text) > width-1 {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	if i := strings.LastIndexByte(text, ' '); i > 0 {
		text = text[:i]
	}
	return strings.TrimRight(text, " :,;") + "…"
}

// verdictOn is what Ringwall made of a row.
func (s snapshot) verdictOn(r *participantRow) string {
	switch {
	case r.ban != nil && s.dry:
		return "would ban " + humanize.DurationToSecond(r.ban.Duration) + ": " + string(r.ban.Reason)
	case r.ban != nil:
		return "BANNED " + humanize.DurationToSecond(r.ban.Duration) + ": " + string(r.ban.Reason)
	case r.tamperingReported:
		return "tampering"
	case r.trusted && r.misconfigured:
		return "trusted, but one phone is misconfigured"
	case r.trusted:
		return "trusted"
	case r.misconfigured:
		return "misconfigured"
	}
	return ""
}

// writeSummary says at the end what was shown, and what to do next.
func (l *textReporter) writeSummary(s snapshot, failures []string, err error) {
	say := func(format string, args ...any) { l.printf(format+"\n", args...) }
	say("\nAfter %.1f s:", s.elapsed.Seconds())
	customers, packets, knocked := []string{}, 0, 0
	var slowest participantRow
	for i := range s.rows {
		r := &s.rows[i]
		switch {
		case r.role == customer && r.ban == nil:
			customers = append(customers, r.name)
			packets += r.arrived
		case r.role == attacker && r.ban != nil && s.dry:
			say("  %s would be banned for %s (%s) after %d packets.", r.sourceLabel(),
				humanize.DurationToSecond(r.ban.Duration), r.ban.Reason,
				r.seqAtBan)
		case r.role == attacker && r.ban != nil && r.leaked() == 0:
			say("  %s is banned for %s (%s): its last packet arrived %d ms after its first, and %d were stopped.",
				r.sourceLabel(), humanize.DurationToSecond(r.ban.Duration), r.ban.Reason,
				r.lastArrivalAfter().Milliseconds(),
				r.stopped())
			knocked += r.arrivedAfterBan
			if r.reaction >= slowest.reaction {
				slowest = *r
			}
		}
	}
	if len(slowest.name) > 0 {
		say("  The slowest ban was in the kernel %.2g ms after the packet that was one too many.",
			1000*slowest.reaction.Seconds())
	}
	if knocked > 0 {
		say("  %d of their packets came after the bans: a UDP packet may carry anybody's address, so a ban for such "+
			"packets leaves\n  a door by which a customer can log in. It is shut for whoever goes on attacking.",
			knocked)
	}
	if len(customers) > 0 {
		say("  Never banned: %s. %d packets of theirs arrived.", strings.Join(customers, ", "), packets)
	}
	if s.tampered > 0 {
		say("  One packet wrote a line of its own into the AMI stream, to blame %s: reported as tampering.",
			bystander())
	}
	var ended *earlyError
	if errors.As(err, &ended) {
		say("\nEnded early: not everything was shown.")
		return
	}
	if err != nil || len(failures) > 0 {
		say("\nThis is not all that should have happened:")
		for _, f := range failures {
			say("  %s", printable.Line(f))
		}
		if len(failures) == 0 {
			say("  %s", printable.Line(strings.TrimPrefix(err.Error(), "demo: ")))
		}
		return
	}
	say("\nNext: write /etc/ringwall/ringwall.yaml for your PBX (examples/minimal.yaml has six lines), then try\n" +
		"ringwall check, ringwall doctor, and ringwall run.")
}

// lastLines keeps the last lines of a log.
type lastLines struct {
	mu   sync.Mutex
	max  int
	kept []string
}

// Write takes one line, as slog's handlers write it.
func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == l.max {
		l.kept = slices.Delete(l.kept, 0, 1)
	}
	l.kept = append(l.kept, string(p))
	return len(p), nil
}

func (l *lastLines) writeTo(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.kept {
		_, _ = io.WriteString(w, line)
	}
}
