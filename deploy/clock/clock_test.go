package clock

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What deploy/test says that it does is done: the tests run at the time and in the zone that it was asked for, and so
// does every program that a test builds. Without it the clock is the kernel's.
func TestTheClockIsTheOneThatWasAskedFor(t *testing.T) {
	years := 0
	if text := os.Getenv("RINGWALL_TEST_YEARS"); text != "" {
		var err error
		if years, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	want := time.Duration(years) * (365*24 + 6) * time.Hour
	if got := Ahead(); (got - want).Abs() > time.Minute {
		t.Errorf("time.Now is %v ahead of the kernel's clock, want %v", got, want)
	}
	dir := t.TempDir()
	src, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "main")
	const text = "package main\n\nimport (\n\t\"fmt\"\n\t\"time\"\n)\n\n" +
		"func main() { fmt.Print(time.Now().Unix(), \" \", time.Now().Format(\"-0700\")) }\n"
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program).Output()
	if err != nil {
		t.Fatal(err)
	}
	seconds, offset, _ := strings.Cut(string(out), " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Unix(at, 0).Sub(Kernel()); (got - want).Abs() > time.Minute {
		t.Errorf("in a program that was built, time.Now is %v ahead of the kernel's clock, want %v", got, want)
	}
	// A file is as old as the clock says, and as a test has set it.
	info, err := os.Stat(src)
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(info.ModTime()); age.Abs() > time.Hour {
		t.Errorf("a new file is %v old", age)
	}
	set := time.Now().Add(-72 * time.Hour).Truncate(time.Second)
	if err := os.Chtimes(src, set, set); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(src); err != nil || !info.ModTime().Equal(set) {
		t.Errorf("the time of a file is %v, %v; it was set to %v", info.ModTime(), err, set)
	}

	zone := os.Getenv("RINGWALL_TEST_ZONE")
	if zone == "" {
		return
	}
	l, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Now().In(l).Format("-0700"); time.Now().Format("-0700") != want || offset != want {
		t.Errorf("the zone is %s, and %s in a program that was built; %s is %s", time.Now().Format("-0700"), offset,
			zone,
			want)
	}
}

func TestBubblesHaveTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got, want := time.Now(), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
			t.Errorf("the time in a bubble is %v, want %v", got, want)
		}
	})
}
