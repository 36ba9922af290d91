package event

import "testing"

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

// BenchmarkDecode takes one event apart.
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
