package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/replay"
)

// BenchmarkAMI replays a recording of phones and attackers; events/s counts reading, decoding, judging and tallying.
func BenchmarkAMI(b *testing.B) {
	o := options(nil)
	events := int64(0)
	for b.Loop() {
		o.Stdin = &traffic{left: 30 << 20}
		s, err := replay.Run(context.Background(), []string{"-"}, o)
		if err != nil {
			b.Fatal(err)
		}
		events += s.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLog replays Asterisk's log: security events, and twice as many other lines.
func BenchmarkLog(b *testing.B) {
	var data []byte
	for i := range 20000 {
		at := time.Duration(i) * time.Millisecond
		data = append(data, challenge(at, "201", "192.0.2.1").line()...)
		data = append(data, "[2026-11-22 21:00:00.000] VERBOSE[1][C-0000001f] pbx.c: Executing [s@macro:1] "+
			"NoOp(\"PJSIP/201-00\", \"a,b\") in new stack\n"...)
		data = append(data, "[2026-11-22 21:00:00.000] NOTICE[1] res_pjsip/pjsip_distributor.c: Request 'REGISTER' "+
			"from '<sip:1@h>' failed\n"...)
	}
	benchmarkReplay(b, data)
}

// BenchmarkJournal replays journalctl -o json.
func BenchmarkJournal(b *testing.B) {
	var data []byte
	for i := range 20000 {
		e := challenge(time.Duration(i)*time.Millisecond, "201", "192.0.2.1")
		msg, err := json.Marshal("SECURITY[1]: res_security_log.c:114 in security_event_stasis_cb: " + e.message())
		if err != nil {
			b.Fatal(err)
		}
		data = fmt.Appendf(data, "{\"__CURSOR\":\"s=1\",\"PRIORITY\":\"5\",\"MESSAGE\":%s,\"_PID\":\"8\"}\n", msg)
	}
	benchmarkReplay(b, data)
}

func benchmarkReplay(b *testing.B, data []byte) {
	o := options(nil)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	events := int64(0)
	for b.Loop() {
		o.Stdin = bytes.NewReader(data)
		s, err := replay.Run(context.Background(), []string{"-"}, o)
		if err != nil {
			b.Fatal(err)
		}
		events += s.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
