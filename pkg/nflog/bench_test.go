package nflog

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/packet"
)

// BenchmarkReader says what a packet of 600 bytes costs whoever reads it, parsing of its headers included, how long it
// takes to get there, and how many are lost: beside a bare read of the same socket with a fixed threshold, which looks
// at nothing. Each packet is sent at its time, by another process; its CPU, and so the kernel's of copying, is not
// counted.
func BenchmarkReader(b *testing.B) {
	for _, rate := range []int{100, 2000, 20_000} {
		for _, way := range []struct {
			name string
			read func(testing.TB, *netns.Space, func([]byte)) (stop func() Stats)
		}{{"bare, threshold 1", bare(1)}, {"bare, threshold 16", bare(16)}, {"reader", whole}} {
			b.Run(fmt.Sprintf("%d a second/%s", rate, way.name), func(b *testing.B) {
				s := newSpace(b)
				flow(b, s, "udp4")
				delays := make([]int64, 0, b.N)
				var came atomic.Int64
				stop := way.read(b, s, func(payload []byte) {
					if len(payload) >= 28+8 {
						delays = append(delays, monotonic()-int64(binary.NativeEndian.Uint64(payload[28:])))
					}
					came.Add(1)
				})
				before := cpu()
				b.ResetTimer()
				sendAtRate(b, s, rate, b.N)
				b.StopTimer()
				time.Sleep(50 * time.Millisecond) // what the kernel gathered
				used := cpu() - before
				stats := stop()
				n := max(1, came.Load())
				b.ReportMetric(float64(used)/float64(n), "cpu-ns/packet")
				b.ReportMetric(float64(used)*float64(rate)/float64(n)/1e7, "%core")
				b.ReportMetric(float64(b.N)-float64(came.Load()), "lost")
				b.ReportMetric(float64(stats.Lost), "counted")
				if slices.Sort(delays); len(delays) > 0 {
					var sum int64
					for _, d := range delays {
						sum += d
					}
					b.ReportMetric(float64(sum)/float64(len(delays))/1e3, "mean-us")
					b.ReportMetric(float64(delays[len(delays)*99/100])/1e3, "p99-us")
				}
			})
		}
	}
}

// whole is the reader with the headers parsed.
func whole(t testing.TB, s *netns.Space, handle func([]byte)) func() Stats {
	r := open(t, Config{NetNS: s.FD()})
	ended := make(chan error, 1)
	go func() {
		var p packet.Packet
		ended <- r.Run(func(n *Packet) {
			if packet.Parse(n.Payload, &p) == nil {
				handle(n.Payload)
			}
		})
	}()
	return func() Stats {
		_ = r.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return r.Stats()
	}
}

// bare reads the messages on a thread of its own that waits in the kernel. It knows where the payload is, as it always
// is for these packets.
func bare(threshold uint32) func(testing.TB, *netns.Space, func([]byte)) func() Stats {
	return func(t testing.TB, s *netns.Space, handle func([]byte)) func() Stats {
		r := open(t, Config{NetNS: s.FD()})
		if err := r.ask(configure(group, netlink.Acknowledge, func(e *netlink.AttributeEncoder) {
			e.Uint32(configThreshold, threshold)
			e.Uint32(configBufferSize, bufferFor(int(threshold)))
		})); err != nil {
			t.Fatal(err)
		}
		var fd int
		_ = r.raw.Control(func(d uintptr) { fd, _ = unix.Dup(int(d)) })
		_ = unix.SetNonblock(fd, false)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000})
		var stopped atomic.Bool
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread()
			buf := make([]byte, longestMessage)
			for !stopped.Load() {
				n, err := unix.Read(fd, buf)
				if err != nil {
					continue
				}
				for rest := buf[:n]; ; {
					kind, _, body, after, ok := nextMessage(rest)
					if !ok {
						break
					}
					if kind == packetMessage && len(body) > 636 {
						handle(body[len(body)-628:])
					}
					rest = after
				}
			}
		}()
		return func() Stats {
			stopped.Store(true)
			<-ended
			_ = unix.Close(fd)
			return Stats{}
		}
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// senderVariable holds rate and number of the packets that a process is started to send.
const senderVariable = "NFLOG_TEST_SEND"

// sendAtRate has another process send packets, each at its time.
func sendAtRate(t testing.TB, s *netns.Space, rate, n int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", senderVariable, rate, n))
	if out, err := s.Run(cmd); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// sendAll is what that process does.
func sendAll(rate, n int) error {
	c, err := net.Dial("udp4", "127.0.0.1:5060")
	if err != nil {
		return err
	}
	began, payload := monotonic(), make([]byte, 600)
	for i := range n {
		at := began + int64(i)*int64(time.Second)/int64(rate)
		for now := monotonic(); now < at; now = monotonic() {
			ts := unix.NsecToTimespec(at - now)
			_ = unix.Nanosleep(&ts, nil)
		}
		binary.NativeEndian.PutUint64(payload, uint64(monotonic()))
		if _, err := c.Write(payload); err != nil {
			return err
		}
	}
	return c.Close()
}
