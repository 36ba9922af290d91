package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/deploy/trial"
)

var program string

func TestMain(m *testing.M) {
	_ = os.Setenv("CGO_ENABLED", "0") // as in the Dockerfile: an image from scratch has no libraries
	trial.Main(m, &program)
}

// container does what Docker, Podman and Kubernetes do with the recipes: an image of nothing but the program, which can
// only be read; root with the one capability, who may not read what is not root's; volumes. (chroot needs a capability
// more, which changes nothing here.) It waits until the daemon answers, and prints what it says.
const container = `
root=$1 etc=$2 state=$3 program=$4
mkdir -p "$root/etc/ringwall" "$root/run/ringwall" "$root/var/lib/ringwall" "$root/usr/bin" "$root/proc"
cp "$program" "$root/usr/bin/ringwall"
mount --bind "$root" "$root"
mount --bind "$etc" "$root/etc/ringwall"
mount -o remount,bind,ro "$root/etc/ringwall"
mount --bind "$state" "$root/var/lib/ringwall"
mount -t tmpfs -o mode=0755 tmpfs "$root/run/ringwall"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
ip link set lo up
inside() {
	exec setpriv --inh-caps -all --bounding-set -all,+net_admin,+sys_chroot --no-new-privs -- \
		chroot "$root" /usr/bin/ringwall "$@"
}
(inside run) >"$root.log" 2>&1 &
daemon=$!
until (inside status); do
	kill -0 "$daemon" || { cat "$root.log"; exit 1; }
	sleep 0.1
done
kill "$daemon"
wait "$daemon"
`

// wantStart fails the test where the daemon does not start with a configuration folder and an environment.
func wantStart(t *testing.T, etc string, environment ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and mounts")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
		"--propagation", "private", "--", "/bin/sh", "-euc", container, "sh",
		filepath.Join(t.TempDir(), "root"), etc, t.TempDir(), program)
	cmd.Env = append(environment, "PATH="+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "observing only") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestComposeStarts types what compose.yaml says to type, and starts what it describes.
func TestComposeStarts(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if out, err := exec.Command("cp", "-r", filepath.Join(root, "examples"), tree).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range regexp.MustCompile(`(?m)^#   (.*)`).FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(line[1], "docker ") {
			continue
		}
		cmd := exec.Command("/bin/sh", "-euc", line[1])
		cmd.Dir = tree
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line[1], err, out)
		}
	}
	service := decodeYAML[struct {
		Services map[string]struct {
			Environment map[string]string
			EnvFile     []string `yaml:"env_file"`
			Volumes     []string
		}
	}](t, "compose.yaml")[0].Services["ringwall"]
	var environment []string
	for name, value := range service.Environment {
		environment = append(environment, name+"="+value)
	}
	for _, name := range service.EnvFile {
		lines, err := os.ReadFile(filepath.Join(tree, "deploy/container", name))
		if err != nil {
			t.Fatal(err)
		}
		environment = append(environment, strings.Fields(string(lines))...)
	}
	etc := ""
	for _, v := range service.Volumes {
		if from, ok := strings.CutSuffix(v, ":/etc/ringwall:ro"); ok {
			etc = filepath.Join(tree, "deploy/container", from)
		}
	}
	wantStart(t, etc, environment...)
}

// TestSidecarStarts starts the container ringwall of sidecar.yaml.
func TestSidecarStarts(t *testing.T) {
	etc, environment := t.TempDir(), []string{}
	for _, o := range decodeYAML[struct {
		Kind       string
		Data       map[string]string
		StringData map[string]string `yaml:"stringData"`
	}](t, "sidecar.yaml") {
		for name, text := range o.Data { // a ConfigMap's files are root's, and everybody may read them
			if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if secret := o.StringData["ami-secret"]; secret != "" {
			environment = append(environment, "RINGWALL_SECRET="+secret)
		}
	}
	wantStart(t, etc, environment...)
}
