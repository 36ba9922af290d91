package firstday

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A block is one fenced block of a page.
type block struct {
	page    string // path from the top of the source tree
	line    int    // of the fence, counted from 1
	lang    string // "sh", "yaml", "text" …
	text    string // without the page's indentation
	follows bool   // it is text right after a block of commands: what the last one writes
	example bool   // it stands in an <!-- example -->, which another test compares
	indent  string
}

const top = "../.."

var fence = regexp.MustCompile("^( *)```(\\w*) *$")

// fencedBlocks reads the fenced blocks of a page.
func fencedBlocks(t *testing.T, page string) []block {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	var open *block
	before := "" // the last line that is not empty
	for i, line := range strings.Split(string(data), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open == nil && m != nil:
			open = &block{page: page, line: i + 1, lang: m[2], indent: m[1], example: before == "<!-- example -->"}
			open.follows = m[2] == "text" && before == "```" && len(list) > 0 && list[len(list)-1].lang == "sh"
		case open != nil && m != nil:
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, open.indent) + "\n"
			continue
		}
		if strings.TrimSpace(line) != "" {
			before = strings.TrimSpace(line)
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block has no end", page, open.line)
	}
	return list
}

// commandLines are the commands of a block of shell, one a line, without remarks.
func (b block) commandLines() []string {
	var list []string
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", "")) {
		line, _, _ = strings.Cut(line, " # ")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

// allPages are README.md and the pages of deploy/docs.
func allPages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(top, "deploy/docs/*.md"))
	if err != nil || len(list) < 6 {
		t.Fatalf("pages: %q, %v", list, err)
	}
	for i := range list {
		list[i], _ = filepath.Rel(top, list[i])
	}
	return append([]string{"README.md"}, slices.Sorted(slices.Values(list))...)
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range allPages(t) {
		data, err := os.ReadFile(filepath.Join(top, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(top, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
			}
		}
	}
}

// TestEveryBlockIsOfAKindThatIsTried lets nobody write a block that no test looks at.
func TestEveryBlockIsOfAKindThatIsTried(t *testing.T) {
	for _, page := range allPages(t) {
		for _, b := range fencedBlocks(t, page) {
			switch b.lang {
			case "sh", "yaml": // TestEveryCommand
			case "promql": // deploy/prometheus asks a Prometheus
				if page != "deploy/docs/metrics.md" {
					t.Errorf("%s:%d: deploy/prometheus looks at metrics.md only", page, b.line)
				}
			case "log": // lines of other programs
			case "text":
				if !b.follows && !b.example {
					t.Errorf("%s:%d: text that is no output: write the commands above it, as ```sh", page, b.line)
				}
			default:
				if !b.example {
					t.Errorf("%s:%d: ```%s is not tried by any test: use sh for commands, text right after them for "+
						"what they write, "+
						"yaml for parts of the configuration, log for lines of other programs", page, b.line, b.lang)
				}
			}
		}
	}
}

// TestIndentedCommands: of the older form of code, four spaces, only the page of benchmarks has some, which take an
// hour.
func TestIndentedCommands(t *testing.T) {
	const bench = "    go -C deploy run ./bench"
	flags := map[string]bool{}
	for _, page := range allPages(t) {
		data, err := os.ReadFile(filepath.Join(top, page))
		if err != nil {
			t.Fatal(err)
		}
		empty, inside := false, false
		for line := range strings.Lines(string(data)) {
			line = strings.TrimRight(line, "\n")
			if fence.MatchString(line) {
				inside = !inside
			}
			switch {
			case inside:
			case strings.HasPrefix(line, bench):
				command, _, _ := strings.Cut(line[len(bench):], "#")
				for _, word := range strings.Fields(command) {
					if strings.HasPrefix(word, "-") {
						flags[word] = true
					}
				}
			case empty && strings.HasPrefix(line, "    "):
				t.Errorf("%s: a block that is not tried: %q; fence it with ```", page, line)
			}
			empty = line == ""
		}
	}
	help, err := exec.CommandContext(t.Context(), "go", "run", "github.com/ringwall/ringwall/deploy/bench",
		"-h").CombinedOutput()
	if len(flags) == 0 || !strings.Contains(string(help), "Usage") {
		t.Fatalf("flags %v, %v\n%s", flags, err, help)
	}
	for flag := range flags {
		if !strings.Contains(string(help), "  "+flag+" ") && !strings.Contains(string(help), "  "+flag+"\n") {
			t.Errorf("deploy/bench has no flag %s", flag)
		}
	}
}

var span = regexp.MustCompile("`(ringwall(?: [^`]*)?)`")

// inlineCommands are the commands of Ringwall's in a page's text, outside of blocks.
func inlineCommands(t *testing.T, page string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	inside := false
	for line := range strings.Lines(string(data)) {
		if fence.MatchString(strings.TrimRight(line, "\n")) {
			inside = !inside
			continue
		}
		if inside {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			list = append(list, m[1])
		}
	}
	return list
}
