package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxConfFiles bounds what is read of manager.conf and its includes.
const maxConfFiles = 64

// managerSetting reads one key of a user from manager.conf and the files that it includes, and says in which file the
// user is. The last line wins, as in Asterisk. Templates are not followed: a user that is made of one is not
// understood.
func managerSetting(path, user, key string) (value, file string, err error) {
	r := confReader{user: user, key: key}
	if err := r.readFile(path); err != nil {
		return "", "", err
	}
	switch {
	case r.file == "":
		return "", "", fmt.Errorf("no user [%s] in %s", user, path)
	case r.ofTemplate && r.value == "":
		return "", "", fmt.Errorf("[%s] in %s is made of a template", user, r.file)
	}
	return r.value, r.file, nil
}

type confReader struct {
	user, key     string
	files         int
	inUserSection bool
	ofTemplate    bool
	value, file   string
}

func (r *confReader) readFile(path string) error {
	if r.files++; r.files > maxConfFiles {
		return errors.New("too many included files")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), ";")
		line = strings.TrimSpace(line)
		lower := strings.ToLower(line)
		switch {
		case strings.HasPrefix(lower, "#include"), strings.HasPrefix(lower, "#tryinclude"):
			if _, name, ok := strings.Cut(line, " "); ok {
				r.readIncluded(filepath.Dir(path), strings.Trim(name, " \t\"<>"))
			}
		case strings.HasPrefix(line, "["):
			name, rest, _ := strings.Cut(line[1:], "]")
			if r.inUserSection = name == r.user; r.inUserSection {
				r.file = path
				r.ofTemplate = strings.TrimSpace(strings.Trim(rest, "()")) != "" && strings.TrimSpace(rest) != "(+)"
			}
		case r.inUserSection:
			if k, v, ok := strings.Cut(line, "="); ok && strings.EqualFold(strings.TrimSpace(k), r.key) {
				r.value = strings.TrimSpace(strings.TrimPrefix(v, ">"))
			}
		}
	}
	return lines.Err()
}

// readIncluded reads what an include names. What cannot be read is as good as absent: the user is then not found.
func (r *confReader) readIncluded(dir, name string) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	list, _ := filepath.Glob(name) // a bad pattern matches nothing
	for _, path := range list {
		_ = r.readFile(path)
	}
}

// milliseconds reads a number as Asterisk does; 0 for anything else.
func milliseconds(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
