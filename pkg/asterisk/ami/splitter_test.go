package ami

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// split returns what a Splitter makes of r: frames, "oversize N head" for those that were skipped, and the final error.
func split(r io.Reader, lim Limits) (out []string, banner string, err error) {
	sp := NewSplitter(r, lim)
	for {
		frame, err := sp.Next()
		if over, ok := errors.AsType[*OversizeError](err); ok {
			out = append(out, fmt.Sprintf("oversize %d %q", over.Size, over.Head))
			continue
		}
		if err != nil {
			return out, sp.Banner(), err
		}
		out = append(out, "frame "+frame)
	}
}

// chunks reads b in pieces of the sizes, over and over.
type chunks struct {
	b     []byte
	sizes []byte
	i     int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(c.sizes) > 0 {
		n = int(c.sizes[c.i%len(c.sizes)])
		c.i++
	}
	n = copy(p, c.b[:min(n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

func TestSplitterCutsAtEmptyLinesOnly(t *testing.T) {
	long := strings.Repeat("x", 100)
	tests := []struct {
		name, in string
		lim      Limits
		banner   string
		want     []string
		err      error
	}{
		{name: "empty", err: io.EOF},
		{name: "one frame", in: "Event: A\r\nB: c\r\n\r\n", want: []string{"frame Event: A\r\nB: c"}, err: io.EOF},
		{name: "banner is no frame", in: "Asterisk Call Manager/11.0.0\r\nResponse: S\r\n\r\n",
			banner: "Asterisk Call Manager/11.0.0", want: []string{"frame Response: S"}, err: io.EOF},
		{name: "banner alone", in: "Asterisk Call Manager/11.0.0\r\n", banner: "Asterisk Call Manager/11.0.0",
			err: io.EOF},
		{name: "half a banner", in: "Asterisk Call Man", err: io.ErrUnexpectedEOF},
		{name: "banner without an end", in: bannerPrefix + strings.Repeat("1", 400) + "\r\n\r\n",
			want: []string{"frame " + bannerPrefix + strings.Repeat("1", 400)}, err: io.EOF},
		{name: "banner in the middle is a frame", in: "A: b\r\n\r\nAsterisk Call Manager/9\r\nC: d\r\n\r\n",
			want: []string{"frame A: b", "frame Asterisk Call Manager/9\r\nC: d"}, err: io.EOF},
		{name: "lone CR and LF belong to the frame", in: "A: b\nc\rd\n\n\r\r\n\r\n",
			want: []string{"frame A: b\nc\rd\n\n\r"}, err: io.EOF},
		{name: "empty frames are seen", in: "\r\n\r\n\r\n\r\nA: b\r\n\r\n",
			want: []string{"frame ", "frame ", "frame A: b"}, err: io.EOF},
		{name: "three line ends", in: "A: b\r\n\r\n\r\nC: d\r\n\r\n", want: []string{"frame A: b", "frame \r\nC: d"},
			err: io.EOF},
		{name: "unfinished", in: "A: b\r\n\r\nC: d\r\n", want: []string{"frame A: b"}, err: io.ErrUnexpectedEOF},
		{name: "frame of the bound", in: long + "\r\n\r\n", lim: Limits{MaxLine: 100, MaxFrame: 100},
			want: []string{"frame " + long}, err: io.EOF},
		{name: "frame over the bound", in: long + "y\r\n\r\nA: b\r\n\r\n", lim: Limits{MaxLine: 1000, MaxFrame: 100},
			want: []string{fmt.Sprintf("oversize 101 %q", long[:48]), "frame A: b"}, err: io.EOF},
		{name: "line over the bound", in: "A: b\r\n" + long + "\r\n\r\nA: b\r\n\r\n",
			lim:  Limits{MaxLine: 99, MaxFrame: 1000},
			want: []string{fmt.Sprintf("oversize 106 %q", "A: b\r\n"+long[:42]), "frame A: b"}, err: io.EOF},
		{name: "lines within the bound in a longer frame", in: long + "\r\n" + long + "\r\n\r\n",
			lim: Limits{MaxLine: 100, MaxFrame: 1000}, want: []string{"frame " + long + "\r\n" + long}, err: io.EOF},
		{name: "oversize without an end", in: long + long, lim: Limits{MaxLine: 9, MaxFrame: 10},
			want: []string{fmt.Sprintf("oversize 200 %q", long[:48])}, err: io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			readers := map[string]io.Reader{
				"whole":   strings.NewReader(tt.in),
				"bytes":   iotest.OneByteReader(strings.NewReader(tt.in)),
				"dataerr": iotest.DataErrReader(strings.NewReader(tt.in)),
				"sevens":  &chunks{b: []byte(tt.in), sizes: []byte{7, 1, 3}},
			}
			for name, r := range readers {
				got, banner, err := split(r, tt.lim)
				if !slices.Equal(got, tt.want) || banner != tt.banner || !errors.Is(err, tt.err) {
					t.Errorf("%s:\n got %q, %q, %v\nwant %q, %q, %v", name, got, banner, err, tt.want, tt.banner,
						tt.err)
				}
			}
		})
	}
}

func TestSplitterKeepsReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	got, _, err := split(io.MultiReader(strings.NewReader("A: b\r\n\r\nC"), iotest.ErrReader(broken)), Limits{})
	if len(got) != 1 || !errors.Is(err, broken) {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := NewSplitter(iotest.ErrReader(nil), Limits{}).Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Fatalf("a reader that never reads: %v", err)
	}
}

func TestSplitterMemoryIsBounded(t *testing.T) {
	const size = 64 << 20
	for name, line := range map[string]string{"one line": "x", "many lines": "abc: def\r\n"} {
		t.Run(name, func(t *testing.T) {
			unit := []byte(strings.Repeat(line, 1000))
			sp := NewSplitter(io.MultiReader(io.LimitReader(&endless{unit: unit}, size),
				strings.NewReader("\r\n\r\nEvent: A\r\n\r\n")), Limits{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := sp.Next()
			runtime.ReadMemStats(&after)
			over, ok := errors.AsType[*OversizeError](err)
			if !ok || over.Size < size-2 {
				t.Fatalf("got %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4*DefaultMaxFrame {
				t.Errorf("%d bytes allocated for a frame of %d", n, size)
			}
			if frame, err := sp.Next(); frame != "Event: A" || err != nil {
				t.Errorf("after it: %q, %v", frame, err)
			}
			if len(sp.buf) > bufferSize {
				t.Errorf("holds %d bytes afterwards", len(sp.buf))
			}
		})
	}
}

type endless struct {
	unit []byte
	at   int
}

func (e *endless) Read(p []byte) (n int, _ error) {
	for n < len(p) {
		k := copy(p[n:], e.unit[e.at:])
		n, e.at = n+k, (e.at+k)%len(e.unit)
	}
	return n, nil
}

func TestSplitterReadsRecordings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.ami")
	if err != nil || len(files) == 0 {
		t.Fatal("no recordings", err)
	}
	more, _ := filepath.Glob("../event/testdata/captures/*.ami")
	for _, file := range append(files, more...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, banner, err := split(bytes.NewReader(b), Limits{})
		// Some were cut off in the last line end, hence io.ErrUnexpectedEOF.
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) ||
			!strings.HasPrefix(banner, bannerPrefix) || len(got) == 0 {
			t.Errorf("%s: %d frames, banner %q, %v", file, len(got), banner, err)
			continue
		}
		// The frames and their ends are the recording, byte for byte.
		joined := banner + "\r\n"
		for _, f := range got {
			joined += strings.TrimPrefix(f, "frame ") + "\r\n\r\n"
		}
		rest, ok := strings.CutPrefix(string(b), joined)
		if !ok || (rest == "") != errors.Is(err, io.EOF) {
			t.Errorf("%s: frames do not add up to the recording", file)
		}
	}
}

func TestIndexEndFindsWhatBytesIndexFinds(t *testing.T) {
	// Every string of CR, LF, a letter and TAB up to nine bytes long.
	const letters = "\r\nx\t"
	for n := range 10 {
		b := make([]byte, n)
		for code := range 1 << (2 * n) {
			for i := range b {
				b[i] = letters[code>>(2*i)&3]
			}
			if got, want := indexFrameEnd(b), bytes.Index(b, []byte(frameEnd)); got != want {
				t.Fatalf("%q: %d, want %d", b, got, want)
			}
		}
	}
}

func FuzzSplitter(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.ami")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{1, 200, 3}, uint16(50), uint16(400))
	}
	f.Add([]byte("\r\n\r\n\r\nA: b\r\n\r\r\n\r\n"), []byte{2}, uint16(3), uint16(5))
	f.Fuzz(func(t *testing.T, data, sizes []byte, maxLine, maxFrame uint16) {
		lim := Limits{MaxLine: int(maxLine), MaxFrame: int(maxFrame)}
		for i := range sizes {
			sizes[i] = max(sizes[i], 1)
		}
		whole, banner, err := split(bytes.NewReader(data), lim)
		pieces, banner2, err2 := split(&chunks{b: data, sizes: sizes}, lim)
		if !slices.Equal(whole, pieces) || banner != banner2 || err != err2 {
			t.Fatalf("the cut of the reads matters:\n%q, %q, %v\n%q, %q, %v", whole, banner, err, pieces, banner2, err2)
		}
		lim = lim.withDefaults()
		total := len(banner)
		for _, f := range whole {
			if text, ok := strings.CutPrefix(f, "frame "); ok {
				total += len(text)
				if len(text) > lim.MaxFrame || strings.Contains(text, "\r\n\r\n") {
					t.Fatalf("frame %q", text)
				}
			}
		}
		if total > len(data) {
			t.Fatalf("%d bytes out of %d", total, len(data))
		}
	})
}

// event is one that Asterisk sends, of average length.
const event = "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\nEventTV: " +
	"2026-11-22T21:50:41.214+0000\r\nSeverity: Error\r\n" +
	"Service: PJSIP\r\nEventVersion: 1\r\nAccountID: 6001\r\nSessionID: 3f1a@lab\r\nLocalAddress: " +
	"IPV4/UDP/10.99.0.1/5060\r\n" +
	"RemoteAddress: IPV4/UDP/10.99.0.66/5060\r\nChallenge: x\r\nResponse: y\r\nExpectedResponse: \r\n\r\n"

func BenchmarkSplitter(b *testing.B) {
	for name, perRead := range map[string]int{"one event a read": 1, "64 KiB reads": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			r := &endless{unit: []byte(event)}
			var src io.Reader = r
			if perRead == 1 {
				src = readerFunc(func(p []byte) (int, error) { return copy(p, event), nil })
			}
			sp := NewSplitter(src, Limits{})
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sp.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
