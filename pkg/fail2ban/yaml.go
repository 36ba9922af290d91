package fail2ban

import (
	"fmt"
	"io"
	"strings"

	"github.com/ringwall/ringwall/pkg/printable"
)

const commentColumns = 112 // of a comment

// WriteYAML writes the policy and the allow list with comments that say where each value is from. Together with an
// asterisk section it is a whole configuration.
func (im *Import) WriteYAML(w io.Writer) error {
	var b strings.Builder
	writeComment(&b, "", "Suggested by ringwall import fail2ban. Read it, add it to ringwall.yaml below your asterisk "+
		"section, and run ringwall check.")
	if im.Policy.From == "" {
		writeComment(&b, "", "No jail about telephony is enabled, so there are no numbers to carry over: Ringwall's "+
			"defaults remain.")
	} else {
		writeComment(&b, "", "The numbers are those of "+printable.Quote(im.Policy.From)+": of each kind the "+
			"strictest jail's, and no failure counts for less than by Ringwall's default.")
	}
	b.WriteString("policy:\n")
	writeComment(&b, "  ", "Look for a day whom it would ban; then change this to enforce.")
	b.WriteString("  mode: observe\n")
	under := []string{"policy"}
	allowed := false
	for _, s := range im.Policy.Settings {
		if !strings.HasPrefix(s.Key, "policy.") && !allowed {
			im.writeAllow(&b)
			allowed = true
		}
		under = s.writeYAML(&b, under)
	}
	if !allowed {
		im.writeAllow(&b)
	}
	im.writeMails(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeYAML adds a setting, with the parents that the one before it was not under.
func (s Setting) writeYAML(b *strings.Builder, under []string) []string {
	keys := strings.Split(s.Key, ".")
	parents := keys[:len(keys)-1]
	same := 0
	for same < len(parents) && same < len(under) && parents[same] == under[same] {
		same++
	}
	for i := same; i < len(parents); i++ {
		fmt.Fprintf(b, "%s%s:\n", strings.Repeat("  ", i), parents[i])
	}
	indent := strings.Repeat("  ", len(parents))
	writeComment(b, indent, s.Why)
	fmt.Fprintf(b, "%s%s: %s\n", indent, keys[len(keys)-1], s.Value)
	return parents
}

func (im *Import) writeAllow(b *strings.Builder) {
	if len(im.Allow) == 0 {
		return
	}
	writeComment(b, "  ", "ignoreip. This machine's own addresses are protected anyway (ignoreself).")
	b.WriteString("  allow:\n")
	for _, a := range im.Allow {
		fmt.Fprintf(b, "    - %q\n", a.String())
	}
}

// writeComment wraps a text whose values are escaped already.
func writeComment(b *strings.Builder, indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(printable.Line(text)) {
		if len(line)+1+len(word) > commentColumns && line != indent+"#" {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	if line != indent+"#" {
		b.WriteString(line + "\n")
	}
}
