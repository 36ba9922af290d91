package setup

import (
	"os"
	"path"
	"path/filepath"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

// A Flavour is who writes Asterisk's configuration.
type Flavour string

// The flavours. Source is every other: Asterisk from source, or whoever leaves manager.conf to its administrator.
const (
	Debian  Flavour = "Debian"
	FreePBX Flavour = "FreePBX"
	Issabel Flavour = "Issabel"
	Wazo    Flavour = "Wazo"
	Source  Flavour = "source"
)

// generatesManagerConf says whether manager.conf is written anew by a program, so that nothing else may be in it. What
// an administrator has to say is in manager_custom.conf there.
func (f Flavour) generatesManagerConf() bool { return f == FreePBX || f == Issabel }

// marks are files and folders by which a flavour is known. Issabel is a fork of FreePBX, and both may run on Debian:
// the first that fits counts.
var marks = []struct {
	flavour Flavour
	paths   []string
}{
	{Issabel, []string{"/etc/issabel.conf", "/etc/issabelpbx.conf"}},
	{FreePBX, []string{"/etc/freepbx.conf", "/etc/amportal.conf"}},
	{Wazo, []string{"/etc/wazo-confgend", "/etc/wazo-confd", "/etc/wazo-amid"}},
	{Debian, []string{"/var/lib/dpkg/info/asterisk.list"}},
}

func flavourOf(root string) Flavour {
	for _, m := range marks {
		for _, p := range m.paths {
			if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
				return m.flavour
			}
		}
	}
	return Source
}

// asteriskFolders are where manager.conf is: the packages' place first, then those of ./configure --prefix.
var asteriskFolders = []string{"/etc/asterisk", "/usr/local/etc/asterisk", "/opt/asterisk/etc/asterisk"}

// findManagerConf returns the path of manager.conf below root: in folder, unless that is empty.
func findManagerConf(root, folder string) (string, error) {
	folders := asteriskFolders
	if folder != "" {
		folders = []string{path.Clean("/" + folder)}
	}
	for _, f := range folders {
		name := path.Join(f, "manager.conf")
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			return name, nil
		}
	}
	if folder != "" {
		return "", hint.Errorf("the folder that holds Asterisk's manager.conf", "there is no manager.conf in %s",
			printable.Line(folder))
	}
	return "", hint.Errorf("install Asterisk first; where it keeps its files elsewhere: ringwall setup --asterisk "+
		"FOLDER",
		"there is no Asterisk here: no manager.conf in %s, %s or %s", folders[0], folders[1], folders[2])
}
