package soak

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// BenchmarkDaemon is the whole daemon in this process, to be profiled: from the socket to the kernel. An op is one
// event; one in 19 is a ban.
//
//	go test -run '^$' -bench Daemon -benchtime 2000000x -cpuprofile cpu.out ./deploy/soak
func BenchmarkDaemon(b *testing.B) {
	line := newLine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := serveAMI(b, meteredListener{l, line}, amiserver.Config{})
	cfg := config.Default()
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "pbx", l.Addr().String(), "ringwall", config.NewSecret("s3cret")
	cfg.Asterisk = []config.Asterisk{a}
	dir := b.TempDir()
	cfg.Control.Socket, cfg.State.Path = filepath.Join(dir, "ringwall.sock"), filepath.Join(dir, "state.db")
	cfg.Metrics.Listen = ""
	cfg.Policy.Honeypots = []string{trap}
	d, err := daemon.New(daemon.Options{Config: &cfg, NetNS: netnstest.New(b).FD(),
		Log:     slog.New(slog.DiscardHandler),
		Version: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	status := func() api.PBXStatus {
		s, err := d.Backend().Status(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return s.PBXs[0]
	}
	trial.WaitUntil(b, "the daemon hears the server", func() bool { return status().Events > 0 })

	s := newScript()
	var chunks [][]byte
	var upTo []int // events in each chunk and those before it
	for n := 0; s.events < b.N; n++ {
		if n%10 == 0 {
			s.addTrapped("UDP", nthAddress(n))
		} else {
			s.addScan("UDP", nthAddress(n))
		}
		if n%64 == 63 {
			chunks, upTo = append(chunks, s.takeText()), append(upTo, s.events)
		}
	}
	chunks, upTo = append(chunks, s.takeText()), append(upTo, s.events)
	runtime.GC()
	before, pushed := status().Events, line.byteCount()
	const ahead = 100_000 // events that may wait
	b.ResetTimer()
	for i, c := range chunks {
		pushed += len(c)
		server.Broadcast(c)
		line.awaitBytes(pushed - 4<<20)
		if i%128 == 127 {
			trial.WaitUntil(b, "most is handled",
				func() bool { return status().Events+ahead >= before+uint64(upTo[i]) })
		}
	}
	trial.WaitUntil(b, "all is handled", func() bool {
		p := status()
		return p.QueueBytes == 0 && p.Events+p.DroppedFrames >= before+uint64(s.events)
	})
	b.ReportMetric(float64(status().Events-before)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(status().DroppedFrames), "dropped")
}
