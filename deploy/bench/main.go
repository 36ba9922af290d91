// Command bench measures Ringwall from the event on the socket to the dropped packet, on a Linux machine, as root:
//
//	go -C deploy run ./bench
//	go -C deploy run ./bench -only reaction,flood -rounds 5
//
// It makes network namespaces of its own, plays Asterisk on their loopback and a host behind a veth pair, and runs the
// real program in its own process. Nothing of the machine's network is touched. Wall-clock times depend on what else
// the machine does; processor times do so less. deploy/docs/benchmarks.md has results and says what they mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/deploy/trial"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

type options struct {
	program  string // ringwall's binary
	fail2ban string // folder that a package of fail2ban was unpacked to; empty: as installed
	dir      string // for files of this run
	rounds   int
	trials   int
	events   int
	sources  int
	idle     time.Duration
}

type stage struct {
	name string
	what string
	run  func(ctx context.Context, o *options) error
}

func stages() []stage {
	return []stage{
		{"frame", "frame split, decode and score of one event, beside goami2.Parse", measureFrames},
		{"sources", "a million tracked sources: memory, cost of an event, longest call", measureSources},
		{"reaction", "event on the socket to dropped packet, idle system", measureReaction},
		{"flood", "a flood, all banned", measureFlood},
		{"elements", "the elements of a flood, by a bare google/nftables loop and by Ringwall's writer",
			measureElements},
		{"lists", "a million addresses on lists: memory, and a packet of somebody who is on none", measureLists},
		{"start", "start with the bans of a flood stored", measureStart},
		{"unban", "bans of a flood ended, one and all", measureUnban},
		{"idle", "10,000 bans and nothing to do", measureIdle},
		{"fail2ban", "reaction and flood of fail2ban with its asterisk filter", measureFail2ban},
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == reflexArgument {
		if err := runReflex(); err != nil {
			fmt.Fprintln(os.Stderr, "reflex:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := runStages(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func runStages(ctx context.Context) (err error) {
	var o options
	only := flag.String("only", "",
		"stages, by comma: frame,sources,reaction,flood,elements,lists,start,unban,idle,fail2ban (default: all but "+
			"fail2ban)")
	flag.StringVar(&o.program, "ringwall", "",
		"the program to measure, by its whole path (default: built from ./cmd/ringwall)")
	flag.StringVar(&o.fail2ban, "fail2ban", "",
		"folder that fail2ban's package was unpacked to (default: as installed)")
	flag.IntVar(&o.rounds, "rounds", 3, "times that a stage is repeated; the best is shown beside all")
	flag.IntVar(&o.trials, "trials", 300, "reactions that are measured")
	flag.IntVar(&o.events, "events", 500_000, "events of the flood")
	flag.IntVar(&o.sources, "sources", 100_000, "sources of the flood")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long an idle daemon is watched")
	flag.Parse()
	if o.events < o.sources*3 {
		return errors.New("-events: at least three times -sources, or not all are banned")
	}
	if o.dir, err = os.MkdirTemp("", "ringwall-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if o.program == "" {
		o.program = filepath.Join(o.dir, "ringwall")
		if err := trial.BuildProgram(ctx, o.program); err != nil {
			return err
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %d CPUs, load before: %s", runtime.Version(), runtime.NumCPU(), load)
	wanted := strings.Split(*only, ",")
	for _, s := range stages() {
		if *only == "" && s.name == "fail2ban" || *only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Printf("\n%s: %s\n", s.name, s.what)
		if err := s.run(ctx, &o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// printQuantiles prints the quantiles of durations, which it sorts.
func printQuantiles(name string, d []time.Duration) {
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[min(len(d)-1, int(q*float64(len(d))))].Round(time.Microsecond) }
	fmt.Printf("  %s: median %v, p90 %v, p99 %v, least %v, most %v (%d)\n", name, at(.5), at(.9), at(.99), at(0), at(1),
		len(d))
}

// waitUntil waits for a condition.
func waitUntil(ctx context.Context, what string, ok func() bool) error {
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v still not: %s", patience, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
