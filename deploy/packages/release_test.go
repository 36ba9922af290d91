package packages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
)

const releaseVersion = "1.2.3"

// releaseNews is what a user notices of it, above what the changelog has.
const releaseNews = `- semver: 1.2.3
  date: 2026-11-29T00:00:00Z
  packager: The Ringwall authors <packages@ringwall.example>
  changes:
    - note: "One: \"quoted\"."
    - note: Two.
`

// releaseTree is this source tree as one commit, with its tag, and its entry in the changelog.
func releaseTree(t *testing.T) string {
	t.Helper()
	dir := olderCopy(t)
	if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
		t.Fatal(err)
	}
	changelog := filepath.Join(dir, "deploy/packages/changelog.yaml")
	older, err := os.ReadFile(changelog)
	if err != nil {
		t.Fatal(err)
	}
	write(t, changelog, releaseNews+string(older))
	git(t, dir, "init", "-q")
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "Before")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "A release")
	git(t, dir, "tag", "v"+releaseVersion)
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// git runs with nobody's configuration, at the time of these tests.
func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@ringwall.example", "GIT_AUTHOR_DATE="+epoch+" +0000",
		"GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@ringwall.example", "GIT_COMMITTER_DATE="+epoch+" +0000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// tryRelease makes a release for this machine alone and returns what is said.
func tryRelease(t *testing.T, tree string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(tree, "deploy/packages/release"),
		append([]string{"-arch", runtime.GOARCH}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRelease is refused what no release is. With RINGWALL_RELEASE=yes it makes one, too, and again at another place, which
// takes a minute or two; TestPackages makes the packages of a tree each time.
func TestRelease(t *testing.T) {
	tree := releaseTree(t)
	if os.Getenv("RINGWALL_RELEASE") != "" {
		testRelease(t, tree)
	}
	for _, row := range []struct{ name, before, version, says string }{
		{"no version", "", "v1.2.3", "allowed are versions such as"},
		{"a tag that is not the version", "", "1.3.0", "this commit is v1.2.3, not v1.3.0"},
		{"a file that is not committed", "touch new", releaseVersion, "git stash -u"},
		{"a file that was changed", "rm new; echo >>README.md", releaseVersion, "git stash -u"},
		{"a commit without a tag", "git commit -q -a -m later", "1.3.0", "this commit has no tag: git tag -a v1.3.0"},
		{"the tag of another commit", "", releaseVersion, "git checkout v1.2.3"},
		{"a version without a changelog", "git tag v1.3.0", "1.3.0", "write there what a user notices"},
		{"two tags", "git tag v1.4.0", "1.3.0", "this commit is v1.3.0 v1.4.0"},
	} {
		t.Run(row.name+" is refused", func(t *testing.T) {
			before := exec.CommandContext(t.Context(), "bash", "-euc", row.before)
			before.Dir = tree
			before.Env = append(os.Environ(), "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@ringwall.example",
				"GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@ringwall.example")
			if out, err := before.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", row.before, err, out)
			}
			dir := filepath.Join(t.TempDir(), "new")
			if out, err := tryRelease(t, tree, nil, row.version, dir); err == nil || !strings.Contains(out, row.says) {
				t.Errorf("%v, without %q:\n%s", err, row.says, out)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("it leaves a folder: %v", err)
			}
		})
	}
	if out, err := tryRelease(t, tree, nil, "-key", "", releaseVersion, filepath.Join(t.TempDir(), "new")); err == nil ||
		!strings.Contains(out, "-key needs a fingerprint") {
		t.Errorf("without a key, which was asked for: %v\n%s", err, out)
	}
}

// testRelease makes one, and again at another place.
func testRelease(t *testing.T, tree string) {
	t.Helper()
	key := newSigner(t, "The key <packages@ringwall.example>")
	first := filepath.Join(t.TempDir(), "new")
	// What git ignores is no part of it, nor what this machine's Go is told besides.
	write(t, filepath.Join(tree, ".git/info/exclude"), "broken.go\n")
	write(t, filepath.Join(tree, "cmd/ringwall/broken.go"), "package broken\n")
	git(t, tree, "branch", "v"+releaseVersion, "v"+releaseVersion+"~") // a branch that has the name of the tag
	env := []string{"GNUPGHOME=" + key.home, "SOURCE_DATE_EPOCH=1", "RINGWALL_VERSION=9.9.9", "GOFLAGS=-tags=x"}
	if out, err := tryRelease(t, tree, env, "-key", key.fingerprint, releaseVersion, first); err != nil {
		t.Fatalf("release: %v\n%s", err, out)
	}
	t.Run("its checksums are signed, and name every file", func(t *testing.T) {
		sums, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		var have, listed []string
		files, err := os.ReadDir(first)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasPrefix(file.Name(), "SHA256SUMS") {
				have = append(have, file.Name())
			}
		}
		for line := range strings.Lines(string(sums)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			listed = append(listed, name)
			if fileChecksum(t, filepath.Join(first, name)) != sum {
				t.Errorf("%s has not the checksum of SHA256SUMS", name)
			}
		}
		if !slices.Equal(have, listed) || len(have) != 5 { // .deb, .rpm, .tar.gz, .cdx.json, notes.md
			t.Errorf("files %q, checksums of %q", have, listed)
		}
		verify := exec.CommandContext(t.Context(), "gpg", "--batch", "--verify", "SHA256SUMS.asc", "SHA256SUMS")
		verify.Dir, verify.Env = first, append(os.Environ(), "GNUPGHOME="+key.home)
		if out, err := verify.CombinedOutput(); err != nil {
			t.Errorf("the signature: %v\n%s", err, out)
		}
	})
	t.Run("again, from another place, it is the same bytes", func(t *testing.T) {
		elsewhere, second := filepath.Join(t.TempDir(), "elsewhere"), t.TempDir()
		git(t, tree, "clone", "-q", tree, elsewhere)
		if out, err := tryRelease(t, elsewhere, nil, releaseVersion, second); err != nil {
			t.Fatalf("release: %v\n%s", err, out)
		}
		a, b := filepath.Join(first, "SHA256SUMS"), filepath.Join(second, "SHA256SUMS")
		if fileChecksum(t, a) != fileChecksum(t, b) {
			t.Errorf("they differ:\n%s\n%s", outputOf(t, "cat", a), outputOf(t, "cat", b))
		}
	})
	program := filepath.Join(t.TempDir(), "ringwall")
	t.Run("the program alone is the program of the packages, and says its version", func(t *testing.T) {
		dir := filepath.Dir(program)
		archive := filepath.Join(first, "ringwall_"+runtime.GOARCH+".tar.gz")
		outputOf(t, "tar", "-C", dir, "--strip-components=1", "-xzf", archive)
		if out := outputOf(t, program, "version"); !strings.Contains(out, releaseVersion) {
			t.Errorf("it says %s", out)
		}
		for _, name := range []string{"LICENSE", "licences.txt", "README.md", "deploy/docs/install.md",
			"deploy/systemd/ringwall.service"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		deb, unpacked := filepath.Join(first, "ringwall_"+runtime.GOARCH+".deb"), t.TempDir()
		outputOf(t, "dpkg-deb", "-x", deb, unpacked)
		if fileChecksum(t, filepath.Join(unpacked, "usr/bin/ringwall")) != fileChecksum(t, program) {
			t.Error("the .deb has another program")
		}
		if v := outputOf(t, "dpkg-deb", "-f", deb, "Version"); v != releaseVersion {
			t.Errorf("the .deb is version %s", v)
		}
	})
	t.Run("the list of modules is what the Go tool reads in the program", func(t *testing.T) {
		file, err := os.Open(filepath.Join(first, "ringwall_"+runtime.GOARCH+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		var bom cyclonedx.BOM
		if err := cyclonedx.NewBOMDecoder(file, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
			t.Fatal(err)
		}
		var have, want []string
		for _, part := range *bom.Components {
			have = append(have, part.Name+" "+part.Version)
		}
		want = append(want, "std "+strings.TrimPrefix(outputOf(t, "go", "env", "GOVERSION"), "go"))
		for line := range strings.Lines(outputOf(t, "go", "version", "-m", program)) {
			if field := strings.Fields(line); field[0] == "dep" {
				want = append(want, field[1]+" "+field[2])
			}
		}
		if !slices.Equal(have, want) || len(have) < 10 {
			t.Errorf("modules %q, want %q", have, want)
		}
		ringwall := bom.Metadata.Component
		if ringwall.Version != releaseVersion || (*ringwall.Hashes)[0].Value != fileChecksum(t, program) {
			t.Errorf("it is a list of version %s, of a program with the checksum %v", ringwall.Version, *ringwall.Hashes)
		}
	})
	t.Run("what is new comes from the changelog", func(t *testing.T) {
		notes, err := os.ReadFile(filepath.Join(first, "notes.md"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "# Ringwall 1.2.3, 2026-11-29\n\n- One: \"quoted\".\n- Two.\n"; string(notes) != want {
			t.Errorf("notes.md:\n%s\nwant:\n%s", notes, want)
		}
	})
	if out, err := tryRelease(t, tree, nil, releaseVersion, first); err == nil ||
		!strings.Contains(out, "give a folder that is new") {
		t.Errorf("into a release that is there: %v\n%s", err, out)
	}
}
