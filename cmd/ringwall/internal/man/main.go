// Command man writes Ringwall's manual pages, of the commands and of the configuration: man DIR REFERENCE.YAML.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: man DIR REFERENCE.YAML")
		os.Exit(2)
	}
	if err := writePages(os.Args[1], os.Args[2], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// writePages makes a page of each command and one of the configuration in dir. The pages bear the date epoch (seconds
// since 1970), so that the same source makes the same pages on every day.
func writePages(dir, reference, epoch string) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH %q: allowed are seconds since 1970: try git log -1 --format=%%ct", epoch)
	}
	date := time.Unix(seconds, 0).UTC()
	root := commands.Tree()
	root.DisableAutoGenTag = true
	prepareTexts(root)
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: "Ringwall", Manual: "Ringwall"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	text, err := os.ReadFile(reference)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "ringwall.yaml.5"), configurationPage(text, date), 0o644)
}

// prepareTexts makes Markdown of the texts, which were written for a terminal: what is indented there stays as it is.
func prepareTexts(cmd *cobra.Command) {
	cmd.Long = toMarkdown(cmd.Long)
	for _, c := range cmd.Commands() {
		prepareTexts(c)
	}
}

func toMarkdown(text string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(text) {
		if indented := strings.HasPrefix(line, "  "); indented != code {
			b.WriteString("\n```\n")
			if !indented {
				b.WriteString("\n")
			}
			code = indented
		}
		b.WriteString(line)
	}
	if code {
		b.WriteString("\n```\n")
	}
	return b.String()
}

// configurationPage is a page in roff with the reference as it is: its comments are the manual.
func configurationPage(reference []byte, date time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH \"RINGWALL.YAML\" \"5\" \"%s\" \"Ringwall\" \"Ringwall\"\n", date.Format("Jan 2006"))
	b.WriteString(`.SH NAME
ringwall.yaml \- configuration of Ringwall
.SH SYNOPSIS
.B /etc/ringwall/ringwall.yaml
.SH DESCRIPTION
One YAML file. Unknown keys and wrong values are errors that name their line:
.BR "ringwall check" .
After a change, try it with
.B systemctl reload ringwall
which keeps the running configuration where the new one has a mistake.
.SH KEYS
.nf
`)
	for line := range bytes.Lines(reference) {
		line = bytes.ReplaceAll(line, []byte(`\`), []byte(`\e`))
		line = bytes.ReplaceAll(line, []byte("-"), []byte(`\-`))
		if bytes.HasPrefix(line, []byte(".")) || bytes.HasPrefix(line, []byte("'")) {
			b.WriteString(`\&`)
		}
		b.Write(line)
	}
	b.WriteString(".fi\n.SH SEE ALSO\n.BR ringwall (1),\n.BR ringwall-check (1)\n")
	return b.Bytes()
}
