package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

// start runs a line of shell for a decision.
func start(t *testing.T, d ban.Decision, line string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	return startUntil(ctx, d, line, args...)
}

// timeout is a context whose time is over when a file is there, so that the program has come as far as it should on any
// machine.
type timeout struct {
	context.Context
	done chan struct{}
}

func (c timeout) Done() <-chan struct{} { return c.done }

func (c timeout) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func untilThere(t *testing.T, files ...string) context.Context {
	c := timeout{t.Context(), make(chan struct{})}
	go func() {
		defer close(c.done)
		for end := time.Now().Add(2 * time.Minute); len(files) > 0 && time.Now().Before(end); {
			if info, err := os.Stat(files[0]); err == nil && info.Size() > 0 {
				files = files[1:]
				continue
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return c
}

func startUntil(ctx context.Context, d ban.Decision, line string, args ...string) (output string, err error) {
	p := &programSender{
		cfg:      config.Notify{Exec: append([]string{"/bin/sh", "-c", line, "sh"}, args...)},
		onOutput: func(o string) { output = o },
	}
	err = p.sendMessage(ctx, describeDecision(d, "host"))
	return output, err
}

func TestProgramFindsTheDecision(t *testing.T) {
	t.Setenv("RINGWALL_SECRET", "s3cret")
	dir := t.TempDir()
	_, err := start(t, banDecision(1), `cd "$1" && env > env && cat > stdin && pwd > cwd && printf %s "$2" > arg`, dir,
		"$(id) `id` *")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	env := read("env")
	for _, want := range []string{"ACTION=ban", "PREFIX=10.0.0.1/32", "SOURCE=10.0.0.1", "REASON=unknown_account",
		"ACCOUNT=100", "PBX=pbx1",
		"DURATION_SECONDS=3600", "SCORE=12", "POINTS=4", "PROVEN=false", "SERVICE=PJSIP", "TRANSPORT=UDP", "HOST=host",
		"COUNT=1",
		"TIME=2026-01-02T03:04:05Z"} {
		if !strings.Contains(env, "RINGWALL_"+want+"\n") {
			t.Errorf("no %s in %s", want, env)
		}
	}
	if strings.Contains(env, "s3cret") {
		t.Error("the daemon's environment is passed on")
	}
	var m message.Message
	if err := json.Unmarshal([]byte(read("stdin")), &m); err != nil || m.Prefix != "10.0.0.1/32" {
		t.Errorf("stdin: %v, %s", err, read("stdin"))
	}
	if got := read("arg"); got != "$(id) `id` *" {
		t.Errorf("an argument went through a shell: %s", got)
	}
}

func TestProgramIsSafeFromHostileAccounts(t *testing.T) {
	for _, account := range []string{"a\x00b", "\x1b]0;x\x07", "a\nRINGWALL_ACTION=unban", "$(touch x)`id`;|&",
		"\xff\xfe", "\u202e", strings.Repeat("x", 100_000)} {
		d := banDecision(1)
		d.Account, d.Detail = account, account
		out, err := start(t, d, `printf '%s|%s' "$RINGWALL_ACTION" "$RINGWALL_ACCOUNT"`)
		if err != nil {
			t.Fatalf("%.20q: %v", account, err)
		}
		action, got, _ := strings.Cut(out, "|")
		if action != "ban" || got == "" || len(got) > 300 || strings.ContainsAny(got, "\x00\x1b\n\a\u202e") {
			t.Errorf("%.20q became %q, %q", account, action, got)
		}
	}
}

func TestProgramThatFailsIsExplained(t *testing.T) {
	var f *failure
	_, err := start(t, banDecision(1), `echo "no \033[2Jluck" >&2; exit 3`)
	if !errors.As(err, &f) || !f.permanent || !strings.Contains(f.cause, "exit status 3") ||
		strings.Contains(f.output, "\x1b") ||
		!strings.Contains(f.output, "luck") {
		t.Errorf("%+v", f)
	}
	for name, p := range map[string]*programSender{
		"none":           {cfg: config.Notify{Exec: []string{"/none"}}},
		"not executable": {cfg: config.Notify{Exec: []string{"/etc/hostname"}}},
		"a folder":       {cfg: config.Notify{Exec: []string{"/"}}},
	} {
		if err := p.sendMessage(t.Context(), message.Message{}); !errors.As(err, &f) || !f.permanent ||
			!strings.Contains(f.cause, "cannot be started") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProgramThatHangsIsEndedWithItsChildren has a program that ignores SIGTERM, and children that do.
func TestProgramThatHangsIsEndedWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"main", "child1", "child2", "child3"} {
		files = append(files, filepath.Join(dir, name))
	}
	_, err := startUntil(untilThere(t, files...), banDecision(1), `trap "" TERM
cd "$1"
for i in 1 2 3; do (echo "$$" > main; sh -c 'echo $$ > child'"$i"'; exec sleep 1000') & done
while :; do sleep 1000; done`, dir)
	var f *failure
	if !errors.As(err, &f) || !strings.Contains(f.cause, "longer than timeout") {
		t.Errorf("%v", err)
	}
	for _, file := range files {
		gone(t, file)
	}
}

func TestProgramLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	if _, err := start(t, banDecision(1), `cd "$1"; sh -c 'echo $$ > child; exec sleep 1000' & 
while ! [ -s child ]; do sleep 0.01; done`, dir); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Minute {
		t.Errorf("waited %v for a child that holds the output", took)
	}
	gone(t, filepath.Join(dir, "child"))
}

// TestProgramMayStartADaemon lets a child leave the group; its hold on the output delays nobody for long.
func TestProgramMayStartADaemon(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	if _, err := start(t, banDecision(1), `cd "$1"; setsid sh -c 'echo $$ > child; exec sleep 1000' & 
while ! [ -s child ]; do sleep 0.01; done`, dir); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Minute {
		t.Errorf("waited %v", took)
	}
	pid := pidIn(t, filepath.Join(dir, "child"))
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the daemon was ended: %v", err)
	}
}

func pidIn(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 2 {
		t.Fatalf("%q, %v", data, err)
	}
	return pid
}

// gone waits until a process has ended; a zombie, whose new parent is slow, has.
func gone(t *testing.T, file string) {
	t.Helper()
	pid := pidIn(t, file)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "Z") ||
			strings.HasPrefix(state, "X") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still runs: %s", filepath.Base(file), stat)
		}
	}
}

func TestProgramThatFloodsIsCutShort(t *testing.T) {
	out, err := start(t, banDecision(1), `head -c 50000000 /dev/zero | tr '\0' '\033'`)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > maxOutputLogged+20 || strings.Contains(out, "\x1b") {
		t.Errorf("%d bytes of output", len(out))
	}
	file := filepath.Join(t.TempDir(), "begun")
	_, err = startUntil(untilThere(t, file), banDecision(1), `echo y; echo y > "$1"; exec yes`, file)
	var f *failure
	if !errors.As(err, &f) || !strings.HasPrefix(f.output, "y") || len(f.output) > maxOutputLogged+20 {
		t.Errorf("an endless flood: %v", err)
	}
}

func TestProgramOfATargetRunsForEachDecision(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told")
	cfg := config.DefaultNotify()
	cfg.Name, cfg.Exec = "script", []string{"/bin/sh", "-c", `echo "$RINGWALL_ACTION $RINGWALL_PREFIX" >> "$1"`, "sh",
		file}
	b := new(book)
	n, err := New([]config.Notify{cfg}, b.options())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, n)
	for i := range 3 {
		n.Push(banDecision(i))
	}
	n.Push(breach())
	for deadline := time.Now().Add(time.Minute); b.total("script sent") < 4; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v: %s", b.counts, b)
		}
	}
	stop()
	data, err := os.ReadFile(file)
	if want := "ban 10.0.0.0/32\nban 10.0.0.1/32\nban 10.0.0.2/32\nbreach 10.255.255.255/32\n"; err != nil ||
		string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add("201", "detail")
	f.Add("a\x00b\nRINGWALL_ACTION=unban", "\xff")
	f.Fuzz(func(t *testing.T, account, text string) {
		d := banDecision(1)
		d.Account, d.Detail, d.PBX = account, text, text
		names := map[string]bool{}
		for _, v := range environmentOf(describeDecision(d, "host")) {
			name, _, _ := strings.Cut(v, "=")
			if names[name] {
				t.Errorf("%s twice", name)
			}
			names[name] = true
			if strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) }) || len(v) > 4096 {
				t.Errorf("%q", v)
			}
		}
	})
}
