package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/ringwall/ringwall/"
	root   = "../../"
)

// TestEachPackageImportsOnlyFromLowerFloors reads the table of floors in ARCHITECTURE.md: a package imports packages
// of lower floors only, and every package has one floor.
func TestEachPackageImportsOnlyFromLowerFloors(t *testing.T) {
	floors := floorsOf(t)
	found := make(map[string]bool)
	for dir, files := range goPackages(t, "pkg", "cmd") {
		found[dir] = true
		owner, _, _ := strings.Cut(dir, "/internal/")
		floor, ok := floors[dir]
		if !ok && owner != "pkg" { // a package's own
			floor, ok = floors[owner]
		}
		if !ok {
			t.Errorf("%s has no floor in ARCHITECTURE.md: write it into the table \"Who may import whom\"", dir)
			continue
		}
		for _, file := range files {
			for _, name := range importedPaths(file) {
				other, ours := strings.CutPrefix(name, module)
				if !ours || strings.HasPrefix(other, dir+"/internal/") {
					continue
				}
				if below, ok := floors[other]; ok && below >= floor {
					t.Errorf("%s (floor %d) imports %s (floor %d): allowed are lower floors only", dir, floor, other,
						below)
				}
			}
		}
	}
	for dir := range floors {
		if !found[dir] {
			t.Errorf("ARCHITECTURE.md gives a floor to %s, which does not exist", dir)
		}
	}
}

// TestPurePackagesHaveNoClockAndNoIO holds the packages that ARCHITECTURE.md calls pure to it: replay, why, the tests
// and the daemon come to the same decisions only because nothing but the arguments goes in.
func TestPurePackagesHaveNoClockAndNoIO(t *testing.T) {
	_, list, ok := strings.Cut(architectureText(t), "<!-- pure -->\n")
	list, _, closed := strings.Cut(list, "<!-- end -->")
	pure := quotedNames(list)
	if !ok || !closed || len(pure) < 2 {
		t.Fatalf("ARCHITECTURE.md does not say after <!-- pure --> which packages are pure: found %q", pure)
	}
	impure := []string{"context", "crypto/rand", "log", "log/slog", "math/rand", "net", "net/http", "os", "os/exec",
		"runtime", "sync", "syscall"}
	packages := goPackages(t, "pkg")
	for _, dir := range pure {
		files, ok := packages[dir]
		if !ok {
			t.Errorf("ARCHITECTURE.md calls %s pure, which does not exist", dir)
		}
		for _, file := range files {
			for _, name := range importedPaths(file) {
				if slices.Contains(impure, name) || strings.HasPrefix(name, "golang.org/x/sys") {
					t.Errorf("%s is pure and imports %s", dir, name)
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s is pure and starts a goroutine", dir)
				case *ast.SelectorExpr:
					if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(
						[]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker",
							"Tick"}, n.Sel.Name) {
						t.Errorf("%s is pure and calls time.%s", dir, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// TestWhatTheMapNamesExists looks for every file and folder that ARCHITECTURE.md and GLOSSARY.md name.
func TestWhatTheMapNamesExists(t *testing.T) {
	named := 0
	for _, page := range []string{"ARCHITECTURE.md", "GLOSSARY.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range quotedNames(string(text)) {
			if !regexp.MustCompile(`^(pkg|cmd|deploy|examples)/[\w./-]*$`).MatchString(name) {
				continue
			}
			named++
			if _, err := os.Stat(root + name); err != nil {
				t.Errorf("%s names %s: %v", page, name, err)
			}
		}
	}
	if named < 40 {
		t.Errorf("only %d files and folders are named: is the pattern of this test right?", named)
	}
}

// floorsOf reads the rows "| 3 | `pkg/a`, `pkg/b` | … |".
func floorsOf(t *testing.T) map[string]int {
	floors := make(map[string]int)
	for line := range strings.Lines(architectureText(t)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		floor, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue
		}
		for _, dir := range quotedNames(cells[2]) {
			if before, twice := floors[dir]; twice {
				t.Errorf("%s is on floor %d and on floor %d", dir, before, floor)
			}
			floors[dir] = floor
		}
	}
	if len(floors) < 10 {
		t.Fatalf("ARCHITECTURE.md has no table of floors: found %v", floors)
	}
	return floors
}

func architectureText(t *testing.T) string {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// quotedNames returns what stands between backticks.
func quotedNames(text string) (names []string) {
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// goPackages returns the files of each package below some folders, without tests and what is internal to one package.
func goPackages(t *testing.T, tops ...string) map[string][]*ast.File {
	packages := make(map[string][]*ast.File)
	set := token.NewFileSet()
	for _, top := range tops {
		err := filepath.WalkDir(root+top, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			dir := path.Dir(strings.TrimPrefix(filepath.ToSlash(name), root))
			packages[dir] = append(packages[dir], file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return packages
}

func importedPaths(file *ast.File) (names []string) {
	for _, spec := range file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		names = append(names, name)
	}
	return names
}
