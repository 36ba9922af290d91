package fail2ban

import (
	"bufio"
	"errors"
	"testing"
	"time"
)

// Resolve reads a set of files, and returns what looks an option up in it.
func Resolve(dir, name string) (func(section, key string) (string, bool), error) {
	c, err := readConfig(dir, name)
	if err != nil {
		return nil, err
	}
	return func(section, key string) (string, bool) {
		v, ok, err := c.interpolatedOption(section, key)
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
	c := &jailConfig{sections: map[string]iniSection{defaultsSection: {}}}
	c.mergeFile(parseINI(text))
	v, _, err := c.interpolatedOption(name, key)
	return v, err
}

// WhileDatabaseIsRead calls f between the first and the last line that the reader of a database prints.
func WhileDatabaseIsRead(t *testing.T, path string, f func()) {
	t.Helper()
	cmd, err := databaseCommand(t.Context(), path, t.TempDir(), time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Error("the reader prints nothing")
	}
	f()
	for lines.Scan() {
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

// ParseBan reads a line of fail2ban's client.
func ParseBan(line string, zone *time.Location, now time.Time) (ip string, since time.Time, err error) {
	row, err := parseBan(line, zone, now)
	return row.ip, time.Unix(row.since, 0).In(zone), err
}
