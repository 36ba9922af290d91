package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// keyPaths lists every key of a struct in the order of its fields, sections before what is in them.
func keyPaths(t reflect.Type, prefix string) []string {
	var paths []string
	for i := range t.NumField() {
		if keyName(t.Field(i)) == notInFile {
			continue
		}
		path := prefix + keyName(t.Field(i))
		paths = append(paths, path)
		switch ft := t.Field(i).Type; {
		case isSection(ft):
			paths = append(paths, keyPaths(ft, path+".")...)
		case ft.Kind() == reflect.Slice && isSection(ft.Elem()):
			paths = append(paths, keyPaths(ft.Elem(), path+"[].")...)
		}
	}
	return paths
}

func TestEachFieldIsASettingAndEachSettingAField(t *testing.T) {
	var paths []string
	for _, s := range allSettings() {
		if !strings.HasPrefix(s.path, "policy.services.") { // a map's keys
			paths = append(paths, s.path)
		}
	}
	fields := keyPaths(reflect.TypeFor[Config](), "")
	if !slices.Equal(paths, fields) {
		for i := range min(len(paths), len(fields)) {
			if paths[i] != fields[i] {
				t.Fatalf("settings() has %s where Config has %s", paths[i], fields[i])
			}
		}
		t.Errorf("settings() has %d keys, Config %d", len(paths), len(fields))
	}
}

func TestSettingsExplainThemselves(t *testing.T) {
	for _, s := range allSettings() {
		if s.meaning == "" || !strings.HasSuffix(s.meaning, ".") && !strings.HasSuffix(s.meaning, "}") {
			t.Errorf("%s: %q is no sentence", s.path, s.meaning)
		}
		if s.byDefault != nil && s.reason == "" {
			t.Errorf("%s: why this default?", s.path)
		}
		for bound, is := range map[string]string{"{least}": s.allowed.least, "{most}": s.allowed.most} {
			if strings.Contains(s.meaning, bound) && is == "" {
				t.Errorf("%s: nothing says what %s is", s.path, bound)
			}
		}
	}
}

func TestDefaultsAreAllowed(t *testing.T) {
	c := Default()
	c.Asterisk, c.Notify, c.Lists = []Asterisk{DefaultAsterisk()}, []Notify{DefaultNotify()}, []List{DefaultList()}
	f := &parser{settings: allSettings(), valueNodes: map[string]*yaml.Node{}, failed: map[string]bool{}}
	f.checkSettings(&c)
	if len(f.mistakes) > 0 || len(f.warnings) > 0 {
		t.Errorf("%v, %v", f.mistakes, f.warnings)
	}
}

// TestDefaultsShareNothing changes what a map and a list hold.
func TestDefaultsShareNothing(t *testing.T) {
	c, n := Default(), DefaultNotify()
	c.Policy.Services["AMI"], c.Firewall.Ports.UDP[0], n.Actions[0] = Observe, 1, "x"
	c, n = Default(), DefaultNotify()
	if c.Policy.Services["AMI"] != Enforce || c.Firewall.Ports.UDP[0] != 5060 || n.Actions[0] != "ban" {
		t.Errorf("%v %v %v", c.Policy.Services, c.Firewall.Ports, n.Actions)
	}
}

func TestNeedRestart(t *testing.T) {
	before, after := Default(), Default()
	after.Policy.Threshold, after.Log.Level = 5, "debug"
	if keys := NeedRestart(&before, &after); len(keys) > 0 {
		t.Errorf("%v are taken over by a reload", keys)
	}
	after.Asterisk, after.Policy.IPv6Prefix, after.State.Path = []Asterisk{DefaultAsterisk()}, 56, "/x"
	if keys := NeedRestart(&before, &after); strings.Join(keys, " ") != "asterisk policy.ipv6_prefix state.path" {
		t.Errorf("%v", keys)
	}
}
