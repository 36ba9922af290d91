// Package service knows the systemd unit: as whom the daemon runs, and which files that user can read. What root can
// read says nothing about it.
package service

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Name is the unit, and the user and the group of the packages.
const Name = "ringwall"

// User is who the daemon runs as.
type User struct {
	Name     string
	Group    string // its primary group
	uid      int
	gid      int
	groups   []int
	unitFile string // what says so: the unit's file
}

// String names it.
func (u *User) String() string { return u.Name }

// TakeOver gives a file to the user, and to its group.
func (u *User) TakeOver(path string) error { return os.Chown(path, u.uid, u.gid) }

// FindUser returns who the service runs as: the User of the unit that systemd would start, or where there is no unit
// the user of the packages. It is nil, without an error, where neither is there, and where that user is root. root is
// the folder that holds etc and usr: "/" but in tests.
func FindUser(root string) (*User, error) {
	name, group, supplementary, unitFile := readUnit(root)
	lookup := name
	if unitFile == "" {
		lookup = Name
	}
	if lookup == "" || lookup == "root" || lookup == "0" {
		return nil, nil
	}
	u, err := user.Lookup(lookup)
	if _, numeric := strconv.Atoi(lookup); err != nil && numeric == nil {
		u, err = user.LookupId(lookup)
	}
	if err != nil {
		if unitFile == "" {
			return nil, nil
		}
		return nil, fmt.Errorf("%s: User=%s: %w", unitFile, lookup, err)
	}
	found := &User{Name: u.Username, unitFile: unitFile}
	if found.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	if found.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	if group != "" {
		if found.gid, err = groupID(group); err != nil {
			return nil, fmt.Errorf("%s: Group=%s: %w", unitFile, group, err)
		}
	}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.Atoi(id); err == nil {
				found.groups = append(found.groups, n)
			}
		}
	}
	for _, g := range supplementary {
		if n, err := groupID(g); err == nil {
			found.groups = append(found.groups, n)
		}
	}
	found.Group = strconv.Itoa(found.gid)
	if g, err := user.LookupGroupId(found.Group); err == nil {
		found.Group = g.Name
	}
	if found.uid == 0 {
		return nil, nil
	}
	return found, nil
}

func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// readUnit reads User, Group and SupplementaryGroups of the unit and of its drop-ins (systemd.unit(5), table 1: the
// first folder that has a file of a name counts; drop-ins are read in the order of their names). from is the unit's
// file, empty for none.
func readUnit(root string) (name, group string, supplementary []string, unitFile string) {
	folders := []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system",
		"usr/lib/systemd/system", "lib/systemd/system"}
	for _, dir := range folders {
		path := filepath.Join(root, dir, Name+".service")
		if text, err := os.ReadFile(path); err == nil {
			unitFile = path
			name, group, supplementary = applySettings(string(text), name, group, supplementary)
			break
		}
	}
	if unitFile == "" {
		return "", "", nil, ""
	}
	dropIns := make(map[string]string)
	for _, dir := range slices.Backward(folders) {
		list, _ := filepath.Glob(filepath.Join(root, dir, Name+".service.d", "*.conf"))
		for _, path := range list {
			dropIns[filepath.Base(path)] = path
		}
	}
	var names []string
	for base := range dropIns {
		names = append(names, base)
	}
	slices.Sort(names)
	for _, base := range names {
		if text, err := os.ReadFile(dropIns[base]); err == nil {
			name, group, supplementary = applySettings(string(text), name, group, supplementary)
		}
	}
	return name, group, supplementary, unitFile
}

// applySettings reads User, Group and SupplementaryGroups of a unit's file, and returns them in place of those that
// earlier files said.
func applySettings(text, name, group string, supplementary []string) (string, string, []string) {
	section := ""
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Service]" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "User":
			name = value
		case "Group":
			group = value
		case "SupplementaryGroups":
			if supplementary = append(supplementary, strings.Fields(value)...); value == "" {
				supplementary = nil
			}
		}
	}
	return name, group, supplementary
}

// An AccessError says that the service's user cannot read what root can. It is an fs.ErrPermission.
type AccessError struct {
	User  *User
	Path  string // that was to be read
	Block string // what is in the way: the file itself, or a folder on the way to it
}

// Error says who.
func (e *AccessError) Error() string {
	if e.Block != e.Path {
		return fmt.Sprintf("the service's user %s may not enter %s", e.User, e.Block)
	}
	return fmt.Sprintf("the service's user %s may not read it", e.User)
}

// Hint says what would mend it.
func (e *AccessError) Hint() string {
	if e.Block != e.Path {
		return fmt.Sprintf("chgrp %s %s && chmod g+rx %s", e.User.Group, e.Block, e.Block)
	}
	return fmt.Sprintf("chgrp %s %s && chmod 0640 %s", e.User.Group, e.Path, e.Path)
}

// Unwrap makes it an fs.ErrPermission.
func (e *AccessError) Unwrap() error { return fs.ErrPermission }

// Open opens a file for reading as the service's user would, whom the kernel itself asks, access control lists
// included. The process must be root. What only root can read is an [*AccessError] in an [*fs.PathError].
func (u *User) Open(name string) (fs.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		// The thread has another identity from here on, and ends with the goroutine, which never unlocks it.
		runtime.LockOSThread()
		f, err := u.openOnThread(name)
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return r.f, nil
}

// openOnThread runs on a thread of its own. These system calls change the identity of one thread; those of package
// syscall change that of all. With an fsuid that is not 0 the kernel drops the thread's capabilities about files
// (capabilities(7)).
func (u *User) openOnThread(name string) (*os.File, error) {
	if err := unix.Setgroups(append([]int{u.gid}, u.groups...)); err != nil {
		return nil, fmt.Errorf("become the service's user %s: %w", u, err)
	}
	_, _ = unix.SetfsgidRetGid(u.gid)
	_, _ = unix.SetfsuidRetUid(u.uid)
	if now, err := unix.SetfsuidRetUid(-1); err != nil || now != u.uid {
		return nil, fmt.Errorf("become the service's user %s: %w", u, errors.Join(err, fs.ErrPermission))
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		err = &fs.PathError{Op: "open", Path: name, Err: &AccessError{User: u, Path: name, Block: blockedAt(name)}}
	}
	return f, err
}

// blockedAt returns what keeps the thread's user from a path: the path itself, or the folder that it may not enter.
func blockedAt(path string) string {
	block := path
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0) // asks only for the way to it (open(2))
		if err == nil {
			_ = unix.Close(fd)
			if p != filepath.Clean(path) {
				block = p
			}
			return block
		}
		if p == filepath.Dir(p) {
			return block
		}
	}
}
