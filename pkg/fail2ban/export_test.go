package fail2ban

import "testing"

// Resolve reads a set of files, and returns what looks an option up in it.
func Resolve(dir, name string) (func(section, key string) (string, bool), error) {
	c, err := readConfig(dir, name)
	if err != nil {
		return nil, err
	}
	return func(section, key string) (string, bool) {
		v, ok, err := c.get(section, key)
		return v, ok && err == nil
	}, nil
}

// Parse reads one file, and returns how many sections and mistakes there are, with the values of one section.
func Parse(text, name string) (sections, mistakes int, values map[string]string) {
	f := parseINI(text)
	return len(f.sections), len(f.mistakes), f.sections[name]
}

// Expand fills in a value of a file that has only one section.
func Expand(text, name, key string) (string, error) {
	c := &config{sections: map[string]section{defaults: {}}}
	c.merge(parseINI(text))
	v, _, err := c.get(name, key)
	return v, err
}

// WhileOpen calls f while a database is held for reading.
func WhileOpen(t *testing.T, path string, f func()) {
	t.Helper()
	s, err := openSnapshot(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	f()
}
