package security

import (
	"testing"

	"github.com/staskobzar/goami2"
)

// benchFrames are the events of one case, as a busy registrar sends them.
func benchFrames(b *testing.B, name string) []string {
	b.Helper()
	var events []string
	for _, frame := range frames(readCapture(b, name)) {
		var ev Event
		if Decode(frame, &ev) == nil {
			events = append(events, frame)
		}
	}
	if len(events) == 0 {
		b.Fatal("no events")
	}
	return events
}

// BenchmarkDecode beside BenchmarkGoami2Parse: ns and allocations of one event.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"svcrack.ami", "normal-register-v6.ami"} {
		b.Run(name, func(b *testing.B) {
			events := benchFrames(b, name)
			b.ReportAllocs()
			var ev Event
			for i := 0; b.Loop(); i++ {
				if err := Decode(events[i%len(events)], &ev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGoami2Parse does less than Decode: it splits headers, and validates and converts nothing.
func BenchmarkGoami2Parse(b *testing.B) {
	for _, name := range []string{"svcrack.ami", "normal-register-v6.ami"} {
		b.Run(name, func(b *testing.B) {
			events := benchFrames(b, name)
			for i := range events {
				events[i] += "\r\n\r\n" // its end of a message
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := goami2.Parse(events[i%len(events)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeLine(b *testing.B) {
	lines := logLines(readCapture(b, "svcrack.log"))
	b.ReportAllocs()
	var ev Event
	for i := 0; b.Loop(); i++ {
		if err := DecodeLine(lines[i%len(lines)], &ev); err != nil {
			b.Fatal(err)
		}
	}
}
