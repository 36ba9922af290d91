// Package managerconf reads Asterisk's manager.conf and what it includes, as Asterisk does (main/config.c): who may log
// in at the Manager Interface, and in which file that is written.
package managerconf

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is read.
const (
	maxFiles     = 64
	maxFileBytes = 4 << 20
)

// General is the section of the interface itself. Every other one is a user, or a template of users.
const General = "general"

// A Section is all that is written under one name, in all files.
type Section struct {
	File       string // the last that has such a section
	OfTemplate bool   // made of a template, which is not followed
	Template   bool   // is one itself
	values     map[string]string
}

// Value is the last value of a key: that one counts. It is empty where there is none.
func (s Section) Value(key string) string { return s.values[strings.ToLower(key)] }

// Config is manager.conf with what it includes.
type Config struct {
	folder   string // where relative names of includes begin: the folder of manager.conf, in every file
	root     string
	sections map[string]*Section
	includes []string // patterns of absolute paths
	files    int
}

// Read reads manager.conf. Paths are those below root, which is "/" but in tests. Of an included file that cannot be
// read nothing is known, which is no error.
func Read(root, file string) (*Config, error) {
	c := &Config{folder: path.Dir(file), root: root, sections: make(map[string]*Section)}
	return c, c.read(file, &reading{})
}

// Section returns what is written under a name, whose case does not count (manager.c compares with strcasecmp).
func (c *Config) Section(name string) (Section, bool) {
	if s := c.sections[strings.ToLower(name)]; s != nil {
		return *s, true
	}
	return Section{}, false
}

// Includes says whether Asterisk reads a file of this name, or would, were it there.
func (c *Config) Includes(file string) bool {
	for _, pattern := range c.includes {
		if ok, err := path.Match(pattern, file); ok && err == nil {
			return true
		}
	}
	return false
}

// reading is where the reader is: the section and the comment go on in an included file.
type reading struct {
	section *Section
	comment bool
}

func (c *Config) read(file string, at *reading) error {
	if c.files++; c.files > maxFiles {
		return errors.New("too many included files")
	}
	// Without O_NONBLOCK a named pipe in place of a file would stop the reader for ever.
	f, err := os.OpenFile(filepath.Join(c.root, file), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(io.LimitReader(f, maxFileBytes))
	for lines.Scan() {
		c.readLine(file, at.withoutComments(lines.Text()), at)
	}
	return lines.Err()
}

func (c *Config) readLine(file, line string, at *reading) {
	directive, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	switch directive = strings.ToLower(directive); {
	case directive == "#include", directive == "#tryinclude":
		c.readIncluded(strings.Trim(rest, " \"<>"), at)
	case strings.HasPrefix(line, "["):
		name, options, ok := strings.Cut(line[1:], "]")
		if !ok {
			return
		}
		name = strings.ToLower(name)
		if c.sections[name] == nil {
			c.sections[name] = &Section{values: make(map[string]string)}
		}
		at.section = c.sections[name]
		at.section.File = file
		for option := range strings.SplitSeq(strings.Trim(options, " ()"), ",") {
			switch strings.TrimSpace(option) {
			case "", "+":
			case "!":
				at.section.Template = true
			default:
				at.section.OfTemplate = true
			}
		}
	case at.section != nil:
		if k, v, ok := strings.Cut(line, "="); ok {
			at.section.values[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(strings.TrimPrefix(v, ">"))
		}
	}
}

// readIncluded reads what an include names: a file, or a pattern.
func (c *Config) readIncluded(name string, at *reading) {
	if name == "" {
		return
	}
	if !path.IsAbs(name) {
		name = path.Join(c.folder, name)
	}
	c.includes = append(c.includes, name)
	list, _ := filepath.Glob(filepath.Join(c.root, name)) // a bad pattern matches nothing
	for _, found := range list {
		below, err := filepath.Rel(c.root, found)
		if err == nil {
			_ = c.read("/"+below, at)
		}
	}
}

// withoutComments takes the comments out of a line: what follows a semicolon that no backslash precedes, and what is
// between ;-- and --;.
func (at *reading) withoutComments(line string) string {
	var kept strings.Builder
	for line != "" {
		switch {
		case at.comment:
			_, after, ok := strings.Cut(line, "--;")
			if !ok {
				return strings.TrimSpace(kept.String())
			}
			at.comment, line = false, after
		case strings.HasPrefix(line, `\;`):
			kept.WriteByte(';')
			line = line[2:]
		case strings.HasPrefix(line, ";--") && !strings.HasPrefix(line, ";---"):
			at.comment, line = true, line[3:]
		case line[0] == ';':
			return strings.TrimSpace(kept.String())
		default:
			kept.WriteByte(line[0])
			line = line[1:]
		}
	}
	return strings.TrimSpace(kept.String())
}
