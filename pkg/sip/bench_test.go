package sip

import (
	"bytes"
	"testing"
)

const options = "OPTIONS sip:100@192.0.2.1 SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK-1;rport\r\nMax-Forwards: 70\r\n" +
	"From: \"probe\"<sip:100@192.0.2.1>;tag=1\r\nTo: <sip:100@192.0.2.1>\r\nCall-ID: 1@198.51.100.9\r\n" +
	"CSeq: 1 OPTIONS\r\nContact: <sip:100@198.51.100.9>\r\nContent-Length: 0\r\n\r\n"

// Beside each message, what a copy of its bytes costs.
func BenchmarkParse(b *testing.B) {
	for _, row := range []struct{ name, text string }{
		{"register", register}, {"answer", unauthorized}, {"options", options},
	} {
		bytes := []byte(row.text)
		b.Run(row.name, func(b *testing.B) {
			var m Message
			b.ReportAllocs()
			b.SetBytes(int64(len(bytes)))
			for b.Loop() {
				if err := Parse(bytes, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(row.name+"/copy", func(b *testing.B) {
			to := make([]byte, len(bytes))
			b.ReportAllocs()
			b.SetBytes(int64(len(bytes)))
			for b.Loop() {
				copy(to, bytes)
			}
		})
	}
}

// The longest that a datagram can cost: many short lines, and lines without LF.
func BenchmarkHostile(b *testing.B) {
	for name, line := range map[string]string{
		"short lines": "a:\n", "CR alone": "a:\r", "folds": " \n", "quotes": "f:\"&\\",
	} {
		text := append([]byte("OPTIONS sip:x SIP/2.0\r\n"), bytes.Repeat([]byte(line), 4000/len(line))...)
		b.Run(name, func(b *testing.B) {
			var m Message
			b.ReportAllocs()
			for b.Loop() {
				_ = Parse(text, &m)
			}
		})
	}
}
