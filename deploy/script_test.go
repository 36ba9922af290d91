// Package deploy holds what is around the program; its own tests are of the script test, beside which they are.
package deploy

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// goStub plays go: it notes how it was called, and answers from files.
const goStub = `#!/bin/bash
cd "$STUB"
module=
[[ $1 != -C ]] || { module=$2; shift 2; }
case "$module $*" in
" list ./...") printf 'example/%s\n' pkg/a cmd/b; exit ;;
"deploy list ./...") echo example/deploy/c; exit ;;
"deploy tool -n staticcheck") echo "$STUB/bin/staticcheck"; exit ;;
esac
case "$*" in
run*) echo "$*" >>calls; mkdir -p "${@: -1}" ;;
*-fuzz*) echo "fuzz $3" >>calls; cat fuzz; exit "$(cat fuzz.status)" ;;
test*)
	echo "module=$module years=$RINGWALL_TEST_YEARS zone=$RINGWALL_TEST_ZONE TZ=$TZ GOFLAGS=$GOFLAGS $*" >>calls
	name=later
	[[ " $* " != *" -race "* ]] || name=race
	[[ -z $module ]] || name+=.deploy
	cat "$name"
	if [[ -e hang ]]; then
		sleep 1000 &
		echo "$$ $!" >pids.new
		mv pids.new pids
		while [[ ! -e go-on ]]; do sleep 0.1; done
		kill $!
	fi
	exit "$(cat "$name.status")"
	;;
*) echo "$module $1" >>calls ;;
esac
`

const fine = "=== RUN   TestOne\n    one_test.go:7: noise of one\n--- PASS: TestOne (0.00s)\n=== RUN   TestTwo\n=== " +
	"RUN   TestTwo/x\n" +
	"    --- PASS: TestTwo/x (0.00s)\n--- PASS: TestTwo (0.01s)\nPASS\nok  \texample/pkg/a\t0.012s\n?   " +
	"\texample/cmd/b\t[no test files]\n"

const elsewhere = "ok  \texample/deploy/c\t0.012s\n"

const broken = fine + "=== RUN   TestThree\n=== PAUSE TestThree\n=== RUN   TestFour\n    four_test.go:1: noise of " +
	"four\n=== CONT  TestThree\n" +
	"    three_test.go:3: the reason\n=== RUN   TestThree/y\n=== NAME  TestFour\n    four_test.go:2: more noise of " +
	"four\n" +
	"--- PASS: TestFour (0.00s)\n=== NAME  TestThree/y\n    three_test.go:5: the reason within\n    --- FAIL: " +
	"TestThree/y (0.00s)\n" +
	"--- FAIL: TestThree (0.01s)\nFAIL\nFAIL\texample/deploy/c\t0.010s\nFAIL\n"

// A try is one run of the script, in a tree of stubs.
type scriptTry struct {
	t     *testing.T
	dir   string
	files map[string]string // of the stubs
}

func newTry(t *testing.T, files map[string]string) *scriptTry {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("deploy/test is for root")
	}
	script, err := os.ReadFile("test")
	if err != nil {
		t.Fatal(err)
	}
	y := &scriptTry{t: t, dir: t.TempDir(), files: map[string]string{
		"deploy/test": string(script), "deploy/lab/lab": "#!/bin/bash\necho \"lab $*\" >>\"$STUB/calls\"\n",
		"bin/go": goStub, "bin/gofmt": "#!/bin/bash\n",
		"bin/staticcheck": "#!/bin/bash\necho \"staticcheck ${PWD#$STUB}\" >>\"$STUB/calls\"\n", "cmd/x": "",
		"pkg/x": "",
		"race":  fine, "race.status": "0", "later": fine, "later.status": "0",
		"race.deploy": elsewhere, "race.deploy.status": "0", "later.deploy": elsewhere, "later.deploy.status": "0",
		"fuzz": "ok\n", "fuzz.status": "0",
	}}
	for name, text := range files {
		y.files[name] = text
	}
	for name, text := range y.files {
		path := filepath.Join(y.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

func (y *scriptTry) newCommand(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(y.t.Context(), filepath.Join(y.dir, "deploy", "test"), args...)
	cmd.Env = []string{"PATH=" + filepath.Join(y.dir, "bin") + ":" + os.Getenv("PATH"), "STUB=" + y.dir, "TMPDIR=" +
		y.t.TempDir(),
		"RINGWALL_PROGRESS_SECONDS=1"}
	return cmd
}

func (y *scriptTry) runScript(args ...string) (out string, status int) {
	y.t.Helper()
	b, err := y.newCommand(args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(b), exit.ExitCode()
	} else if err != nil {
		y.t.Fatalf("%v\n%s", err, b)
	}
	return string(b), 0
}

func (y *scriptTry) recordedCalls() string {
	b, err := os.ReadFile(filepath.Join(y.dir, "calls"))
	if err != nil {
		y.t.Fatal(err)
	}
	return string(b)
}

// testCalls are the calls of go test: with the race detector, and without.
func (y *scriptTry) testCalls() (race, plain []string) {
	for line := range strings.Lines(y.recordedCalls()) {
		switch {
		case !strings.HasPrefix(line, "module="):
		case strings.Contains(line, " -race "):
			race = append(race, line)
		default:
			plain = append(plain, line)
		}
	}
	return race, plain
}

func wantTexts(t *testing.T, out string, want bool, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(out, text) != want {
			t.Errorf("%q: present must be %v:\n%s", text, want, out)
		}
	}
}

func TestAllOfItIsRun(t *testing.T) {
	t.Parallel()
	y := newTry(t, nil)
	out, status := y.runScript()
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	wantTexts(t, out, true, "\n3 passed, 0 failed, 0 skipped\n", "ten years on: 3 tests passed, 0 failed\n",
		"\n== all is well\n")
	wantTexts(t, out, false, "noise")
	wantTexts(t, y.recordedCalls(), true, "lab install\n", "lab build all\n", "\n vet\n", "deploy vet\n", "staticcheck \n",
		"staticcheck /deploy\n", "fuzz -run\n")
	if n := strings.Count(y.recordedCalls(), "fuzz "); n != len(fuzzTargets(t)) {
		t.Errorf("%d targets were fuzzed, want %d", n, len(fuzzTargets(t)))
	}
	race, plain := y.testCalls()
	if len(race) != 2 || len(plain) != 2 {
		t.Fatalf("tests ran with the race detector %q, without %q", race, plain)
	}
	wantTexts(t, race[0], true, "module= years= zone= TZ= GOFLAGS= ", " example/pkg/a example/cmd/b\n")
	wantTexts(t, race[1], true, "module=deploy years= zone= TZ= GOFLAGS= ", " example/deploy/c\n")
	for i, end := range []string{" example/pkg/a example/cmd/b\n", " ./clock\n"} {
		wantTexts(t, plain[i], true, "years=10 zone=Asia/Kathmandu TZ=Asia/Kathmandu ", "-overlay=", end)
	}
}

func TestQuick(t *testing.T) {
	t.Parallel()
	y := newTry(t, nil)
	out, status := y.runScript("-quick")
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	wantTexts(t, out, true, "\n3 passed, 0 failed, 0 skipped\n")
	wantTexts(t, y.recordedCalls(), false, "lab build", "fuzz", "years=10", "example/deploy/c")
}

func TestAnotherTime(t *testing.T) {
	t.Parallel()
	for _, quick := range []bool{false, true} {
		y := newTry(t, nil)
		args := []string{"-years", "12", "-zone", "America/St_Johns"}
		if quick {
			args = append(args, "-quick")
		}
		out, status := y.runScript(args...)
		if status != 0 {
			t.Errorf("exit status %d", status)
		}
		wantTexts(t, out, true, "12 years on", "America/St_Johns", "\n3 passed, 0 failed, 0 skipped\n")
		race, plain := y.testCalls()
		modules := 2
		if quick {
			modules = 1
		}
		if len(race) != modules || len(plain) != 0 {
			t.Fatalf("tests ran with the race detector %q, without %q", race, plain)
		}
		for _, line := range race {
			wantTexts(t, line, true, "years=12 zone=America/St_Johns TZ=America/St_Johns ", "-overlay=")
		}
	}
}

func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-fast"}, {"-years"}, {"-years", "0"}, {"-years", "101"}, {"-years", "1e1"},
		{"-years", "-1"},
		{"-zone"}, {"-zone", ""}, {"-zone", "Asia/Nowhere"}, {"-zone", "../../etc/passwd"}, {"-quick", "-slow"}} {
		y := newTry(t, map[string]string{"calls": ""})
		out, status := y.runScript(args...)
		if status != 2 || !strings.Contains(out, "usage: deploy/test") || y.recordedCalls() != "" {
			t.Errorf("%q: exit status %d, called %q:\n%s", args, status, y.recordedCalls(), out)
		}
	}
}

func TestFailuresAreTold(t *testing.T) {
	t.Parallel()
	skip := fine + "=== RUN   TestFive\n--- SKIP: TestFive (0.00s)\n"
	for name, c := range map[string]struct {
		files  map[string]string
		counts string
		says   []string
		not    []string
	}{
		"a test": {map[string]string{"race": broken, "race.status": "1"}, "4 passed, 2 failed, 0 skipped",
			[]string{"three_test.go:3: the reason", "three_test.go:5: the reason within", "--- FAIL: TestThree/y",
				"FAIL\texample/deploy/c"},
			[]string{"noise", "fuzzing", "well"}},
		"a test of deploy": {map[string]string{"race.deploy": broken, "race.deploy.status": "1"},
			"7 passed, 2 failed, 0 skipped",
			[]string{"three_test.go:3: the reason", "--- FAIL: TestThree/y"}, []string{"noise", "fuzzing", "well"}},
		"the clock": {map[string]string{"later.deploy": broken, "later.deploy.status": "1"},
			"3 passed, 2 failed, 0 skipped",
			[]string{"three_test.go:3: the reason", "ten years on: 7 tests passed, 2 failed"},
			[]string{"fuzzing", "well"}},
		"a test, later only": {map[string]string{"later": broken, "later.status": "1"}, "3 passed, 2 failed, 0 skipped",
			[]string{"three_test.go:3: the reason", "ten years on: 4 tests passed, 2 failed"},
			[]string{"noise", "fuzzing", "well"}},
		"the compiler": {map[string]string{"race": "# example/deploy/c\nc/x.go:1:2: undefined: y\n" + fine +
			"FAIL\texample/deploy/c [build failed]\nFAIL\n", "race.status": "1"},
			"3 passed, 0 failed, 0 skipped", []string{"c/x.go:1:2: undefined: y", "example/deploy/c [build failed]"},
			[]string{"noise", "well"}},
		"the compiler, later only": {map[string]string{"later": "# example/pkg/a\na/x.go:1:2: undefined: y\n" +
			"FAIL\texample/pkg/a [build failed]\nFAIL\n", "later.status": "1"},
			"3 passed, 0 failed, 0 skipped", []string{"a/x.go:1:2: undefined: y"}, []string{"well"}},
		"a panic": {map[string]string{"race": fine +
			"=== RUN   TestSix\npanic: out of mind\n\ngoroutine 1 [running]:\nFAIL\texample/deploy/c\t0.1s\nFAIL\n",
			"race.status": "1"},
			"3 passed, 0 failed, 0 skipped", []string{"panic: out of mind", "goroutine 1"}, []string{"noise", "well"}},
		"a skipped test": {map[string]string{"race": skip}, "3 passed, 0 failed, 1 skipped",
			[]string{"nothing is skipped", "--- SKIP: TestFive"}, []string{"well"}},
		"a skipped test, later": {map[string]string{"later": skip}, "3 passed, 0 failed, 0 skipped",
			[]string{"nothing is skipped", "--- SKIP: TestFive"}, []string{"well"}},
		"a finding": {map[string]string{"fuzz": "Failing input written to x\ncontext deadline exceeded\n",
			"fuzz.status": "1"},
			"3 passed, 0 failed, 0 skipped", []string{"Failing input written to x"}, []string{"well"}},
		"the laboratory": {map[string]string{"deploy/lab/lab": "#!/bin/bash\n[[ $1 == install ]] || { echo no mirror; " +
			"exit 1; }\n"}, "",
			[]string{"no mirror"}, []string{"passed", "well"}},
		"the tools": {map[string]string{"deploy/lab/lab": "#!/bin/bash\necho no apt\nexit 1\n"}, "", []string{"no apt"},
			[]string{"passed", "well"}},
		"gofmt": {map[string]string{"bin/gofmt": "#!/bin/bash\necho x.go\n"}, "", []string{"not gofmt-ed:\nx.go"},
			[]string{"passed", "well"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, status := newTry(t, c.files).runScript()
			if status == 0 {
				t.Error("exit status 0")
			}
			wantTexts(t, out, true, c.says...)
			wantTexts(t, out, false, c.not...)
			counts := ""
			for line := range strings.Lines(out) {
				if strings.Contains(line, " failed, ") && strings.HasSuffix(line, " skipped\n") {
					counts = strings.TrimSuffix(line, "\n")
				}
			}
			if counts != c.counts {
				t.Errorf("the last line about tests is %q, want %q", counts, c.counts)
			}
		})
	}
}

// Before Go 1.27 the end of the time may be called a failure.
func TestTheEndOfFuzzingIsNoFinding(t *testing.T) {
	t.Parallel()
	y := newTry(t, map[string]string{"fuzz": "    context deadline exceeded\nFAIL\n", "fuzz.status": "1"})
	if out, status := y.runScript(); status != 0 {
		t.Errorf("exit status %d:\n%s", status, out)
	}
}

// buffer is what a running script has printed.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// startHanging starts a script whose tests do not end, and returns the processes of those.
func startHanging(t *testing.T, y *scriptTry, out *buffer) (cmd *exec.Cmd, pids []int) {
	t.Helper()
	cmd = y.newCommand("-quick")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the tests run", func() bool {
		b, err := os.ReadFile(filepath.Join(y.dir, "pids"))
		if err != nil {
			return false
		}
		for _, word := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return true
	})
	return cmd, pids
}

// isRunning says whether a process runs; one that nobody has waited for has ended too.
func isRunning(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func TestALongStepSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	var out buffer
	y := newTry(t, map[string]string{"hang": ""})
	cmd, _ := startHanging(t, y, &out)
	const line = " min: 2 of 2 packages, 3 tests passed, 0 failed, building\n"
	waitUntil(t, "two lines of progress", func() bool { return strings.Count(out.String(), line) >= 2 })
	if err := os.WriteFile(filepath.Join(y.dir, "go-on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	wantTexts(t, out.String(), true, "\n3 passed, 0 failed, 0 skipped\n")
}

func TestNoChildSurvives(t *testing.T) {
	t.Parallel()
	for _, sent := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(sent) { // by nohup: a shell cannot trap what was ignored before it began
			continue
		}
		var out buffer
		y := newTry(t, map[string]string{"hang": ""})
		cmd, pids := startHanging(t, y, &out)
		if len(pids) != 2 || !isRunning(pids[0]) || !isRunning(pids[1]) {
			t.Fatalf("the tests do not run: %v", pids)
		}
		if err := cmd.Process.Signal(sent); err != nil {
			t.Fatal(err)
		}
		want := 143
		if sent == syscall.SIGINT {
			want = 130
		}
		err := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != want {
			t.Errorf("%v: %v, want exit status %d:\n%s", sent, err, want, out.String())
		}
		for _, pid := range pids {
			waitUntil(t, "the child of the script has ended", func() bool { return !isRunning(pid) })
		}
		wantTexts(t, out.String(), false, "well")
	}
}

// What is fuzzed is found: a package that is renamed would otherwise be missed only after everything else has passed.
func TestWhatIsFuzzedExists(t *testing.T) {
	for _, target := range fuzzTargets(t) {
		folder, name, _ := strings.Cut(target, ":")
		files, _ := filepath.Glob(filepath.Join("..", "pkg", folder, "*_test.go"))
		found := slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(text), "\nfunc "+name+"(f *testing.F)")
		})
		if !found {
			t.Errorf("%s: pkg/%s has no %s", target, folder, name)
		}
	}
}

// fuzzTargets are what the script says that it fuzzes, as PACKAGE:FUNCTION.
func fuzzTargets(t *testing.T) []string {
	t.Helper()
	script, err := os.ReadFile("test")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(script), "targets=(")
	list, _, ok := strings.Cut(rest, ")")
	targets := strings.Fields(list)
	if !ok || len(targets) == 0 {
		t.Fatal("there is no list of targets")
	}
	return targets
}
