package security

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decodeUnusually is Decode without the way for usual frames.
func decodeUnusually(frame string, ev *Event) error {
	*ev = Event{}
	l := lines{rest: frame, more: true}
	l.next()
	name, ok := strings.CutPrefix(l.line, "Event: ")
	t := typeOf(name)
	if !ok || t == UnknownType {
		return notSecurity(frame)
	}
	ev.Type = t
	reason := decodePreamble(&l)
	if reason == "" {
		reason = decodeHeaders(&l, orders[t], ev)
	}
	if reason != "" {
		*ev = Event{}
		return &TamperError{Reason: reason, Line: l.n, Sources: sourcesOf(frame)}
	}
	return sourced(ev)
}

// sameDecoding compares Decode, and a Decoder that has decoded other frames before, with decodeUnusually.
func sameDecoding(t interface{ Fatalf(string, ...any) }, d *Decoder, frame string) {
	var want Event
	wantErr := decodeUnusually(frame, &want)
	b, wantTampered := errors.AsType[*TamperError](wantErr)
	for name, f := range map[string]func(string, *Event) error{"Decode": Decode, "Decoder.Decode": d.Decode} {
		var got Event
		err := f(frame, &got)
		a, tampered := errors.AsType[*TamperError](err)
		if got != want || tampered != wantTampered || tampered && !reflect.DeepEqual(a, b) || !tampered && err != wantErr {
			t.Fatalf("%s of %q:\n%+v, %v\nthe other way:\n%+v, %v", name, frame, got, err, want, wantErr)
		}
	}
}

// TestTheUsualWayDecodesTheSame changes, cuts and joins frames of recordings, and decodes each both ways.
func TestTheUsualWayDecodesTheSame(t *testing.T) {
	files, err := filepath.Glob("testdata/captures/*.ami")
	if err != nil || len(files) == 0 {
		t.Fatal("no recordings", err)
	}
	var all []string
	var d Decoder
	for _, file := range files {
		for _, frame := range frames(readCapture(t, filepath.Base(file))) {
			sameDecoding(t, &d, frame)
			if strings.Contains(frame, "RemoteAddress") {
				all = append(all, frame)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		frame := rapid.SampledFrom(all).Draw(t, "frame")
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, max(0, len(frame)-1)).Draw(t, "at")
			n := rapid.IntRange(0, min(4, len(frame)-at)).Draw(t, "instead of")
			with := rapid.SampledFrom([]string{"", "", "\r", "\n", "\r\n", "\x00", "\x7f", "\x1f", "ä", "\xff", "0", "00", "9", "255", "256", ".", "/",
				" ", ": ", "AccountID: ", "\r\nModule: x", "IPV6/", "TLS/", "WS/", "SCTP/", "(null)/(null)", "65536"}).Draw(t, "with")
			frame = frame[:at] + with + frame[at+n:]
		}
		sameDecoding(t, &d, frame)
	})
}

// TestEveryByteOfAnAddressCounts tries each byte value at each place of an event's addresses and texts.
func TestEveryByteOfAnAddressCounts(t *testing.T) {
	const head = "Event: ChallengeSent\r\nPrivilege: security,all\r\nEventTV: 2026-11-22T21:50:41.214+0000\r\nSeverity: Informational\r\n" +
		"Service: PJSIP\r\nEventVersion: 1\r\n"
	const body = "AccountID: 6001-of-the-office\r\nSessionID: 3f1a@lab\r\nLocalAddress: IPV4/UDP/10.99.0.1/5060\r\n" +
		"RemoteAddress: IPV4/TLS/203.0.113.255/65535"
	var d Decoder
	for i := range body {
		for c := range 256 {
			frame := head + body[:i] + string([]byte{byte(c)}) + body[i+1:]
			sameDecoding(t, &d, frame)
			sameDecoding(t, &d, frame+"\r\nChallenge: x")
		}
		sameDecoding(t, &d, head+body[:i])
	}
}

// TestEveryByteOfATimeCounts tries each byte value at each place of a time, after a frame with the same second.
func TestEveryByteOfATimeCounts(t *testing.T) {
	const time = "2026-11-22T21:50:41.214+0000"
	of := func(time string) string {
		return "Event: ChallengeSent\r\nPrivilege: security,all\r\nEventTV: " + time + "\r\nSeverity: Informational\r\n" +
			"Service: PJSIP\r\nEventVersion: 1\r\nAccountID: 6001\r\nSessionID: 3f1a@lab\r\n" +
			"LocalAddress: IPV4/UDP/10.99.0.1/5060\r\nRemoteAddress: IPV4/UDP/203.0.113.255/65535\r\nChallenge: x"
	}
	var d Decoder
	for i := range time {
		for c := range 256 {
			sameDecoding(t, &d, of(time))
			sameDecoding(t, &d, of(time[:i]+string([]byte{byte(c)})+time[i+1:]))
		}
		sameDecoding(t, &d, of(time[:i]))
	}
}
