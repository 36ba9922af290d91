package fail2ban

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Bounds of a configuration.
const (
	maxFiles    = 1000
	maxTotal    = 16 << 20
	maxIncludes = 16 // of includes in includes
)

const (
	defaultsSection = "DEFAULT"
	includesSection = "INCLUDES"
	replacedPrefix  = "KNOWN/" // before a section's name: values that a later file replaced
)

// jailConfig is what a name such as "jail" stands for: its files, merged.
type jailConfig struct {
	dir          string
	files        []string
	sectionOrder []string // of the sections
	sections     map[string]iniSection
	notes        []string
	total        int
	steps        int // of interpolation
}

// readConfig reads NAME.conf, NAME.d/*.conf, NAME.local and NAME.d/*.local of a folder, with what they include, in
// fail2ban's order (client/configreader.py). A file that is not there is no error; that none is there is
// fs.ErrNotExist.
func readConfig(dir, name string) (*jailConfig, error) {
	base := filepath.Join(dir, name)
	var list []string
	for _, ext := range []string{".conf", ".local"} {
		list = append(list, base+ext)
		more, err := filepath.Glob(escapeGlob(base+".d") + "/*" + ext)
		if err != nil {
			return nil, err
		}
		slices.Sort(more)
		list = append(list, more...)
	}
	return readFiles(dir, list)
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func readFiles(dir string, list []string) (*jailConfig, error) {
	c := &jailConfig{dir: dir, sections: map[string]iniSection{}}
	c.sectionNamed(defaultsSection)
	var refused error
	for _, path := range list {
		err := c.includeFile(path, list, nil)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			refused = errors.Join(refused, err)
		}
	}
	switch {
	case refused != nil:
		return nil, refused
	case len(c.files) == 0:
		return nil, &fs.PathError{Op: "open", Path: list[0], Err: fs.ErrNotExist}
	}
	return c, nil
}

func (c *jailConfig) addNote(format string, args ...any) {
	if len(c.notes) < 100 {
		c.notes = append(c.notes, fmt.Sprintf(format, args...))
	}
}

// includeFile adds what a file includes before itself, itself, and what it includes after. Beside each NAME.conf that
// is included fail2ban also reads NAME.local.
func (c *jailConfig) includeFile(path string, siblings, seen []string) error {
	if slices.Contains(seen, path) {
		return nil
	}
	if len(seen) > maxIncludes || len(c.files) >= maxFiles {
		c.addNote("%s is not read: there are too many files, or files that include each other", quotePath(path))
		return nil
	}
	seen = append(slices.Clone(seen), path)
	text, err := readSmall(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(err, c.includeLocal(path, siblings, seen))
		}
		return err
	}
	if c.total += len(text); c.total > maxTotal {
		c.addNote("%s is not read: the files are larger than %d bytes together", quotePath(path), maxTotal)
		return nil
	}
	f := parseINI(text)
	c.includeRelated(f, "before", path, seen)
	c.files = append(c.files, path)
	for _, m := range f.mistakes {
		c.addNote("%s: %s", quotePath(path), m)
	}
	c.mergeFile(f)
	c.includeRelated(f, "after", path, seen)
	return c.includeLocal(path, siblings, seen)
}

// includeLocal adds NAME.local, unless it is in the list anyway.
func (c *jailConfig) includeLocal(path string, siblings, seen []string) error {
	local := strings.TrimSuffix(path, filepath.Ext(path)) + ".local"
	if local == path || slices.Contains(siblings, local) {
		return nil
	}
	if err := c.includeFile(local, []string{local}, seen); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *jailConfig) includeRelated(f *iniFile, key, path string, seen []string) {
	for word := range strings.SplitSeq(f.sections[includesSection][key], "\n") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if !filepath.IsAbs(word) {
			word = filepath.Join(filepath.Dir(path), word)
		}
		// Debian's own file includes paths-overrides.local, which nobody has.
		if err := c.includeFile(word, nil, seen); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.addNote("%s is not read: %s", quotePath(word), reasonOf(err))
		}
	}
}

func (c *jailConfig) sectionNamed(name string) iniSection {
	s := c.sections[name]
	if s == nil {
		s = iniSection{}
		c.sections[name] = s
		if name != defaultsSection && name != includesSection && !strings.HasPrefix(name, replacedPrefix) {
			c.sectionOrder = append(c.sectionOrder, name)
		}
	}
	return s
}

func (c *jailConfig) mergeFile(f *iniFile) {
	for _, name := range f.order {
		if len(c.sections) >= 2*maxSections {
			c.addNote("there are more than %d sections: the rest is not read", maxSections)
			return
		}
		_, again := c.sections[name]
		s := c.sectionNamed(name)
		for key, value := range f.sections[name] {
			if old, ok := s[key]; ok && again && name != defaultsSection {
				c.sectionNamed(replacedPrefix + name)[key] = old
			}
			s[key] = value
		}
	}
}

// readSmall reads a regular file of bounded size. A named pipe in its place does not stop the program.
func readSmall(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return string(text), err
}

// reasonOf leaves the path out of an error that a sentence names already.
func reasonOf(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
