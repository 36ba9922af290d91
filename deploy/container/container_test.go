package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/pkg/config"
)

const root = "../.."

func decodeYAML[T any](t *testing.T, name string) []T {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []T
	for d := yaml.NewDecoder(f); ; {
		var one T
		switch err := d.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, one)
	}
}

// TestComposeGivesWhatTheDaemonNeeds reads compose.yaml for the host's network, the one capability, and paths that are
// there.
func TestComposeGivesWhatTheDaemonNeeds(t *testing.T) {
	file := decodeYAML[struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			NetworkMode string   `yaml:"network_mode"`
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			Volumes     []string
		}
		Volumes map[string]any
	}](t, "compose.yaml")[0]
	s, ok := file.Services["ringwall"]
	if !ok {
		t.Fatal("no service ringwall")
	}
	if s.NetworkMode != "host" || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
		!slices.Equal(s.CapAdd, []string{"NET_ADMIN"}) {
		t.Errorf("network %q, dropped %q, added %q", s.NetworkMode, s.CapDrop, s.CapAdd)
	}
	if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	for _, v := range s.Volumes {
		from, _, _ := strings.Cut(v, ":")
		if _, ok := file.Volumes[from]; !ok && !strings.HasPrefix(from, "../..") {
			t.Errorf("volume %q is named nowhere", v)
		}
	}
}

// TestSidecarIsWhole follows the references within sidecar.yaml, and reads the configuration in it.
func TestSidecarIsWhole(t *testing.T) {
	type object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		StringData map[string]string `yaml:"stringData"`
		Data       map[string]string
		Spec       struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Name string
						Env  []struct {
							Name      string
							ValueFrom struct {
								SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
							} `yaml:"valueFrom"`
						}
						SecurityContext struct {
							Capabilities struct{ Drop, Add []string }
						} `yaml:"securityContext"`
						VolumeMounts []struct{ Name string } `yaml:"volumeMounts"`
					}
					Volumes []struct {
						Name      string
						ConfigMap struct{ Name string } `yaml:"configMap"`
					}
				}
			}
			VolumeClaimTemplates []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
		}
	}
	byKind := map[string]object{}
	for _, o := range decodeYAML[object](t, "sidecar.yaml") {
		byKind[o.Kind] = o
	}
	secret, configMap, set := byKind["Secret"], byKind["ConfigMap"], byKind["StatefulSet"]

	variables := map[string]string{}
	volumes := map[string]bool{}
	for _, v := range set.Spec.Template.Spec.Volumes {
		volumes[v.Name] = true
		if name := v.ConfigMap.Name; name != "" && name != configMap.Metadata.Name {
			t.Errorf("volume %s wants the ConfigMap %q", v.Name, name)
		}
	}
	for _, v := range set.Spec.VolumeClaimTemplates {
		volumes[v.Metadata.Name] = true
	}
	found := false
	for _, c := range set.Spec.Template.Spec.Containers {
		if c.Name != "ringwall" {
			continue
		}
		found = true
		if can := c.SecurityContext.Capabilities; !slices.Equal(can.Drop, []string{"ALL"}) ||
			!slices.Equal(can.Add, []string{"NET_ADMIN"}) {
			t.Errorf("capabilities: %+v", can)
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("mounts %q, which is no volume", m.Name)
			}
		}
		for _, e := range c.Env {
			if ref := e.ValueFrom.SecretKeyRef; ref.Name == secret.Metadata.Name {
				variables[e.Name] = secret.StringData[ref.Key]
			}
		}
	}
	if !found {
		t.Fatal("no container ringwall")
	}
	env := config.Environment{Lookup: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}
	_, warnings, err := config.Parse(strings.NewReader(configMap.Data["ringwall.yaml"]), "ringwall.yaml", env)
	if err != nil || len(warnings) > 0 {
		t.Errorf("configuration: %v, warnings %v", err, warnings)
	}
}

// TestDockerfileCopiesWhatIsThere compares it with the source tree and with what it lets Docker see of it.
func TestDockerfileCopiesWhatIsThere(t *testing.T) {
	file, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	wants := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(module)
	has := regexp.MustCompile(`golang:(\d+\.\d+)-`).FindSubmatch(file)
	if wants == nil || has == nil || string(wants[1]) != string(has[1]) {
		t.Errorf("go.mod wants Go %s, the image has %s", wants, has)
	}
	ignore, err := os.ReadFile("Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(ignore)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, want := range []string{"go.mod", "go.sum", "cmd", "pkg"} {
		if !slices.Contains(strings.Fields(string(ignore)), "!"+want) {
			t.Errorf("the build does not see %s", want)
		}
	}
}
