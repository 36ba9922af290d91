// Command ringwall keeps attackers away from Asterisk: the daemon and the commands that ask it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	_ "github.com/ringwall/ringwall/cmd/ringwall/internal/machine" // refuses 32 bits with a sentence
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/demo"
	"github.com/ringwall/ringwall/pkg/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	app := &commands.App{
		Run:           runDaemon,
		Demo:          playDemo,
		Env:           config.OS(),
		Service:       serviceUser,
		ServiceConfig: commands.DefaultConfig,
		StopService:   stopService,
		ReloadManager: reloadManager,
		Build:         buildInfo(),
		Out:           os.Stdout,
		Err:           os.Stderr,
		Journal:       daemon.OnJournal(),
		Columns:       terminalColumns(os.Stdout),
		Now:           time.Now,
		Zone:          time.Local,
	}
	if terminalColumns(os.Stdin) > 0 && app.Columns > 0 {
		app.Ask = ask
	}
	code := app.Execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// serviceUser is the user of the service where root asks. For others it is nil: they have their own rights alone.
func serviceUser() (*service.User, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	return service.FindUser("/")
}

// stopService stops the service, where systemd is this machine's init (sd_booted(3)).
func stopService(ctx context.Context) error {
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "stop", service.Name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl stop %s: %w: %s", service.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// reloadManager has Asterisk read manager.conf again.
func reloadManager(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "asterisk", "-rx", "manager reload").CombinedOutput()
	if err != nil {
		return fmt.Errorf("asterisk -rx 'manager reload': %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ask puts a question at the terminal. Enter alone is no, and so is Ctrl-C.
func ask(ctx context.Context, question string) bool {
	fmt.Fprintf(os.Stdout, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		return line == "y" || line == "yes"
	case <-ctx.Done():
		fmt.Fprintln(os.Stdout)
		return false
	}
}

// runDaemon starts the daemon.
func runDaemon(ctx context.Context, o commands.RunOptions) error {
	options := daemon.Options{ConfigPath: o.ConfigPath, Socket: o.Socket, Version: buildInfo().Version}
	if os.Getenv("GOMEMLIMIT") == "" {
		options.MemoryBudget = func(bytes int64) { debug.SetMemoryLimit(bytes) }
	}
	d, err := daemon.New(options)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// playDemo plays the built-in attack.
func playDemo(ctx context.Context, o commands.DemoOptions) error {
	err := demo.Run(ctx, demo.Options{For: o.For, JSON: o.JSON, Out: o.Out, Err: os.Stderr, Terminal: o.Columns > 0,
		Width: o.Columns, Version: buildInfo().Version})
	if errors.Is(err, context.Canceled) { // Ctrl-C: that is how a demo ends early
		return nil
	}
	return err
}

// terminalColumns is the width of a terminal, 0 for anything else.
func terminalColumns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// release is the version of the package that the program came in, which deploy/packages/build sets.
var release string

// buildInfo is what the Go tool wrote into the program: version, revision, platform.
func buildInfo() commands.Build {
	b := commands.Build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	if release != "" {
		b.Version = release
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
